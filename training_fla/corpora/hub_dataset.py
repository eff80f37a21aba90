"""A `datasets` folder or Hub dataset with a column of videos and one of sentences."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from training_fla.corpora.clips import EmbeddedVideo, VideoFile
from training_fla.corpora.row import CorpusRow, Reading, canonical_split, cut, find_inside
from training_fla.errors import InputError, one_line
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
    """The rows of what `datasets.load_dataset` or `load_from_disk` opens; columns of times may be absent or "".

    A name such as `json.sentence` is of what lies in a column. Columns that are not asked for are not read.
    """
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
        found = {kind: _column(table, wanted) for kind, wanted in names.items()}
        for kind in ("video", "sentence"):
            if not found[kind] or (kind == "video" and found[kind] not in table.column_names):
                raise InputError(
                    f"{root}, split {name}, has no column {names[kind]!r}, only {', '.join(_names(table.features))}: "
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


def _names(features: Mapping[str, Any]) -> list[str]:
    """The names of columns, and `column.name` for what lies in them."""
    names = []
    for name, feature in features.items():
        names += [f"{name}.{inner}" for inner in _names(feature)] if isinstance(feature, dict) else [name]
    return names


def _column(table: Any, wanted: str) -> str | None:
    """The name of a column as it is written in a dataset, whatever its case."""
    names = {name.casefold(): name for name in (*_names(table.features), *table.column_names)}
    column, dot, inner = wanted.partition(".")
    if wanted.casefold() not in names and dot and column.casefold() in names:
        feature = table.features.get(names[column.casefold()])
        if type(feature).__name__ == "Json" or getattr(feature, "dtype", "") == "string":  # named row by row
            return f"{names[column.casefold()]}.{inner}"
    return names.get(wanted.casefold())


def _value(record: Mapping[str, Any], name: str | None) -> Any:
    """The value of a column or, for `column.name`, of what lies in one; `None` where there is none."""
    if name is None or name in record:
        return record.get(name)
    column, _, inner = name.partition(".")
    value = record.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"column {column!r} holds no JSON: {error}") from error
    return _value(value, inner) if inner and isinstance(value, dict) else None


def _records(table: Any, names: Iterable[str | None]) -> Iterator[dict[str, Any]]:
    """The rows as they are stored: nothing is decoded, and no other column is read."""
    columns = {name if name in table.column_names else name.partition(".")[0] for name in names if name}
    stored = table.select_columns(sorted(columns)).with_format("arrow")
    for batch in stored.iter(batch_size=1000):
        yield from batch.to_pylist()


def _rows(
    root: Path, table: Any, split: str, names: Mapping[str, str | None], language: str, reading: Reading
) -> list[CorpusRow]:
    import datasets

    if isinstance(table.features[names["video"]], datasets.Video):
        table = table.cast_column(names["video"], datasets.Video(decode=False))
    videos = table.select_columns([names["video"]])
    rows, ids = [], set()
    wanted = {kind: name for kind, name in names.items() if kind != "video"}
    wanted |= {name: name for name in ("id", "signer", "language") if name in table.column_names}
    for index, record in enumerate(_records(table, wanted.values())):
        with reading.bad.at(root, f"split {split}, row {index}"):
            sentence = _value(record, names["sentence"])
            if not isinstance(sentence, str) or sentence.strip().lower() in {"", *NOT_A_SENTENCE}:
                raise InputError(f"column {names['sentence']!r} holds {sentence!r}, not a sentence")
            video, name = _video(root, videos, index, names["video"], reading.follow_links)
            times = [_time(_value(record, names[kind])) for kind in ("start", "end")]
            id_ = f"{index:06d}-{name}" if record.get("id") is None else str(record["id"])
            if id_ in ids:
                raise InputError(f"id {id_!r} came before: give each row its own in column 'id'")
            ids.add(id_)
            rows.append(
                CorpusRow(
                    id=id_,
                    video=cut(video, *times, reading.times),
                    sentence=one_line(sentence),
                    split=split,
                    signer=str(record.get("signer") or ""),
                    language=str(record.get("language") or language),
                )
            )
    return rows


def _time(value: Any) -> str:
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if is_missing else str(value)


def _video(
    root: Path, table: Any, index: int, column: str, follow_links: bool
) -> tuple[VideoFile | EmbeddedVideo, str]:
    """The video of a row, with a name; bytes stay in the table until they are asked for."""
    import pyarrow as pa

    from processing_fla.video_reading_fla import VIDEO_SUFFIXES

    if getattr(table.features[column], "dtype", None) == "string":
        written = table[index][column] or ""
        return VideoFile(find_inside(root, written, follow_links, VIDEO_SUFFIXES)), Path(written).stem
    path = None
    data = table.with_format("arrow")[index][column][0]
    if pa.types.is_struct(data.type):
        path, data = data["path"].as_py(), data["bytes"]
    if path and Path(path).is_file():
        if follow_links or _may_be_read(Path(path), root):
            return VideoFile(Path(path)), Path(path).stem
        if not data.is_valid:
            raise InputError(f"{path} leads out of {root}: pass --follow-links if you trust it")
    name = Path(path).stem if path else "video"
    num_bytes = data.as_buffer().size if data.is_valid and hasattr(data, "as_buffer") else 0
    return EmbeddedVideo(partial(_bytes, table, index, column, str(root)), name, num_bytes=num_bytes), name


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
