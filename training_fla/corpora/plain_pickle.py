"""Reading a pickle that holds data only. What a pickle may do besides, run any code, is refused."""

import io
import pickle
from pathlib import Path
from typing import Any

from training_fla.files import InputError

# Opcodes that name classes or functions, call them, or fetch objects from elsewhere.
_CALLS = ("REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID")
# Buffers from outside, and one that reserves as much memory as it likes.
_BUFFERS = ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER")


class _PlainUnpickler(pickle._Unpickler):
    """The unpickler in Python, not the one in C: that one reserves memory at the word of a damaged file."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        raise InputError(f"it asks for {module}.{name}, and only plain data is read")


def _refuse(name: str):
    def load(self) -> None:
        raise InputError(f"it uses the instruction {name}, and only plain data is read")

    return load


for _name in _CALLS + _BUFFERS:
    _PlainUnpickler.dispatch[getattr(pickle, _name)[0]] = _refuse(_name)


def read_plain_pickle(file: Path) -> Any:
    """The content of a pickle of dictionaries, lists, tuples, sets, strings, bytes, numbers, booleans and `None`.

    Args:
        file (`Path`): written by any version of Python.

    Returns:
        What was pickled.

    Raises:
        InputError: if the file is missing, damaged, or asks for anything else; nothing that it asks for is run.
    """
    try:
        # From memory, where a damaged length cannot ask for more bytes than there are.
        return _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="utf-8").load()
    except InputError as error:
        raise InputError(f"{file} is refused: {error}") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except (Exception, RecursionError) as error:  # a damaged pickle fails in every way there is
        raise InputError(f"{file} is damaged: {type(error).__name__} {error}") from error
