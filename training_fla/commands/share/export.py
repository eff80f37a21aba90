"""Write a trained model as graphs that ONNX Runtime or OpenVINO runs on a processor.

`fla translate`, `fla inspect`, `fla serve` and `pipeline` take the folder as they take a model. It holds no weights of
PyTorch and cannot be trained. The search is the same, so that fp32 gives the same sentences.
"""

from pathlib import Path

from training_fla.console import Done, size_text

EXAMPLE = "fla export runs/stage2 --out runs/stage2-onnx --format onnx --precision int8"


def add_arguments(parser) -> None:
    """Declare the options of `fla export`."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or its Hub id")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--format", choices=("onnx", "openvino"), default="onnx", help="of the graphs [%(default)s]")
    text = "of the text encoder and the decoder; int8 needs --format onnx [%(default)s]"
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace an exported model that is there")


def run(args) -> Done:
    """Write the graphs and check them."""
    from training_fla.viewing.loading import check_model

    check_model(args.model)
    from training_fla.exporting import export_model

    difference = export_model(args.model, args.out, args.format, args.precision, args.overwrite)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    made = f"wrote {args.out}, {size_text(size)}; its logits differ by {difference:.1e} of the largest"
    return Done(made, f"fla translate {args.out} VIDEO")
