"""Videos and sentences to one batch for the model, and the model's token ids back to sentences."""

import unicodedata

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack

from .pipeline_fla import SignTranslationPipeline
from .video_processing_fla import FlaVideoProcessorKwargs

# The pipeline is imported here because `save_pretrained` copies the files that the processor's file imports.
__all__ = ["FlaProcessor", "SignTranslationPipeline", "in_language", "language_token_id", "normalize_text"]

IGNORED_LABEL = -100  # what torch's cross-entropy leaves out


class FlaProcessorKwargs(ProcessingKwargs, total=False):
    """Options of [`FlaProcessor`]: `videos_kwargs` for the video processor, `text_kwargs` for the tokenizer."""

    videos_kwargs: FlaVideoProcessorKwargs


def normalize_text(text: str) -> str:
    """A sentence in Unicode's NFKC form, as the tokenizers of MBart and MT5 were trained to expect.

    transformers' `MBartTokenizer` no longer does it: full-width punctuation and ligatures would become unknown.

    Args:
        text (`str`): a sentence.

    Returns:
        `str`: the same sentence, in NFKC.
    """
    return unicodedata.normalize("NFKC", text)


def language_token_id(tokenizer, language: str) -> int | None:
    """The token of a language.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): of any kind.
        language (`str`): its code, as this tokenizer writes it: "de_DE" (MBart), "deu_Latn" (NLLB), "de" (M2M-100).

    Returns:
        `int`, *optional*: the token's id; `None` where the tokenizer has no such language.
    """
    token = (getattr(tokenizer, "lang_code_to_token", None) or {}).get(language, language)
    index = tokenizer.convert_tokens_to_ids(token)
    # A word may be spelt like a code; M2M-100's languages are not among its special tokens.
    known = {*tokenizer.all_special_ids, *getattr(tokenizer, "lang_token_to_id", {}).values()}
    return index if index in known - {tokenizer.unk_token_id} else None


def in_language(tokenizer, ids: list[int], language: str) -> list[int]:
    """Target ids with the token of a language where the tokenizer puts it; in front where it has no languages.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): which made the ids.
        ids (`list[int]`): of a target in the tokenizer's own language, special tokens included.
        language (`str`): a code that the tokenizer knows.

    Returns:
        `list[int]`: the target in that language.

    Raises:
        ValueError: if the tokenizer has no such language.
    """
    wanted = language_token_id(tokenizer, language)
    if wanted is None:
        raise ValueError(f"{language!r} is no language of the tokenizer.")
    own = getattr(tokenizer, "tgt_lang", None)
    if own is None:  # T5's: `fla trim` has added tokens of languages
        return [wanted, *ids]
    replaced = language_token_id(tokenizer, own)
    return [wanted if token == replaced else token for token in ids]


