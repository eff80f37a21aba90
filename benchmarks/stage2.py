"""Does an epoch of stage 2 from the feature cache cost more than one of the bare language model?

    python -m benchmarks.stage2 [--quick] [--clips 320] [--repeats 7] [--cpu-time] [--json]      a minute on two cores

Ours is the real run on a small demo corpus: trainer, sampler, stored features, collation, adapter, the demo's MBart
(192 wide, 3 + 3 layers), batches of 16. Bare is a plain loop over the same language model, optimizer, schedule and
label-smoothed loss, whose batches (random embeddings of the same shapes, the same masks and targets) lie ready in
memory. A model this small is the hard case: whatever a step costs beside the model weighs most there. Epochs in turn,
medians. Limit: 1.15 times.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from transformers import TrainerCallback, get_cosine_schedule_with_warmup

LIMIT = 1.15
SMOOTHING = 0.2
WIDTH, LAYERS = 192, 3  # as `fla denoise` makes the demo's language model
RECIPE = {
    "language_code": "de_DE", "frame_size": 40, "crop_size": 36, "visual_feature_size": 128,
    "vision_backbone": {
        "model_type": "resnet", "layer_type": "basic", "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1], "downsample_in_first_stage": False,
    },
    "optimizer": "adam", "learning_rate": 3e-4, "adapter_learning_rate": 1e-3, "label_smoothing_factor": SMOOTHING,
    "num_train_epochs": 1, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 32,
    "train_sampling_strategy": "group_by_length", "use_cpu": True, "disable_tqdm": True, "logging_strategy": "no",
    "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
}  # fmt: skip


def make_trainer(folder: Path, clips: int, width: int, layers: int):
    """The trainer of a real stage 2, on a demo corpus packed into `folder` and features stored beside it."""
    from processing_fla import train_tokenizer
    from run_stage2 import build_model
    from training_fla import stage
    from training_fla.corpora.drawn.demo import read_demo
    from training_fla.data.packing import pack
    from training_fla.recipe import Stage2Arguments, parse_recipe

    rows = read_demo(num_train=clips, num_dev=2, num_test=2, size=40)
    pack(rows, folder / "corpus", size=40, num_workers=0, progress=False, corpus="demo")
    lines = {**RECIPE, "dataset": str(folder / "corpus"), "output_dir": str(folder / "run")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(lines))
    recipe = parse_recipe(Stage2Arguments, [str(folder / "recipe.yaml")], __doc__)
    splits = stage.open_splits(recipe)
    processor = stage.make_processor(recipe, train_tokenizer(splits.train.sentences, 2000, ("de_DE",)))
    recipe.stage.language_model_config = {
        "model_type": "mbart", "d_model": width, "scale_embedding": True,
        "encoder_layers": layers, "encoder_attention_heads": width // 64, "encoder_ffn_dim": 4 * width,
        "decoder_layers": layers, "decoder_attention_heads": width // 64, "decoder_ffn_dim": 4 * width,
    }  # fmt: skip
    model = build_model(recipe, processor)
    return stage.make_trainer(recipe, stage.training_arguments(recipe), splits, processor, model)


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
    """A function that trains a copy of the language model for an epoch, as plain PyTorch does, and times it."""
    language_model = type(trainer.model.language_model)(trainer.model.language_model.config).train()
    batches = []
    for batch in trainer.get_train_dataloader():
        shape = (*batch["attention_mask"].shape, language_model.config.d_model)
        labels = batch["labels"]
        inputs = {"inputs_embeds": torch.randn(shape)}
        inputs |= {name: batch[name] for name in ("attention_mask", "decoder_input_ids")}
        batches.append((inputs, labels))
    optimizer = torch.optim.Adam(language_model.parameters(), lr=3e-4, fused=True)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 0, 1000 * len(batches))

    def epoch() -> float:
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


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where the limit is exceeded."""
    from benchmarks.measuring import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=320, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=7, help="epochs of each")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, where the machine is not quiet")
    parser.add_argument("--quick", action="store_true", help="a small model: to see that it runs, not to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    if options.quick:
        options.clips, options.repeats = 32, 2
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        size = (64, 1) if options.quick else (WIDTH, LAYERS)
        trainer = make_trainer(Path(folder), options.clips, *size)
        watch = EpochClock(clock)
        trainer.add_callback(watch)
        bare, bare_seconds = bare_epoch(trainer, clock), []
        for turn in range(options.repeats + 1):  # the first of each is not counted
            works = [trainer.train, lambda: bare_seconds.append(bare())]
            for work in works if turn % 2 else reversed(works):
                work()
    seconds = {"ours": watch.seconds[1:], "bare": bare_seconds[1:]}
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["bare"])
    rows = [("stage 2 from the cache / bare language model, an epoch", ratio, LIMIT)]
    return report(rows, " x", options.json, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
