"""A saved folder works where our packages cannot be imported, is saved again from there, and is pushed to the Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    pipeline,
)

from modeling_fla import FlaConfig, FlaForConditionalGeneration
from processing_fla import FlaProcessor, FlaVideoProcessor, SignTranslationPipeline

from .hub_stand_in import HubStandIn
from .processing.drawing import marked_frame, tiny_model, tiny_processor, write_video

OUR_PACKAGES = ("modeling_fla", "processing_fla", "training_fla")
CODE_FILES = {
    "configuration_fla.py", "modeling_fla.py", "processing_fla.py", "video_processing_fla.py", "video_reading_fla.py",
    "frame_conversion_fla.py", "pipeline_fla.py",
}  # fmt: skip

# Runs in a fresh interpreter, in which importing one of our packages is an error.
STRANGER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Blocker())
import json, pathlib
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, AutoTokenizer, AutoVideoProcessor, pipeline
)

def load_and_generate(folder):
    trust = dict(trust_remote_code=True)
    config = AutoConfig.from_pretrained(folder, **trust)
    processor = AutoProcessor.from_pretrained(folder, **trust)
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    video_processor = AutoVideoProcessor.from_pretrained(folder, **trust)
    batch = processor(videos=clip, return_tensors="pt")
    ids = []
    for auto_class in (AutoModelForSeq2SeqLM, AutoModel):
        model = auto_class.from_pretrained(folder, **trust)
        ids.append(model.generate(**batch, num_beams=5, max_new_tokens=9).tolist())
    return model, processor, dict(
        ids=ids,
        classes=[type(thing).__name__ for thing in (config, model, processor, video_processor, tokenizer)],
        modules=sorted({{type(thing).__module__.split(".")[0] for thing in (config, model, processor)}}),
        named_task=pipeline("sign-language-translation", model=folder, **trust)(clip, max_new_tokens=9),
        found_task=pipeline(model=folder, **trust)(clip, max_new_tokens=9),
    )

folder, again, clip = sys.argv[1:4]
model, processor, first = load_and_generate(folder)
model.save_pretrained(again)
processor.save_pretrained(again)
pipe = pipeline(model=folder, trust_remote_code=True)
pipe.save_pretrained(again + "-pipeline")

from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

batch = processor(videos=[clip, clip], text=["regen", "am abend regen"])
rows = [{{name: batch[name][index] for name in batch}} for index in range(2)]
trainer = Seq2SeqTrainer(
    model,
    Seq2SeqTrainingArguments(again + "-trained", max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True),
    train_dataset=rows,
    data_collator=DataCollatorForSeq2Seq(processor, model),
    processing_class=processor,
)
trainer.train()
trainer.save_model()
print(json.dumps([first, load_and_generate(again)[2], load_and_generate(again + "-pipeline")[2]]))
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", [marked_frame(number) for number in range(22)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model and its processor, saved as the training scripts do."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    processor = tiny_processor()
    tiny_model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder, clip) -> dict:
    """What the packages themselves say about the clip."""
    model, processor = FlaForConditionalGeneration.from_pretrained(folder), FlaProcessor.from_pretrained(folder)
    batch = processor(videos=clip, return_tensors="pt")
    return {
        "ids": model.generate(**batch, num_beams=5, max_new_tokens=9).tolist(),
        "result": pipeline("sign-language-translation", model=folder, device="cpu")(clip, max_new_tokens=9),
    }


def test_folder_holds_flat_code_and_safetensors_only(folder):
    names = {path.name for path in folder.iterdir()}
    assert names >= CODE_FILES | {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_stranger_loads_generates_saves_again_and_trains(folder, clip, expected, tmp_path):
    again = tmp_path / "again"
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
        "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    script = STRANGER.format(packages=set(OUR_PACKAGES))
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(folder), str(again), str(clip)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout.splitlines()[-1])
    assert len(reports) == 3
    for report in reports:
        assert report["ids"] == [expected["ids"]] * 2
        assert report["classes"] == [
            *("FlaConfig", "FlaForConditionalGeneration", "FlaProcessor", "FlaVideoProcessor", "MBartTokenizer")
        ]
        assert report["modules"] == ["transformers_modules"]
        for name in ("named_task", "found_task"):
            assert report[name]["translation_text"] == expected["result"]["translation_text"]
            assert report[name]["score"] == pytest.approx(expected["result"]["score"], abs=1e-6)
            assert report[name]["num_frames"] == 22 and report[name]["seconds"] == pytest.approx(0.88)
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in again.iterdir()} == names
    assert {path.name for path in (tmp_path / "again-trained").iterdir()} > names


def test_loading_and_saving_again_changes_nothing(folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for source, target in ((folder, first), (first, second)):
        AutoModelForSeq2SeqLM.from_pretrained(source).save_pretrained(target)
        AutoProcessor.from_pretrained(source).save_pretrained(target)
    for path in folder.iterdir():
        assert (second / path.name).read_bytes() == (first / path.name).read_bytes(), path.name
    assert (first / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (first / "processor_config.json").read_bytes() == (folder / "processor_config.json").read_bytes()


def test_where_the_packages_are_imported_no_code_need_be_trusted(folder, clip, expected):
    assert type(AutoConfig.from_pretrained(folder)) is FlaConfig
    assert type(AutoModel.from_pretrained(folder)) is FlaForConditionalGeneration
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert type(model) is FlaForConditionalGeneration
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is FlaProcessor
    assert type(AutoVideoProcessor.from_pretrained(folder)) is FlaVideoProcessor
    assert len(AutoTokenizer.from_pretrained(folder)) == len(processor.tokenizer)
    assert type(pipeline("sign-language-translation", model=folder)) is SignTranslationPipeline
    batch = processor(videos=clip, return_tensors="pt")
    assert model.generate(**batch, num_beams=5, max_new_tokens=9).tolist() == expected["ids"]


@pytest.mark.parametrize("imported", ["modeling_fla", "processing_fla"])
def test_a_pipeline_of_trusted_code_runs_whichever_package_was_imported(folder, clip, expected, imported):
    """In a fresh interpreter: importing is what registers."""
    script = f"""
