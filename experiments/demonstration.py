"""What `make demo` does: run the commands of a real corpus on the drawn one, one by one, and compare the stages."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from experiments import running
from experiments.running import own_folder, run_command, show_table
from training_fla.console import note, time_text
from training_fla.errors import InputError
from training_fla.folders import locked_folder, write_text
from training_fla.hub.card import read_facts
from training_fla.scoring.predictions import read_predictions
from training_fla.tables import mean_and_deviation

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


@dataclass
class Step:
    """One command of the demo, as a person would type it, and the folder it writes."""

    name: str
    command: list[str]
    output: Path | None = None


def demo_steps(out: Path, seed: int, ablations: bool) -> list[Step]:
    """The commands, in order; with `ablations` also rows of Tables 4, 5 and 10, and one-run training."""
    corpus, mbart, trimmed, stage1 = out / "corpus", out / "mbart", out / "mbart-trimmed", out / "stage1"
    common = ["--dataset", corpus, "--seed", seed]
    with_text = [*common, "--language_model", trimmed]
    with_encoder = [*with_text, "--stage1_checkpoint", stage1]
    mbart_size = ["--width", 192, "--layers", 3]
    schedule = ["--max-steps", 500, "--batch-size", 32, "--warmup-steps", 50, "--seed", seed]
    text = ["--text", corpus / "demo_text.txt", "--vocab-text", corpus / "broad_text.txt"]
    sentences = ["--sentences", corpus / "train.sentences.txt"]
    stage1_inputs = [*common, "--tokenizer", trimmed]
    stage2 = out / "stage2"
    clips = ["--num-train", 1200, "--size", 40]
    steps = [
        Step("prepare", ["fla", "prepare", "demo", "--out", corpus, *clips, "--seed", seed], corpus),
        Step("denoise", ["fla", "denoise", *text, "--out", mbart, *mbart_size, *schedule], mbart),
        Step("trim", ["fla", "trim", "--model", mbart, *sentences, "--out", trimmed], trimmed),
        Step("stage1", ["run_stage1.py", "recipes/demo/stage1.yaml", *stage1_inputs, "--output_dir", stage1], stage1),
        Step("stage2", ["run_stage2.py", "recipes/demo/stage2.yaml", *with_encoder, "--output_dir", stage2], stage2),
        Step("score", ["fla", "score", stage2 / "predictions_test.tsv", "--corpus", "demo"]),
        Step("translate", ["fla", "translate", stage2, corpus / "clips"]),
        Step("inspect", ["fla", "inspect", corpus / CLIP, "--model", stage2, "--out", out / PICTURE], out / PICTURE),
    ]  # fmt: skip
    # Joint and one-run training take as long as both stages together; the others as long as stage 2.
    for name in [name for name in ROWS if ablations and name not in STAGES]:
        words = with_encoder if name == "random_language_model" else with_text
        command = ["run_stage2.py", f"recipes/demo/{name}.yaml", *words, "--output_dir", out / name]
        steps.append(Step(name, command, out / name))
    return [Step(step.name, [str(word) for word in step.command], step.output) for step in steps]


def run_demo(out: Path, seed: int = 0, ablations: bool = False, overwrite: bool = False) -> int:
    """Run what is not done yet, then show the table and five translations; the exit status."""
    own_folder(out, "demo", out / "steps.json")
    with locked_folder(out, out):
        journal = open_demo(out, seed, overwrite)
        if set(ROWS if ablations else STAGES) <= read_facts(out / "summary.json").keys():
            note(f"{out} holds a finished demo of seed {seed}; --overwrite runs it again.")
        else:
            status = run_steps(demo_steps(out, seed, ablations), journal, out / "steps.json")
            if status:
                return status
            write_summary(out, journal["seconds"])
    show(out)
    return 0


def open_demo(out: Path, seed: int, overwrite: bool) -> dict:
    """What a demo keeps in `steps.json`: its seed, seconds of the steps that are done, and those that began."""
    kept = read_facts(out / "steps.json")
    if kept and not overwrite:
        if kept["seed"] != seed:
            other = f"{out} holds a demo of seed {kept['seed']}, not {seed}"
            raise InputError(f"{other}: choose another --out or pass --overwrite")
        return {"started": list(kept["seconds"])} | kept
    (out / "summary.json").unlink(missing_ok=True)
    return {"seed": seed, "seconds": {}, "started": []}


def run_steps(steps: list[Step], journal: dict, file: Path) -> int:
    """Run the steps that are not done yet; the exit status of the one that failed, or 0."""
    for step in steps:
        if step.name in journal["seconds"]:
            continue
        start, is_again = time.perf_counter(), step.name in journal["started"]
        journal["started"].append(step.name)
        write_text(file, json.dumps(journal))
        status = run_step(step, is_again)
        if status:
            print(f"fla demo: `{step.name}` ended with status {status}; the same command goes on", file=sys.stderr)
            return status
        journal["seconds"][step.name] = round(time.perf_counter() - start, 1)
        write_text(file, json.dumps(journal))
    return 0


def run_step(step: Step, is_again: bool) -> int:
    """Run one command; what an earlier try left of it is resumed or replaced by the command itself."""
    words = list(step.command)
    if step.output is not None and step.output.exists():
        words.append("--resume" if is_again and words[0].endswith(".py") else "--overwrite")
    defaults = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "0"}
    if "OMP_NUM_THREADS" not in os.environ:
        defaults["OMP_NUM_THREADS"] = str(running.num_threads())
    return run_command(words, defaults=defaults)


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


def write_summary(out: Path, seconds: dict[str, float]) -> None:
    """Write `summary.json` of a demo whose steps are done."""
    summary: dict = {}
    for name in filter(seconds.__contains__, ROWS):
        scores = read_facts(out / name / "metrics.json")["test"]
        summary[name] = {score: round(scores[score], 2) for score in SCORES} | {"seconds": seconds[name]}
    of_demo = [value for name, value in seconds.items() if name in STAGES or name not in ROWS]
    summary |= {"seconds": round(sum(of_demo), 1), "steps": seconds}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")


def show(out: Path) -> None:
    """Print the table of a finished demo and five translations."""
    summary = read_facts(out / "summary.json")
    print(f"\n{'test split':<52}" + "".join(f"{column:>9}" for column in COLUMNS))
    for name in filter(summary.__contains__, ROWS):
        print(f"{ROWS[name]:<52}" + "".join(f"{summary[name][column]:9.1f}" for column in COLUMNS))
    print()
    table = read_predictions(out / "stage2" / "predictions_test.tsv")
    for reference, prediction in list(zip(table.references, table.predictions, strict=True))[:5]:
        print(f"  reference    {reference}\n  translation  {prediction}\n")
    print(f"a clip: {out / 'corpus' / CLIP}, and what the model saw of it: {out / PICTURE}")
    print(f"the whole demo took {time_text(summary['seconds'])}. README.md says what to type for PHOENIX14T.")
