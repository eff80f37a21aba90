"""CSL-Daily: everyday sentences in Chinese sign language.

sentence_label/csl2020ct_v2.pkl              {"info": [{"name", "length", "label_char", ...}, ...]}
sentence_label/split_1.txt                   name|split
sentence_label/video_map.txt                 index|name|length|gloss|char|word|postag: read where the pickle is absent
sentence/frames_512x512/{name}/000000.jpg    or sentence-crop/{name}.mp4
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_fla.corpora.plain_pickle import read_plain_pickle
from training_fla.corpora.release import Note, no_note, one_line, read_unquoted_table, release_folder
from training_fla.corpora.row import SPLITS, CorpusRow, FrameFolder, VideoFile, canonical_split, path_inside
from training_fla.files import InputError

# Paper: Table 1. The release's split file too.
EXPECTED = {"train": 18401, "dev": 1077, "test": 1176}
PAPER_COUNTS_NOTE = ""

LANGUAGE = "zh_CN"
FPS = 30.0
FRAME_FOLDERS = ("sentence/frames_512x512", "frames_512x512", "sentence_frames-512x512")
VIDEO_FOLDERS = ("sentence-crop", "sentence_crop", "sentence")
PATTERN = "*.jpg"

# The split file lists a training clip that the release does not hold, and the release holds one that no split lists.
LISTED_WITHOUT_FRAMES, FRAMES_WITHOUT_SPLIT = "S000005_P0004_T00", "S000007_P0003_T00"


def read_csl_daily(root: str | Path, note: Note = no_note) -> list[CorpusRow]:
    """The rows of the release.

    The split file lists `S000005_P0004_T00` for training, whose frames were never released, while `S000007_P0003_T00`
    was and is in no split. Where that is so, the second takes the place of the first, with its own sentence.

    Args:
        root (`str` or `Path`): the folder that holds `sentence_label`.
        note (`Callable[[str], None]`): told what is odd in the release, that exchange for one.

    Returns:
        `list[CorpusRow]`: train, dev, test, each in the order of the split file.

    Raises:
        InputError: naming the file, and the line or clip, that cannot be used.
    """
    folder = release_folder(root, "sentence_label")
    labels = _labels(folder / "sentence_label")
    split_file = folder / "sentence_label" / "split_1.txt"
    splits: dict[str, str] = {}
    for line, record in read_unquoted_table(split_file, "|", ("name", "split")):
        try:
            splits[record["name"].strip()] = canonical_split(record["split"])
        except InputError as error:
            raise InputError(f"{split_file}, line {line}: {error}") from error
    _exchange_missing_clip(folder, splits, labels, note)
    rows = []
    for name, split in splits.items():
        if name not in labels:
            raise InputError(f"{split_file}: clip {name!r} has no sentence in {folder / 'sentence_label'}")
        sentence, length = labels[name]
        signer = name.split("_")[1] if name.count("_") >= 2 else ""
        rows.append(CorpusRow(name, _video(folder, name), sentence, split, signer, LANGUAGE, length))
    return sorted(rows, key=lambda row: SPLITS.index(row.split))


def media(root: str | Path) -> list[Path]:
    """Every clip of the release.

    Args:
        root (`str` or `Path`): the unpacked release.

    Returns:
        `list[Path]`: folders of frames, or video files.
    """
    folder = release_folder(root, "sentence_label")
    frames = [path for name in FRAME_FOLDERS for path in (folder / name).glob("*") if path.is_dir()]
    return sorted(frames or [path for name in VIDEO_FOLDERS for path in (folder / name).glob("*.mp4")])


def _video(folder: Path, name: str) -> FrameFolder | VideoFile:
    frames, videos = (next((folder / kind for kind in kinds if (folder / kind).is_dir()), None) for kinds in _KINDS)
    if frames is not None and (path_inside(frames, name).is_dir() or videos is None):
        return FrameFolder(path_inside(frames, name), PATTERN, FPS)
    for kind in VIDEO_FOLDERS:
        path = path_inside(folder / kind, f"{name}.mp4")
        if path.is_file():
            return VideoFile(path)
    return VideoFile(path_inside(videos or folder / VIDEO_FOLDERS[0], f"{name}.mp4"))


_KINDS = (FRAME_FOLDERS, VIDEO_FOLDERS)


def _exchange_missing_clip(folder: Path, splits: dict[str, str], labels: Mapping[str, Any], note: Note) -> None:
    absent = LISTED_WITHOUT_FRAMES in splits and not _video(folder, LISTED_WITHOUT_FRAMES).path.exists()
    unlisted = FRAMES_WITHOUT_SPLIT not in splits and _video(folder, FRAMES_WITHOUT_SPLIT).path.exists()
    if not absent:
        return
    split = splits[LISTED_WITHOUT_FRAMES]
    if not unlisted or FRAMES_WITHOUT_SPLIT not in labels:
        note(f"{LISTED_WITHOUT_FRAMES} is in the {split} list but not in the release, as is known of CSL-Daily")
        return
    # In its place, so that the order of the list is kept.
    names = [FRAMES_WITHOUT_SPLIT if name == LISTED_WITHOUT_FRAMES else name for name in splits]
    listed = dict(zip(names, splits.values(), strict=True))
    splits.clear()
    splits.update(listed)
    note(
        f"{LISTED_WITHOUT_FRAMES} is in the {split} list but not in the release; {FRAMES_WITHOUT_SPLIT}, in no list, "
        f"takes its place with its own sentence"
    )


def _labels(folder: Path) -> dict[str, tuple[str, int | None]]:
    """Sentence and number of frames by clip name."""
    pickles = sorted(folder.glob("csl2020ct_v*.pkl"))
    if pickles:
        return _pickled_labels(pickles[-1])
    table = folder / "video_map.txt"
    if not table.is_file():
        raise InputError(f"{folder} holds neither csl2020ct_v2.pkl nor video_map.txt")
    labels = {}
    for line, record in read_unquoted_table(table, "|", ("name", "length", "char")):
        length = record["length"].strip()
        if length and not length.isdecimal():
            raise InputError(f"{table}, line {line}: length {length!r} is not a number of frames")
        labels[record["name"].strip()] = ("".join(record["char"].split()), int(length) if length else None)
    return labels


def _pickled_labels(file: Path) -> dict[str, tuple[str, int | None]]:
    content = read_plain_pickle(file)
    infos = content.get("info") if isinstance(content, dict) else None
    if not isinstance(infos, list):
        raise InputError(f"{file} is not the label file of CSL-Daily: it has no list `info`")
    labels = {}
    for number, info in enumerate(infos):
        where = f"{file}, info {number}"
        if not isinstance(info, dict) or not isinstance(info.get("name"), str):
            raise InputError(f"{where} has no name")
        characters, length = info.get("label_char"), info.get("length")
        if isinstance(characters, list | tuple) and all(isinstance(character, str) for character in characters):
            characters = "".join(characters)
        if not isinstance(characters, str):
            raise InputError(f"{where}, clip {info['name']!r}, has no `label_char`")
        labels[info["name"]] = (one_line(characters), length if isinstance(length, int) else None)
    return labels
