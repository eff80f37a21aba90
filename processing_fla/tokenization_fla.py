"""Tokenizers for a corpus: `trim_tokenizer` cuts a released one, `train_tokenizer` makes one. Not saved with a model.

Paper: Sec. 5.2 trims MBart's vocabulary to the training set. Unstated: which texts of it, and which pieces that
leaves. Here every single character of the texts is kept: the best segmentation of a training sentence then stays the
best one, and a word not seen in training is split into characters instead of becoming `<unk>`.
"""

import io
import json
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import M2M100Tokenizer, MBartTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

from .processing_fla import in_language, normalize_text

SUPPORTED_MODELS = ("Unigram", "BPE")
METASPACE = "\u2581"
WORD = re.compile(r"[\u2e80-\U0010ffff]|[^\s\u2e80-\U0010ffff]+")


class UnsupportedTokenizerError(ValueError):
    """The tokenizer is not of a kind whose vocabulary can be cut without changing how it splits text."""


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    min_count: int = 1,
    extra_token_ids: Iterable[int] = (),
    all_characters: bool = False,
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """Cut a tokenizer down to the pieces that `sentences` use.

    With `min_count=1` every one of the sentences (after NFKC, which [`FlaProcessor`] applies) is split as before.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            A Unigram or BPE tokenizer of the `tokenizers` backend (MBart, MBart-50, T5/MT5, NLLB, BART, ...) or an
            M2M100 tokenizer. It is not changed.
        sentences (`Iterable[str]`):
            The training sentences; NFKC is applied to them here.
        min_count (`int`, *optional*, defaults to 1):
            Keep a piece only if the sentences use it at least so often. Above 1 rare words are split more finely.
        extra_token_ids (`Iterable[int]`, *optional*):
            Old ids to keep in any case, e.g. those that a model's configuration names.
        all_characters (`bool`, *optional*, defaults to `False`):
            Keep every piece of one letter in a script of the sentences. A Chinese corpus has only some of the
            characters that its next sentence may have.

    Returns:
        `tuple[PreTrainedTokenizerBase, list[int]]`: a tokenizer of the same class with the ids 0..V-1, and
        `kept_token_ids`, ascending: the old id of each new id. [`trim_token_embeddings`] takes the second.

    Raises:
        UnsupportedTokenizerError: if the tokenizer is of another kind.
        ValueError: if there is no text, or an argument is out of range.

    Example:
        ```python
        >>> full = train_tokenizer(["der regen kommt", "der wind dreht"], vocab_size=70)
        >>> trimmed, kept_token_ids = trim_tokenizer(full, ["der regen"])
        >>> trimmed.tokenize("der regen") == full.tokenize("der regen"), len(trimmed) == len(kept_token_ids)
        (True, True)

        ```
    """
    if min_count < 1:
        raise ValueError(f"`min_count` must be at least 1, got {min_count}.")
    texts = _normalized(sentences)
    if isinstance(tokenizer, M2M100Tokenizer):
        return _trim_m2m100(tokenizer, texts, min_count, set(extra_token_ids), all_characters)
    backend = _backend_description(tokenizer)
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    symbols = _symbols(tokenizer, texts)
    kept = {token["id"] for token in backend["added_tokens"]} | set(tokenizer.all_special_ids) | set(extra_token_ids)
    kept |= {piece for piece, count in count_pieces(tokenizer, texts).items() if count >= min_count}
    kept |= _character_ids(backend, vocabulary, symbols)
    kept |= _fallback_ids(backend["model"], vocabulary)
    if all_characters:
        kept |= _script_ids(vocabulary, symbols)
    if backend["model"]["type"] == "Unigram":
        kept |= _penalty_ids(backend["model"], symbols)
    else:
        kept |= _merge_part_ids(kept, backend["model"], vocabulary)

    kept_token_ids = _sorted_known(kept, {*vocabulary.values(), *(token["id"] for token in backend["added_tokens"])})
    cut = _cut_backend(backend, kept_token_ids)
    return _reload(tokenizer, "tokenizer.json", cut, kept_token_ids), kept_token_ids


