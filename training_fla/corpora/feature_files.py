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
from training_fla.corpora.row import CorpusRow, Reading
from training_fla.errors import InputError, first_line

HDF5_SUFFIXES = (".h5", ".hdf5")
FEATURE_SUFFIXES = (".npy", ".npz", ".pt", ".safetensors", *HDF5_SUFFIXES)
NAMES_SHOWN = 5


def check_feature_files(
    rows: Sequence[CorpusRow], reading: Reading, stride: int
) -> tuple[list[tuple[CorpusRow, int]], int]:
    """The rows whose files hold features of one size, with their lengths N, and C; others go to `reading.bad`."""
    shapes: dict[CorpusRow, torch.Size] = {}
    for row in progress(rows, desc="checking", unit="clip"):
        with reading.bad.at(*row.place):
            shapes[row] = load_features(row.video.path, stride).shape
    sizes = Counter(C for _, C in shapes.values())
    size = sizes.most_common(1)[0][0] if sizes else 0
    for row, (_, C) in shapes.items():
        if size != C:
            reading.bad.add(*row.place, f"{row.video.path} has C = {C}, most have {size}")
    return [(row, N) for row, (N, C) in shapes.items() if size == C], size


def load_features(file: Path, stride: int = 1) -> torch.Tensor:
    """Read the features of one clip that another program saved.

    Args:
        file (`Path`): of one of `FEATURE_SUFFIXES`, with one array or one called `features`. Axes of length 1 are
            dropped.
        stride (`int`): keep one position in so many.

    Returns:
        `torch.Tensor` of shape `(N, C)`: float32, finite, not empty.

    Raises:
        InputError: it holds no such array.
    """
    features = _read_array(file)
    if features.is_meta or features.layout != torch.strided or features.is_quantized:
        raise InputError(f"{file} holds no numbers that can be read: save a plain array")
    shape = tuple(features.shape)
    if features.dim() > 2:
        features = torch.atleast_2d(features.squeeze())
    if features.dim() != 2 or not features.numel():
        N, *others = features.shape or (0,)
        # Such as (T, V * 3) for keypoints.
        remedy = f": reshape to {(N, math.prod(others))}" if len(others) > 1 else ""
        raise InputError(f"{file} has shape {shape}, not (N, C){remedy}")
    if features.is_complex() or not features.float().isfinite().all():
        raise InputError(f"{file} holds NaN, infinity or complex numbers")
    return features[::stride].float()


def _read_array(file: Path) -> torch.Tensor:
    """The array of a file, whatever its shape and type."""
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    suffix = file.suffix.lower()
    if suffix not in FEATURE_SUFFIXES:
        raise InputError(f"{file} is not a {', '.join(FEATURE_SUFFIXES[:-1])} or {FEATURE_SUFFIXES[-1]} file")
    try:
        if suffix in HDF5_SUFFIXES:
            content = _read_hdf5(file)
        elif suffix == ".safetensors":
            content = load_file(file)
        elif suffix == ".pt":
            content = torch.load(file, "cpu", weights_only=True)
        else:
            content = np.load(file, allow_pickle=False)
        if isinstance(content, Mapping):
            content = content[_name_of_features(file, list(content))]
        return torch.as_tensor(content)
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
        is_only = len(arrays) == 1
        return {name: item[()] if is_only or name == "features" else None for name, item in arrays.items()}
