"""A `datasets` folder or Hub dataset with a column of videos and one of sentences."""

from functools import partial
from pathlib import Path
from typing import Any

from training_fla.corpora.release import Note, no_note, one_line
from training_fla.corpora.row import CorpusRow, EmbeddedVideo, VideoFile, canonical_split, path_inside
from training_fla.files import InputError


def read_dataset(
    root: str | Path,
    video_column: str = "video",
    sentence_column: str = "sentence",
    note: Note = no_note,
    language: str = "",
    revision: str | None = None,
) -> list[CorpusRow]:
    """The rows of anything `datasets.load_dataset` or `datasets.load_from_disk` opens.

    Args:
        root (`str` or `Path`): a folder or a Hub id.
        video_column (`str`): a column of type `Video`, or of paths relative to the folder.
        sentence_column (`str`): the column with the sentence.
        note (`Callable[[str], None]`): told of splits that are left out.
        language (`str`): MBart code of the sentences, where no column `language` says it.
        revision (`str`, *optional*): of a Hub dataset.

    Returns:
        `list[CorpusRow]`: the splits in the order train, dev, test.

    Raises:
        InputError: if it cannot be opened, or lacks a column.
    """
    splits = _open(root, revision)
    rows = []
    for name, table in splits.items():
        try:
            split = canonical_split(name)
        except InputError:
            note(f"split {name!r} is none of train, dev and test: left out")
            continue
        for column in (video_column, sentence_column):
            if column not in table.column_names:
                raise InputError(
                    f"{root}, split {name}, has no column {column!r}, only {', '.join(table.column_names)}: "
                    f"name the right one with --video-column or --sentence-column"
                )
        rows += _rows(root, table, split, video_column, sentence_column, language)
    if not rows:
        raise InputError(f"{root} has no rows in train, dev or test")
    return rows


def _open(root: str | Path, revision: str | None) -> dict[str, Any]:
    import datasets

    folder = Path(root)
    try:
        if folder.is_dir() and any((folder / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
            opened = datasets.load_from_disk(str(folder))
        else:
            opened = datasets.load_dataset(str(root), revision=revision)
    except Exception as error:  # of the Hub, of the network, of any file format
        raise InputError(f"{root} cannot be opened as a dataset: {' '.join(str(error).split())}") from error
    return dict(opened) if isinstance(opened, dict) else {str(opened.split or "train"): opened}


def _rows(
    root: str | Path, table: Any, split: str, video_column: str, sentence_column: str, language: str
) -> list[CorpusRow]:
    import datasets

    if isinstance(table.features[video_column], datasets.Video):
        table = table.cast_column(video_column, datasets.Video(decode=False))
    light = table.remove_columns([video_column])
    kinds = {kind: kind in light.column_names for kind in ("id", "signer", "language")}
    rows = []
    for index, record in enumerate(light):
        video, name = _video(root, table, index, video_column)
        sentence = record[sentence_column]
        rows.append(
            CorpusRow(
                id=str(record["id"]) if kinds["id"] else f"{index:06d}-{name}",
                video=video,
                sentence=one_line(sentence) if isinstance(sentence, str) else "",
                split=split,
                signer=str(record["signer"]) if kinds["signer"] else "",
                language=str(record["language"]) if kinds["language"] else language,
            )
        )
    return rows


def _video(root: str | Path, table: Any, index: int, column: str) -> tuple[VideoFile | EmbeddedVideo, str]:
    """The video of a row, with a name; bytes stay in the table until they are asked for."""
    feature = table.features[column]
    if getattr(feature, "dtype", None) == "string":
        written = table[index][column] or ""
        return VideoFile(path_inside(Path(root), written)), Path(written).stem
    path = table.with_format("arrow")[index][column][0]["path"].as_py() if _is_struct(table, column) else None
    if path and Path(path).is_file() and _may_be_read(Path(path), Path(root)):
        return VideoFile(Path(path)), Path(path).stem
    name = Path(path).stem if path else "video"
    return EmbeddedVideo(partial(_bytes, table, index, column, str(root)), name), name


def _may_be_read(path: Path, root: Path) -> bool:
    """Whether `datasets` found the file in the folder or downloaded it; a table may name any other file."""
    from huggingface_hub.constants import HF_HOME

    places = [Path(HF_HOME), root] if root.is_dir() else [Path(HF_HOME)]
    return any(path.resolve().is_relative_to(place.resolve()) for place in places)


def _is_struct(table: Any, column: str) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(table.data.schema.field(column).type)


def _bytes(table: Any, index: int, column: str, root: str) -> bytes:
    value = table[index][column]
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise InputError(f"{root}, row {index}: column {column!r} holds no video, nor the path of one in the dataset")
    return data
