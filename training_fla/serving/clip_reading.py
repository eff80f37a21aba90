"""From a file that a stranger sent to sampled frames, a few at a time: nothing is held that the model does not see."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from processing_fla.video_reading_fla import RgbConverter, VideoDecodeError, open_video
from training_fla.serving.limits import MAX_FPS, Limits, RefusedError, WorkClock

FRAMES_AT_ONCE = 8  # resized together; a frame may be of 4K, and only so many are held at full size


@dataclass
class Clip:
    """What the model sees of a clip.

    Args:
        pixels (`torch.ByteTensor` of shape `(T, 3, H, W)`): sampled frames, resized and cropped, RGB.
        seconds (`list[float]`): when each of the T is shown.
        num_source_frames (`int`): of the whole clip.
        duration (`float`): its length in seconds.
    """

    pixels: torch.Tensor
    seconds: list[float]
    num_source_frames: int
    duration: float


def read_clip(path: Path, video_processor, limits: Limits, clock: WorkClock) -> Clip:
    """Decode a file, keep the frames that the processor samples, and stop as soon as a limit is passed.

    Args:
        path (`Path`): the file.
        video_processor ([`~processing_fla.FlaVideoProcessor`]): samples, resizes and crops.
        limits ([`Limits`]): of size, length and frames.
        clock ([`WorkClock`]): of the work on this clip.

    Returns:
        [`Clip`]: the frames.

    Raises:
        RefusedError: no video, damaged, too large or too long.
        CancelledError: nobody waits for it.
    """
    limits.check_size(path.stat().st_size)
    try:
        return _read(path, video_processor, limits, clock)
    except (VideoDecodeError, OSError) as error:
        reason = " ".join(str(error).split()).replace(f"`{path}` cannot be decoded as a video: ", "")
        reason = reason.replace(f"`{path}`", "it").rstrip(".")
        raise RefusedError(
            f"This file cannot be read as a video: {reason}. "
            "Send a whole video file, for example .mp4, .mov, .webm, .mkv or .avi."
        ) from error


def _read(path: Path, video_processor, limits: Limits, clock: WorkClock) -> Clip:
    stride = video_processor.frame_stride
    pixels: list[torch.Tensor] = []
    waiting: list[np.ndarray] = []
    times: list[float] = []
    num_frames, end = 0, 0.0
    with open_video(path) as video:
        limits.check_length(video.end_seconds or 0.0)
        convert = RgbConverter(path, video_processor.target_size)
        for seconds, frame in video.timed_frames():
            clock.check()
            limits.check_length(seconds)
            if num_frames > limits.max_seconds * MAX_FPS + MAX_FPS:
                raise RefusedError(f"This clip has more than {MAX_FPS} frames a second.")
            if num_frames % stride == 0:
                waiting.append(convert(frame))
                times.append(seconds)
                limits.check_frames(len(times), seconds)
            if len(waiting) == FRAMES_AT_ONCE:
                pixels.append(_resized(waiting, video_processor))
                waiting = []
            num_frames += 1
            end = seconds
    if waiting:
        pixels.append(_resized(waiting, video_processor))
    # The last frame is taken to be shown as long as the mean of the others.
    duration = end + end / (num_frames - 1) if num_frames > 1 else 0.0
    return Clip(torch.cat(pixels), times, num_frames, duration)


def _resized(frames: list[np.ndarray], video_processor) -> torch.Tensor:
    batch = video_processor(
        videos=[np.stack(frames)],
        return_tensors="pt",
        do_sample_frames=False,
        do_rescale=False,
        do_normalize=False,
    )
    return batch["pixel_values_videos"][0]
