"""Key points of a pose estimation, of `.pose` files and arrays, as sign features.

One person is kept, the one of whom most points are seen. The middle between the shoulders is the origin and their
distance the unit, both averaged over the clip as pose-format's own `Pose.normalize` does, so that a body's movement
stays.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training_fla.errors import InputError, first_line

POSE_SUFFIX = ".pose"
DIMS = (2, 3)  # x, y and perhaps z
SHOULDERS = (11, 12)  # of MediaPipe's 33 points of a body, which come first in its arrays
WORLD = "POSE_WORLD_LANDMARKS"  # metres from the hips: of another origin and unit than the others


def read_pose(file: Path, shoulders: Sequence[int] | None) -> tuple[np.ndarray, str]:
    """Features `(T, V * (D + 1))` of a `.pose` file, and in words what they are; `shoulders` are looked up by name."""
    try:
        from pose_format import Pose
        from pose_format.utils.generic import pose_shoulders
    except ImportError:
        raise InputError(f'{file} needs pose-format to be read: `pip install "fla-llm[pose]"`') from None
    pose = Pose.read(file.read_bytes())
    names = [component.name for component in pose.header.components]
    if WORLD in names and len(names) > 1:
        pose = pose.remove_components(WORLD)
    points = {component.name: len(component.points) for component in pose.header.components}
    if shoulders is None:
        try:
            shoulders = [pose.header.get_point_index(*place) for place in pose_shoulders(pose.header)]
        except (ValueError, NotImplementedError) as error:
            why = f"has its points in {', '.join(points)}, where the shoulders are not known ({first_line(error)})"
            raise InputError(f"{file} {why}: give their numbers, from 0, with --shoulders") from None
    features = features_of(file, pose.body.data.filled(0), pose.body.confidence, shoulders)
    listed = ", ".join(f"{name} ({count})" for name, count in points.items())
    return features, description(listed, pose.body.data.shape[-1])


def read_points(
    file: Path, array: np.ndarray, confidence: np.ndarray | None, shoulders: Sequence[int] | None
) -> tuple[np.ndarray, str]:
    """The same of an array `(T, people, V, D)`; without `confidence` the fourth coordinate is the confidence."""
    if confidence is None and array.shape[-1] > max(DIMS):
        array, confidence = array[..., :-1], array[..., -1]
    if confidence is None:  # as programs without one write a point that is missing
        confidence = (np.isfinite(array).all(-1) & array.any(-1)).astype(np.float32)
    if confidence.ndim == 2 and array.ndim == 3:  # of one person
        array, confidence = array[:, None], confidence[:, None]
    if array.ndim != 4 or array.shape[:-1] != confidence.shape or array.shape[-1] not in DIMS or not array.size:
        shapes = f"shape {array.shape} and a confidence of shape {confidence.shape}"
        raise InputError(f"{file} has {shapes}, not (T, people, points, 2 or 3) and (T, people, points)")
    features = features_of(file, array, confidence, SHOULDERS if shoulders is None else shoulders)
    return features, description(str(array.shape[2]), array.shape[-1])


def features_of(file: Path, points: np.ndarray, confidence: np.ndarray, shoulders: Sequence[int]) -> np.ndarray:
    """Scale key points by the shoulders.

    Args:
        file (`Path`): that they come from, for errors.
        points (`np.ndarray`): `(T, people, V, D)`, in any unit; what is not finite is missing.
        confidence (`np.ndarray`): `(T, people, V)`; 0 marks a point that is missing.
        shoulders (`Sequence[int]`): the numbers of the two shoulders among the V points, from 0.

    Returns:
        `np.ndarray` of shape `(T, V * (D + 1))`, float32: of each point its D coordinates, in distances of the
        shoulders, and its confidence; all of them 0 where it is missing.

    Raises:
        InputError: there are no such points, or they are not seen.
    """
    num_frames, _, num_points, _ = points.shape
    if not num_frames or max(shoulders) >= num_points or min(shoulders) < 0:
        named = " and ".join(map(str, shoulders))
        raise InputError(
            f"{file} has {num_frames} frames of {num_points} points; shoulders are to be {named}: see --shoulders"
        )
    seen = (confidence > 0) & np.isfinite(points).all(-1)
    person = int(seen.sum((0, 2)).argmax())
    points, confidence, seen = points[:, person].astype(np.float64), confidence[:, person], seen[:, person]
    both = seen[:, list(shoulders)].all(1)
    pairs = points[both][:, list(shoulders)]
    width = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=-1).mean() if both.any() else 0.0
    if not width > 0:
        raise InputError(f"{file} shows both shoulders in no frame, so its points cannot be scaled")
    scaled = (points - pairs.mean((0, 1))) / width
    features = np.concatenate([scaled, confidence[..., None]], -1)
    return np.where(seen[..., None], features, 0).reshape(num_frames, -1).astype(np.float32)


def description(points: str, num_dims: int) -> str:
    """What the features are, for cards: whoever uses a model makes the same."""
    return (
        f"key points {points}: of each {', '.join('xyz'[:num_dims])} in distances of the shoulders from their middle, "
        "and its confidence; all 0 where it is missing"
    )
