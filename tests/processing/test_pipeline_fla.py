import io
from collections.abc import Iterator

import datasets
import numpy as np
import pytest
import torch
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import import_utils

from processing_fla import SignTranslationPipeline, VideoDecodeError
from processing_fla.video_reading_fla import OpenVideo

from .drawing import late_video, marked_frame, tiny_model, tiny_processor, write_video

SHORT = {"max_new_tokens": 8, "num_beams": 2}
KEYS = {"translation_text", "score", "num_frames", "seconds"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    processor = tiny_processor()
    tiny_model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def translate(folder) -> SignTranslationPipeline:
    return pipeline("sign-language-translation", model=folder, device="cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list:
    """Files of unequal length and size."""
    clips = tmp_path_factory.mktemp("clips")
    sizes = [(9, 64, 96), (30, 50, 40), (17, 33, 41)]
    return [
        write_video(clips / f"{n}.mkv", [marked_frame(i, h, w) for i in range(length)], pix_fmt="yuv444p")
        for n, (length, h, w) in enumerate(sizes)
    ]


def test_a_clip_becomes_a_sentence_with_its_score_and_length(translate, clips):
    result = translate(clips[1], **SHORT)
    assert set(result) == KEYS
    batch = translate.processor(videos=clips[1], return_tensors="pt")
    ids = translate.model.generate(**batch, **SHORT)
    assert result["translation_text"] == translate.processor.batch_decode(ids)[0] != ""
    assert result["num_frames"] == 30 and result["seconds"] == pytest.approx(1.2)
    labels = ids[:, 1:].masked_fill(ids[:, 1:] == 1, -100)
    loss = translate.model(**batch, decoder_input_ids=ids[:, :-1], labels=labels).loss
    assert result["score"] == pytest.approx(float(torch.exp(-loss)), rel=1e-4)


def test_a_recording_longer_than_the_positions_is_refused_before_it_is_decoded(translate, tmp_path, monkeypatch):
    path = str(write_video(tmp_path / "long.mp4", [marked_frame(1)] * 270))
    with monkeypatch.context() as patch:
        patch.setattr(OpenVideo, "timed_frames", None)  # nothing is decoded
        with pytest.raises(ValueError, match=r"long.mp4` has 270 frames, of which 68 are .* most 64.*--format srt"):
            translate(path, **SHORT)
        assert "most 64" in translate(path, on_error="skip", **SHORT)["error"]
    assert translate(path, max_source_frames=200, **SHORT)["num_frames"] == 270
    # A container without an index says it only when it has been read.
    path = str(write_video(tmp_path / "long.mkv", [marked_frame(1)] * 270))
    with pytest.raises(ValueError, match=r"long.mkv` has 270 frames.*most 64"):
        translate(path, **SHORT)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_of_any_size_give_what_each_clip_gives_alone(translate, clips, batch_size):
    together = translate(clips, batch_size=batch_size, **SHORT)
    for clip, result in zip(clips, together, strict=True):
        alone = translate(clip, **SHORT)
        assert result == {**alone, "score": pytest.approx(alone["score"], rel=1e-4)}


def test_one_clip_of_images_is_one_clip_and_many_are_many(translate):
    frames = [marked_frame(number) for number in range(8)]
    alone = translate(frames, **SHORT)
    assert set(alone) == KEYS and alone["num_frames"] == 8 and alone["seconds"] is None
    assert translate(np.stack(frames), **SHORT) == alone
    assert translate([frames, np.stack(frames)], **SHORT) == [alone, alone]
    assert translate(np.stack([frames, frames]), **SHORT) == [alone, alone]
    assert translate([], **SHORT) == []


def test_generators_are_translated_as_they_come(translate, clips):
    asked = []

    def stream():
        for clip in clips:
            asked.append(clip)
            yield clip

    results = translate(stream(), **SHORT)
    assert set(next(results)) == KEYS and len(asked) == 1
    assert len(list(results)) == 2


def test_datasets_and_iterators_are_translated_lazily(translate, clips):
    expected = translate(clips, **SHORT)
    rows = [{"video": clip} for clip in clips]
    for videos in (KeyDataset(rows, "video"), iter(clips), map(str, clips), {clip: 1 for clip in clips}.keys()):
        results = translate(videos, **SHORT)
        assert isinstance(results, Iterator) and list(results) == expected
    assert list(translate(KeyDataset(rows, "video"), num_workers=2, **SHORT)) == expected
    assert list(translate(iter(clips), num_workers=2, **SHORT)) == expected


def test_rows_of_a_dataset_and_bytes_are_clips(translate, clips):
    expected, content = translate(clips[0], **SHORT), clips[0].read_bytes()
    for clip in (content, {"bytes": content, "path": None}, {"bytes": None, "path": str(clips[0])}):
        assert translate(clip, **SHORT) == expected and translate([clip], **SHORT) == [expected]
    with pytest.raises(VideoDecodeError, match="`video given as bytes` cannot be decoded"):
        translate(b"no video")


def test_open_files_are_clips_and_not_lists_of_lines(translate, clips):
    expected = translate(clips[0], **SHORT)
    with open(clips[0], "rb") as file:
        assert translate(file, **SHORT) == expected
    both = [io.BytesIO(clip.read_bytes()) for clip in clips[:2]]
    assert translate(both, **SHORT) == translate(clips[:2], **SHORT)
    with open(clips[0], encoding="latin-1") as file, pytest.raises(ValueError, match='"rb"'):
        translate(file)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_a_row_without_its_video_names_what_it_holds(translate, clips, as_dataset):
    row = {"video": str(clips[0]), "sentence": "regen"}
    videos = datasets.Dataset.from_list([row]) if as_dataset else [row]
    with pytest.raises(ValueError, match=r'video, sentence.*`dataset\["video"\]`'):
        list(translate(videos))
    assert "video, sentence" in list(translate(videos, on_error="skip"))[0]["error"]
    if as_dataset:
        assert list(translate(videos["video"], **SHORT)) == [translate(clips[0], **SHORT)]


def test_options_of_generate_may_come_in_one_dict_and_its_answer_in_one_object(translate, folder, clips):
    expected = translate(clips[0], **SHORT)
    assert translate(clips[0], generate_kwargs=SHORT) == expected
    assert translate(clips[0], generate_kwargs={**SHORT, "num_beams": 1}, num_beams=2) == expected
    made = pipeline("sign-language-translation", model=folder, device="cpu", generate_kwargs=SHORT)
    assert made(clips[0]) == expected
    assert translate(clips[0], return_dict_in_generate=True, output_scores=True, **SHORT) == expected


def test_without_pyav_it_says_what_to_install(translate, clips, monkeypatch):
    found = import_utils.BACKENDS_MAPPING["av"]
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "av", (lambda: False, found[1]))
    for videos in (clips[0], np.zeros((4, 40, 40, 3), np.uint8)):
        with pytest.raises(ImportError, match="pip install av"):
            translate(videos, on_error="skip")


def test_a_file_is_decoded_once(translate, clips, monkeypatch):
    decoded, decode = [], OpenVideo.decoded_frames
    monkeypatch.setattr(OpenVideo, "decoded_frames", lambda video, *times: decoded.append(video.name) or decode(video))
    translate(clips, **SHORT)
    assert decoded == [str(clip) for clip in clips]


def test_seconds_are_those_of_the_frames(translate, tmp_path):
    recording = write_video(
        tmp_path / "recording.webm",
        [marked_frame(number) for number in range(20)],
        codec="libvpx",
        times=[100 * number for number in range(20)],
        container_options={"live": "1"},
        options={"deadline": "realtime"},
    )
    assert translate(recording, **SHORT)["seconds"] == pytest.approx(2.0, abs=0.01)
    late = translate(late_video(tmp_path / "late.mp4"), **SHORT)
    assert (late["num_frames"], late["seconds"]) == (20, pytest.approx(2.0, abs=0.01))


@pytest.mark.filterwarnings("error::FutureWarning")
def test_no_warning_of_transformers_is_about_us(translate, clips, caplog):
    translate(clips, batch_size=2, num_return_sequences=2, **SHORT)
    assert not caplog.records


def test_generation_options_pass_through(translate, clips):
    beams = translate(clips[0], num_beams=4, num_return_sequences=3, max_new_tokens=6)
    assert len(beams) == 3 and all(set(beam) == KEYS for beam in beams)
    short = translate(clips[0], num_beams=1, max_new_tokens=1)
    assert len(translate.processor.tokenizer(short["translation_text"], add_special_tokens=False)["input_ids"]) <= 2
    with pytest.raises(ValueError, match="num_beamz"):
        translate(clips[0], num_beamz=3, on_error="skip")


def test_video_options_pass_through(translate, clips):
    assert translate(clips[1], frame_stride=30, **SHORT) == translate(clips[1], num_frames=1, **SHORT)


def test_five_beams_are_the_default(translate, clips):
    options = translate._prepare_generate_kwargs({})
    assert options["num_beams"] == 5 and options["max_new_tokens"] == 100


def test_a_bad_clip_is_named_and_the_others_are_not_lost(translate, clips, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    bad = [tmp_path / "broken.mp4", tmp_path / "missing.mp4", np.zeros((4 * 70, 8, 8, 3), np.uint8)]
    mixed = [clips[0], bad[0], bad[1], bad[2], clips[2]]
    for batch_size in (2, 5):
        results = translate(mixed, on_error="skip", batch_size=batch_size, **SHORT)
        assert [result["translation_text"] for result in results[::4]] == [
            translate(clip, **SHORT)["translation_text"] for clip in (clips[0], clips[2])
        ]
        assert all(result["translation_text"] is None and set(result) == KEYS | {"error"} for result in results[1:4])
        assert "broken.mp4` cannot be decoded" in results[1]["error"]
        assert "missing.mp4` does not exist" in results[2]["error"]
        assert "70 sampled frames" in results[3]["error"]


def test_a_bad_clip_raises_unless_skipping_is_asked_for(translate, clips, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(VideoDecodeError, match=r"broken\.mp4"):
        translate([clips[0], tmp_path / "broken.mp4"], **SHORT)
    with pytest.raises(ValueError, match="frames .*70 sampled frames"):
        translate(np.zeros((4 * 70, 8, 8, 3), np.uint8), **SHORT)
    with pytest.raises(ValueError, match='`on_error` must be "raise" or "skip", got \'ignore\''):
        translate(clips[0], on_error="ignore")


def test_other_processes_may_decode(translate, clips):
    with_workers = translate(clips, num_workers=1, batch_size=2, **SHORT)
    assert with_workers == translate(clips, batch_size=2, **SHORT)


def test_a_saved_pipeline_is_whole(translate, clips, tmp_path):
    translate.save_pretrained(tmp_path)
    again = pipeline("sign-language-translation", model=tmp_path, device="cpu")
    assert again(clips[0], **SHORT) == translate(clips[0], **SHORT)


def test_half_precision_models_translate(folder, clips):
    half = pipeline("sign-language-translation", model=folder, device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16 and 0 <= half(clips[0], **SHORT)["score"] <= 1


def test_sign_features_become_the_sentence_that_their_video_becomes(translate, clips):
    """Alone, in batches of unequal length, beside videos, and as an array of numpy."""
    features = []
    for clip in clips:
        pixels = translate.processor(videos=clip, return_tensors="pt", do_rescale=False, do_normalize=False)
        features.append({"sign_features": translate.model.get_sign_features(pixels["pixel_values_videos"])[0]})
    expected = translate(clips, **SHORT)
    as_numpy = {"sign_features": features[1]["sign_features"].detach().numpy()[None, :, None]}
    for results in (
        [translate(clip, **SHORT) for clip in features],
        translate(features, batch_size=3, **SHORT),
        translate([features[0], clips[1], features[2]], batch_size=3, **SHORT),
        [translate(features[0], **SHORT), translate(as_numpy, **SHORT), expected[2]],
    ):
        for result, known, clip in zip(results, expected, features, strict=True):
            assert result["translation_text"] == known["translation_text"]
            assert result["score"] == pytest.approx(known["score"], rel=1e-4)
            if result is not known and result["seconds"] is None:
                assert result["num_frames"] == len(clip["sign_features"])


@pytest.mark.parametrize(
    "array", [torch.zeros(3, 19), torch.zeros(2, 3, 20), torch.zeros(0, 20), torch.full((3, 20), float("nan"))]
)
def test_features_that_are_none_are_refused(translate, array):
    with pytest.raises(ValueError, match=r"`sign_features` must be \(N, 20\) and finite, got \("):
        translate({"sign_features": array})
    result = translate([{"sign_features": array}, {"sign_features": torch.zeros(3, 20)}], on_error="skip", **SHORT)
    assert "must be (N, 20)" in result[0]["error"] and "error" not in result[1]
