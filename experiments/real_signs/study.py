"""What is run for a held-out signer and a seed, and in which order: what says most for its time comes first."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.running import CommandLog, Run, Step
from training_fla.clone import ROOT
from training_fla.corpora.row import Reading
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.dictionary.lexicon import Signs, Splits, deal, read_lexicon
from training_fla.folders import write_text
from training_fla.recipe import Stage1Arguments, Stage2Arguments, read_lines
from training_fla.scoring.conventions import CONVENTIONS, TextForm
from training_fla.tables import write_table

RECIPES = Path("recipes/fsl105")
GRAMMAR = RECIPES / "sentences.yaml"
# By the folder of their last run: systems that translate, in the order in which they are run.
SYSTEMS = {
    "stage2": "two stages",
    "stage1": "stage 1 alone",
    "text_alone": "text alone, no video",
    "untrained_stage2": "untrained encoder",
    "joint": "joint, equal rate",
    "one_run": "both stages in one run",
}
# The run of each encoder that is measured by itself, and the system it is of.
ENCODERS = {"stage1": "stage 1", "untrained": "untrained", "joint": "joint, equal rate", "one_run": "one run"}
WAVES = (("stage1", "stage2"), ("untrained", "untrained_stage2", "text_alone"), ("joint",), ("one_run",))
UNTRAINED_STEPS = 60  # in which only the statistics of BatchNorm move


@dataclass
class Study:
    """Where the study lies, of which dictionary, and what it asks."""

    lexicon: Path
    out: Path
    signers: list[str]  # each is held out once
    seeds: list[int]
    lines: dict[str, Any]  # of recipes, for every run of a stage that knows them

    @property
    def pairs(self) -> Path:
        """The table of sentences."""
        return self.out / "sentences.tsv"

    @property
    def signs(self) -> Path:
        """The signs alone, packed."""
        return self.out / "signs"

    @property
    def text_form(self) -> TextForm:
        """How sentences are scored."""
        return CONVENTIONS["words"]

    def corpus(self, signer: str) -> Path:
        """The corpus in which a signer is held out."""
        return self.out / f"corpus-{signer}"

    def sentences_step(self) -> Step:
        """Draw the sentences."""
        return fla("sentences", ["prepare", "sentences", "--grammar", GRAMMAR, "--out", self.pairs], self.pairs)

    def splice_step(self, signer: str) -> Step:
        """Splice the corpus of a held-out signer."""
        words = ["prepare", "splice", "--lexicon", self.lexicon, "--pairs", self.pairs, "--signs", self.signs]
        words += ["--test-signers", signer, "--same-signers-in-dev", "--frame-stride", "4", "--language", "en_XX"]
        return fla(f"corpus-{signer}", [*words, "--out", self.corpus(signer)])

    def fold(self, signer: str, seed: int) -> "Fold":
        """The runs of a held-out signer and a seed."""
        return Fold(self, signer, seed)


@dataclass
class Fold:
    """All that is run for one held-out signer and one seed."""

    study: Study
    signer: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where its runs lie."""
        return self.study.out / f"seed-{self.seed}" / self.signer

    def run(self, name: str) -> Run:
        """One of its runs."""
        corpus, stage1 = str(self.study.corpus(self.signer)), str(self.folder / "stage1")
        of_run = {
            "stage1": ("stage1", {}),
            "stage2": ("stage2", {"stage1_checkpoint": stage1}),
            "untrained": (
                "stage1",
                {"visual_learning_rate": 0.0, "max_steps": UNTRAINED_STEPS, "eval_strategy": "no"},
            ),
            "untrained_stage2": ("stage2", {"stage1_checkpoint": str(self.folder / "untrained")}),
            "text_alone": ("text_alone", {"tokenizer": stage1}),
            "joint": ("joint", {"tokenizer": stage1}),
            "one_run": ("one_run", {"tokenizer": stage1}),
        }
        recipe, lines = of_run[name]
        stage = "stage1" if recipe == "stage1" else "stage2"
        known = read_lines(
            Stage1Arguments if stage == "stage1" else Stage2Arguments, ROOT / RECIPES / f"{recipe}.yaml"
        )
        given = {key: value for key, value in self.study.lines.items() if key in known or key in COMMON_LINES}
        dataset = str(self.without_video) if name == "text_alone" else corpus
        return Run(
            self.folder / name,
            stage,
            RECIPES / f"{recipe}.yaml",
            {"dataset": dataset, "seed": self.seed} | lines | given,
        )

    @property
    def without_video(self) -> Path:
        """The sentences of its corpus, each with the same meaningless feature in place of a video."""
        return self.study.out / f"without-video-{self.signer}"

    def steps(self, wave: tuple[str, ...]) -> Iterator[Step]:
        """The commands of some of its runs, with what they need before."""
        yield self.study.sentences_step()
        yield self.study.splice_step(self.signer)
        for name in wave:
            if name == "text_alone":
                table = self.study.out / f"without-video-{self.signer}.tsv"
                words = ["prepare", "features", "--root", table, "--language", "en_XX", "--out", self.without_video]
                yield fla(self.without_video.name, words)
            yield self.run(name).step(self.study.out)

    def write_table_without_video(self) -> None:
        """Write the table of sentences without videos, and the one feature that all of them have."""
        import numpy as np

        file = self.study.out / f"without-video-{self.signer}.tsv"
        if file.exists():
            return
        np.save(self.study.out / "no-video.npy", np.ones((1, 8), np.float32))
        rows = []
        for split in ("train", "dev", "test"):
            corpus = PackedCorpus(self.study.corpus(self.signer), split)
            rows += [
                ("no-video.npy", sentence, split, id_)
                for sentence, id_ in zip(corpus.sentences, corpus.ids, strict=True)
            ]
        write_table(file, ("features", "sentence", "split", "id"), rows)

    def isolated_file(self, encoder: str) -> Path:
        """Which sign a linear layer reads in each clip of the held-out signer."""
        return self.folder / f"isolated-{encoder}.json"

    def probe_file(self, encoder: str) -> Path:
        """The glosses that a linear CTC probe reads in each test sentence."""
        return self.folder / f"probe-{encoder}.json"

    def measure_isolated(self, encoder: str) -> None:
        """Read single signs of the held-out signer from an encoder; what has been read is not read again."""
        if self.isolated_file(encoder).exists():
            return
        from experiments.real_signs.isolated import pool_signs, read_signs

        signs = Signs(self.study.signs)
        pooled = pool_signs(self.folder / encoder, signs, self.folder / "features")
        places = {id_: place for place, id_ in enumerate(pooled.ids)}
        rows, has_splits = read_lexicon(self.study.lexicon, Reading(), sentence_column="gloss")
        dealt = [row for row in deal(rows, has_splits, Splits([self.signer], (), True), seed=0) if row.id in places]
        splits = {}
        for split in ("train", "dev", "test"):
            of_split = [row for row in dealt if row.split == split]
            splits[split] = pooled.features[[places[row.id] for row in of_split]], [row.sentence for row in of_split]
        predictions, weight_decay = read_signs(splits)
        found = {"predictions": predictions, "references": splits["test"][1], "weight_decay": weight_decay}
        write_text(self.isolated_file(encoder), json.dumps(found))

    def measure_glosses(self, encoder: str) -> None:
        """Read glosses from an encoder by a linear CTC probe; what has been read is not read again."""
        if self.probe_file(encoder).exists():
            return
        from experiments.probe import encode_splits, probe_glosses

        splits = encode_splits(self.folder / encoder, self.study.corpus(self.signer), self.folder / "features")
        write_text(self.probe_file(encoder), json.dumps(probe_glosses(splits, "linear", self.seed)))


