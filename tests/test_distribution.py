"""An sdist is built of the repository, a wheel of the sdist, and the wheel is installed and trains a stage."""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.pages import FRAMES, NETWORK, ONE_STEP
from tests.tiny_runs import ROOT, pack_demo

PACKAGES = ("modeling_fla", "processing_fla", "training_fla")


def run(*command, cwd: Path, **environment) -> subprocess.CompletedProcess:
    """Run a command without our own folder on the path."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run([*map(str, command)], cwd=cwd, env=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def left_out(folder: str, names: list[str]) -> set[str]:
    """What people's own work leaves in a clone."""
    made = {"runs", "build", "site", "data", "models", "__pycache__"}
    own = made if Path(folder) == ROOT else {"__pycache__"}
    return {name for name in names if name in own or name.startswith(".") or name.endswith(".egg-info")}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "clone", ignore=left_out)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, folder, cwd=folder / "clone")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def installed(sdist, tmp_path_factory) -> Path:
    """The folder of programs of an environment with the wheel in it; other packages are those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, sdist, cwd=folder)
    venv.create(folder / "venv", symlinks=os.name != "nt")
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    (wheel,) = folder.glob("*.whl")
    run(*pip, "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", ask, cwd=folder).stdout.strip())
    (packages / "of_the_tests.pth").write_text(run(sys.executable, "-c", ask, cwd=folder).stdout)
    return programs


def test_the_sdist_holds_what_a_clone_holds(sdist):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    hidden = {name for name in tracked if name.startswith(".")}
    missing = [name for name in tracked if name not in hidden and not (sdist / name).is_file()]
    assert not missing


def test_the_wheel_says_its_version_and_its_types(installed, tmp_path):
    names = ", ".join(PACKAGES)
    script = f"import pathlib, {names}\nfor package in ({names}):\n    print(package.__version__, package.__file__)"
    lines = run(installed / "python", "-c", script, cwd=tmp_path).stdout.splitlines()
    assert len(lines) == len(PACKAGES)
    for line in lines:
        version, file = line.split(maxsplit=1)
        assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert Path(file).is_relative_to(installed.parent) and Path(file).with_name("py.typed").is_file()


def test_packages_that_are_copied_and_not_installed_are_imported_too():
    """As in a Space, or in a clone that is on the path."""
    script = (
        "import importlib.metadata as metadata\n"
        "installed = metadata.version\n"
        "def version(name):\n"
        "    if name == 'fla-llm': raise metadata.PackageNotFoundError(name)\n"
        "    return installed(name)\n"
        "metadata.version = version\n"
        f"import {', '.join(PACKAGES)}\n"
        f"print(*(package.__version__ for package in ({', '.join(PACKAGES)})))"
    )
    assert run(sys.executable, "-c", script, cwd=ROOT).stdout.split() == ["unknown"] * len(PACKAGES)


def test_the_wheel_holds_every_file_of_the_packages(installed):
    (wheel,) = installed.parents[1].glob("*.whl")
    folders = [ROOT / package for package in PACKAGES]
    files = [file.relative_to(ROOT).as_posix() for folder in folders for file in folder.rglob("*.*")]
    ours = {name for name in files if "__pycache__" not in name}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if name.split("/")[0] in PACKAGES} == ours


def test_all_recipes_are_installed(installed):
    shared = installed.parent / "share" / "fla-llm"
    recipes = {file.relative_to(ROOT) for file in (ROOT / "recipes").rglob("*.yaml")}
    assert {file.relative_to(shared) for file in shared.rglob("*.yaml")} == recipes, (
        "name the folder in pyproject.toml"
    )


def test_recipes_and_the_cards_template_are_found_where_the_wheel_put_them(installed, tmp_path):
    names = ("recipes/phoenix14t/stage1.yaml", "hub_card.md")
    script = f"from training_fla.clone import shipped_file\nprint(*map(shipped_file, {names}), shipped_file('none'))"
    shared = installed.parent / "share" / "fla-llm"
    found = run(installed / "python", "-c", script, cwd=tmp_path).stdout.split()
    assert found == [*(str(shared / name) for name in names), "None"]


def test_the_wheel_trains_by_the_recipes_it_brings(installed, tmp_path):
    pack_demo(tmp_path / "corpus", num_train=6, num_dev=2, num_test=2)
    more = shlex.split(f"{NETWORK}{ONE_STEP}{FRAMES} --train_tokenizer_pieces 120 --language_code de_DE")
    stage1 = ["train", "stage1", "recipes/own_clips/stage1.yaml", "--dataset", "corpus", "--output_dir", "first"]
    done = run(installed / "fla", *stage1, *more, cwd=tmp_path)
    assert (tmp_path / "first" / "model.safetensors").is_file()
    command = shlex.split(done.stderr.splitlines()[-1].split("next: ")[1])
    assert command[:3] == ["fla", "train", "stage2"] and Path(command[3]).is_file()
    run(installed / command[0], *command[1:], *shlex.split(f"{ONE_STEP}{FRAMES}"), cwd=tmp_path)
    assert [file.parent.name for file in tmp_path.glob("*/predictions_test.tsv")] != ["first"]
