"""Kinds of files that are given where a table is asked for: what they are, and which command takes them."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

SPREADSHEET_SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
SAVE_AS_CSV = "save it as 'CSV UTF-8' (.csv)"
OF_FEATURES = "`fla prepare features` takes a table that names such files"
BEGINNING = 512  # bytes of a file that tell its kind
# Packets of 188 bytes, in .m2ts with a time of 4 bytes before each; the first is padded with what no UTF-8 text has.
TRANSPORT_STREAM = rb"(?:....)?(?=G.{187}(?:....)?G)(?=.{0,187}\xff)"


class _OtherFile(NamedTuple):
    """A kind of file that is no table, by its suffix or its first bytes, and what to do with it."""

    what: str
    suffixes: Sequence[str]
    beginning: bytes  # a pattern
    remedy: str


OTHER_FILES = (
    _OtherFile(
        "a spreadsheet",
        SPREADSHEET_SUFFIXES,
        rb"\xd0\xcf\x11\xe0",
        SAVE_AS_CSV,
    ),
    _OtherFile(
        "a video",
        (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv")
        + (".asf", ".3gp", ".3g2", ".mxf", ".ogv", ".gif"),
        rb"\0...ftyp|\x1a\x45\xdf\xa3|RIFF....AVI |\x00\x00\x01[\xb3\xba]|FLV\x01|OggS\0|GIF8|" + TRANSPORT_STREAM,
        "name it in a table, a row a clip; `fla translate MODEL VIDEO` translates it",
    ),
    _OtherFile(
        "a picture",
        (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"),
        rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP",
        "name the folder of a clip's frames in a table, a row a clip",
    ),
    _OtherFile(
        "a Parquet or Arrow file",
        (".parquet", ".arrow", ".feather"),
        rb"PAR1[^ -~]|ARROW1\0",
        f"`fla prepare dataset --root FOLDER` takes the folder that it lies in, or {SAVE_AS_CSV}",
    ),
    _OtherFile("a file of poses", (".pose",), rb"(?!)", OF_FEATURES),
    _OtherFile(
        "a file of features",
        (".npy", ".npz", ".pt", ".pth", ".safetensors", ".h5", ".hdf5", ".mat"),
        rb"\x93NUMPY|\x89HDF",
        OF_FEATURES,
    ),
    _OtherFile(
        "a pickle",
        (".pkl", ".pickle"),
        rb"\x80[\x02-\x05]",
        f"it may run any code and is not read: {SAVE_AS_CSV}; `fla prepare csl_daily` takes that of CSL-Daily",
    ),
    _OtherFile(
        "a file of subtitles or annotations",
        (".srt", ".vtt", ".ass", ".ssa", ".sbv", ".eaf"),
        rb"(?!)",
        "`fla prepare subtitles` makes a table of it and its recording",
    ),
    _OtherFile(
        "packed",
        (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar"),
        rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf",
        "unpack it",
    ),
    # .xlsx, .ods and .numbers are zip files
    _OtherFile("a spreadsheet or another zip file whatever its name", (), rb"PK\x03\x04", SAVE_AS_CSV),
)


def kind_of_file(name: str, beginning: bytes = b"") -> str | None:
    """What a file is that is no table, and what to do with it; `None` for what may be one."""
    suffix = os.path.splitext(name)[1].lower()
    for kind in OTHER_FILES:
        if suffix in kind.suffixes:
            return f"{kind.what}: {kind.remedy}"
    for kind in OTHER_FILES:
        if re.match(kind.beginning, beginning, re.DOTALL):
            what = kind.what if not kind.suffixes else f"{kind.what} whatever its name"
            return f"{what}: {kind.remedy}"
    return None
