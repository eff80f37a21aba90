"""Translations of clips: which files and folders are clips, and the lines that are printed of them."""

import contextlib
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from processing_fla.video_reading_fla import is_frame_folder, is_video_file
from training_fla.console import progress
from training_fla.errors import InputError, one_line
from training_fla.viewing.reading_process import IsolatedProcessor, ReadingProcess


def list_clips(arguments: list[str]) -> Iterator[str]:
    """Video files and folders of frames that arguments stand for; a file that does not exist is passed on."""
    for argument in arguments:
        matches = [argument]
        if not os.path.exists(argument) and glob.has_magic(argument):
            matches = sorted(glob.glob(argument, recursive=True))
            if not matches:
                raise InputError(f"no file matches `{argument}`")
        for match in matches:
            if not os.path.isdir(match) or is_frame_folder(match):
                yield match
                continue
            inside = sorted(path for path in Path(match).iterdir() if is_video_file(path) or is_frame_folder(path))
            if not inside:
                raise InputError(f"`{match}` holds neither videos nor frames")
            yield from map(str, inside)


@contextlib.contextmanager
def read_by(translate, processes: Sequence[ReadingProcess], clips: list[str]) -> Iterator[None]:
    """Have a pipeline's clips, which come in this order, read by other processes; without any, by this one."""
    if not processes:
        yield
        return
    processor = translate.processor
    with IsolatedProcessor(processor, processes, clips) as translate.processor:
        try:
            yield
        finally:
            translate.processor = processor


def print_translations(translate, clips: list[str], form: str, **options) -> list[str]:
    """Translate clips and print each result as it comes; the clips that were translated."""
    from transformers.pipelines.pt_utils import KeyDataset

    # Of a dataset the pipeline makes an iterator.
    results = translate(KeyDataset([{"video": clip} for clip in clips], "video"), on_error="skip", **options)
    bar = progress(zip(clips, results, strict=True), total=len(clips), desc="translating", unit="clip")
    translated = []
    for clip, result in bar:
        if "error" in result:
            bar.write(f"fla translate: error: {result['error']}", file=sys.stderr)
        else:
            translated.append(clip)
        if form == "tsv" and "error" not in result:
            bar.write(f"{printable(clip)}\t{one_line(result['translation_text'])}", file=sys.stdout)
        if form == "jsonl":
            bar.write(json.dumps({"video": printable(clip), **result}, ensure_ascii=False), file=sys.stdout)
    return translated


def printable(path: str) -> str:
    """A path as it was given, as text, whatever bytes its name is made of."""
    path = path[2:] if path.startswith(f".{os.sep}-") else path
    return os.fsencode(path).decode("utf-8", errors="replace")
