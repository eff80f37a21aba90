"""Cut a language model and its tokenizer down to the words a corpus uses.

It keeps the pieces that the sentences use, all their single characters, special tokens, language codes and the mask.
The result loads with AutoModelForSeq2SeqLM and AutoTokenizer; trim_report.json beside it says what was kept.
"""

import json
import shlex
from pathlib import Path

from training_fla.console import Done, note, size_text
from training_fla.errors import InputError

EXAMPLE = (
    "fla trim --model facebook/mbart-large-cc25 --sentences packed/train.sentences.txt --dev packed/dev.sentences.txt "
    "--language de_DE --out models/mbart-phoenix14t"
)
CONFIGURATIONS = ("tokenizer_config", "config")
# M2M-100 and NLLB end with "made-up words" that their tokenizers do not have.
MADE_UP_WORDS = {"m2m_100": 8, "nllb-moe": 8}


def add_arguments(parser) -> None:
    """Declare the options of `fla trim`."""
    add = parser.add_argument
    add("--model", required=True, metavar="ID_OR_DIR", help="an encoder-decoder language model")
    add("--tokenizer", metavar="ID_OR_DIR", help="its tokenizer, where it is not with the model")
    text = "training text, one sentence a line; several files count together"
    add("--sentences", required=True, nargs="+", action="extend", type=Path, metavar="FILE", help=text)
    add("--column", help="the sentence files are tables: take this column")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    add("--min-count", type=int, default=1, metavar="N", help="keep pieces used N times (default 1)")
    text = "keep every letter that the tokenizer knows of the scripts of the sentences, e.g. all Chinese characters"
    add("--all-characters", action="store_true", help=text)
    text = "target language, e.g. de_DE; generation then starts with it. Of several that with the first"
    add("--language", nargs="+", default=[], metavar="CODE", help=text)
    add("--dev", type=Path, metavar="FILE", help="report the unknown words of these sentences")
    add("--test", type=Path, metavar="FILE", help="report the unknown words of these sentences")
    add("--check", nargs="+", type=Path, default=[], metavar="FILE", help="the same for other files")
    add("--allow-unused-rows", action="store_true", help="the model may have more rows than the tokenizer has tokens")
    add("--overwrite", action="store_true", help="replace a model that fla wrote")


def run(args) -> Done:
    """Trim and print the report."""
    from training_fla.folders import atomic_folder, check_folder, check_not_inside
    from training_fla.tables import read_sentences

    named = {"dev": args.dev, "test": args.test, **{str(file): file for file in args.check}}
    named = {name: file for name, file in named.items() if file}
    check_folder(args.out, "model", args.overwrite)
    check_not_inside([args.model, args.tokenizer, *args.sentences, *named.values()], args.out)
    sentences = read_sentences(args.sentences, args.column)
    checks = {name: read_sentences([file], args.column) for name, file in named.items()}

    note(f"loading {args.model}")
    model, tokenizer = load(args)
    report = {"model": args.model, "sentences": len(sentences), **size_of(model, "before")}
    note(f"trimming {size_text(report['bytes_before'])} to the pieces of {len(sentences):,} sentences")
    trimmed, kept_token_ids = trim(model, tokenizer, sentences, args)
    report |= size_of(model, "after") | compared(tokenizer, trimmed, sentences, checks)
    with atomic_folder(args.out, "model", args.overwrite) as out:
        model.save_pretrained(out)
        trimmed.save_pretrained(out)
        (out / "kept_token_ids.json").write_text(json.dumps(kept_token_ids) + "\n")
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (out / "trim_report.json").write_text(text, encoding="utf-8")
    print_report(report)
    size = f"{report['parameters_after'] / 1e6:.1f} M parameters, {size_text(report['bytes_after'])}"
    return Done(f"{args.out}: {size}", next_command(args))


