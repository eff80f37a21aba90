"""What `make demo` does: run the commands of a real corpus on the drawn one, one by one, and compare the stages."""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from training_fla.experiments.running import (
    check_clone,
    markdown,
    mean_and_deviation,
    num_threads,
    own_folder,
    run_command,
)  # fmt: skip
from training_fla.files import (
    InputError,
    atomic_file,
    locked_folder,
    note,
    time_text,
)
from training_fla.scoring.predictions import read_predictions

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


@dataclass
class Journal:
    """The finished steps of a demo, kept in `steps.json`."""

    folder: Path
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)  # of the steps that are done
    started: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write `steps.json`."""
        content = {"seed": self.seed, "seconds": self.seconds, "started": self.started}
        with atomic_file(self.folder / "steps.json", overwrite=True) as file:
            file.write_text(json.dumps(content))


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
    inputs = {"joint": with_text, "untrained_encoder": with_text}
    inputs |= {"random_language_model": with_encoder, "one_run": with_text}
    for name, words in inputs.items() if ablations else ():
        command = ["run_stage2.py", f"recipes/demo/{name}.yaml", *words, "--output_dir", out / name]
        steps.append(Step(name, command, out / name))
    return [Step(step.name, [str(word) for word in step.command], step.output) for step in steps]


def run_demo(out: Path, seed: int = 0, ablations: bool = False, overwrite: bool = False) -> int:
    """Run what is not done yet, then show the table and five translations; the exit status."""
    check_clone("fla demo")
    own_folder(out, "demo", out / "steps.json")
    with locked_folder(out, out):
        journal = open_demo(out, seed, overwrite)
        if set(ROWS if ablations else STAGES) <= read_summary(out).keys():
            note(f"{out} holds a finished demo of seed {seed}; --overwrite runs it again.")
        else:
            status = run_steps(demo_steps(out, seed, ablations), journal)
            if status:
                return status
            write_summary(out, journal.seconds)
    show(out)
    return 0


def run_steps(steps: list[Step], journal: Journal) -> int:
    """Run the steps that are not done yet; the exit status of the one that failed, or 0."""
    for step in steps:
        if step.name in journal.seconds:
            continue
        start = time.perf_counter()
        status = run_step(step, journal)
        if status:
            print(f"fla demo: `{step.name}` ended with status {status}; the same command goes on", file=sys.stderr)
            return status
        journal.seconds[step.name] = round(time.perf_counter() - start, 1)
        journal.save()
    return 0


def open_demo(out: Path, seed: int, overwrite: bool) -> Journal:
    """The journal of a new or an existing demo; another seed is refused."""
    file = out / "steps.json"
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if not overwrite and kept["seed"] != seed:
            raise InputError(
                f"{out} holds a demo of seed {kept['seed']}, not {seed}: choose another --out or pass --overwrite"
            )
        if not overwrite:
            return Journal(out, seed, kept["seconds"], kept.get("started", list(kept["seconds"])))
        (out / "summary.json").unlink(missing_ok=True)
    journal = Journal(out, seed)
    journal.save()
    return journal


def run_step(step: Step, journal: Journal) -> int:
    """Run one command; what an earlier try left of it is resumed or replaced by the command itself."""
    words = list(step.command)
    if step.output is not None and step.output.exists():
        resumes = words[0].endswith(".py") and step.name in journal.started
        words.append("--resume" if resumes else "--overwrite")
    journal.started.append(step.name)
    journal.save()
    defaults = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "0"}
    if "OMP_NUM_THREADS" not in os.environ:
        defaults["OMP_NUM_THREADS"] = str(num_threads())
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
    summaries = [read_summary(out / f"seed-{seed}") for seed in seeds]
    rows = [[f"test split, seeds {', '.join(map(str, seeds))}", *COLUMNS]]
    for name in (name for name in ROWS if all(name in summary for summary in summaries)):
        rows.append([ROWS[name], *(mean_and_deviation([s[name][column] for s in summaries]) for column in COLUMNS)])
    with atomic_file(out / "seeds.md", overwrite=True) as file:
        file.write_text("\n".join(markdown(rows)) + "\n", encoding="utf-8")
    print("\n" + "\n".join(markdown(rows)) + "\n\nmean ± sample deviation; summary.json of each seed has every figure")
    return 0


def read_summary(folder: Path) -> dict:
    """The `summary.json` of a demo; empty where it has not ended."""
    file = folder / "summary.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write_summary(out: Path, seconds: dict[str, float]) -> None:
    """Write `summary.json` of a demo whose steps are done."""
    summary: dict = {}
    for name in filter(seconds.__contains__, ROWS):
        scores = json.loads((out / name / "metrics.json").read_text(encoding="utf-8"))["test"]
        summary[name] = {score: round(scores[score], 2) for score in SCORES} | {"seconds": seconds[name]}
    of_demo = [value for name, value in seconds.items() if name in STAGES or name not in ROWS]
    summary |= {"seconds": round(sum(of_demo), 1), "steps": seconds}
    with atomic_file(out / "summary.json", overwrite=True) as file:
        file.write_text(json.dumps(summary, indent=2) + "\n")


def show(out: Path) -> None:
    """Print the table of a finished demo and five translations."""
    summary = read_summary(out)
    print(f"\n{'test split':<52}" + "".join(f"{column:>9}" for column in COLUMNS))
    for name in filter(summary.__contains__, ROWS):
        print(f"{ROWS[name]:<52}" + "".join(f"{summary[name][column]:9.1f}" for column in COLUMNS))
    print()
    table = read_predictions(out / "stage2" / "predictions_test.tsv")
    for reference, prediction in list(zip(table.references, table.predictions, strict=True))[:5]:
        print(f"  reference    {reference}\n  translation  {prediction}\n")
    print(f"a clip: {out / 'corpus' / CLIP}, and what the model saw of it: {out / PICTURE}")
    print(f"the whole demo took {time_text(summary['seconds'])}. README.md says what to type for PHOENIX14T.")
