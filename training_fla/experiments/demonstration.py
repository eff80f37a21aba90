"""What `make demo` does: run the commands of a real corpus on the drawn one, one by one, and compare the stages."""

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from training_fla.files import InputError, atomic_file

ROOT = Path(__file__).resolve().parents[2]
SCORES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l")
ROWS = {
    "stage1": "stage 1 (visual initialing)",
    "stage2": "stage 2 (LLM fine-tuning)",
    "joint": "joint training (Table 4)",
    "untrained_encoder": "stage 2, untrained visual encoder (Table 5)",
    "random_language_model": "stage 2, language model not pre-trained (Table 10)",
    "one_run": "both stages in one run (not in the paper)",
}


@dataclass
class Step:
    """One command of the demo.

    Args:
        name (`str`): under which its seconds are kept.
        command (`list[str]`): as a person would type it; the first word is `fla` or a script of this repository.
        output (`Path`, *optional*): what an interrupted try may have left and `--overwrite` may replace.
    """

    name: str
    command: list[str]
    output: Path | None = None

    @property
    def is_stage(self) -> bool:
        """`bool`: whether this is one of the run scripts, which can resume."""
        return self.command[0].startswith("run_stage")


def demo_steps(out: Path, seed: int, ablations: bool) -> list[Step]:
    """The commands, in order.

    Args:
        out (`Path`): the demo's folder.
        seed (`int`): of corpus, weights and order.
        ablations (`bool`): add the rows of Tables 4, 5 and 10, and one-run training.

    Returns:
        `list[Step]`: to be run one after the other.
    """
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
    ]  # fmt: skip
    if ablations:
        # Joint and one-run training as long as both stages together take; the others as long as stage 2.
        for name, inputs in (
            ("joint", with_text),
            ("untrained_encoder", with_text),
            ("random_language_model", with_encoder),
            ("one_run", with_text),
        ):
            command = ["run_stage2.py", f"recipes/demo/{name}.yaml", *inputs, "--output_dir", out / name]
            steps.append(Step(name, command, out / name))
    return [Step(step.name, [str(word) for word in step.command], step.output) for step in steps]


def run_demo(out: Path, seed: int = 0, ablations: bool = False, overwrite: bool = False) -> int:
    """Run what is not done yet, then show the table, five translations and a contact sheet.

    Args:
        out (`Path`): the demo's folder.
        seed (`int`): of corpus, weights and order.
        ablations (`bool`): add the rows of Tables 4, 5 and 10; steps already done are not run again.
        overwrite (`bool`): forget what an interrupted demo did.

    Returns:
        `int`: 0, or the exit status of the command that failed.

    Raises:
        InputError: the recipes are not beside the package (a wheel does not bring them), or `out` is
            somebody else's folder.
    """
    if not (ROOT / "recipes" / "demo").is_dir():
        raise InputError(f"{ROOT} has no recipes/demo: run the demo from a clone of the repository")
    journal = out / "steps.json"
    if out.exists() and any(out.iterdir()) and not journal.exists():
        raise InputError(f"{out} is not empty and no demo made it; choose another --out")
    finished = (out / "summary.json").exists() and not ablations
    if journal.exists() and (overwrite or finished or json.loads(journal.read_text())["seed"] != seed):
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = json.loads(journal.read_text())["seconds"] if journal.exists() else {}
    journal.write_text(json.dumps({"seed": seed, "seconds": seconds}))
    for step in demo_steps(out, seed, ablations):
        if step.name in seconds:
            continue
        start = time.perf_counter()
        status = run_step(step)
        if status:
            print(
                f"fla demo: `{step.name}` ended with status {status}; the same command again goes on from here",
                file=sys.stderr,
            )
            return status
        seconds[step.name] = round(time.perf_counter() - start, 1)
        journal.write_text(json.dumps({"seed": seed, "seconds": seconds}))
    show(out, seconds)
    return 0