def trim_command(corpus: Path, language: str, name: str) -> str:
    """The command that trims MBart to a packed corpus."""
    words = ["fla", "trim", "--model", "facebook/mbart-large-cc25", "--sentences", f"{corpus}/train.sentences.txt"]
    words += ["--language", language] if language else []
    words += ["--all-characters"] if language.startswith("zh") else []  # as recipes/csl_daily/stage1.yaml
    return shlex.join([*words, "--out", f"models/{name}"])


def next_command(args) -> str:
    """What takes the model: stage 1 of the corpus that the sentences are of, or stage 2 of features."""
    from training_fla.data.packed_corpus import MANIFEST, read_packed_manifest

    folders = [file.parent for file in args.sentences if (file.parent / MANIFEST).is_file()]
    manifest = read_packed_manifest(folders[0]) if folders else {}
    corpus = ["--dataset", folders[0]] if folders else []
    if len(folders) > 1:
        corpus = ["--dataset", json.dumps([str(folder) for folder in folders])]
    language = ["--language_code", args.language[0]] if args.language else []
    if "feature_size" in manifest.get("parameters", {}):
        words = ["run_stage2.py", "recipes/features/stage2.yaml", *corpus, "--language_model", args.out, *language]
    elif len(folders) < 2 and (recipe := Path(f"recipes/{manifest.get('corpus')}/stage1.yaml")).is_file():
        words = ["run_stage1.py", recipe, *corpus, "--tokenizer", args.out, *language]
    else:
        words = ["run_stage1.py", "recipes/own_clips/stage1.yaml", *corpus, "--tokenizer", args.out]
        words += ["--train_tokenizer_pieces", "null", *(language or ["--language_code", "null"])]
    return shlex.join(map(str, ["python", *words]))


def load(args):
    """The model, its weights of the type they are stored in, and its tokenizer, set to the language."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    from processing_fla.tokenization_fla import vocabulary_length
    from training_fla.loading import loading
    from training_fla.training.parts import set_language

    with loading(args.model, "a language model"):
        config = AutoConfig.from_pretrained(args.model)
    if config.model_type == "fla_llm":
        raise InputError(f"--model {args.model} is a translation model: trim its language model before training")
    source = args.tokenizer or args.model
    # A folder with a vocabulary file alone does not say which class reads it.
    bare = Path(source).is_dir() and not any((Path(source) / f"{name}.json").is_file() for name in CONFIGURATIONS)
    with loading(source, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, **({"config": config} if bare else {}))
    if has_languages(tokenizer) or len(args.language) == 1:
        for code in reversed(args.language):  # the first is the last to be set
            set_language(tokenizer, code, "--language")
    with loading(args.model, "a language model"):
        model = AutoModelForSeq2SeqLM.from_pretrained(args.model, dtype="auto")
    rows = model.get_input_embeddings().weight.shape[0]
    check_vocabulary_sizes(vocabulary_length(tokenizer), rows, config.model_type, args.allow_unused_rows)
    return model, tokenizer


def check_vocabulary_sizes(num_tokens: int, rows: int, model_type: str, allow_unused_rows: bool = False) -> None:
    """Refuse a model and a tokenizer of different vocabularies; rows that only pad the model's are allowed."""
    unused = rows - num_tokens
    padded = rows % 64 == 0 and unused < 128 and unused <= rows // 100  # T5's and MT5's are
    made_up = unused <= MADE_UP_WORDS.get(model_type, 0)
    if unused < 0 or not (padded or made_up or allow_unused_rows):
        remedy = "; pass --allow-unused-rows if the rows behind the tokenizer's are padding" if unused > 0 else ""
        raise InputError(f"the model has {rows} token embeddings and the tokenizer has {num_tokens} tokens{remedy}")


