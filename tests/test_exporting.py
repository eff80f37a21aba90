"""Exported models: the same sentences, scores and attention as the model they were made of, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import pipeline

from modeling_fla import FlaExportedForConditionalGeneration
from training_fla.cli import main
from training_fla.errors import InputError
from training_fla.viewing.loading import load_pipeline

from .processing.drawing import marked_frame, tiny_model, tiny_processor, write_video

pytest.importorskip("onnxruntime")
BEAMS = {"num_beams": 5, "num_return_sequences": 2, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    processor = tiny_processor()
    tiny_model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    out = folder.with_name("onnx")
    assert main(["export", str(folder), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list:
    clips = tmp_path_factory.mktemp("clips")
    return [
        str(write_video(clips / f"{length}.mp4", [marked_frame(i) for i in range(length)])) for length in (9, 30, 17)
    ]


def same_results(model, exported, clips, tolerance=1e-4, **options) -> None:
    ours, theirs = (load_pipeline(str(path))(clips, **options) for path in (model, exported))
    for expected, got in zip(ours, theirs, strict=True):
        for one, other in zip(expected, got, strict=True):
            assert other == one | {"score": pytest.approx(one["score"], rel=tolerance)}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_exported_model_gives_the_same_sentences_and_scores(folder, exported, clips, batch_size):
    same_results(folder, exported, clips, batch_size=batch_size, **BEAMS)


def test_transformers_own_pipeline_takes_an_exported_folder(exported, clips):
    translate = pipeline("sign-language-translation", model=str(exported), device="cpu")
    assert translate(clips[1], max_new_tokens=8) == load_pipeline(str(exported))(clips[1], max_new_tokens=8)


def test_the_command_takes_an_exported_model(folder, exported, clips, capsys):
    printed = []
    for model in (folder, exported):
        assert main(["translate", str(model), *clips, "--max-new-tokens", "8", "--num-workers", "0"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


def test_the_decoder_of_an_exported_model_says_what_it_attended_to(folder, exported):
    models = [load_pipeline(str(path)).model for path in (folder, exported)]
    models[0].language_model.set_attn_implementation("eager")
    video = torch.randint(0, 256, (1, 6, 3, 32, 32), dtype=torch.uint8)
    attentions = []
    for model in models:
        encoded = model.get_encoder()(pixel_values_videos=video, attention_mask=torch.ones(1, 6))
        ids = torch.tensor([[4, 7, 9]])
        with torch.no_grad():
            outputs = model(encoder_outputs=encoded, decoder_input_ids=ids, output_attentions=True, use_cache=False)
        attentions.append(torch.stack(outputs.cross_attentions).mean((0, 2)).numpy())
    np.testing.assert_allclose(attentions[0], attentions[1], atol=1e-5)


def test_an_exported_folder_is_whole_ours_and_replaced_only_when_asked(folder, exported, tmp_path, capsys):
    assert json.loads((exported / ".fla-llm.json").read_text())["kind"] == "export"
    assert not list(exported.glob("*.safetensors")) and not list(exported.glob("*.py"))
    assert main(["export", str(folder), "--out", str(exported)]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    (tmp_path / "mine.txt").touch()
    assert main(["export", str(folder), "--out", str(tmp_path), "--overwrite"]) == 2
    assert "mine.txt" in capsys.readouterr().err
    assert main(["export", str(exported), "--out", str(tmp_path / "again")]) == 2
    assert "is exported already" in capsys.readouterr().err and not (tmp_path / "again").exists()


def damaged(exported, tmp_path, name: str, text: str | None):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("export.json", None, "export.json is missing or damaged"),
        ("export.json", '{"export_format": "onnx", "components": {"model": {}}}', "was not written by `fla export`"),
        ("decoder.onnx", None, "no whole exported model.*decoder.onnx"),
        ("decoder.onnx", "not a graph", "no whole exported model"),
        ("text_encoder.onnx.data", None, "no whole exported model.*text_encoder.onnx.data"),
    ],
)
def test_a_foreign_or_damaged_folder_is_refused_in_one_line(exported, tmp_path, name, text, message):
    with pytest.raises(InputError, match=message) as error:
        load_pipeline(damaged(exported, tmp_path, name, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "was exported in fp32"),
        ({"device": "cuda"}, "runs on the processor"),
    ],
)
def test_an_exported_model_keeps_its_precision_and_place(exported, options, message):
    with pytest.raises(InputError, match=message):
        load_pipeline(str(exported), **options)


def test_frames_that_no_graph_was_made_for_are_refused(exported):
    model = FlaExportedForConditionalGeneration.from_pretrained(exported)
    for frames in (torch.zeros(1, 4, 3, 32, 32), torch.zeros(1, 4, 3, 30, 32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"raw frames \(uint8\) of 32 x 32.*do_rescale=False"):
            model.generate(pixel_values_videos=frames)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "tolerance"), [(["--precision", "int8"], 0.05), (["--format", "openvino"], 1e-3)])
def test_other_forms_give_the_same_sentences(folder, clips, tmp_path, options, tolerance):
    if "openvino" in options:
        pytest.importorskip("openvino")
    assert main(["export", str(folder), "--out", str(tmp_path / "out"), *options]) == 0
    same_results(folder, tmp_path / "out", clips, tolerance, num_return_sequences=2, num_beams=3, max_new_tokens=4)


def test_int8_is_of_the_language_model_and_close(folder, clips):
    whole, quantized = (load_pipeline(str(folder), precision=precision) for precision in ("auto", "int8"))
    layers = [
        m for m in quantized.model.language_model.modules() if isinstance(m, torch.ao.nn.quantized.dynamic.Linear)
    ]
    assert len(layers) > 10 and all(layer.weight().dtype == torch.qint8 for layer in layers)
    pairs = zip(*(pipe(clips, max_new_tokens=2) for pipe in (whole, quantized)), strict=True)
    assert all(one["score"] == pytest.approx(other["score"], abs=0.1) for one, other in pairs)
    with pytest.raises(InputError, match="take bf16"):
        load_pipeline(str(folder), "cuda", "int8")
