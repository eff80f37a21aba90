"""Look into one translation: which frames the model saw, words and attention, similarity of features."""

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from training_fla.files import InputError
from training_fla.scoring.conventions import SPACELESS_SCRIPTS


@dataclass
class Inspection:
    """What there is to draw of a clip.

    Shapes: T sampled frames, W words.

    Args:
        clip (`str`): its file name.
        frames (`np.ndarray` of shape `(T, H, W, 3)`): uint8, as they go into the model, cropped.
        source_indices (`np.ndarray` of shape `(T,)`): int64; which of the clip's frames they are.
        num_source_frames (`int`): of the whole clip.
        fps (`float`, *optional*): source frames a second, where the clip says so.
        similarity (`np.ndarray` of shape `(T, T)`): float32; cosines of the frames' features less their mean, -1 to 1.
        features (`str`): what was compared, for the caption.
        sentence (`str`): the translation; empty without a model.
        score (`float`, *optional*): geometric mean of the token probabilities.
        words (`list[str]`): of the sentence.
        attention (`np.ndarray` of shape `(W, T)`): float32; rows sum to 1: mean over layers, heads and the pieces of a
            word.
        language (`str`): of the sentence, as HTML names it; empty where nothing says it.
    """

    clip: str
    frames: np.ndarray
    source_indices: np.ndarray
    num_source_frames: int
    fps: float | None
    similarity: np.ndarray
    features: str
    sentence: str = ""
    score: float | None = None
    words: list[str] = field(default_factory=list)
    attention: np.ndarray | None = None
    language: str = ""

    def when(self, position: int) -> str:
        """Where a sampled frame lies in the clip.

        Args:
            position (`int`): below T.

        Returns:
            `str`: seconds, or the number of the source frame where nothing says how fast they follow.
        """
        index = int(self.source_indices[position])
        return f"{index / self.fps:.2f} s" if self.fps else f"frame {index}"

    def focus(self, word: int) -> tuple[int, int]:
        """The shortest stretch of the clip that holds half of a word's attention.

        Args:
            word (`int`): below W.

        Returns:
            `tuple[int, int]`: first and last sampled frame.
        """
        return shortest_half(self.attention[word])


def shortest_half(weights: np.ndarray) -> tuple[int, int]:
    """The shortest stretch that holds half of the sum.

    Args:
        weights (`np.ndarray` of shape `(T,)`): float, not negative.

    Returns:
        `tuple[int, int]`: its first and last position.
    """
    total = np.concatenate([[0.0], np.cumsum(weights)])
    stretches = []
    for first in range(len(total) - 1):
        last = int(np.searchsorted(total, total[first] + 0.5 * total[-1] - 1e-9))
        if last < len(total):
            stretches.append((last - 1 - first, first, last - 1))
    return min(stretches)[1:]


def inspect_frames(clip: str, processor) -> Inspection:
    """Look at a clip without a model: the frames that are sampled, and how alike their pixels are.

    Args:
        clip (`str`): a video file or a folder of frames.
        processor ([`~processing_fla.FlaVideoProcessor`]): samples, resizes and crops.

    Returns:
        [`Inspection`]: without a sentence.

    Raises:
        InputError: the clip cannot be read.
    """
    pixels, metadata = _read(clip, processor)
    small = F.adaptive_avg_pool2d(pixels.float().mean(1, keepdim=True), (16, 16))
    return Inspection(*_clip_part(clip, pixels, metadata), centred_cosines(small.flatten(1)), "grey values, 16 x 16")


@torch.no_grad()
def inspect_translation(clip: str, model, processor, **generate_options) -> Inspection:
    """Translate a clip and keep the cross attention.

    Args:
        clip (`str`): a video file or a folder of frames.
        model ([`~modeling_fla.FlaForConditionalGeneration`]): its language model is switched to eager attention, the
            only one that says what was attended to.
        processor ([`~processing_fla.FlaProcessor`]): the one saved with it.
        **generate_options: of `generate`, e.g. `num_beams`.

    Returns:
        [`Inspection`]: with sentence, words and attention.

    Raises:
        InputError: the clip cannot be read or is too long for the model.
    """
    pixels, metadata = _read(clip, processor.video_processor)
    model.eval().language_model.set_attn_implementation("eager")
    try:
        features = model.get_sign_features(pixels[None].to(model.device))
        sequence = model.generate(sign_features=features, **generate_options)
        words, attention, score = attended_words(model, processor.tokenizer, sequence, sign_features=features)
    except ValueError as error:
        raise InputError(f"{clip} cannot be translated: {' '.join(str(error).split())}") from error
    return Inspection(
        *_clip_part(clip, pixels, metadata),
        centred_cosines(features[0].float().cpu()),
        "sign features",
        sentence=processor.batch_decode(sequence, skip_special_tokens=True)[0],
        score=score,
        words=words,
        attention=attention,
        language=str(getattr(processor.tokenizer, "tgt_lang", None) or "").split("_")[0],
    )


