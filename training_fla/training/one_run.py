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
from transformers.modeling_outputs import Seq2SeqLMOutput

from modeling_fla import FlaConfig, FlaForConditionalGeneration
from training_fla.errors import InputError

from .parts import check_fields


@dataclass
class OneRunOutput(Seq2SeqLMOutput):
    """The outputs of the language model and, in training, what Light-T says of the same clips.

    Args:
        light_t_logits (`torch.FloatTensor` of shape `(B, L, V)`, *optional*): scores, of any floating dtype.
    """

    light_t_logits: torch.FloatTensor | None = None


class OneRunModel(FlaForConditionalGeneration):
    """A model with a Light-T beside its language model while it trains; in evaluation it is as any other."""

    _auto_class = None  # only checkpoints hold this class; the model that is kept is a plain one

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.light_t: FlaForConditionalGeneration | None = None

    @functools.wraps(FlaForConditionalGeneration.forward)  # `generate` and the Trainer read the names of the arguments
    def forward(self, *args, **kwargs):
        """Score sentences; in training by both language models, whose losses the trainer adds.

        Args:
            *args: as of [`~modeling_fla.FlaForConditionalGeneration.forward`].
            **kwargs: the same; in training `pixel_values_videos` `(B, T, 3, H, W)`, `attention_mask` `(B, T)`,
                `decoder_input_ids` `(B, L)` by name.

        Returns:
            `OneRunOutput`: as of any model; `logits` `(B, L, V)` are the larger language model's.
        """
        if not self.training or self.light_t is None or kwargs.get("pixel_values_videos") is None:
            return super().forward(*args, **kwargs)
        masks = {name: kwargs.get(name) for name in ("attention_mask", "positions")}
        sign_features = self.get_sign_features(kwargs.pop("pixel_values_videos"), **masks)
        outputs = super().forward(*args, sign_features=sign_features.detach(), **kwargs)
        light_t_outputs = self.light_t(sign_features=sign_features, **kwargs)
        return OneRunOutput(**outputs, light_t_logits=light_t_outputs.logits)


def add_light_t(model: OneRunModel, size: str, overrides: dict, special_token_ids: dict[str, int]) -> None:
    """Put a fresh VL-Adapter and Light-T beside the language model, whose special tokens it shares."""
    if model.visual_encoder.frozen_parts or model.config.input_features != "sign":
        raise InputError(
            "one_run_light_t trains the visual encoder: set freeze_vision_backbone and freeze_temporal_module to "
            "false, and input_features to sign"
        )
    check_fields({"model_type": "mbart"} | overrides, "one_run_light_t_overrides")
    shared = {"vocab_size": model.config.text_config.vocab_size, "vision_config": model.config.vision_config}
    config = FlaConfig.light_t(size, **shared, **special_token_ids | overrides)
    model.light_t = FlaForConditionalGeneration(config)
    model.light_t.visual_encoder = None  # it reads the features of the encoder it teaches
    # Saving and loading follow this map: a shared table is stored once.
    model.all_tied_weights_keys |= {
        f"light_t.{target}": f"light_t.{source}" for target, source in model.light_t.all_tied_weights_keys.items()
    }


def without_light_t(model: OneRunModel) -> FlaForConditionalGeneration:
    """The model to keep: the same parts without Light-T."""
    plain = FlaForConditionalGeneration(model.config, model.visual_encoder, model.language_model)
    plain.adapter, plain.generation_config = model.adapter, model.generation_config
    return plain.eval()