def train_tokenizer(
    sentences: Iterable[str], vocab_size: int, language_codes: Sequence[str] = ("de_DE",)
) -> MBartTokenizer:
    """Train a small Unigram tokenizer that looks like MBart's: `X </s> <language code>`.

    The same sentences give the same tokenizer on every run. That is why SentencePiece learns the pieces: the scores of
    the `tokenizers` library's trainer differ from run to run.

    Args:
        sentences (`Iterable[str]`): the training sentences; NFKC is applied to them here.
        vocab_size (`int`):
            The largest length the tokenizer may have, with 4 special tokens, the language codes and the mask. A small
            corpus gives fewer pieces.
        language_codes (`Sequence[str]`, *optional*, defaults to `("de_DE",)`):
            The first is source and target language. MBart's 25 codes are always there (its class adds them); others
            come behind them.

    Returns:
        `MBartTokenizer`: specials, pieces by falling score, language codes, mask.

    Raises:
        ValueError: if there is no text or `vocab_size` cannot hold even its characters.
    """
    if not language_codes:
        raise ValueError("`language_codes` needs at least one code, e.g. ('de_DE',).")
    texts = _normalized(sentences)
    codes = [*FAIRSEQ_LANGUAGE_CODES, *(code for code in language_codes if code not in FAIRSEQ_LANGUAGE_CODES)]
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    num_pieces = vocab_size - len(specials) - len(codes) - 1  # 1: the mask
    # Every space becomes the metaspace, so it is one more character.
    num_characters = len(set("".join(texts)) - {" ", METASPACE}) + 1
    if num_pieces < num_characters:
        needed = vocab_size - num_pieces + num_characters
        raise ValueError(
            f"`vocab_size` must be at least {needed} for the characters of these sentences, got {vocab_size}."
        )

    pieces = _train_pieces(texts, num_pieces)
    reserved = {*specials, *codes, "<mask>"}
    vocab = [(token, 0.0) for token in specials]
    vocab += [(piece, score) for piece, score in pieces if piece not in reserved]
    vocab += [(code, 0.0) for code in codes] + [("<mask>", 0.0)]
    return MBartTokenizer(
        vocab=vocab,
        src_lang=language_codes[0],
        tgt_lang=language_codes[0],
        additional_special_tokens=codes[len(FAIRSEQ_LANGUAGE_CODES) :],
    )


def set_start_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, language: str | None = None) -> None:
    """Have generation start with the tokens that stand before the first word in training; it changes configurations.

    MBart's targets end with their language, which the model moves to the front. Those of mBART-50, NLLB and M2M-100
    begin with it: there generation starts from `</s>` and is forced to give the language first. T5's have a language
    only where tokens of several were added to the tokenizer; then `language` is the one to begin with.
    """
    target = tokenizer(text_target="")["input_ids"]  # MBart: </s> de_DE; mBART-50: de_DE </s>; T5: </s>
    if language is not None:
        target = in_language(tokenizer, target, language)
    if not target:
        return
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)  # NLLB's model has none
    if shift is not None:
        start = shift(torch.tensor([target]))[0, 0].item()
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = start
    forced = target[0] if len(target) > 1 and target[0] != tokenizer.eos_token_id else None
    model.generation_config.forced_bos_token_id = forced


def vocabulary_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest token id plus 1: the rows a model needs."""
    if isinstance(tokenizer, M2M100Tokenizer):  # its languages stand behind its vocabulary
        return tokenizer.encoder_size + len(tokenizer.lang_token_to_id)
    return max(tokenizer.get_vocab().values()) + 1


def count_pieces(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]) -> Counter:
    """How often each token id occurs in sentences (after NFKC), special tokens around them left out."""
    counts: Counter = Counter()
    for ids in _token_ids(tokenizer, sentences):
        counts.update(ids)
    return counts


def tokenized_differently(
    tokenizer: PreTrainedTokenizerBase, trimmed: PreTrainedTokenizerBase, sentences: Sequence[str]
) -> int:
    """How many of the sentences (after NFKC) two tokenizers split into different pieces."""
    pairs = zip(_token_ids(tokenizer, sentences), _token_ids(trimmed, sentences), strict=True)
    return sum(tokenizer.convert_ids_to_tokens(a) != trimmed.convert_ids_to_tokens(b) for a, b in pairs)


def unknown_words(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]) -> Counter:
    """The words of sentences (after NFKC) that give unknown tokens, with the number of those tokens.

    Chinese and Japanese characters, which no spaces separate, count as words.
    """
    words = Counter(word for sentence in sentences for word in words_of(sentence))
    ids = _token_ids(tokenizer, list(words))
    return +Counter({w: n * i.count(tokenizer.unk_token_id) for (w, n), i in zip(words.items(), ids, strict=True)})


def words_of(sentence: str) -> list[str]:
    """The words of a sentence after NFKC; Chinese and Japanese characters are words."""
    return WORD.findall(normalize_text(sentence))


def _backend_description(tokenizer: PreTrainedTokenizerBase) -> dict:
    """The tokenizer's `tokenizer.json`, if it is of a supported kind."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) if hasattr(tokenizer, "backend_tokenizer") else None
    if backend is None or backend["model"].get("type") not in SUPPORTED_MODELS:
        raise UnsupportedTokenizerError(
            f"{type(tokenizer).__name__} cannot be trimmed: supported are {' and '.join(SUPPORTED_MODELS)} of the "
            f"`tokenizers` backend."
        )
    return backend


