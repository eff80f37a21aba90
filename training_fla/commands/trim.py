"""Cut a language model and its tokenizer down to the words a corpus uses.

Kept are the pieces that the sentences use, every single character of them, special tokens, language codes and the
mask. The result loads with AutoModelForSeq2SeqLM and AutoTokenizer; trim_report.json beside it says what was kept.
"""

import json
from pathlib import Path

from training_fla.files import InputError, first_line

EXAMPLE = (
    "fla trim --model facebook/mbart-large-cc25 --sentences packed/train.sentences.txt --dev packed/dev.sentences.txt "
    "--language de_DE --out models/mbart-phoenix14t"
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def add_arguments(parser) -> None:
    """Declare the options of `fla trim`."""
    parser.add_argument("--model", required=True, metavar="ID_OR_DIR", help="an encoder-decoder language model")
    parser.add_argument("--tokenizer", metavar="ID_OR_DIR", help="its tokenizer, where it is not with the model")
    parser.add_argument(
        "--sentences", required=True, nargs="+", type=Path, metavar="FILE", help="training sentences, one a line"
    )
    parser.add_argument("--column", help="the sentence files are tables (tab, | or comma): take this column")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--min-count", type=int, default=1, metavar="N", help="keep pieces used N times (default 1)")
    parser.add_argument(
        "--keep-characters",
        choices=("train", "all"),
        default="train",
        help="single characters to keep: those of the sentences (default), or all of the vocabulary",
    )
    parser.add_argument(
        "--language", metavar="CODE", help="target language, e.g. de_DE; generation then starts with it"
    )
    parser.add_argument("--dev", type=Path, metavar="FILE", help="report the unknown words of these sentences")
    parser.add_argument("--test", type=Path, metavar="FILE", help="report the unknown words of these sentences")
    parser.add_argument("--check", nargs="+", type=Path, default=[], metavar="FILE", help="the same for other files")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report (JSON) here as well")
    parser.add_argument(
        "--allow-unused-rows", action="store_true", help="the model may have more rows than the tokenizer has tokens"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing folder")


def run(args) -> int:
    """Trim and print the report."""
    from training_fla.files import atomic_file, atomic_folder, check_folder
    from training_fla.tables import read_sentences

    check_folder(args.out, "model", args.overwrite)
    sentences = read_sentences(args.sentences, args.column)
    named = {"dev": args.dev, "test": args.test, **{str(file): file for file in args.check}}
    checks = {name: read_sentences([file], args.column) for name, file in named.items() if file}

    from processing_fla.tokenization_fla import vocabulary_length
    from training_fla.training.checkpoint_trimming import (
        check_vocabulary_sizes,
        named_token_ids,
        read_config,
        trim_checkpoint,
    )

    folder = find_model(args.model)
    config = read_config(folder)
    tokenizer = load_tokenizer(args.tokenizer or args.model, folder)
    if args.language:
        set_language(tokenizer, args.language)
    check_vocabulary_sizes(vocabulary_length(tokenizer), config, args.allow_unused_rows)
    trimmed, kept_token_ids = trim(tokenizer, sentences, args, named_token_ids(folder))
    with atomic_folder(args.out, "model", args.overwrite) as out:
        size = trim_checkpoint(folder, kept_token_ids, out, progress=True)
        trimmed.save_pretrained(out)
        if args.language:
            start_with_language(out, trimmed, args.language)
        (out / "kept_token_ids.json").write_text(json.dumps(kept_token_ids) + "\n")
        report = {"model": args.model, **make_report(tokenizer, trimmed, sentences, checks, size)}
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (out / "trim_report.json").write_text(text, encoding="utf-8")
    if args.report:
        with atomic_file(args.report, overwrite=True) as file:
            file.write_text(text, encoding="utf-8")
    print_report(report, args.out)
    return 0


def find_model(name: str) -> Path:
    """The folder with a model's files: the one given, or the Hub's cache.

    Args:
        name (`str`): folder or Hub id.

    Returns:
        `Path`: of a folder.

    Raises:
        InputError: if there is no such folder and no such model.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub.utils import HFValidationError
    from transformers.utils import cached_file

    try:
        config = cached_file(name, "config.json")
        cached_file(name, "generation_config.json", _raise_exceptions_for_missing_entries=False)
        for file in WEIGHTS:
            found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
            if found and file.endswith(".index.json"):
                shards = set(json.loads(Path(found).read_text())["weight_map"].values())
                for shard in sorted(shards):
                    cached_file(name, shard)
            if found:
                break
    except (OSError, HFValidationError) as error:
        raise InputError(f"--model {name}: no such folder, and {first_line(error)}") from error
    return Path(config).parent


def load_tokenizer(name: str, model_folder: Path):
    """The tokenizer; a folder with nothing but a vocabulary file takes its class from the model's configuration.

    Args:
        name (`str`): folder or Hub id.
        model_folder (`Path`): with the model's config.json.

    Returns:
        [`~transformers.PreTrainedTokenizerBase`]: whole.

    Raises:
        InputError: if it cannot be loaded.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(name)
    bare = folder.is_dir() and not any((folder / f).is_file() for f in ("tokenizer_config.json", "config.json"))
    try:
        kwargs = {"config": AutoConfig.from_pretrained(model_folder)} if bare else {}
        return AutoTokenizer.from_pretrained(name, **kwargs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no tokenizer in {name}: {first_line(error)}") from error


def set_language(tokenizer, code: str) -> None:
    """Make a language the tokenizer's source and target.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        code (`str`): e.g. `de_DE`.

    Raises:
        InputError: if the tokenizer has no languages, or not this one.
    """
    if not hasattr(tokenizer, "tgt_lang"):
        raise InputError(f"--language {code}: {type(tokenizer).__name__} has no languages")
    if code not in tokenizer.get_vocab():
        raise InputError(f"--language {code}: the tokenizer has no such language code")
    tokenizer.src_lang = tokenizer.tgt_lang = code


def trim(tokenizer, sentences: list[str], args, extra_token_ids: set[int]):
    """[`trim_tokenizer`] with its errors as one line.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        sentences (`list[str]`): of training.
        args (`argparse.Namespace`): `min_count` and `keep_characters`.
        extra_token_ids (`set[int]`): kept in any case.

    Returns:
        `tuple`: the smaller tokenizer and the ids kept.

    Raises:
        InputError: the tokenizer cannot be trimmed.
    """
    from processing_fla import trim_tokenizer

    try:
        return trim_tokenizer(tokenizer, sentences, args.min_count, args.keep_characters, extra_token_ids)
    except ValueError as error:
        raise InputError(str(error)) from error


def start_with_language(folder: Path, tokenizer, code: str) -> None:
    """Have generation start in the language: in the configuration files, by the model's own custom.

    MBart starts from the language code itself; models whose targets begin with it (mBART-50, NLLB) start from `</s>`
    and are forced to give the code first.

    Args:
        folder (`Path`): of the trimmed model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the trimmed one.
        code (`str`): e.g. `de_DE`.
    """
    field = "forced_bos_token_id" if tokenizer.prefix_tokens else "decoder_start_token_id"
    for file in (folder / "config.json", folder / "generation_config.json"):
        if file.is_file():
            config = json.loads(file.read_text(encoding="utf-8")) | {field: tokenizer.convert_tokens_to_ids(code)}
            file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make_report(tokenizer, trimmed, sentences: list[str], checks: dict[str, list[str]], size) -> dict:
    """What was kept, what was saved, and which words of the other files the trimmed tokenizer does not know.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        trimmed ([`~transformers.PreTrainedTokenizerBase`]): the smaller one.
        sentences (`list[str]`): of training.
        checks (`dict[str, list[str]]`): sentences of other files, by name.
        size ([`~training_fla.training.checkpoint_trimming.TrimmedSize`]): parameters and bytes before and after.

    Returns:
        `dict`: `trim_report.json`.
    """
    from processing_fla.tokenization_fla import count_pieces, tokenized_differently, unknown_words

    report = {
        "sentences": len(sentences),
        "sentences_tokenized_differently": tokenized_differently(tokenizer, trimmed, sentences),
        "pieces_before": len(tokenizer),
        "pieces_kept": len(trimmed),
        "share_kept": len(trimmed) / len(tokenizer),
        "parameters_before": size.parameters_before,
        "parameters_after": size.parameters_after,
        "parameters_saved": size.parameters_before - size.parameters_after,
        "bytes_before": size.bytes_before,
        "bytes_after": size.bytes_after,
        "bytes_saved": size.bytes_before - size.bytes_after,
        "checks": {},
    }
    for name, texts in checks.items():
        words = unknown_words(trimmed, texts)
        report["checks"][name] = {
            "sentences": len(texts),
            "tokens": sum(count_pieces(trimmed, texts).values()),
            "unknown_tokens": sum(words.values()),
            "unknown_tokens_before": sum(unknown_words(tokenizer, texts).values()),
            "unknown_words": dict(words.most_common()),
        }
    return report


def print_report(report: dict, out: Path) -> None:
    """Print the report in words.

    Args:
        report (`dict`): `trim_report.json`.
        out (`Path`): where the model went.
    """
    print(
        f"kept {report['pieces_kept']} of {report['pieces_before']} pieces ({report['share_kept']:.2%}); "
        f"{report['sentences_tokenized_differently']} of {report['sentences']} sentences are split differently"
    )
    print(
        f"saved {report['parameters_saved'] / 1e6:.1f} of {report['parameters_before'] / 1e6:.1f} M parameters, "
        f"{report['bytes_saved'] / 2**20:.0f} of {report['bytes_before'] / 2**20:.0f} MiB"
    )
    for name, check in report["checks"].items():
        words = ", ".join(f"{word} ({count})" for word, count in list(check["unknown_words"].items())[:20])
        print(
            f"{name}: {check['unknown_tokens']} unknown of {check['tokens']} tokens in {check['sentences']} sentences "
            f"({check['unknown_tokens_before']} before trimming){': ' + words if words else ''}"
        )
    print(f"written to {out}")
