"""`pipeline("sign-language-translation", model=...)`: clips in, sentences out."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import GenerationConfig, Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .video_processing_fla import is_array, is_frame, is_one_video

TASK = "sign-language-translation"
DEFAULT_GENERATION = GenerationConfig(
    num_beams=5,  # Paper: Sec. 5.2
    max_new_tokens=100,  # Unstated: longer than any sentence of the three corpora; transformers would stop at 20
)
VIDEO_OPTIONS = ("target_fps", "frame_stride", "max_source_frames", "num_frames", "fps", "do_sample_frames")


class SignTranslationPipeline(Pipeline):
    """Translates sign videos into spoken-language sentences.

    Args:
        model ([`FlaForConditionalGeneration`]): a trained model.
        processor ([`FlaProcessor`]): the one saved with it.
        kwargs: `device`, `dtype`, `batch_size`, `num_workers`, and defaults for the options of a call.

    Example:
        `pipeline("sign-language-translation", model="path/or/hub-id")("clip.mp4")["translation_text"]`
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = True
    _default_generation_config = DEFAULT_GENERATION

    def _sanitize_parameters(self, on_error: str | None = None, generate_kwargs: dict | None = None, **kwargs):
        """Sort the options of a call into those of reading, generating and reporting."""
        if on_error not in (None, "raise", "skip"):
            raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
        error_options = {} if on_error is None else {"on_error": on_error}
        video_options = {name: kwargs.pop(name) for name in VIDEO_OPTIONS if name in kwargs}
        return error_options | video_options, error_options | (generate_kwargs or {}) | kwargs, {}

    def __call__(self, videos: Any, **kwargs) -> dict | list[dict] | Iterator[dict]:
        """Translate one clip or many.

        Args:
            videos: a video as of [`FlaVideoProcessor.preprocess`], or `{"sign_features": array}` of shape `(N, C)`, or
                a list, generator, iterator, column or map-style dataset (`KeyDataset`) of them.
            kwargs:
                - `batch_size` (`int`): clips translated at once; `num_workers` (`int`): processes that decode.
                - `on_error` (`str`): `"raise"` (the default) or `"skip"`: a clip that cannot be read or translated
                  gives a result of `None` values with one more entry, `"error"`, that says why.
                - `target_fps`, `frame_stride`, `max_source_frames`, `num_frames`, `fps`, `do_sample_frames`: of the
                  video processor.
                - `language` (`str`): of the sentences, where the model was trained on several, as "zh_CN".
                - `num_beams`, `max_new_tokens`, `do_sample` and any other option of `generate`, each by its name or
                  all in a dict `generate_kwargs`.

        Returns:
            `dict`, for a list of clips `list[dict]`, for an iterator or a dataset an iterator of `dict`:
                - `translation_text` (`str`): the sentence.
                - `score` (`float`): from 0 to 1, the geometric mean of the probabilities the model gives the tokens.
                - `num_frames` (`int`): source frames of the clip, before sampling; N of sign features.
                - `seconds` (`float` or `None`): its duration; `None` where nothing says how fast its frames follow.
            With `num_return_sequences` above 1, a list of such results for each clip, best first.

        Raises:
            VideoDecodeError: if a clip cannot be decoded, with `on_error="raise"`.
            ValueError: if an input is no video, or is too long for the model, with `on_error="raise"`.
        """
        if isinstance(videos, tuple) or (is_array(videos) and videos.ndim == 5):
            videos = list(videos)
        is_list = isinstance(videos, list)
        if is_list and not videos:
            return []
        if isinstance(videos, Dataset) or (is_list and not all(map(is_frame, videos))):
            return super().__call__(videos, **kwargs)
        is_one = is_list or is_array(videos) or is_frame(videos) or is_one_video(videos)
        if isinstance(videos, Iterable) and not is_one:
            return super().__call__((video for video in videos), **kwargs)
        return super().__call__([videos], **kwargs)[0]

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict]:
        """Read, translate and report batch by batch; transformers' own collation would not know how to pad videos."""
        is_sized = hasattr(inputs, "__len__")
        clips = (PipelineDataset if is_sized else PipelineIterator)(inputs, self.preprocess, preprocess_params)
        # Each process that reads an iterator would read all of it.
        num_workers = num_workers if is_sized else min(num_workers, 1)
        for batch in DataLoader(clips, batch_size=batch_size, num_workers=num_workers, collate_fn=list):
            for output in self.forward(batch, **forward_params):
                yield self.postprocess(output, **postprocess_params)

    def preprocess(self, video: Any, on_error: str = "raise", **video_options) -> dict:
        """Read one clip: its batch of one, its length and a name for messages; or, with `"skip"`, its `error`."""
        name = f"`{os.fspath(video)}`" if isinstance(video, (str, os.PathLike)) else "a clip given as frames"
        try:
            if isinstance(video, dict) and "sign_features" in video:
                return {"name": "a clip given as features", **self._features(video["sign_features"])}
            # `uint8`, which the model normalises on its device, as it does in training and evaluation.
            raw = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt", "return_metadata": True}
            limit = self.model.max_sign_positions
            batch = self.processor(videos=[video], max_sampled_frames=limit, **raw, **video_options)
        except (ValueError, OSError) as error:
            if on_error == "raise":
                raise
            return {"name": name, "error": one_line(error)}
        metadata = batch.pop("video_metadata")[0]
        length = {"num_frames": metadata.total_num_frames, "seconds": metadata.duration}
        return {"name": name, "batch": dict(batch), **length}

    def _features(self, array: Any) -> dict:
        features, size = torch.as_tensor(array, dtype=torch.float32), self.model.config.adapter_input_size
        features = torch.atleast_2d(features.squeeze()) if features.ndim > 2 else features
        if features.ndim != 2 or features.shape[1] != size or not len(features) or not features.isfinite().all():
            raise ValueError(f"`sign_features` must be (N, {size}) and finite, got {tuple(features.shape)}.")
        batch = {"sign_features": features[None], "attention_mask": torch.ones(1, len(features), dtype=torch.long)}
        return {"batch": batch, "num_frames": len(features), "seconds": None}

    def _forward(self, clips: list[dict], on_error: str = "raise", **generate_kwargs) -> list[dict]:
        """Translate the readable clips of one batch: `sequences` and `scores`, or `error`, are added to each."""
        readable = [clip for clip in clips if "error" not in clip]
        if not readable:
            return clips
        try:
            # Clips of unequal length are padded to one batch, and encoded once, for generating and for scoring.
            batches = [clip["batch"] for clip in readable]
            inputs = {name: pad_sequence([b[name][0] for b in batches], batch_first=True) for name in batches[0]}
            states, mask = self.model.get_encoder()(**inputs), inputs["attention_mask"]
        except (ValueError, KeyError) as error:  # KeyError: videos and features in one batch
            if len(readable) == 1:
                message = f"{readable[0]['name']} cannot be translated: {one_line(error)}"
                if on_error == "raise":
                    raise ValueError(message) from error
                readable[0]["error"] = message
            else:  # one of them is the cause: translate each alone
                for clip in readable:
                    self._forward([clip], on_error, **generate_kwargs)
            return clips
        sequences, scores = self.generate(states, mask, **generate_kwargs)
        for clip, ids, score in zip(
            readable, sequences.chunk(len(readable)), scores.chunk(len(readable)), strict=True
        ):
            clip["sequences"], clip["scores"] = ids, score
        return clips

    def generate(self, encoder_outputs, mask: torch.Tensor, **generate_kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Write sentences for encoded videos.

        Args:
            encoder_outputs (`BaseModelOutput`): of the model's encoder, `last_hidden_state` of shape `(B, N, D)`.
            mask (`torch.LongTensor` of shape `(B, T)`): 1 for a real frame.
            generate_kwargs: options of `generate`.

        Returns:
            `tuple`: ids, `torch.LongTensor` of shape `(B * R, L)`, R for each video, padded after their end token; and
                `torch.FloatTensor` of shape `(B * R,)`, how probable the model finds them, whatever way they were
                searched for: geometric means of the token probabilities up to the end token.
        """
        options = self._prepare_generate_kwargs(generate_kwargs)
        limit = self.model.max_target_positions
        if limit is not None and (options.get("max_new_tokens") or 0) > limit:
            options["max_new_tokens"] = limit
        options |= {"return_dict_in_generate": True, "output_logits": True}
        outputs = self.model.generate(encoder_outputs=encoder_outputs.copy(), attention_mask=mask, **options)
        sequences = outputs.sequences
        log_probabilities = written_log_probabilities(sequences, outputs.logits, outputs.get("beam_indices"))
        written = sequences[:, -log_probabilities.shape[1] :]
        end = self.model.generation_config.eos_token_id
        is_end = torch.isin(written, torch.tensor([] if end is None else end, device=written.device))
        counts = is_end.cumsum(1) - is_end.long() == 0  # up to the first end token
        return sequences, (log_probabilities * counts).sum(1).div(counts.sum(1).clamp(min=1)).exp()

    def postprocess(self, clip: dict) -> dict | list[dict]:
        """Turn ids into a result, or several where several sentences were asked for: see [`__call__`]."""
        if "error" in clip:
            nothing = dict.fromkeys(("translation_text", "score", "num_frames", "seconds"))
            return nothing | {"error": clip["error"]}
        sentences = self.processor.batch_decode(clip["sequences"], skip_special_tokens=True)
        length = {"num_frames": clip["num_frames"], "seconds": clip["seconds"]}
        results = [
            {"translation_text": sentence, "score": score, **length}
            for sentence, score in zip(sentences, clip["scores"].tolist(), strict=True)
        ]
        return results[0] if len(results) == 1 else results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save the model and the processor, with their code, in a folder that is made if need be."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def written_log_probabilities(
    sequences: torch.Tensor, logits: tuple[torch.Tensor, ...], beam_indices: torch.Tensor | None
) -> torch.Tensor:
    """Log-probabilities of written tokens, from what the search computed: no forward pass is made for them.

    Args:
        sequences (`torch.LongTensor` of shape `(B, P + L)`): a prompt of P tokens, then the written ones.
        logits (`tuple` of `torch.FloatTensor` of shape `(B or B * beams, V)`):
            Of each step; a beam search makes steps after the end of its best sentence, too.
        beam_indices (`torch.LongTensor` of shape `(B, L)`, *optional*):
            In which row of each step's logits a sentence was; negative after its end. Without beams it keeps its row.

    Returns:
        `torch.FloatTensor` of shape `(B, L)`: in nats; after an end token, of any value.
    """
    if beam_indices is None:
        beam_indices = torch.arange(len(sequences), device=sequences.device)[:, None].expand(-1, len(logits))
    written = sequences[:, -beam_indices.shape[1] :]
    steps = []
    for scores, rows, tokens in zip(logits, beam_indices.clamp(min=0).long().T, written.T, strict=False):
        steps.append(scores[rows, tokens] - scores[rows].logsumexp(1))
    return torch.stack(steps, dim=1)


def one_line(error: Exception) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split())
