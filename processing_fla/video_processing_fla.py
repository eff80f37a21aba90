"""From videos in any form to one batch of pixels: thin, keep one frame in four, resize to 256, crop to 224, pad.

First box of the data flow. `video_reading_fla.py` decodes and scales; here is which frames are kept, and at what size.
"""

import copy
import os
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature
from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import requires_backends
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, infer_channel_dimension_format, make_batched_metadata

from .frame_conversion_fla import scaled
from .video_reading_fla import frame_files, read_frame_files, read_frames, video_length


class FlaVideoProcessorKwargs(VideosKwargs, total=False):
    """Options of [`FlaVideoProcessor`] beside those of every video processor; see there."""

    target_fps: float | None
    frame_stride: int | None
    max_source_frames: int | None
    random_frame_phase: bool | None
    max_sampled_frames: int | None
    packed_size: dict[str, int] | None


class FlaVideoProcessor(BaseVideoProcessor):
    """Samples, resizes, crops and normalises sign videos, and pads them to one batch.

    Frames are scaled by FFmpeg's area scaler while they are read, as packed corpora are; `resample` has no effect.

    Args:
        frame_stride (`int`, *optional*, defaults to 4):
            Keep one frame of each window of so many source frames; 1, 2, 4 and 8 are the rows of the paper's Table 6.
        target_fps (`float`, *optional*):
            A clip of more frames a second is thinned evenly to this rate before all else; never when absent. A clip
            whose rate is unknown keeps its frames.
        max_source_frames (`int`, *optional*):
            A longer clip is thinned evenly to so many source frames before the stride; never when absent.
        random_frame_phase (`bool`, *optional*, defaults to `False`):
            Draw the kept frame of each window from torch's global generator instead of taking the first.
        size (`dict`, *optional*, defaults to 256 x 256):
            Frames are resized to this height and width. An `int`, or a dict with `shortest_edge`, keeps the aspect
            ratio.
        packed_size (`dict`, *optional*):
            Frames are first resized to this height and width, as the frames of the training corpus were when they
            were packed; straight to `size` when absent.
        crop_size (`dict`, *optional*, defaults to 224 x 224):
            The middle of this size is cut out.
        max_sampled_frames (`int`, *optional*):
            A file of which more would be sampled is refused; before it is decoded, where it says how long it is.
        do_rescale, do_normalize (`bool`, *optional*, defaults to `True`):
            With both `False` the output is `uint8`, which the model scales and normalises on its device.
        kwargs:
            Any other option of transformers' video processors.

    Example:
        ```python
        >>> batch = FlaVideoProcessor()([np.zeros((9, 48, 64, 3)), np.zeros((4, 48, 64, 3))], return_tensors="pt")
        >>> tuple(batch["pixel_values_videos"].shape), batch["attention_mask"].tolist()
        ((2, 3, 3, 224, 224), [[1, 1, 1], [1, 0, 0]])

        ```
    """

    frame_stride = 4  # Paper: Sec. 4.2, Table 6 (25 %)
    target_fps = None  # Paper: the rate of the corpus, whatever it is
    max_source_frames = None
    max_sampled_frames = None
    random_frame_phase = False
    packed_size = None
    do_sample_frames = True
    do_convert_rgb = True
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_pad = True
    size = {"height": 256, "width": 256}  # Unstated: as GFSLT-VLP does, aspect ratio not kept
    crop_size = {"height": 224, "width": 224}  # Unstated: the same
    default_to_square = False
    resample = PILImageResampling.BOX  # PIL's name of the area scaler
    image_mean = [0.485, 0.456, 0.406]  # ImageNet's: the backbone starts from ImageNet weights (paper Sec. 5.2)
    image_std = [0.229, 0.224, 0.225]
    valid_kwargs = FlaVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "attention_mask"]

    def __init__(self, **kwargs: Unpack[FlaVideoProcessorKwargs]):
        super().__init__(**kwargs | {"resample": PILImageResampling.BOX})
        self.check_options()

    def check_options(self) -> None:
        """Refuse options that no video can be read with.

        Raises:
            ValueError: if a number of frames is below 1, `target_fps` is not above 0, or `packed_size` is no height
                and width.
        """
        for name in ("frame_stride", "max_source_frames", "max_sampled_frames"):
            value = getattr(self, name)
            if (value is not None or name == "frame_stride") and not is_count(value):
                raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")
        if self.target_fps is not None and not self.target_fps > 0:
            raise ValueError(f"`target_fps` must be above 0, got {self.target_fps!r}.")
        size = self.packed_size
        if size is not None and not (
            isinstance(size, dict) and all(map(is_count, (size.get("height"), size.get("width"))))
        ):
            raise ValueError(f"`packed_size` must have a `height` and a `width` in pixels, got {size!r}.")

    def to_dict(self) -> dict:
        """As [`BaseVideoProcessor.to_dict`]; says where the code lies in a saved folder before the first save too."""
        output = super().to_dict()
        for name in ("packed_size", "target_fps"):
            if output.get(name) is None:  # as before there was one
                output.pop(name, None)
        output["auto_map"] = {"AutoVideoProcessor": f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"}
        return output

    def preprocess(self, videos, **kwargs: Unpack[FlaVideoProcessorKwargs]) -> BatchFeature:
        """Turn videos into one batch.

        Args:
            videos (`Any`): one video or a list of them, of any kinds and lengths. A video is the path
                of a file or of a folder of frames; the `bytes` of a file, or a file opened in binary mode; a video
                column's `{"bytes": ..., "path": ...}`; a torchcodec decoder; a list of PIL images, arrays or (in a
                list of videos) image paths; or an array or tensor `(S, H, W, 3)` or `(S, 3, H, W)`, RGB, uint8 or
                float from 0 to 255, or float from 0 to 1. One array of five dimensions is a batch.
            kwargs: options of this processor that replace its own for this call, and `return_tensors`.

        Returns:
            [`BatchFeature`]:
                - `pixel_values_videos` (`torch.FloatTensor` of shape `(B, T, 3, H, W)`): normalised, or `torch.uint8`
                  RGB with `do_rescale=False, do_normalize=False`. Padding frames are 0. Without `return_tensors`, a
                  list of `(T, 3, H, W)` without padding.
                - `attention_mask` (`torch.LongTensor` of shape `(B, T)`): 1 for a real frame, 0 for padding.
                - `video_metadata` (only with `return_metadata=True`): length, rate and duration of each video, and
                  `frames_indices` and `timestamps` of the kept frames.

        Raises:
            VideoDecodeError: if a file cannot be decoded whole; names the file.
            ValueError: if an input is no video, or is empty.
            ImportError: if PyAV is not installed.
        """
        requires_backends(self, "av")
        sampling = kwargs.get("do_sample_frames")
        if not (self.do_sample_frames if sampling is None else sampling):  # then every frame is kept
            kwargs |= {"frame_stride": 1, "max_source_frames": None, "random_frame_phase": False}
            kwargs |= {"num_frames": None, "fps": None, "target_fps": None}
        kwargs |= {"do_sample_frames": True}
        return super(FlaVideoProcessor, self.with_options(**kwargs)).preprocess(videos, **kwargs)

    def with_options(self, **options: Unpack[FlaVideoProcessorKwargs]) -> "FlaVideoProcessor":
        """This processor with other options, for one call: all it does is as these say."""
        if options.get("frame_stride", 1) is None:
            options["frame_stride"] = self.frame_stride
        processor = copy.copy(self)
        vars(processor).update(options)
        processor.check_options()
        return processor

    def sample_frame_indices(
        self,
        num_frames: int,
        generator: np.random.Generator | None = None,
        packed_stride: int = 1,
        fps: float | None = None,
    ) -> np.ndarray:
        """Choose which of a video's frames are kept.

        They are thinned to `target_fps` and to `max_source_frames`, then one of each window is kept.

        Args:
            num_frames (`int`): source frames S, at least 1.
            generator (`np.random.Generator`, *optional*): draws the frame of each window; the first when absent.
            packed_stride (`int`): source frames to each of the S, where the video was packed thinned already.
            fps (`float`, *optional*): source frames a second; absent or 0 where nothing says it.

        Returns:
            `np.ndarray` of shape `(T,)`, int64: rising indices below S.

        Raises:
            ValueError: if `num_frames` is below 1, `frame_stride` is no multiple of `packed_stride`, or a video that
                was packed thinned has more than `target_fps`.
        """
        stride, limit = self.frame_stride, self.max_source_frames
        if num_frames < 1:
            raise ValueError(f"A video must have at least one frame, got {num_frames}.")
        if stride % packed_stride:
            raise ValueError(f"{num_frames} frames, packed one in {packed_stride}, do not fit a stride of {stride}.")
        stride //= packed_stride
        left, limit = self.frames_at_target_rate(num_frames, fps), limit and -(-limit // packed_stride)
        if len(left) < num_frames and packed_stride > 1:
            raise ValueError(f"{num_frames} frames, packed one in {packed_stride}, cannot be thinned by their rate.")
        if limit and len(left) > limit:
            left = left[np.linspace(0, len(left) - 1, limit).round().astype(np.int64)]
        kept = np.arange(0, len(left), stride)  # of each window the first; the last window may be shorter
        if generator is not None:
            kept += (generator.random(len(kept)) * np.minimum(stride, len(left) - kept)).astype(np.int64)
        return left[kept]

    def frames_at_target_rate(self, num_frames: int, fps: float | None) -> np.ndarray:
        """The frames that `target_fps` leaves of a video.

        Args:
            num_frames (`int`): source frames S, at least 1.
            fps (`float`, *optional*): source frames a second; absent or 0 where nothing says it.

        Returns:
            `np.ndarray` of shape `(T,)`, int64: rising indices below S; the first is 0.
        """
        left = np.arange(num_frames)
        if not (self.target_fps and fps and fps > self.target_fps):
            return left
        # A packed corpus stores rates in 32 bits: where that alone decides, it must give the frame that a file gives.
        tolerance = 1e-3
        left = np.floor(left * (fps / self.target_fps) + tolerance).astype(np.int64)
        return left[left < num_frames]

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        phase_seed: int | None = None,
        **kwargs,
    ) -> np.ndarray:
        """As [`BaseVideoProcessor.sample_frames`] with `num_frames` or `fps`, else as [`sample_frame_indices`]."""
        if num_frames is not None or fps is not None:
            return np.asarray(super().sample_frames(metadata, num_frames=num_frames, fps=fps), dtype=np.int64)
        generator = None if phase_seed is None else np.random.default_rng(phase_seed)
        return self.sample_frame_indices(metadata.total_num_frames, generator, fps=metadata.fps)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a frame is scaled to before cropping."""
        if not self.do_resize:
            return height, width
        size = size_dict(self.size, self.default_to_square)
        if size.height and size.width:
            return size.height, size.width
        return tuple(self.resize(torch.empty((3, height, width), device="meta"), size).shape[-2:])

    def reading_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a frame is scaled to while it is read: as it was packed, or else the final ones."""
        if not self.do_resize or self.packed_size is None:
            return self.target_size(height, width)
        return self.packed_size["height"], self.packed_size["width"]

    def scale(self, frames: torch.Tensor) -> torch.Tensor:
        """Scale frames that were not scaled while they were read.

        Args:
            frames (`torch.Tensor` of shape `(T, C, H, W)`): uint8.

        Returns:
            `torch.Tensor` of shape `(T, C, target height, target width)`: uint8; the same where nothing is to be done.
        """
        size = tuple(frames.shape[-2:])
        for wanted in (self.reading_size, self.target_size):
            if wanted(*size) != size:
                size = wanted(*size)
                pixels = scaled(frames.permute(0, 2, 3, 1).cpu().numpy(), size)
                frames = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(frames.device)
        return frames

    def scale_and_crop(self, frames: torch.Tensor) -> torch.Tensor:
        """What the model sees of frames, for evaluation: scaled, and the middle cut out.

        Args:
            frames (`torch.Tensor` of shape `(T, C, H, W)`): uint8, as read or as packed.

        Returns:
            `torch.Tensor` of shape `(T, C, crop height, crop width)`: uint8; a view where nothing is to be scaled.
        """
        frames = self.scale(frames)
        return self.center_crop(frames, size_dict(self.crop_size)) if self.do_center_crop else frames

    def _decode_and_sample_videos(self, videos, video_metadata=None, do_sample_frames=None, sample_indices_fn=None):
        """Bring each video, whatever its form, to an array of its kept frames, and say which those are."""
        videos = list_videos(videos)
        metadata = make_batched_metadata(videos, video_metadata) if video_metadata else [None] * len(videos)
        loaded = []
        for video, of_video in zip(videos, metadata, strict=True):
            seed = int(torch.randint(2**62, ())) if self.random_frame_phase else None
            if isinstance(video, (str, os.PathLike)) and Path(video).is_dir():
                video = frame_files(video)
            if isinstance(video, (str, os.PathLike, bytes)):
                loaded.append(self._load_file(video, seed))
            else:
                loaded.append(self._load_frames(video, of_video, seed))
        return [frames for frames, _ in loaded], [of_video for _, of_video in loaded]

    def _load_file(self, file: str | os.PathLike | bytes, phase_seed: int | None):
        """The kept frames of a file, `(T, H, W, 3)`, scaled while they are read, and its metadata."""
        length = video_length(file)
        indices = self.sample_frames(length, self.num_frames, self.fps, phase_seed)
        self._refuse_too_long(file, length, len(indices))
        frames, metadata = read_frames(file, indices, self.reading_size)

        # Packets that show no frame were counted, or a header was wrong: decoding shows the true length and rate.
        true_indices = self.sample_frames(metadata, self.num_frames, self.fps, phase_seed)
        if not np.array_equal(true_indices, metadata.frames_indices):
            self._refuse_too_long(file, metadata, len(true_indices))
            frames, metadata = read_frames(file, true_indices, self.reading_size)
        return frames, metadata

    def _refuse_too_long(self, file: str | os.PathLike | bytes, length: VideoMetadata, num_sampled: int) -> None:
        most = self.max_sampled_frames
        if isinstance(file, bytes) or not most or num_sampled <= most:
            return
        shown = f", about {most * length.duration / num_sampled:.0f} seconds" if length.duration else ""
        raise ValueError(
            f"`{file}` has {length.total_num_frames} frames, of which {num_sampled} are sampled; the model reads at "
            f"most {most}{shown}: cut it, or have `fla translate --format srt` do so"
        )

    def _load_frames(self, video: Any, metadata: VideoMetadata | None, phase_seed: int | None):
        """The kept frames of a video that is no file: an array, a list of frames or image files, or a decoder."""
        if len(video) == 0:
            raise ValueError("A video must have at least one frame, got an empty one.")
        fps = getattr(getattr(video, "metadata", None), "average_fps", None)
        metadata = metadata or VideoMetadata(total_num_frames=len(video), fps=fps)
        indices = self.sample_frames(metadata, self.num_frames, self.fps, phase_seed)
        metadata.frames_indices = indices
        if len(indices) and indices[-1] >= len(video):
            raise ValueError(f"`video_metadata` says {metadata.total_num_frames} frames, the video has {len(video)}.")
        if metadata.duration is None and metadata.fps:
            metadata.duration = metadata.total_num_frames / metadata.fps
        if is_decoder(video):
            frames = video.get_frames_at(indices.tolist()).data
        elif is_array(video):
            frames = video[indices if isinstance(video, np.ndarray) else indices.tolist()]
        elif is_frame(video[0]):
            frames = stacked_frames([video[index] for index in indices])
        else:
            frames = read_frame_files([video[index] for index in indices], self.reading_size)
        return frames, metadata

    def _prepare_input_videos(
        self, videos, do_convert_rgb=None, input_data_format=None, device=None
    ) -> list[torch.Tensor]:
        """Bring each video to a tensor `(T, C, H, W)`; layouts are told apart video by video, so they may be mixed."""
        prepared = []
        for video in map(torch.as_tensor, videos):
            layout = input_data_format or infer_channel_dimension_format(video, num_channels=(1, 3, 4))
            if layout in (ChannelDimension.LAST, ChannelDimension.LAST.value):
                video = video.permute(0, 3, 1, 2)
            if do_convert_rgb and video.shape[1] != 3:
                video = self.convert_to_rgb(video)
            prepared.append(video if device is None else video.to(device))
        return prepared

    def _preprocess(
        self, videos, do_rescale, rescale_factor, do_normalize, image_mean, image_std, return_tensors=None,
        do_pad=True, **kwargs,
    ) -> BatchFeature:  # fmt: skip
        """Scale what was not scaled while it was read, crop and normalise, then pad to the longest video."""
        clips = []
        for video in videos:
            frames, was_scaled = as_bytes(video)
            frames = self.scale_and_crop(frames)
            # Floats from 0 to 1 are normalised as they are without `do_rescale`, so bytes made of them are scaled.
            rescale = do_rescale or (was_scaled and do_normalize)
            clips.append(
                self.rescale_and_normalize(frames, rescale, rescale_factor, do_normalize, image_mean, image_std)
            )
        masks = [torch.ones(len(clip), dtype=torch.long, device=clip.device) for clip in clips]
        if return_tensors is not None:
            shapes = {tuple(clip.shape[1:]) for clip in clips}
            if len(shapes) > 1:
                raise ValueError(
                    f"Videos of one batch must have one frame size, got {sorted(shapes)} (C, H, W); set `do_resize` "
                    "and `do_center_crop`, or leave `return_tensors` out."
                )
            lengths = sorted(set(map(len, clips)))
            if len(lengths) > 1 and not do_pad:
                raise ValueError(f"Videos of {lengths} frames cannot be one tensor with `do_pad=False`.")
            clips, masks = pad_sequence(clips, batch_first=True), pad_sequence(masks, batch_first=True)
        return BatchFeature({"pixel_values_videos": clips, "attention_mask": masks}, tensor_type=return_tensors)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def size_dict(size: int | dict | SizeDict, default_to_square: bool = True) -> SizeDict:
    """A size as transformers' methods take it, however it was given."""
    if isinstance(size, SizeDict):
        return size
    return SizeDict(**get_size_dict(size, default_to_square=default_to_square))


def as_bytes(video: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Bring pixel values from 0 to 255, or floats from 0 to 1, to `uint8`.

    Args:
        video (`torch.Tensor` of shape `(T, C, H, W)`): of any type.

    Returns:
        `tuple[torch.ByteTensor, bool]`: values from 0 to 255, and whether they were from 0 to 1.
    """
    if video.dtype == torch.uint8:
        return video, False
    low, high = float(video.min()), float(video.max())
    is_scaled = video.is_floating_point() and low >= 0 and high <= 1
    if not (low >= 0 and high <= 255):
        raise ValueError(f"Pixels must be from 0 to 255, or floats from 0 to 1; got values from {low:g} to {high:g}.")
    return (video * (255 if is_scaled else 1)).round().to(torch.uint8), is_scaled


def stacked_frames(frames: list) -> torch.Tensor:
    """Frames in memory, PIL images or arrays, as one tensor."""
    tensors = []
    for frame in frames:
        tensor = torch.as_tensor(np.array(frame.convert("RGB")) if isinstance(frame, Image.Image) else frame)
        tensors.append(tensor[..., None] if tensor.ndim == 2 else tensor)
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise ValueError(f"The frames of one video must be of one size, got {sorted(shapes)}.")
    return torch.stack(tensors)


def is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, torch.Tensor))


def is_frame(value: Any) -> bool:
    """Whether a value is one frame in memory: a PIL image, or an array of 2 or 3 dimensions."""
    return isinstance(value, Image.Image) or (is_array(value) and value.ndim in (2, 3))


def is_decoder(value: Any) -> bool:
    """Whether a value is a torchcodec `VideoDecoder`, as `datasets` gives for its videos."""
    return hasattr(value, "get_frames_at") and hasattr(value, "__len__")


def is_open_file(value: Any) -> bool:
    return hasattr(value, "read")


def is_one_video(value: Any) -> bool:
    """Whether a value is one video by its type alone."""
    return isinstance(value, (str, os.PathLike, bytes, dict)) or is_decoder(value) or is_open_file(value)


def content_of(row: dict) -> bytes | str:
    """What a video column of a dataset holds of a file: its bytes or, without them, its path."""
    for key in ("bytes", "path"):
        if row.get(key) is not None:
            return row[key]
    keys = ", ".join(map(str, row)) or "nothing"
    raise ValueError(
        f"A video given as a dict must hold `bytes` or `path`; this one holds {keys}. "
        'Of a dataset give the column of videos: `dataset["video"]`.'
    )


def list_videos(videos: Any) -> list:
    """One video or a nested batch of them as a flat list of videos."""
    if isinstance(videos, dict):
        videos = content_of(videos)
    if is_open_file(videos):
        videos = videos.read()
        if not isinstance(videos, bytes):
            raise ValueError('A video given as an open file must be opened in binary mode, "rb".')
    if is_one_video(videos):
        return [videos]
    if is_array(videos) and videos.ndim in (3, 4, 5):
        return list(videos) if videos.ndim == 5 else [videos if videos.ndim == 4 else videos[None]]
    if isinstance(videos, Image.Image):
        return [[videos]]
    if isinstance(videos, (list, tuple)) and len(videos) > 0:
        if all(map(is_frame, videos)):
            return [list(videos)]
        flat = []
        for video in videos:
            paths = isinstance(video, (list, tuple)) and all(isinstance(path, (str, os.PathLike)) for path in video)
            flat.extend([list(video)] if paths and video else list_videos(video))
        return flat
    what = f"an array of shape {tuple(videos.shape)}" if is_array(videos) else f"{type(videos).__name__} {videos!r}"
    raise ValueError(
        f"A video must be a path, a list of images, or an array (S, H, W, 3) or (S, 3, H, W), got {what[:200]}."
    )
