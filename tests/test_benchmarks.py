"""Benchmarks are run by hand; here only that those which are rarely run do so at the first try."""

import json

from benchmarks import corpus_scale, gpu


def test_the_gpu_benchmark_runs_in_miniature(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gpu.main(["--quick", "--out", str(tmp_path / "gpu.json")]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    figures = {(row["part"], row["what"]): row["value"] for row in report["rows"]}
    assert report["failed"] == []
    for precision in gpu.PRECISIONS:
        assert figures["stage 1", f"step / bare resnet18 on as many frames, {precision}"] > 0
        assert figures["stage 1", f"waits for the device a step, {precision}"] <= 1
    assert figures["loader", "augmented training frames a second"] > 0
    assert figures["stage 2", "waits for the device a step"] <= 1
    assert figures["stage 2", "step / bare language model"] > 0
    assert figures["stage 2", "beam-5 evaluation of 4 clips"] > 0


def test_the_benchmark_of_a_large_corpus_runs_in_miniature(capsys):
    assert corpus_scale.main(["--clips", "2000", "--json"]) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 2000 and len(report["rows"]) == 2
