"""Store what a trained visual encoder makes of a corpus, for training stage 2 without it.

The output is what `fla prepare features` writes of another program's features: `dataset:` of run_stage2.py.
"""

import argparse
from pathlib import Path

from training_fla.commands.use.translate import positive
from training_fla.console import Done
from training_fla.errors import InputError

from .trim import trim_command

EXAMPLE = "fla features data/mine --model runs/stage1 --out data/mine-features"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `fla features`."""
    add = parser.add_argument
    text = "packed corpus, or a table of clips and sentences as `fla prepare manifest` reads it"
    add("clips", type=Path, metavar="CLIPS", help=text)
    add("--model", required=True, metavar="MODEL", help="folder of a trained model, or its Hub id")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    add("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add("--batch-size", type=positive, default=8, metavar="N", help="clips at once [%(default)s]")
    add("--num-workers", type=int, default=0, metavar="N", help="processes that decode [%(default)s]")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the encoder [%(default)s]")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="to store [%(default)s]")
    add("--overwrite", action="store_true", help="replace the corpus at --out")


def run(args: argparse.Namespace) -> Done:
    """Encode the clips of all splits."""
    from tempfile import TemporaryDirectory

    from training_fla.folders import check_folder, check_not_inside
    from training_fla.viewing.loading import check_model, load_pipeline

    check_model(args.model)
    check_not_inside([args.clips, args.model], args.out)
    check_folder(args.out, "corpus", args.overwrite)
    from modeling_fla import FlaForConditionalGeneration
    from training_fla.data.datasets import write_encoded_corpus
    from training_fla.data.feature_store import FeatureEncoder
    from training_fla.data.packed_corpus import MANIFEST, PackedCorpus, packed_splits
    from training_fla.data.packing import ensure_packed
    from training_fla.hub.card import public_name

    pipe = load_pipeline(args.model, args.device)
    if not isinstance(pipe.model, FlaForConditionalGeneration):
        raise InputError(f"{args.model} is an exported model: give the model it was made of")
    encoder = FeatureEncoder(pipe.model, args.dtype, args.precision, args.batch_size)
    with TemporaryDirectory(prefix="fla-features-") as packed:
        is_packed = (args.clips / MANIFEST).is_file()
        size = size_of(pipe.processor.video_processor)
        folder = args.clips if is_packed else ensure_packed(args.clips, packed, size=size)
        write_encoded_corpus(
            encoder,
            pipe.processor,
            folder,
            args.out,
            extractor=f"the visual encoder of {public_name(args.model)}",
            num_workers=args.num_workers,
            overwrite=args.overwrite,
        )
    first = PackedCorpus(args.out, packed_splits(args.out)[0])
    return Done(
        f"stored features in {args.out}", trim_command(args.out, first.column("language")[0], "mbart-features")
    )


def size_of(video_processor) -> tuple[int, int] | None:
    """Height and width to pack frames at, as those that the model was trained on; `None`: the source's."""
    size = video_processor.packed_size or video_processor.size
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None
