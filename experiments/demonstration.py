"""What `make demo` does: run the commands of a real corpus on the drawn one, one by one, and compare the stages."""

import json
import os
from pathlib import Path

from experiments.running import CommandLog, Run, Step, num_threads, own_folder, show_table
from training_fla.console import note, time_text
from training_fla.errors import InputError
from training_fla.folders import locked_folder, write_text
from training_fla.hub.card import read_facts
from training_fla.tables import mean_and_deviation
from training_fla.viewing.report import FinishedRun

SCORES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l")
COLUMNS = (*SCORES, "seconds")
ROWS = {
    "stage1": "stage 1 (visual initialing)",
    "stage2": "stage 2 (LLM fine-tuning)",
    "joint": "joint training (Table 4)",
    "untrained_encoder": "stage 2, untrained visual encoder (Table 5)",
    "random_language_model": "stage 2, language model not pre-trained (Table 10)",
    "one_run": "both stages in one run (not in the paper)",
}
STAGES = ("stage1", "stage2")
CLIP, PICTURE = "clips/test-00000.mp4", "test-00000.png"
LOG_OF_0_3 = "steps.json"  # seed, seconds of the steps that ended, names of those that began


def run_demo(out: Path, seed: int = 0, ablations: bool = False, overwrite: bool = False) -> int:
    """Run what is not done yet, then show the table and five translations; the exit status."""
    own_folder(out, "demo", out / LOG_OF_0_3)
    with locked_folder(out, out):
        steps = demo_steps(out, seed, ablations)
        log = open_log(out)
        if overwrite:
            log.clear()
            (out / "summary.json").unlink(missing_ok=True)
        log.check(steps, remedy="choose another --out or pass --overwrite")
        if all(log.seconds(step.name) is not None for step in steps):
            note(f"{out} holds a finished demo of seed {seed}; --overwrite runs it again.")
        else:
            status = log.run(steps)
            if status:
                return status
        write_summary(out, log)
    show(out)
    return 0


def demo_steps(out: Path, seed: int, ablations: bool) -> list[Step]:
    """The commands, in order; with `ablations` also rows of Tables 4, 5 and 10, and one-run training."""
    corpus, mbart, trimmed = out / "corpus", out / "mbart", out / "mbart-trimmed"
    clips = ["--num-train", 1200, "--size", 40]
    text = ["--text", corpus / "demo_text.txt", "--vocab-text", corpus / "broad_text.txt"]
    mbart_size = ["--width", 192, "--layers", 3]
    schedule = ["--max-steps", 500, "--batch-size", 32, "--warmup-steps", 50, "--seed", seed]
    sentences = ["--sentences", corpus / "train.sentences.txt"]
    with_text = {"dataset": str(corpus), "seed": seed, "language_model": str(trimmed)}
    with_encoder = with_text | {"stage1_checkpoint": str(out / "stage1")}
    runs = [
        demo_run(out, "stage1", "stage1", {"dataset": str(corpus), "seed": seed, "tokenizer": str(trimmed)}),
        demo_run(out, "stage2", "stage2", with_encoder),
    ]
    rows = []
    if ablations:
        # Joint and one-run training take as long as both stages together; the others as long as stage 2.
        for name in ROWS:
            if name not in STAGES:
                lines = with_encoder if name == "random_language_model" else with_text
                rows.append(demo_run(out, name, "stage2", lines))
    stage2, picture = out / "stage2", out / PICTURE
    return [
        fla_step("prepare", ["prepare", "demo", "--out", corpus, *clips, "--seed", seed], corpus),
        fla_step("denoise", ["denoise", *text, "--out", mbart, *mbart_size, *schedule], mbart),
        fla_step("trim", ["trim", "--model", mbart, *sentences, "--out", trimmed], trimmed),
        *(run.step(out) for run in runs),
        fla_step("score", ["score", stage2 / "predictions_test.tsv", "--corpus", "demo"]),
        fla_step("translate", ["translate", stage2, corpus / "clips"]),
        fla_step("inspect", ["inspect", corpus / CLIP, "--model", stage2, "--out", picture], picture),
        *(run.step(out) for run in rows),
    ]


def demo_run(out: Path, name: str, stage: str, lines: dict) -> Run:
    """A training run by a recipe of the demo."""
    return Run(out / name, stage, Path(f"recipes/demo/{name}.yaml"), lines)


def fla_step(name: str, words: list, output: Path | None = None) -> Step:
    """A step that is no training run."""
    return Step(name, ["fla", *map(str, words)], output)


def open_log(out: Path) -> CommandLog:
    """The log of a demo's commands; that of 0.3.0, which has a seed in place of the commands, is read too."""
    environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "0"}
    if "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(num_threads())
    log = CommandLog(out, "fla demo", environment=environment, replaces=True)
    earlier = {} if log.entries else read_facts(out / LOG_OF_0_3)
    if earlier:
        began = {*earlier["seconds"], *earlier.get("started", [])}
        for step in demo_steps(out, earlier["seed"], ablations=True):
            if step.name in began:
                seconds = earlier["seconds"].get(step.name)
                log.entries[step.name] = {"command": log.logged(step.command), "seconds": seconds}
    return log


def run_seeds(out: Path, seeds: list[int], ablations: bool = False, overwrite: bool = False) -> int:
    """Run the demo once a seed in `seed-N` folders, and compare the rows by mean and deviation; the exit status."""
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: a seed is given twice")
    own_folder(out, "demo", out / "seeds.md")
    for seed in seeds:
        status = run_demo(out / f"seed-{seed}", seed, ablations, overwrite)
        if status:
            return status
    summaries = [read_facts(out / f"seed-{seed}" / "summary.json") for seed in seeds]
    rows = [[f"test split, seeds {', '.join(map(str, seeds))}", *COLUMNS]]
    for name in (name for name in ROWS if all(name in summary for summary in summaries)):
        rows.append([ROWS[name], *(mean_and_deviation([s[name][column] for s in summaries]) for column in COLUMNS)])
    show_table(out / "seeds.md", rows)
    print("\nmean ± sample deviation; summary.json of each seed has every figure")
    return 0


def write_summary(out: Path, log: CommandLog) -> None:
    """Write `summary.json` of a demo whose steps are done."""
    seconds = {name: log.seconds(name) for name in log.entries if log.seconds(name) is not None}
    summary: dict = {}
    for name in filter(seconds.__contains__, ROWS):
        scores = FinishedRun(out / name).metrics["test"]
        summary[name] = {score: round(scores[score], 2) for score in SCORES} | {"seconds": seconds[name]}
    of_demo = [value for name, value in seconds.items() if name in STAGES or name not in ROWS]
    summary |= {"seconds": round(sum(of_demo), 1), "steps": seconds}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")


def show(out: Path) -> None:
    """Print the table of a finished demo and five translations."""
    summary = read_facts(out / "summary.json")
    rows = [["test split", *COLUMNS]]
    for name in filter(summary.__contains__, ROWS):
        rows.append([ROWS[name], *(f"{summary[name][column]:.1f}" for column in COLUMNS)])
    show_table(out / "summary.md", rows)
    print()
    table = FinishedRun(out / "stage2").predictions
    for reference, prediction in list(zip(table.references, table.predictions, strict=True))[:5]:
        print(f"  reference    {reference}\n  translation  {prediction}\n")
    print(f"a clip: {out / 'corpus' / CLIP}, and what the model saw of it: {out / PICTURE}")
    print(f"the whole demo took {time_text(summary['seconds'])}. README.md says what to type for PHOENIX14T.")
