"""Read thousands of damaged videos: `python -m tests.video_campaign --files 20000`; `pytest -m slow` reads hundreds.

Small videos of every container are drawn, damaged at random, and read in a process of their own. A file may be read or
refused by a `VideoDecodeError`. Whatever else happens to it is a finding, and the file is kept.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from processing_fla import FlaVideoProcessor, VideoDecodeError
from tests.processing.drawing import marked_frame, write_video
from training_fla.viewing.reading_process import ReadingProcess

CONTAINERS = {
    "h264.mp4": {"codec": "libx264"},
    "h265.mov": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "mpeg4.3gp": {"codec": "mpeg4"},
    "h264.mkv": {"codec": "libx264"},
    "ffv1.mkv": {"codec": "ffv1", "options": {}},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}},
    "h264.ts": {"codec": "libx264", "format": "mpegts"},
    "mpeg2.ts": {"codec": "mpeg2video", "format": "mpegts", "options": {"flags": "+ilme+ildct"}},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "mpeg2.mxf": {"codec": "mpeg2video"},
    "flv1.flv": {"codec": "flv"},
    "wmv2.wmv": {"codec": "wmv2", "format": "asf"},
    "theora.ogv": {"codec": "libtheora", "options": {}},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8", "options": {}},
}
SECONDS = 10  # that a file may take


def draw_videos(folder: Path, height: int = 64, width: int = 96, num_frames: int = 24) -> dict[str, bytes]:
    """The whole file of each container that this FFmpeg can write."""
    import av

    videos = {}
    for name, options in CONTAINERS.items():
        if options["codec"] in av.codecs_available:
            frames = [marked_frame(number, height, width) for number in range(num_frames)]
            videos[name] = write_video(folder / name, frames, **options).read_bytes()
    return videos


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """A file with one to three random wounds."""
    data = bytearray(content)
    for _ in range(draw.integers(1, 4)):
        place, length = int(draw.integers(len(data))), int(draw.integers(1, 65))
        # Headers lie at the front and behind the frames, where most of a file's own numbers are.
        place = int(draw.choice([place, place % 512, max(0, len(data) - 1 - place % 1024)], p=[0.6, 0.2, 0.2]))
        kind = draw.integers(6)
        if kind == 0:
            data[place] ^= 1 << int(draw.integers(8))
        elif kind == 1:
            data[place : place + length] = draw.bytes(length)
        elif kind == 2:  # a number of four bytes becomes a very large, a negative or a small one
            number = int(draw.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, int(draw.integers(2**32))]))
            data[place : place + 4] = number.to_bytes(4, "big" if draw.integers(2) else "little")
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length]
        elif place > 64:
            del data[place:]
    return bytes(data)


def damaged_videos(videos: dict[str, bytes], seed: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of damaged files, one container after the other, without end; the same for one seed."""
    draw = np.random.default_rng(seed)
    while True:
        for name, content in videos.items():
            yield name, damaged(content, draw)


def read(path: Path, video_processor: FlaVideoProcessor) -> int:
    return len(video_processor(path)["pixel_values_videos"][0])


class TooSlowError(Exception):
    """A file took longer than it may."""


def run(num_files: int, seed: int, folder: Path) -> tuple[Counter, float, list[str]]:
    """How many files were read or refused, the longest seconds that one took, and what else happened."""
    folder.mkdir(parents=True, exist_ok=True)
    video_processor = FlaVideoProcessor(size={"height": 24, "width": 24}, crop_size={"height": 20, "width": 20})
    counts, longest, findings = Counter(), 0.0, []
    process = ReadingProcess()
    for number, (name, content) in zip(range(num_files), damaged_videos(draw_videos(folder), seed), strict=False):
        path = folder / f"{seed}-{number}-{name}"
        path.write_bytes(content)
        began = time.monotonic()

        def check(began: float = began) -> None:
            if time.monotonic() > began + SECONDS:
                raise TooSlowError(f"more than {SECONDS} s")

        try:
            process.call(read, path, video_processor, name=path, check=check)
            outcome = "read"
        except VideoDecodeError as error:
            outcome = "crashed" if "the process that decodes it" in str(error) else "refused"
            if str(path) not in str(error):
                outcome = "refused without its name"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        counts[outcome] += 1
        longest = max(longest, time.monotonic() - began if number else 0.0)  # the first starts the process
        if outcome in ("read", "refused"):
            path.unlink()
        else:
            findings.append(f"{path}: {outcome}")
            print(findings[-1], flush=True)
        if number % 1000 == 999:
            print(f"{number + 1} files, {dict(counts)}, longest {longest:.1f} s", flush=True)
    process.end()
    return counts, longest, findings


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fla-video-campaign"), help="findings are kept here")
    given = parser.parse_args()
    print(run(given.files, given.seed, given.folder))
