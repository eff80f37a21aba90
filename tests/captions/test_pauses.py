"""`--cut pauses`: rests of a drawn signer are found under noise, shaking and flicker, and those of real signers."""

import itertools
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.processing.drawing import timed_frames, tiny_model, tiny_processor, write_video
from training_fla.captions.pauses import (
    MARGIN_SECONDS,
    PICTURE_SIZE,
    Levels,
    PauseRules,
    PauseSegmenter,
    motion_between,
    two_levels,
)
from training_fla.cli import main

FPS = 12.5
SIGNED = [(1.2, 3.6), (4.4, 6.0), (7.6, 12.0)]  # between rests of 0.8 s and more
SECONDS = 13.6


def pose(phase: float, sway: float, height: int = 72, width: int = 96) -> Image.Image:
    """A person before a patterned wall; the hands turn with the phase."""
    image = Image.new("L", (width, height), 120)
    draw = ImageDraw.Draw(image)
    for x in range(0, width, 12):
        draw.rectangle((x, 0, x + 5, height), fill=100 + x)
    draw.ellipse((40 + sway, 8, 58 + sway, 30), fill=210)
    draw.rectangle((34 + sway, 30, 64 + sway, height), fill=30)
    for side in (-1, 1):
        x, y = 49 + side * (12 + 12 * np.sin(phase)), 48 + 14 * np.cos(1.3 * phase + side)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=220)
    return image


def pictures(signed=SIGNED, seconds=SECONDS, noise=1.0, shake=0.0, flicker=0.0, brighter=0.0, repeat=1):
    """Grey pictures of someone who signs in given segments and sways a little between them."""
    random = np.random.default_rng(0)
    phase, kept = 0.0, None
    for number in range(round(seconds * FPS)):
        now = number / FPS
        phase += 0.55 * any(first <= now < last for first, last in signed)
        if number % repeat == 0:
            image = pose(phase, 0.15 * np.sin(number / 9))
            offset = (1, 0, shake * np.sin(number / 3), 0, 1, shake * np.cos(number / 4))
            image = image.transform(image.size, Image.Transform.AFFINE, offset, Image.Resampling.BICUBIC)
            kept = np.asarray(image, np.float32) * (1 + flicker * np.sin(2.1 * number)) + brighter * now
            kept = kept + random.normal(0, noise, kept.shape)
        yield now, np.clip(kept, 0, 255)


RULES = PauseRules()


def segments_of(pictures, rules=RULES, max_frames=None):
    """Segments in the order in which they are given; none is given long after it ended."""
    segmenter, found, seconds = PauseSegmenter(rules, max_frames), [], []
    for second, picture in pictures:
        seconds.append(second)
        ended = segmenter.add(second, picture)
        # Half a second of rest, or where a long segment is cut.
        assert all(second - end <= max(rules.min_pause, 2 * MARGIN_SECONDS, 1.5) for _, end in ended)
        assert all(start >= segmenter.settled - rules.max_length - 2.5 for start, _ in ended)
        found += ended
    end = seconds[-1] + (seconds[-1] - seconds[-2] if len(seconds) > 1 else 0)
    return found + segmenter.finish(end)


def assert_found(segments, truth=SIGNED, tolerance=0.2):
    assert len(segments) == len(truth), segments
    for found, true in zip(segments, truth, strict=True):
        assert found[0] == pytest.approx(true[0] - MARGIN_SECONDS, abs=tolerance)
        assert found[1] == pytest.approx(true[1] + MARGIN_SECONDS, abs=tolerance)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(segments))


@pytest.mark.parametrize(
    "trouble",
    [{}, {"noise": 6.0}, {"shake": 0.4}, {"flicker": 0.15}, {"brighter": 4.0}, {"noise": 0.0, "repeat": 1},
     {"noise": 3.0, "shake": 0.4, "flicker": 0.08}],
    ids=str,
)  # fmt: skip
def test_rests_are_found_whatever_the_camera_does(trouble):
    assert_found(segments_of(pictures(**trouble)))


