"""One input path: packed frames, on which a model is trained and scored, are those of processor and pipeline."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from processing_fla import FlaVideoProcessor
from training_fla.corpora.clips import FRAME_SIZE, FrameFolder, VideoFile
from training_fla.corpora.row import CorpusRow
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.data.packing import pack
from training_fla.recipe import DataArguments

from .drawing import GREEN, late_video, marked_frame, tiny_model, tiny_processor, write_video

RAW = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
SHORT = {"max_new_tokens": 8, "num_beams": 2}
SIZE, CROP, LIMIT = 40, 32, 20
KINDS = ["mp4", "turned", "recorded", "late", "frames", "long mp4", "long recorded", "long frames"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict:
    """Video files with an index and without, and folders of frames; the long ones have more frames than the limit."""
    folder = tmp_path_factory.mktemp("clips")
    clips = {"late": late_video(folder / "late.mp4", num_frames=13)}
    for prefix, length in (("", 13), ("long ", 29)):
        frames = [marked_frame(number, 76, 96) for number in range(length)]
        clips[f"{prefix}mp4"] = write_video(folder / f"{prefix}a.mp4", frames)
        times = {"times": [40 * number for number in range(length)], "container_options": {"live": "1"}}
        clips[f"{prefix}recorded"] = write_video(
            folder / f"{prefix}b.webm", frames, codec="libvpx", options={"g": "9", "deadline": "realtime"}, **times
        )
        images = folder / f"{prefix}c"
        images.mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(images / f"{number}.png")
        clips[f"{prefix}frames"] = images
    clips["turned"] = write_video(folder / "d.mov", [marked_frame(n, 96, 50) for n in range(13)])
    return clips


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(SIZE, CROP, max_source_frames=LIMIT)


@pytest.fixture(scope="module")
def packed(clips, processor, tmp_path_factory) -> SignVideoDataset:
    rows = [
        CorpusRow(str(number), (FrameFolder if clips[kind].is_dir() else VideoFile)(clips[kind]), "am tag", "train")
        for number, kind in enumerate(KINDS)
    ]
    out = tmp_path_factory.mktemp("packed") / "corpus"
    pack(rows, out, size=SIZE, num_workers=0)
    return SignVideoDataset(PackedCorpus(out, "train"), processor)


@pytest.mark.parametrize("kind", KINDS)
def test_one_input_path_packed_frames_are_those_of_the_processor_up_to_jpeg(clips, processor, packed, kind):
    index = KINDS.index(kind)
    batch = processor.video_processor(clips[kind], return_metadata=True, **RAW)
    kept = batch["video_metadata"][0].frames_indices
    assert packed.kept(packed.corpus.num_frames[index]).tolist() == kept.tolist()
    assert len(kept) == (5 if kind.startswith("long") else 4)
    theirs, ours = packed[index]["pixel_values_videos"].int(), batch["pixel_values_videos"][0].int()
    assert theirs.shape == ours.shape == (len(kept), 3, CROP, CROP)
    # JPEG halves the resolution of colours: 4 of 255 on average, of the hard edges of pure colours drawn here.
    assert (theirs - ours).float().abs().mean() < 5


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280)])
def test_one_input_path_gives_a_file_the_colours_of_its_frames(tmp_path, height, width):
    """Those that any other program decodes, whole and then scaled; narrow stripes show what colours lose."""
    frame = marked_frame(3, height, width)
    frame[:, np.arange(width) // 8 % 3 == 0] = GREEN
    path = write_video(tmp_path / "a.mp4", [frame] * 2)
    with av.open(str(path)) as container:
        whole = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    read = FlaVideoProcessor(do_center_crop=False)
    of_file, of_frames = (read(video, **RAW)["pixel_values_videos"].float() for video in (path, np.stack(whole)))
    assert of_file.shape == of_frames.shape == (1, 1, 3, 256, 256)
    # Colours are stored for every other pixel, so they are scaled by half as much as in memory, where an area of a few
    # pixels is averaged less exactly.
    difference = (of_file - of_frames).abs()
    assert difference.mean() < 6 and difference.max() < 50


@pytest.mark.parametrize("kind", KINDS)
def test_one_input_path_gives_a_file_and_its_packed_frames_the_same_sentence(clips, processor, packed, kind):
    index, clip = KINDS.index(kind), clips[kind]
    before_jpeg = (FrameFolder if clip.is_dir() else VideoFile)(clip).frames(size=(SIZE, SIZE))
    kept = torch.from_numpy(np.stack(list(before_jpeg))[packed.kept(packed.corpus.num_frames[index])]).permute(
        0, 3, 1, 2
    )
    pixels = processor.video_processor.scale_and_crop(kept)
    assert torch.equal(pixels, processor.video_processor(clip, **RAW)["pixel_values_videos"][0])
    model = tiny_model(processor.tokenizer)
    translate = pipeline("sign-language-translation", model=model, processor=processor, device="cpu")
    of_file, of_frames = translate(clip, **SHORT), translate(kept, do_sample_frames=False, **SHORT)
    assert of_file["translation_text"] == of_frames["translation_text"] != ""
    assert of_file["score"] == pytest.approx(of_frames["score"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_input_path_scales_a_file_as_frames_that_were_packed_larger(clips, tmp_path, kind):
    """First to the size they were packed at, then to the model's; the number travels with the model."""
    packed_at = (64, 60)
    video = (FrameFolder if clips[kind].is_dir() else VideoFile)(clips[kind])
    pack([CorpusRow("a", video, "am tag", "train")], tmp_path / "corpus", size=packed_at, num_workers=0)
    corpus, processor = PackedCorpus(tmp_path / "corpus", "train"), tiny_processor(SIZE, CROP, max_source_frames=LIMIT)
    straight = processor.video_processor(clips[kind], **RAW)["pixel_values_videos"][0]
    processor.video_processor.packed_size = corpus.size_before(processor.video_processor)
    assert processor.video_processor.packed_size == {"height": 64, "width": 60}
    processor.save_pretrained(tmp_path / "model")
    processor.video_processor = FlaVideoProcessor.from_pretrained(tmp_path / "model")
    of_file = processor.video_processor(clips[kind], **RAW)["pixel_values_videos"][0]
    assert "frames" in kind or not torch.equal(of_file, straight)  # flat drawings scale the same either way
    videos = SignVideoDataset(corpus, processor)
    kept = videos.kept(corpus.num_frames[0])
    before_jpeg = torch.from_numpy(np.stack(list(video.frames(size=packed_at)))[kept]).permute(0, 3, 1, 2)
    assert torch.equal(processor.video_processor.scale_and_crop(before_jpeg), of_file)
    in_memory = torch.from_numpy(np.stack(list(video.frames(size=packed_at)))).permute(0, 3, 1, 2)
    assert torch.equal(processor.video_processor(in_memory, **RAW)["pixel_values_videos"][0], of_file)
    assert corpus.size_before(tiny_processor(64, CROP).video_processor) == {"height": 64, "width": 60}
    as_packed = FlaVideoProcessor(size={"height": 64, "width": 60})
    assert corpus.size_before(as_packed) is None and "packed_size" not in as_packed.to_dict()


