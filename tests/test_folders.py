import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.windows_rules import windows_rules  # noqa: F401  a fixture
from training_fla.errors import InputError
from training_fla.folders import (
    LOCK,
    MARKER,
    atomic_file,
    atomic_folder,
    check_folder,
    check_not_inside,
    lock_file,
    locked_folder,
    read_marker,
    unlock_file,
    write_marker,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make(path, kind="model", **options):
    with atomic_folder(path, kind, **options) as work:
        (work / "weights").mkdir()
        (work / "weights/a").write_text("1")


def test_a_folder_appears_whole_and_marked_when_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "out", "model") as work:
        (work / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out/a").read_text() == "1"
    assert read_marker(tmp_path / "out") == {"kind": "model", "version": 1, "files": ["a"]}


def test_a_failed_block_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out", "model") as work:
        (work / "a").write_text("1")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file") as work:
        work.write_text("1")
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / ".out.writing/deep").mkdir(parents=True)
    (tmp_path / ".out.writing/deep/half").write_text("half")
    with pytest.raises(InputError, match=r"out\.writing"):
        make(tmp_path / "out")
    write_marker(tmp_path / ".out.writing", "model")
    make(tmp_path / "out")
    assert names(tmp_path / "out") == [MARKER, "weights"]


def test_existing_outputs_are_replaced_only_when_asked(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "out", "model", overwrite=text == "new") as work:
            (work / text).write_text(text)
        with atomic_file(tmp_path / "file", overwrite=text == "new") as work:
            work.write_text(text)
    assert names(tmp_path / "out") == [MARKER, "new"]
    assert (tmp_path / "file").read_text() == "new"
    with pytest.raises(InputError, match="out .*--overwrite"):
        make(tmp_path / "out")
    with pytest.raises(InputError, match="file exists already"), atomic_file(tmp_path / "file"):
        pass


