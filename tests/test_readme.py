"""Every block of the README runs, read out of the README itself; what stands in for what is in readme_blocks.py."""

import re
import shlex
from fnmatch import fnmatchcase

import pytest

from tests.readme_blocks import (
    MAKE,
    NOT_TYPED,
    README,
    STAND_INS,
    Block,
    Workplace,
    output_of,
    read_blocks,
    run_block,
    run_command,
)

BLOCKS = read_blocks(README.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("readme"))


@pytest.fixture(scope="module")
def whole_workplace(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("readme"), whole_demo=True)


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda number: str(BLOCKS[number]))
def test_a_block_runs(workplace, number):
    workplace.run(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda number: str(BLOCKS[number]))
def test_a_block_runs_after_the_whole_demo(whole_workplace, number):
    whole_workplace.run(number)


def test_the_lines_of_python_print_a_sentence(workplace):
    (block,) = [block for block in BLOCKS if block.language == "python" and "batch_decode" in block.text]
    with workplace.entered():
        assert output_of(block).endswith("\n")


def test_no_table_holds_what_the_readme_no_longer_has():
    commands = [command for block in BLOCKS if block.language == "bash" for command in block.commands()]
    text = README.read_text(encoding="utf-8")
    for target in MAKE:
        assert f"`{target}`" in text or any(command.startswith(target) for command in commands), target
    for start in NOT_TYPED:
        assert any(block.text.lstrip().startswith(start) for block in BLOCKS), start
    plain = [shlex.join(shlex.split(command, comments=True)) for command in commands]
    for stand_in in STAND_INS:
        assert any(fnmatchcase(command, stand_in.command) for command in plain), stand_in.command
        assert len(stand_in.why) > 20, "a reason"


def test_blocks_are_read_whole():
    text = "a\n```bash\nfla one \\\n  two  # why\n\n# only a comment\nfla three\n```\nb\n"
    text += "   ````python\n```\n   ````\n```\nx\n```\n"
    blocks = read_blocks(text)
    assert [(block.line, block.language) for block in blocks] == [(3, "bash"), (11, "python"), (14, "")]
    assert [" ".join(command.split("#")[0].split()) for command in blocks[0].commands()] == [
        "fla one two",
        "fla three",
    ]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block(7, "bash", "curl example.org\n"), "no runner for `curl example.org`"),
        (Block(7, "", "unheard of\n"), "line 7: what is this block"),
        (Block(7, "bash", "make coffee\n"), "say in MAKE why it is not run"),
        (Block(7, "bash", "fla score nowhere.tsv --corpus demo\n"), "did not end with status 0"),
        (Block(7, "python", "1 / 0\n"), "division"),
    ],
)
def test_a_block_nobody_knows_or_that_fails_fails(block, message):
    with pytest.raises((AssertionError, ZeroDivisionError), match=re.escape(message)):
        run_block(block)


def test_a_stand_in_comes_after_the_words_of_the_readme(monkeypatch):
    import tests.readme_blocks as module

    ran = []
    monkeypatch.setitem(module.RUNNERS, "fla", lambda words: ran.append(words) or 0)
    run_command("fla push runs/demo/stage2 me/mine --private    # sent")
    assert ran == [["fla", "push", "runs/demo/stage2", "me/mine", "--private", "--dry-run"]]
