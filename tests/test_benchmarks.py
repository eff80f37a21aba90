"""Benchmarks are run by hand; here only that those which are rarely run do so at the first try."""

import json
import os
import time

import pytest
import torch

from benchmarks import corpus_scale, gpu, live, serving, visual_encoder


def test_the_gpu_benchmark_runs_in_miniature(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gpu.main(["--quick", "--out", str(tmp_path / "gpu.json")]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    figures = {(row["part"], row["what"]): row["value"] for row in report["rows"]}
    assert report["failed"] == []
    for mode in gpu.MODES:
        assert figures["stage 1", f"step / bare resnet18 on as many frames, {mode}"] > 0
        assert figures["stage 1", f"waits for the device a step, {mode}"] <= 1
        for what in ("cold", "warm", "host", "device, at most"):
            assert figures["stage 1", f"step of 8 clips, {mode}: {what}"] > 0
    assert figures["one clip", "3 frames to 4 tokens, beams 5"] > 0
    assert figures["loader", "real frames a second of a run, loader and all"] > 0
    assert figures["stage 2", "step of 16 clips from stored features, bf16: warm"] > 0
    assert figures["stage 1", "beam-5 evaluation of 4 clips from frames"] > 0
    assert figures["loader", "augmented training frames a second"] > 0
    assert figures["stage 2", "waits for the device a step"] <= 1
    assert figures["stage 2", "step / bare language model"] > 0
    assert figures["stage 2", "beam-5 evaluation of 4 clips from stored features"] > 0
    assert figures["drawn", "stage 1, test BLEU-4"] >= 0 and figures["drawn", "stage 2, test BLEU-4"] >= 0


def test_of_several_gpus_the_first_is_measured_and_two_are_launched_together(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(gpu.Bench, "run", lambda bench: seen.append((bench.options.gpus, bench.options.visible)))
    assert gpu.main(["--quick", "--out", str(tmp_path / "gpu.json")]) == 0
    assert seen == [(2, "3,5")] and os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_fixed_batches_are_passed_over_and_not_used_up():
    loader = gpu.FixedBatches([{"a": 1}, {"a": 2}], passes=2)
    assert len(loader) == 4 and [batch.pop("a") for batch in loader] == [1, 2, 1, 2]


def test_a_part_of_the_gpu_benchmark_that_fails_costs_only_itself(tmp_path, monkeypatch, capsys):
    def parts(bench):
        bench.report.add("first", "a figure", 1.0, "s")
        bench.report.guard("second", lambda: 1 / 0)
        bench.report.guard("third", bench.report.add, "third", "another", 2.0, "s")
        bench.report.guard("fourth", time.sleep, 30)
        bench.report.guard("fifth", bench.report.add, "fifth", "too late", 3.0, "s")

    monkeypatch.setattr(gpu.Bench, "run", parts)
    assert gpu.main(["--quick", "--minutes", "0.005", "--out", str(tmp_path / "gpu.json")]) == 1
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["part"] for row in report["rows"]] == ["first", "third"]
    over = "TimeoutError: the minutes are over"
    failed = ["second: ZeroDivisionError: division by zero", f"fourth: {over}", f"fifth: {over}"]
    assert report["failed"] == failed and f"failed: fifth: {over}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmark_of_live_captions_runs_in_miniature(capsys):
    live.main(["--minutes", "0.3", "--quick", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert {"pauses", "backbone", "drafts", "sentences", "all"} <= report["share_of_signing"].keys()
    figures = {row["label"]: row["value"] for row in report["rows"]}
    assert figures["frames dropped"] == 0 and figures["processing / signing"] < 1
    assert any(label.startswith("draft:") for label in figures) and any(x.startswith("sentence:") for x in figures)


def test_the_benchmark_of_a_large_corpus_runs_in_miniature(capsys):
    assert corpus_scale.main(["--clips", "2000", "--json"]) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 2000 and len(report["rows"]) == 2


@pytest.mark.parametrize(
    ("abilities", "timed"), [({"avx512_bf16": True}, True), ({"amx_bf16": False, "sse": True}, False)]
)
def test_the_visual_encoder_is_timed_in_bf16_where_the_processor_has_it(monkeypatch, capsys, abilities, timed):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    monkeypatch.setattr(visual_encoder, "LENGTHS", (2, 1))
    visual_encoder.main(["--size", "32", "--repeats", "1", "--json"])
    output = capsys.readouterr()
    labels = [row["label"] for row in json.loads(output.out)["rows"]]
    assert labels == [f"visual encoder / bare resnet18, {name}" for name in ("fp32", "bf16")[: 1 + timed]]
    assert ("bf16 is left out: this processor only emulates it" in output.err) is not timed


def test_the_benchmark_of_serving_runs_in_miniature(capsys):
    assert serving.main(["--quick", "--forms", "int8", "--repeats", "1", "--json"]) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert set(report["parts"]) == {"eager fp32", "int8"} and report["rows"][0]["limit"] == 0.45
    assert all(set(parts) == set(serving.PARTS) for parts in report["parts"].values())