def _normalized(sentences: Iterable[str]) -> list[str]:
    """The sentences after NFKC, without empty ones."""
    if isinstance(sentences, str):
        raise ValueError("`sentences` must be a list of sentences, got one string.")
    texts = [normalize_text(sentence).strip() for sentence in sentences]
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError("`sentences` holds no text.")
    return texts


def _token_ids(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]) -> list[list[int]]:
    """Token ids of each sentence after NFKC, uncut, without the special tokens around it."""
    if not sentences:
        return []
    texts = [normalize_text(sentence) for sentence in sentences]
    return tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False)["input_ids"]


def _sorted_known(ids: set[int], known: Iterable[int]) -> list[int]:
    if unknown := sorted(ids - set(known)):
        raise ValueError(f"`extra_token_ids` names ids that the tokenizer does not have: {unknown[:5]}.")
    return sorted(ids)


def _trim_m2m100(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], min_count: int, kept: set[int], all_characters: bool
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """Trim a tokenizer whose SentencePiece model splits text, and whose vocabulary only numbers the pieces.

    It does not fall back to characters: a piece that is not kept is unknown as a whole.
    """
    vocabulary, symbols = tokenizer.encoder, {METASPACE, *"".join(texts)}
    kept |= {index for index, count in count_pieces(tokenizer, texts).items() if count >= min_count}
    kept |= {vocabulary[str(token)] for token in tokenizer.all_special_tokens if str(token) in vocabulary}
    kept |= set(tokenizer.lang_token_to_id.values())
    kept |= {vocabulary[symbol] for symbol in symbols & vocabulary.keys()}
    if all_characters:
        kept |= _script_ids(vocabulary, symbols)
    kept_token_ids = _sorted_known(kept, range(vocabulary_length(tokenizer)))
    pieces = [tokenizer.decoder[index] for index in kept_token_ids if index in tokenizer.decoder]
    new_vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return _reload(tokenizer, "vocab.json", new_vocabulary, kept_token_ids), kept_token_ids


