"""A dictionary: a table of clips of single signs, the split of each, and where in each the hands move."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training_fla.captions.pauses import PICTURE_SIZE, PauseRules, PauseSegmenter
from training_fla.console import counted, note, progress
from training_fla.corpora.clips import FrameFolder
from training_fla.corpora.manifest import manifest_files, manifest_fingerprint, read_manifest
from training_fla.corpora.row import CorpusRow, Reading
from training_fla.data.packed_corpus import PackedCorpus, read_packed_manifest
from training_fla.data.packing import clip_name, pack
from training_fla.data.worker_processes import LOST, in_workers
from training_fla.errors import InputError, one_line
from training_fla.tables import read_table, write_table

from .sentences import gloss_name, stable_integer

INTERVALS = "signs.tsv"  # beside the packed signs
REST_SECONDS = 0.4  # Unstated: kept before and after the motion, in which hands leave the rest and return to it


@dataclass(frozen=True)
class Splits:
    """Who signs for which split, where the table has no column that says it."""

    test_signers: Sequence[str] = ()
    dev_signers: Sequence[str] = ()
    same_signers_in_dev: bool = False  # dev shows signers of train, in clips of their own


def read_lexicon(file: Path, reading: Reading, **columns: object) -> tuple[list[CorpusRow], bool]:
    """The clips of a dictionary, the gloss in the place of the sentence, and whether the table says their splits."""
    rows = read_manifest(file, reading, **columns)
    cells = (cells for table, _ in manifest_files(file) for _, cells in read_table(table, (), ("split",)))
    has_splits = any(row.get("split", "").strip() for row in cells)
    return [replace(row, sentence=gloss_name(row.sentence)) for row in rows], has_splits


def deal(rows: list[CorpusRow], has_splits: bool, splits: Splits, seed: int) -> list[CorpusRow]:
    """Give each clip its split; no clip and no signer may stand in two, but for signers of train in dev, if asked."""
    asked = {*splits.test_signers, *splits.dev_signers}
    signers = {row.signer for row in rows}
    if asked and has_splits:
        raise InputError("the lexicon has a column split: leave --test-signers and --dev-signers out, or the column")
    if unknown := asked - signers:
        raise InputError(f"no clip is of signer {sorted(unknown)[0]!r}, only of {', '.join(sorted(signers))}")
    if not has_splits:
        names = dict.fromkeys(splits.dev_signers, "dev") | dict.fromkeys(splits.test_signers, "test")
        rows = [replace(row, split=names.get(row.signer, "train")) for row in rows]
        if splits.same_signers_in_dev:
            rows = with_dev_clips(rows, seed)
    _check_apart(rows, splits.same_signers_in_dev)
    return rows


def with_dev_clips(rows: list[CorpusRow], seed: int) -> list[CorpusRow]:
    """Take one clip a sign of each signer of train who has several for dev, by lot."""
    found = defaultdict(list)
    for row in rows:
        if row.split == "train":
            found[row.signer, row.sentence].append(row.id)
    chosen = {min(ids, key=lambda id_: stable_integer(seed, id_)) for ids in found.values() if len(ids) > 1}
    return [replace(row, split="dev") if row.split == "train" and row.id in chosen else row for row in rows]


def _check_apart(rows: list[CorpusRow], same_signers_in_dev: bool) -> None:
    clips, signers = defaultdict(set), defaultdict(set)
    for row in rows:
        clips[Path(row.video.path).resolve(), row.video.start_seconds, row.video.end_seconds].add(row.split)
        if row.signer:
            signers[row.signer].add(row.split)
    for (path, *_), found in clips.items():
        if len(found) > 1:
            raise InputError(f"{path} stands in the splits {', '.join(sorted(found))}: a clip belongs to one")
    for signer, found in signers.items():
        if len(found - ({"dev"} if same_signers_in_dev and "train" in found else set())) > 1:
            remedy = "a signer belongs to one"
            remedy += "; --same-signers-in-dev lets dev show signers of train" if found == {"train", "dev"} else ""
            raise InputError(f"signer {signer} stands in the splits {', '.join(sorted(found))}: {remedy}")


class Signs:
    """The signs of a dictionary, packed, and where in each the hands move."""

    def __init__(self, folder: Path):
        self.corpus = PackedCorpus(folder, "train")
        self.places = {id_: index for index, id_ in enumerate(self.corpus.ids)}
        table = read_table(folder / INTERVALS, ("id", "start", "end"))
        self.moving = {cells["id"]: (float(cells["start"]), float(cells["end"])) for _, cells in table}
        rates = [self.fps(id_) for id_ in self.places]
        self.common_fps = max(sorted(set(rates)), key=rates.count)

    def fps(self, id_: str) -> float:
        """Frames a second of a sign; 25 where nothing says it."""
        return self.corpus.fps(self.places[id_]) or FrameFolder.fps

    def frames(self, id_: str, seconds: np.ndarray) -> np.ndarray:
        """The frames that a sign shows at some moments, `(T, H, W, 3)` uint8 RGB."""
        last = self.corpus.num_frames[self.places[id_]] - 1
        numbers = np.minimum((seconds * self.fps(id_)).astype(np.int64), last)
        return self.corpus.read_frames(self.places[id_], numbers.tolist()).permute(0, 2, 3, 1).numpy()

    def seconds(self, id_: str) -> float:
        """How long the packed clip of a sign is."""
        return self.corpus.num_frames[self.places[id_]] / self.fps(id_)


def pack_signs(rows: list[CorpusRow], lexicon: Path, folder: Path, **packing: object) -> Signs:
    """Pack each clip of a dictionary, cut to where its hands move, unless `folder` holds them already.

    Clips with times in the table are taken as they are cut; of others the rest before and after the motion is kept
    for a moment, so that signs may be joined through it. `packing` is as for [`pack`].
    """
    source = manifest_fingerprint(lexicon, rows, signs=[(row.id, row.sentence) for row in rows])
    if not _is_packed(folder, source, packing):
        missing = [row for row in rows if _is_whole(row) and not row.video.is_missing]
        found = in_workers(moving_part, missing, packing["num_workers"], lost=lambda row: f"{clip_name(row)}: {LOST}")
        parts = progress(found, total=len(missing), desc="finding motion", unit="clip", disable=not missing)
        moving = {row.id: part for row, part in zip(missing, parts, strict=True) if not isinstance(part, str)}
        cut, intervals = [], []
        for row in rows:
            begin, end, whole = 0.0, 1e9, row.video
            if row.id in moving:
                begin, end, length = moving[row.id]
                first, last = max(0.0, begin - REST_SECONDS), min(length, end + REST_SECONDS)
                whole = replace(row.video, start_seconds=first, end_seconds=last)
                begin, end = begin - first, end - first
            cut.append(replace(row, video=whole, split="train"))
            intervals.append((row.id, f"{begin:.3f}", f"{end:.3f}"))

        def add_intervals(out: Path) -> None:
            write_table(out / INTERVALS, ("id", "start", "end"), intervals, overwrite=True)

        pack(cut, folder, corpus="signs", source=source, add_files=add_intervals, **packing)
        note(f"the signs alone are packed in {folder}")
    return Signs(folder)


def _is_packed(folder: Path, source: str, packing: dict[str, object]) -> bool:
    try:
        manifest = read_packed_manifest(folder)
    except InputError:
        return False
    stored = manifest["parameters"]
    same = stored["size"] == [packing["size"]] * 2 and stored["quality"] == packing["quality"]
    return same and manifest["source"] == source and (folder / INTERVALS).is_file()


def _is_whole(row: CorpusRow) -> bool:
    return row.video.start_seconds is None and row.video.end_seconds is None


def moving_part(row: CorpusRow) -> tuple[float, float, float] | str:
    """First and last second of motion in a clip, by the rule of `captions/pauses`, and its length; or why not."""
    try:
        with row.video.opened(1, PICTURE_SIZE) as clip:
            pictures = [frame[..., :3].mean(2, dtype="float32") for frame in clip]
    # Decoders raise errors of many kinds at a damaged file; packing names it.
    except (ValueError, OSError, ArithmeticError, LookupError, MemoryError, RuntimeError) as error:
        return one_line(error)
    fps = clip.fps or FrameFolder.fps
    length = len(pictures) / fps
    segmenter, segments = PauseSegmenter(PauseRules()), []
    for number, picture in enumerate(pictures):
        is_wanted = segmenter.wants_picture(number / fps)
        segments += segmenter.add(number / fps, picture if is_wanted else None)
    segments += segmenter.finish(length)
    return (segments[0][0], segments[-1][1], length) if segments else (0.0, length, length)


def described(rows: Sequence[CorpusRow]) -> str:
    """How many clips, glosses and signers each split has."""
    parts = []
    for split in dict.fromkeys(row.split for row in rows):
        of_split = [row for row in rows if row.split == split]
        glosses, signers = ({getattr(row, name) for row in of_split} for name in ("sentence", "signer"))
        who = f"signers {', '.join(sorted(signers))}" if signers - {""} else "signers unnamed"
        parts.append(f"{split} {counted(len(of_split), 'clip')} of {len(glosses)} glosses, {who}")
    return "; ".join(parts)
