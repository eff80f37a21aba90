"""The house: who may import whom, no two shipped files of one name, and a README that names what is there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {"modeling_fla": set(), "processing_fla": set(), "training_fla": {"modeling_fla", "processing_fla"}}
SHIPPED = ("modeling_fla", "processing_fla")
OURS = {*MAY_IMPORT, "run_stage1", "run_stage2", "benchmarks", "tests"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package):
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                if package in SHIPPED:
                    plain = node.level == 1 and node.module and "." not in node.module
                    assert plain, f"{file}: {ast.unparse(node)} would not be copied to the Hub"
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names} & OURS - {package}:
                allowed = MAY_IMPORT[package] | ({"modeling_fla"} if file.name == "__init__.py" else set())
                assert top in allowed, f"{file} imports {top}"


def test_shipped_files_have_names_of_their_own():
    names = [file.name for package in SHIPPED for file in (ROOT / package).glob("*.py") if file.name != "__init__.py"]
    assert len(names) == len(set(names))
    assert all(name.endswith("_fla.py") for name in names)


def test_the_tree_in_the_readme_names_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## Where things live")[1].split("```")[1]
    named = {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}
    for name in named:
        assert (ROOT / name).exists(), f"README names {name}, which is not there"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    folders = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}
    assert folders <= named, f"README does not name {folders - named}"


def test_every_recipe_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for recipe in re.findall(r"recipes/[\w/]+\.yaml", text):
        assert (ROOT / recipe).is_file(), recipe


def commands() -> list[str]:
    from training_fla.cli import COMMANDS

    return list(COMMANDS)


@pytest.mark.parametrize("command", [None, *commands()])
def test_help_answers_at_once_with_an_example(command):
    """No time is asserted; what takes time is importing, and that is."""
    words = [command, "--help"] if command else ["--help"]
    code = (
        "import sys; from training_fla.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pyarrow', 'av', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if command:
        assert f"fla {command}" in done.stdout.split("example:")[1]


def test_an_unknown_command_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "training_fla.cli", "trnslate"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "trnslate" in done.stderr


def test_the_bare_command_lists_the_commands():
    done = subprocess.run([sys.executable, "-m", "training_fla.cli"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and all(f"  {command}" in done.stderr for command in commands())