def test_seldom_signing_and_somebody_who_walks_in_do_not_hide_sentences():
    signed = [(20.0, 22.4), (50.0, 52.4)]
    long = [(second, picture.copy()) for second, picture in pictures(signed, 60.0)]
    for second, picture in long:
        if second < 3:  # a dark figure crosses the whole picture
            place = int(second * 32)
            picture[:, max(0, place - 30) : place] = 10
    found = segments_of(long)
    assert_found(found[1:], signed)
    assert found[0][1] < 3.5


def test_without_a_rest_the_whole_recording_is_one_segment_or_cut_at_still_moments():
    shown = list(pictures([(0.0, SECONDS)]))
    assert segments_of(shown) == [(0.0, pytest.approx(SECONDS))]
    parts = segments_of(shown, PauseRules(max_length=4.0))
    assert parts[0][0] == 0 and parts[-1][1] == pytest.approx(SECONDS)
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(parts))
    assert all(2.0 <= last - first <= 4.0 for first, last in parts[:-1]) and parts[-1][1] - parts[-1][0] <= 4.0


def test_where_nobody_signs_there_is_no_segment():
    assert segments_of(pictures([])) == []


def test_rules_say_what_a_pause_and_what_a_sentence_is():
    assert len(segments_of(pictures(), PauseRules(min_pause=1.2))) == 2, "the rest of 0.8 s is no pause any more"
    assert_found(segments_of(pictures(), PauseRules(min_length=2.0)), [SIGNED[0], SIGNED[2]])
    parts = segments_of(pictures(), PauseRules(max_length=3.0))
    assert len(parts) == 4 and parts[2][1] == parts[3][0], "the sentence of 4.4 s is cut in two"
    # So many frames as the model reads: 30 at 12.5 a second are 2.4 s.
    parts = segments_of(pictures(), max_frames=30)
    assert len(parts) == 6 and all(last - first <= 2.4 + 1e-9 for first, last in parts)


def test_what_was_given_does_not_depend_on_what_comes_later():
    shown = list(pictures())
    whole = segments_of(shown)
    for count in range(20, len(shown), 7):
        segmenter, found = PauseSegmenter(PauseRules()), []
        for second, picture in shown[:count]:
            found += segmenter.add(second, picture)
        assert found == whole[: len(found)]
        is_signing = any(first + 0.5 <= shown[count - 1][0] < last for first, last in SIGNED)
        assert not is_signing or segmenter.open_since is not None


def test_hours_of_rest_are_neither_held_nor_do_they_hide_signing():
    segmenter, random = PauseSegmenter(PauseRules()), np.random.default_rng(0)
    found, number = [], 0

    def show(seconds, moves):
        nonlocal number
        for _ in range(round(seconds / 0.08)):
            number += 1
            segmenter.times.append(number * 0.08)
            energy = abs(random.normal(0.4 if moves else 0.03, 0.1 if moves else 0.005))
            found.extend(segmenter.add_motion(number * 0.08, energy))

    segmenter.start = 0.0
    show(1, False), show(3, True), show(3000, False)
    assert len(found) == 1 and len(segmenter.moments) < 30 and len(segmenter.times) < 40
    show(3, True), show(2, False)
    assert len(found) == 2 and found[1] == pytest.approx((3003.8, 3007.2), abs=0.2)
    assert len(segmenter.levels.low) <= 750


def test_one_frame_is_a_segment():
    assert segments_of([(2.0, np.zeros((4, 5)))]) == [(2.0, 2.0)]
    assert PauseSegmenter(PauseRules()).finish(3.0) == []
    flat = np.full((4, 5), 7.0, np.float32)
    assert motion_between(flat, flat + 20) == pytest.approx(0, abs=1e-2)


def test_a_shift_and_a_change_of_light_are_no_motion_but_a_hand_is():
    random = np.random.default_rng(1)
    rows, columns = np.mgrid[0:40, 0:60]
    wall = (60 * np.sin(rows / 5) + 50 * np.cos(columns / 7) + 120).astype(np.float32)
    shifted = (60 * np.sin((rows + 0.5) / 5) + 50 * np.cos((columns - 0.4) / 7) + 120).astype(np.float32)
    hand = wall.copy()
    hand[10:18, 20:28] = 250
    noise = random.normal(0, 0.5, wall.shape).astype(np.float32)
    small = [motion_between(wall, other) for other in (shifted, 1.2 * wall - 9, wall + noise)]
    assert max(small) < 0.02 and motion_between(wall, hand) > 0.2


