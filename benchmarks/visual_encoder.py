"""Does our visual encoder cost more than the bare backbone it holds?

    python -m benchmarks.visual_encoder [--quick | --size 112] [--repeats 7] [--cpu-time] [--json]        15 minutes

Forward and backward of a ragged batch of eight videos with PHOENIX14T's lengths, against torchvision's `resnet18` in
channels_last on the same 232 real frames, packed beforehand. In turn, medians, fp32 and bf16 autocast; bf16 is left
out, and said so, on a processor that only emulates it (hours). Nothing is asked of our encoder but to run: it is made
as a user makes it. Limit: 1.05 times.
"""

import argparse
import sys
import time

import torch
import torchvision

from modeling_fla import FlaVisionConfig, FlaVisualEncoder

LIMIT = 1.05
# Eight videos of PHOENIX14T after one frame in four is kept: 232 real frames, 392 with padding.
LENGTHS = (49, 38, 33, 29, 26, 23, 19, 15)


def make_batch(lengths: tuple[int, ...], size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded videos, their mask, and the same real frames packed in channels_last."""
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
    videos = torch.randn(*mask.shape, 3, size, size)
    frames = videos[mask.bool()].contiguous(memory_format=torch.channels_last)
    return videos, mask, frames


def make_works(videos: torch.Tensor, mask: torch.Tensor, frames: torch.Tensor, bf16: bool) -> dict:
    """One training step's forward and backward: ours and the bare backbone's."""
    encoder = FlaVisualEncoder(FlaVisionConfig()).train()
    bare = torchvision.models.resnet18(weights=None).to(memory_format=torch.channels_last).train()
    bare.fc = torch.nn.Identity()

    def step(network, forward) -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            features = forward()
        features.float().sum().backward()

    return {
        "bare": lambda: step(bare, lambda: bare(frames)),
        "ours": lambda: step(encoder, lambda: encoder(videos, mask).last_hidden_state),
    }


def has_bf16() -> bool:
    """Whether the processor computes in bf16 itself."""
    abilities = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say
    return any(present is True and name.endswith("bf16") for name, present in abilities.items())


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where the limit is exceeded."""
    from benchmarks.measuring import ratio_of_medians, report, seconds_in_turn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels on a side")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="64 pixels: to see that it runs, not to measure")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, where the machine is not quiet")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.manual_seed(0)
    batch = make_batch(LENGTHS, 64 if options.quick else options.size)
    rows, details = [], {}
    precisions = ("fp32", "bf16") if has_bf16() else ("fp32",)
    if not has_bf16():
        print("bf16 is left out: this processor only emulates it", file=sys.stderr)
    for precision in precisions:
        seconds = seconds_in_turn(make_works(*batch, bf16=precision == "bf16"), options.repeats, clock)
        ratio = ratio_of_medians(seconds, "ours", "bare")
        rows.append((f"visual encoder / bare resnet18, {precision}", ratio, LIMIT))
        details[precision] = seconds
    return report(rows, " x", options.json, seconds=details)


if __name__ == "__main__":
    sys.exit(main())
