"""Trim a language model's vocabulary to the tokens that a corpus uses (paper Sec. 5.2). Not saved with a model."""

import torch
from torch import nn
from transformers import PreTrainedModel

# Fields of a generation configuration that list tokens or sequences of tokens to suppress, force or favour.
TOKEN_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")


def trim_token_embeddings(model: PreTrainedModel, kept_token_ids: list[int]) -> PreTrainedModel:
    r"""Cut a language model's vocabulary down to the given tokens, in place (paper Sec. 5.2).

    Token `kept_token_ids[i]` becomes token `i`: in the embeddings, the head and its bias, and in the configuration and
    the generation configuration.

    Args:
        model (`PreTrainedModel`):
            An encoder-decoder language model, or a [`FlaForConditionalGeneration`], whose language model is trimmed.
        kept_token_ids (`list[int]`):
            Old ids in the order of the new ones, as [`trim_tokenizer`] returns them.

    Returns:
        `PreTrainedModel`: `model`.

    Raises:
        ValueError: if an id is repeated, outside the vocabulary, or missing though the configuration names it; if
            encoder and decoder have vocabularies of different sizes. Nothing is changed then.
    """
    language_model = getattr(model, "language_model", model)
    tables = _token_tables(language_model)
    new_ids = _new_token_ids(kept_token_ids, tables[0].weight.shape[0])
    configs = (*_with_parts(language_model.config), language_model.generation_config, model.generation_config)
    configs = {id(config): config for config in configs}
    changes = [(config, _renumbered_fields(config, new_ids)) for config in configs.values()]

    _keep_rows(tables, kept_token_ids)
    bias = getattr(language_model, "final_logits_bias", None)
    if bias is not None:
        language_model.final_logits_bias = nn.Buffer(bias[:, torch.tensor(kept_token_ids, device=bias.device)])
    for table in tables:
        if getattr(table, "padding_idx", None) is not None:
            table.padding_idx = new_ids.get(table.padding_idx)
        if hasattr(table, "eoi_token_index"):  # T5Gemma 2's of pictures
            table.eoi_token_index = new_ids.get(table.eoi_token_index, -1)
    for config, fields in changes:
        for name, value in fields.items():
            setattr(config, name, value)
    return model


def _token_tables(language_model: PreTrainedModel) -> list[nn.Module]:
    """The head and every embedding of tokens, each once; some share their weight."""
    stacks = (language_model.get_encoder(), language_model.get_decoder())
    tables = [language_model.get_output_embeddings(), getattr(language_model.base_model, "shared", None)]
    tables += [stack.get_input_embeddings() for stack in stacks]
    tables = list({id(table): table for table in tables if table is not None}.values())
    sizes = sorted({table.weight.shape[0] for table in tables})
    if len(sizes) > 1:
        raise ValueError(f"Encoder and decoder have different vocabularies, of {sizes[0]} and {sizes[-1]} tokens.")
    return tables


def _with_parts(config) -> list:
    """A configuration and those inside it: T5Gemma has one for each half."""
    parts = [getattr(config, name) for name in config.sub_configs]
    return [config, *(inner for part in parts if part is not None for inner in _with_parts(part))]


def _new_token_ids(kept_token_ids: list[int], vocab_size: int) -> dict[int, int]:
    """The new id of each old one."""
    new_ids = {int(old): new for new, old in enumerate(kept_token_ids)}
    if len(new_ids) != len(kept_token_ids):
        repeated = next(old for old in kept_token_ids if list(kept_token_ids).count(old) > 1)
        raise ValueError(f"`kept_token_ids` names token {repeated} more than once.")
    unknown = [old for old in new_ids if not 0 <= old < vocab_size]
    if unknown or not new_ids:
        raise ValueError(
            f"`kept_token_ids` must be ids of a vocabulary of {vocab_size} tokens, got {unknown[:5] or 'none'}."
        )
    return new_ids


def _renumbered_fields(config, new_ids: dict[int, int]) -> dict[str, object]:
    """The fields of a configuration that name tokens or count them, with their new values."""
    fields = {}
    for name, value in config.to_dict().items():
        if value is None:
            continue
        if name in ("vocab_size", "decoder_vocab_size"):
            fields[name] = len(new_ids)
        elif name in TOKEN_LISTS:  # an entry with a token that is gone has no use
            fields[name] = [new for new in (_renumbered(old, new_ids) for old in value) if new is not None] or None
        elif name == "language_token_ids":
            fields[name] = {code: new_ids[old] for code, old in value.items() if old in new_ids}
        elif name.endswith("_token_index"):  # of pictures, which are never read here
            fields[name] = new_ids.get(value, -1)
        elif name.endswith("_token_id"):
            fields[name] = _renumbered(value, new_ids)
            if fields[name] is None and name != "bos_token_id":  # an encoder-decoder does not start from it
                raise ValueError(f"`kept_token_ids` lacks token {value}, the `{name}` of {type(config).__name__}.")
    return fields


def _renumbered(value, new_ids: dict[int, int]):
    """A token id, or nested lists of them and of floats, with new ids; `None` if it names a token that is gone."""
    if not isinstance(value, (list, tuple)):
        return value if isinstance(value, float) else new_ids.get(value)
    entries = [_renumbered(entry, new_ids) for entry in value]
    return None if None in entries else entries


def _keep_rows(tables: list[nn.Module], kept_token_ids: list[int]) -> None:
    """Cut embeddings and heads to the given rows; those that shared a weight share the new one."""
    cut: dict[int, nn.Parameter] = {}
    for table in tables:
        old, rows = table.weight, torch.tensor(kept_token_ids, device=table.weight.device)
        if id(old) not in cut:
            cut[id(old)] = nn.Parameter(old.detach().index_select(0, rows), requires_grad=old.requires_grad)
        table.weight = cut[id(old)]
        bias = getattr(table, "bias", None)
        if bias is not None:
            table.bias = nn.Parameter(bias.detach().index_select(0, rows), requires_grad=bias.requires_grad)
        setattr(table, "num_embeddings" if isinstance(table, nn.Embedding) else "out_features", len(kept_token_ids))


__all__ = ["trim_token_embeddings"]
