"""Every architecture number of FLa-LLM, with its default, its source and its check."""

import copy

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

INPUT_FEATURES = ("frame", "sign", "hidden")

# Where `pipeline(...)` finds the task in a saved folder if this package is not installed.
CUSTOM_PIPELINES = {
    "sign-language-translation": {"impl": "pipeline_fla.SignTranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"]}
}

# Paper: Table 7. Layers (each of encoder and decoder), attention heads, hidden size, feed-forward size.
LIGHT_T_SIZES = {
    "tiny": (1, 4, 256, 1024),
    "small": (2, 4, 512, 2048),
    "base": (3, 8, 512, 2048),  # Paper: Sec. 5.2, the size behind every other table
    "large": (4, 8, 1024, 4096),
}


@strict
class FlaVisionConfig(PreTrainedConfig):
    r"""Configuration of [`FlaVisualEncoder`]: vision backbone and temporal module (paper Sec. 4.2).

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            Any vision model [`AutoModel`] or [`AutoBackbone`] can build: ResNet18 (the default), ConvNeXt, DINOv2, ...
        hidden_size (`int`, *optional*, defaults to 512): C, the channels of the sign features.
        temporal_kernel_size (`int`, *optional*, defaults to 5): Frames under the convolution. Odd, so that N = T.
        image_mean (`list[float]` or `float`, *optional*, defaults to ImageNet's):
            Means of R, G and B in [0, 1], or one for all; `uint8` pixels are normalised with it on the device.
        image_std (`list[float]` or `float`, *optional*, defaults to ImageNet's): Standard deviations, likewise.

    Raises:
        ValueError: if `temporal_kernel_size` is even or `hidden_size` is not positive.
    """

    model_type = "fla_vision"
    base_config_key = "vision_config"
    sub_configs_defaults = {
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="resnet",
            # Paper: Sec. 5.2, ResNet18.
            init_kwargs={"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
        )
    }

    backbone_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 512  # Unstated: the width of ResNet18's features
    temporal_kernel_size: int = 5  # Unstated: the kernel of GFSLT-VLP's temporal convolutions
    image_mean: list[float] | tuple[float, ...] | float = (0.485, 0.456, 0.406)  # Paper: Sec. 5.2, ImageNet weights
    image_std: list[float] | tuple[float, ...] | float = (0.229, 0.224, 0.225)

    def __post_init__(self, **kwargs):
        _own_parts(self)
        super().__post_init__(**kwargs)
        _forget_dtypes(self)
        # Lists, so that the configuration equals its own JSON.
        self.image_mean = list(self.image_mean) if isinstance(self.image_mean, tuple) else self.image_mean
        self.image_std = list(self.image_std) if isinstance(self.image_std, tuple) else self.image_std
        self.validate_architecture()

    def validate_architecture(self):
        """Refuse numbers that no network can be built from; called before saving too."""
        if self.temporal_kernel_size < 1 or self.temporal_kernel_size % 2 == 0:
            raise ValueError(f"`temporal_kernel_size` must be odd, so that N = T; got {self.temporal_kernel_size}.")
        if self.hidden_size < 1:
            raise ValueError(f"`hidden_size` must be at least 1, got {self.hidden_size}.")

    @property
    def frame_feature_size(self) -> int:
        """Channels of the frame features, as the backbone gives them."""
        sizes = getattr(self.backbone_config, "hidden_sizes", None)
        return sizes[-1] if sizes else self.backbone_config.hidden_size

    @property
    def num_channels(self) -> int:
        """Colour channels of one frame."""
        return getattr(self.backbone_config, "num_channels", 3)


def _own_parts(config: PreTrainedConfig) -> None:
    """Copy the parts: they may belong to a model, and a whole configuration resets their attention and dtype."""
    for name in config.sub_configs_defaults:
        setattr(config, name, copy.deepcopy(getattr(config, name)))


def _forget_dtypes(config: PreTrainedConfig) -> None:
    """A dtype of its own would pin a part when the whole is loaded in another."""
    for name in config.sub_configs_defaults:
        if getattr(config, name) is not None:
            getattr(config, name).dtype = None


