"""How fast is everything on one GPU, beside the bare networks? One command, at most eight minutes.

    python -m benchmarks.gpu [--out gpu.json] [--workers 14] [--phoenix14t FOLDER] [--minutes 8] [--quick]

It needs this repository, torch, transformers and one GPU; it downloads nothing. Each figure is printed and written
to the file as soon as it is known: a part that fails, or that the minutes do not suffice for, costs only itself and is
named under `failed`. Five parts:

1. stage 1: a training step on clips of PHOENIX14T's lengths (224 pixels, random frames) against bare ResNet18 on as
   many real frames: fp32 with TF32, bf16, and compiled; operations that wait for the device, a step;
   evaluation of 519 clips from frames
2. the loader: augmented training frames a second from packed JPEG
3. stage 2: a step of MBart-large with a trimmed vocabulary from stored features against the bare language model, and
   the evaluation of 519 clips by beam search
4. the most GPU memory of each
5. both stages on drawn clips of 64 pixels, scored: the demo's, or with --phoenix14t (the unpacked release, of which
   only the annotation files are read) PHOENIX14T's sentences of its 60 commonest glosses

`--quick` makes every part so small that it runs on a processor: to see that it works, not to measure.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from transformers import TrainerCallback

# PHOENIX14T's clips have 27 to 475 source frames, 116 on the average, 9 in 10 between 50 and 200.
MEAN_FRAMES, DEVIATION = 116, 45
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
MODES = {
    "fp32 (TF32)": {"tf32": True},
    "bf16": {"bf16": True, "tf32": True},
    "bf16, compiled": {"bf16": True, "tf32": True, "torch_compile": True},
}
TINY = {
    "vision_backbone": {
        "model_type": "resnet", "layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1],
    },
    "visual_feature_size": 16,
}  # fmt: skip
# Of recipes/demo/stage1.yaml: the network, and no augmentation.
DRAWN_LINES = (
    "vision_backbone", "visual_feature_size", "light_t", "light_t_overrides", "rotate_degrees", "resize_factor",
    "translate_pixels",
)  # fmt: skip
SMALL_MBART = {
    "d_model": 192, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 768, "decoder_ffn_dim": 768, "scale_embedding": True,
    "init_std": 0.08,
}  # fmt: skip
OVER = "the minutes are over"
COMMON = {
    "language_code": "de_DE", "max_target_tokens": 128, "max_new_tokens": 40, "generation_num_beams": 5,
    "label_smoothing_factor": 0.2, "disable_tqdm": True, "logging_strategy": "no", "eval_strategy": "no",
    "save_strategy": "no", "load_best_model_at_end": False, "train_sampling_strategy": "group_by_length",
}  # fmt: skip


class Report:
    """The table: a line is printed and the file is written anew as soon as a figure is known."""

    def __init__(self, file: Path, device: str, minutes: float):
        self.file, self.rows, self.failed = file, [], []
        self.deadline = time.monotonic() + 60 * minutes
        self.about = {"device": device, "torch": torch.__version__, "python": platform.python_version()}

    def add(self, part: str, what: str, value: float, unit: str) -> None:
        """Print and keep one figure."""
        self.rows.append({"part": part, "what": what, "value": value, "unit": unit})
        print(f"{part:<10} {what:<58} {value:12.4g} {unit}", flush=True)
        self.write()

    def write(self) -> None:
        """Write what is known so far."""
        self.file.write_text(json.dumps({**self.about, "rows": self.rows, "failed": self.failed}, indent=1) + "\n")

    def guard(self, name: str, work, *args) -> None:
        """Do a part; where it fails, note why and go on."""
        try:
            if time.monotonic() > self.deadline:
                raise TimeoutError(OVER)
            work(*args)
        except Exception as error:
            traceback.print_exc()
            self.failed.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        self.write()


class StepClock(TrainerCallback):
    """Seconds of every training step, with the device's work done."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        """Start."""
        wait()
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Stop."""
        wait()
        self.seconds.append(time.perf_counter() - self.start)


class TimeLimit(TrainerCallback):
    """Ends training after some seconds."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def on_step_end(self, args, state, control, **kwargs):
        """Look."""
        if time.monotonic() > self.end:
            state.max_steps, control.should_training_stop = state.global_step, True  # it is to end here


