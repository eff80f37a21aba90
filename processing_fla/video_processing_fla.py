"""From videos in any form to one batch of pixels: keep one frame in four, resize to 256, crop to 224, normalise, pad.

First box of the data flow. What decodes files is in `video_decoding_fla.py`; here is which frames are kept, and at
what size.
"""

import copy
import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ChannelDimension, PILImageResampling
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, infer_channel_dimension_format

from .frame_folder_fla import frame_files, read_frame_files
from .video_decoding_fla import (
    VideoInfo,
    count_video_frames,
    iterate_video_frames,
    probe_video,
    read_strided_video_frames,
    read_video_frames,
    sample_frame_indices,
)
from .video_opening_fla import VideoDecodeError, local_path
from .video_torchcodec_fla import read_by_torchcodec

__all__ = [
    "FlaVideoProcessor",
    "VideoDecodeError",
    "VideoInfo",
    "count_video_frames",
    "iterate_video_frames",
    "probe_video",
    "read_video_frames",
]

BACKENDS = ("pyav", "torchcodec")


class FlaVideoProcessorKwargs(VideosKwargs, total=False):
    """Options of [`FlaVideoProcessor`] beside those of every video processor.

    Args:
        frame_stride (`int`): keep one frame of each window of so many source frames.
        random_frame_phase (`bool`): draw which frame of each window is kept (training) instead of the first
            (evaluation).
        video_backend (`str`): what decodes video files, `"pyav"` or `"torchcodec"`.
    """

    frame_stride: int | None
    random_frame_phase: bool | None
    video_backend: str | None