def _symbols(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> set[str]:
    """The characters as the model sees them: after the tokenizer's own normalizer and pre-tokenizer."""
    backend = tokenizer.backend_tokenizer
    symbols: set[str] = set()
    for text in texts:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [(text, None)] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(text)
        symbols.update(*(word for word, _ in words))
    return symbols


def _character_ids(backend: dict, vocabulary: dict[str, int], symbols: set[str]) -> set[int]:
    """Ids of the pieces of one of the characters, alone or with what marks the end of a word."""
    suffix = backend["model"].get("end_of_word_suffix") or ""
    if '"ByteLevel"' in json.dumps(backend.get("pre_tokenizer")):
        # Such a model has no unknown token, and drops a byte without a piece in silence.
        symbols = symbols | set(pre_tokenizers.ByteLevel.alphabet())
    pieces = symbols | {symbol + suffix for symbol in symbols}
    return {vocabulary[piece] for piece in pieces & vocabulary.keys()}


def _script_ids(vocabulary: dict[str, int], symbols: Iterable[str]) -> set[int]:
    """Ids of the pieces of one letter in a script that some of the characters are in."""
    scripts = {_script(symbol) for symbol in symbols if symbol.isalpha()}
    letters = {piece: index for piece, index in vocabulary.items() if len(piece) == 1 and piece.isalpha()}
    return {index for letter, index in letters.items() if _script(letter) in scripts}


def _script(letter: str) -> str:
    """The script of a letter, as its Unicode name begins: LATIN, CYRILLIC, CJK, HIRAGANA, ..."""
    return unicodedata.name(letter, "").partition(" ")[0]


def _fallback_ids(model: dict, vocabulary: dict[str, int]) -> set[int]:
    """The unknown token, and the 256 byte pieces of a model that falls back to them."""
    unknown = model.get("unk_id") if model["type"] == "Unigram" else vocabulary.get(model.get("unk_token"))
    ids = set() if unknown is None else {unknown}
    if model.get("byte_fallback"):
        ids |= {vocabulary[f"<0x{byte:02X}>"] for byte in range(256) if f"<0x{byte:02X}>" in vocabulary}
    return ids


def _penalty_ids(model: dict, symbols: set[str]) -> set[int]:
    """The piece with the lowest score, where a sentence has a character without a piece of its own.

    An unknown character costs that lowest score less a constant. Without the piece unknown characters would cost less,
    and a segmentation with one could then beat that of the full vocabulary.
    """
    pieces = {piece for piece, _ in model["vocab"]}
    scores = [score for _, score in model["vocab"]]
    return set() if symbols <= pieces else {scores.index(min(scores))}


def _merge_part_ids(kept: set[int], model: dict, vocabulary: dict[str, int]) -> set[int]:
    """Ids of every piece that BPE can pass through on its way to a kept piece."""
    parts: dict[str, set[str]] = {}
    for left, right in model["merges"]:
        parts.setdefault(left + right, set()).update((left, right))
    found: set[str] = set()
    waiting = [piece for piece, index in vocabulary.items() if index in kept]
    while waiting:
        new = parts.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return {vocabulary[piece] for piece in found if piece in vocabulary}


def _cut_backend(backend: dict, kept_token_ids: list[int]) -> dict:
    """The `tokenizer.json` that has only the kept ids, renumbered in old order."""
    new_ids = {old: new for new, old in enumerate(kept_token_ids)}
    model = dict(backend["model"])
    if model["type"] == "Unigram":
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new_ids]
        model["unk_id"] = new_ids.get(model.get("unk_id"))
    else:
        kept = {piece: new_ids[index] for piece, index in model["vocab"].items() if index in new_ids}
        model["vocab"] = kept
        model["merges"] = [(a, b) for a, b in model["merges"] if {a, b, a + b} <= kept.keys()]
    added = [{**token, "id": new_ids[token["id"]]} for token in backend["added_tokens"]]
    cut = {**backend, "model": model, "added_tokens": added, "truncation": None, "padding": None}
    cut["post_processor"] = _renumber_post_processor(backend.get("post_processor"), new_ids)
    return cut


def _renumber_post_processor(processor: dict | None, new_ids: dict[int, int]) -> dict | None:
    """A post-processor with new ids, in each of the forms that `tokenizers` writes them."""
    if processor is None:
        return None
    processor = dict(processor)
    if "processors" in processor:
        processor["processors"] = [_renumber_post_processor(part, new_ids) for part in processor["processors"]]
    if isinstance(processor.get("special_tokens"), dict):
        processor["special_tokens"] = {
            name: {**token, "ids": [new_ids[index] for index in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            processor[name] = [processor[name][0], new_ids[processor[name][1]]]
    return processor


def _reload(
    tokenizer: PreTrainedTokenizerBase, file: str, content: dict, kept_token_ids: list[int]
) -> PreTrainedTokenizerBase:
    """A tokenizer of the same class with one file edited; saved and loaded again it is the same."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / file).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        config_file = Path(folder) / "tokenizer_config.json"
        config = json.loads(config_file.read_text(encoding="utf-8"))
        if "added_tokens_decoder" in config:
            new_ids = {str(old): str(new) for new, old in enumerate(kept_token_ids)}
            config["added_tokens_decoder"] = {new_ids[i]: token for i, token in config["added_tokens_decoder"].items()}
        # A language set after loading is an attribute, which is not saved.
        for name in ("src_lang", "tgt_lang"):
            if getattr(tokenizer, name, None) is not None:
                config[name] = getattr(tokenizer, name)
        config_file.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        trimmed = type(tokenizer).from_pretrained(folder)
    if hasattr(tokenizer, "spm_file"):  # the folder is gone; the SentencePiece model is the old one
        trimmed.spm_file = tokenizer.spm_file
    trimmed.name_or_path = trimmed.init_kwargs["name_or_path"] = tokenizer.name_or_path
    return trimmed


def _train_pieces(texts: list[str], num_pieces: int) -> list[tuple[str, float]]:
    """Unigram pieces with their log probabilities, by falling score."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=num_pieces + 1,  # 1: SentencePiece's own <unk>
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        max_sentence_length=1 << 20,  # bytes; a longer sentence would be skipped
        num_threads=1,
        minloglevel=2,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(processor.id_to_piece(index), processor.get_score(index)) for index in range(1, len(processor))]
