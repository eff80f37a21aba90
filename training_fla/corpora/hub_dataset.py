"""A `datasets` folder or Hub dataset with a column of videos and one of sentences."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from training_fla.corpora.clips import EmbeddedVideo, VideoFile
from training_fla.corpora.row import CorpusRow, Reading, canonical_split, clip_times, find_inside
from training_fla.files import InputError, one_line
from training_fla.tables import NOT_A_SENTENCE


def read_dataset(
    root: str | Path,
    reading: Reading | None = None,
    video_column: str = "video",
    sentence_column: str = "sentence",
    start_column: str = "start",
    end_column: str = "end",
    language: str = "",
    revision: str | None = None,
) -> list[CorpusRow]:
    """The rows of what `datasets.load_dataset` or `load_from_disk` opens; columns of times may be absent or ""."""
    reading = reading or Reading()
    names = {"video": video_column, "sentence": sentence_column, "start": start_column, "end": end_column}
    rows, of_split = [], {}
    for name, table in _open(root, revision).items():
        try:
            split = canonical_split(name)
        except InputError:
            reading.notes.append(f"split {name!r} is none of train, dev and test: left out")
            continue
        if of_split.setdefault(split, name) != name:
            raise InputError(f"{root}: splits {of_split[split]!r} and {name!r} are both {split}: rename one of them")
        columns = {column.casefold(): column for column in table.column_names}
        found = {kind: columns.get(wanted.casefold()) for kind, wanted in names.items()}
        for kind in ("video", "sentence"):
            if not found[kind]:
                raise InputError(
                    f"{root}, split {name}, has no column {names[kind]!r}, only {', '.join(table.column_names)}: "
                    f"name the right one with --{kind}-column"
                )
        rows += _rows(Path(root), table, split, found, language, reading)
    return reading.finished(rows, f"{root} has no rows in train, dev or test")


def _open(root: str | Path, revision: str | None) -> dict[str, Any]:
    import datasets

    folder = Path(root)
    try:
        if folder.is_dir() and any((folder / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
            opened = datasets.load_from_disk(str(folder))
        else:
            opened = datasets.load_dataset(str(root), revision=revision)
    except Exception as error:  # of the Hub, of the network, of any file format
        raise InputError(f"{root} cannot be opened as a dataset: {one_line(error)}") from error
    return dict(opened) if isinstance(opened, dict) else {str(opened.split or "train"): opened}


def _rows(
    root: Path, table: Any, split: str, names: Mapping[str, str | None], language: str, reading: Reading
) -> list[CorpusRow]:
    import datasets

    if isinstance(table.features[names["video"]], datasets.Video):
        table = table.cast_column(names["video"], datasets.Video(decode=False))
    rows, ids = [], set()
    for index, record in enumerate(table.remove_columns([names["video"]])):
        with reading.bad.at(root, f"split {split}, row {index}"):
            sentence = record[names["sentence"]]
            if not isinstance(sentence, str) or sentence.strip().lower() in {"", *NOT_A_SENTENCE}:
                raise InputError(f"column {names['sentence']!r} holds {sentence!r}, not a sentence")
            times = clip_times(*(_time(record.get(names[kind])) for kind in ("start", "end")))
            video, name = _video(root, table, index, names["video"], times, reading.follow_links)
            id_ = str(record["id"]) if "id" in record else f"{index:06d}-{name}"
            if id_ in ids:
                raise InputError(f"id {id_!r} came before: give each row its own in column 'id'")
            ids.add(id_)
            rows.append(
                CorpusRow(
                    id=id_,
                    video=video,
                    sentence=one_line(sentence),
                    split=split,
                    signer=str(record.get("signer", "")),
                    language=str(record.get("language", language)),
                )
            )
    return rows


def _time(value: Any) -> str:
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if is_missing else str(value)


def _video(
    root: Path, table: Any, index: int, column: str, times: tuple[float | None, float | None], follow_links: bool
) -> tuple[VideoFile | EmbeddedVideo, str]:
    """The video of a row, with a name; bytes stay in the table until they are asked for."""
    import pyarrow as pa

    from processing_fla.video_reading_fla import VIDEO_SUFFIXES

    if getattr(table.features[column], "dtype", None) == "string":
        written = table[index][column] or ""
        return VideoFile(find_inside(root, written, follow_links, VIDEO_SUFFIXES), *times), Path(written).stem
    path, has_bytes = None, True
    if pa.types.is_struct(table.data.schema.field(column).type):
        cell = table.with_format("arrow")[index][column][0]
        path, has_bytes = cell["path"].as_py(), cell["bytes"].is_valid
    if path and Path(path).is_file():
        if follow_links or _may_be_read(Path(path), root):
            return VideoFile(Path(path), *times), Path(path).stem
        if not has_bytes:
            raise InputError(f"{path} leads out of {root}: pass --follow-links if you trust it")
    name = Path(path).stem if path else "video"
    return EmbeddedVideo(partial(_bytes, table, index, column, str(root)), name, *times), name


def _may_be_read(path: Path, root: Path) -> bool:
    """Whether `datasets` found the file in the folder or downloaded it; a table may name any other file."""
    from huggingface_hub.constants import HF_HOME

    places = [Path(HF_HOME), root] if root.is_dir() else [Path(HF_HOME)]
    return any(path.resolve().is_relative_to(place.resolve()) for place in places)


def _bytes(table: Any, index: int, column: str, root: str) -> bytes:
    value = table[index][column]
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise InputError(f"{root}, row {index}: column {column!r} holds no video, nor the path of one in the dataset")
    return data
