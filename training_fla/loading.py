"""Errors that libraries raise while they load a folder or Hub id, as one line that names the file at fault."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from training_fla.errors import InputError, first_line


@contextlib.contextmanager
def loading(source: str | os.PathLike, what: str = "a model") -> Iterator[None]:
    """Turn what libraries raise while they load a folder or Hub id into one line that names the file at fault.

    A path where no folder is fails at once: without a network libraries ask the Hub for it for most of a minute.
    """
    if looks_like_a_path(os.fspath(source)) and not Path(source).exists():
        raise InputError(f"cannot load {what} from {source}: there is no such folder")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        from huggingface_hub.errors import StrictDataclassError  # a configuration that its class refuses

        if damage := damaged_weights(Path(source)):
            raise InputError(damage) from error
        if not isinstance(
            error, (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, StrictDataclassError)
        ):
            raise
        reason = first_line(error)
        if not Path(source).exists() and "huggingface.co" in reason:
            reason = f"there is no such folder, and {reason}"
        raise InputError(f"cannot load {what} from {source}: {reason}") from error


def looks_like_a_path(source: str) -> bool:
    """Whether this can be no id on the Hub, `name` or `owner/name`, or is to lie in a folder that is there."""
    if any(mark in source for mark in ("://", "*", "{")):  # a URL, a pattern, a configuration
        return False
    parts = source.split("/")
    beginning = source.startswith((".", "~")) or os.path.isabs(source) or "\\" in source
    return beginning or len(parts) > 2 or (len(parts) == 2 and (not parts[1] or os.path.isdir(parts[0])))


def damaged_weights(folder: Path, safetensors: str = "*.safetensors") -> str | None:
    """What is wrong with the first weights file of a folder that cannot be read."""
    for file in sorted([*folder.glob(safetensors), *folder.glob("pytorch_model*.bin")]):
        with open(file, "rb") as opened:
            if opened.read(40).startswith(b"version https://git-lfs"):
                return f"{file} is a Git LFS pointer, not the weights: run `git lfs pull`, or download the file itself"
        try:
            if file.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(
                    file, framework="np"
                ):  # it compares the header with the file's length; torch need not be imported
                    continue
            import torch

            torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:
            return f"{file} is not a whole weights file, download or copy it again ({first_line(error)[:200]})"
    return None
