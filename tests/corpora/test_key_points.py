"""Key points of `.pose` files and of arrays become features that are scaled by the shoulders."""

import sys

import numpy as np
import pytest
import torch

from tests.corpora.corpus_trees import POSE_POINTS, write_pose
from training_fla.cli import main
from training_fla.corpora.feature_files import load_features, read_features
from training_fla.data.feature_store import open_features
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.errors import InputError

pose_format = pytest.importorskip("pose_format")
T, V = 5, sum(POSE_POINTS)


def points(people: int = 2, dims: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a body and a hand in pixels, and confidences, both of several people; all are seen."""
    drawn = np.random.default_rng(seed)
    shape = (T, people, V)
    return (
        drawn.uniform(100, 900, (*shape, dims)).astype(np.float32),
        drawn.uniform(0.5, 1, shape).astype(np.float32),
    )


def test_a_pose_is_scaled_as_its_own_library_does(tmp_path):
    data, confidence = points(people=1)
    file = write_pose(tmp_path / "a.pose", data, confidence)
    features = load_features(file).reshape(T, V, 4)
    pose = pose_format.Pose.read(file.read_bytes())
    pose.normalize(
        pose.header.normalization_info(*(("POSE_LANDMARKS", f"{side}_SHOULDER") for side in ("LEFT", "RIGHT")))
    )
    expected = torch.tensor(pose.body.data.filled(0)[:, 0]).float()
    torch.testing.assert_close(features[..., :3], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features[..., 3], torch.tensor(confidence[:, 0]))
    shoulders = features[:, [11, 12], :3]
    torch.testing.assert_close(shoulders.mean((0, 1)), torch.zeros(3), rtol=0, atol=1e-5)
    assert (shoulders[:, 0] - shoulders[:, 1]).norm(dim=-1).mean() == pytest.approx(1)


@pytest.mark.parametrize("dims", [2, 3])
def test_arrays_of_all_kinds_say_what_the_pose_says(tmp_path, dims):
    """The person seen most is kept; missing points are 0 with a confidence of 0, whatever stands there."""
    data, confidence = points(dims=dims)
    confidence[:, 0, :4] = 0  # so the second person is kept
    confidence[2, 1, [3, 12]] = 0
    data[2, 1, 3] = np.nan
    expected = load_features(write_pose(tmp_path / "a.pose", data, confidence, world=4))
    assert expected.shape == (T, V * (dims + 1))
    by_point = expected.reshape(T, V, dims + 1)
    assert (by_point[2, [3, 12]] == 0).all() and (by_point[..., dims] > 0).sum() == T * V - 2
    pairs = data[[0, 1, 3, 4], 1][:, [11, 12]]
    width = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=-1).mean()
    torch.testing.assert_close(
        by_point[4, 5, :dims], torch.tensor((data[4, 1, 5] - pairs.mean((0, 1))) / width), rtol=1e-4, atol=1e-5
    )
    files = {"b.npz": {"data": data, "confidence": confidence}, "c.npz": {"features": data, "confidence": confidence}}
    files["d.npz"] = {"x": data[:, 1], "confidence": confidence[:, 1]}
    for name, arrays in files.items():
        np.savez(tmp_path / name, **arrays)
        assert torch.equal(load_features(tmp_path / name), expected), name
    torch.save({"data": torch.tensor(data), "confidence": torch.tensor(confidence)}, tmp_path / "e.pt")
    assert torch.equal(load_features(tmp_path / "e.pt", stride=2), expected[::2])
    if dims == 3:
        np.save(tmp_path / "f.npy", np.concatenate([data, confidence[..., None]], -1))
        assert torch.equal(load_features(tmp_path / "f.npy"), expected)


def test_arrays_without_a_confidence_mark_what_is_missing(tmp_path):
    data, _ = points(people=1)
    data[1, 0, 4], data[3, 0, 5, 1] = 0, np.nan
    np.save(tmp_path / "a.npy", data)
    by_point = load_features(tmp_path / "a.npy").reshape(T, V, 4)
    missing = torch.zeros(T, V, dtype=torch.bool)
    missing[1, 4] = missing[3, 5] = True
    assert torch.equal(by_point[..., 3], (~missing).float()) and (by_point[missing] == 0).all()


def test_hdf5_keeps_its_confidence(tmp_path):
    h5py = pytest.importorskip("h5py")
    data, confidence = points(people=1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["confidence"] = data, confidence
    expected = load_features(write_pose(tmp_path / "a.pose", data, confidence))
    assert torch.equal(load_features(tmp_path / "a.h5"), expected)


def test_other_estimators_need_their_shoulders(tmp_path):
    data, confidence = points(people=1)
    file = write_pose(tmp_path / "a.pose", data, confidence, names=("MINE", "HAND"))
    with pytest.raises(
        InputError, match="a.pose has its points in MINE, HAND, where the shoulders are not known.*--shoul"
    ):
        load_features(file)
    other = load_features(file, shoulders=(2, 4)).reshape(T, V, 4)
    torch.testing.assert_close(other[:, [2, 4], :3].mean((0, 1)), torch.zeros(3), rtol=0, atol=1e-5)
    np.save(tmp_path / "b.npy", data)
    assert torch.equal(
        load_features(tmp_path / "b.npy", shoulders=(2, 4)).reshape(other.shape)[..., :3], other[..., :3]
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data, confidence: confidence[..., 12].fill(0), "shows both shoulders in no frame"),
        (lambda data, confidence: data.fill(3), "shows both shoulders in no frame"),
    ],
)
def test_a_clip_without_shoulders_is_named(tmp_path, spoil, message):
    data, confidence = points(people=1)
    spoil(data, confidence)
    with pytest.raises(InputError, match=f"a.pose {message}"):
        load_features(write_pose(tmp_path / "a.pose", data, confidence))


def test_damage_and_shapes_are_named(tmp_path):
    data, confidence = points(people=1)
    file = write_pose(tmp_path / "a.pose", data, confidence)
    (tmp_path / "cut.pose").write_bytes(file.read_bytes()[:-9])
    (tmp_path / "text.pose").write_text("a pose")
    np.savez(tmp_path / "a.npz", data=data, confidence=confidence[:3])
    np.save(tmp_path / "few.npy", data[:, :, :9])
    for name, message in {
        "cut.pose": "cannot be read: ",
        "text.pose": "cannot be read: ",
        "a.npz": r"has shape \(5, 1, 17, 3\) and a confidence of shape \(3, 1, 17\)",
        "few.npy": "has 5 frames of 9 points; shoulders are to be 11 and 12: see --shoulders",
    }.items():
        with pytest.raises(InputError, match=f"{name} {message}"):
            load_features(tmp_path / name)


def test_an_absent_library_is_named_with_its_extra(tmp_path, monkeypatch):
    file = write_pose(tmp_path / "a.pose", *points())
    monkeypatch.setitem(sys.modules, "pose_format", None)
    with pytest.raises(InputError, match=r'a.pose needs pose-format to be read: `pip install "fla-llm\[pose\]"`'):
        load_features(file)


def test_rows_name_poses_and_the_card_says_what_they_are(tmp_path, capsys):
    rows = ["features,sentence,split"]
    for number, split in enumerate(("train", "train", "dev", "test")):
        write_pose(tmp_path / "poses" / f"{number}.pose", *points(seed=number))
        rows.append(f"poses/{number},Satz {number}.,{split}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows))
    words = ["prepare", "features", "--root", str(table), "--extractor", "MediaPipe Holistic"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    corpus = PackedCorpus(tmp_path / "out", "train")
    listed = "key points POSE_LANDMARKS (14), LEFT_HAND_LANDMARKS (3): of each x, y, z in distances of the shoulders"
    assert corpus.extractor.startswith(f"MediaPipe Holistic; {listed}") and "0 where it is missing" in corpus.extractor
    assert listed in (tmp_path / "out/README.md").read_text()
    assert torch.equal(open_features(corpus)[1], load_features(tmp_path / "poses/1.pose"))
    # Of as many channels, but of other points.
    write_pose(tmp_path / "poses/3.pose", *points(), names=("POSE_LANDMARKS", "RIGHT_HAND_LANDMARKS"))
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "other")]) == 2
    assert "line 5: " in (error := capsys.readouterr().err) and "RIGHT_HAND_LANDMARKS (3)" in error
    assert read_features(tmp_path / "poses/0.pose", 1, None)[1] != read_features(tmp_path / "poses/3.pose", 1, None)[1]
