"""Where the parts of a model come from: tokenizer, language model, stage 1's visual encoder, an untrained one."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from processing_fla import FlaProcessor, FlaVideoProcessor, train_tokenizer
from processing_fla.tokenization_fla import set_start_tokens
from training_fla.files import InputError, first_line
from training_fla.recipe import Stage2Arguments, TextArguments, VisualArguments


def load_tokenizer(source: str | None) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the Hub.

    Args:
        source (`str`, *optional*): folder or Hub id.

    Returns:
        [`~transformers.PreTrainedTokenizerBase`]: as saved.

    Raises:
        InputError: none is named, or none is there.
    """
    if source is None:
        raise InputError("the recipe names no `tokenizer`; make one with `fla trim`, or set `train_tokenizer_pieces`")
    if (Path(source) / "processor_config.json").is_file():
        return FlaProcessor.from_pretrained(source).tokenizer
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load a tokenizer from {source}: {first_line(error)}") from None


def tokenizer_of_sentences(sentences: Sequence[str], num_pieces: int, text: TextArguments) -> PreTrainedTokenizerBase:
    """Train a tokenizer on a small corpus of one's own, where no pre-trained language model is to be used.

    Args:
        sentences (`Sequence[str]`): training sentences.
        num_pieces (`int`): size of the vocabulary at most.
        text ([`TextArguments`]): `language_code`.

    Returns:
        [`~transformers.MBartTokenizer`]: Unigram, MBart's format.

    Raises:
        InputError: the recipe names no `language_code`.
    """
    if text.language_code is None:
        raise InputError("`train_tokenizer_pieces` needs a `language_code`, e.g. en_XX")
    return train_tokenizer(sentences, vocab_size=num_pieces, language_codes=(text.language_code,))


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The token ids a language model's config must agree on with its tokenizer.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): with `tgt_lang` where it is of MBart's kind.

    Returns:
        `dict`: `pad_token_id`, `bos_token_id`, `eos_token_id`, `decoder_start_token_id`. MBart starts a sentence with
        its language, mBART-50 and NLLB with `</s>`; others with padding, as T5 and Marian do.
    """
    languages = getattr(tokenizer, "tgt_lang", None) is not None
    start = tokenizer(text_target="")["input_ids"][-1] if languages else tokenizer.pad_token_id
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {name: value for name, value in ids.items() if value is not None} | {"decoder_start_token_id": start}


def load_language_model(stage: Stage2Arguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Load the pre-trained language model, or make a random one (Table 10).

    Args:
        stage ([`Stage2Arguments`]): which one, and fields of its config to change.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its special tokens.

    Returns:
        [`~transformers.PreTrainedModel`]: any of `AutoModelForSeq2SeqLM`, in fp32.

    Raises:
        InputError: not exactly one of `language_model` and `language_model_config`, nothing to load, an unknown field.
    """
    if bool(stage.language_model) == bool(stage.language_model_config):
        raise InputError("stage 2 needs one of `language_model` (pre-trained) and `language_model_config` (random)")
    ids = special_token_ids(tokenizer)
    try:
        if stage.language_model_config:
            fields = {
                "vocab_size": len(tokenizer),
                **ids,
                **stage.language_model_config,
                **stage.language_model_overrides,
            }
            model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**fields))
            set_start_tokens(model, tokenizer)
            return model
        config = AutoConfig.from_pretrained(stage.language_model, **stage.language_model_overrides)
        unknown = [name for name in stage.language_model_overrides if not hasattr(config, name)]
        if unknown:
            raise InputError(f"language_model_overrides: {type(config).__name__} has no field {unknown[0]}")
        if stage.random_language_model:
            model = AutoModelForSeq2SeqLM.from_config(config)
        else:
            model = AutoModelForSeq2SeqLM.from_pretrained(stage.language_model, config=config)
    except (OSError, KeyError, TypeError) as error:
        name = stage.language_model or stage.language_model_config
        raise InputError(f"cannot make the language model {name}: {first_line(error)}") from None
    set_start_tokens(model, tokenizer)  # released MBart names none and would begin with <s>
    return model


def vision_config(stage: VisualArguments) -> FlaVisionConfig:
    """The visual encoder a recipe describes.

    Args:
        stage ([`VisualArguments`]): backbone, width and kernel.

    Returns:
        [`~modeling_fla.FlaVisionConfig`]: ResNet18 unless the recipe says otherwise.

    Raises:
        InputError: a backbone config without a known `model_type`.
    """
    fields = {"hidden_size": stage.visual_feature_size, "temporal_kernel_size": stage.temporal_kernel_size}
    if stage.vision_backbone is not None:
        try:
            fields["backbone_config"] = AutoConfig.for_model(**stage.vision_backbone)
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(
                f"vision_backbone {stage.vision_backbone} is no backbone config: {first_line(error)}"
            ) from None
    return FlaVisionConfig(**fields)


def load_stage1(folder: str, processor: FlaProcessor) -> FlaForConditionalGeneration:
    """Load the model stage 1 left.

    Args:
        folder (`str`): output of `run_stage1.py`, or a Hub id.
        processor ([`~processing_fla.FlaProcessor`]): stage 2's; must see videos as stage 1 did.

    Returns:
        [`~modeling_fla.FlaForConditionalGeneration`]: whole, Light-T included.

    Raises:
        InputError: no checkpoint there, or it was trained on frames of another stride or size.
    """
    try:
        model = FlaForConditionalGeneration.from_pretrained(folder)
        before = FlaVideoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"stage1_checkpoint {folder} cannot be loaded: {first_line(error)}") from None
    for name in ("frame_stride", "size", "crop_size"):
        old, new = getattr(before, name), getattr(processor.video_processor, name)
        if old != new:
            raise InputError(f"stage1_checkpoint {folder} was trained with {name} {old}, this recipe says {new}")
    return model


def untrained_visual_model(stage: Stage2Arguments) -> FlaForConditionalGeneration:
    """A visual encoder that never saw a sign: ImageNet at best (the first rows of Tables 4 and 5).

    Args:
        stage ([`Stage2Arguments`]): the visual encoder's lines.

    Returns:
        [`~modeling_fla.FlaForConditionalGeneration`]: only its visual encoder is of use.
    """
    model = FlaForConditionalGeneration(FlaConfig.light_t("tiny", vocab_size=8, vision_config=vision_config(stage)))
    if stage.imagenet_weights:
        model.load_imagenet_weights(stage.imagenet_weights)
    return model
