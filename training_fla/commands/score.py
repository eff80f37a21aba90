"""BLEU-1..4, ROUGE-L and chrF of a predictions file, by the conventions of the literature.

The file is tab-separated (or .csv) with the columns `prediction` and `reference` and, optionally, `id`. Several files
are the seeds of one system: mean and deviation are printed.
"""

import json
import sys
from pathlib import Path

from training_fla.files import InputError

EXAMPLE = "fla score runs/stage2/predictions_test.tsv --corpus phoenix14t --html report.html"


def add_arguments(parser) -> None:
    """Declare the options of `fla score`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="predictions; several are seeds")
    parser.add_argument(
        "--corpus",
        required=True,
        metavar="NAME",
        help="phoenix14t, csl_daily, how2sign, demo; for an own corpus words, characters, or auto (by script)",
    )
    parser.add_argument("--against", type=Path, metavar="OTHER", help="test the difference to these predictions")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--sentences", type=Path, metavar="OUT.tsv", help="write a score per sentence, worst first")
    parser.add_argument("--html", type=Path, metavar="OUT.html", help="write a page that shows every sentence")
    parser.add_argument("--rouge", default="beta1.2", metavar="VARIANT", help="which F `rouge_l` is (default beta1.2)")
    parser.add_argument(
        "--references",
        choices=("raw", "decoded"),
        default="raw",
        help="`decoded` passes references through --tokenizer, which hides unknown words: only to explain old numbers",
    )
    parser.add_argument("--tokenizer", metavar="ID_OR_DIR", help="the tokenizer of `--references decoded`")
    parser.add_argument(
        "--samples", type=int, default=1000, help="bootstrap samples; 0 for no intervals (default 1000)"
    )
    parser.add_argument("--seed", type=int, default=12345, help="of the bootstrap (default 12345)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")


def run(args) -> int:
    """Score the files and print the result."""
    check_arguments(args)
    from training_fla.scoring.predictions import pair_up, read_predictions

    tables = [read_predictions(file) for file in args.files]
    tables[1:] = [pair_up(tables[0], table) for table in tables[1:]]
    other = pair_up(tables[0], read_predictions(args.against)) if args.against else None
    if args.references == "decoded":
        decoded = decode_references(tables[0].references, args.tokenizer)
        for table in (*tables, *([other] if other else [])):
            table.references = decoded
    report = score_tables(tables, other, args)
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print_report(report)
    return 0


def check_arguments(args) -> None:
    """Refuse options that contradict each other, before any work.

    Args:
        args (`argparse.Namespace`): the options.

    Raises:
        InputError: naming the option.
    """
    from training_fla.scoring.conventions import CORPUS_CONVENTIONS
    from training_fla.scoring.rouge import ROUGE_VARIANTS

    if args.corpus not in (*CORPUS_CONVENTIONS, "auto"):
        raise InputError(f"--corpus {args.corpus}: unknown; known are {', '.join(CORPUS_CONVENTIONS)} and auto")
    if args.rouge not in ROUGE_VARIANTS:
        raise InputError(f"--rouge {args.rouge}: unknown; known are {', '.join(ROUGE_VARIANTS)}")
    if args.references == "decoded" and not args.tokenizer:
        raise InputError("--references decoded needs --tokenizer, the one whose unknown words the old numbers hid")
    if args.samples < 0:
        raise InputError(f"--samples {args.samples}: must be 0 or more")
    if len(args.files) > 1 and (args.sentences or args.html or args.against):
        raise InputError("--against, --sentences and --html take one FILE; several files are seeds of one system")
    for path in (args.sentences, args.html):
        if path and path.exists() and not args.overwrite:
            raise InputError(f"{path} exists already: choose another name or pass --overwrite")


def score_tables(tables: list, other, args) -> dict:
    """Everything `fla score` prints, and the files it writes.

    Args:
        tables (`list[PredictionFile]`): the system's files, one for each seed.
        other (`PredictionFile` or `None`): the predictions to compare with.
        args (`argparse.Namespace`): the command line.

    Returns:
        `dict`: the object of `--json`.
    """
    from training_fla.scoring.conventions import (
        CONVENTIONS,
        alternative_scores,
        convention_for,
        corpus_scores,
        sentence_statistics,
        signature_of,
    )
    from training_fla.scoring.significance import bootstrap_intervals, paired_significance, pooled

    references = tables[0].references
    convention = convention_for(args.corpus, references)
    form = CONVENTIONS[convention]
    statistics = [sentence_statistics(t.predictions, t.references, form, args.rouge) for t in tables]
    scores = [corpus_scores(s) for s in statistics]
    seeds = pooled(scores) if len(tables) > 1 else None
    report = {name: seeds[name]["mean"] for name in seeds} if seeds else dict(scores[0])
    report |= {
        "signature": signature_of(form, args.rouge, args.references),
        "num_sentences": len(references),
        "convention": convention,
        "references": args.references,
        "prediction_length": sum(int(s.bleu[:, 0].sum()) for s in statistics) / len(tables),
        "reference_length": int(statistics[0].bleu[:, 1].sum()),
        "files": [str(table.path) for table in tables],
    }
    if seeds:
        report["deviation"] = {name: seeds[name]["deviation"] for name in seeds}
        report["seeds"] = scores
    elif args.samples:
        report["confidence_intervals"] = bootstrap_intervals(statistics[0], args.samples, args.seed)
    if other:
        against = sentence_statistics(other.predictions, other.references, form, args.rouge)
        report["against"] = {
            "file": str(other.path),
            **corpus_scores(against),
            "significance": paired_significance(statistics[0], against, max(args.samples, 1), args.seed),
        }
    report["alternatives"] = mean_alternatives(
        [alternative_scores(table.predictions, references, convention) for table in tables]
    )
    if args.sentences or args.html:
        write_sentences(tables[0], statistics[0], form, report, args)
    return report


def mean_alternatives(found: list[dict]) -> dict:
    """The alternatives of one file, or their mean over several.

    Args:
        found (`list[dict]`): one a file.

    Returns:
        `dict`: of the same kind.
    """
    if len(found) == 1:
        return found[0]
    return {name: mean_alternatives_entry([alternatives[name] for alternatives in found]) for name in found[0]}


def mean_alternatives_entry(entries: list):
    """The mean of figures, or of dictionaries of figures with their (equal) signatures.

    Args:
        entries (`list`): of the same kind, one a seed.

    Returns:
        `float`, `str` or `dict`: of that kind.
    """
    if isinstance(entries[0], dict):
        return {name: mean_alternatives_entry([entry[name] for entry in entries]) for name in entries[0]}
    return entries[0] if isinstance(entries[0], str) else sum(entries) / len(entries)


def write_sentences(table, statistics, form, report: dict, args) -> None:
    """Write `--sentences` and `--html`.

    Args:
        table ([`~training_fla.scoring.predictions.PredictionFile`]): what was scored.
        statistics ([`~training_fla.scoring.conventions.SentenceStatistics`]): of its sentences.
        form ([`~training_fla.scoring.conventions.TextForm`]): how they were split.
        report (`dict`): the scores.
        args (`argparse.Namespace`): the options.
    """
    from training_fla.scoring.report import scored_sentences, write_html, write_sentence_table

    scored = scored_sentences(table, statistics, form)
    if args.sentences:
        write_sentence_table(scored, args.sentences, args.overwrite)
    if args.html:
        write_html(scored, report | {"title": f"{table.path.name} ({args.corpus})"}, args.html, args.overwrite)


def decode_references(references: list[str], tokenizer_name: str) -> list[str]:
    """The references as older evaluations saw them: encoded and decoded again, unknown words gone.

    Args:
        references (`list[str]`): raw.
        tokenizer_name (`str`): folder or Hub id.

    Returns:
        `list[str]`: as many.

    Raises:
        InputError: if the tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    except (OSError, ValueError) as error:
        raise InputError(f"--tokenizer {tokenizer_name}: {str(error).splitlines()[0]}") from error
    ids = tokenizer(text_target=list(references))["input_ids"]
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=True)
    changed = sum(a.split() != b.split() for a, b in zip(references, decoded, strict=True))
    print(
        f"note: scored against references decoded from label ids, {changed} of {len(references)} differ from the raw "
        "ones. This explains old numbers; it is not comparable with scores against raw references.",
        file=sys.stderr,
    )
    return decoded


