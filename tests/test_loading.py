import pytest

from training_fla.errors import InputError, first_line
from training_fla.loading import loading

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 2444694045\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(LFS_POINTER), r"model.safetensors is a Git LFS pointer.*`git lfs pull`"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "model.safetensors is not a whole weights file"),
        (lambda file: file.write_bytes(b""), "model.safetensors is not a whole weights file"),
        (lambda file: file.unlink(), "cannot load a model from .*: Error no file named model.safetensors"),
        (lambda file: (file.parent / "config.json").write_text("{"), "config.json' is not a valid JSON"),
        (
            lambda file: file.rename(file.parent / "pytorch_model.bin").write_bytes(LFS_POINTER),
            "pytorch_model.bin is a Git LFS pointer",
        ),
        (
            lambda file: file.rename(file.parent / "pytorch_model.bin"),
            "pytorch_model.bin is not a whole weights file, download or copy it again",
        ),
    ],
)
def test_damaged_weights_are_one_line_with_the_files_name(tmp_path, damage, message):
    from transformers import AutoModelForSeq2SeqLM, T5Config

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=10, decoder_start_token_id=0, **sizes)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    with loading(tmp_path):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    damage(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message) as caught, loading(tmp_path):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["/no/such", "./none", "../none", "~/none", "a/b/none", "runs/stage1", "none/"])
def test_a_mistyped_folder_fails_before_anything_is_asked_of_the_hub(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    asked = []
    with pytest.raises(InputError, match=f"from {source}: there is no such folder"), loading(source):
        asked.append(source)
    assert not asked
    for name in ("gpt2", "facebook/mbart-large-cc25", "hf://datasets/a/b", "{'model_type': 'a/b/c'}"):
        with loading(name):
            asked.append(name)
    assert len(asked) == 4


@pytest.mark.parametrize("name", ["/no/such/folder", "models/none"])
def test_what_does_not_exist_is_called_missing(name):
    from transformers import AutoTokenizer

    message = f"cannot load a tokenizer from {name}: there is no such folder"
    with pytest.raises(InputError, match=message) as caught, loading(name, "a tokenizer"):
        AutoTokenizer.from_pretrained(name)
    assert str(caught.value).count("there is no such folder") == 1


def test_a_library_message_is_shortened_to_its_first_line():
    assert first_line(ValueError("\n  what\nand more")) == "what"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("Repo id must be in the form")) == "there is no such folder"
