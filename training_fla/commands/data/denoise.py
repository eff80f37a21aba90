"""Pre-train a small MBart by text infilling, or continue a released one on text of one's own.

The result is a folder with model and tokenizer, for `fla trim` and run_stage2.py.
"""

import argparse
import shlex
from pathlib import Path

from training_fla.console import Done, counted
from training_fla.errors import InputError
from training_fla.folders import check_not_inside

EXAMPLE = "fla denoise --text runs/demo/corpus/demo_text.txt --out runs/demo/mbart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--text", nargs="+", type=Path, required=True, metavar="FILE", help="UTF-8 text, one sentence a line")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the new model")
    add("--model", metavar="ID_OR_DIR", help="model to continue; without it a small MBart is made")
    add("--vocab-text", nargs="*", type=Path, default=[], metavar="FILE", help="more text for a new tokenizer")
    add("--vocab-size", type=int, default=4000, help="pieces of a new tokenizer [%(default)s]")
    add("--language", default="de_DE", metavar="CODE", help="language token [%(default)s]")
    add("--width", type=int, default=256, help="d_model of a new model [%(default)s]")
    add("--layers", type=int, default=3, help="encoder and decoder layers of a new model [%(default)s]")
    add("--max-steps", type=int, default=1000, help="optimizer steps [%(default)s]")
    add("--batch-size", type=int, default=32, help="sentences a step [%(default)s]")
    add("--learning-rate", type=float, default=1e-3, help="peak rate [%(default)s]")
    add("--warmup-steps", type=int, default=100, help="steps of warm-up [%(default)s]")
    add("--max-tokens", type=int, default=128, help="longer sentences are cut [%(default)s]")
    add("--save-steps", type=int, default=500, help="steps between checkpoints [%(default)s]")
    add("--group-by-length", action="store_true", help="batches of similar length: faster, and less random")
    add("--seed", type=int, default=0, help="of weights, noise and order [%(default)s]")
    add("--resume", action="store_true", help="go on where a killed run stopped")
    add("--overwrite", action="store_true", help="replace an existing folder")


def run(args: argparse.Namespace) -> Done:
    """Train and say what came out."""
    from training_fla.tables import read_sentences

    if args.width % 64:
        raise InputError(f"--width must be a multiple of 64, got {args.width}")
    check_not_inside([*args.text, *args.vocab_text, args.model], args.out)
    sentences, vocab_sentences = read_sentences(args.text), read_sentences(args.vocab_text)
    from training_fla.training.denoising import denoise

    given = ("text", "out", "vocab_text", "language")
    options = {name: value for name, value in vars(args).items() if name not in given}
    report = denoise(sentences, args.out, language_code=args.language, vocab_sentences=vocab_sentences, **options)
    trimmed = f"{args.out}-trimmed"
    return Done(
        f"{args.out}: {report['parameters'] / 1e6:.2f} M parameters, {report['vocab_size']:,} pieces, "
        f"trained on {counted(report['sentences'], 'sentence')}, loss {report['loss']:.3f}",
        shlex.join(["fla", "trim", "--model", str(args.out), "--sentences", *map(str, args.text), "--out", trimmed]),
    )