class FlaProcessor(ProcessorMixin):
    """The video processor and the tokenizer as one: videos and sentences in, a batch out, and back.

    Args:
        video_processor ([`FlaVideoProcessor`]): makes the pixels.
        tokenizer ([`PreTrainedTokenizerBase`]): makes the labels, and sentences of the generated ids.
        chat_template (`str`, *optional*): unused by this model; every transformers processor may carry one.

    Example:
        `model.generate(**processor(videos=["a.mp4", "b.mp4"], return_tensors="pt"), num_beams=5)`
    """

    valid_processor_kwargs = FlaProcessorKwargs
    text_kwargs = {"padding": True}

    def __init__(self, video_processor=None, tokenizer=None, chat_template=None):
        super().__init__(video_processor, tokenizer, chat_template=chat_template)

    def to_dict(self) -> dict:
        """As [`ProcessorMixin.to_dict`]; says where the code lies in a saved folder before the first save too."""
        output = super().to_dict()
        output["auto_map"] = {"AutoProcessor": f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"}
        return output

    def __call__(
        self,
        videos=None,
        text: str | list[str] | None = None,
        language: str | list[str] | None = None,
        **kwargs: Unpack[FlaProcessorKwargs],
    ) -> BatchFeature:
        """Make a batch of videos, of sentences, or of both.

        Args:
            videos (*optional*): one video or several; see [`FlaVideoProcessor.preprocess`].
            text (`str` or `list[str]`, *optional*): one sentence for each video.
            language (`str` or `list[str]`, *optional*): of the sentences, one of all or one of each; see [`labels`].
            kwargs: options of the video processor and of the tokenizer, and `return_tensors`.

        Returns:
            [`BatchFeature`]: with videos, `pixel_values_videos` (B, T, 3, H, W) and `attention_mask` (B, T), see the
                video processor. With text besides, `labels` (`torch.LongTensor` of shape `(B, L)`): target ids, -100
                at padding. With text alone, what the tokenizer returns.

        Raises:
            ValueError: if neither is given, or not one sentence for each video.
            VideoDecodeError: if a video file cannot be decoded whole.
        """
        if videos is None and text is None:
            raise ValueError("Give `videos`, `text`, or both.")
        options = self._merge_kwargs(
            self.valid_processor_kwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
        )
        if videos is None:
            text = normalize_text(text) if isinstance(text, str) else [normalize_text(sentence) for sentence in text]
            return BatchFeature(self.tokenizer(text, **options["text_kwargs"]).data)
        batch = self.video_processor(videos, **options["videos_kwargs"])
        if text is not None:
            sentences = [text] if isinstance(text, str) else text
            if len(sentences) != len(batch["pixel_values_videos"]):
                raise ValueError(f"Got {len(batch['pixel_values_videos'])} videos, but {len(sentences)} sentences.")
            batch["labels"] = self.labels(sentences, language, **options["text_kwargs"])
        return batch

    def labels(self, sentences: list[str], language: str | list[str] | None = None, **text_kwargs):
        """Target ids of sentences, as the model is trained on them.

        Args:
            sentences (`list[str]`): of any length; NFKC is applied to them here.
            language (`str` or `list[str]`, *optional*): the tokenizer's code of the language of all, or of each; the
                tokenizer's own language when absent.
            text_kwargs: options of the tokenizer, such as `padding` and `return_tensors`.

        Returns:
            `list[list[int]]`, or a tensor `(B, L)` with `return_tensors`: padding is -100, which the loss leaves out.

        Raises:
            ValueError: if the tokenizer has no such language, or there is not one for each sentence.
        """
        sentences = [normalize_text(sentence) for sentence in sentences]
        options = text_kwargs | {"return_attention_mask": True, "return_tensors": None}
        encoded = self.tokenizer(text_target=sentences, **options)
        languages = [language] * len(sentences) if language is None or isinstance(language, str) else language
        labels = [
            [token if real else IGNORED_LABEL for token, real in zip(*row, strict=True)]
            for row in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        labels = [
            ids if code is None else in_language(self.tokenizer, ids, code)
            for ids, code in zip(labels, languages, strict=True)
        ]
        return BatchFeature({"labels": labels}, tensor_type=text_kwargs.get("return_tensors"))["labels"]

    def pad(
        self,
        features: list[dict],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Pad clips that were processed one at a time to a batch.

        Transformers' [`DataCollatorForSeq2Seq`] calls it: `DataCollatorForSeq2Seq(processor, model)`.

        Args:
            features (`list[dict]`): of each clip `pixel_values_videos` `(T, 3, H, W)` or `sign_features` `(N, C)`;
                maybe `attention_mask` `(T,)`, whose zeros are left out, and `labels`; other entries are left out.
            padding (`bool` or `str`): `True` or `"longest"`: to the longest of the batch.
            max_length (`int`, *optional*): unused; frames and tokens have no common length.
            pad_to_multiple_of (`int`, *optional*): of the lengths T and L.
            return_tensors (`str`): `"pt"` or `"np"`.

        Returns:
            [`BatchFeature`]: `pixel_values_videos` `(B, T, 3, H, W)` or `sign_features` `(B, N, C)` in the dtype of
                the clips, zeros at padding; `attention_mask` int64 `(B, T)`, 1 for real; where the clips have them,
                `labels` int64 `(B, L)`, -100 at padding.

        Raises:
            ValueError: if a clip has neither frames nor features, or another padding is asked for.
        """
        if padding not in (True, "longest"):
            raise ValueError(f"Clips are padded to the longest of their batch (`padding=True`), got {padding!r}.")
        name = "sign_features" if "sign_features" in features[0] else "pixel_values_videos"
        clips = [real_positions(example, name) for example in features]
        masks = [torch.ones(len(clip), dtype=torch.long) for clip in clips]
        multiple = pad_to_multiple_of or 1
        batch = {name: padded(clips, 0, multiple), "attention_mask": padded(masks, 0, multiple)}
        if all(example.get("labels") is not None for example in features):
            labels = [torch.as_tensor(example["labels"]).flatten() for example in features]
            batch["labels"] = padded([ids[ids != IGNORED_LABEL] for ids in labels], IGNORED_LABEL, multiple)
        return BatchFeature(batch, tensor_type=return_tensors)

    @property
    def padding_side(self) -> str:
        """`str`: where clips and labels are padded, which [`DataCollatorForSeq2Seq`] asks for."""
        return "right"

    def batch_decode(self, sequences, skip_special_tokens: bool | None = None, **kwargs) -> list[str]:
        """Turn token ids back into sentences.

        Args:
            sequences (`torch.Tensor`, `np.ndarray` or `list[list[int]]`): ids `(B, L)`; -100 counts as padding.
            skip_special_tokens (`bool`, *optional*): leave out padding, end and language tokens. When absent: yes for
                a tensor or array, as `generate` and the collator make them; lists are decoded as the tokenizer does.
            kwargs: passed to the tokenizer.

        Returns:
            `list[str]`: one sentence each; without surrounding blanks where special tokens were left out.
        """
        if skip_special_tokens is None:
            skip_special_tokens = isinstance(sequences, (torch.Tensor, np.ndarray))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        rows = [row.tolist() if hasattr(row, "tolist") else row for row in sequences]
        rows = [[pad if token == IGNORED_LABEL else token for token in row] for row in rows]
        sentences = self.tokenizer.batch_decode(rows, skip_special_tokens=skip_special_tokens, **kwargs)
        return [sentence.strip() for sentence in sentences] if skip_special_tokens else sentences

    @property
    def model_input_names(self) -> list[str]:
        """`list[str]`: what the model's `forward` takes of a batch of videos and sentences."""
        return [*self.video_processor.model_input_names, "labels"]


def real_positions(example: dict, name: str) -> torch.Tensor:
    """The frames or features of an example, without padding.

    Args:
        example (`dict`): holds `name` as an array or tensor, or as a batch of one, and maybe `attention_mask` `(T,)`.
        name (`str`): `"pixel_values_videos"` or `"sign_features"`.

    Returns:
        `torch.Tensor` of shape `(T, 3, H, W)` or `(N, C)`: of the example's dtype.

    Raises:
        ValueError: if the example has no such entry, or it is no one clip.
    """
    if name not in example:
        raise ValueError(f"An example needs `pixel_values_videos` or `sign_features`, got {', '.join(example)}.")
    clip = example[name]
    if isinstance(clip, list) and len(clip) == 1:
        clip = clip[0]
    clip = torch.as_tensor(clip if isinstance(clip, torch.Tensor) else np.asarray(clip))
    dims = 2 if name == "sign_features" else 4
    if clip.dim() == dims + 1 and len(clip) == 1:
        clip = clip[0]
    if clip.dim() != dims:
        raise ValueError(f"`{name}` of an example must be one clip of {dims} dimensions, got {tuple(clip.shape)}.")
    if example.get("attention_mask") is None:
        return clip
    return clip[torch.as_tensor(np.asarray(example["attention_mask"])).flatten().bool()]


def padded(sequences: list[torch.Tensor], value: int, multiple: int) -> torch.Tensor:
    """Sequences as one tensor.

    Args:
        sequences (`list[torch.Tensor]`): each `(length, ...)`, of one dtype.
        value (`int`): stands at padding.
        multiple (`int`): the common length is a multiple of it.

    Returns:
        `torch.Tensor` of shape `(B, length, ...)`: of the longest length, rounded up.
    """
    batch = pad_sequence(sequences, batch_first=True, padding_value=value)
    missing = -batch.shape[1] % multiple
    return torch.cat([batch, batch.new_full((len(batch), missing, *batch.shape[2:]), value)], dim=1)
