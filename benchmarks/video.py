"""Do packed frames arrive at the speed of the JPEG decoder, and is video packed near the speed of its decoder?

    python -m benchmarks.video [--quick] [--videos DIR] [--repeats 5] [--json]        three minutes on two cores

Reading: clips of PHOENIX14T's size and median length, drawn with camera noise, packed at 256 x 256 and quality 95;
every fourth frame is read, by one thread. Against decoding the same JPEGs and no more (by torchvision, and by the
fastest decoder installed), and against the way of the public re-implementations: open every fourth PNG, PIL's bicubic
resize, normalise to float32, collate.

Packing: decode, scale, compress and write 1280 x 720 video, in a process a core, against the bare decoder in as many
processes, every frame and nothing made of it. Both start their processes anew, with everything imported before, and
take the clips several times over, in shards of a few clips: a corpus is hours of video, a start-up is not what is
asked for. `--videos DIR` takes your own; else some are drawn. The scaler is held against PIL's bicubic on the same
frames.

Limits are on time: 1/0.85 and 1/0.5 of bare decoding for reading plain and augmented, 1/12 and 1/8 of the peers'
loader, 1/0.6 of the bare video decoder for packing.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training_fla.corpora.clips import DrawnVideo, VideoFile, write_clip
from training_fla.corpora.row import CorpusRow
from training_fla.data.augmentation import ClipAugmentation
from training_fla.data.collation import padded
from training_fla.data.packed_corpus import PackedCorpus, decode_jpeg_into
from training_fla.data.packing import pack

STRIDE, SIZE, CROP = 4, 256, 224
NUM_FRAMES = 112  # median of PHOENIX14T's training clips
PACKED_FRAMES, SHARD_CLIPS = 2500, 4  # a run of some seconds, and a shard often enough that its cost is seen
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def draw_clip(seed: int, num_frames: int, height: int, width: int, noise: float) -> np.ndarray:
    """A blurred scene that drifts, with camera noise: `(S, H, W, 3)` uint8. Its files are as large as real ones."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    scene = np.asarray(coarse.resize((width + 2 * num_frames, height), Image.Resampling.BICUBIC)).astype(np.float32)
    grain = rng.normal(0, noise, (8, height, width, 1)).astype(np.float32)
    frames = [scene[:, 2 * n : 2 * n + width] + grain[n % 8] for n in range(num_frames)]
    return np.clip(frames, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ the peers' loader


def peer_frames(folder: Path, augment: np.random.Generator | None) -> np.ndarray:
    """Every fourth PNG of a folder as the public code reads it: `(T, 3, 224, 224)` float32, normalised."""
    angle = zoom = 0.0
    shift, corner = (0, 0), (16, 16)
    if augment is not None:
        angle = augment.uniform(-30, 30) if augment.random() < 0.5 else 0.0
        zoom = augment.uniform(-0.2, 0.2) if augment.random() < 0.5 else 0.0
        shift = tuple(augment.integers(-10, 11, 2).tolist()) if augment.random() < 0.5 else (0, 0)
        corner = augment.integers(0, SIZE - CROP + 1, 2).tolist()
    frames = []
    for file in sorted(folder.glob("*.png"))[::STRIDE]:
        image = Image.open(file).convert("RGB")
        if angle:
            image = image.rotate(angle)
        if zoom:
            image = image.resize([round(side * (1 + zoom)) for side in image.size])
        if any(shift):
            image = image.transform(image.size, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1]))
        image = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        image = image[corner[0] : corner[0] + CROP, corner[1] : corner[1] + CROP]
        frames.append(((image - MEAN) / STD).transpose(2, 0, 1))
    return np.stack(frames)


def peer_batch(folders: list[Path], seed: int | None = None) -> torch.Tensor:
    """The peers' batch of float32 frames."""
    clips = [peer_frames(folder, None if seed is None else np.random.default_rng(seed)) for folder in folders]
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)


# ------------------------------------------------------------------------------------------------------- our loader


def our_batch(corpus: PackedCorpus, augmentation: ClipAugmentation | None, seed: int = 0) -> torch.Tensor:
    """Our batch of uint8 frames, as [`~training_fla.data.datasets.SignVideoDataset`] and its collator make it."""
    clips = []
    for index in range(len(corpus)):
        frames = corpus.read_frames(index, range(0, corpus.num_frames[index], STRIDE))
        generator = np.random.default_rng([seed, index])
        edge = (SIZE - CROP) // 2
        cut = frames[..., edge : edge + CROP, edge : edge + CROP]
        clips.append(cut if augmentation is None else augmentation(frames, generator, corpus.source_size(index)))
    return padded(clips, max(map(len, clips)))


