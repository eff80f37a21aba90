"""The `fla` command."""

import argparse
import importlib
import sys

from training_fla.files import exit_status

# By the folder of `training_fla.commands`; a command is imported only when it is asked for.
GROUPS = {
    "data": {
        "prepare": "turn a corpus release into a packed dataset",
        "denoise": "(continue to) pre-train a small MBart by text infilling",
        "trim": "cut a language model and its tokenizer down to the words a corpus uses",
    },
    "train": {
        "demo": "run both stages on the drawn demo corpus and compare them",
        "score": "BLEU and ROUGE-L of a predictions file, by the conventions of the literature",
        "ablate": "run a table of the paper's ablations and print it beside the paper's",
    },
    "use": {
        "translate": "translate sign videos with a trained model",
        "inspect": "draw what a model saw of a clip: frames, attention by word, feature similarity",
    },
    "share": {
        "serve": "serve a page on which people try a model, or write it as a Space",
        "push": "upload a trained model with its card to the Hugging Face Hub",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fla` alone, which knows names and one-line helps of the subcommands."""
    width = max(map(len, COMMANDS))
    listing = "\n".join(
        f"{title}:\n" + "".join(f"  {name:<{width}}  {text}\n" for name, text in group.items())
        for title, group in GROUPS.items()
    )
    parser = argparse.ArgumentParser(
        prog="fla",
        description="Gloss-free sign language translation (FLa-LLM). run_stage1.py and run_stage2.py train.",
        epilog=f"{listing}\n`fla COMMAND --help` explains one, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="fla COMMAND [options]",
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand: 0 done, 1 finished but something failed on the way, 2 bad input, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        build_parser().print_help(sys.stderr)
        return 2
    args = build_parser().parse_args(argv)
    group = next(name for name, commands in GROUPS.items() if args.command in commands)
    command = importlib.import_module(f"training_fla.commands.{group}.{args.command}")
    parser = argparse.ArgumentParser(
        prog=f"fla {args.command}",
        description=command.__doc__,
        epilog=f"example:\n  {command.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return exit_status(lambda: command.run(parser.parse_args(args.arguments)), prog=parser.prog)


if __name__ == "__main__":
    sys.exit(main())