COMMON_LINES = ("per_device_eval_batch_size", "disable_tqdm", "dataloader_num_workers", "max_steps", "use_cpu")


def fla(name: str, words: list, output: Path | None = None) -> Step:
    """A step that is no training run."""
    return Step(name, ["fla", *map(str, words)], output)


def run_study(study: Study, waves: tuple[tuple[str, ...], ...], probes: bool) -> int:
    """Run what is not done yet; 0, or the exit status of the command that failed."""
    log = CommandLog(study.out, "experiments.real_signs", environment={"TOKENIZERS_PARALLELISM": "false"})
    folds = [[study.fold(signer, seed) for signer in study.signers] for seed in study.seeds]
    log.check(run for of_seed in folds for fold in of_seed for wave in waves for run in fold.steps(wave))
    status = 0
    for of_seed in folds:
        for wave in waves:
            for fold in of_seed:
                if status:
                    return status
                if "text_alone" in wave:  # of the corpus that the first wave made
                    fold.write_table_without_video()
                for name in wave:
                    status = status or log.run(fold.steps((name,)))
                    if name in ENCODERS and not status:
                        fold.measure_isolated(name)
        if probes and not status:
            for fold in of_seed:
                for encoder in (name for name in ENCODERS if any(name in wave for wave in waves)):
                    fold.measure_glosses(encoder)
    return status