def read_all(corpus: PackedCorpus) -> None:
    """Every sampled frame of the corpus."""
    for index in range(len(corpus)):
        corpus.read_frames(index, range(0, corpus.num_frames[index], STRIDE))


def bare_decode(jpegs: list[bytes], pixels: np.ndarray) -> None:
    """Decode by the fastest decoder installed, into memory that is reused, and nothing else."""
    for jpeg in jpegs:
        decode_jpeg_into(jpeg, pixels)


def bare_torchvision(jpegs: list[torch.Tensor]) -> None:
    """Decode, and drop the result."""
    from torchvision.io import ImageReadMode, decode_jpeg

    for jpeg in jpegs:
        decode_jpeg(jpeg, mode=ImageReadMode.RGB)


def measure_reading(folder: Path, quick: bool, repeats: int) -> tuple[dict, list[tuple[str, float, float]]]:
    """Seconds of all ways to read, and their ratios against the limits."""
    from benchmarks.measuring import ratio_of_medians, seconds_in_turn

    num_clips = 2 if quick else 8
    rows = []
    for number in range(num_clips):
        clip = draw_clip(number, 24 if quick else NUM_FRAMES, 260, 210, noise=2.5)
        rows.append(CorpusRow(f"{number}", DrawnVideo(partial(np.copy, clip)), "x", "train"))
        (folder / f"png{number}").mkdir(parents=True)
        for frame, pixels in enumerate(clip, start=1):
            Image.fromarray(pixels).save(folder / f"png{number}" / f"images{frame:04d}.png")
    corpus = PackedCorpus(pack(rows, folder / "packed", size=SIZE, num_workers=0), "train")
    sampled = [(index, range(0, corpus.num_frames[index], STRIDE)) for index in range(len(corpus))]
    jpegs = [bytes(jpeg) for index, frames in sampled for jpeg in corpus.read_jpegs(index, frames)]
    tensors = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
    pixels = np.empty((SIZE, SIZE, 3), np.uint8)
    folders = [folder / f"png{number}" for number in range(num_clips)]
    augmentation = ClipAugmentation(CROP)
    works = {
        "bare torchvision": lambda: bare_torchvision(tensors),
        "bare fastest": lambda: bare_decode(jpegs, pixels),
        "packed": lambda: read_all(corpus),
        "our evaluation batch": lambda: our_batch(corpus, None),
        "our training batch": lambda: [our_batch(corpus, augmentation, seed) for seed in range(4)],
        "peer evaluation batch": lambda: peer_batch(folders),
        "peer training batch": lambda: [peer_batch(folders, seed) for seed in range(4)],
    }
    seconds = seconds_in_turn(works, repeats)
    for name in ("our training batch", "peer training batch"):
        seconds[name] = [value / 4 for value in seconds[name]]  # four draws, so that luck evens out
    labels = [
        ("reading packed frames / bare torchvision.io.decode_jpeg", "packed", "bare torchvision", 1 / 0.85),
        ("reading packed frames / the fastest bare decoder", "packed", "bare fastest", 1 / 0.85),
        ("reading packed frames / peers' PNG evaluation loader", "packed", "peer evaluation batch", 1 / 12),
        ("our training batch / bare torchvision.io.decode_jpeg", "our training batch", "bare torchvision", 1 / 0.5),
        ("our training batch / peers' PNG training loader", "our training batch", "peer training batch", 1 / 8),
    ]
    ratios = [(label, ratio_of_medians(seconds, name, reference), limit) for label, name, reference, limit in labels]
    frames = len(jpegs)
    rates = {name: round(frames / float(np.median(values))) for name, values in seconds.items()}
    return {"frames_per_second": rates, "bytes_per_frame": round(sum(map(len, jpegs)) / frames)}, ratios


# ---------------------------------------------------------------------------------------------------------- packing


def bare_video_decode(file: Path) -> int:
    """Decode every frame and make nothing of it."""
    import av

    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def bare_video_decode_all(files: list[Path], cores: int) -> int:
    """[`bare_video_decode`] in a process a core, each taking the next file when it is done with one."""
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        return sum(pool.imap_unordered(bare_video_decode, files))