@pytest.mark.parametrize("marker", [None, "", "[]", '{"kind": "other program"}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_without_our_marker_is_refused_with_what_it_holds(marker, overwrite, tmp_path):
    (tmp_path / "out").mkdir()
    for number in range(5):
        (tmp_path / f"out/chapter {number}").write_text("thesis")
    if marker is not None:
        (tmp_path / "out" / MARKER).write_text(marker)
    more = 2 if marker is None else 3
    with pytest.raises(
        InputError,
        match=rf"out holds .*chapter 1.* and {more} more and no whole .fla-llm.json of ours.*choose another folder$",
    ):
        make(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out/chapter 4").read_text() == "thesis"


def test_a_folder_of_another_kind_or_with_foreign_files_is_refused(tmp_path):
    make(tmp_path / "out")
    with pytest.raises(InputError, match="out .*model.*packed corpus"):
        make(tmp_path / "out", "corpus", overwrite=True)
    (tmp_path / "out/weights/notes").write_text("mine")
    with pytest.raises(InputError, match="weights/notes"):
        make(tmp_path / "out", overwrite=True)
    (tmp_path / "out/weights/notes").rename(tmp_path / "notes")
    (tmp_path / "out/.DS_Store").write_text("left by a file browser")
    make(tmp_path / "out", overwrite=True)


def test_a_link_to_our_folder_stays_a_link(tmp_path):
    make(tmp_path / "real")
    (tmp_path / "out").symlink_to("real")
    make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").is_symlink() and names(tmp_path) == ["out", "real"]


def test_a_source_in_a_folder_beside_the_output_is_not_in_it(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/t.csv").write_text("video")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    check_not_inside(["../tables/t.csv"], ".")
    with pytest.raises(InputError, match=r"\. holds \.\./out, which is read"):
        check_not_inside(["../out"], ".")


def test_an_output_that_holds_a_source_is_refused(tmp_path):
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "out/deep/table.csv").write_text("video")
    (tmp_path / "link.csv").symlink_to(tmp_path / "out/deep/table.csv")
    for source in (tmp_path / "out", tmp_path / "out/deep/../deep/table.csv", tmp_path / "link.csv"):
        with pytest.raises(InputError, match=r"out .*choose another folder"):
            check_not_inside([None, source], tmp_path / "out")
    check_not_inside(["name/on-the-hub", tmp_path], tmp_path / "out")
    check_not_inside(["name/on-the-hub"], ".")
    check_not_inside([tmp_path], tmp_path / "new")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out is a file"):
        check_folder(tmp_path / "out", "model", overwrite=True)
    with pytest.raises(InputError, match="cannot make the folder"):
        make(tmp_path / "out/below")


def test_two_runs_do_not_write_one_folder(tmp_path):
    with (
        locked_folder(tmp_path / "work", tmp_path / "out"),
        pytest.raises(InputError, match="out .*another run"),
        locked_folder(tmp_path / "work", tmp_path / "out"),
    ):
        pass


def test_a_lock_leaves_no_file_and_a_file_that_a_killed_process_left_is_no_lock(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / LOCK).touch()
    with locked_folder(tmp_path / "work", tmp_path / "out"):
        pass
    assert names(tmp_path / "work") == []
    with locked_folder(tmp_path / "new", tmp_path / "out", temporary=True):
        pass
    assert names(tmp_path) == ["work"]


def test_what_is_locked_is_the_file_that_others_find(tmp_path):
    """Between opening and locking, the process that held the lock may have removed the file that was opened."""
    opened = []

    def removed_once(*args):
        descriptor = open_(*args)
        if not opened:
            (tmp_path / "lock").unlink()
        opened.append(descriptor)
        return descriptor

    open_ = os.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", removed_once)
        held = lock_file(tmp_path / "lock")
    assert len(opened) == 2 and lock_file(tmp_path / "lock") is None
    unlock_file(held, tmp_path / "lock")
    assert names(tmp_path) == []


def test_one_that_waits_goes_on_when_the_other_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training_fla.folders.POLL_SECONDS", 0.01)
    done, begun = [], threading.Event()

    def hold():
        with locked_folder(tmp_path / "work", tmp_path / "out"):
            begun.set()
            time.sleep(0.2)
            done.append(1)

    other = threading.Thread(target=hold)
    other.start()
    begun.wait()
    with locked_folder(tmp_path / "work", tmp_path / "out", wait=True):
        assert done == [1]
    other.join()
    assert capsys.readouterr().err.count("waiting for the process that writes") == 1


def test_under_windows_rules_files_and_folders_are_written_and_replaced(windows_rules, tmp_path):  # noqa: F811
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "out", "model", overwrite=text == "new") as work:
            (work / "a").write_text(text)
            (work / "read-only").write_text(text)
            (work / "read-only").chmod(0o444)
        with atomic_file(tmp_path / "file", overwrite=text == "new") as work:
            work.write_text(text)
    assert names(tmp_path) == ["file", "out"] and (tmp_path / "out/a").read_text() == "new"
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "other", "model") as work:
        (work / "a").write_text("1")
        raise RuntimeError
    assert names(tmp_path) == ["file", "out"]


def test_what_a_program_has_open_is_named_and_stays(windows_rules, tmp_path):  # noqa: F811
    make(tmp_path / "out")
    (tmp_path / "file").write_text("old")
    with open(tmp_path / "file"), open(tmp_path / "out/weights/a"):
        with pytest.raises(InputError, match="cannot replace .*out: The process cannot access the file"):
            make(tmp_path / "out", overwrite=True)
        with (
            pytest.raises(InputError, match="cannot replace .*file: The process cannot access the file"),
            atomic_file(tmp_path / "file", overwrite=True) as work,
        ):
            work.write_text("new")
    assert names(tmp_path) == ["file", "out"] and (tmp_path / "out/weights/a").read_text() == "1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_workers_of_a_killed_run_do_not_hold_its_folder(tmp_path):
    code = f"""
import os, signal, time
from pathlib import Path
from training_fla.folders import locked_folder
with locked_folder(Path({str(tmp_path)!r}), Path("out")):
    worker = os.fork()
    if worker == 0:
        os.close(1)
        time.sleep(60)
    print(worker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        with locked_folder(tmp_path, tmp_path):
            pass
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_a_file_on_a_read_only_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refuse)
    message = r"cannot write .*out\.png: Read-only file system"
    with pytest.raises(InputError, match=message), atomic_file(tmp_path / "out.png"):
        pytest.fail("it is not begun")


def test_the_marker_is_one_json_line(tmp_path):
    write_marker(tmp_path, "run")
    assert json.loads((tmp_path / MARKER).read_text()) == {"kind": "run", "version": 1}