def test_levels_are_told_apart_when_enough_of_both_was_seen():
    assert two_levels(np.array([1.0, 5.0, 1.0, 4.0, 1.0])) == (1.0, 4.5, 2)
    levels = Levels()
    unknown = levels.begins
    for _ in range(4):
        levels.add(np.log(0.02))
    for _ in range(4):
        levels.add(np.log(0.4))
    assert levels.begins == levels.ends == unknown, "0.32 s of signing are not enough"
    levels.add(np.log(0.4)), levels.add(np.log(0.02))
    assert np.exp([levels.ends, levels.begins]) == pytest.approx([0.02 * 20**0.35, 0.02 * 20**0.5])


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """The drawn signer as a video file, and a model."""
    folder, processor = tmp_path_factory.mktemp("pauses"), tiny_processor()
    tiny_model(processor.tokenizer, seed=3).save_pretrained(folder)
    processor.save_pretrained(folder)
    frames = [np.repeat(picture.astype(np.uint8)[..., None], 3, 2) for _, picture in pictures()]
    twice = [frame for frame in frames for _ in range(2)]  # 25 frames a second, each shown twice
    write_video(folder / "long.mp4", twice)
    return folder


def test_a_recording_becomes_one_cue_a_sentence(recording, capsys):
    video = str(recording / "long.mp4")
    words = ["translate", str(recording), video, "--format", "srt", "--cut", "pauses", "--max-new-tokens", "6"]
    assert main([*words, "--batch-size", "2"]) == 0
    times = re.findall(r"00:00:(\S+) --> 00:00:(\S+)\n\S", capsys.readouterr().out)
    assert_found([tuple(float(time.replace(",", ".")) for time in pair) for pair in times])
    assert main([*words, "--min-length", "2", "--max-length", "3"]) == 0
    assert len(re.findall("-->", capsys.readouterr().out)) == 3


def test_a_cue_is_never_longer_than_the_model_can_take(recording, capsys):
    # 64 positions, of which each takes 4 frames of 25 a second: 10.24 s.
    words = ["--format", "vtt", "--max-new-tokens", "4"]
    command = ["translate", str(recording), str(recording / "long.mp4"), *words]
    assert main([*command, "--cut", "pauses", "--min-pause", "9", "--max-length", "99"]) == 0
    assert len(re.findall("-->", capsys.readouterr().out)) == 2
    assert main([*command, "--window", "13"]) == 2
    assert " 64" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cut", "pauses"], "--format srt"),
        (["--format", "srt", "--cut", "pauses", "--window", "3"], "--window"),
        (["--format", "srt", "--min-pause", "3"], "--min-pause"),
        (["--format", "srt", "--cut", "pauses", "--min-length", "3", "--max-length", "2"], "than --max-length 2"),
        (["--format", "srt", "--cut", "pauses", "--min-length", "9"], "--min-length"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(recording, words, message, capsys):
    assert main(["translate", str(recording), str(recording / "long.mp4"), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.real_data
def test_sentences_of_real_signers_with_rests_between_are_one_cue_each(real_data, tmp_path):
    """Clips of one signer one after the other, the end frames held for 0.9 s under a camera's noise."""
    random = np.random.default_rng(0)
    for signer in ("-d5dN54tH2E", "_BOJ9cYPRe4"):
        frames, truth = [], []
        for clip in sorted((real_data / "how2sign/clips").glob(f"*/{signer}*.mp4")):
            signed = [frame for _, frame in timed_frames(clip, size=(180, 320), frame_stride=2)]
            still = [signed[0]] * 11 + signed + [signed[-1]] * 11
            truth.append(((len(frames) + 11) / 25, (len(frames) + 11 + len(signed)) / 25))
            frames += [np.clip(f + random.normal(0, 3, f.shape), 0, 255).astype(np.uint8) for f in still]
        write_video(tmp_path / "recording.mp4", frames, options={"crf": "23", "preset": "ultrafast"})
        assert len(truth) >= 4
        shown = timed_frames(tmp_path / "recording.mp4", size=PICTURE_SIZE)
        grey = [(second, frame.mean(2)) for place, (second, frame) in enumerate(shown) if place % 2 == 0]
        assert_found(segments_of(grey), truth, tolerance=0.35)
