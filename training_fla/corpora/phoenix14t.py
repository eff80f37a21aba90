"""RWTH-PHOENIX-Weather 2014 T, release v3: weather reports in German sign language.

annotations/manual/PHOENIX-2014-T.{train,dev,test}.corpus.csv      name|video|start|end|speaker|orth|translation
features/fullFrame-210x260px/{train,dev,test}/{name}/images0001.png
"""

import re
from pathlib import Path

from training_fla.corpora.release import Note, no_note, one_line, read_unquoted_table, release_folder
from training_fla.corpora.row import SPLITS, CorpusRow, FrameFolder, path_inside
from training_fla.files import InputError

# Paper: Table 1. The release's own counts too.
EXPECTED = {"train": 7096, "dev": 519, "test": 642}
PAPER_COUNTS_NOTE = ""

LANGUAGE = "de_DE"
FPS = 25.0
FRAMES = "features/fullFrame-210x260px"
# One folder holds a profiler's output besides its frames, so only images count.
PATTERN = "*.png"


def read_phoenix14t(root: str | Path, note: Note = no_note) -> list[CorpusRow]:
    """The rows of the release.

    Args:
        root (`str` or `Path`): the unpacked archive, `PHOENIX-2014-T-release-v3` or `PHOENIX-2014-T` in it.
        note (`Callable[[str], None]`): told what is odd in the release.

    Returns:
        `list[CorpusRow]`: train, dev, test, each in the order of its file.

    Raises:
        InputError: naming the file, and the line, that cannot be used.
    """
    folder = release_folder(root, "annotations/manual")
    rows = []
    for split in SPLITS:
        file = folder / "annotations/manual" / f"PHOENIX-2014-T.{split}.corpus.csv"
        if not file.is_file():
            note(f"{file} is missing: no {split} split")
            continue
        for line, record in read_unquoted_table(file, "|", ("name", "video", "speaker", "translation")):
            try:
                video = FrameFolder(_frame_folder(folder / FRAMES / split, record["video"]), PATTERN, FPS)
            except InputError as error:
                raise InputError(f"{file}, line {line}: {error}") from error
            sentence, signer = one_line(record["translation"]), record["speaker"].strip()
            rows.append(CorpusRow(record["name"].strip(), video, sentence, split, signer, LANGUAGE))
    if not rows:
        raise InputError(f"{folder / 'annotations/manual'} holds no PHOENIX-2014-T.<split>.corpus.csv")
    return rows


def media(root: str | Path) -> list[Path]:
    """Every clip of the release.

    Args:
        root (`str` or `Path`): the unpacked release.

    Returns:
        `list[Path]`: folders of frames.
    """
    frames = release_folder(root, "annotations/manual") / FRAMES
    return sorted(path for split in SPLITS for path in (frames / split).glob("*") if path.is_dir())


def _frame_folder(frames: Path, written: str) -> Path:
    """Where the frames are that the annotation calls `name/1/*.png` or `name/*.png`: in `name/`, as released."""
    name = re.sub(r"(/1)?/\*\.png$", "", written.strip())
    folder = path_inside(frames, name)
    inner = path_inside(frames, f"{name}/1")
    return inner if inner.is_dir() else folder
