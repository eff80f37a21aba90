"""Whether a video file holds together and ends where its own structure says: asked where no header counts the frames.

The decoder cannot tell a short video from one that was cut off in copying, and a demuxer that meets a damaged spot
goes on behind it without a word. Some cuts leave a whole, shorter video, and nothing can show them: a transport stream
or MPEG program stream between two packets, a fragmented MP4 file between two fragments, a Matroska file of unknown
length between two blocks.
"""

import os
import struct
from pathlib import Path

EBML_SEGMENT, EBML_CLUSTER = 0x18538067, 0x1F43B675
# What may stand beside or inside those two, by Matroska's specification (RFC 9559), and the most bytes it may have.
EBML_ELEMENTS = {
    **dict.fromkeys([0x1A45DFA3, 0xEC, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B], None),  # header, filler, index
    **dict.fromkeys([0x1941A469, 0x1043A770, 0x1254C367, 0x5854, 0xA3, 0xA0, 0xAF], None),  # attachments, tags, blocks
    **dict.fromkeys([0xBF, 0xE7, 0xA7, 0xAB], 8),  # a checksum and numbers
}  # fmt: skip
FLV_TAGS = {8, 9, 18}  # sound, video, script
FLV_FILE_SIZE = b"\x00\x08filesize\x00"  # a key of the script tag, then the sign of a number
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
TS_PACKET, M2TS_PACKET = 188, 192


def is_whole(path: Path, container_format: str) -> bool:
    """Whether a file's structure has neither a damaged spot nor a missing end.

    Args:
        path (`Path`): a video file.
        container_format (`str`): FFmpeg's name of its demuxer, e.g. `"matroska,webm"`.

    Returns:
        `bool`: `True` also where the format says nothing about its end.
    """
    checks = {
        "matroska": elements_are_whole, "mov": boxes_are_whole, "flv": tags_are_whole, "asf": asf_is_whole,
        "mpegts": packets_are_whole,
    }  # fmt: skip
    check = next((checks[name] for name in container_format.split(",") if name in checks), None)
    if check is None:
        return True
    with open(path, "rb") as file:
        return check(file, os.path.getsize(path))


def elements_are_whole(file, size: int) -> bool:
    """Walk a Matroska or WebM file block by block; what browsers record does not know its length.

    Args:
        file (`BinaryIO`): open for reading.
        size (`int`): its bytes.

    Returns:
        `bool`: whether every block lies where one may, and the last ends with the file.
    """
    position, ends = 0, [size]  # of the file and of what is open in it: the segment, and a cluster in that
    while position < size:
        while position == ends[-1]:
            ends.pop()
        file.seek(position)
        head = file.read(12)
        element, element_bytes = ebml_number(head, keep_marker=True)
        length, length_bytes = ebml_number(head[element_bytes:], keep_marker=False)
        position += element_bytes + length_bytes
        if length is not None and position + length > ends[-1]:
            return False
        if element in (EBML_SEGMENT, EBML_CLUSTER):
            if length is not None:
                ends.append(position + length)
        elif element in EBML_ELEMENTS and length is not None and length <= (EBML_ELEMENTS[element] or length):
            position += length
        else:
            return False
    return position == size


def ebml_number(data: bytes, keep_marker: bool) -> tuple[int | None, int]:
    """Read one of EBML's numbers of variable length.

    Args:
        data (`bytes`): that begin with it.
        keep_marker (`bool`): whether the bit that says how long it is belongs to it.

    Returns:
        `tuple[int or None, int]`: the number, `None` for the one that means "unknown", and its number of bytes.
    """
    num_bytes = 9 - data[0].bit_length() if data and data[0] else 1
    marker = 1 << (7 * num_bytes)
    value = int.from_bytes(data[:num_bytes], "big")
    if keep_marker:
        return value, num_bytes
    return (None if value % marker == marker - 1 else value % marker), num_bytes


def empty_avi_chunks(path: Path, stream: int) -> int:
    """Chunks without a byte in the index of an AVI file: where the frame before goes on being shown.

    Its header counts them as frames, and no decoder gives them.

    Args:
        path (`Path`): the file.
        stream (`int`): number of its video stream.

    Returns:
        `int`: 0 too where there is no index.
    """
    position, index = 12, b""
    with open(path, "rb") as file:
        while not index:
            file.seek(position)
            header = file.read(8)
            if len(header) < 8 or not header[:4].isalnum():
                break
            length = int.from_bytes(header[4:], "little")
            index = file.read(length) if header[:4] == b"idx1" else b""
            position += 8 + length + length % 2
    names = {b"%02ddc" % stream, b"%02ddb" % stream}
    entries = (index[place : place + 16] for place in range(0, len(index) - 15, 16))
    return sum(entry[:4] in names and entry[12:] == bytes(4) for entry in entries)


