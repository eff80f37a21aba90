"""The perplexity of a language model of `fla denoise`, in miniature."""

import json

from experiments import perplexity


def test_the_perplexity_of_a_language_model_is_measured_beside_two_others(tmp_path, capsys):
    from training_fla.training.denoising import denoise

    lines = [
        f"am {day} {weather} es" for day in ("montag", "dienstag", "freitag") for weather in ("regnet", "schneit")
    ]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    denoise(lines, tmp_path / "model", vocab_size=60, width=64, layers=1, max_steps=60, batch_size=6, warmup_steps=5)
    files = ["--text", str(tmp_path / "text.txt"), "--train", str(tmp_path / "text.txt")]
    capsys.readouterr()
    perplexity.main(["--model", str(tmp_path / "model"), *files, "--steps", "1", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 1 < found["pre-trained"] < min(found["not trained"], found["of Light-T's size"])