def draw_videos(folder: Path, quick: bool) -> list[Path]:
    """Two 1280 x 720 clips, where there are no real ones."""
    files = [folder / f"drawn{number}.mp4" for number in range(2 if quick else 4)]
    for number, file in enumerate(files):
        write_clip(file, draw_clip(number, 24 if quick else 96, 720, 1280, noise=1.5), 25.0)
    return files


def measure_packing(
    folder: Path, files: list[Path], repeats: int, min_frames: int
) -> tuple[dict, list[tuple[str, float, float]]]:
    """Seconds of packing and of bare decoding over all cores, and how far the scaler is from PIL's bicubic."""
    import av.video.reformatter  # noqa: F401  before the processes of either side are forked

    import processing_fla.video_reading_fla  # noqa: F401
    from benchmarks.measuring import ratio_of_medians, seconds_in_turn

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    clips = files * max(1, min_frames // sum(map(bare_video_decode, files)))
    rows = [CorpusRow(f"{number}", VideoFile(file), "x", "train") for number, file in enumerate(clips)]
    options = {"size": SIZE, "num_workers": cores, "shard_clips": SHARD_CLIPS}
    outs = (folder / f"packed{number}" for number in range(10**6))
    num_frames = bare_video_decode_all(clips, cores)
    works = {
        "bare decoder": lambda: bare_video_decode_all(clips, cores),
        "packing": lambda: pack(rows, next(outs), **options),
    }
    seconds = seconds_in_turn(works, repeats)
    rates = {name: round(num_frames / float(np.median(values))) for name, values in seconds.items()}
    errors = {"AREA": [], "BICUBIC": []}
    for file in files[:8]:
        full = list(VideoFile(file).frames(stride=8))
        bicubic = [Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for frame in full]
        for name in errors:
            scaled = _scaled(file, name)
            errors[name] += [((a - np.float32(b)) ** 2).mean() for a, b in zip(scaled, bicubic, strict=True)]
    psnr = {name: float(10 * np.log10(255**2 / np.mean(values))) for name, values in errors.items()}
    ratios = [
        (
            "packing 1280 x 720 video / bare decoder, all cores",
            ratio_of_medians(seconds, "packing", "bare decoder"),
            1 / 0.6,
        ),
        ("dB lost by area scaling, FFmpeg's bicubic against PIL's", psnr["BICUBIC"] - psnr["AREA"], 1.0),
    ]
    return {"frames_per_second": rates, "psnr_to_pil_bicubic_db": psnr, "frames": num_frames}, ratios


def _scaled(file: Path, name: str) -> list[np.ndarray]:
    if name == "AREA":  # ours
        return [frame.astype(np.float32) for frame in VideoFile(file).frames(stride=8, size=(SIZE, SIZE))]
    import av

    options = {"width": SIZE, "height": SIZE, "format": "rgb24", "interpolation": name, "dst_color_range": "JPEG"}
    with av.open(str(file)) as container:
        frames = islice(container.decode(video=0), 0, None, 8)
        return [frame.reformat(**options).to_ndarray().astype(np.float32) for frame in frames]


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    from benchmarks.measuring import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--videos", type=Path, help="folder of real 1280 x 720 videos [the How2Sign clips of FLA_REAL_DATA]"
    )
    parser.add_argument("--quick", action="store_true", help="few short clips: to see that it runs, not to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    torch.set_num_threads(1)  # a loader's worker has one
    real = options.videos or Path(os.environ.get("FLA_REAL_DATA", "absent"), "how2sign/clips/train")
    repeats = 2 if options.quick else options.repeats
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(real.glob("**/*.mp4"))[: 3 if options.quick else None] or draw_videos(
            Path(folder), options.quick
        )
        packing, packing_rows = measure_packing(Path(folder), files, repeats, 0 if options.quick else PACKED_FRAMES)
        reading, rows = measure_reading(Path(folder, "reading"), options.quick, repeats)
    status = report(rows + packing_rows, as_json=options.json, reading=reading, packing=packing)
    if not options.json:
        for name, details in (("reading", reading), ("packing", packing)):
            print(name, details)
    return status


if __name__ == "__main__":
    sys.exit(main())