def run_seeds(out: Path, seeds: list[int], ablations: bool = False, overwrite: bool = False) -> int:
    """Run the demo once a seed, each in its own folder, and compare the rows by mean and deviation.

    Args:
        out (`Path`): holds `seed-N` folders, each as [`run_demo`] leaves it.
        seeds (`list[int]`): at least two, all different.
        ablations (`bool`): as in [`run_demo`].
        overwrite (`bool`): as in [`run_demo`].

    Returns:
        `int`: 0, or the exit status of the command that failed.

    Raises:
        InputError: as [`run_demo`]; or a seed that is given twice.
    """
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: a seed is given twice")
    for seed in seeds:
        folder = out / f"seed-{seed}"
        rows = [name for name in ROWS if ablations or name in ("stage1", "stage2")]
        if not overwrite and has_rows(folder, rows):
            continue
        status = run_demo(folder, seed, ablations, overwrite)
        if status:
            return status
    summaries = [read_summary(out / f"seed-{seed}") for seed in seeds]
    names = [name for name in ROWS if all(name in summary for summary in summaries)]
    columns = (*SCORES, "seconds")
    table = {name: {column: [s[name][column] for s in summaries] for column in columns} for name in names}
    lines = [f"| test split, seeds {', '.join(map(str, seeds))} | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name, row in table.items():
        cells = [f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" for values in row.values()]
        lines.append(f"| {ROWS[name]} | " + " | ".join(cells) + " |")
    with atomic_file(out / "summary.json", overwrite=True) as file:
        Path(file).write_text(json.dumps({"seeds": seeds, "rows": table}, indent=2) + "\n", encoding="utf-8")
    with atomic_file(out / "summary.md", overwrite=True) as file:
        Path(file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines) + f"\n\nmean ± sample deviation; every figure: {out / 'summary.json'}")
    return 0


def read_summary(folder: Path) -> dict:
    """What [`run_demo`] wrote of one seed.

    Args:
        folder (`Path`): the demo's folder.

    Returns:
        `dict`: empty where the demo has not ended.
    """
    file = folder / "summary.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def has_rows(folder: Path, rows: list[str]) -> bool:
    """Whether a seed is done.

    Args:
        folder (`Path`): the demo's folder.
        rows (`list[str]`): names in `ROWS`.

    Returns:
        `bool`: its summary has them all.
    """
    return set(rows) <= read_summary(folder).keys()


def run_step(step: Step) -> int:
    """Print a command and run it from the repository's root.

    Args:
        step ([`Step`]): which one.

    Returns:
        `int`: its exit status.
    """
    command = list(step.command)
    if step.output is not None and step.output.exists():
        command.append("--resume" if step.is_stage else "--overwrite")
    typed = ["python", *command] if step.is_stage else command
    print(f"\n$ {shlex.join(typed)}", flush=True)
    program = [str(ROOT / command[0])] if step.is_stage else ["-m", "training_fla.cli"]
    arguments = [str(ROOT / word) if word.startswith("recipes/") else word for word in command[1:]]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run([sys.executable, *program, *arguments], env=environment | {"PYTHONPATH": path}).returncode


def show(out: Path, seconds: dict[str, float]) -> None:
    """Write `summary.json` and the contact sheet, print the table and five translations.

    Args:
        out (`Path`): the demo's folder, all steps done.
        seconds (`dict[str, float]`): of every step.
    """
    sheet = draw_contact_sheet(out)
    summary = {}
    for name in ROWS:
        if name in seconds:
            scores = json.loads((out / name / "metrics.json").read_text(encoding="utf-8"))["test"]
            summary[name] = {score: round(scores[score], 2) for score in SCORES} | {"seconds": seconds[name]}
    print(f"\n{'test split':<52}" + "".join(f"{score:>9}" for score in (*SCORES, "seconds")))
    for name, row in summary.items():
        print(f"{ROWS[name]:<52}" + "".join(f"{row[score]:9.1f}" for score in (*SCORES, "seconds")))
    print()
    for row in read_predictions(out / "stage2" / "predictions_test.tsv")[:5]:
        print(f"  reference    {row['reference']}\n  translation  {row['prediction']}\n")
    steps = {name: value for name, value in seconds.items() if name not in list(ROWS)[2:]}
    summary |= {"seconds": round(sum(steps.values()), 1), "steps": seconds}
    with atomic_file(out / "summary.json", overwrite=True) as file:
        Path(file).write_text(json.dumps(summary, indent=2) + "\n")
    print(f"a clip and its translation: {sheet}\nall figures:               {out / 'summary.json'}")
    print(f"the whole demo took {summary['seconds']:.0f} s. README.md says what to type for PHOENIX14T.")


def read_predictions(file: Path) -> list[dict[str, str]]:
    """Read a predictions table.

    Args:
        file (`Path`): tab-separated, with a header.

    Returns:
        `list[dict[str, str]]`: a row each, by column.
    """
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def draw_contact_sheet(out: Path) -> Path:
    """Show what the model saw of one test clip, and what it made of it.

    Args:
        out (`Path`): the demo's folder.

    Returns:
        `Path`: a PNG.
    """
    from processing_fla import FlaVideoProcessor
    from processing_fla.video_processing_fla import count_video_frames, read_video_frames
    from training_fla.training.monitoring import contact_sheet

    rows = {row["id"]: row for row in read_predictions(out / "stage2" / "predictions_test.tsv")}
    clip = next(file for file in sorted((out / "corpus" / "clips").iterdir()) if file.stem in rows)
    kept = FlaVideoProcessor.from_pretrained(out / "stage2").sample_frame_indices(count_video_frames(clip))
    sheet = out / "contact_sheet.png"
    contact_sheet(read_video_frames(clip, kept), rows[clip.stem]["reference"], rows[clip.stem]["prediction"], sheet)
    return sheet
