"""Is one model for two languages as good as one for each? The table of docs/several_corpora.md.

    python -m experiments.several --out runs/several --seeds 0 1 2

For each seed: a corpus with German and one with Chinese sentences; both stages on each alone and on both together, a
clip as often in all; then stage 2 of both together goes on with each. A killed study goes on with the same command.
"""

import argparse
import json
from pathlib import Path

from experiments.demonstration import fla_step
from experiments.drawn.demo import sentences_of_split
from experiments.running import CommandLog, Run, num_threads, own_folder, show_table
from training_fla.folders import write_text
from training_fla.tables import mean_and_deviation
from training_fla.viewing.report import FinishedRun

LANGUAGES = {"german": "de_DE", "chinese": "zh_CN"}
CONVENTIONS = {"german": "words", "chinese": "characters"}
NUM_TEST = 100


def main(argv: list[str] | None = None) -> int:
    """Run what is not done, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/several"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-train", type=int, default=1200, help="training clips of each corpus [%(default)s]")
    options = parser.parse_args(argv)
    done = []
    for seed in options.seeds:
        out = options.out / f"seed-{seed}"
        own_folder(out, "demo", out / "commands.json")
        environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "0"}
        environment["OMP_NUM_THREADS"] = str(num_threads())
        log = CommandLog(out, "python -m experiments.several", environment=environment, replaces=True)
        runs = runs_of(out, seed, options.num_train)
        steps = [*text_steps(out, seed, options.num_train), *(run.step(out) for run in runs.values())]
        log.check(steps)
        status = log.run(steps)
        if status:
            return status
        if not (out / "summary.json").exists():
            summary = {name: scores_of(run) for name, run in runs.items() if "stage1" not in name}
            summary["asked for the other language"] = other_language_scores(runs["both/stage2"].folder, out, seed)
            write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
        done.append(json.loads((out / "summary.json").read_text(encoding="utf-8")))
        show(options.out, options.seeds[: len(done)], done)
    return 0


def text_steps(out: Path, seed: int, num_train: int) -> list:
    """Both corpora, a language model that has read sentences of both, and its vocabulary trimmed to both."""
    corpora = {name: out / name for name in LANGUAGES}
    mbart, trimmed = out / "mbart", out / "mbart-trimmed"
    steps = []
    for name, language in LANGUAGES.items():
        words = ["prepare", "demo", "--out", corpora[name], "--language", language, "--size", 40, "--seed", seed]
        words += ["--num-train", num_train, "--num-test", NUM_TEST]
        steps.append(fla_step(f"prepare {name}", words, corpora[name]))
    text = [folder / "demo_text.txt" for folder in corpora.values()]
    size = ["--width", 192, "--layers", 3, "--max-steps", 300, "--warmup-steps", 50, "--seed", seed]
    sentences = [folder / "train.sentences.txt" for folder in corpora.values()]
    trim = ["trim", "--model", mbart, "--sentences", *sentences, "--out", trimmed]
    return [*steps, fla_step("denoise", ["denoise", "--text", *text, "--out", mbart, *size], mbart),
            fla_step("trim", trim, trimmed)]  # fmt: skip


def runs_of(out: Path, seed: int, num_train: int) -> dict[str, Run]:
    """Each alone, both together, then each; evaluated three times a run."""
    entries = [{"path": str(out / name), "language": language} for name, language in LANGUAGES.items()]
    datasets = {name: [entry] for name, entry in zip(LANGUAGES, entries, strict=True)} | {"both": entries}
    runs = {}
    for name, dataset in datasets.items():
        for stage, clips_a_step, epochs in (("stage1", 8, 22), ("stage2", 16, 14)):
            every = max(1, len(dataset) * num_train * epochs // clips_a_step // 3)
            lines = {"dataset": dataset, "seed": seed, "eval_steps": every, "save_steps": every}
            model = str(out / "mbart-trimmed")
            lines |= {"tokenizer": model} if stage == "stage1" else {"language_model": model}
            if stage == "stage2":
                lines["stage1_checkpoint"] = str(out / f"on_{name}" / "stage1")
            folder = out / f"on_{name}" / stage
            runs[f"{name}/{stage}"] = Run(folder, stage, Path(f"recipes/several/{stage}.yaml"), lines)
    both = str(out / "on_both" / "stage2")
    for name in LANGUAGES:
        every = max(1, num_train * 4 // 16)
        lines = {"dataset": datasets[name], "seed": seed, "eval_steps": every, "save_steps": every}
        lines |= {"language_model": both, "stage1_checkpoint": both, "num_train_epochs": 4}
        runs[f"then/{name}"] = Run(out / f"then_{name}", "stage2", Path("recipes/several/stage2.yaml"), lines)
    return runs


def scores_of(run: Run) -> dict[str, float]:
    """Test BLEU-4 of each corpus of a run."""
    corpora = FinishedRun(run.folder).metrics["test"]["corpora"]
    return {name: round(scores["bleu4"], 2) for name, scores in corpora.items()}


def other_language_scores(model: Path, out: Path, seed: int) -> dict[str, float]:
    """Test BLEU-4 of each corpus's clips where the other's language is asked for."""
    from training_fla.data.collation import SignTranslationCollator
    from training_fla.data.datasets import SignVideoDataset
    from training_fla.data.packed_corpus import PackedCorpus
    from training_fla.scoring.metric import SignTranslationMetric
    from training_fla.viewing.loading import load_pipeline

    pipe = load_pipeline(str(model), "cpu")
    scores = {}
    for name, other in zip(LANGUAGES, reversed(LANGUAGES), strict=True):
        videos = SignVideoDataset(PackedCorpus(out / name, "test"), pipe.processor)
        predictions = []
        for start in range(0, len(videos), 20):
            batch = SignTranslationCollator()([videos[index] for index in range(start, min(start + 20, len(videos)))])
            inputs = {key: batch[key] for key in ("pixel_values_videos", "attention_mask")}
            ids = pipe.model.generate(**inputs, language=LANGUAGES[other])
            predictions += pipe.processor.batch_decode(ids, skip_special_tokens=True)
        meant = sentences_of_split("test", NUM_TEST, seed, LANGUAGES[name], LANGUAGES[other])
        metric = SignTranslationMetric(CONVENTIONS[other])
        scores[name] = round(metric.compute(predictions=predictions, references=meant)["bleu4"], 2)
    return scores


def show(out: Path, seeds: list[int], summaries: list[dict]) -> None:
    """Print the table of the seeds that are done, and write it to `table.md`."""

    def cell(row: str, corpus: str) -> str:
        return mean_and_deviation([summary[row][corpus] for summary in summaries])

    rows = [["stage 2, test BLEU-4", *LANGUAGES]]
    rows.append(["each alone", *(cell(f"{name}/stage2", name) for name in LANGUAGES)])
    rows.append(["both together", *(cell("both/stage2", name) for name in LANGUAGES)])
    rows.append(["both together, then each", *(cell(f"then/{name}", name) for name in LANGUAGES)])
    rows.append(["both together, clips asked in the other language",
                 *(cell("asked for the other language", name) for name in LANGUAGES)])  # fmt: skip
    show_table(out / "table.md", rows, title=f"Seeds {', '.join(map(str, seeds))}.")


if __name__ == "__main__":
    raise SystemExit(main())
