"""How fast is everything on one GPU, beside the bare networks? One command, at most eight minutes.

    python -m benchmarks.gpu [--out gpu.json] [--workers 14] [--phoenix14t FOLDER] [--minutes 8] [--quick]

It needs this repository, torch, transformers and one GPU; it downloads nothing. Of several visible GPUs it takes the
first. Each figure is printed and written to the file as soon as it is known: a part that fails, or that the minutes do
not suffice for, costs only itself and is named under `failed`. Seven parts:

1. stage 1: ten batches of 8 clips of PHOENIX14T's lengths (224 pixels, noise as large in JPEG as a recording) lie on
   the device and are trained on four times: fp32 with TF32, bf16, fp16, and compiled. Of each: the first pass (cold:
   kernels are planned and compiled), the third (warm, as in a run), and the fourth, in which nothing waits for the
   loss: the host's time to start a step, and the device's, which is at most what a step takes then. Beside them bare
   ResNet18, with weights in channels_last, on as many frames; operations that wait for the device, a step;
   evaluation of 519 clips from frames
2. one clip of 25 frames to a sentence of 20 tokens by five beams
3. the loader: augmented training frames a second from packed JPEG; and a whole run for twenty seconds, loader and all
4. stage 2: ten batches of 16 clips, likewise, with MBart-large and a trimmed vocabulary from stored features, against
   the bare language model; evaluation of 519 clips by beam search
5. the most GPU memory of each
6. two GPUs, if they are visible: a step of stage 1 on both, as `torchrun` starts it
7. both stages on drawn clips of 64 pixels, scored: the demo's, or with --phoenix14t (the unpacked release, of which
   only the annotation files are read) PHOENIX14T's sentences of its 60 commonest glosses

`--quick` makes every part so small that it runs on a processor: to see that it works, not to measure.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from transformers import TrainerCallback

# PHOENIX14T's clips have 27 to 475 source frames, 116 on the average, 9 in 10 between 50 and 200.
MEAN_FRAMES, DEVIATION = 116, 45
BATCHES, PASSES = 10, 4  # that lie on the device, and how often each is trained on
SHARED_MEMORY = 3e9  # bytes of /dev/shm that the workers' batches need
MODES = {
    "fp32 (TF32)": {"tf32": True},
    "bf16": {"bf16": True, "tf32": True},
    "fp16": {"fp16": True, "tf32": True},
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


class FixedBatches:
    """Batches that lie on the device, some passes over them; it stands in for a loader."""

    def __init__(self, batches: list[dict], passes: int):
        self.batches, self.passes = batches, passes

    def __len__(self) -> int:
        """Of all passes."""
        return len(self.batches) * self.passes

    def __iter__(self):
        """The batches of each pass; a step takes entries out of its own copy."""
        for _ in range(self.passes):
            yield from map(dict, self.batches)


class PassClock(TrainerCallback):
    """Seconds of each pass with the device's work done, and of the last one those of starting its steps alone."""

    def __init__(self, trainer, steps_a_pass: int):
        self.trainer, self.steps_a_pass = trainer, steps_a_pass
        self.seconds: list[float] = []
        self.host_seconds: list[float] = []
        self.first_step = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        """Start a pass."""
        if state.global_step == (PASSES - 1) * self.steps_a_pass:  # in this one the host may run ahead
            self.trainer.loss_check.check = lambda loss, indices: None
        if state.global_step % self.steps_a_pass == 0:
            wait()
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Stop after the first step, and after a pass."""
        if state.global_step == 1:
            wait()
            self.first_step = time.perf_counter() - self.start
        if state.global_step % self.steps_a_pass == 0:
            self.host_seconds.append(time.perf_counter() - self.start)
            wait()
            self.seconds.append(time.perf_counter() - self.start)


class RunClock(TrainerCallback):
    """Real frames a second of a run as it is, loader and all, after some steps that are not counted."""

    def __init__(self, trainer, uncounted: int):
        self.trainer, self.uncounted = trainer, uncounted

    def on_step_end(self, args, state, control, **kwargs):
        """Begin to count after the first steps."""
        if state.global_step == self.uncounted:
            self.before = self.number()
            self.start = time.perf_counter()

    def number(self) -> int:
        """Frames so far; asking waits for the device."""
        return int(self.trainer.throughput.own["frames"])

    def rate(self) -> float:
        """Frames a second."""
        number = self.number()
        return (number - self.before) / (time.perf_counter() - self.start)


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


@contextlib.contextmanager
def watched_waits(device: torch.device):
    """Let CUDA warn of every operation that waits for it."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


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
    """The parts on one packed corpus of random frames."""

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
        if self.options.gpus > 1:
            guard("two GPUs", self.two_gpus)
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
        """Parts 1 and 2, and the memory of part 5."""
        if self.device.type == "cpu":
            lines = {"torch_compile": True, "torch_compile_backend": "eager"} if "torch_compile" in lines else {}
        self.forget_memory()
        torch.compiler.reset()
        trainer = self.stage1_trainer(lines)
        frames, warm = self.train(trainer, "stage 1", f"step of 8 clips, {name}")
        self.report.add("stage 1", f"real frames a second, {name}", sum(frames) / len(frames) / warm, "1/s")
        self.report.add("memory", f"stage 1, {name}", self.most_memory(), "GiB")
        self.report.add("stage 1", f"waits for the device a step, {name}", self.waits(trainer), "")
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name.split(",")[0])
        bare = self.bare_resnet(frames, dtype, compiled="compiled" in name and self.device.type == "cuda")
        self.report.add("stage 1", f"step / bare resnet18 on as many frames, {name}", warm / bare, "times")
        if name == "bf16":
            self.report.guard("one clip", self.one_clip, trainer)
            self.evaluate(trainer, "stage 1", "from frames")

    def one_clip(self, trainer) -> None:
        """Part 2: from frames on the device to token ids."""
        frames, tokens = (3, 4) if self.quick else (25, 20)
        video = torch.randint(0, 256, (1, frames, 3, self.crop, self.crop), dtype=torch.uint8, device=self.device)
        model = trainer.model.eval()

        def translate() -> None:
            with torch.inference_mode(), trainer.accelerator.autocast():
                model.generate(pixel_values_videos=video, num_beams=5, min_new_tokens=tokens, max_new_tokens=tokens)

        self.report.add("one clip", f"{frames} frames to {tokens} tokens, beams 5", median_seconds(translate, 5), "s")

    def evaluate(self, trainer, part: str, inputs: str) -> None:
        """Translate the clips that are not trained on."""
        self.forget_memory()
        start = time.perf_counter()
        trainer.evaluate()
        seconds = time.perf_counter() - start
        self.report.add(part, f"beam-5 evaluation of {self.clips[1]} clips {inputs}", seconds, "s")
        self.report.add("memory", f"{part}, evaluation", self.most_memory(), "GiB")

    def bare_resnet(self, counts: list[int], dtype: torch.dtype | None, compiled: bool) -> float:
        """Forward, backward and step of torchvision's ResNet18 on so many frames in channels_last, mean seconds."""
        import torchvision

        network = torchvision.models.resnet18(num_classes=4 if self.quick else 512)
        network = network.to(self.device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)
        frames = torch.randn(max(counts), 3, self.crop, self.crop, device=self.device)
        frames = frames.contiguous(memory_format=torch.channels_last)
        run = torch.compile(network, dynamic=True) if compiled else network

        def work() -> None:
            for count in counts:
                with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                    out = run(frames[:count])
                out.float().square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()

        return median_seconds(work, 2, warm_up=2) / len(counts)

    def loader(self) -> None:
        """Part 3: an epoch of the training loader alone, then a run."""
        loader = self.stage1_trainer({}).get_train_dataloader()
        for _ in range(2):  # in the first epoch workers begin and files come into memory
            start = time.perf_counter()
            frames = sum(int(batch["attention_mask"].sum()) for batch in loader)
        self.report.add("loader", "augmented training frames a second", frames / (time.perf_counter() - start), "1/s")
        lines = {"bf16": True, "tf32": True} if self.device.type == "cuda" else {}
        trainer = self.stage1_trainer(lines | {"max_steps": 4 if self.quick else 10**6})
        trainer.add_callback(TimeLimit(20))
        trainer.add_callback(clock := RunClock(trainer, 2 if self.quick else 30))
        trainer.train()
        self.report.add("loader", "real frames a second of a run, loader and all", clock.rate(), "1/s")

    def stage2(self) -> None:
        """Part 4, and the memory of part 5."""
        size = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1} if self.quick else {"d_model": 1024}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2} if self.quick else {}
        mbart = {"model_type": "mbart", **size, **heads, "vocab_size": 2429, "scale_embedding": True}
        lines = {
            "language_model_config": mbart, "optimizer": "adam", "learning_rate": 1e-5, "adapter_learning_rate": 1e-3,
            "per_device_train_batch_size": 16, "per_device_eval_batch_size": 4 if self.quick else 64,
            "tokenizer": self.tokenizer(), "bf16": True,
        }  # fmt: skip
        self.forget_memory()
        start = time.perf_counter()
        trainer = self.make_trainer("2", lines)
        seconds = time.perf_counter() - start
        self.report.add("stage 2", "making the model, encoding and storing all clips", seconds, "s")
        _, seconds = self.train(trainer, "stage 2", "step of 16 clips from stored features, bf16")
        self.report.add("memory", "stage 2, bf16", self.most_memory(), "GiB")
        self.report.add("stage 2", "waits for the device a step", self.waits(trainer), "")
        self.report.guard("bare language model", self.against_bare, trainer, seconds)
        self.evaluate(trainer, "stage 2", "from stored features")

    def against_bare(self, trainer, seconds: float) -> None:
        """Part 4's ratio."""
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
        for batch in trainer.get_train_dataloader().batches:
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
        """Part 7: both stages on drawn clips, each as long as the minutes left allow, and their test scores."""
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

    def train(self, trainer, part: str, what: str) -> tuple[list[int], float]:
        """Report the passes over ten batches; the frames or positions of each batch, and warm seconds of a step."""
        loader = trainer.get_train_dataloader()
        batches = list(map(trainer.prepare_batch, islice(loader, 2 if self.quick else BATCHES)))
        del loader
        trainer.get_train_dataloader = lambda: FixedBatches(batches, PASSES)
        trainer.prepare_batch = lambda batch: batch
        trainer.args.max_steps = PASSES * len(batches)
        trainer.add_callback(clock := PassClock(trainer, len(batches)))
        trainer.train()
        cold, _, warm, ahead = (seconds / len(batches) for seconds in clock.seconds)
        host = clock.host_seconds[-1] / len(batches)
        self.report.add(part, f"first {what}", clock.first_step, "s")
        self.report.add(part, f"{what}: cold", cold, "s")
        self.report.add(part, f"{what}: warm", warm, "s")
        self.report.add(part, f"{what}: host", host, "s")
        self.report.add(part, f"{what}: device, at most", ahead, "s")
        return [batch["num_frames"] for batch in batches], warm

    def waits(self, trainer) -> float:
        """Operations that wait for the device in one batch's forward and backward pass, as CUDA counts them."""
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.train()
        wait()
        with warnings.catch_warnings(record=True) as seen, watched_waits(self.device):
            warnings.simplefilter("always")
            trainer.training_step(trainer.model_wrapped, batch)
        found = [str(warning.message) for warning in seen if "synchroniz" in str(warning.message)]
        for message in found:
            print("  ", message[:100], flush=True)
        return len(found)

    def two_gpus(self) -> None:
        """Part 6: the seconds of some more steps, on both."""
        recipe = sorted(self.folder.glob("stage1-*.yaml"))[0]
        seconds = {}
        for steps in (4, 8) if self.quick else (40, 120):
            out = self.folder / f"together-{steps}"
            lines = ["--output_dir", str(out), "--max_steps", str(steps), "--per_device_train_batch_size", "4"]
            lines += ["--max_eval_clips", "2"]
            lines += ["--ddp_backend", "gloo"] if self.device.type == "cpu" else ["--bf16", "true", "--tf32", "true"]
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
            root = Path(__file__).resolve().parents[1]
            environment = os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": self.options.visible}
            command = [*launch, str(root / "run_stage1.py"), str(recipe), *lines]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-300:])
            seconds[steps] = json.loads((out / "metrics.json").read_text())["train"]["training_seconds"]
        few, many = sorted(seconds)
        per_step = (seconds[many] - seconds[few]) / (many - few)
        self.report.add("two GPUs", "step of 8 clips with the loader, bf16", per_step, "s")

    def forget_memory(self) -> None:
        """Measure from here on."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def most_memory(self) -> float:
        """GiB at most since `forget_memory`; 0 without a GPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0


