"""Feature files of other programs: what a row of a table names in the place of a video."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from training_fla.console import progress
from training_fla.corpora.key_points import POSE_SUFFIX, read_points, read_pose
from training_fla.corpora.row import CorpusRow, Reading
from training_fla.errors import InputError, first_line

HDF5_SUFFIXES = (".h5", ".hdf5")
FEATURE_SUFFIXES = (".npy", ".npz", ".pt", ".safetensors", POSE_SUFFIX, *HDF5_SUFFIXES)
NAMES_SHOWN = 5


def check_feature_files(
    rows: Sequence[CorpusRow], reading: Reading, stride: int, shoulders: Sequence[int] | None = None
) -> tuple[list[tuple[CorpusRow, int]], int, str]:
    """The rows whose files hold features of one kind, with their lengths N; C; what key points are in words.

    Other rows go to `reading.bad`.
    """
    found: dict[CorpusRow, tuple[int, tuple[int, str]]] = {}
    for row in progress(rows, desc="checking", unit="clip"):
        with reading.bad.at(*row.place):
            features, points = read_features(row.video.path, stride, shoulders)
            found[row] = (len(features), (features.shape[1], points))
    kinds = Counter(kind for _, kind in found.values())
    size, points = kinds.most_common(1)[0][0] if kinds else (0, "")
    for row, (_, (C, others)) in found.items():
        if size != C:
            reading.bad.add(*row.place, f"{row.video.path} has C = {C}, most have {size}")
        elif others != points:
            reading.bad.add(
                *row.place, f"{row.video.path} has {others or 'features'}, most have {points or 'features'}"
            )
    return [(row, N) for row, (N, kind) in found.items() if kind == (size, points)], size, points


def load_features(file: Path, stride: int = 1, shoulders: Sequence[int] | None = None) -> torch.Tensor:
    """Read the features of one clip that another program saved.

    Args:
        file (`Path`): of one of `FEATURE_SUFFIXES`, with one array or one called `features`. Axes of length 1 are
            dropped. Key points, of a `.pose` file or in an array `(T, people, points, 2 to 4)`, are scaled by the
            shoulders.
        stride (`int`): keep one position in so many.
        shoulders (`Sequence[int]`, *optional*): the numbers of both shoulders among the key points, from 0; as the
            file names them or, in arrays, as MediaPipe has them, when absent.

    Returns:
        `torch.Tensor` of shape `(N, C)`: float32, finite, not empty.

    Raises:
        InputError: it holds no such array.
    """
    return read_features(file, stride, shoulders)[0]


def read_features(file: Path, stride: int, shoulders: Sequence[int] | None) -> tuple[torch.Tensor, str]:
    """What [`load_features`] gives, and what key points are in words; nothing for other features."""
    content = _read_file(file, shoulders)
    if isinstance(content, tuple):
        features, points = content
        return torch.as_tensor(features)[::stride], points
    confidence = content.pop("confidence", None) if len(content) > 1 else None
    (array,) = content.values()
    for tensor in (array, confidence):
        if tensor is not None and (tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized):
            raise InputError(f"{file} holds no numbers that can be read: save a plain array")
        if tensor is not None and tensor.is_complex():
            raise InputError(f"{file} holds NaN, infinity or complex numbers")
    is_of_points = array.dim() == 4 and array.shape[-1] in (2, 3, 4) and array.squeeze().dim() > 2
    if confidence is not None or is_of_points:
        arrays = [None if tensor is None else tensor.float().numpy() for tensor in (array, confidence)]
        features, points = read_points(file, *arrays, shoulders)
        return torch.as_tensor(features)[::stride], points
    return _checked(file, array)[::stride].float(), ""


def _checked(file: Path, features: torch.Tensor) -> torch.Tensor:
    """The features `(N, C)` of an array, whatever its shape."""
    shape = tuple(features.shape)
    if features.dim() > 2:
        features = torch.atleast_2d(features.squeeze())
    if features.dim() != 2 or not features.numel():
        N, *others = features.shape or (0,)
        remedy = f": reshape to {(N, math.prod(others))}" if len(others) > 1 else ""
        raise InputError(f"{file} has shape {shape}, not (N, C){remedy}")
    if not features.float().isfinite().all():
        raise InputError(f"{file} holds NaN, infinity or complex numbers")
    return features


def _read_file(file: Path, shoulders: Sequence[int] | None) -> tuple[np.ndarray, str] | dict[str, torch.Tensor]:
    """The features of a file of poses, else the array of a file, and its `confidence` where it has one."""
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    suffix = file.suffix.lower()
    if suffix not in FEATURE_SUFFIXES:
        raise InputError(f"{file} is not a {', '.join(FEATURE_SUFFIXES[:-1])} or {FEATURE_SUFFIXES[-1]} file")
    try:
        if suffix == POSE_SUFFIX:
            return read_pose(file, shoulders)
        if suffix in HDF5_SUFFIXES:
            content = _read_hdf5(file)
        elif suffix == ".safetensors":
            content = load_file(file)
        elif suffix == ".pt":
            content = torch.load(file, "cpu", weights_only=True)
        else:
            content = np.load(file, allow_pickle=False)
        if not isinstance(content, Mapping):
            return {"features": torch.as_tensor(content)}
        names = list(content)
        with_points = len(names) > 1 and "confidence" in names
        name = _name_of_features(file, [name for name in names if name != "confidence" or not with_points])
        return {name: torch.as_tensor(content[name]) for name in (name, *(["confidence"] * with_points))}
    except InputError:
        raise
    except UnpicklingError:  # torch's own words advise to load it all the same
        raise InputError(f"{file} holds more than tensors: save its array alone") from None
    except Exception as error:  # zip, zlib, pickle, numpy and torch raise errors of many kinds at a damaged file
        raise InputError(f"{file} cannot be read: {first_line(error)}") from error


def _name_of_features(file: Path, names: list[Any]) -> Any:
    """The name of the only array of a file, or `features`."""
    if "features" in names:
        return "features"
    if len(names) == 1:
        return names[0]
    shown = ", ".join(map(str, names[:NAMES_SHOWN])) or "nothing"
    if len(names) > NAMES_SHOWN:
        shown += f" and {len(names) - NAMES_SHOWN} more"
    raise InputError(f"{file} holds {shown}: call one array `features`")


def _read_hdf5(file: Path) -> dict[str, np.ndarray | None]:
    """The arrays of an HDF5 file, whatever groups they lie in; only the one that is used is read."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{file} needs h5py to be read: `pip install h5py`, or save it as .npy") from None
    arrays: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item

    with h5py.File(file, "r") as opened:
        opened.visititems(collect)
        others = [name for name in arrays if name != "confidence"]
        read = {"features", "confidence", *(others if len(others) == 1 else ())}
        return {name: item[()] if name in read else None for name, item in arrays.items()}
