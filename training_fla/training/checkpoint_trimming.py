"""Trim a language model on disk: read the rows of its embeddings that are kept, copy everything else, load nothing.

    config.json, generation_config.json     token ids renumbered, `vocab_size` set
    model.safetensors / pytorch_model.bin   memory-mapped; one file or shards
            |  vocabulary tensors: kept rows only; all others: their bytes as they are
    model.safetensors                       written front to back

The twin for a model in memory is [`~modeling_fla.trim_token_embeddings`].
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from training_fla.files import InputError
from training_fla.training.checkpoint_files import StoredTensor, read_json, stored_tensors, write_safetensors

# The last part of the name of every tensor with a row (or, in biases, an element) for each token.
VOCABULARY_TENSORS = (
    "shared.weight",
    "embed_tokens.weight",
    "word_embeddings.weight",
    "lm_head.weight",
    "lm_head.bias",
    "final_logits_bias",
)
# Lists of tokens to suppress or enforce: an entry of a token that is gone has nothing left to do.
TOKEN_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")
# M2M100 and NLLB end with "made-up words" that their tokenizers do not have.
MADE_UP_WORDS = {"m2m_100": 8, "nllb-moe": 8}


@dataclasses.dataclass(frozen=True)
class TrimmedSize:
    """What trimming a checkpoint saved.

    Args:
        parameters_before (`int`): numbers in the checkpoint, tied tensors once.
        parameters_after (`int`): the same of the trimmed one.
        bytes_before (`int`): their bytes.
        bytes_after (`int`): the same of the trimmed one.
    """

    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int


def trim_checkpoint(
    folder: str | os.PathLike, kept_token_ids: Sequence[int], out: str | os.PathLike, progress: bool = False
) -> TrimmedSize:
    """Write the checkpoint of an encoder-decoder language model with only the kept tokens.

    Args:
        folder (`str` or `os.PathLike`): has config.json and the weights, as `save_pretrained` leaves them.
        kept_token_ids (`Sequence[int]`): old ids in the order of the new ones, as [`trim_tokenizer`] returns them.
        out (`str` or `os.PathLike`): an existing folder to write config.json, generation_config.json and
            model.safetensors to.
        progress (`bool`, *optional*, defaults to `False`): show a progress bar.

    Returns:
        [`TrimmedSize`]

    Raises:
        InputError: if files are missing or broken, or do not fit each other or `kept_token_ids`.
    """
    folder, out = Path(folder), Path(out)
    config = read_config(folder)
    vocab_size, new_ids = config["vocab_size"], {old: new for new, old in enumerate(kept_token_ids)}
    if not new_ids or len(new_ids) != len(kept_token_ids) or not 0 <= min(new_ids) <= max(new_ids) < vocab_size:
        raise InputError(f"the kept token ids must be different ids below the model's vocab_size {vocab_size}")

    tensors = list(stored_tensors(folder))
    tied = config.get("tie_word_embeddings", True)
    before = _without_aliases(tensors) if tied else tensors
    axes = {tensor.name: vocabulary_axis(tensor, config) for tensor in before}
    if all(axis is None for axis in axes.values()):
        raise InputError(f"{folder} has no embedding of {vocab_size} tokens (config.json's vocab_size)")
    after = [t if axes[t.name] is None else t.take(kept_token_ids, axes[t.name]) for t in before]

    _write_json(out / "config.json", renumbered_config(config, new_ids))
    if (folder / "generation_config.json").is_file():
        generation = read_json(folder / "generation_config.json")
        _write_json(out / "generation_config.json", renumbered_config(generation, new_ids))
    write_safetensors(after, out / "model.safetensors", progress)
    return TrimmedSize(
        *(sum(tensor.num_elements for tensor in side) for side in (before, after)),
        *(sum(len(tensor.data) for tensor in side) for side in (before, after)),
    )


def read_config(folder: Path) -> dict:
    """The config.json of a language model with one vocabulary.

    Args:
        folder (`Path`): of a checkpoint.

    Returns:
        `dict`: its content.

    Raises:
        InputError: if it is missing, broken, or not of such a model.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config.get("vocab_size"), int):
        raise InputError(
            f"{folder}/config.json has no vocab_size: only a language model can be trimmed, before it becomes part of "
            "a translation model"
        )
    if config.get("decoder_vocab_size") not in (None, config["vocab_size"]):
        raise InputError(
            f"{folder}/config.json: encoder and decoder have different vocabularies ({config['vocab_size']} and "
            f"{config['decoder_vocab_size']} tokens)"
        )
    return config


def named_token_ids(folder: Path) -> set[int]:
    """The ids that the configuration files need, such as `decoder_start_token_id`; trimming has to keep them.

    Args:
        folder (`Path`): of a checkpoint.

    Returns:
        `set[int]`: token ids.
    """
    found = set()
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            for field, value in read_json(folder / name).items():
                if field.endswith("_token_id") and value is not None:
                    found.update(value if isinstance(value, list) else [value])
    return found