class FlaVideoProcessor(BaseVideoProcessor):
    """Samples, resizes, crops and normalises sign videos, and pads them to one batch.

    Args:
        frame_stride (`int`, *optional*, defaults to 4):
            Keep one frame of each window of so many source frames; 1, 2, 4 and 8 are the rows of the paper's Table 6.
        random_frame_phase (`bool`, *optional*, defaults to `False`):
            Draw the kept frame of each window from torch's global generator instead of taking the first.
        size (`dict`, *optional*, defaults to `{"height": 256, "width": 256}`):
            Frames are resized to this. An `int` or `{"shortest_edge": ...}` keeps the aspect ratio instead.
        crop_size (`dict`, *optional*, defaults to `{"height": 224, "width": 224}`):
            The middle of this size is cut out.
        video_backend (`str`, *optional*, defaults to `"pyav"`):
            `"torchcodec"` decodes by torchcodec where that is installed and the file is a usual one, else by PyAV too;
            the frames are the same. A picture damaged inside is then painted over instead of refused.
        do_rescale, do_normalize (`bool`, *optional*, defaults to `True`):
            With both `False` the output is `uint8`, which the model scales and normalises on its device.
        kwargs:
            Any other option of transformers' video processors.

    Example:
        ```python
        >>> import numpy as np
        >>> processor = FlaVideoProcessor()
        >>> videos = [np.zeros((9, 48, 64, 3), np.uint8), np.zeros((4, 48, 64, 3), np.uint8)]
        >>> batch = processor(videos, return_tensors="pt")
        >>> tuple(batch["pixel_values_videos"].shape), batch["attention_mask"].tolist()
        ((2, 3, 3, 224, 224), [[1, 1, 1], [1, 0, 0]])

        ```
    """

    frame_stride = 4  # Paper: Sec. 4.2, Table 6 (25 %)
    random_frame_phase = False
    video_backend = "pyav"
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
    resample = PILImageResampling.BICUBIC  # Unstated: what PIL resizes with where nothing is said
    image_mean = IMAGENET_DEFAULT_MEAN  # the backbone starts from ImageNet weights (paper Sec. 5.2)
    image_std = IMAGENET_DEFAULT_STD
    valid_kwargs = FlaVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "attention_mask"]

    def __init__(self, **kwargs: Unpack[FlaVideoProcessorKwargs]):
        super().__init__(**kwargs)
        if not isinstance(self.frame_stride, int) or self.frame_stride < 1:
            raise ValueError(f"`frame_stride` must be an integer of at least 1, got {self.frame_stride!r}.")
        require_backend(self.video_backend)

    def to_dict(self) -> dict:
        """As [`BaseVideoProcessor.to_dict`]; says where the code lies in a saved folder before the first save too."""
        output = super().to_dict()
        if self._auto_class is not None:
            output["auto_map"] = {self._auto_class: f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"}
        return output

    def preprocess(self, videos, **kwargs: Unpack[FlaVideoProcessorKwargs]) -> BatchFeature:
        """Turn videos into one batch.

        Args:
            videos (`Any`): one video or a list of them. A video is a path, `Path` or `file://` URL of a video file or
                of a folder of frames; a list of PIL images, of arrays, or (inside a list of videos) of image paths; or
                an array or tensor `(S, H, W, 3)` or `(S, 3, H, W)`, uint8 RGB from 0 to 255 (or float in that range).
                One array of five dimensions is a batch. Kinds and lengths may be mixed.
            kwargs: options of this processor that replace its own for this call, and `return_tensors`.

        Returns:
            [`BatchFeature`]:
                - `pixel_values_videos` (`torch.FloatTensor` of shape `(B, T, 3, H, W)`): normalised, or `torch.uint8`
                  RGB with `do_rescale=False, do_normalize=False`. Padding frames are 0. Without `return_tensors`, a
                  list of `(T, 3, H, W)` without padding.
                - `attention_mask` (`torch.LongTensor` of shape `(B, T)`): 1 for a real frame, 0 for padding.
                - `video_metadata` (only with `return_metadata=True`): source length, rate and kept indices of each
                  video.

        Raises:
            VideoDecodeError: if a file cannot be decoded whole; names the file.
            ValueError: if an input is no video, or is empty.
        """
        return super().preprocess(videos, **kwargs)

    def sample_frame_indices(self, num_frames: int, generator: np.random.Generator | None = None) -> np.ndarray:
        """Choose which of a video's frames are kept: one of each window of `frame_stride`, the last window may be
        short.

        Args:
            num_frames (`int`): source frames S, at least 1.
            generator (`np.random.Generator`, *optional*): draws the frame of each window (training); the first one of
                each when absent (evaluation).

        Returns:
            `np.ndarray` of shape `(T,)`, int64: rising indices below S, T = ceil(S / frame_stride).

        Raises:
            ValueError: if `num_frames` is below 1.
        """
        return sample_frame_indices(num_frames, self.frame_stride, generator)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        frame_stride: int | None = None,
        random_frame_phase: bool | None = None,
        **kwargs,
    ) -> np.ndarray:
        """Choose which frames of a video of known length are kept.

        Args:
            metadata ([`VideoMetadata`]): says the number of source frames, and their rate where `fps` is used.
            num_frames (`int`, *optional*): keep so many, evenly spread, instead of one per window.
            fps (`float`, *optional*): keep so many a second, evenly spread, instead of one per window.
            frame_stride (`int`, *optional*): length of a window; the processor's own when absent.
            random_frame_phase (`bool`, *optional*): draw the frame of each window from torch's generator.
            kwargs: other options of the processor, unused.

        Returns:
            `np.ndarray` of shape `(T,)`, int64: rising indices.
        """
        if num_frames is not None or fps is not None:
            return super().sample_frames(metadata, num_frames=num_frames, fps=fps)
        generator = torch_seeded_generator() if random_frame_phase else None
        return sample_frame_indices(metadata.total_num_frames, frame_stride or self.frame_stride, generator)

    def _decode_and_sample_videos(self, videos, video_metadata=None, do_sample_frames=None, sample_indices_fn=None):
        """Bring each video, whatever its form, to an array of its kept frames, and say which those are."""
        videos = list_videos(videos)
        given = flat_metadata(video_metadata, len(videos))
        choose = sample_indices_fn if do_sample_frames else None
        backend = getattr(choose, "keywords", {}).get("video_backend") or self.video_backend
        require_backend(backend)
        pairs = [load_video(*item, choose, self.do_convert_rgb, backend) for item in zip(videos, given, strict=True)]
        frames, metadata = zip(*pairs, strict=True)
        return list(frames), list(metadata)

    def _prepare_input_videos(
        self, videos, do_convert_rgb=None, input_data_format=None, device=None
    ) -> list[torch.Tensor]:
        """Bring each video to a tensor `(T, C, H, W)`; layouts are told apart video by video, so they may be mixed."""
        prepared = []
        for video in videos:
            video = torch.from_numpy(video) if isinstance(video, np.ndarray) else video
            layout = input_data_format or infer_channel_dimension_format(video, num_channels=(1, 3, 4))
            if layout in (ChannelDimension.LAST, ChannelDimension.LAST.value):
                video = video.permute(0, 3, 1, 2)
            if do_convert_rgb and video.shape[1] != 3:
                video = self.convert_to_rgb(video)
            prepared.append(video if device is None else video.to(device))
        return prepared

    def _preprocess(
        self, videos, do_resize, size, resample, do_center_crop, crop_size, do_rescale, rescale_factor, do_normalize,
        image_mean, image_std, return_tensors=None, do_pad=True, **kwargs,
    ) -> BatchFeature:  # fmt: skip
        """Resize, crop and normalise each video, then pad them to the longest."""
        clips = []
        for video in videos:
            if do_resize:
                video = self.resize(video, size=size, resample=resample)
            if do_center_crop:
                video = self.center_crop(video, crop_size)
            clips.append(
                self.rescale_and_normalize(video, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            )
        masks = [torch.ones(len(clip), dtype=torch.long, device=clip.device) for clip in clips]
        if return_tensors is not None:
            shapes = {tuple(clip.shape[1:]) for clip in clips}
            if len(shapes) > 1:
                raise ValueError(
                    f"Videos of one batch must have one frame size, got {sorted(shapes)} (C, H, W); set `do_resize` "
                    "and `do_center_crop`, or leave `return_tensors` out."
                )
            clips, masks = pad_to_longest(clips, do_pad), pad_to_longest(masks, do_pad)
        return BatchFeature({"pixel_values_videos": clips, "attention_mask": masks}, tensor_type=return_tensors)


def require_backend(name: str) -> None:
    """Refuse a name that is no backend's.

    Args:
        name (`str`): of a decoder.

    Raises:
        ValueError: naming those there are.
    """
    if name not in BACKENDS:
        raise ValueError(f"`video_backend` must be one of {', '.join(BACKENDS)}, got {name!r}.")


def pad_to_longest(rows: list[torch.Tensor], do_pad: bool | None) -> torch.Tensor:
    """Stack tensors of unequal length along their first dimension.

    Args:
        rows (`list[torch.Tensor]`): each of shape `(T, ...)`, of any dtype.
        do_pad (`bool`, *optional*): fill with 0 up to the longest.

    Returns:
        `torch.Tensor` of shape `(B, T, ...)`: of the same dtype.

    Raises:
        ValueError: the lengths differ and `do_pad` is not set.
    """
    lengths = [len(row) for row in rows]
    if not do_pad and len(set(lengths)) > 1:
        raise ValueError(f"Videos of {sorted(set(lengths))} frames cannot be one tensor with `do_pad=False`.")
    padded = rows[0].new_zeros((len(rows), max(lengths), *rows[0].shape[1:]))
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def torch_seeded_generator() -> np.random.Generator:
    """Make a NumPy generator from torch's global one, which `set_seed` and the data loader's workers seed.

    Returns:
        `np.random.Generator`: another one at each call.
    """
    return np.random.default_rng(int(torch.randint(2**62, ())))


def is_array(value: Any) -> bool:
    """Tell arrays from other values.

    Args:
        value (`Any`): anything.

    Returns:
        `bool`: whether it is a NumPy array or a torch tensor.
    """
    return isinstance(value, (np.ndarray, torch.Tensor))


def is_frame(value: Any) -> bool:
    """Tell one frame in memory from other values.

    Args:
        value (`Any`): anything.

    Returns:
        `bool`: whether it is a PIL image, or an array of 2 or 3 dimensions.
    """
    return isinstance(value, Image.Image) or (is_array(value) and value.ndim in (2, 3))


def list_videos(videos: Any) -> list:
    """Bring one video or a nested batch of them to a flat list of videos.

    Args:
        videos (`Any`): see [`FlaVideoProcessor.preprocess`].

    Returns:
        `list`: each item a path, a 4-dimensional array, a list of frames in memory, or a list of image paths.

    Raises:
        ValueError: if something in it is no video.
    """
    if isinstance(videos, (str, os.PathLike)):
        return [videos]
    if is_array(videos):
        if videos.ndim == 5:
            return list(videos)
        if videos.ndim == 4:
            return [videos]
        if videos.ndim == 3:
            return [videos[None]]
    if isinstance(videos, Image.Image):
        return [[videos]]
    if isinstance(videos, (list, tuple)) and len(videos) > 0:
        if all(map(is_frame, videos)):
            return [list(videos)]
        flat = []
        for video in videos:
            if (
                isinstance(video, (list, tuple))
                and video
                and all(isinstance(path, (str, os.PathLike)) for path in video)
            ):
                flat.append(list(video))
            else:
                flat.extend(list_videos(video))
        return flat
    what = f"an array of shape {tuple(videos.shape)}" if is_array(videos) else f"{type(videos).__name__} {videos!r}"
    raise ValueError(
        "A video must be a path, a list of images, or an array of shape (S, H, W, 3) or (S, 3, H, W), "
        f"got {what if len(what) < 200 else what[:200] + ' ...'}."
    )


def flat_metadata(metadata: Any, num_videos: int) -> list[VideoMetadata | None]:
    """Bring metadata in any of transformers' forms to one entry a video, `None` where nothing was given.

    Args:
        metadata (`Any`): nothing, one entry, or nested lists of them, as dictionaries or [`VideoMetadata`].
        num_videos (`int`): how many entries there have to be.

    Returns:
        `list[VideoMetadata or None]`: one a video.

    Raises:
        ValueError: there are more or fewer.
    """
    if metadata is None:
        return [None] * num_videos
    flat = [metadata] if isinstance(metadata, (dict, VideoMetadata)) else list(metadata)
    flat = [entry for item in flat for entry in (item if isinstance(item, (list, tuple)) else [item])]
    if len(flat) != num_videos:
        raise ValueError(f"Got {num_videos} videos, but `video_metadata` for {len(flat)}.")
    return [VideoMetadata(**entry) if isinstance(entry, dict) else entry for entry in flat]


def load_video(video: Any, metadata: VideoMetadata | None, choose, convert_rgb: bool | None, backend: str = "pyav"):
    """Read the kept frames of one video, whatever its form.

    Args:
        video (`Any`): a path, a 4-dimensional array, a list of frames in memory, or a list of image paths.
        metadata ([`VideoMetadata`], *optional*): what the caller knows about it.
        choose (`Callable[[VideoMetadata], np.ndarray]`, *optional*): says which frames are kept; all when absent.
        convert_rgb (`bool`, *optional*): make PIL images RGB; a palette or CMYK picture means nothing as an array.
        backend (`str`): what decodes a video file, `"pyav"` or `"torchcodec"`.

    Returns:
        `tuple`: an array or tensor of 4 dimensions, and its [`VideoMetadata`] with `frames_indices` filled in.

    Raises:
        ValueError: the video is empty, or `choose` asks for frames it has not.
        VideoDecodeError: a file cannot be decoded.
    """
    if isinstance(video, (str, os.PathLike)):
        path = local_path(video)
        if not path.is_dir():
            return load_video_file(path, choose, backend)
        video = frame_files(path)
    if len(video) == 0:
        raise ValueError("A video must have at least one frame, got an empty one.")
    metadata = metadata or VideoMetadata(total_num_frames=len(video))
    metadata.frames_indices = indices = (
        np.arange(len(video)) if choose is None else np.asarray(choose(metadata=metadata))
    )
    if len(indices) and indices[-1] >= len(video):
        raise ValueError(f"`video_metadata` says {metadata.total_num_frames} frames, the video has {len(video)}.")
    if is_array(video):
        frames = video if choose is None else video[indices if isinstance(video, np.ndarray) else indices.tolist()]
    elif is_frame(video[0]):
        frames = stack_frames([video[index] for index in indices], convert_rgb)
    else:
        frames = read_frame_files([video[index] for index in indices])
    return frames, metadata


def load_video_file(path, choose, backend: str) -> tuple[np.ndarray, VideoMetadata]:
    """Decode the kept frames of a video file.

    Args:
        path (`Path`): the file.
        choose (`Callable[[VideoMetadata], np.ndarray]`, *optional*): says which frames are kept, as an int array of
            shape `(T,)`; all when absent.
        backend (`str`): one of `BACKENDS`.

    Returns:
        `tuple[np.ndarray, VideoMetadata]`: frames `(T, H, W, 3)` in uint8 RGB, and what the file says of itself, with
            `frames_indices` filled in.
    """
    info = probe_video(path)
    metadata = VideoMetadata(total_num_frames=0, fps=info.fps, width=info.width, height=info.height)
    options = getattr(choose, "keywords", {})
    stride = 1 if choose is None else options["frame_stride"]
    generator = torch_seeded_generator() if options.get("random_frame_phase") else None

    def indices_of(num_frames: int) -> np.ndarray:
        if choose is not None and (options.get("num_frames") or options.get("fps")):
            metadata.total_num_frames = num_frames
            return np.asarray(choose(metadata=metadata))
        return sample_frame_indices(num_frames, stride, copy.deepcopy(generator))

    read = read_by_torchcodec(path, indices_of) if backend == "torchcodec" else None
    metadata.video_backend = "pyav" if read is None else "torchcodec"
    if read is None and (options.get("num_frames") or options.get("fps")):
        num_frames = count_video_frames(path)
        indices = indices_of(num_frames)
        read = read_video_frames(path, indices), indices, num_frames
    elif read is None:
        # One pass: the length of many videos is not known before their end.
        read = read_strided_video_frames(path, stride, generator)
    frames, metadata.frames_indices, metadata.total_num_frames = read
    if info.fps:
        metadata.duration = metadata.total_num_frames / info.fps
    return frames, metadata


def stack_frames(frames: list, convert_rgb: bool | None) -> np.ndarray | torch.Tensor:
    """Stack frames in memory to one video.

    Args:
        frames (`list`): PIL images, arrays or tensors, all of one kind and size.
        convert_rgb (`bool`, *optional*): make PIL images RGB.

    Returns:
        `np.ndarray` or `torch.Tensor` of shape `(T, ...)`, of 4 dimensions: layout and dtype as given.

    Raises:
        ValueError: if the frames have different sizes.
    """
    if isinstance(frames[0], Image.Image):
        frames = [np.asarray(frame.convert("RGB") if convert_rgb else frame) for frame in frames]
    frames = [frame[..., None] if frame.ndim == 2 else frame for frame in frames]
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) > 1:
        raise ValueError(f"The frames of one video must be of one size, got {sorted(shapes)}.")
    return torch.stack(frames) if isinstance(frames[0], torch.Tensor) else np.stack(frames)
