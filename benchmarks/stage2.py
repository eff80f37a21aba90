"""Does an epoch of stage 2 from the feature cache cost more than one of the bare language model?

    python -m benchmarks.stage2 [--quick] [--sizes large,demo] [--repeats 5] [--cpu-time] [--json]

Ours is the real run: trainer, sampler, stored features, collation, adapter, language model. Bare is a plain loop over
the very same language model with the same optimizer state, schedule and label-smoothed loss, whose batches (random
embeddings of the same shapes, the same masks and targets) lie ready in memory. Epochs in turn, medians, in fp32.

- `large`: a random MBart-large of a trimmed vocabulary (1024 wide, 12 + 12 layers, 2,429 pieces; 7 GB of memory),
  batches of 4, 4 steps an epoch. Limit 1.05. A few minutes on two cores.
- `demo`: the demo's MBart (192 wide, 3 + 3 layers), batches of 16, 20 steps an epoch. The model is so small that what
  a step costs beside it shows. Limit 1.15.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from transformers import TrainerCallback, get_cosine_schedule_with_warmup

SMOOTHING = 0.2


@dataclass(frozen=True)
class Size:
    """What is measured: the language model, a batch of clips, the clips of an epoch, and the limit."""

    width: int
    layers: int
    batch: int
    clips: int
    limit: float


SIZES = {"large": Size(1024, 12, 4, 16, 1.05), "demo": Size(192, 3, 16, 320, 1.15), "quick": Size(64, 1, 16, 32, 9.9)}
PIECES = 2429  # the vocabulary that Table 7's parameters need; `fla trim` keeps 2,178 of PHOENIX14T's sentences
RECIPE = {
    "language_code": "de_DE", "frame_size": 40, "crop_size": 36, "visual_feature_size": 128,
    "vision_backbone": {
        "model_type": "resnet", "layer_type": "basic", "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1], "downsample_in_first_stage": False,
    },
    "optimizer": "adam", "learning_rate": 3e-4, "adapter_learning_rate": 1e-3, "label_smoothing_factor": SMOOTHING,
    "num_train_epochs": 1, "per_device_eval_batch_size": 32,
    "train_sampling_strategy": "group_by_length", "use_cpu": True, "disable_tqdm": True, "logging_strategy": "no",
    "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
}  # fmt: skip


def make_trainer(folder: Path, size: Size):
    """The trainer of a real stage 2, on a demo corpus packed into `folder` and features stored beside it."""
    from experiments.drawn.demo import read_demo
    from processing_fla import train_tokenizer
    from run_stage2 import build_model
    from training_fla.data.packing import pack
    from training_fla.recipe import Stage2Arguments, parse_recipe
    from training_fla.stages import building, launch

    rows = read_demo(num_train=size.clips, num_dev=2, num_test=2, size=40)
    pack(rows, folder / "corpus", size=40, num_workers=0, corpus="demo")
    lines = {**RECIPE, "dataset": str(folder / "corpus"), "output_dir": str(folder / "run")}
    lines["per_device_train_batch_size"] = size.batch
    (folder / "recipe.yaml").write_text(yaml.safe_dump(lines))
    recipe = parse_recipe(Stage2Arguments, [str(folder / "recipe.yaml")], __doc__)
    splits = building.open_splits(recipe)
    processor = building.make_processor(recipe, train_tokenizer(splits.train.sentences, 2000, ("de_DE",)))
    recipe.model.language_model_config = {
        "model_type": "mbart", "d_model": size.width, "scale_embedding": True, "vocab_size": PIECES,
        "encoder_layers": size.layers, "encoder_attention_heads": size.width // 64, "encoder_ffn_dim": 4 * size.width,
        "decoder_layers": size.layers, "decoder_attention_heads": size.width // 64, "decoder_ffn_dim": 4 * size.width,
    }  # fmt: skip
    model = build_model(recipe, processor)
    return building.make_trainer(recipe, launch.training_arguments(recipe), splits, processor, model)


class EpochClock(TrainerCallback):
    """Keeps the seconds of every epoch, without what a run does before and after."""

    def __init__(self, clock):
        self.clock, self.seconds = clock, []

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Start."""
        self.start = self.clock()

    def on_epoch_end(self, args, state, control, **kwargs):
        """Stop."""
        self.seconds.append(self.clock() - self.start)


def bare_epoch(trainer, clock):
    """A function that trains the language model for an epoch, as plain PyTorch does, and times it."""
    language_model = trainer.model.language_model
    batches = []
    for batch in map(trainer.prepare_batch, trainer.get_train_dataloader()):
        shape = (*batch["attention_mask"].shape, language_model.config.d_model)
        labels = batch["labels"]
        inputs = {"inputs_embeds": torch.randn(shape)}
        inputs |= {name: batch[name] for name in ("attention_mask", "decoder_input_ids")}
        batches.append((inputs, labels))
    optimizer = torch.optim.Adam(language_model.parameters(), lr=3e-4, fused=True)
    optimizer.state = trainer.optimizer.state  # there is room for one
    scheduler = get_cosine_schedule_with_warmup(optimizer, 0, 1000 * len(batches))

    def epoch() -> float:
        language_model.train()
        start = clock()
        for inputs, labels in batches:
            logits = language_model(**inputs, use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING)
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        return clock() - start

    return epoch


def measure(size: Size, repeats: int, clock) -> dict[str, list[float]]:
    """Seconds of our epochs and of the bare ones."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(Path(folder), size)
        watch = EpochClock(clock)
        trainer.add_callback(watch)
        trainer.train()  # not counted, as the first of the bare ones
        bare = bare_epoch(trainer, clock)
        bare()
        watch.seconds, bare_seconds = [], []
        for turn in range(repeats):
            works = [trainer.train, lambda: bare_seconds.append(bare())]
            for work in works if turn % 2 else reversed(works):
                work()
    return {"ours": watch.seconds, "bare": bare_seconds}


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where a limit is exceeded."""
    from benchmarks.measuring import ratio_of_medians, report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="large,demo", help="which of large and demo")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, where the machine is not quiet")
    parser.add_argument("--quick", action="store_true", help="a small model: to see that it runs, not to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    if options.quick:
        options.sizes, options.repeats = "quick", 2
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds = {name: measure(SIZES[name], options.repeats, clock) for name in options.sizes.split(",")}
    rows = [
        (
            f"stage 2 from the cache / bare language model, {name}",
            ratio_of_medians(times, "ours", "bare"),
            SIZES[name].limit,
        )
        for name, times in seconds.items()
    ]
    return report(rows, " x", options.json, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
