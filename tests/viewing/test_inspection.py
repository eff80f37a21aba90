"""`fla inspect`: what is drawn is what the model saw and where it looked."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.browser import check_page
from tests.processing.drawing import marked_frame, number_of, tiny_model, tiny_processor, write_video
from tests.serving.page_server import tiny_pipeline
from training_fla.cli import main
from training_fla.errors import InputError
from training_fla.viewing.inspection import (
    ClipFrames,
    Inspection,
    centred_cosines,
    inspect_frames,
    inspect_translation,
    words_of,
)
from training_fla.viewing.picture import MAX_FRAMES, shown_positions

NUM_FRAMES = 26  # 7 sampled frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", [marked_frame(n) for n in range(NUM_FRAMES)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, processor = tmp_path_factory.mktemp("model"), tiny_processor()
    model = tiny_model(processor.tokenizer, seed=3)
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inspection(clip):
    return inspect_translation(str(clip), tiny_pipeline(), num_beams=1)


def test_frames_are_those_the_model_sees(clip):
    from processing_fla import FlaVideoProcessor

    sizes = {"size": {"height": 64, "width": 96}, "crop_size": {"height": 64, "width": 96}}
    seen = inspect_frames(str(clip), FlaVideoProcessor(**sizes))
    numbers = [number_of(np.asarray(seen.clip.image(position))) for position in range(7)]
    assert numbers == [0, 4, 8, 12, 16, 20, 24] == seen.clip.indices.tolist()
    assert seen.clip.num_source_frames == NUM_FRAMES and seen.clip.when(2) == "0.32 s"
    assert seen.similarity.shape == (7, 7) and np.allclose(np.diag(seen.similarity), 1, atol=1e-5)
    assert seen.similarity[0, 1] > 0.9 and seen.similarity[0, 6] < -0.9, "the grey square grows brighter"
    assert not seen.words and seen.attention is None


def test_attention_is_that_of_the_language_model_word_by_word(clip, inspection):
    processor = tiny_processor()
    model = tiny_model(processor.tokenizer, seed=3)
    batch = processor(videos=str(clip), return_tensors="pt")
    ids = model.generate(**batch, max_new_tokens=8)
    assert inspection.sentence == processor.batch_decode(ids, skip_special_tokens=True)[0]
    assert "".join(inspection.words) == inspection.sentence.replace(" ", "")
    assert inspection.attention.shape == (len(inspection.words), 7)
    assert np.allclose(inspection.attention.sum(1), 1, atol=1e-5)

    model.language_model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(**batch, decoder_input_ids=ids[:, :-1], output_attentions=True).cross_attentions
    expected = torch.stack(expected).mean((0, 2))[0].numpy()
    _, groups = words_of(ids[0, 1:].tolist(), processor.tokenizer)
    for word, group in enumerate(groups):
        assert np.allclose(inspection.attention[word], expected[group].mean(0), atol=1e-5)
    assert 0 < inspection.score < 1


def test_pieces_are_joined_to_words():
    class Tokenizer:
        all_special_ids = [0]
        pieces = ["</s>", "▁", "▁re", "gen", "▁im", ".", "今天", "▁天", "ab"]

        def convert_ids_to_tokens(self, ids):
            return [self.pieces[i] for i in ids]

    assert words_of([2, 3, 4, 1, 5, 0], Tokenizer()) == (["regen", "im", "."], [[0, 1], [2], [3, 4]])
    assert words_of([7, 6, 8, 5], Tokenizer()) == (["天", "今天", "ab."], [[0], [1], [2, 3]])
    assert words_of([0, 1], Tokenizer()) == ([], [])


def drawn(num_frames: int) -> ClipFrames:
    return ClipFrames("a", torch.zeros(num_frames, 3, 2, 2), np.arange(num_frames), None, num_frames, None)


def test_focus_is_the_shortest_segment_with_half_of_the_attention():
    rows = np.array([[0.1, 0.1, 0.3, 0.4, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0, 1.0]])
    seen = Inspection(drawn(5), np.eye(5), "x", attention=rows)
    assert [seen.focus(word) for word in range(3)] == [(2, 3), (0, 0), (4, 4)]
    assert seen.clip.when(3) == "frame 3", "of a folder of frames"


def test_cosines_of_one_frame_and_of_equal_frames_are_numbers():
    assert centred_cosines(torch.ones(1, 4)).tolist() == [[0.0]]
    assert not np.isnan(centred_cosines(torch.ones(3, 4))).any()


@pytest.mark.parametrize("length", [1, 3, MAX_FRAMES, 200])
def test_few_of_many_frames_are_shown(length):
    positions = shown_positions(Inspection(drawn(length), np.eye(length), "x"))
    assert len(positions) == min(length, MAX_FRAMES) and positions[0] == 0 and positions[-1] == length - 1


def test_command_writes_a_picture_and_a_page_that_stands_alone(clip, saved, tmp_path, capsys):
    picture, page = tmp_path / "clip.png", tmp_path / "clip.html"
    assert main(["inspect", str(clip), "--model", str(saved), "--out", str(picture)]) == 0
    image = np.asarray(Image.open(picture).convert("L"))
    assert image.shape[1] > 1000 and image.std() > 20
    assert main(["inspect", str(clip), "--model", str(saved), "--out", str(page), "--num-beams", "2"]) == 0
    sentence = capsys.readouterr().out.splitlines()[-1]
    text = page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', text)
    assert len(sources) > 9 and all(source.startswith(("data:image/", "#")) for source in sources)
    assert text.count(" alt=") == 7 and text.count('role="img" aria-label=') == 2 and '<html lang="en">' in text
    assert sentence and f'<h1 lang="de">{sentence}</h1>' in text
    rows = re.findall(r'<th scope="row" lang="de">(.*?)</th><td>(.*?)</td>', text)
    assert " ".join(word for word, _ in rows) == sentence and all(re.search(r"[\d.]+ s", when) for _, when in rows)


def test_inspect_and_translate_write_the_same_sentence_of_files_and_folders(clip, saved, tmp_path, capsys):
    (tmp_path / "frames").mkdir()
    for number in range(NUM_FRAMES):
        Image.fromarray(marked_frame(number)).save(tmp_path / "frames" / f"{number}.png")
    for path in (clip, tmp_path / "frames"):
        assert main(["inspect", str(path), "--model", str(saved), "--out", str(tmp_path / f"{path.stem}.png")]) == 0
        inspected = capsys.readouterr().out.splitlines()[0]
        assert main(["translate", str(saved), str(path)]) == 0
        assert capsys.readouterr().out == f"{path}\t{inspected}\n"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_axe_finds_nothing_on_the_page(clip, saved, tmp_path, scheme, width):
    assert main(["inspect", str(clip), "--model", str(saved), "--out", str(tmp_path / "clip.html")]) == 0
    check_page(tmp_path / "clip.html", width, scheme)


def test_without_a_model_one_frame_is_enough(tmp_path):
    Image.fromarray(marked_frame(1)).save(tmp_path / "0001.png")
    assert main(["inspect", str(tmp_path), "--out", str(tmp_path / "out.html")]) == 0
    assert "frame 0" in (tmp_path / "out.html").read_text()


def test_bad_input_is_refused(clip, saved, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "there.png").write_text("mine")
    for words, message in (
        ([tmp_path / "gone.mp4"], "gone.mp4"),
        ([clip, "--out", tmp_path / "a.gif"], ".png or .html"),
        ([clip, "--out", tmp_path / "there.png"], "there.png"),
        ([tmp_path / "text.mp4", "--out", tmp_path / "b.png"], "text.mp4"),
        ([clip, "--model", tmp_path / "nothing", "--out", tmp_path / "b.png"], "nothing"),
    ):
        assert main(["inspect", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "there.png").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if "writing" in path.name]


def test_a_clip_longer_than_the_model_is_refused(tmp_path):
    long = write_video(tmp_path / "long.mp4", [marked_frame(n % 20) for n in range(300)])
    with pytest.raises(InputError, match=r"\b64\b"):
        inspect_translation(str(long), tiny_pipeline())


def test_a_time_just_below_zero_is_zero():
    assert ClipFrames("a.mp4", None, np.arange(1), [-1e-9], 1, 0.04).when(0) == "0.00 s"