def trim(model, tokenizer, sentences: list[str], args):
    """Trim the model in place; return the smaller tokenizer and the ids kept."""
    from modeling_fla import trim_token_embeddings
    from processing_fla.tokenization_fla import set_start_tokens, trim_tokenizer

    named = set()  # tokens that the configurations need, such as `decoder_start_token_id`
    for config in (model.config, model.generation_config):
        for name, value in config.to_dict().items():
            if name.endswith("_token_id") and value is not None:
                named |= set(value) if isinstance(value, list) else {value}
    try:
        trimmed, kept = trim_tokenizer(tokenizer, sentences, args.min_count, named, args.all_characters)
        trim_token_embeddings(model, kept)
    except ValueError as error:
        raise InputError(str(error)) from error
    if len(args.language) > 1 and not has_languages(tokenizer):
        add_languages(model, trimmed, args.language)
        set_start_tokens(model, trimmed, args.language[0])
    elif args.language:
        set_start_tokens(model, trimmed)
    return trimmed, kept


def has_languages(tokenizer) -> bool:
    """Whether a tokenizer has a token for each language, as MBart's, and not T5's."""
    return hasattr(tokenizer, "tgt_lang")


def add_languages(model, tokenizer, codes: list[str]) -> None:
    """Give a tokenizer without languages a token for each, and the model a row of embeddings for it.

    The rows are drawn as far from each other as those of words are, always the same.
    """
    import torch

    tokenizer.add_special_tokens({"extra_special_tokens": codes}, replace_extra_special_tokens=False)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            words = table.weight[: -len(codes)]
            noise = torch.randn(len(codes), words.shape[1], generator=generator).to(words)
            table.weight[-len(codes) :] = words.mean(0) + noise * words.std(0)


def size_of(model, when: str) -> dict[str, int]:
    """Parameters and bytes of a model, as lines of the report."""
    return {f"parameters_{when}": model.num_parameters(), f"bytes_{when}": model.get_memory_footprint()}


def compared(tokenizer, trimmed, sentences: list[str], checks: dict[str, list[str]]) -> dict:
    """What the smaller tokenizer keeps, and the words of other files that it does not know."""
    from processing_fla.tokenization_fla import count_pieces, tokenized_differently, unknown_words

    report = {
        "sentences_tokenized_differently": tokenized_differently(tokenizer, trimmed, sentences),
        "pieces_before": len(tokenizer),
        "pieces_kept": len(trimmed),
        "share_kept": len(trimmed) / len(tokenizer),
        "checks": {},
    }
    for name, texts in checks.items():
        pieces, pieces_before = count_pieces(trimmed, texts), count_pieces(tokenizer, texts)
        report["checks"][name] = {
            "sentences": len(texts),
            "sentences_tokenized_differently": tokenized_differently(tokenizer, trimmed, texts),
            "tokens": pieces.total(),
            "unknown_tokens": pieces[trimmed.unk_token_id],
            "unknown_tokens_before": pieces_before[tokenizer.unk_token_id],
            "unknown_words": dict(unknown_words(trimmed, texts).most_common()),
        }
    return report


def print_report(report: dict) -> None:
    """Print the report in words."""
    print(
        f"kept {report['pieces_kept']:,} of {report['pieces_before']:,} pieces ({report['share_kept']:.2%}); "
        f"{report['sentences_tokenized_differently']} of {report['sentences']:,} sentences are split differently"
    )
    print(
        f"it has {report['parameters_after'] / 1e6:.1f} of {report['parameters_before'] / 1e6:.1f} M parameters, "
        f"{size_text(report['bytes_after'])} of {size_text(report['bytes_before'])}"
    )
    for name, check in report["checks"].items():
        words = ", ".join(f"{word} ({count})" for word, count in list(check["unknown_words"].items())[:20])
        print(
            f"{name}: {check['unknown_tokens']} unknown of {check['tokens']} tokens in {check['sentences']} sentences "
            f"({check['unknown_tokens_before']} before trimming), {check['sentences_tokenized_differently']} "
            f"of the sentences are split differently{': ' + words if words else ''}"
        )
