"""What is behind one translation: which frames the model saw, words and attention, similarity of features.

Shapes: T sampled frames, W words of the sentence.
"""

import io
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from training_fla.errors import InputError, one_line
from training_fla.scoring.conventions import SPACELESS_SCRIPTS
from training_fla.viewing.pages import jpeg_url


@dataclass(frozen=True)
class ClipFrames:
    """What the model sees of a clip."""

    name: str
    pixels: torch.Tensor  # (T, 3, H, W), uint8 RGB: sampled, scaled and cropped
    indices: np.ndarray  # (T,), int64: which of the source frames they are
    seconds: list[float] | None  # (T): when each is shown; None for a folder of frames
    num_source_frames: int
    duration: float | None  # seconds

    def when(self, position: int) -> str:
        """When a sampled frame is shown, or its number where nothing says so."""
        if self.seconds is None:
            return f"frame {self.indices[position]}"
        return f"{round(self.seconds[position], 2) + 0.0:.2f} s"  # a time just below 0 is not -0.00

    def image(self, position: int) -> Image.Image:
        return Image.fromarray(self.pixels[position].permute(1, 2, 0).contiguous().numpy())


@dataclass(frozen=True)
class Inspection:
    """What is drawn of a clip; without a model there is no sentence."""

    clip: ClipFrames
    similarity: np.ndarray  # (T, T), float32: cosines of the frames' features less their mean, -1 to 1
    features: str  # what was compared, for the caption
    sentence: str = ""
    score: float | None = None  # geometric mean of the token probabilities
    words: list[str] = field(default_factory=list)
    attention: np.ndarray | None = None  # (W, T), float32: see `attended_words`
    language: str = ""  # of the sentence, as HTML names it

    def focus(self, word: int) -> tuple[int, int]:
        """First and last frame of the shortest segment of the clip that holds half of a word's attention."""
        return shortest_half(self.attention[word])


def read_clip(path: str | Path, processor, max_sampled_frames: int | None = None) -> ClipFrames:
    """Read a video file or a folder of frames by a [`~processing_fla.FlaProcessor`] or its video processor."""
    batch = processor(
        videos=[path],
        max_sampled_frames=max_sampled_frames,
        return_tensors="pt",
        return_metadata=True,
        do_rescale=False,
        do_normalize=False,
    )
    metadata = batch["video_metadata"][0]
    return ClipFrames(
        Path(path).name,
        batch["pixel_values_videos"][0],
        np.asarray(metadata.frames_indices),
        metadata.timestamps if metadata.fps else None,
        metadata.total_num_frames,
        metadata.duration,
    )


def data_url(image: Image.Image, quality: int = 85) -> str:
    """An image as a JPEG that needs no file."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return jpeg_url(buffer.getvalue())


def inspect_frames(path: str, video_processor) -> Inspection:
    """Look at a clip without a model: the frames that are sampled, and how alike their pixels are."""
    clip = read_clip(path, video_processor)
    small = F.adaptive_avg_pool2d(clip.pixels.float().mean(1, keepdim=True), (16, 16))
    return Inspection(clip, centred_cosines(small.flatten(1)), "grey values, 16 x 16")


@torch.no_grad()
def inspect_translation(path: str, pipe, **generate_options) -> Inspection:
    """Translate a clip by a pipeline, whose language model is switched to eager attention, and keep the attention."""
    clip = read_clip(path, pipe.processor)
    model, tokenizer = pipe.model.eval(), pipe.processor.tokenizer
    language_model = getattr(model, "language_model", model)  # an exported model is in one piece
    language_model.set_attn_implementation("eager")  # the only one that says what was attended to
    try:
        features = model.get_sign_features(clip.pixels[None].to(model.device))
        mask = torch.ones(features.shape[:2], dtype=torch.long, device=model.device)
        encoded = model.get_encoder()(sign_features=features, attention_mask=mask)
    except ValueError as error:
        raise InputError(f"{path} cannot be translated: {one_line(error)}") from error
    sequences, scores = pipe.generate(encoded, mask, **generate_options)
    words, attention = attended_words(model, tokenizer, sequences, encoded, mask)
    return Inspection(
        clip,
        centred_cosines(features[0].float().cpu()),
        "sign features",
        sentence=pipe.processor.batch_decode(sequences, skip_special_tokens=True)[0],
        score=scores.item(),
        words=words,
        attention=attention,
        language=language_of(tokenizer, generate_options.get("language")),
    )


@torch.no_grad()
def attended_words(
    model, tokenizer, sequence: torch.Tensor, encoded, mask: torch.Tensor
) -> tuple[list[str], np.ndarray]:
    """What the language model attended to as it wrote a sentence, word by word.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): with eager attention.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the sentence.
        sequence (`torch.LongTensor` of shape `(1, L)`): as `generate` gave it, with its start token.
        encoded (`BaseModelOutput`): the model's encoder states of one clip.
        mask (`torch.LongTensor` of shape `(1, T)`): of the clip.

    Returns:
        `tuple`: the W words; and their attention, float32 of shape `(W, T)`, whose rows sum to 1: the mean over
            layers, heads and the pieces of a word.
    """
    outputs = model(
        encoder_outputs=encoded,
        attention_mask=mask,
        decoder_input_ids=sequence[:, :-1],
        output_attentions=True,
        use_cache=False,
    )
    tokens = torch.stack(outputs.cross_attentions).float().mean((0, 2))[0].cpu().numpy()  # (L - 1, T)
    words, groups = words_of(sequence[0, 1:].tolist(), tokenizer)
    attention = [tokens[group].mean(0) for group in groups]
    return words, np.stack(attention) if attention else np.zeros((0, tokens.shape[1]))


def words_of(ids: list[int], tokenizer) -> tuple[list[str], list[list[int]]]:
    """Join generated pieces to words (without spaces: each for itself), and say which pieces each is made of."""
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
    """Whether a piece ends in a letter of a script that does not put spaces between words."""
    return bool(text) and unicodedata.name(text[-1], "").startswith(SPACELESS_SCRIPTS)


def language_of(tokenizer, asked: str | None = None) -> str:
    """Of the sentences, as HTML's `lang` has it; empty where neither a call nor the tokenizer says it."""
    return str(asked or getattr(tokenizer, "tgt_lang", None) or "").split("_")[0]


def shortest_half(weights: np.ndarray) -> tuple[int, int]:
    """First and last position of the shortest segment that holds half of the sum of weights `(T,)`."""
    total = np.concatenate([[0.0], np.cumsum(weights)])
    ends = np.searchsorted(total, total + 0.5 * total[-1] - 1e-9)  # (T + 1,): behind the last position
    return min((end - 1 - first, first, int(end) - 1) for first, end in enumerate(ends) if end < len(total))[1:]


def centred_cosines(features: torch.Tensor) -> np.ndarray:
    """Cosines of features less their mean; with the mean left in, all frames of a clip look alike.

    Args:
        features (`torch.FloatTensor` of shape `(T, C)`): of one clip.

    Returns:
        `np.ndarray` of shape `(T, T)`: -1 to 1; 0 for a frame that is the mean itself.
    """
    centred = F.normalize(features - features.mean(0), dim=1)
    return (centred @ centred.T).clamp(-1, 1).numpy()