def boxes_are_whole(file, size: int) -> bool:
    """Walk the top-level boxes of an MP4 or QuickTime file.

    Args:
        file (`BinaryIO`): open for reading.
        size (`int`): of the file, in bytes.

    Returns:
        `bool`: whether it ends where it says it does.
    """
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length == 0:  # up to the end of the file, wherever that is
            return True
        if len(header) < 8 or length < 8:
            return False
        position += length
    return position == size


def tags_are_whole(file, size: int) -> bool:
    """Walk the tags of an FLV file; each is followed by its own length. The first may state the size of the file.

    Args:
        file (`BinaryIO`): open for reading.
        size (`int`): of the file, in bytes.

    Returns:
        `bool`: whether it ends where it says it does.
    """
    header = file.read(1 << 16)
    place = header.find(FLV_FILE_SIZE)
    if place >= 0 and struct.unpack_from(">d", header.ljust(place + 19, b"\0"), place + len(FLV_FILE_SIZE))[0] > size:
        return False
    position = 9 + 4
    while position < size:
        file.seek(position)
        header = file.read(11)
        length = 11 + int.from_bytes(header[1:4], "big")
        file.seek(position + length)
        if not header or header[0] & 0x1F not in FLV_TAGS or int.from_bytes(file.read(4), "big") != length:
            return False
        position += length + 4
    return position == size


def asf_is_whole(file, size: int) -> bool:
    """Whether an ASF (WMV) file is as long as its header states, and its packets hold every piece of every frame.

    Args:
        file (`BinaryIO`): open for reading.
        size (`int`): its bytes.

    Returns:
        `bool`: `True` also where it was broadcast and states nothing.
    """
    header = file.read(1 << 16)
    place, data = header.find(ASF_FILE_PROPERTIES), header.find(ASF_DATA)
    if place < 0 or len(header) < place + 100 or header[place + 88] & 1:
        return True
    smallest, largest = struct.unpack_from("<II", header, place + 92)
    if int.from_bytes(header[place + 40 : place + 48], "little") > size or not 0 < smallest == largest:
        return False
    (num_packets,) = struct.unpack_from("<Q", header, place + 56)
    if data < 0 or data + 50 + num_packets * smallest > size:
        return False
    file.seek(data + 50)
    objects: dict[int, list[int]] = {}
    try:
        return all(_asf_packet_fits(file.read(smallest), objects) for _ in range(num_packets)) and all(
            received == expected for _, expected, received in objects.values()
        )
    except (struct.error, IndexError):
        return False


def _asf_packet_fits(packet: bytes, objects: dict[int, list[int]]) -> bool:
    """Whether the pieces of frames in a packet follow on those before, by number and by offset.

    `objects` has the number, the size and the bytes so far of each stream's frame.
    """
    position = 1 + (packet[0] & 0x0F) if packet[0] & 0x80 else 0
    lengths, properties = packet[position], packet[position + 1]
    position += 2

    def number(kind: int) -> int:
        nonlocal position
        width = (0, 1, 2, 4)[kind & 3]
        position += width
        return int.from_bytes(packet[position - width : position], "little")

    number(lengths >> 5)  # of the packet
    number(lengths >> 1)
    padding = number(lengths >> 3)
    position += 6
    several = lengths & 1
    pieces = packet[position] if several else 1
    position += several
    for _ in range(pieces & 0x3F):
        stream = packet[position] & 0x7F
        position += 1
        index, offset, replicated = number(properties >> 4), number(properties >> 2), number(properties)
        size = int.from_bytes(packet[position : position + 4], "little")
        position += replicated
        length = number(pieces >> 6) if several else len(packet) - padding - position
        position += length
        if replicated < 8:  # 1 means many small pieces in one, as sound may have
            continue
        before = objects.setdefault(stream, [index - 1 if offset == 0 else index, 0, offset])
        if offset == 0:
            if before[1] != before[2] and before[1] or (before[0] + 1 - index) % 256:
                return False
            before[:] = [index, size, 0]
        if (index, size, offset) != tuple(before) or length < 1 or position > len(packet):
            return False
        before[2] += length
    return True


def packets_are_whole(file, size: int) -> bool:
    """Whether an MPEG transport stream ends with a whole packet, plain or (.m2ts) with a time before it.

    Args:
        file (`BinaryIO`): open for reading.
        size (`int`): of the file, in bytes.

    Returns:
        `bool`: whether it ends where it says it does.
    """
    return size % TS_PACKET == 0 or size % M2TS_PACKET == 0