import json, sys, {imported}
from transformers import pipeline
pipe = pipeline("sign-language-translation", model=sys.argv[1], device="cpu", trust_remote_code=True)
print(json.dumps(pipe(sys.argv[2], max_new_tokens=9)))
"""
    command = [sys.executable, "-c", script, str(folder), str(clip)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["translation_text"] == expected["result"]["translation_text"]


def test_weights_are_split_above_a_size_and_come_back(folder, clip, expected, tmp_path):
    model = FlaForConditionalGeneration.from_pretrained(folder)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2 and (tmp_path / "model.safetensors.index.json").is_file()
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


# Runs in an interpreter of its own, because the Hub's client reads its address once, when it is imported.
PUSH = """
import sys
from huggingface_hub import ModelCard
from modeling_fla import FlaForConditionalGeneration
from processing_fla import FlaProcessor

folder = sys.argv[1]
model, processor = FlaForConditionalGeneration.from_pretrained(folder), FlaProcessor.from_pretrained(folder)
model.push_to_hub("someone/sign-model", private=True, max_shard_size="20KB")
processor.push_to_hub("someone/sign-model")
ModelCard("---\\nlicense: apache-2.0\\n---\\n# Sign model\\n").push_to_hub("someone/sign-model")
try:
    processor.push_to_hub("another/sign-model")
except Exception as error:
    print(error)
"""


def test_model_processor_and_card_are_pushed_over_http(folder, clip, expected, tmp_path):
    """The Hub's client runs unchanged against a server on a real socket; what arrives there is a working folder."""
    with HubStandIn(refused_owner="another") as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PUSH, str(folder)], env=environment, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    assert "You may not create a model of another" in done.stdout
    assert list(hub.repositories) == ["someone/sign-model"]
    repository = hub.repositories["someone/sign-model"]
    assert repository.private and hub.tokens == {"Bearer hf_secret"} and len(repository.commits) == 3
    assert {"POST /api/repos/create", "POST preupload", "POST batch", "PUT storage", "POST commit"} <= set(
        hub.requests
    )

    arrived = tmp_path / "arrived"
    repository.write_to(arrived)
    assert {path.name for path in arrived.iterdir()} >= CODE_FILES | {"README.md", "config.json", "tokenizer.json"}
    assert "# Sign model" in (arrived / "README.md").read_text()
    assert len(list(arrived.glob("*.safetensors"))) > 2
    batch = AutoProcessor.from_pretrained(arrived)(videos=clip, return_tensors="pt")
    again = AutoModelForSeq2SeqLM.from_pretrained(arrived)
    assert again.generate(**batch, num_beams=5, max_new_tokens=9).tolist() == expected["ids"]


def test_processor_round_trip_keeps_every_option(tmp_path):
    processor = tiny_processor(size=44, crop_size=36, frame_stride=2, do_normalize=False, do_rescale=False)
    before = processor.to_dict()
    processor.save_pretrained(tmp_path)
    again = FlaProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == before
    video = np.stack([marked_frame(number) for number in range(5)])
    pixels = again(videos=video, return_tensors="pt")["pixel_values_videos"]
    assert pixels.shape == (1, 3, 3, 36, 36) and pixels.dtype == torch.uint8
