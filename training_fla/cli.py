"""The `fla` command."""

import argparse
import importlib
import io
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType

from training_fla.console import QUIET, Done, is_quiet, note, time_text
from training_fla.errors import InputError, disk_is_full, one_line

# By the folder of `training_fla.commands`; a command is imported only when it is asked for.
GROUPS = {
    "data": {
        "prepare": "turn a corpus release into a packed dataset",
        "features": "store what a trained visual encoder makes of a corpus",
        "denoise": "(continue to) pre-train a small MBart by text infilling",
        "trim": "cut a language model and its tokenizer down to the words a corpus uses",
    },
    "train": {
        "train": "train stage 1 or stage 2 from a recipe",
        "demo": "run both stages on the drawn demo corpus and compare them",
        "ablate": "run a table of the paper's ablations and print it beside the paper's",
    },
    "results": {
        "score": "BLEU and ROUGE-L of a predictions file, by the conventions of the literature",
        "report": "put finished runs on one page beside the paper's figures",
    },
    "use": {
        "translate": "translate sign videos with a trained model",
        "live": "caption signing in front of a camera as it is shown",
        "inspect": "draw what a model saw of a clip: frames, attention by word, feature similarity",
    },
    "share": {
        "serve": "serve a page on which people try a model, or write it as a Space",
        "export": "write a trained model as ONNX or OpenVINO graphs, which translate faster on a processor",
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
        description="Gloss-free sign language translation (FLa-LLM).",
        epilog=f"{listing}\n`fla COMMAND --help` explains one, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="fla COMMAND [options]",
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def command_parser(name: str) -> tuple[ModuleType, argparse.ArgumentParser]:
    """The module of a subcommand and the parser of its options."""
    group = next(title for title, commands in GROUPS.items() if name in commands)
    command = importlib.import_module(f"training_fla.commands.{group}.{name}")
    parser = argparse.ArgumentParser(
        prog=f"fla {name}",
        description=command.__doc__,
        epilog=f"example:\n  {command.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    # Taken from wherever it stands, also behind a corpus's name; declared for `--help`.
    text = "no progress and no notes on stderr; results and errors stay"
    parser.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help=text)
    return command, parser


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand: 0 done, 1 finished but something failed on the way, 2 bad input, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        build_parser().print_help(sys.stderr)
        return 2
    args = build_parser().parse_args(argv)
    command, parser = command_parser(args.command)
    return exit_status(lambda words: command.run(parser.parse_args(words)), args.arguments, prog=parser.prog)


def exit_status(work: Callable[[list[str]], int | Done | None], argv: list[str], prog: str) -> int:
    """Call `work` with the arguments but `--quiet`, and print what it made as the last line.

    Bad input becomes one line on stderr and status 2, Ctrl-C status 130, a closed pipe 141.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # sentences are of any language, whatever the locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    began, quiet = time.perf_counter(), os.environ.get(QUIET, "")
    try:
        os.environ[QUIET] = "1" if "--quiet" in argv else quiet
        if is_quiet() or not sys.stderr.isatty():  # read when transformers is imported, of its bars too
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        done = work([word for word in argv if word != "--quiet"])
        sys.stdout.flush()
        if not isinstance(done, Done):
            return done or 0
        note(f"{done.made} ({time_text(time.perf_counter() - began)})" + (f"; next: {done.next}" if done.next else ""))
        return done.status
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        try:
            print(flush=True)  # fails where stdout is the pipe that broke
        except BrokenPipeError:  # `| head` has read enough; Python would write what is left when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        raise
    except Exception as error:
        message = one_line(error)
        if disk_is_full(error) and not isinstance(error, InputError):
            message = f"the disk is full: {message}; make room, then " + (
                "--resume goes on from the last checkpoint" if prog.startswith("run_stage") else "try again"
            )
        # By name: processing_fla has no InputError, and importing it here would slow down `--help`.
        elif not isinstance(error, InputError) and type(error).__name__ != "VideoDecodeError":
            raise
    finally:
        os.environ[QUIET] = quiet
    print(f"{prog}: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
