"""Figure 2 of the paper: which end of the model is learning, seen from the norms of its last layers."""

from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback

from training_fla.files import atomic_file
from training_fla.tables import write_table

COLUMNS = ("step", "visual_grad_norm", "language_grad_norm", "visual_parameter_norm", "language_parameter_norm")


def last_layers(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The two layers the figure compares.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): any language model behind it.

    Returns:
        `tuple[nn.Module, nn.Module]`: the temporal module, and the language model's last decoder layer.
    """
    decoder = model.language_model.get_decoder()
    layers = getattr(decoder, "layers", None)
    # Unstated: "last layer" may be finer; a whole layer is what a transformer counts as one. T5 calls them blocks.
    return model.visual_encoder.temporal_module, (decoder.block if layers is None else layers)[-1]


def norm(tensors: list[torch.Tensor]) -> float:
    """The Euclidean norm of tensors laid end to end.

    Args:
        tensors (`list[torch.Tensor]`): each of shape `(...)`, whatever it is, on one device.

    Returns:
        `float`: 0 for none, as a frozen layer has no gradient.
    """
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))) if tensors else 0.0


class LayerNorms(TrainerCallback):
    """Writes gradient and parameter norms of both last layers to `norms.tsv` and draws them as `norms.png`.

    Gradients are those the optimizer is about to use: of the whole accumulated batch, averaged over processes, and
    clipped where the recipe clips. Only two layers are read, and only every so many steps.

    Args:
        folder (`Path`): the run's folder.
        every (`int`): steps between two rows.

    With its `trainer` set, rows go to the trainer's log too.
    """

    def __init__(self, folder: Path, every: int):
        self.file, self.figure, self.every = folder / "norms.tsv", folder / "norms.png", every
        self.rows: list[list[float]] = []
        self.trainer = None

    def on_train_begin(self, args, state, control, **kwargs):
        """After `--resume`, keep the rows up to the checkpoint."""
        if self.file.exists():
            self.rows = [row for row in read_norms(self.file) if row[0] <= state.global_step]

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Add a row; `model` holds the gradients."""
        if (state.global_step + 1) % self.every or not state.is_world_process_zero:
            return
        parameters = [list(layer.parameters()) for layer in last_layers(model)]
        gradients = [[p.grad for p in layer if p.grad is not None] for layer in parameters]
        values = [norm(layer) for layer in gradients] + [norm([p.detach() for p in layer]) for layer in parameters]
        self.rows.append([state.global_step + 1, *values])

    def on_step_end(self, args, state, control, **kwargs):
        """Show the row where the run is reported to (`report_to`)."""
        if self.trainer is not None and self.rows and self.rows[-1][0] == state.global_step:
            due = control.should_log  # logging takes it for done
            self.trainer.log(dict(zip(COLUMNS[1:], self.rows[-1][1:], strict=True)))
            control.should_log = due

    def on_save(self, args, state, control, **kwargs):
        """Write the rows wherever a resumed run might begin."""
        if state.is_world_process_zero:
            write_table(self.file, COLUMNS, ([int(row[0]), *map(repr, row[1:])] for row in self.rows), overwrite=True)

    def on_train_end(self, args, state, control, **kwargs):
        """Write the rows and draw the figure."""
        self.on_save(args, state, control)
        if state.is_world_process_zero and self.rows:
            plot_norms(self.rows, self.figure)


def read_norms(file: Path) -> list[list[float]]:
    """Read `norms.tsv`.

    Args:
        file (`Path`): as [`LayerNorms`] writes it.

    Returns:
        `list[list[float]]`: one row a logged step, in the order of `COLUMNS`.
    """
    return [[float(cell) for cell in line.split("\t")] for line in file.read_text().splitlines()[1:]]


def plot_norms(rows: list[list[float]], file: Path) -> None:
    """Draw gradient norms on the left and parameter norms on the right, as the paper does.

    Args:
        rows (`list[list[float]]`): in the order of `COLUMNS`.
        file (`Path`): a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps, *columns = zip(*rows, strict=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for axis, title, pair in zip(axes, ("gradient norm", "parameter norm"), (columns[:2], columns[2:]), strict=True):
        for name, values in zip(("visual encoder", "language model"), pair, strict=True):
            axis.plot(steps, values, label=name)
        axis.set_title(f"{title} of the last layer")
        axis.set_xlabel("step")
        axis.legend()
    figure.tight_layout()
    with atomic_file(file, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    plt.close(figure)