def renumbered_config(config: dict, new_ids: dict[int, int]) -> dict:
    """A config.json or generation_config.json with the token ids and sizes of the trimmed vocabulary.

    Args:
        config (`dict`): the file's content.
        new_ids (`dict[int, int]`): old id -> new id.

    Returns:
        `dict`: every `*_token_id`, the token lists of `TOKEN_LISTS` (entries of tokens that are gone fall away),
        `forced_decoder_ids` and `vocab_size` replaced, the rest as it was.

    Raises:
        InputError: if a field names a token that is not kept.
    """
    renumbered = dict(config)
    for name, value in config.items():
        if value is None:
            continue
        if name in TOKEN_LISTS:
            renumbered[name] = _renumbered_list(value, new_ids) or None
        elif name == "forced_decoder_ids":
            renumbered[name] = [[place, new_ids[token]] for place, token in value if token in new_ids] or None
        elif name.endswith("_token_id"):
            ids = value if isinstance(value, list) else [value]
            if missing := [token for token in ids if token not in new_ids]:
                raise InputError(f"the configuration's {name} is token {missing[0]}, which is not kept")
            renumbered[name] = [new_ids[token] for token in value] if isinstance(value, list) else new_ids[value]
        elif name in ("vocab_size", "decoder_vocab_size"):
            renumbered[name] = len(new_ids)
    return renumbered


def check_vocabulary_sizes(num_tokens: int, config: dict, allow_unused_rows: bool = False) -> None:
    """Refuse a model and a tokenizer that do not belong together.

    A model may have a few rows more than its tokenizer has tokens: T5's and MT5's are padded to a multiple of 64,
    M2M100's end with made-up words.

    Args:
        num_tokens (`int`): the tokenizer's largest id plus 1.
        config (`dict`): the model's config.json.
        allow_unused_rows (`bool`, *optional*, defaults to `False`): accept any number of rows more.

    Raises:
        InputError: naming both sizes.
    """
    rows = config["vocab_size"]
    unused = rows - num_tokens
    padded = rows % 64 == 0 and unused < 128 and unused <= rows // 100
    made_up = 0 <= unused <= MADE_UP_WORDS.get(config.get("model_type"), 0)
    if unused == 0 or (unused > 0 and (padded or made_up or allow_unused_rows)):
        return
    remedy = "; pass --allow-unused-rows if the rows behind the tokenizer's are padding" if unused > 0 else ""
    raise InputError(f"the model has {rows} token embeddings and the tokenizer has {num_tokens} tokens{remedy}")


def vocabulary_axis(tensor: StoredTensor, config: dict) -> int | None:
    """Which axis of a tensor counts tokens.

    Args:
        tensor ([`~training_fla.training.checkpoint_files.StoredTensor`]): of a checkpoint.
        config (`dict`): its config.json.

    Returns:
        `int` or `None`: `None` where none does.

    Raises:
        InputError: if a vocabulary tensor has another number of tokens than config.json, or a tensor of unknown name
            seems to have an axis of tokens.
    """
    size = config["vocab_size"]
    if tensor.name.endswith(VOCABULARY_TENSORS) and size not in tensor.shape:
        raise InputError(f"{tensor.name} has the shape {list(tensor.shape)}, but config.json's vocab_size is {size}")
    if tensor.name.endswith(VOCABULARY_TENSORS):
        return len(tensor.shape) - 1 if tensor.name.endswith("bias") else tensor.shape.index(size)
    other_sizes = {value for name, value in config.items() if isinstance(value, int) and "vocab_size" not in name}
    if size in tensor.shape and size not in other_sizes and size > 1024:
        raise InputError(
            f"cannot trim {tensor.name}: it has {size} tokens on an axis, and no known place in the model"
        )
    return None


def _without_aliases(tensors: list[StoredTensor]) -> list[StoredTensor]:
    """One tensor for each set of names that share their bytes, as pytorch_model.bin stores tied weights."""
    first: dict[tuple, StoredTensor] = {}
    # The shared embedding is the one that the others are tied to when the model is loaded.
    for tensor in sorted(tensors, key=lambda t: not t.name.endswith("shared.weight")):
        address = tensor.data.__array_interface__["data"][0] if tensor.num_elements else tensor.name
        first.setdefault((address, tensor.shape), tensor)
    return list(first.values())


def _renumbered_list(value, new_ids: dict[int, int]):
    """Token ids, lists of them, or `[[ids], bias]` pairs with new ids; what names a token that is gone is left out."""
    renumbered = []
    for entry in value:
        if isinstance(entry, int):
            renumbered += [new_ids[entry]] if entry in new_ids else []
        elif len(entry) == 2 and isinstance(entry[0], list) and isinstance(entry[1], float):
            renumbered += [[[new_ids[i] for i in entry[0]], entry[1]]] if new_ids.keys() >= set(entry[0]) else []
        elif entry and isinstance(entry[0], list):  # alternatives, of which one is enforced
            kept = [[new_ids[i] for i in ids] for ids in entry if new_ids.keys() >= set(ids)]
            renumbered += [kept] if kept else []
        elif new_ids.keys() >= set(entry):
            renumbered.append([new_ids[i] for i in entry])
    return renumbered


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
