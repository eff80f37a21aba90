"""How long does one clip take on one thread of a processor, and how much less does an int8 or exported model take?

    python -m benchmarks.serving [--quick] [--repeats 5] [--forms int8 onnx onnx-int8 openvino] [--cpu-time] [--json]

A clip of four seconds, 210 x 260 pixels, of which 25 frames are sampled; the paper's size, ResNet18 at 224 pixels and
MBart-large with a trimmed vocabulary, random weights; five beams, 18 tokens. In turn, medians. What is timed is what
`pipeline` does: read the file, frames to features, features to encoder states, search with the sentence's score. An
fp32 export must write the same tokens. Ten minutes, most of them for exporting; 5 GB. Limit: 0.45 of eager fp32; an
fp32 export is there to compare.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from transformers import MBartConfig

from modeling_fla import FlaConfig, FlaExportedForConditionalGeneration, FlaForConditionalGeneration
from processing_fla import FlaProcessor, FlaVideoProcessor, SignTranslationPipeline, train_tokenizer

LIMITS = {"int8": 0.45, "onnx-int8": 0.45, "onnx": 0.6, "openvino": 1.0}
PARTS = ("reading", "frames", "encoder", "search")
NUM_FRAMES = 100
NUM_TOKENS = 18


def make_processor(quick: bool) -> FlaProcessor:
    """The paper's frames; a tenth of their pixels for a quick look."""
    sentences = ("am abend kommt ein sturm", "heute nacht schneit es im norden")
    size = {"size": 64, "crop_size": 56} if quick else {"size": 256, "crop_size": 224}
    return FlaProcessor(FlaVideoProcessor(**size), train_tokenizer(sentences, 90, ("de_DE",)))


def make_model(quick: bool) -> FlaForConditionalGeneration:
    """ResNet18 and MBart-large; two narrow layers for a quick look."""
    torch.manual_seed(0)
    size = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2} if quick else {"d_model": 1024}
    ffn = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 128 if quick else 4096)
    text_config = MBartConfig(vocab_size=2429, decoder_start_token_id=4, **size, **ffn)
    return FlaForConditionalGeneration(FlaConfig(text_config=text_config)).eval()


def write_clip(file: Path) -> Path:
    """A drawn clip of PHOENIX14T's size."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 210, 260, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 256, (26, 21, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, 2 * number, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def make_form(name: str, model: FlaForConditionalGeneration, processor: FlaProcessor, folder: Path):
    """The model in another form; the int8 one is a copy."""
    import copy

    from training_fla.exporting import write_graphs
    from training_fla.viewing.loading import quantize

    if name == "int8":
        quantized = copy.deepcopy(model)
        quantize(quantized)
        return quantized
    export_format, _, precision = name.partition("-")
    model = copy.copy(model)
    model.language_model.set_attn_implementation("eager")
    try:
        write_graphs(model, processor, folder, export_format, precision or "fp32")
    finally:
        model.language_model.set_attn_implementation("sdpa")
    return FlaExportedForConditionalGeneration.from_pretrained(folder)


@torch.no_grad()
def translate(pipe: SignTranslationPipeline, clip: Path, clock) -> tuple[torch.Tensor, list[float]]:
    """Token ids, and the seconds that each of `PARTS` took."""
    times = [clock()]
    batch = pipe.preprocess(str(clip))["batch"]
    times.append(clock())
    features = pipe.model.get_sign_features(batch["pixel_values_videos"], batch["attention_mask"])
    times.append(clock())
    encoded = pipe.model.get_encoder()(sign_features=features, attention_mask=batch["attention_mask"])
    times.append(clock())
    options = {"num_beams": 5, "min_new_tokens": NUM_TOKENS, "max_new_tokens": NUM_TOKENS}
    ids, _ = pipe.generate(encoded, batch["attention_mask"], **options)
    times.append(clock())
    return ids, [after - before for before, after in zip(times, times[1:], strict=False)]


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where the limit is exceeded."""
    from benchmarks.measuring import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = f"of {', '.join(LIMITS)} [int8 onnx-int8]"
    parser.add_argument("--forms", nargs="+", choices=LIMITS, default=["int8", "onnx-int8"], metavar="FORM", help=text)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="of this process: for a machine that others use")
    parser.add_argument("--quick", action="store_true", help="a small model: to see that it runs, not to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args(args)
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(1)
    processor, model = make_processor(options.quick), make_model(options.quick)
    with tempfile.TemporaryDirectory(prefix="fla-serving-") as folder:
        clip = write_clip(Path(folder) / "clip.mp4")
        models = {"eager fp32": model}
        sizes = {}
        for name in options.forms:
            models[name] = make_form(name, model, processor, Path(folder) / name)
            sizes[name] = sum(file.stat().st_size for file in (Path(folder) / name).glob("*"))
        pipes = {
            name: SignTranslationPipeline(model=model, processor=processor, device="cpu")
            for name, model in models.items()
        }
        written = {name: translate(pipe, clip, clock)[0] for name, pipe in pipes.items()}  # not counted
        for name in {"onnx", "openvino"} & set(written):
            if not torch.equal(written[name], written["eager fp32"]):
                raise AssertionError(f"{name} and eager fp32 write different tokens")
        seconds = {name: [] for name in pipes}
        for number in range(options.repeats):
            for name in list(pipes) if number % 2 == 0 else reversed(pipes):
                seconds[name].append(translate(pipes[name], clip, clock)[1])
    totals = {name: statistics.median(map(sum, rounds)) for name, rounds in seconds.items()}
    parts = {
        name: dict(zip(PARTS, map(statistics.median, zip(*rounds, strict=True)), strict=True))
        for name, rounds in seconds.items()
    }
    if not options.json:
        for name, of_form in parts.items():
            milliseconds = ", ".join(f"{part} {1000 * value:.0f}" for part, value in of_form.items())
            size = f"; {sizes[name] / 1e6:,.0f} MB" if sizes.get(name) else ""
            print(f"{name:<12} {1000 * totals[name]:6.0f} ms a clip: {milliseconds}{size}", flush=True)
    rows = [(f"{name} / eager fp32", totals[name] / totals["eager fp32"], LIMITS[name]) for name in options.forms]
    return report(rows, " x", options.json, parts=parts, bytes=sizes)


if __name__ == "__main__":
    sys.exit(main())
