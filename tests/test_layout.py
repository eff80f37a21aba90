"""The layout: who may import whom, no circle, the width of folders, what travels, and what `fla --help` costs."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("modeling_fla", "processing_fla", "training_fla", "experiments")
SHIPPED = ("modeling_fla", "processing_fla")
# Of the shipped packages, what no model takes along.
STAY = {
    "batch_norm_fla.py", "exported_fla.py", "imagenet_weights_fla.py", "trimming_fla.py", "tokenization_fla.py",
    "__init__.py",
}  # fmt: skip
# Each package or file may import those in earlier lines, never those in its own line or a later one.
LAYERS = [
    {"modeling_fla", "processing_fla"},
    {"errors", "console"},
    {"folders", "loading", "clone"},
    {"names", "file_kinds"},
    {"tables"},
    {"recipe"},
    {"corpora", "scoring"},
    {"data"},
    {"training"},
    {"hub", "exporting"},
    {"stages"},
    {"captions"},
    {"viewing"},
    {"dictionary"},
    {"serving"},
    {"experiments"},
    {"commands"},
    {"cli"},
]
RANK = {package: rank for rank, packages in enumerate(LAYERS) for package in packages}
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}


def package_of(module: str) -> str:
    """`training_fla.data.packing` lies in `data`, `processing_fla.x` in `processing_fla`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "training_fla" and len(parts) > 1 else parts[0]


def imports_of(module: str) -> set[str]:
    """Our modules that a module imports, at its top or inside a function."""
    file, found = MODULES[module], set()
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            base = base if node.level else node.module
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return {name for name in found if name in MODULES and name != module}


@pytest.mark.parametrize("module", MODULES)
def test_a_package_imports_only_what_lies_below_it(module):
    package = package_of(module)
    for other in imports_of(module):
        exported = module == "processing_fla" and other == "modeling_fla"  # registers its processor for the model
        same = package_of(other) == package or module == "training_fla"
        assert same or exported or RANK[package_of(other)] < RANK[package], f"{module} imports {other}"


def names_in(module: str) -> set[str]:
    """Names that a module defines, assigns or imports."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_what_is_imported_from_our_packages_is_there():
    """Also inside a function, which nothing may have called yet, and in scripts, benchmarks and tests."""
    names = {module: names_in(module) for module in MODULES}
    files = [*ROOT.glob("run_stage*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    for file in [*MODULES.values(), *files]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level or node.module.split(".")[0] not in PACKAGES:
                continue
            assert node.module in MODULES, f"{file}, line {node.lineno}: there is no {node.module}"
            for alias in node.names:
                is_there = alias.name in names[node.module] or f"{node.module}.{alias.name}" in MODULES
                assert is_there, f"{file}, line {node.lineno}: {node.module} has no {alias.name}"


def test_only_the_commands_that_need_a_clone_import_experiments():
    """And inside a function, after `open_experiments` has found them: a wheel holds none."""
    studies = {module for module in MODULES if package_of(module) == "experiments"}
    commands = {module for module in MODULES if studies & imports_of(module)} - studies
    assert commands == {f"training_fla.commands.{name}" for name in ("data.sources", "train.ablate", "train.demo")}
    for module in commands:
        for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
            assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("experiments"))


def test_no_module_imports_itself_in_a_circle():
    list(TopologicalSorter({module: imports_of(module) for module in MODULES}).static_order())


def test_nothing_but_the_standard_library_of_every_system_is_imported():
    """`fcntl`, `resource` and others are not there on Windows: where they are used it is inside a function."""
    unix = {"fcntl", "resource", "pwd", "grp", "termios"}
    for package in ("training_fla", "processing_fla", "modeling_fla"):
        for file in (Path(__file__).parents[1] / package).rglob("*.py"):
            body = ast.parse(file.read_text(encoding="utf-8")).body
            imported = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
            imported |= {node.module for node in body if isinstance(node, ast.ImportFrom)}
            assert not unix & imported, file


def test_no_folder_is_wider_than_ten_files():
    for folder in {file.parent for file in MODULES.values()}:
        files = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(files) <= 10, f"{folder.relative_to(ROOT)} holds {len(files)} files"
        assert (folder / "__init__.py").read_text(encoding="utf-8").startswith('"""'), folder


def test_what_travels_is_small_flat_and_named_apart():
    files = [file for package in SHIPPED for file in (ROOT / package).glob("*.py") if file.name not in STAY]
    assert len(files) <= 8
    assert len({file.name for file in files}) == len(files)
    for file in files:
        assert file.name.endswith("_fla.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                plain = node.level == 1 and node.module and "." not in node.module
                assert plain, f"{file}: {ast.unparse(node)} would not be copied to the Hub"
                assert f"{node.module}.py" not in STAY, f"{file} needs {node.module}, which stays behind"


def test_the_tree_in_the_readme_names_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## Where things live")[1].split("```")[1]
    named = {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}
    for name in named:
        assert (ROOT / name).exists(), f"README names {name}, which is not there"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    folders = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}
    assert folders <= named, f"README does not name {folders - named}"


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
