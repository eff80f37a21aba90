import pytest

from training_fla.files import InputError, atomic_file, atomic_folder, locked_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole_when_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "out") as work:
        (work / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out/a").read_text() == "1"


def test_a_failed_block_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as work:
        (work / "a").write_text("1")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file") as work:
        work.write_text("1")
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / ".out.writing/deep").mkdir(parents=True)
    (tmp_path / ".out.writing/deep/half").write_text("half")
    with atomic_folder(tmp_path / "out") as work:
        (work / "a").write_text("1")
    assert names(tmp_path / "out") == ["a"]


def test_existing_outputs_are_replaced_only_when_asked(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "out", overwrite=text == "new") as work:
            (work / text).write_text(text)
        with atomic_file(tmp_path / "file", overwrite=text == "new") as work:
            work.write_text(text)
    assert names(tmp_path / "out") == ["new"]
    assert (tmp_path / "file").read_text() == "new"
    with pytest.raises(InputError, match="out exists and is not empty"), atomic_folder(tmp_path / "out"):
        pass
    with pytest.raises(InputError, match="file exists already"), atomic_file(tmp_path / "file"):
        pass


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out is a file"), atomic_folder(tmp_path / "out", overwrite=True):
        pass
    with pytest.raises(InputError, match="cannot make the folder"), atomic_folder(tmp_path / "out/below"):
        pass


def test_two_runs_do_not_write_one_folder(tmp_path):
    with (
        locked_folder(tmp_path / "work", tmp_path / "out"),
        pytest.raises(InputError, match="out is being written by another run"),
        locked_folder(tmp_path / "work", tmp_path / "out"),
    ):
        pass
