"""Captions of a source of frames, one after another: drafts while somebody signs, a sentence when the hands rest."""

from collections.abc import Iterator
from dataclasses import dataclass

from training_fla.captions.captioner import Captioner, SignedCue
from training_fla.captions.sources import Source
from training_fla.errors import InputError


@dataclass(frozen=True)
class Caption:
    """What a segment says, as far as it was signed."""

    start: float  # seconds
    end: float  # of a draft when its last frame is shown
    text: str
    is_draft: bool = False


def live_captions(pipe, captioner: Captioner, source: Source, with_drafts: bool, **options) -> Iterator[Caption]:
    """Captions as they come; `options` are those of generating a sentence.

    What was signed until the source ended, was closed or was lost is translated before this ends.

    Raises:
        InputError: the source was lost.
    """
    lost = None
    try:
        for seconds, index, frame in source:
            for cue in captioner.add(seconds, frame, index):
                yield caption_of(pipe, cue, options)
            if with_drafts and captioner.draft_is_due() and not source.is_behind():
                since = captioner.segmenter.open_since
                yield Caption(since, *captioner.draft(), is_draft=True)
    except InputError as error:
        lost = error
    finally:
        source.close()
    for cue in captioner.finish():
        yield caption_of(pipe, cue, options)
    if lost is not None:
        raise lost


def caption_of(pipe, cue: SignedCue, options: dict) -> Caption:
    """The sentence of a segment."""
    return Caption(cue.start, cue.end, pipe(cue.clip, **options)["translation_text"])
