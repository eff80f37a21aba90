"""One clip of a corpus before packing: where its frames come from and the sentence that belongs to it."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from training_fla.files import InputError

if TYPE_CHECKING:
    import numpy as np

    OpenedClip = tuple[float, Iterator[np.ndarray]]  # frames per second, and frames

SPLITS = ("train", "dev", "test")
SPLIT_SPELLINGS = {"val": "dev", "valid": "dev", "validation": "dev", "development": "dev", "training": "train"}


def canonical_split(name: str) -> str:
    """`train`, `dev` or `test` for any usual spelling of it (`val`, `valid`, `validation` are `dev`).

    Args:
        name (`str`): as a corpus has it.

    Returns:
        `str`: the name used here.

    Raises:
        InputError: for any other word.
    """
    word = name.strip().lower()
    word = SPLIT_SPELLINGS.get(word, word)
    if word not in SPLITS:
        raise InputError(f"unknown split {name!r}: use train, dev (or val, valid, validation) or test")
    return word


def path_inside(root: Path, written: str) -> Path:
    """The path that an annotation file means by `written`, refused where it is not below `root`.

    Args:
        root (`Path`): the folder of the corpus.
        written (`str`): the path as the annotation spells it, relative to `root`.

    Returns:
        `Path`: `root / written`; it need not exist.

    Raises:
        InputError: if `written` is empty, absolute, climbs out by `..`, or leads out through a symbolic link.
    """
    path = Path(written)
    if not written.strip() or "\0" in written:
        raise InputError(f"{written!r} is not a path")
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"path {written!r} leaves the corpus folder {root}: only paths below it are read")
    try:
        inside = (root / path).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # a name too long, or links in a circle
        raise InputError(f"path {written!r} cannot be followed in {root}: {error}") from error
    if not inside:
        raise InputError(f"path {written!r} leads out of the corpus folder {root} through a symbolic link")
    return root / path


@dataclass(frozen=True)
class VideoFile:
    """A video file, or the part of it between two times.

    Args:
        path (`Path`): any container and codec that FFmpeg reads.
        start_seconds (`float`, *optional*): first moment that counts; the beginning when absent.
        end_seconds (`float`, *optional*): moment after the last frame that counts; the end when absent.
    """

    path: Path
    start_seconds: float | None = None
    end_seconds: float | None = None

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return Path(self.path).name

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing at `path`."""
        return not Path(self.path).exists()

    @contextmanager
    def opened(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[OpenedClip]":
        """Open the clip: frames per second by the file's header, and frames as of [`frames`].

        They are `(H, W, 4)`, the last byte of each pixel unused.

        Args:
            stride (`int`): as of [`frames`].
            size (`tuple[int, int]`, *optional*): as of [`frames`].

        Yields:
            `tuple[float, Iterator[np.ndarray]]`: that rate, 0 where nothing says it, and the frames.
        """
        from processing_fla.video_decoding_fla import open_frames

        with open_frames(
            self.path,
            self.start_seconds,
            self.end_seconds,
            size=size,
            # Averages the pixels behind each one, in a third less time than bicubic; see benchmarks/video.py.
            interpolation="AREA",
            spaced=True,
            frame_stride=stride,
            num_threads=1,  # packing has a process a core
        ) as (fps, frames):
            yield fps or 0.0, frames

    def frames(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[np.ndarray]":
        """Frames in order.

        Args:
            stride (`int`): give frames 0, `stride`, `2 * stride`, ...; the others are not converted.
            size (`tuple[int, int]`, *optional*): height and width of the result; those of the source when absent.

        Yields:
            `np.ndarray` of shape `(H, W, 3)`: uint8 RGB, upright.

        Raises:
            VideoDecodeError: the file cannot be decoded.
        """
        with self.opened(stride, size) as (_, frames):
            for frame in frames:
                yield frame[..., :3]


@dataclass(frozen=True)
class FrameFolder:
    """A folder that holds one image file a frame, in the order of their names.

    Args:
        path (`Path`): the folder.
        pattern (`str`): which files are frames, so that strays are left out.
        fps (`float`): frames per second; images do not say.
    """

    path: Path
    pattern: str = "*.png"
    fps: float = 25.0

    @property
    def name(self) -> str:
        """The folder's name, for messages."""
        return Path(self.path).name

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing at `path`."""
        return not Path(self.path).exists()

    @contextmanager
    def opened(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[OpenedClip]":
        """Open the clip: frames per second, and [`frames`].

        Args:
            stride (`int`): as of [`frames`].
            size (`tuple[int, int]`, *optional*): as of [`frames`].

        Yields:
            `tuple[float, Iterator[np.ndarray]]`: that rate, 0 where nothing says it, and the frames.
        """
        yield self.fps, self.frames(stride, size)

    def files(self) -> list[Path]:
        """The image files by name; releases pad their numbers with zeros, which makes that the order of time.

        Returns:
            `list[Path]`: empty where there are none.
        """
        return sorted(Path(self.path).glob(self.pattern))

    def frames(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[np.ndarray]":
        """Frames in order.

        Args:
            stride (`int`): give frames 0, `stride`, `2 * stride`, ...; the others are not opened.
            size (`tuple[int, int]`, *optional*): height and width of the result; those of the source when absent.

        Returns:
            `Iterator[np.ndarray]` of shape `(H, W, 3)`: uint8 RGB.

        Raises:
            InputError: naming the folder without frames or the image that cannot be read.
        """
        files = self.files()
        if not files:
            raise InputError(f"{self.path} holds no frame {self.pattern}")
        return (_read_image(file, size) for file in files[::stride])


@dataclass(frozen=True)
class DrawnVideo:
    """A clip that a function draws.

    Args:
        draw (`Callable[[], np.ndarray]`): returns `(S, H, W, 3)` uint8 RGB, the same at every call.
        fps (`float`): frames per second to play it at.
        name (`str`): for messages.
    """

    draw: "Callable[[], np.ndarray]"
    fps: float = 25.0
    name: str = "drawn clip"
    is_missing: ClassVar[bool] = False

    @contextmanager
    def opened(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[OpenedClip]":
        """Open the clip: frames per second, and [`frames`].

        Args:
            stride (`int`): as of [`frames`].
            size (`tuple[int, int]`, *optional*): as of [`frames`].

        Yields:
            `tuple[float, Iterator[np.ndarray]]`: that rate, 0 where nothing says it, and the frames.
        """
        yield self.fps, self.frames(stride, size)

    def frames(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[np.ndarray]":
        """Frames in order.

        Args:
            stride (`int`): give frames 0, `stride`, `2 * stride`, ...
            size (`tuple[int, int]`, *optional*): height and width of the result; those of the source when absent.

        Returns:
            `Iterator[np.ndarray]` of shape `(H, W, 3)`: uint8 RGB.
        """
        return (_resized(frame, size) for frame in self.draw()[::stride])


@dataclass(frozen=True)
class EmbeddedVideo:
    """A video file inside another file, such as a table of a `datasets` folder.

    Args:
        load (`Callable[[], bytes]`): returns the bytes of the video file.
        name (`str`): for messages.
    """

    load: Callable[[], bytes]
    name: str
    is_missing: ClassVar[bool] = False

    @contextmanager
    def opened(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[OpenedClip]":
        """As [`VideoFile.opened`]."""
        with self._as_file() as video, video.opened(stride, size) as clip:
            yield clip

    def frames(self, stride: int = 1, size: tuple[int, int] | None = None) -> "Iterator[np.ndarray]":
        """As [`VideoFile.frames`]."""
        with self._as_file() as video:
            yield from video.frames(stride, size)

    @contextmanager
    def _as_file(self) -> Iterator[VideoFile]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "video")
            path.write_bytes(self.load())
            yield VideoFile(path)


@dataclass(frozen=True)
class CorpusRow:
    """One clip and its sentence.

    Args:
        id (`str`): unique in its split.
        video (`VideoFile`, `FrameFolder`, `DrawnVideo` or `EmbeddedVideo`): where the frames come from.
        sentence (`str`): the spoken-language sentence, as the corpus writes it.
        split (`str`): `train`, `dev` or `test`.
        signer (`str`): the signer's name, empty if unknown.
        language (`str`): MBart code of the sentence's language (`de_DE`, `zh_CN`, `en_XX`), empty if unknown.
        num_frames (`int`, *optional*): number of source frames by the annotation, if it says.
    """

    id: str
    video: VideoFile | FrameFolder | DrawnVideo | EmbeddedVideo
    sentence: str
    split: str
    signer: str = ""
    language: str = ""
    num_frames: int | None = None


def _read_image(path: Path, size: tuple[int, int] | None) -> "np.ndarray":
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _resized(np.asarray(image.convert("RGB")), size)
    except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error and more on damaged files
        raise InputError(f"{path} is not a readable image: {error}") from error


def _resized(frame: "np.ndarray", size: tuple[int, int] | None) -> "np.ndarray":
    import numpy as np
    from PIL import Image

    if size is None or frame.shape[:2] == size:
        return frame
    # Unstated: bicubic is what GFSLT and its followers resize frames with, and the processor's default.
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC))