def _of_text_config(name: str) -> property:
    """A property that reads and sets the field of `text_config`, or of its decoder (T5Gemma), of the same name."""

    def setter(config, value):
        setattr(config.text_config.get_text_config(), name, value)

    return property(lambda config: getattr(config.text_config.get_text_config(), name, None), setter)


@strict
class FlaConfig(PreTrainedConfig):
    r"""Configuration of [`FlaForConditionalGeneration`], for both stages of the paper.

    Args:
        vision_config ([`FlaVisionConfig`] or `dict`, *optional*): The visual encoder; `None` with `sign_feature_size`.
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            The language model: MBart, MT5, T5Gemma, NLLB or any other encoder-decoder. Defaults to MBart.
        input_features (`str`, *optional*, defaults to `"sign"`):
            What the adapter reads (paper Table 8): `"frame"`, the backbone's features; `"sign"`, the temporal
            module's; or `"hidden"`, the states of Light-T's encoder, which is then a part of the model, always frozen.
        sign_feature_size (`int`, *optional*):
            C of sign features that another program makes; the model then has no visual encoder and reads those.
        sign_feature_extractor (`str`, *optional*): That program, in words.
        adapter_hidden_size (`int`, *optional*): Width of the adapter's one hidden layer. Defaults to D.
        input_embed_scale (`float`, *optional*, defaults to 1.0):
            Multiplies the adapter's output. Language models scale their word embeddings themselves but not
            `inputs_embeds`.
        freeze_vision_backbone (`bool`, *optional*, defaults to `False`):
            Freeze the vision backbone: no gradient, BatchNorm in evaluation mode (paper Table 9, VB).
        freeze_temporal_module (`bool`, *optional*, defaults to `False`): The same (paper Table 9, TM).
        light_t_config (`PreTrainedConfig` or `dict`, *optional*): For `"hidden"`: stage 1's language model.
        light_t_adapter_hidden_size (`int`, *optional*): For `"hidden"`: `adapter_hidden_size` of stage 1.
        light_t_input_embed_scale (`float`, *optional*, defaults to 1.0): For `"hidden"`: `input_embed_scale`.

    Raises:
        ValueError: if `input_features` is unknown or is `"hidden"` without `light_t_config`, `text_config` is no
            encoder-decoder, or `sign_feature_size` stands beside a `vision_config`.
    """

    model_type = "fla_llm"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=FlaVisionConfig, optional=True),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="mbart"),  # Paper: Sec. 4.3
        "light_t_config": SubConfigSpec(config_class=AutoConfig, model_type="mbart", optional=True),
    }
    keys_to_ignore_at_inference = ["cache"]
    custom_pipelines = CUSTOM_PIPELINES  # emptied by the installed `processing_fla`, which registers the task itself

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    light_t_config: dict | PreTrainedConfig | None = None
    input_features: str = "sign"  # Paper: Table 8
    sign_feature_size: int | None = None
    sign_feature_extractor: str = ""
    adapter_hidden_size: int | None = None  # Unstated: as wide as its output, as MMTLB's VLMapper
    input_embed_scale: float = 1.0  # Unstated: GFSLT-VLP feeds its Light model unscaled
    freeze_vision_backbone: bool = False
    freeze_temporal_module: bool = False
    light_t_adapter_hidden_size: int | None = None
    light_t_input_embed_scale: float = 1.0
    is_encoder_decoder: bool = True

    vocab_size = _of_text_config("vocab_size")
    pad_token_id = _of_text_config("pad_token_id")
    bos_token_id = _of_text_config("bos_token_id")
    eos_token_id = _of_text_config("eos_token_id")
    decoder_start_token_id = _of_text_config("decoder_start_token_id")
    hidden_size = _of_text_config("hidden_size")
    num_attention_heads = _of_text_config("num_attention_heads")
    num_hidden_layers = _of_text_config("num_hidden_layers")
    use_cache = _of_text_config("use_cache")

    def __post_init__(self, **kwargs):
        if num_prefix_tokens := kwargs.pop("num_prefix_tokens", 0):  # a field of 0.1.0
            raise ValueError(
                f"`num_prefix_tokens` is {num_prefix_tokens}: this checkpoint has a learned prefix, which only "
                "version 0.1.0 of FLa-LLM supports; train it again with LoRA."
            )
        kwargs["custom_pipelines"] = copy.deepcopy(type(self).custom_pipelines)
        if self.vision_config is None and self.sign_feature_size is None:
            self.vision_config = FlaVisionConfig()
        _own_parts(self)
        super().__post_init__(**kwargs)
        _forget_dtypes(self)
        self.validate_architecture()

    def validate_architecture(self):
        """Refuse what no network can be built from; called before saving too."""
        if self.input_features not in INPUT_FEATURES:
            raise ValueError(
                f"`input_features` must be one of {', '.join(INPUT_FEATURES)}; got {self.input_features!r}."
            )
        if self.input_features == "hidden" and self.light_t_config is None:
            raise ValueError('`input_features="hidden"` needs `light_t_config`: the language model of stage 1.')
        if self.sign_feature_size is not None and (self.vision_config, self.input_features) != (None, "sign"):
            raise ValueError('`sign_feature_size` goes with no `vision_config` and with `input_features="sign"`.')
        if not self.text_config.is_encoder_decoder:
            raise ValueError(
                f"`text_config` must be an encoder-decoder such as MBart; `{self.text_config.model_type}` is not."
            )

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs) -> "FlaConfig":
        """As [`PreTrainedConfig.from_dict`]; the configuration of a part alone, e.g. MBart's, becomes that part."""
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            config_dict = {"vision_config" if model_type == FlaVisionConfig.model_type else "text_config": config_dict}
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict:
        """As [`PreTrainedConfig.to_dict`], with the place of the pipeline's code in a saved folder."""
        return super().to_dict() | {"custom_pipelines": copy.deepcopy(CUSTOM_PIPELINES)}

    @property
    def sign_embed_size(self) -> int:
        """D, the width of what the language model's encoder reads; T5Gemma keeps its two halves in configs."""
        encoder = getattr(self.text_config, "encoder", self.text_config)
        return getattr(encoder, "text_config", encoder).hidden_size

    @property
    def adapter_input_size(self) -> int:
        """Channels of what the adapter, and so the input `sign_features`, reads."""
        if self.sign_feature_size is not None:
            return self.sign_feature_size
        if self.input_features == "frame":
            return self.vision_config.frame_feature_size
        return self.vision_config.hidden_size if self.input_features == "sign" else self.light_t_config.hidden_size

    @classmethod
    def light_t(
        cls,
        size: str = "base",
        vocab_size: int = 2429,
        vision_config: FlaVisionConfig | None = None,
        **text_config_overrides,
    ) -> "FlaConfig":
        r"""The stage-1 configuration: a visual encoder and a lightweight translation model (paper Table 7).

        Light-T is an MBart-style encoder-decoder with learned positions and an output head of its own.

        Args:
            size (`str`, *optional*, defaults to `"base"`): `tiny`, `small`, `base` or `large`.
            vocab_size (`int`, *optional*, defaults to 2429):
                Tokens of the tokenizer stage 2 will use (paper Sec. 4.2). 2429 gives Table 7's parameter counts.
            vision_config ([`FlaVisionConfig`], *optional*): The visual encoder.
            **text_config_overrides: Fields of [`MBartConfig`], e.g. `decoder_start_token_id`.

        Returns:
            [`FlaConfig`]: with `text_config` a [`MBartConfig`].

        Raises:
            ValueError: if `size` is unknown.
        """
        if size not in LIGHT_T_SIZES:
            raise ValueError(f"Light-T comes in the sizes {', '.join(LIGHT_T_SIZES)}; got {size!r}.")
        layers, heads, hidden_size, ffn_size = LIGHT_T_SIZES[size]
        text_config = {
            "model_type": "mbart",
            "vocab_size": vocab_size,
            "d_model": hidden_size,
            "encoder_layers": layers,
            "decoder_layers": layers,
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": ffn_size,
            "decoder_ffn_dim": ffn_size,
            # Unstated: these five are GFSLT-VLP's light model's; Table 7's counts confirm positions and untied head.
            "max_position_embeddings": 1024,
            "activation_function": "relu",
            "dropout": 0.1,
            "scale_embedding": True,
            "tie_word_embeddings": False,
        }
        return cls(vision_config=vision_config, text_config=text_config | text_config_overrides)


__all__ = ["FlaConfig", "FlaVisionConfig"]