def print_report(report: dict) -> None:
    """Print the report as tables.

    Args:
        report (`dict`): the scores.
    """
    from training_fla.scoring.conventions import SCORE_NAMES

    print(f"{', '.join(report['files'])}: {report['num_sentences']} sentences, convention {report['convention']}")
    for name in SCORE_NAMES:
        line = f"  {name:<8} {report[name]:6.2f}"
        if "confidence_intervals" in report:
            low, high = report["confidence_intervals"][name]
            line += f"   95 % interval {low:.2f} to {high:.2f}"
        if "deviation" in report:
            line += f"   deviation {report['deviation'][name]:.2f} over {len(report['seeds'])} seeds"
        print(line)
    print(f"  lengths  {report['prediction_length']:.0f} predicted, {report['reference_length']} in the references")
    print(f"  {report['signature']}")
    if "against" in report:
        print(f"against {report['against']['file']}")
        for name, test in report["against"]["significance"].items():
            low, high = test["interval"]
            print(
                f"  {name:<8} {report['against'][name]:6.2f}   difference {test['difference']:+.2f} "
                f"({low:+.2f} to {high:+.2f}), p = {test['p_value']:.4f}"
            )
    print("other conventions")
    for name, value in report["alternatives"].items():
        if isinstance(value, dict):
            value = "  ".join(f"{key} {figure:.2f}" for key, figure in value.items() if key != "signature")
        else:
            value = f"{value:.2f}"
        print(f"  {name:<18} {value}")
