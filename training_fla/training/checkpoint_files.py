"""Weights on disk, without loading them: safetensors and pytorch_model.bin are mapped, safetensors is written.

A [`StoredTensor`] is a name, a shape and a view of the file; bytes are read when they are written elsewhere.
"""

import collections
import dataclasses
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from training_fla.files import InputError

COPY_BYTES = 16 << 20  # written at once; only what is being written is in memory
PYTORCH_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
OLD_MAGIC = 0x1950A86A20F9469CFC6C  # what torch before 1.6 writes first
OLD_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclasses.dataclass
class StoredTensor:
    """A tensor of a checkpoint whose bytes are still on disk.

    Args:
        name (`str`): its key.
        dtype (`str`): as safetensors names it, e.g. `"F32"`.
        shape (`tuple[int, ...]`): its shape.
        data (`np.ndarray` of shape `(num_bytes,)`): its bytes as uint8, memory-mapped.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def num_elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def take(self, kept_token_ids: Sequence[int], axis: int) -> "StoredTensor":
        """The tensor with only the kept indices of one axis; the only bytes that are read.

        Args:
            kept_token_ids (`Sequence[int]`): indices to keep, in the order wanted.
            axis (`int`): which axis they are of.

        Returns:
            [`StoredTensor`]: of the same name and dtype.
        """
        before, after = math.prod(self.shape[:axis]), math.prod(self.shape[axis + 1 :])
        item_size = len(self.data) // max(self.num_elements, 1)
        blocks = self.data.reshape(before, self.shape[axis], after * item_size)
        shape = (*self.shape[:axis], len(kept_token_ids), *self.shape[axis + 1 :])
        kept = np.ascontiguousarray(blocks[:, np.asarray(kept_token_ids)])
        return StoredTensor(self.name, self.dtype, shape, kept.reshape(-1))


def stored_tensors(folder: Path) -> Iterator[StoredTensor]:
    """The tensors of a checkpoint folder, memory-mapped: safetensors or pytorch_model.bin, one file or shards.

    Args:
        folder (`Path`): of a checkpoint.

    Yields:
        [`StoredTensor`]: one by one, in the order of the shards.

    Raises:
        InputError: if there are no weights, a shard is missing, or a file is broken.
    """
    for name, read in (("model.safetensors", _read_safetensors), ("pytorch_model.bin", _read_pytorch)):
        if (folder / name).is_file():
            yield from read(folder / name)
            return
        index = folder / f"{name}.index.json"
        if index.is_file():
            for shard in sorted(set(read_json(index)["weight_map"].values())):
                if not (folder / shard).is_file():
                    raise InputError(f"{index} names {shard}, which is missing")
                yield from read(folder / shard)
            return
    raise InputError(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def write_safetensors(tensors: Iterable[StoredTensor], path: Path, progress: bool = False) -> None:
    """Write a safetensors file front to back, without gathering it in memory first.

    Args:
        tensors (`Iterable[StoredTensor]`): with different names.
        path (`Path`): the file.
        progress (`bool`, *optional*, defaults to `False`): show a progress bar.
    """
    from tqdm import tqdm

    # Widest numbers first, as the library orders them: each tensor then starts at a multiple of its width.
    tensors = sorted(tensors, key=lambda t: (-len(t.data) // max(t.num_elements, 1), t.name))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        end = offset + len(tensor.data)
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    bar = tqdm(total=offset, unit="B", unit_scale=True, desc="weights", disable=not progress)
    with open(path, "wb") as file, bar:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            for start in range(0, len(tensor.data), COPY_BYTES):
                bar.update(file.write(memoryview(tensor.data[start : start + COPY_BYTES])))


def read_json(path: Path) -> dict:
    """A JSON file's content.

    Args:
        path (`Path`): a JSON file.

    Returns:
        `dict`: its content.

    Raises:
        InputError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _read_safetensors(path: Path) -> Iterator[StoredTensor]:
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        content = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        if entries and max(entry["data_offsets"][1] for _, entry in entries) != len(content):
            raise ValueError("it is cut short")
    except (struct.error, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error
    for name, entry in entries:
        start, end = entry["data_offsets"]
        yield StoredTensor(name, entry["dtype"], tuple(entry["shape"]), content[start:end])


def _read_pytorch(path: Path) -> Iterator[StoredTensor]:
    if not zipfile.is_zipfile(path):
        yield from _read_old_pytorch(path)
        return
    import torch

    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} cannot be read as weights: {(str(error) or 'it is cut short').splitlines()[0]}"
        ) from error
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{path} cannot be read as weights: {name} is not a tensor")
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        yield StoredTensor(name, PYTORCH_DTYPES[str(tensor.dtype)], tuple(tensor.shape), data)


@dataclasses.dataclass
class _OldStorage:
    """A run of numbers in an old file: its key there, and the safetensors name of their type."""

    key: str
    dtype: str


class _OldUnpickler(pickle.Unpickler):
    """Reads the structure of an old weights file and nothing else: any other class in it is refused."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, tuple(size), tuple(stride))
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in OLD_STORAGES:
            return name
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no tensor")

    def persistent_load(self, pid) -> _OldStorage:
        kind, storage, key, _, _, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError("it holds a storage of an unknown form")
        return _OldStorage(key, OLD_STORAGES[storage])


def _read_old_pytorch(path: Path) -> Iterator[StoredTensor]:
    """The tensors of a file that torch before 1.6 wrote, as the first MBart releases are.

    Such a file is five pickles (magic number, protocol, system, the dictionary of tensors, the keys of the storages)
    and then each storage: its number of elements as a 64-bit integer and its bytes. `torch.load` would read it whole.
    """
    try:
        with open(path, "rb") as file:
            if _OldUnpickler(file).load() != OLD_MAGIC:
                raise pickle.UnpicklingError("it is no file of torch")
            _OldUnpickler(file).load(), _OldUnpickler(file).load()
            state, keys = _OldUnpickler(file).load(), _OldUnpickler(file).load()
            sizes = {t[0].key: ITEM_SIZES[t[0].dtype] for t in state.values()}
            starts = {}
            for key in keys:
                length = file.read(8)
                if len(length) < 8:
                    raise EOFError("it is cut short")
                (count,) = struct.unpack("<q", length)
                starts[key] = file.tell()
                file.seek(count * sizes[key], 1)
            end = file.tell()
        content = np.memmap(path, dtype=np.uint8, mode="r")
        if end > len(content):
            raise EOFError("it is cut short")
        for name, (storage, offset, size, stride) in state.items():
            if stride != tuple(math.prod(size[axis + 1 :]) for axis in range(len(size))):
                raise pickle.UnpicklingError(
                    f"{name} is not contiguous; load and save the model once with transformers"
                )
            start = starts[storage.key] + offset * sizes[storage.key]
            length = math.prod(size) * sizes[storage.key]
            yield StoredTensor(name, storage.dtype, size, content[start : start + length])
    except (pickle.UnpicklingError, EOFError, struct.error, AttributeError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as weights: {str(error) or 'it is broken'}") from error
