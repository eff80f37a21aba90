"""Whether the tables of an MP4 or QuickTime file agree with one another and with the file that holds them.

FFmpeg reads as far as it understands and then stops, as if the video ended there: a bit that flipped in a table hides
frames. The tables say the number of frames several times over, which shows most of that.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Where a box holds boxes, and no fields before them.
SAMPLE_TABLE = ("mdia", "minf", "stbl")
MAX_INDEX_BYTES = 1 << 28
UNKNOWN_DURATION = {0, 2**32 - 1, 2**64 - 1}


class ContradictoryTablesError(ValueError):
    """The tables cannot all be right."""


def samples_in_tables(path: Path, track: int) -> tuple[int, bool]:
    """How many frames a track has by its tables, those of all fragments included.

    Args:
        path (`Path`): an MP4 or QuickTime file.
        track (`int`): number of the track.

    Returns:
        `tuple[int, bool]`: frames, and whether an edit list says which of them are shown.

    Raises:
        ContradictoryTablesError: if they contradict one another, or speak of bytes that the file does not have.
    """
    size = path.stat().st_size
    num_samples, edited, tracks = 0, False, set()
    try:
        with open(path, "rb") as file:
            for name, start, end in _top_level_boxes(file, size):
                if name == b"moov":
                    moov = _Box(_read_part(file, start, end))
                    if moov.all("cmov"):  # compressed
                        return 0, True
                    tracks = {trak.track() for trak in moov.all("trak")}
                    of_track = next(trak for trak in moov.all("trak") if trak.track() == track)
                    num_samples += _samples_in_track(of_track, size)
                    edited = _check_edits(moov, of_track)
                elif name == b"moof":
                    num_samples += _samples_in_fragment(_Box(_read_part(file, start, end)), track, tracks)
                elif end - start >= 16 and _peek(file, start + 4) == b"mfhd":
                    raise ContradictoryTablesError("a fragment under another name")
    except (struct.error, StopIteration, KeyError, IndexError, OverflowError) as error:
        raise ContradictoryTablesError(f"a table is missing or cut off: {error!r}") from error
    return num_samples, edited


def _top_level_boxes(file, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box of a file."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length, content = int.from_bytes(header[:4], "big"), position + 8
        if length == 1:
            length, content = int.from_bytes(header[8:], "big"), position + 16
        end = size if length == 0 else position + length
        if not content <= end:
            raise ContradictoryTablesError("a box that ends before it begins")
        yield header[4:8], content, min(end, size)
        position = end


def _peek(file, position: int) -> bytes:
    """Four bytes of a file."""
    file.seek(position)
    return file.read(4)


def _read_part(file, start: int, end: int) -> bytes:
    """Some bytes of a file, if they are not too many for an index."""
    if end - start > MAX_INDEX_BYTES:
        raise ContradictoryTablesError("an index of absurd size")
    file.seek(start)
    return file.read(end - start)


class _Box:
    """The content of a box, and the boxes in it.

    Args:
        content (`bytes`): without size and name.
    """

    def __init__(self, content: bytes):
        self.content = content

    def __iter__(self) -> Iterator[tuple[str, "_Box"]]:
        position = 0
        while position + 8 <= len(self.content):
            length, name = struct.unpack_from(">I4s", self.content, position)
            if length == 0:  # QuickTime ends some lists with a zero
                return
            if length < 8 or position + length > len(self.content):
                raise ContradictoryTablesError(f"a box {name!r} that does not fit")
            yield name.decode("latin-1"), _Box(self.content[position + 8 : position + length])
            position += length

    def all(self, name: str) -> list["_Box"]:
        """The boxes of that name in it."""
        return [box for other, box in self if other == name]

    def one(self, *names: str) -> "_Box":
        """The first box in it that has one of the names; `KeyError` where there is none."""
        found = next((box for other, box in self if other in names), None)
        if found is None:
            raise KeyError(" or ".join(names))
        return found

    def version(self) -> int:
        """The version, with which its fields begin."""
        return self.content[0]

    def flags(self) -> int:
        """The flags, which follow the version."""
        return int.from_bytes(self.content[1:4], "big")

    def track(self) -> int:
        """Of a `trak`: its number."""
        header = self.one("tkhd")
        return struct.unpack_from(">I", header.content, 20 if header.version() else 12)[0]

    def table(self, dtype: str, columns: int, start: int = 4) -> np.ndarray:
        """The rows of a table whose number stands before them."""
        (count,) = struct.unpack_from(">I", self.content, start)
        width = np.dtype(dtype).itemsize * columns
        if start + 4 + count * width > len(self.content):
            raise ContradictoryTablesError("a table longer than its box")
        return np.frombuffer(self.content, dtype, count * columns, start + 4).reshape(count, columns).astype(np.int64)


def _samples_in_track(trak: _Box, file_size: int) -> int:
    """Frames by the sample tables of a track, which must lie in the file."""
    stbl = trak
    for name in SAMPLE_TABLE:
        stbl = stbl.one(name)
    trak.one("mdia").one("mdhd")
    durations = stbl.one("stts").table(">u4", 2)
    chunks = stbl.one("stsc").table(">u4", 3)
    offsets = stbl.one("stco", "co64")
    offsets = offsets.table(">u8" if stbl.all("co64") else ">u4", 1)[:, 0]
    sizes = _sample_sizes(stbl)
    num_samples = len(sizes)
    if durations[:, 0].sum() != num_samples:
        raise ContradictoryTablesError(f"{num_samples} sizes, but {durations[:, 0].sum()} durations")
    if not len(offsets) or not num_samples:
        return num_samples
    first = np.append(chunks[:, 0], len(offsets) + 1)
    if first[0] != 1 or (np.diff(first) <= 0).any():
        raise ContradictoryTablesError("groups of chunks out of order")
    per_chunk = np.repeat(chunks[:, 1], np.diff(first))
    if per_chunk.sum() != num_samples:
        raise ContradictoryTablesError(f"{num_samples} sizes, but {per_chunk.sum()} frames in chunks")
    ends = np.append(0, np.cumsum(sizes))[np.cumsum(per_chunk)]
    if (offsets + np.diff(np.append(0, ends)) > file_size).any():
        raise ContradictoryTablesError("frames beyond the end of the file")
    return num_samples


def _sample_sizes(stbl: _Box) -> np.ndarray:
    """Bytes of each frame."""
    if stbl.all("stz2"):  # of fewer bits, which no frame of video has: only how many there are
        return np.zeros(struct.unpack_from(">I", stbl.one("stz2").content, 8)[0], np.int64)
    stsz = stbl.one("stsz")
    constant, count = struct.unpack_from(">II", stsz.content, 4)
    if constant:
        return np.full(count, constant, np.int64)
    return stsz.table(">u4", 1, start=8)[:, 0]


def _check_edits(moov: _Box, trak: _Box) -> bool:
    """Whether a track has an edit list; one that contradicts the durations elsewhere is refused."""
    movie = moov.one("mvhd")
    movie_rate = struct.unpack_from(">I", movie.content, 20 if movie.version() else 12)[0]
    lists = [elst for edts in trak.all("edts") for elst in edts.all("elst")]
    if not lists:
        return False
    header, version = trak.one("tkhd"), lists[0].version()
    stated = struct.unpack_from(">Q" if header.version() else ">I", header.content, 28 if header.version() else 20)[0]
    row = struct.Struct(">Qqi" if version else ">Iii")
    (count,) = struct.unpack_from(">I", lists[0].content, 4)
    edits = [row.unpack_from(lists[0].content, 8 + number * row.size) for number in range(count)]
    total = sum(duration for duration, _, _ in edits)
    # The duration of a track is that of its edits, by definition; some writers leave out of it what shows nothing.
    if total and stated not in UNKNOWN_DURATION and stated - total > 1 + count:
        raise ContradictoryTablesError(f"edits of {total}, but a track of {stated}")
    media = trak.one("mdia").one("mdhd")
    media_rate, media_length = struct.unpack_from(
        *((">IQ", media.content, 20) if media.version() else (">II", media.content, 12))
    )
    stbl = trak.one("mdia").one("minf").one("stbl")
    durations = stbl.one("stts").table(">u4", 2)
    length = int((durations[:, 0] * durations[:, 1]).sum())
    if length:  # else it is all in fragments
        shifts = stbl.one("ctts").table(">i4", 2)[:, 1] if stbl.all("ctts") else np.zeros(1)
        frame = min(length, media_length or length) // max(1, int(durations[:, 0].sum()))
        if media_length not in UNKNOWN_DURATION and length > media_length + frame:
            raise ContradictoryTablesError(f"frames that last {length}, but media that lasts {media_length}")
        shift = max(0, int(shifts.max(initial=0))) + frame
        for duration, start, _ in edits:
            behind = start * movie_rate + (duration - 2) * media_rate > (length + shift) * movie_rate
            # An edit that takes all may end late, as sound may; one that leaves out the beginning has no such reason.
            if behind and start > shift:
                raise ContradictoryTablesError("an edit that ends behind the end")
    return True


def _samples_in_fragment(moof: _Box, track: int, tracks: set[int]) -> int:
    """Frames of a track in one fragment."""
    moof.one("mfhd")
    parts = moof.all("traf")
    if not parts:
        raise KeyError("traf")
    num_samples = 0
    for traf in parts:
        header = traf.one("tfhd")
        flags, (number,) = header.flags(), struct.unpack_from(">I", header.content, 4)
        optional = {0x1: 8, 0x2: 4, 0x8: 4, 0x10: 4, 0x20: 4}
        if number not in tracks or len(header.content) != 8 + sum(b for bit, b in optional.items() if flags & bit):
            raise ContradictoryTablesError("a fragment of no track")
        runs = traf.all("trun")
        if not runs and not flags & 0x10000:
            raise KeyError("trun")
        counts = [_samples_in_run(run) for run in runs]
        num_samples += sum(counts) if number == track else 0
    return num_samples


def _samples_in_run(trun: _Box) -> int:
    """Frames of a run of frames, whose length in bytes must be what its flags say."""
    flags, (count,) = trun.flags(), struct.unpack_from(">I", trun.content, 4)
    once = 4 * bool(flags & 0x1) + 4 * bool(flags & 0x4)
    each = 4 * sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    if len(trun.content) != 8 + once + count * each:
        raise ContradictoryTablesError("a run of frames of another length")
    return count
