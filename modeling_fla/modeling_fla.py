"""FLa-LLM: visual encoder -> adapter -> language model, for gloss-free sign language translation.

pixel_values_videos   (B, T, 3, H, W)   sampled frames
        |  vision backbone               Paper: ResNet18 (Sec. 5.2), on real frames only
frame features        (B, T, C)
        |  temporal module               Paper: Conv1D-BN-ReLU (Sec. 4.2)
sign features         (B, N, C)          N = T: the convolution keeps the length
        |  adapter                       Paper: MLP with one hidden layer (Eq. 2)
sign embeddings       (B, N, D)
        |  language model                stage 1: Light-T; stage 2: MBart
logits                (B, L, V)
"""

import copy
import os

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForSeq2SeqLM, Cache, GenerationMixin, LogitsProcessor, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import can_return_tuple

from .configuration_fla import FlaConfig
from .visual_encoder_fla import FlaPreTrainedModel, FlaVisualEncoder, real_positions_mask


class FlaAdapter(nn.Module):
    """An MLP with one hidden layer, from visual features to the language model's embedding space (paper Eq. 2)."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int):
        super().__init__()
        self.hidden = nn.Linear(input_size, hidden_size)
        self.output = nn.Linear(hidden_size, output_size)

    def forward(self, features: torch.FloatTensor) -> torch.FloatTensor:
        """Bring sign features to the width of the language model, position by position.

        Args:
            features (`torch.FloatTensor` of shape `(B, N, C)`): of any floating dtype; padding may hold anything.

        Returns:
            `torch.FloatTensor` of shape `(B, N, D)`: sign embeddings; at padding, of what padding held.
        """
        # Cached features may be of another dtype than the weights; autocast casts both. Quantized weights are integers
        # (bitsandbytes) or behind a method (torch): such layers cast their input themselves.
        weight = self.hidden.weight
        if isinstance(weight, torch.Tensor) and weight.is_floating_point():
            features = features.to(weight.dtype)
        return self.output(F.relu(self.hidden(features)))


class FlaLightTEncoder(nn.Module):
    """Stage 1's adapter and Light-T's encoder, always frozen: sign features to sign hidden states (paper Eq. 3)."""

    def __init__(self, adapter: FlaAdapter, encoder: PreTrainedModel, input_embed_scale: float):
        super().__init__()
        self.adapter = adapter
        self.encoder = encoder
        self.input_embed_scale = input_embed_scale
        self.encoder.embed_tokens = None  # it reads sign embeddings, never tokens
        self.train(False)

    def forward(self, sign_features: torch.FloatTensor, mask: torch.BoolTensor) -> torch.FloatTensor:
        """Hidden states of Light-T in place of sign features (paper Table 8).

        Args:
            sign_features (`torch.FloatTensor` of shape `(B, N, C)`): of the visual encoder; zeros at padding.
            mask (`torch.BoolTensor` of shape `(B, N)`): true for real positions.

        Returns:
            `torch.FloatTensor` of shape `(B, N, D)`: D of Light-T; zeros at padding.
        """
        _check_length("video", sign_features.shape[1], "sampled frames", _max_positions(self.encoder))
        sign_embeds = self.adapter(sign_features) * self.input_embed_scale
        hidden_states = self.encoder(inputs_embeds=sign_embeds, attention_mask=mask.long()).last_hidden_state
        return _without_padding(hidden_states, mask)

    def train(self, mode: bool = True) -> "FlaLightTEncoder":
        """Stay in evaluation, without gradients."""
        super().train(False)
        return self.requires_grad_(False)


def _without_padding(features: torch.FloatTensor, mask: torch.BoolTensor) -> torch.FloatTensor:
    return features.masked_fill(~mask.unsqueeze(-1), 0)


def _max_positions(stack: nn.Module) -> int | None:
    """Where the position table of an encoder or decoder ends; relative positions and M2M-100's table have no end."""
    table = getattr(stack, "embed_positions", None)
    if not isinstance(table, nn.Embedding):
        return None
    return table.num_embeddings - getattr(table, "offset", 0)


