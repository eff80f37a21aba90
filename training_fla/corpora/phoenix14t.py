"""RWTH-PHOENIX-Weather 2014 T, release v3: weather reports in German sign language.

annotations/manual/PHOENIX-2014-T.{train,dev,test}.corpus.csv      name|video|start|end|speaker|orth|translation
features/fullFrame-210x260px/{train,dev,test}/{name}/images0001.png
"""

import re
from pathlib import Path

from training_fla.corpora.clips import FrameFolder
from training_fla.corpora.row import SPLITS, CorpusRow, Reading, find_inside, release_folder
from training_fla.errors import one_line
from training_fla.tables import read_table

LANGUAGE = "de_DE"
FPS = 25.0
FRAMES = "features/fullFrame-210x260px"


def read_phoenix14t(root: str | Path, reading: Reading | None = None) -> list[CorpusRow]:
    """The rows of the unpacked archive, `PHOENIX-2014-T-release-v3` or `PHOENIX-2014-T` in it."""
    reading = reading or Reading()
    folder = release_folder(root, "annotations/manual")
    rows = []
    for split in SPLITS:
        file = folder / "annotations/manual" / f"PHOENIX-2014-T.{split}.corpus.csv"
        if not file.is_file():
            reading.notes.append(f"{file} is missing: no {split} split")
            continue
        columns = ("name", "video", "speaker", "translation")
        for line, cells in read_table(file, columns, ("orth",), reading.bad, rest_in_last=True):
            with reading.bad.at(file, line):
                path = _frame_folder(folder / FRAMES / split, cells["video"], reading.follow_links)
                sentence, signer = one_line(cells["translation"]), cells["speaker"].strip()
                what = (sentence, split, signer, LANGUAGE)
                glosses = " ".join(cells.get("orth", "").split())
                rows.append(CorpusRow(cells["name"].strip(), FrameFolder(path, FPS), *what, glosses=glosses))
    return reading.finished(rows, f"{folder / 'annotations/manual'} holds no PHOENIX-2014-T.<split>.corpus.csv")


def media(root: str | Path) -> list[Path]:
    """The folders of frames that lie in the release."""
    frames = release_folder(root, "annotations/manual") / FRAMES
    return sorted(path for split in SPLITS for path in (frames / split).glob("*") if path.is_dir())


def _frame_folder(frames: Path, written: str, follow_links: bool) -> Path:
    """Where the frames are that the annotation calls `name/1/*.png` or `name/*.png`: in `name/`, as released."""
    name = re.sub(r"(/1)?/\*\.png$", "", written.strip())
    folder = find_inside(frames, name, follow_links)
    return find_inside(frames, f"{name}/1", follow_links) if (folder / "1").is_dir() else folder
