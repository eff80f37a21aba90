"""BLEU-1..4, ROUGE-L and chrF of a predictions file, by the conventions of the literature.

The file is tab-separated (or .csv) with the columns `prediction` and `reference` and, optionally, `id`. Several files
are the seeds of one system: mean and deviation are printed. --against takes as many: interval and p are over clips and
seeds then. The difference comes with its interval first and p second, also by Holm over the scores.
"""

import json
import statistics
from pathlib import Path

from training_fla.console import Done, counted
from training_fla.errors import InputError
from training_fla.folders import check_file
from training_fla.tables import p_text

EXAMPLE = "fla score runs/stage2/predictions_test.tsv --corpus phoenix14t --html report.html"


def add_arguments(parser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="predictions; several are seeds")
    text = (
        "phoenix14t, csl_daily, how2sign, demo, demo_chinese; for an own corpus words, characters, or auto (by script)"
    )
    add("--corpus", required=True, metavar="NAME", help=text)
    text = "test the difference to these predictions, as many OTHER as FILE"
    add("--against", type=Path, nargs="+", default=[], metavar="OTHER", help=text)
    text = "of --against: are the systems equivalent, their difference smaller than so many points"
    add("--margin", type=float, metavar="POINTS", help=text)
    add("--json", action="store_true", help="print one JSON object instead of a table")
    add("--sentences", type=Path, metavar="OUT.tsv", help="write a score per sentence, worst first")
    add("--html", type=Path, metavar="OUT.html", help="write a page that shows every sentence")
    add("--rouge", default="beta1.2", metavar="VARIANT", help="which F `rouge_l` is [%(default)s]")
    add("--samples", type=int, help="draws of clips for intervals and tests; 0 for neither [1000]")
    add("--overwrite", action="store_true", help="replace existing output files")


def run(args) -> Done:
    """Score the files and print the result."""
    check_arguments(args)
    from training_fla.scoring.predictions import pair_up, read_predictions

    tables = [read_predictions(file) for file in args.files]
    tables[1:] = [pair_up(tables[0], table) for table in tables[1:]]
    others = [pair_up(tables[0], read_predictions(file)) for file in args.against]
    report = score_tables(tables, others, args)
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print_report(report)
    written = [f"wrote {file}" for file in (args.sentences, args.html) if file]
    look = "" if written or len(args.files) > 1 else "the same command with --html FILE.html shows each sentence"
    return Done(", ".join([f"scored {counted(report['num_sentences'], 'sentence')}", *written]), look)


def check_arguments(args) -> None:
    """Refuse options that contradict each other, before any work."""
    from training_fla.corpora.registry import CORPORA
    from training_fla.scoring.conventions import CONVENTIONS
    from training_fla.scoring.rouge import ROUGE_VARIANTS

    known = dict.fromkeys((*CORPORA, *CONVENTIONS, "auto"))
    if args.corpus not in known:
        raise InputError(f"--corpus {args.corpus}: unknown; known are {', '.join(known)}")
    if args.rouge not in ROUGE_VARIANTS:
        raise InputError(f"--rouge {args.rouge}: unknown; known are {', '.join(ROUGE_VARIANTS)}")
    if args.samples is not None and args.samples < 0:
        raise InputError(f"--samples {args.samples}: must be 0 or more")
    if len(args.files) > 1 and (args.sentences or args.html):
        raise InputError("--sentences and --html take one FILE; several files are seeds of one system")
    if args.against and len(args.against) != len(args.files):
        numbers = f"{len(args.files)} FILE and {len(args.against)} OTHER"
        raise InputError(f"--against takes as many OTHER as there are FILE; given are {numbers}")
    sources = [path.resolve() for path in (*args.files, *args.against)]
    if args.margin is not None and not (args.against and args.margin > 0):
        raise InputError(f"--margin {args.margin:g}: must be above 0, and needs --against")
    if args.samples == 0 and args.against:
        raise InputError("--samples 0 draws nothing, and --against needs draws: give one of them")
    if args.sentences and args.html and args.sentences.resolve() == args.html.resolve():
        raise InputError(f"--sentences and --html both name {args.html}: give two files")
    for path in filter(None, (args.sentences, args.html)):
        if path.resolve() in sources:
            raise InputError(f"{path} is what is scored: choose another file to write")
        check_file(path, args.overwrite)


