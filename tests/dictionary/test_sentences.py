"""Gloss-sentence pairs: what a grammar says, and what a table says."""

import re

import pytest

from training_fla.cli import main
from training_fla.dictionary.sentences import Grammar, gloss_name, read_pairs, split_of_signs
from training_fla.errors import InputError
from training_fla.tables import BadRows, read_table

GRAMMAR = """\
words:
  person: {MOTHER: my mother, SON: my son, AUNT: my aunt}
  food: {EGG: {one: an egg, many: eggs}, BREAD: {one: bread, many: bread}, GOOD RICE: {one: rice, many: rice}}
templates:
- {glosses: "{person}", sentence: "{person}."}
- {glosses: "TOMORROW {food} {food2} {person}", sentence: "{person} buys {food.one} and likes {food2.many} tomorrow."}
- {glosses: "{food} {person}", sentence: "{person} eats {food.one}."}
"""


@pytest.fixture
def grammar(tmp_path):
    (tmp_path / "grammar.yaml").write_text(GRAMMAR, encoding="utf-8")
    return Grammar(tmp_path / "grammar.yaml")


def test_slots_get_glosses_and_words_of_their_form(grammar):
    pairs = grammar.draw({"train": 10, "dev": 2, "test": 2}, seed=3)
    longer = [pair for pair in pairs if len(pair.glosses) == 4]
    words = {"EGG": "eggs", "BREAD": "bread", "GOOD-RICE": "rice"}
    assert longer
    for pair in longer:
        tomorrow, _, second, person = pair.glosses
        assert tomorrow == "TOMORROW" and f"likes {words[second]} tomorrow." in pair.sentence
        assert pair.sentence.startswith({"MOTHER": "My mother", "SON": "My son", "AUNT": "My aunt"}[person])
        assert len(set(pair.glosses)) == 4, "two slots of a class differ"


def test_each_sign_alone_is_for_train_and_no_combination_stands_in_two_splits(grammar):
    pairs = grammar.draw({"train": 10, "dev": 2, "test": 2}, seed=3)
    alone = [(pair.glosses, pair.split) for pair in pairs if len(pair.glosses) == 1]
    assert alone == [(("MOTHER",), "train"), (("SON",), "train"), (("AUNT",), "train")]
    longer = [pair for pair in pairs if len(pair.glosses) > 1]
    assert [pair.split for pair in longer] == ["train"] * 10 + ["dev"] * 2 + ["test"] * 2
    combinations = {
        split: {frozenset(p.glosses) for p in longer if p.split == split} for split in ("train", "dev", "test")
    }
    assert not combinations["train"] & (combinations["dev"] | combinations["test"])
    assert not combinations["dev"] & combinations["test"]
    assert len({pair.sentence for pair in pairs}) == len(pairs) == len({pair.glosses for pair in pairs})
    assert grammar.draw({"train": 10, "dev": 2, "test": 2}, seed=3) == pairs
    assert split_of_signs(("A", "B"), {"train": 1, "dev": 1}) == split_of_signs(("B", "A"), {"train": 1, "dev": 1})


def test_a_grammar_that_is_too_small_says_how_many_it_gives(grammar):
    with pytest.raises(InputError, match=r"gives \d+ different sentences for train, not 40: .*--num-train"):
        grammar.draw({"train": 40, "dev": 0, "test": 0}, seed=0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("SON: my son", "NO: not", "False.*quote it"),
        ("SON: my son", "SON: 1", "SON is 1, not a text"),
        ('sentence: "{person}."', 'sentence: "hello."', "template 1: person"),
        ("TOMORROW", "{day}", "template 2: day"),
        ('"{food} {person}"', '"{food} {person}}"', "template 3.*brace"),
        ("{food.one}.", "{food.few}.", "EGG|BREAD|GOOD-RICE.*'few'"),
        ("templates:", "rules:", "two parts"),
        ("  person:", "  person: [", "not YAML"),
    ],
)
def test_a_bad_grammar_is_refused_by_place(tmp_path, before, after, message):
    file = tmp_path / "grammar.yaml"
    file.write_text(GRAMMAR.replace(before, after), encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        Grammar(file).draw({"train": 5, "dev": 0, "test": 0}, seed=0)
    assert str(file) in str(error.value)


def test_the_command_writes_a_table_that_is_read_again(tmp_path, capsys):
    (tmp_path / "grammar.yaml").write_text(GRAMMAR, encoding="utf-8")
    out = tmp_path / "pairs.tsv"
    words = ["prepare", "sentences", "--grammar", str(tmp_path / "grammar.yaml"), "--out", str(out)]
    words += ["--num-train", "8", "--num-dev", "1", "--num-test", "1"]
    assert main(words) == 0
    assert re.search(r"train 11 sentences of 1 to 4 signs", capsys.readouterr().err)
    assert [cells["split"] for _, cells in read_table(out, ["split"])] == ["train"] * 11 + ["dev", "test"]
    pairs = read_pairs(out, BadRows())
    assert (pairs[0].glosses, pairs[0].sentence, pairs[0].line) == (("MOTHER",), "My mother.", 2)
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--num-dev", "-1"]) == 2 and "--num-dev -1" in capsys.readouterr().err


def test_rows_without_a_split_get_that_of_their_signs_and_bad_ones_are_named(tmp_path):
    file = tmp_path / "pairs.csv"
    rows = "".join(f"A{n} B,Sentence {n}.\nB A{n},Sentence {n} again.\n" for n in range(40))
    file.write_text(f"glosses,sentence\n{rows},None.\nA,\n", encoding="utf-8")
    bad = BadRows()
    pairs = read_pairs(file, bad)
    assert {pair.split for pair in pairs} == {"train", "dev", "test"}
    assert all(one.split == other.split for one, other in zip(pairs[::2], pairs[1::2], strict=True))
    assert [line.split(", ")[1] for line in bad.lines()] == [
        "line 82: no gloss in the row",
        "line 83: no sentence in the row",
    ]
    assert gloss_name(" GOOD  MORNING") == "GOOD-MORNING"
