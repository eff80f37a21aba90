"""What a person sees of a run."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from training_fla.training.monitoring import EvaluationLines, contact_sheet, plot_curve


def test_an_evaluation_is_one_line_and_two_translations(tmp_path, capsys):
    lines = EvaluationLines(tmp_path)
    lines.trainer = SimpleNamespace(
        last_translations=[f"guess {i}" for i in range(6)],
        eval_dataset=SimpleNamespace(sentences=[f"truth {i}" for i in range(6)]),
    )
    state = SimpleNamespace(is_world_process_zero=True, epoch=1.5, global_step=7)
    lines.on_evaluate(None, state, None, {"eval_bleu4": 12.345, "eval_rouge_l": 40.0, "eval_runtime": 3.2})
    shown = capsys.readouterr().out
    assert "epoch 1.50  step 7  bleu4 12.35  rouge_l 40.00  (3 s)" in shown
    for place in (1, 4):
        assert f"'guess {place}'" in shown and f"'truth {place}'" in shown
    assert "bleu4 12.35" in (tmp_path / "evaluations.txt").read_text()


def test_the_curve_is_drawn_even_of_a_run_too_short_to_log(tmp_path):
    for name, history in (("empty", []), ("full", [{"step": 1, "loss": 2.0}, {"step": 2, "eval_bleu4": 5.0}])):
        plot_curve(history, tmp_path / f"{name}.png")
        assert Image.open(tmp_path / f"{name}.png").size[0] > 300


def test_the_contact_sheet_shows_every_frame_in_order(tmp_path):
    frames = np.zeros((11, 16, 20, 3), dtype=np.uint8)
    frames[:, ..., 0] = np.arange(11)[:, None, None] * 20 + 40  # ever redder
    contact_sheet(frames, "truth", "guess", tmp_path / "sheet.png", columns=4)
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    only_red = (picture[..., 1] == 0) & (picture[..., 2] == 0) & (picture[..., 0] >= 40)
    shown = sorted(set(picture[..., 0][only_red].tolist()))
    assert shown == [40 + 20 * i for i in range(11)]
    rows, columns = ({}, {})
    for i, red in enumerate(shown):
        y, x = np.nonzero(only_red & (picture[..., 0] == red))
        rows[i], columns[i] = y.mean(), x.mean()
    assert columns[0] < columns[1] < columns[2] < columns[3] and rows[0] < rows[4] < rows[8]
