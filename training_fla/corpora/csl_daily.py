"""CSL-Daily: everyday sentences in Chinese sign language.

sentence_label/csl2020ct_v2.pkl              {"info": [{"name", "length", "label_char", ...}, ...]}
sentence_label/split_1.txt                   name|split
sentence_label/video_map.txt                 index|name|length|gloss|char|word|postag: read where the pickle is absent
sentence/frames_512x512/{name}/000000.jpg    or sentence-crop/{name}.mp4
"""

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training_fla.corpora.clips import FrameFolder, VideoFile
from training_fla.corpora.row import CorpusRow, Reading, canonical_split, find_inside, release_folder
from training_fla.errors import InputError, one_line
from training_fla.names import plain_name
from training_fla.tables import read_table

LANGUAGE = "zh_CN"
FPS = 30.0
FRAME_FOLDERS = ("sentence/frames_512x512", "frames_512x512", "sentence_frames-512x512")
VIDEO_FOLDERS = ("sentence-crop", "sentence_crop", "sentence")

# The split file lists a training clip that the release does not hold, and the release holds one that no split lists.
LISTED_WITHOUT_FRAMES, FRAMES_WITHOUT_SPLIT = "S000005_P0004_T00", "S000007_P0003_T00"

Labels = Mapping[str, tuple[str, int | None]]  # sentence and number of frames by clip name


def read_csl_daily(root: str | Path, reading: Reading | None = None) -> list[CorpusRow]:
    """The rows of the release; `S000007_P0003_T00` takes the place of `S000005_P0004_T00` where that is not there."""
    reading = reading or Reading()
    folder = release_folder(root, "sentence_label")
    labels = _labels(folder / "sentence_label", reading)
    split_file = folder / "sentence_label" / "split_1.txt"
    table = _table(split_file, ("name", "split"), reading)
    listed = [(line, plain_name(cells["name"].strip()), cells["split"]) for line, cells in table]
    rows = []
    find = _finder(folder, reading.follow_links)
    for line, name, split in _with_gap_filled(listed, labels, find, reading):
        with reading.bad.at(split_file, line):
            split, video = canonical_split(split), find(name)
            if name not in labels:
                raise InputError(f"clip {name!r} has no sentence in {folder / 'sentence_label'}")
            sentence, length = labels[name]
            signer = name.split("_")[1] if name.count("_") >= 2 else ""
            rows.append(CorpusRow(name, video, sentence, split, signer, LANGUAGE, length))
    return reading.finished(rows)


def media(root: str | Path) -> list[Path]:
    """The folders of frames, or the video files, that lie in the release."""
    folder = release_folder(root, "sentence_label")
    frames = [path for name in FRAME_FOLDERS for path in (folder / name).glob("*") if path.is_dir()]
    return sorted(frames or [path for name in VIDEO_FOLDERS for path in (folder / name).glob("*.mp4")])


def _table(file: Path, columns: tuple[str, ...], reading: Reading) -> list[tuple[int, dict[str, str]]]:
    return read_table(file, columns, bad=reading.bad, rest_in_last=True)


def _finder(folder: Path, follow_links: bool) -> Callable[[str], FrameFolder | VideoFile]:
    """Finds a clip by its name."""
    frames, videos = (
        [folder / kind for kind in kinds if (folder / kind).is_dir()] for kinds in (FRAME_FOLDERS, VIDEO_FOLDERS)
    )

    def find(name: str) -> FrameFolder | VideoFile:
        if frames:
            path = find_inside(frames[0], name, follow_links)
            if path.is_dir() or not videos:
                return FrameFolder(path, FPS)
        paths = [find_inside(place, f"{name}.mp4", follow_links) for place in videos or [folder / VIDEO_FOLDERS[0]]]
        return VideoFile(next((path for path in paths if path.is_file()), paths[0]))

    return find


def _with_gap_filled(
    listed: list[tuple[int, str, str]], labels: Labels, find: Callable, reading: Reading
) -> list[tuple[int, str, str]]:
    names = {name: split for _, name, split in listed}
    if LISTED_WITHOUT_FRAMES not in names or not find(LISTED_WITHOUT_FRAMES).is_missing:
        return listed
    lacks = f"{LISTED_WITHOUT_FRAMES} is in the {names[LISTED_WITHOUT_FRAMES]} list but not in the release"
    if FRAMES_WITHOUT_SPLIT in names or FRAMES_WITHOUT_SPLIT not in labels or find(FRAMES_WITHOUT_SPLIT).is_missing:
        reading.notes.append(f"{lacks}, as is known of CSL-Daily")
        return listed
    reading.notes.append(f"{lacks}; {FRAMES_WITHOUT_SPLIT}, in no list, takes its place with its own sentence")
    taken = {LISTED_WITHOUT_FRAMES: FRAMES_WITHOUT_SPLIT}
    return [(line, taken.get(name, name), split) for line, name, split in listed]


def _labels(folder: Path, reading: Reading) -> Labels:
    pickles = sorted(folder.glob("csl2020ct_v*.pkl"))
    if pickles:
        return _pickled_labels(pickles[-1], reading)
    table = folder / "video_map.txt"
    if not table.is_file():
        raise InputError(f"{folder} holds neither csl2020ct_v2.pkl nor video_map.txt")
    labels = {}
    for line, cells in _table(table, ("name", "length", "char"), reading):
        name, length = plain_name(cells["name"].strip()), cells["length"].strip()
        with reading.bad.at(table, line):
            if length and not length.isdecimal():
                raise InputError(f"length {length!r} is not a number of frames")
            labels[name] = ("".join(cells["char"].split()), int(length) if length else None)
    return labels


def _pickled_labels(file: Path, reading: Reading) -> Labels:
    content = read_plain_pickle(file)
    infos = content.get("info") if isinstance(content, dict) else None
    if not isinstance(infos, list):
        raise InputError(f"{file} is not the label file of CSL-Daily: it has no list `info`")
    labels = {}
    for number, info in enumerate(infos):
        with reading.bad.at(file, f"info {number}"):
            if not isinstance(info, dict) or not isinstance(info.get("name"), str):
                raise InputError("it has no name")
            characters, length = info.get("label_char"), info.get("length")
            if isinstance(characters, list | tuple) and all(isinstance(character, str) for character in characters):
                characters = "".join(characters)
            if not isinstance(characters, str):
                raise InputError(f"clip {info['name']!r} has no `label_char`")
            labels[plain_name(info["name"])] = (one_line(characters), length if isinstance(length, int) else None)
    return labels


class _PlainUnpickler(pickle._Unpickler):
    """Reads data only. It is the unpickler in Python: the one in C allocates any length that a damaged file states."""

    def find_class(self, module: str, name: str) -> Any:
        raise InputError(f"it asks for {module}.{name}, and only plain data is read")


def read_plain_pickle(file: Path) -> Any:
    """The content of a pickle of plain Python data; one that asks for anything else is refused and nothing is run."""
    try:
        # From memory, where a damaged length cannot ask for more bytes than there are.
        return _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="utf-8").load()
    except InputError as error:
        raise InputError(f"{file} is refused: {error}") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (Exception, RecursionError) as error:  # a damaged pickle fails in every way there is
        raise InputError(f"{file} is damaged: {type(error).__name__} {error}") from error