class DrawSmoothNoise:
    """Frames of smooth noise and grain, whose JPEG files are as large as those of a recording; picklable."""

    def __init__(self, frames: int, size: int, seed: int):
        self.frames, self.size, self.seed = frames, size, seed

    def __call__(self) -> np.ndarray:
        """Draw: `(S, H, W, 3)` uint8."""
        chance = np.random.default_rng(self.seed)
        side = self.size // 16 + 2
        coarse = torch.from_numpy(chance.integers(40, 216, (self.frames, 3, side, side))).float()
        smooth = F.interpolate(coarse, size=self.size, mode="bilinear").permute(0, 2, 3, 1).numpy()
        grain = chance.normal(0, 1.5, (self.frames, self.size, self.size, 1))  # 19 kB a frame of 256 pixels
        return np.clip(smooth + grain, 0, 255).astype(np.uint8)


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
    parser.add_argument("--phoenix14t", metavar="FOLDER", help="for part 7: the unpacked release of PHOENIX14T")
    parser.add_argument("--minutes", type=float, default=8, help="at most so many; what is left is named")
    parser.add_argument("--quick", action="store_true", help="so small that a processor runs it: to see that it works")
    options = parser.parse_args(args)
    options.gpus, options.visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if options.gpus > 1:
        options.visible = options.visible or ",".join(map(str, range(options.gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = options.visible.split(",")[0]  # before anything asks the driver
    if not options.quick and options.workers and shutil.disk_usage("/dev/shm").free < SHARED_MEMORY:
        parser.error("/dev/shm has less than 3 GB: start the container with --shm-size 16g, or give --workers 0")
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