def time_is_over(number, frame) -> None:
    """What the alarm does."""
    raise TimeoutError(OVER)


def wait() -> None:
    """Let the device finish."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_seconds(work, repeats: int, warm_up: int = 3) -> float:
    """Median seconds of a work, after some that are not counted."""
    seconds = []
    for _ in range(warm_up + repeats):
        wait()
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[warm_up:]))


class Bench:
    """The five parts on one packed corpus of random frames."""

    def __init__(self, folder: Path, report: Report, options: argparse.Namespace):
        self.folder, self.report, self.options, self.quick = folder, report, options, options.quick
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.size, self.crop = (40, 32) if self.quick else (256, 224)
        self.clips = (8, 4) if self.quick else (512, 519)  # trained on, evaluated
        self.steps = 3 if self.quick else 40

    def run(self) -> None:
        """All parts; each costs only itself."""
        guard = self.report.guard
        guard("corpus", self.make_corpus)
        for name, lines in MODES.items():
            guard(f"stage 1, {name}", self.stage1, name, lines)
        guard("loader", self.loader)
        guard("stage 2", self.stage2)
        guard("two stages", self.two_stages)

    def make_corpus(self) -> None:
        """Clips of PHOENIX14T's lengths whose frames are smooth noise, packed by a process a core."""
        from training_fla.corpora.clips import DrawnVideo
        from training_fla.corpora.row import CorpusRow

        chance, rows = np.random.default_rng(0), []
        for split, count in zip(("train", "dev"), self.clips, strict=True):
            for number in range(count):
                frames = int(np.clip(chance.normal(MEAN_FRAMES, DEVIATION), 27, 300)) // (8 if self.quick else 1)
                name = f"{split}-{number}"
                draw = DrawSmoothNoise(frames, self.size, number)
                rows.append(CorpusRow(name, DrawnVideo(draw, name=name), sentence(chance), split, language="de_DE"))
        rows.append(CorpusRow("test-0", DrawnVideo(DrawSmoothNoise(8, self.size, 0), name="t"), "eins", "test"))
        start = time.perf_counter()
        self.pack(rows, "corpus", self.size)
        self.report.add("corpus", "drawing and packing", time.perf_counter() - start, "s")

    def pack(self, rows: list, name: str, size: int) -> None:
        """Pack drawn clips into a folder beside the others."""
        from training_fla.data.packing import pack

        workers = 0 if self.quick else os.cpu_count()
        pack(rows, self.folder / name, size=size, num_workers=workers, corpus="drawn")

    def make_trainer(self, stage: str, lines: dict):
        """The trainer that `run_stage1.py` or `run_stage2.py` would make of a recipe."""
        import run_stage1
        import run_stage2
        from training_fla.recipe import Stage1Arguments, Stage2Arguments, parse_recipe
        from training_fla.stages import building, launch

        script, kind = {"1": (run_stage1, Stage1Arguments), "2": (run_stage2, Stage2Arguments)}[stage]
        name = f"stage{stage}-{len(list(self.folder.iterdir()))}"
        recipe = {
            **COMMON, "dataset": str(self.folder / "corpus"), "test_split": "dev",
            "output_dir": str(self.folder / name),
            "frame_size": self.size, "crop_size": self.crop, "imagenet_weights": None, "max_steps": self.steps,
            "dataloader_num_workers": 0 if self.quick else self.options.workers, "use_cpu": self.device.type == "cpu",
            **(TINY if self.quick and "stage1_checkpoint" not in lines else {}), **lines,
        }  # fmt: skip
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(recipe))
        parsed = parse_recipe(kind, [str(file)], __doc__)
        splits = building.open_splits(parsed)
        processor = script.build_processor(parsed, splits)
        model = script.build_model(parsed, processor)
        return building.make_trainer(parsed, launch.training_arguments(parsed), splits, processor, model)

    def stage1_trainer(self, lines: dict):
        """Of the paper's stage 1, on clips of random frames."""
        optimizer = {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "learning_rate": 1e-3}
        light = {"light_t": "tiny" if self.quick else "base", "train_tokenizer_pieces": 200}
        augment = {"augmentation_probability": 0.5, "random_frame_phase": True}
        batch = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 64}
        return self.make_trainer("1", optimizer | light | augment | batch | lines)

    def stage1(self, name: str, lines: dict) -> None:
        """Part 1, and the memory of part 4."""
        if self.device.type == "cpu":
            lines = {"torch_compile": True, "torch_compile_backend": "eager"} if "torch_compile" in lines else {}
        self.forget_memory()
        torch.compiler.reset()
        trainer = self.stage1_trainer(lines)
        seconds, first = self.train(trainer)
        self.report.add("stage 1", f"step of 8 clips, {name}", seconds, "s")
        self.report.add("stage 1", f"first step, {name}", first, "s")
        self.report.add("memory", f"stage 1, {name}", self.most_memory(), "GiB")
        self.report.add("stage 1", f"waits for the device a step, {name}", self.waits(trainer), "")
        for figure, value in trainer.throughput.figures().items():
            if "frames" in figure and isinstance(value, int | float):
                self.report.add("stage 1", f"{figure}, {name}", value, "")
        bare = self.bare_resnet(bf16="bf16" in name, compiled="compiled" in name and self.device.type == "cuda")
        self.report.add("stage 1", f"step / bare resnet18 on as many frames, {name}", seconds / bare, "times")
        if name == "bf16, compiled":
            self.evaluate(trainer, "stage 1", "from frames")

    def evaluate(self, trainer, part: str, inputs: str) -> None:
        """Translate the clips that are not trained on."""
        self.forget_memory()
        start = time.perf_counter()
        trainer.evaluate()
        seconds = time.perf_counter() - start
        self.report.add(part, f"beam-5 evaluation of {self.clips[1]} clips {inputs}", seconds, "s")
        self.report.add("memory", f"{part}, evaluation", self.most_memory(), "GiB")

    def bare_resnet(self, bf16: bool, compiled: bool) -> float:
        """Forward, backward and step of torchvision's ResNet18 on 232 frames in channels_last, seconds."""
        import torchvision

        count, classes = (16, 4) if self.quick else (232, 512)
        network = torchvision.models.resnet18(num_classes=classes).to(self.device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)
        frames = torch.randn(count, 3, self.crop, self.crop, device=self.device)
        frames = frames.contiguous(memory_format=torch.channels_last)
        run = torch.compile(network) if compiled else network

        def step() -> None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                out = run(frames)
            out.float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return median_seconds(step, self.steps)

    def loader(self) -> None:
        """Part 2: an epoch of the training loader alone."""
        loader = self.stage1_trainer({}).get_train_dataloader()
        for _ in range(2):  # in the first epoch workers begin and files come into memory
            start = time.perf_counter()
            frames = sum(int(batch["attention_mask"].sum()) for batch in loader)
        self.report.add("loader", "augmented training frames a second", frames / (time.perf_counter() - start), "1/s")

    def stage2(self) -> None:
        """Part 3, and the memory of part 4."""
        size = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1} if self.quick else {"d_model": 1024}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2} if self.quick else {}
        mbart = {"model_type": "mbart", **size, **heads, "vocab_size": 2429, "scale_embedding": True}
        lines = {
            "language_model_config": mbart, "optimizer": "adam", "learning_rate": 1e-5, "adapter_learning_rate": 1e-3,
            "per_device_train_batch_size": 8, "per_device_eval_batch_size": 4 if self.quick else 64,
            "tokenizer": self.tokenizer(), "bf16": True,
        }  # fmt: skip
        self.forget_memory()
        start = time.perf_counter()
        trainer = self.make_trainer("2", lines)
        self.report.add("stage 2", "encoding and storing the features of all clips", time.perf_counter() - start, "s")
        seconds, _ = self.train(trainer)
        self.report.add("stage 2", "step of 8 clips from stored features, bf16", seconds, "s")
        self.report.add("memory", "stage 2, bf16", self.most_memory(), "GiB")
        self.report.add("stage 2", "waits for the device a step", self.waits(trainer), "")
        self.report.guard("bare language model", self.against_bare, trainer, seconds)
        self.evaluate(trainer, "stage 2", "from stored features")

    def against_bare(self, trainer, seconds: float) -> None:
        """Part 3's ratio."""
        ratio = seconds / self.bare_language_model(trainer)
        self.report.add("stage 2", "step / bare language model", ratio, "times")

    def tokenizer(self) -> str:
        """A folder with a tokenizer of the drawn sentences."""
        from processing_fla import train_tokenizer

        folder = self.folder / "tokenizer"
        if not folder.exists():
            chance = np.random.default_rng(1)
            train_tokenizer([sentence(chance) for _ in range(200)], 200, ("de_DE",)).save_pretrained(folder)
        return str(folder)

    def bare_language_model(self, trainer) -> float:
        """Forward, backward and step of the same language model on random embeddings of a batch's shapes, seconds."""
        model = type(trainer.model.language_model)(trainer.model.language_model.config).to(self.device).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
        batches = []
        for batch in map(trainer.prepare_batch, trainer.get_train_dataloader()):
            shape = (*batch["attention_mask"].shape, model.config.d_model)
            names = ("attention_mask", "decoder_input_ids")
            inputs = {name: batch[name] for name in names}
            labels = batch["labels"]
            batches.append(({"inputs_embeds": torch.randn(shape, device=self.device), **inputs}, labels))

        def epoch() -> None:
            for inputs, labels in batches:
                with torch.autocast(self.device.type, torch.bfloat16):
                    logits = model(**inputs, use_cache=False).logits
                F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), label_smoothing=0.2).backward()
                optimizer.step()
                optimizer.zero_grad()

        return median_seconds(epoch, max(2, self.steps // len(batches)), warm_up=1) / len(batches)

    def two_stages(self) -> None:
        """Part 5: both stages on drawn clips, each as long as the minutes left allow, and their test scores."""
        from experiments.drawn.demo import read_demo
        from training_fla.stages.output_folder import save_model

        if self.options.phoenix14t is not None:
            from experiments.drawn.pairs import read_phoenix_pairs

            rows = read_phoenix_pairs(self.options.phoenix14t, num_glosses=60, size=64)
        else:
            rows = read_demo(**{"num_train": 8, "num_dev": 2, "num_test": 2} if self.quick else {}, size=64)
        self.pack(rows, "drawn", 64)
        common = {
            "dataset": str(self.folder / "drawn"), "test_split": "test", "frame_size": 64, "crop_size": 60,
            "label_smoothing_factor": 0.1, "max_grad_norm": 1.0, "bf16": self.device.type == "cuda",
            "max_steps": self.steps if self.quick else 2000, "per_device_eval_batch_size": 64,
        }  # fmt: skip
        stage1 = common | {
            "train_tokenizer_pieces": 400, "optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2,
            "warmup_steps": 50, "per_device_train_batch_size": 8, **drawn_network(), **(TINY if self.quick else {}),
        }  # fmt: skip
        stage2 = common | {
            "language_model_config": {"model_type": "mbart", **SMALL_MBART}, "optimizer": "adam",
            "learning_rate": 3e-4, "adapter_learning_rate": 1e-3, "per_device_train_batch_size": 16,
        }  # fmt: skip
        for number, lines in (("1", stage1), ("2", stage2)):
            trainer = self.make_trainer(number, lines)
            left = self.report.deadline - time.monotonic() - 20
            trainer.add_callback(TimeLimit(left / 2 if number == "1" else left))
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
            score = trainer.evaluate(trainer.test_dataset)["eval_bleu4"]
            self.report.add("drawn", f"stage {number}, {trainer.state.global_step} steps", seconds, "s")
            self.report.add("drawn", f"stage {number}, test BLEU-4", score, "")
            if number == "1":
                save_model(trainer, self.folder / "drawn-stage1")
                stage2 |= dict.fromkeys(("stage1_checkpoint", "tokenizer"), str(self.folder / "drawn-stage1"))

    def train(self, trainer) -> tuple[float, float]:
        """Median seconds of a step without the first quarter, in which kernels are planned, and those of the first."""
        clock = StepClock()
        trainer.add_callback(clock)
        trainer.train()
        return float(np.median(clock.seconds[len(clock.seconds) // 4 :])), clock.seconds[0]

    def waits(self, trainer) -> float:
        """Operations that wait for the device, a step, counted by the profiler in one batch's forward and backward."""
        from torch.profiler import ProfilerActivity, profile

        batch = trainer.prepare_batch(next(iter(trainer.get_train_dataloader())))
        wait()
        trainer.model.train()
        on_gpu = [ProfilerActivity.CUDA] if self.device.type == "cuda" else []
        with profile(activities=[ProfilerActivity.CPU, *on_gpu]) as watched:
            trainer.training_step(trainer.model_wrapped, batch)
        counts = {event.key: event.count for event in watched.key_averages()}
        print(
            "  ", {name: count for name, count in counts.items() if name in WAITS or "Synchronize" in name}, flush=True
        )
        return sum(counts.get(name, 0) for name in WAITS)

    def forget_memory(self) -> None:
        """Measure from here on."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def most_memory(self) -> float:
        """GiB at most since `forget_memory`; 0 without a GPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0


class DrawSmoothNoise:
    """Frames of smooth noise, whose JPEG files are as large as those of a real recording; picklable."""

    def __init__(self, frames: int, size: int, seed: int):
        self.frames, self.size, self.seed = frames, size, seed

    def __call__(self) -> np.ndarray:
        """Draw: `(S, H, W, 3)` uint8."""
        coarse = np.random.default_rng(self.seed).integers(0, 256, (self.frames, self.size // 8, self.size // 8, 3))
        return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def drawn_network() -> dict:
    """The lines of the demo's stage 1 that `DRAWN_LINES` names."""
    from training_fla.clone import ROOT
    from training_fla.recipe import Stage1Arguments, read_lines

    lines = read_lines(Stage1Arguments, ROOT / "recipes" / "demo" / "stage1.yaml")
    return {name: lines[name] for name in DRAWN_LINES}


def sentence(chance: np.random.Generator) -> str:
    """As many words as a sentence of PHOENIX14T has, of 60 different ones."""
    words = ("regen", "sonne", "wind", "norden", "sueden", "morgen", "heute", "abend", "kalt", "warm", "grad", "am")
    return " ".join(words[i] + "enst"[: i % 5] for i in chance.integers(0, len(words), int(chance.integers(6, 20))))


def main(args: list[str] | None = None) -> int:
    """Measure, print and write; 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--workers", type=int, default=max(1, min(14, (os.cpu_count() or 1) - 2)))
    parser.add_argument("--phoenix14t", metavar="FOLDER", help="for part 5: the unpacked release of PHOENIX14T")
    parser.add_argument("--minutes", type=float, default=8, help="at most so many; what is left is named")
    parser.add_argument("--quick", action="store_true", help="so small that a processor runs it: to see that it works")
    options = parser.parse_args(args)
    if not torch.cuda.is_available() and not options.quick:
        parser.error("no GPU is visible; --quick runs every part in miniature on the processor")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    report = Report(options.out, device, options.minutes)
    print(f"{device}, torch {torch.__version__}", flush=True)
    signal.signal(signal.SIGALRM, time_is_over)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes, 5)  # and again, for what goes on after a part in it
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            Bench(Path(folder), report, options).run()
    except TimeoutError:  # between two parts
        report.failed.append(OVER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    report.write()
    for line in report.failed:
        print(f"failed: {line}", flush=True)
    return int(bool(report.failed))


if __name__ == "__main__":
    sys.exit(main())
