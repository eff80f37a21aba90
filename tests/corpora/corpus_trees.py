"""Small corpora in the official layouts, drawn by the tests."""

import os
import pickle
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from training_fla.corpora.clips import ClipSource, DrawnVideo, write_clip
from training_fla.corpora.row import CorpusRow


def picture(seed: int, height: int = 18, width: int = 22) -> np.ndarray:
    """A smooth picture, which survives JPEG and video compression."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def clip(num_frames: int, seed: int = 0, height: int = 18, width: int = 22) -> np.ndarray:
    """`(S, H, W, 3)`: every frame brighter than the one before."""
    base = picture(seed, height, width).astype(np.int64) // 2
    return np.stack([np.clip(base + 4 * frame, 0, 255) for frame in range(num_frames)]).astype(np.uint8)


@dataclass(frozen=True)
class CrashingVideo(ClipSource):
    """A clip whose decoder ends its process."""

    name: str = "crashing clip"

    def opened(self, stride=1, size=None):
        os.kill(os.getpid(), signal.SIGKILL)


def drawn_rows(num_train: int = 5, num_dev: int = 2, num_test: int = 2) -> list[CorpusRow]:
    rows = []
    for split, count in (("train", num_train), ("dev", num_dev), ("test", num_test)):
        for number in range(count):
            draw = partial(clip, 3 + number % 5, seed=number)
            name = f"{split}{number}"
            rows.append(CorpusRow(name, DrawnVideo(draw, name=name), f"satz {name}", split, f"s{number % 2}", "de_DE"))
    return rows


def write_frames(folder: Path, frames: np.ndarray, pattern: str, first: int) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=first):
        Image.fromarray(frame).save(folder / (pattern % number))


def write_video(file: Path, num_frames: int = 10, seed: int = 0, fps: float = 25.0, height=36, width=44) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_clip(file, clip(num_frames, seed, height, width), fps)
    return file


PHOENIX_HEADER = "name|video|start|end|speaker|orth|translation"


def phoenix14t(root: Path, video_column: str = "{name}/1/*.png") -> Path:
    """Release v3: two clips to train on and one each for dev and test, of 3 to 6 frames."""
    for split, names in {"train": ("a-1", "a-2"), "dev": ("b-1",), "test": ("c-1",)}.items():
        lines = [PHOENIX_HEADER]
        for number, name in enumerate(names):
            video = video_column.format(name=name)
            lines.append(f'{name}|{video}|-1|-1|Signer0{number}|WETTER "X|im norden " regen {name}')
            frames = root / "features/fullFrame-210x260px" / split / name
            write_frames(frames, clip(3 + number + len(split) % 3, number), "images%04d.png", first=1)
        file = root / "annotations/manual" / f"PHOENIX-2014-T.{split}.corpus.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    stray = root / "features/fullFrame-210x260px/train/a-1/createDnnTrainingLabels-profile.py.lprof"
    stray.write_bytes(b"not an image")
    return root


CSL_SPLITS = {
    "S000005_P0004_T00": "train",
    "S000001_P0000_T00": "train",
    "S000002_P0001_T00": "dev",
    "S000003_P0002_T00": "test",
}
CSL_TEXTS = {
    "S000005_P0004_T00": "你叫什么？",
    "S000001_P0000_T00": "你们好！",
    "S000002_P0001_T00": "他今年四岁。",
    "S000003_P0002_T00": "今天星期几？",
    "S000007_P0003_T00": "他是谁？",
}


def csl_daily(root: Path, videos: bool = False, table: bool = False, absent=("S000005_P0004_T00",)) -> Path:
    """The release as frames or as cropped videos, its labels as a pickle or as a table, its known gap included."""
    labels = root / "sentence_label"
    labels.mkdir(parents=True)
    (labels / "split_1.txt").write_text(
        "name|split\n" + "".join(f"{name}|{split}\n" for name, split in CSL_SPLITS.items()), encoding="utf-8"
    )
    infos = [
        {"name": name, "length": 3 + number, "label_gloss": ["G"], "label_char": list(text), "label_word": [text]}
        for number, (name, text) in enumerate(CSL_TEXTS.items())
    ]
    if table:
        lines = ["index|name|length|gloss|char|word|postag"]
        for number, info in enumerate(infos):
            characters = " ".join(info["label_char"])
            lines.append(f"{number}|{info['name']}|{info['length']}|G|{characters}|w|n")
        (labels / "video_map.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        content = {"info": infos, "gloss_map": ["G"], "char_map": ["你"]}
        (labels / "csl2020ct_v2.pkl").write_bytes(pickle.dumps(content))
    for number, info in enumerate(infos):
        if info["name"] in absent:
            continue
        frames = clip(info["length"], number, 32, 32)
        if videos:
            (root / "sentence-crop").mkdir(exist_ok=True)
            write_clip(root / "sentence-crop" / f"{info['name']}.mp4", frames, 30.0)
        else:
            write_frames(root / "sentence/frames_512x512" / info["name"], frames, "%06d.jpg", first=0)
    return root


HOW2SIGN_TIMES = ("START_REALIGNED", "END_REALIGNED")
HOW2SIGN_HEADER = ("VIDEO_ID", "VIDEO_NAME", "SENTENCE_ID", "SENTENCE_NAME", *HOW2SIGN_TIMES, "SENTENCE")


def how2sign(root: Path, delimiter: str = "\t", newline: str = "\n", clips: bool = False) -> Path:
    """Full videos of 40 frames at 20 a second, two to train on and one each in val and test, two sentences in each."""
    for split, names in {"train": ("-aB_1", "c"), "val": ("d",), "test": ("e",)}.items():
        lines = [delimiter.join(HOW2SIGN_HEADER)]
        for number, name in enumerate(names):
            video = f"{name}-5-rgb_front"
            write_video(root / f"{split}_raw_videos" / f"{video}.mp4", 40, number, 20.0)
            sentences = (f'Say "hi, {name}.', f'"Then ""go"", {name}."')
            for sentence, (start, end) in enumerate([(0.0, 1.0), (1.2, 2.1)]):
                id_ = f"{name}_{sentence}"
                fields = [name, video, id_, f"{id_}-5-rgb_front", f"{start}", f"{end}", sentences[sentence]]
                lines.append(delimiter.join(fields))
                if clips:
                    file = root / f"{split}_rgb_front_clips/raw_videos" / f"{id_}-5-rgb_front.mp4"
                    write_video(file, 7 + sentence, number, 20.0)
        text = newline.join(lines) + newline
        (root / f"how2sign_realigned_{split}.csv").write_bytes(text.encode())
    return root


def recordings(folder: Path) -> Path:
    """Recordings of 3 s with subtitles or annotations, and one without."""
    import pympi

    for number, name in enumerate(("talk", "news", "course", "new")):
        write_video(folder / f"{name}.mp4", 75, number)
    (folder / "talk.de.srt").write_text(
        "1\n00:00:00,400 --> 00:00:01,200\n<i>Guten Abend.</i>\n\n"
        "2\n00:00:01,240 --> 00:00:02,000\n[Donner] Heute regnet\n\n"
        "3\n00:00:02,000 --> 00:00:02,800\nes im Norden.\n"
    )
    (folder / "news.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:02.000\n<v Anna>Die Sonne scheint.\n")
    elan = pympi.Eaf(author="")
    elan.add_tier("Gloss")
    elan.add_annotation("Gloss", 200, 900, "MORGEN")
    elan.add_tier("Translation")
    elan.add_annotation("Translation", 200, 2500, "Morgen wird es kalt.")
    elan.to_file(str(folder / "course.eaf"))
    return folder


POSE_POINTS = (14, 3)  # of a body, whose shoulders are 11 and 12, and of a hand


def write_pose(file: Path, data, confidence, names=("POSE_LANDMARKS", "LEFT_HAND_LANDMARKS"), world: int = 0) -> Path:
    """A `.pose` file of a body and a hand, of coordinates `(T, people, 17, dims)` and confidences."""
    from pose_format import Pose
    from pose_format.numpy import NumPyPoseBody
    from pose_format.pose_header import PoseHeader, PoseHeaderComponent, PoseHeaderDimensions

    body = [f"P{number}" for number in range(POSE_POINTS[0])]
    body[11], body[12] = "LEFT_SHOULDER", "RIGHT_SHOULDER"
    parts = {names[0]: body, names[1]: [f"H{number}" for number in range(POSE_POINTS[1])]}
    if world:
        parts["POSE_WORLD_LANDMARKS"] = [f"W{number}" for number in range(world)]
        data = np.concatenate([data, np.ones((*data.shape[:2], world, data.shape[-1]))], 2)
        confidence = np.concatenate([confidence, np.ones((*confidence.shape[:2], world))], 2)
    form = "XYZ"[: data.shape[-1]] + "C"
    components = [PoseHeaderComponent(name, listed, [], [], form) for name, listed in parts.items()]
    header = PoseHeader(0.2, PoseHeaderDimensions(1000, 1000, 1000), components)
    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as opened:
        Pose(header, NumPyPoseBody(25, data.astype(np.float32), confidence.astype(np.float32))).write(opened)
    return file