def _check_length(what: str, length: int | torch.Tensor, unit: str, limit: int | None) -> None:
    """Refuse an input that is longer than a position table."""
    if isinstance(length, torch.Tensor) and torch.compiler.is_compiling():
        return  # a static cache counts in a tensor, and a compiled graph cannot branch on its value
    if limit is not None and length > limit:
        raise ValueError(
            f"The longest {what} has {length} {unit}, but the language model's position table ends at {limit} "
            f"(`max_position_embeddings`)."
        )


def _remove_unused_parts(language_model: PreTrainedModel) -> None:
    """Leave the language model one table of token embeddings, the decoder's, and no eyes of its own (T5Gemma 2).

    The adapter takes the place of the encoder's table (paper Sec. 4.3). DistributedDataParallel would wait for the
    gradients of what is not used; where the head is untied, transformers makes three tables.
    """
    core, encoder = language_model.base_model, language_model.get_encoder()
    for name in {"vision_tower", "multi_modal_projector"} & dict(encoder.named_children()).keys():
        setattr(encoder, name, None)
    table, names = language_model.get_decoder().get_input_embeddings(), dict(language_model.named_modules())
    both = [name for name, module in names.items() if module in (encoder.get_input_embeddings(), table)]
    # Not by identity of weights: `from_pretrained` ties only after everything is built.
    if len(both) < 2 or any(f"{name}.weight" in language_model.all_tied_weights_keys for name in both):
        return
    encoder.set_input_embeddings(table)
    shared = getattr(core, "shared", None) or table
    source = next(name for name, module in names.items() if module is shared)
    if shared is not table:
        core.shared = table
    # Saving and loading follow this map: without it the shared tensor would be refused, or missed.
    language_model.all_tied_weights_keys |= {
        f"{name}.{part}": f"{source}.{part}" for name in both if name != source for part, _ in table.named_parameters()
    }


class FlaEncoder(nn.Module):
    """What `generate` takes for the encoder: videos or sign features to the language model's encoder states."""

    main_input_name = "pixel_values_videos"

    def __init__(self, model: "FlaForConditionalGeneration"):
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sign_features: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool = True,
    ) -> BaseModelOutput:
        """Encoder states of a batch. No `**kwargs`: `generate` passes on only what this signature names.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*):
                As in [`FlaForConditionalGeneration.forward`]; of shape `(B, N, C)` they are taken for sign features.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for a real frame, 0 for padding.
            sign_features (`torch.Tensor` of shape `(B, N, C)`, *optional*): Instead of frames.
            output_attentions (`bool`, *optional*): Of the language model's encoder.
            output_hidden_states (`bool`, *optional*): Of the language model's encoder.
            return_dict (`bool`): Of the language model's encoder.

        Returns:
            `BaseModelOutput`: `last_hidden_state` is `(B, N, D)`.
        """
        if pixel_values_videos is not None and pixel_values_videos.ndim == 3 and sign_features is None:
            pixel_values_videos, sign_features = None, pixel_values_videos
        elif pixel_values_videos is not None and pixel_values_videos.ndim == 2:
            pixel_values_videos = None  # `generate` was given no input and made up a start token
        sign_embeds, mask = self.model._sign_embeds(pixel_values_videos, sign_features, attention_mask)
        return self.model.language_model.get_encoder()(
            inputs_embeds=sign_embeds,
            attention_mask=mask.long(),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
        )