@torch.no_grad()
def attended_words(model, tokenizer, sequence: torch.Tensor, **video) -> tuple[list[str], np.ndarray, float | None]:
    """What the language model attended to as it wrote a sentence, word by word.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): with eager attention, the only one that says what was
            attended to.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the sentence.
        sequence (`torch.LongTensor` of shape `(1, L)`): as `generate` gave it, with its start token.
        **video: one clip by any door of `forward`: `pixel_values_videos`, `sign_features` or `encoder_outputs`.

    Returns:
        `tuple`: the words; their attention `(W, T)`, see [`Inspection`]; and the geometric mean of the token
        probabilities, `None` for an empty sentence.
    """
    outputs = model(**video, decoder_input_ids=sequence[:, :-1], output_attentions=True, use_cache=False)
    ids = sequence[0, 1:].tolist()
    tokens = torch.stack(outputs.cross_attentions).float().mean((0, 2))[0].cpu().numpy()  # (L, T)
    probabilities = outputs.logits[0].float().log_softmax(-1)
    words, groups = words_of(ids, tokenizer)
    score = probabilities.gather(1, sequence[0, 1:, None]).mean().exp().item() if ids else None
    attention = [tokens[group].mean(0) for group in groups]
    return words, np.stack(attention) if attention else np.zeros((0, tokens.shape[1])), score


def words_of(ids: list[int], tokenizer) -> tuple[list[str], list[list[int]]]:
    """Join the pieces of a sentence to words; in scripts without spaces each piece stands for itself.

    Args:
        ids (`list[int]`): generated, without the start token.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): whose pieces begin a word with "▁".

    Returns:
        `tuple`: the words, and for each the positions of its pieces in `ids`. Special tokens are in none.
    """
    words: list[str] = []
    groups: list[list[int]] = []
    special = set(tokenizer.all_special_ids)
    for position, (token_id, piece) in enumerate(zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)):
        if token_id in special:
            continue
        text = piece.replace("▁", "")
        if not words or piece.startswith("▁") or is_spaceless(text) or is_spaceless(words[-1]):
            words.append("")
            groups.append([])
        words[-1] += text
        groups[-1].append(position)
    kept = [number for number, word in enumerate(words) if word]
    return [words[number] for number in kept], [groups[number] for number in kept]


def is_spaceless(text: str) -> bool:
    """Whether a piece ends in a letter of a script that does not put spaces between words.

    Args:
        text (`str`): a piece.

    Returns:
        `bool`: false for an empty one.
    """
    return bool(text) and unicodedata.name(text[-1], "").startswith(SPACELESS_SCRIPTS)


def centred_cosines(features: torch.Tensor) -> np.ndarray:
    """Cosines of features less their mean; with the mean left in, all frames of a clip look alike.

    Args:
        features (`torch.FloatTensor` of shape `(T, C)`): of one clip.

    Returns:
        `np.ndarray` of shape `(T, T)`: -1 to 1; 0 for a frame that is the mean itself.
    """
    centred = F.normalize(features - features.mean(0), dim=1)
    return (centred @ centred.T).clamp(-1, 1).numpy()


def _read(clip: str, video_processor) -> tuple[torch.Tensor, object]:
    """Sampled frames (T, 3, H, W), uint8, and the clip's metadata."""
    try:
        batch = video_processor(
            videos=[clip], return_tensors="pt", return_metadata=True, do_rescale=False, do_normalize=False
        )
    except (ValueError, OSError) as error:
        raise InputError(" ".join(str(error).split())) from error
    return batch["pixel_values_videos"][0], batch["video_metadata"][0]


def _clip_part(clip: str, pixels: torch.Tensor, metadata) -> tuple:
    indices = metadata.frames_indices
    indices = np.arange(len(pixels)) if indices is None else np.asarray(indices)
    frames = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return Path(clip).name, frames, indices, metadata.total_num_frames, metadata.fps
