"""Both stages in one run, for the paper's first limitation (Sec. 7).

Light-T teaches the visual encoder while the language model learns from the same sign features with their gradient
stopped, so that it cannot dominate.

pixels -> visual encoder -> sign features --+-> VL-Adapter -> Light-T          loss 1: reaches the visual encoder
                                            |
                                            +-> (gradient stopped) -> LLM-Adapter -> language model    loss 2: does not
"""

import functools
from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import Seq2SeqLMOutput

from modeling_fla import FlaConfig, FlaForConditionalGeneration
from training_fla.files import InputError


class LightTBranch(nn.Module):
    """What is thrown away after the run: VL-Adapter and Light-T.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): of stage 1; its visual encoder is left out.
    """

    def __init__(self, model: FlaForConditionalGeneration):
        super().__init__()
        self.adapter, self.language_model = model.adapter, model.language_model
        self.input_embed_scale = model.config.input_embed_scale

    def forward(
        self, sign_features: torch.Tensor, attention_mask: torch.Tensor, decoder_input_ids: torch.Tensor
    ) -> torch.Tensor:
        """Score a sentence.

        Args:
            sign_features (`torch.FloatTensor` of shape `(B, N, C)`): zeros at padding; the gradient goes through.
            attention_mask (`torch.LongTensor` of shape `(B, N)`): 1 for real positions.
            decoder_input_ids (`torch.LongTensor` of shape `(B, L)`): the sentence shifted right.

        Returns:
            `torch.FloatTensor` of shape `(B, L, V)`: logits.
        """
        return self.language_model(
            inputs_embeds=self.adapter(sign_features) * self.input_embed_scale,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            use_cache=False,
        ).logits


@dataclass
class OneRunOutput(Seq2SeqLMOutput):
    """A language model's output with Light-T's beside it.

    Args:
        light_t_logits (`torch.FloatTensor` of shape `(B, L, V)`): scores of the same sentence.
    """

    light_t_logits: torch.Tensor | None = None


class OneRunModel(FlaForConditionalGeneration):
    """A model with a Light-T beside its language model while it trains; in evaluation it is as any other.

    Args:
        *args: as of [`~modeling_fla.FlaForConditionalGeneration`].
        **kwargs: as of [`~modeling_fla.FlaForConditionalGeneration`].
    """

    _auto_class = None  # only checkpoints hold this class; the model that is kept is a plain one

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.light_t: LightTBranch | None = None

    @functools.wraps(FlaForConditionalGeneration.forward)  # `generate` reads the names of the arguments
    def forward(self, *args, **kwargs):
        """Score sentences; in training by both language models, the larger one's gradient stopped at the features.

        Args:
            *args: as of [`~modeling_fla.FlaForConditionalGeneration.forward`].
            **kwargs: the same; in training `pixel_values_videos`, `attention_mask` and `decoder_input_ids` by name.

        Returns:
            [`OneRunOutput`] in training, with `light_t_logits` of shape `(B, L, V)`; else as of any model.
        """
        pixels = kwargs.get("pixel_values_videos")
        if not self.training or pixels is None or self.light_t is None:
            return super().forward(*args, **kwargs)
        mask, tokens = kwargs["attention_mask"], kwargs["decoder_input_ids"]
        sign_features = self.get_sign_features(pixels, mask)
        kwargs = kwargs | {"pixel_values_videos": None, "sign_features": sign_features.detach()}
        outputs = super().forward(*args, **kwargs)
        return OneRunOutput(**outputs, light_t_logits=self.light_t(sign_features, mask, tokens))


def add_light_t(model: OneRunModel, size: str, overrides: dict, special_token_ids: dict[str, int]) -> None:
    """Put a fresh VL-Adapter and Light-T beside the language model.

    Args:
        model ([`OneRunModel`]): its visual encoder is trained.
        size (`str`): as in stage 1.
        overrides (`dict`): fields of Light-T's config to change.
        special_token_ids (`dict`): of the tokenizer both share.

    Raises:
        InputError: the visual encoder is frozen, or the adapter does not read sign features.
    """
    if model.visual_encoder.frozen_parts or model.config.input_features != "sign":
        raise InputError(
            "one_run_light_t trains the visual encoder: set freeze_vision_backbone and freeze_temporal_module to "
            "false, and input_features to sign"
        )
    config = FlaConfig.light_t(
        size,
        vocab_size=model.config.text_config.vocab_size,
        vision_config=model.config.vision_config,
        **special_token_ids | overrides,
    )
    stage1 = FlaForConditionalGeneration(config)
    model.light_t = LightTBranch(stage1)
    # A checkpoint keeps a shared table once, and only where it is told of the sharing.
    ties = {f"light_t.{target}": f"light_t.{source}" for target, source in stage1.all_tied_weights_keys.items()}
    model.all_tied_weights_keys |= ties
    model._tied_weights_keys |= ties


def without_light_t(model: OneRunModel) -> FlaForConditionalGeneration:
    """The model to keep.

    Args:
        model ([`OneRunModel`]): after training.

    Returns:
        [`~modeling_fla.FlaForConditionalGeneration`]: the same parts, without Light-T.
    """
    plain = FlaForConditionalGeneration(model.config, model.visual_encoder, model.language_model)
    plain.adapter = model.adapter
    plain.generation_config = model.generation_config
    return plain.eval()