class FirstToken(LogitsProcessor):
    """Makes each video's sentence begin with its own token; `forced_bos_token_id` is one for all.

    Args:
        token_ids (`list[int]`): one for each video.
    """

    def __init__(self, token_ids: list[int]):
        self.token_ids = token_ids

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Leave one token possible where the first one is chosen.

        Args:
            input_ids (`torch.LongTensor` of shape `(B * beams, L)`): what is written so far.
            scores (`torch.FloatTensor` of shape `(B * beams, V)`): of the next token.

        Returns:
            `torch.FloatTensor` of shape `(B * beams, V)`: 0 at the token and minus infinity elsewhere, or `scores`.
        """
        if input_ids.shape[1] > 1:
            return scores
        first = torch.tensor(self.token_ids, device=scores.device)
        first = first.repeat_interleave(len(scores) // len(first))
        return torch.full_like(scores, -torch.inf).scatter(1, first[:, None], 0)


class FlaGenerationMixin(GenerationMixin):
    """`generate` from videos or from sign features, in one of the languages a model was trained on."""

    def generate(self, inputs=None, generation_config=None, *args, sign_features=None, language=None, **kwargs):
        r"""Translate: `GenerationMixin.generate`, from videos or from sign features.

        Args:
            inputs (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*): As `pixel_values_videos`.
            generation_config ([`GenerationConfig`], *optional*): Instead of the model's own.
            sign_features (`torch.FloatTensor` of shape `(B, N, C)`, *optional*):
                Instead of `pixel_values_videos`, with the same `attention_mask`.
            language (`str` or `list[str]`, *optional*):
                Of all sentences, or of each: one of [`languages`]. The model's default when absent.
            *args: As for `GenerationMixin.generate`.
            **kwargs: As for `GenerationMixin.generate`: `pixel_values_videos`, `attention_mask`, `num_beams`, ...

        Returns:
            As `GenerationMixin.generate`: token ids `(B, L)`, or more with `return_dict_in_generate=True`.

        Raises:
            ValueError: as `forward`; if the model was not trained on a language.
        """
        if language is not None:
            begin = self._language_options(language, kwargs.get("logits_processor"))
            if generation_config is None or "logits_processor" in begin:
                kwargs |= begin
            else:  # transformers warns of options beside a configuration
                generation_config = copy.deepcopy(generation_config)
                generation_config.update(**begin)
        if sign_features is not None:
            if inputs is not None or kwargs.get("pixel_values_videos") is not None:
                raise ValueError("Give either `pixel_values_videos` or `sign_features`, not both.")
            inputs = sign_features  # `FlaEncoder` knows them by their shape, so that all of `generate` works for both
        return super().generate(inputs, generation_config, *args, **kwargs)

    @property
    def languages(self) -> list[str]:
        """`list[str]`: the languages that `generate` may be asked for; empty of a model that was trained on one."""
        return list(getattr(self.generation_config, "language_token_ids", None) or {})

    def begin_in(self, language: str) -> None:
        """Make a language the default of `generate`.

        Args:
            language (`str`): one of [`languages`].

        Raises:
            ValueError: if the model was not trained on it.
        """
        self.generation_config.update(**self._language_options(language, None))

    def _language_options(self, language: str | list[str], logits_processor: list | None) -> dict:
        """Options of `generate` with which sentences begin as in training: with the token of a language."""
        known = getattr(self.generation_config, "language_token_ids", None) or {}
        languages = [language] if isinstance(language, str) else list(language)
        for code in languages:
            if code not in known:
                raise ValueError(
                    f"{code!r} is none of the languages of this model: {', '.join(known) or 'it has one'}."
                )
        token_ids = [known[code] for code in languages]
        # Before the first token stands either the language itself (MBart) or another token (mBART-50, NLLB, M2M-100).
        is_forced = self.generation_config.forced_bos_token_id is not None
        if isinstance(language, str):
            return {"forced_bos_token_id" if is_forced else "decoder_start_token_id": token_ids[0]}
        if is_forced:
            return {"logits_processor": [*(logits_processor or []), FirstToken(token_ids)]}
        return {"decoder_start_token_id": token_ids}


class FlaForConditionalGeneration(FlaPreTrainedModel, FlaGenerationMixin):
    r"""Sign language translation: a video, or its cached sign features, in; a spoken sentence out.

    Stage 1 and stage 2 of the paper differ by `config.text_config`, by what is frozen and by how they are trained.

    Args:
        config ([`FlaConfig`]): The configuration.
        visual_encoder ([`FlaVisualEncoder`], *optional*): A ready one to build around.
        language_model (`PreTrainedModel`, *optional*): A ready one to build around.
        light_t_encoder ([`FlaLightTEncoder`], *optional*): Likewise, with `input_features="hidden"`.
    """

    def __init__(
        self,
        config: FlaConfig,
        visual_encoder: FlaVisualEncoder | None = None,
        language_model: PreTrainedModel | None = None,
        light_t_encoder: FlaLightTEncoder | None = None,
    ):
        super().__init__(config)
        if visual_encoder is None and config.vision_config is not None:
            visual_encoder = FlaVisualEncoder(config.vision_config)
        self.visual_encoder = visual_encoder  # `None` with `sign_feature_size`
        self.light_t_encoder = self._build_light_t_encoder() if light_t_encoder is None else light_t_encoder
        text_width = config.sign_embed_size
        self.adapter = FlaAdapter(config.adapter_input_size, config.adapter_hidden_size or text_width, text_width)
        if language_model is None:
            self.language_model = AutoModelForSeq2SeqLM.from_config(config.text_config)
        else:
            self.language_model = language_model
            self.generation_config = language_model.generation_config
        _remove_unused_parts(self.language_model)
        # One object each, so that a change of vocabulary is seen in both.
        config.vision_config, config.text_config = getattr(visual_encoder, "config", None), self.language_model.config
        for part in filter(None, (config.vision_config, config.text_config)):
            part.dtype = None  # it would pin the part when the whole is loaded
        self.post_init()
        # Collected from the visual encoder, where it is right; here such a key is to be reported.
        self._keys_to_ignore_on_load_unexpected -= set(FlaVisualEncoder._keys_to_ignore_on_load_unexpected)
        # The ties are the language model's, so known only now; transformers' common tests hold that they are declared.
        self._tied_weights_keys = dict(self.all_tied_weights_keys)
        self._freeze_as_configured()

    def _build_light_t_encoder(self) -> FlaLightTEncoder | None:
        config = self.config
        if config.input_features != "hidden":
            return None
        width = config.light_t_config.hidden_size
        adapter = FlaAdapter(config.vision_config.hidden_size, config.light_t_adapter_hidden_size or width, width)
        encoder = AutoModelForSeq2SeqLM.from_config(config.light_t_config).get_encoder()
        return FlaLightTEncoder(adapter, encoder, config.light_t_input_embed_scale)

    @classmethod
    def from_visual_encoder_and_language_model(
        cls,
        stage1: "FlaForConditionalGeneration | FlaVisualEncoder | str | os.PathLike | None",
        language_model: "PreTrainedModel | str | os.PathLike",
        **config_overrides,
    ) -> "FlaForConditionalGeneration":
        r"""Assemble stage 2 (paper Sec. 4.3): a trained visual encoder, a new adapter, a pre-trained language model.

        Args:
            stage1 ([`FlaForConditionalGeneration`], [`FlaVisualEncoder`], `str` or `os.PathLike`):
                The model of stage 1, or its visual encoder, or where it was saved. It is copied, and left as it is.
                `None` with `sign_feature_size`.
            language_model (`PreTrainedModel`, `str` or `os.PathLike`):
                An encoder-decoder with a language-modelling head, or where to load one from. It becomes part of the
                new model.
            **config_overrides:
                Fields of [`FlaConfig`]: `freeze_vision_backbone` and `freeze_temporal_module` (both `True` here unless
                told otherwise), `input_features`, `adapter_hidden_size`, `input_embed_scale`.

        Returns:
            [`FlaForConditionalGeneration`]: in evaluation mode.

        Raises:
            ValueError: if `stage1` has no visual encoder, or no language model with `input_features="hidden"`.
        """
        if isinstance(stage1, (str, os.PathLike)):
            stage1 = cls.from_pretrained(stage1)
        if isinstance(language_model, (str, os.PathLike)):
            language_model = AutoModelForSeq2SeqLM.from_pretrained(language_model)
        visual_encoder = copy.deepcopy(getattr(stage1, "visual_encoder", stage1))
        fields = {"freeze_vision_backbone": True, "freeze_temporal_module": True, **config_overrides}
        if (visual_encoder is None) != ("sign_feature_size" in fields):
            raise ValueError("Give either `stage1` with a visual encoder or `sign_feature_size`.")
        light_t_encoder = None
        if fields.get("input_features") == "hidden":
            if not isinstance(stage1, FlaForConditionalGeneration):
                raise ValueError(
                    '`input_features="hidden"` needs the whole model of stage 1 for its Light-T encoder, '
                    f"got a {type(stage1).__name__}."
                )
            fields["light_t_config"] = stage1.config.text_config
            fields["light_t_adapter_hidden_size"] = stage1.config.adapter_hidden_size
            scale = fields["light_t_input_embed_scale"] = stage1.config.input_embed_scale
            encoder = copy.deepcopy(stage1.language_model.get_encoder())
            light_t_encoder = FlaLightTEncoder(copy.deepcopy(stage1.adapter), encoder, scale)
        config = FlaConfig(
            vision_config=getattr(visual_encoder, "config", None), text_config=language_model.config, **fields
        )
        return cls(config, visual_encoder, language_model, light_t_encoder).eval()

    @can_return_tuple
    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        sign_features: torch.FloatTensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        cache: Cache | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        r"""Score a spoken sentence given a sign video (paper Eq. 1 to 7).

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*):
                `uint8`: raw RGB, 0 to 255. Floating point: already normalised. Padding frames may hold anything.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for a real frame; all are real without.
            decoder_input_ids (`torch.LongTensor` of shape `(B, L)`, *optional*): Made from `labels` where absent.
            decoder_attention_mask (`torch.Tensor` of shape `(B, L)`, *optional*): 1 for a target; causal anyway.
            labels (`torch.LongTensor` of shape `(B, L)`, *optional*):
                Target token ids as the tokenizer writes them, e.g. MBart's `tokens </s> <language>`; -100 at padding.
            sign_features (`torch.FloatTensor` of shape `(B, N, C)`, *optional*):
                Instead of pixels: what `get_sign_features` gave. Padding may hold anything.
            encoder_outputs (`BaseModelOutput`, *optional*): Known encoder states, instead of pixels or features.
            cache (`Cache`, *optional*): Of the decoder's earlier steps; `past_key_values` until transformers 5.23.
            decoder_inputs_embeds (`torch.FloatTensor` of shape `(B, L, D)`, *optional*): Instead of token ids.
            use_cache (`bool`, *optional*): Whether to return `cache`.
            num_items_in_batch (`torch.LongTensor` of shape `()` or `int`, *optional*):
                Target tokens to divide the loss by, which [`Trainer`] gives when it accumulates gradients.
            positions (`torch.LongTensor` of shape `(R,)`, *optional*):
                Where `attention_mask` is 1 in `B * T`, if it is known: then no step waits to read it from the device,
                and frames may be given alone, as [`FlaVisualEncoder`] takes them.
            **kwargs: Passed to the language model, e.g. `output_attentions=True`.

        Returns:
            `Seq2SeqLMOutput`: `logits` is `(B, L, V)`; `loss`, with `labels` only, is the mean negative log-likelihood
            in nats per target token, without label smoothing, which [`Trainer`] adds.

        Raises:
            ValueError: if not exactly one of pixels and sign features is given, a shape is wrong, a video has no real
                frame, or a video or a sentence is longer than the language model's position table.

        Example:
            ```python
            >>> import torch
            >>> from modeling_fla import FlaConfig, FlaForConditionalGeneration
            >>> model = FlaForConditionalGeneration(FlaConfig.light_t("tiny", vocab_size=32)).eval()
            >>> video = torch.zeros(2, 6, 3, 32, 40, dtype=torch.uint8)
            >>> mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
            >>> output = model(video, mask, labels=torch.tensor([[7, 2, 4], [9, 2, 4]]))
            >>> tuple(output.logits.shape), tuple(output.encoder_last_hidden_state.shape)
            ((2, 3, 32), (2, 6, 256))

            ```
        """
        for name in ("input_ids", "inputs_embeds"):  # peft passes every argument of a text-to-text model
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"`{name}` is not an input here: give `pixel_values_videos` or `sign_features`.")

        # The decoder reads the target shifted right.
        if labels is not None or (self.training and use_cache is None):
            use_cache = False
        if labels is not None:
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            _check_length("sentence", labels.shape[1], "tokens", self.max_target_positions)
        elif decoder_input_ids is not None:
            length = decoder_input_ids.shape[1] + (0 if cache is None else cache.get_seq_length())
            _check_length("translation", length, "tokens", self.max_target_positions)

        # The encoder reads sign embeddings where it would read word embeddings.
        sign_embeds = None
        if encoder_outputs is None:
            sign_embeds, mask = self._sign_embeds(pixel_values_videos, sign_features, attention_mask, positions)
            attention_mask = mask.long()
            is_training = self.training and decoder_input_ids is not None
            if positions is not None and (is_training or labels is not None) and decoder_attention_mask is None:
                length = (decoder_input_ids if labels is None else labels).shape[1]
                attention_mask, decoder_attention_mask = self._added_masks(mask, length)
        outputs = self.language_model(
            inputs_embeds=sign_embeds,
            encoder_outputs=encoder_outputs,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_inputs_embeds=decoder_inputs_embeds,
            cache=cache,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        if labels is None:
            return outputs

        # The loss of a plain Trainer; the language models' own ones do not know `num_items_in_batch`. In a run of ours
        # the model gets no labels: its loss is computed by `SignTranslationTrainer.compute_loss`.
        loss = self.loss_function(
            logits=outputs.logits,
            labels=None,
            shift_labels=labels,  # aligned with the logits already: the decoder's input was shifted instead
            vocab_size=outputs.logits.shape[-1],
            num_items_in_batch=num_items_in_batch,
        )
        return Seq2SeqLMOutput(**{**outputs, "loss": loss})

    def _prepare_cache_for_generation(self, *args, **kwargs) -> None:
        """The language model's: only T5Gemma knows that its cross-attention does not slide."""
        self.language_model._prepare_cache_for_generation(*args, **kwargs)

    @property
    def max_sign_positions(self) -> int | None:
        """The most sampled frames N that the language model's encoder reads; `None` where there is no limit."""
        return _max_positions(self.language_model.get_encoder())

    @property
    def max_target_positions(self) -> int | None:
        """The most target tokens L that the language model's decoder reads; `None` where there is no limit."""
        return _max_positions(self.language_model.get_decoder())

    def get_sign_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        positions: torch.LongTensor | None = None,
        frame_features: torch.FloatTensor | None = None,
    ) -> torch.FloatTensor:
        r"""What the adapter reads, the features that `config.input_features` names; later given as `sign_features`.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*): As in `forward`.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): As in `forward`.
            positions (`torch.LongTensor` of shape `(R,)`, *optional*): As in `forward`.
            frame_features (`torch.FloatTensor` of shape `(B, T, C)`, *optional*):
                Instead of pixels, without padding: what [`FlaVisualEncoder.encode_frames`] gave.

        Returns:
            `torch.FloatTensor` of shape `(B, N, C)`: zeros at padding.

        Raises:
            ValueError: as `forward`.
        """
        if self.visual_encoder is None:
            made_by = self.config.sign_feature_extractor or "another program"
            raise ValueError(f"This model reads sign features of {made_by}, not videos: it has no visual encoder.")
        if frame_features is None:
            outputs = self.visual_encoder(pixel_values_videos, attention_mask, positions)
        else:
            outputs = self.visual_encoder.mix_frames(frame_features)
        if self.config.input_features == "frame":
            return outputs.frame_features
        sign_features = outputs.last_hidden_state
        if self.light_t_encoder is None:
            return sign_features
        mask = real_positions_mask(sign_features.shape[:2], attention_mask, sign_features.device)
        return self.light_t_encoder(sign_features, mask)

    def _added_masks(self, mask: torch.BoolTensor, length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Masks `(B, 1, 1, N)` and causal `(1, 1, L, L)` to add to scores: 2-D ones are read, and waited for."""
        slides = getattr(self.language_model.get_decoder().config, "layer_types", None)  # T5Gemma makes masks a layer
        if slides or getattr(self.language_model.config, "_attn_implementation", None) not in ("sdpa", "eager"):
            return mask.long(), None
        device = mask.device
        # In the type that attention computes in: else autocast casts them in every layer.
        under_autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if under_autocast else self.language_model.dtype
        smallest = torch.finfo(dtype).min
        future = torch.full((1, 1, length, length), smallest, dtype=dtype, device=device).triu(1)
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, smallest)[:, None, None, :], future

    def _sign_embeds(self, pixel_values_videos, sign_features, attention_mask, positions=None):
        """Sign embeddings `(B, N, D)` from the one input that is given, and the mask `(B, N)` as booleans."""
        if (pixel_values_videos is None) == (sign_features is None):
            given = "neither" if sign_features is None else "both"
            raise ValueError(f"Give either `pixel_values_videos` or `sign_features`; got {given}.")
        # N = T: known before any work is done. Frames alone have no T.
        are_alone = sign_features is None and pixel_values_videos.ndim == 4 and positions is not None
        given = pixel_values_videos if sign_features is None else sign_features
        length = (attention_mask if are_alone else given).shape[1]
        _check_length("video", length, "sampled frames", self.max_sign_positions)
        if sign_features is None:
            sign_features = self.get_sign_features(pixel_values_videos, attention_mask, positions)
        elif sign_features.ndim != 3 or sign_features.shape[2] != self.config.adapter_input_size:
            raise ValueError(
                f"`sign_features` must be (B, N, {self.config.adapter_input_size}) with "
                f"`input_features={self.config.input_features!r}`, got {tuple(sign_features.shape)}."
            )
        if positions is None:
            mask = real_positions_mask(sign_features.shape[:2], attention_mask, sign_features.device)
        else:
            mask = attention_mask.bool()
        sign_embeds = self.adapter(_without_padding(sign_features, mask)) * self.config.input_embed_scale
        return sign_embeds.to(self.language_model.dtype), mask  # generation runs outside autocast

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """Labels shifted right as this language model wants them.

        Args:
            labels (`torch.LongTensor` of shape `(B, L)`): target token ids; -100 at padding.

        Returns:
            `torch.LongTensor` of shape `(B, L)`: the decoder's input; the padding token at padding.
        """
        own = getattr(self.language_model, "prepare_decoder_input_ids_from_labels", None)
        if own is not None:
            return own(labels)
        # M2M-100 and NLLB have none.
        text_config = self.config.text_config
        shifted = F.pad(labels[:, :-1], (1, 0), value=text_config.decoder_start_token_id)
        return shifted.masked_fill(shifted == -100, text_config.pad_token_id)

    def freeze_visual_encoder(self, vision_backbone: bool = True, temporal_module: bool = True) -> None:
        r"""Freeze parts of the visual encoder, in parameters and BatchNorm statistics (paper Table 9).

        The configuration records the choice: it holds through `train()`, saving and loading.

        Args:
            vision_backbone (`bool`, *optional*, defaults to `True`): Whether the backbone is frozen.
            temporal_module (`bool`, *optional*, defaults to `True`): Whether the temporal module is frozen.
        """
        self.config.freeze_vision_backbone = vision_backbone
        self.config.freeze_temporal_module = temporal_module
        self._freeze_as_configured()

    def _freeze_as_configured(self) -> None:
        # Frame features do not pass through the temporal module: it could not learn.
        temporal_module = self.config.freeze_temporal_module or self.config.input_features == "frame"
        if self.visual_encoder is not None:
            self.visual_encoder.freeze(self.config.freeze_vision_backbone, temporal_module)

    @property
    def visual_encoder_is_frozen(self) -> bool:
        """Whether the same video always gives the same features, so that they may be cached."""
        return self.visual_encoder is None or len(self.visual_encoder.frozen_parts) == 2

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """As [`PreTrainedModel.get_encoder`].

        Args:
            modality (`str`, *optional*): `"video"`, `"image"` or `"audio"`.

        Returns:
            `nn.Module`: without a modality, from videos or sign features to the language model's encoder states; for
                `"video"` the visual encoder; the model itself for a modality that it has no encoder of.

        Raises:
            ValueError: if the modality is another word.
        """
        if modality is None:
            return FlaEncoder(self)
        if modality not in ("video", "image", "audio"):
            raise ValueError(f'`modality` must be "video", "image" or "audio", got {modality!r}.')
        return self.visual_encoder if modality == "video" and self.visual_encoder is not None else self

    def get_decoder(self) -> nn.Module:
        """The language model's decoder."""
        return self.language_model.get_decoder()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the language model's head."""
        self.language_model.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """As [`PreTrainedModel.resize_token_embeddings`]. To remove tokens, use [`trim_token_embeddings`]."""
        embeddings = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.vocab_size = self.config.vocab_size
        return embeddings

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """As [`PreTrainedModel.save_pretrained`]; the folder also loads as [`AutoModel`], code files included."""
        if self.is_remote_code():  # transformers notes only the one auto class a class was registered for
            name = f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"
            self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), "AutoModel": name}
        super().save_pretrained(save_directory, *args, **kwargs)


__all__ = ["FlaForConditionalGeneration", "FlaPreTrainedModel", "FlaVisualEncoder"]
