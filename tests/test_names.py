"""A name that a table gives is found on a disk that spells it in another way."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_fla.errors import InputError
from training_fla.names import name_on_disk, plain_name

WRITTEN = ["grüße.mp4", "날씨.mp4", "Ünï/dé.mp4", "schö́n"]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_either_form_of_a_name_is_found(tmp_path, name, form):
    stored = tmp_path / unicodedata.normalize(form, name)
    stored.parent.mkdir(exist_ok=True)
    stored.touch()
    for written in (name, nfd(name), unicodedata.normalize("NFC", name)):
        assert tmp_path / name_on_disk(tmp_path, Path(written)) == stored


def test_a_name_that_is_spelled_as_on_disk_comes_first(tmp_path):
    folders = [tmp_path / "é", tmp_path / nfd("é")]
    for folder in folders:
        folder.mkdir()
        (folder / nfd("ö")).touch()
    for folder in folders:
        assert name_on_disk(tmp_path, Path(folder.name, "ö")) == Path(folder.name, nfd("ö"))


def test_a_name_without_its_suffix_is_found_where_one_entry_has_that_stem(tmp_path):
    for name in ("a.MP4", "a.txt", "b.v2.webm", "c.mp4", "c.mov", nfd("ü.mp4")):
        (tmp_path / name).touch()
    suffixes = (".mp4", ".mov", ".webm")

    def found(name):
        return str(name_on_disk(tmp_path, Path(name), suffixes))

    assert [found(name) for name in ("a", "b.v2", "ü", "d")] == ["a.MP4", "b.v2.webm", nfd("ü.mp4"), "None"]
    assert found("c.avi") == "None"
    with pytest.raises(InputError, match="'c' may be c.mov or c.mp4: write the suffix"):
        found("c")
    assert name_on_disk(tmp_path, Path("a")) is None


def test_what_comes_to_the_folder_later_is_found(tmp_path):
    assert name_on_disk(tmp_path, Path("é.mp4")) is None
    (tmp_path / nfd("é.mp4")).touch()
    assert name_on_disk(tmp_path, Path("é.mp4")) == Path(nfd("é.mp4"))


@given(st.text(min_size=1))
def test_all_spellings_of_a_name_are_one(text):
    assert {plain_name(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")} == {plain_name(text)}