def score_tables(tables: list, others: list, args) -> dict:
    """The object of `--json`; writes `--sentences` and `--html`."""
    from training_fla.corpora.registry import convention_of
    from training_fla.scoring import report as pages
    from training_fla.scoring import scores as scoring
    from training_fla.scoring.conventions import CONVENTIONS, convention_for

    references = tables[0].references
    convention = convention_for(convention_of(args.corpus), references)
    form = CONVENTIONS[convention]
    scores = [scoring.corpus_scores(t.predictions, references, form, args.rouge) for t in tables]
    report = dict(scores[0]) | {
        "signature": scoring.signature_of(form, args.rouge),
        "num_sentences": len(references),
        "convention": convention,
        "files": [str(table.path) for table in tables],
    }
    options = {"form": form, "rouge": args.rouge, "samples": args.samples or 0}
    if len(tables) > 1:
        deviation = {name: statistics.stdev(score[name] for score in scores) for name in scoring.SCORE_NAMES}
        report |= mean_of(scores) | {"deviation": deviation, "seeds": scores}
    ours = [table.predictions for table in tables]
    if args.samples != 0:
        report["confidence_intervals"] = scoring.seed_intervals(ours, references, **options)
    if others:
        theirs = [scoring.corpus_scores(other.predictions, references, form, args.rouge) for other in others]
        predictions = [other.predictions for other in others]
        tests = scoring.compare_systems(ours, predictions, references, **options, margin=args.margin)
        files = [str(other.path) for other in others]
        named = {"file": files[0]} if len(files) == 1 else {"files": files}
        report["against"] = named | mean_of(theirs) | {"significance": with_holm(tests), "margin": args.margin}
    alternatives = [scoring.alternative_scores(t.predictions, references, convention) for t in tables]
    report["alternatives"] = mean_of(alternatives)
    if args.sentences or args.html:
        sentences = pages.scored_sentences(tables[0], form, args.rouge)
    if args.sentences:
        pages.write_sentence_table(sentences, args.sentences, args.overwrite)
    if args.html:
        title = f"{tables[0].path.name} ({args.corpus})"
        pages.write_html(sentences, report | {"title": title}, args.html, args.overwrite)
    return report


def with_holm(tests: dict) -> dict[str, dict]:
    """Tests by the names of scores, with p by Holm over them."""
    from training_fla.scoring.resampling import holm

    entries = {name: test._asdict() for name, test in tests.items()}
    for name in ("p_value", "equivalence_p"):
        p_values = [entry[name] for entry in entries.values()]
        for entry, adjusted in zip(
            entries.values(), holm(p_values) if None not in p_values else p_values, strict=True
        ):
            entry[f"adjusted_{name}"] = adjusted
    return entries


def mean_of(entries: list):
    """The mean of figures, or of dictionaries of figures with their (equal) signatures, one a seed."""
    if isinstance(entries[0], dict):
        return {name: mean_of([entry[name] for entry in entries]) for name in entries[0]}
    return entries[0] if isinstance(entries[0], str) else sum(entries) / len(entries)


def print_report(report: dict) -> None:
    """Print the report as tables."""
    from training_fla.scoring.scores import SCORE_NAMES

    print(f"{', '.join(report['files'])}: {report['num_sentences']} sentences, convention {report['convention']}")
    for name in SCORE_NAMES:
        line = f"  {name:<8} {report[name]:6.2f}"
        if "confidence_intervals" in report:
            line += "   95 % interval {:.2f} to {:.2f}".format(*report["confidence_intervals"][name])
        if "deviation" in report:
            line += f"   deviation {report['deviation'][name]:.2f} over {len(report['seeds'])} seeds"
        print(line)
    lengths = [report["prediction_length"], report["reference_length"]]
    print("  lengths  {:.0f} predicted, {:.0f} in the references".format(*lengths))
    print(f"  {report['signature']}")
    if "against" in report:
        against = report["against"]
        print(f"against {', '.join(against.get('files', [against.get('file')]))}")
        for name, test in against["significance"].items():
            difference = "{:+.2f}, 95 % interval {:+.2f} to {:+.2f}".format(test["difference"], *test["interval"])
            line = f"  {name:<8} {against[name]:6.2f}   difference {difference}; p {p_text(test['p_value'])}"
            line += f", by Holm {p_text(test['adjusted_p_value'])}"
            if against["margin"]:
                line += f"; p that it is {against['margin']:g} or more {p_text(test['equivalence_p'])}"
                line += f", by Holm {p_text(test['adjusted_equivalence_p'])}"
            print(line)
        smallest = max(test["smallest_p"] for test in against["significance"].values())
        if smallest > 0.05:
            print(f"  too few clips differ to tell: the least p that they could show is {smallest:.2g}")
    print("other conventions")
    for name, value in report["alternatives"].items():
        if isinstance(value, dict):
            value = "  ".join(f"{key} {figure:.2f}" for key, figure in value.items() if key != "signature")
        else:
            value = f"{value:.2f}"
        print(f"  {name:<18} {value}")
