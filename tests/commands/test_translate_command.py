"""`fla translate`, called as the command line calls it."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from processing_fla.video_reading_fla import OpenVideo
from tests.processing.drawing import marked_frame, tiny_model, tiny_processor, write_video
from training_fla.cli import main

SHORT = ["--device", "cpu", "--num-beams", "2", "--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("translate") / "model"
    processor = tiny_processor()
    tiny_model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """A working directory with two clips, one of them named like an option, and a folder of frames."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name, length in (("plain.mp4", 9), ("--dash-g.mp4", 17)):
        write_video(tmp_path / name, [marked_frame(number) for number in range(length)])
    (tmp_path / "frames").mkdir()
    for number in range(5):
        Image.fromarray(marked_frame(number)).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path


def test_each_clip_is_a_line_of_path_and_sentence(model, clips, capsys):
    assert main(["translate", model, "plain.mp4", "--dash-g.mp4", "frames", "--batch-size", "2", *SHORT]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [path for path, _ in lines] == ["plain.mp4", "--dash-g.mp4", "frames"]
    assert all(sentence for _, sentence in lines)


def test_names_after_two_dashes_are_names(model, clips, capsys):
    assert main(["translate", model, *SHORT, "--", "--dash-g.mp4"]) == 0
    assert capsys.readouterr().out.startswith("--dash-g.mp4\t")


def test_folders_and_patterns_stand_for_their_clips(model, clips, capsys):
    assert main(["translate", model, ".", "*.mp4", "--format", "jsonl", *SHORT]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["video"] for row in rows] == ["--dash-g.mp4", "frames", "plain.mp4", "--dash-g.mp4", "plain.mp4"]
    assert [row["num_frames"] for row in rows] == [17, 5, 9, 17, 9]
    assert set(rows[0]) == {"video", "translation_text", "score", "num_frames", "seconds"}


def paths_of(capsys) -> list[str]:
    return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]


def test_a_folder_with_videos_and_a_picture_is_a_folder_of_videos(model, clips, capsys):
    """Suffixes count in any case, hidden files do not."""
    frames = [marked_frame(number) for number in range(9)]
    (clips / "many.d").mkdir()
    write_video(clips / "many.d" / "00000.MTS", frames, format="mpegts")
    write_video(clips / "many.d" / "b.mp4", frames)
    (clips / "many.d" / "b.jpg").write_bytes(b"a thumbnail")
    for hidden in (".b.mp4", "._b.mp4", ".DS_Store"):
        (clips / "many.d" / hidden).write_bytes(b"")
    assert main(["translate", model, "many.d", *SHORT]) == 0
    assert paths_of(capsys) == ["many.d/00000.MTS", "many.d/b.mp4"]


def test_hidden_pictures_are_no_frames(model, clips, capsys):
    (clips / "frames" / "._0.png").write_bytes(b"")
    assert main(["translate", model, "frames", "--format", "jsonl", *SHORT]) == 0
    assert json.loads(capsys.readouterr().out)["num_frames"] == 5


@pytest.mark.parametrize("form", ["tsv", "srt"])
def test_a_video_file_is_decoded_once(model, clips, capsys, monkeypatch, form):
    decoded, decode = [], OpenVideo.decoded_frames
    monkeypatch.setattr(OpenVideo, "decoded_frames", lambda video, *times: decoded.append(video) or decode(video))
    assert main(["translate", model, "plain.mp4", "--format", form, *SHORT]) == 0
    assert len(decoded) == 1


def test_a_bad_clip_is_one_line_and_status_2_and_the_others_are_translated(model, clips, capsys):
    (clips / "broken.mp4").write_bytes(b"no video")
    for output in ("tsv", "jsonl"):
        assert main(["translate", model, "broken.mp4", "plain.mp4", "gone.mp4", "--format", output, *SHORT]) == 2
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("fla translate: error:")]
        assert len(errors) == 2 and "`broken.mp4` cannot be decoded" in errors[0] and "`gone.mp4`" in errors[1]
        assert "plain.mp4" in captured.out and "Traceback" not in captured.err
    words = shlex.split(captured.err.splitlines()[-1].partition("next: fla ")[2])
    assert main(words) == 0, "the next command is of a clip that can be read"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "nothing-*.mp4"], "`nothing-*.mp4`"),
        (["{model}", "empty"], "`empty`"),
        (["empty", "plain.mp4"], "`empty`"),
        (["/no/such/model", "plain.mp4"], "/no/such/model"),
        (["{model}", "plain.mp4", "--device", "abacus"], "abacus"),
        (["{model}", "plain.mp4", "--num-workers", "-1"], "--num-workers -1: must be 0 or more"),
        (["damaged", "plain.mp4"], "damaged/model.safetensors is a Git LFS pointer"),
    ],
)
def test_bad_input_is_one_line_and_status_2(model, clips, capsys, arguments, message):
    (clips / "empty").mkdir()
    shutil.copytree(model, clips / "damaged")
    (clips / "damaged" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert main(["translate", *(argument.format(model=model) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err and captured.err.count("\n") == 1


def test_numbers_below_one_are_refused(model, clips, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["translate", model, "plain.mp4", "--num-beams", "0"])
    assert stop.value.code == 2 and "1, got 0" in capsys.readouterr().err


def test_help_has_an_example_and_imports_nothing_heavy():
    script = (
        "import sys\nfrom training_fla.cli import main\n"
        "try: main(['translate', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "fla translate runs/stage2" in done.stdout and done.stdout.splitlines()[-1] == "[]"