@pytest.mark.parametrize("size", [{"height": 4}, {"height": 0, "width": 3}, {"height": "4", "width": 4}])
def test_a_packed_size_is_a_height_and_a_width(size):
    with pytest.raises(ValueError, match="`packed_size` must have a `height` and a `width` in pixels"):
        FlaVideoProcessor(packed_size=size)


def test_one_input_path_thins_a_long_clip_in_every_call(clips, processor):
    video_processor = processor.video_processor
    for kind in ("long mp4", "long recorded", "long frames"):
        kept = video_processor(clips[kind], return_metadata=True, **RAW)["video_metadata"][0].frames_indices.tolist()
        assert kept == video_processor.sample_frame_indices(29).tolist()
        assert {after - before for before, after in pairwise(kept)} == {6}
        every = video_processor(clips[kind], max_source_frames=None, **RAW)["attention_mask"].shape[1]
        assert every == 8
        whole = video_processor(clips[kind], do_sample_frames=False, **RAW)["attention_mask"].shape[1]
        assert whole == 29
    array = np.stack([marked_frame(number) for number in range(29)])
    assert video_processor(array, **RAW)["attention_mask"].shape[1] == 5
    with pytest.raises(ValueError, match="29 frames.* 3.* stride of 4"):
        video_processor.sample_frame_indices(29, packed_stride=3)
    assert video_processor.sample_frame_indices(15, packed_stride=2).tolist() == [0, 3, 6, 9, 12]


def test_one_input_path_thins_clips_of_different_rates_to_one(tmp_path):
    """The same 2 s at 50, 25 and 29.97 frames a second; a folder of frames does not say its rate to a processor."""
    files = {}
    for rate, count in ((50, 100), (25, 50), (Fraction(30000, 1001), 60)):
        frames = [marked_frame(number % 20, 76, 96) for number in range(count)]
        times = [round(1000 * number / rate) for number in range(count)]
        files[str(rate)] = write_video(tmp_path / f"{count}.mkv", frames, times=times)
    rows = [CorpusRow(name, VideoFile(file), "am tag", "train") for name, file in files.items()]
    pack(rows, tmp_path / "packed", size=SIZE, num_workers=0)
    processor = tiny_processor(SIZE, CROP, target_fps=25, frame_stride=4)
    videos = SignVideoDataset(PackedCorpus(tmp_path / "packed", "train"), processor)
    assert videos.lengths.tolist() == [13, 13, 13]
    for index, file in enumerate(files.values()):
        batch = processor.video_processor(file, return_metadata=True, **RAW)
        kept = batch["video_metadata"][0].frames_indices
        assert len(kept) == videos.lengths[index] == len(videos[index]["pixel_values_videos"])
        assert kept.tolist() == videos.kept(videos.corpus.num_frames[index], fps=videos.corpus.rates[index]).tolist()
    assert (
        processor.video_processor(files["50"], return_metadata=True, **RAW)["video_metadata"][0].frames_indices[1] == 8
    )
    processor.save_pretrained(tmp_path / "saved")
    assert FlaVideoProcessor.from_pretrained(tmp_path / "saved").target_fps == 25
    assert "target_fps" not in tiny_processor(SIZE, CROP).video_processor.to_dict()
    as_packed = SignVideoDataset(PackedCorpus(tmp_path / "packed", "train"), tiny_processor(SIZE, CROP))
    assert as_packed.lengths.tolist() == [25, 13, 15], "off by default"


def test_frames_are_packed_at_the_size_that_recipes_and_the_processor_resize_to():
    data = DataArguments()
    assert {data.packed_size, data.frame_size, *FlaVideoProcessor.size.values()} == {FRAME_SIZE}
