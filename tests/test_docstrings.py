"""Every public function says what it does, and what it documents is what it takes: `make style` runs this.

No package of ours is imported: the files are read, so the check takes a second.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    *ROOT.glob("*.py"),
    *(file for name in ("modeling_fla", "processing_fla", "training_fla") for file in (ROOT / name).rglob("*.py")),
]
SECTIONS = ("Args", "Shapes", "Returns", "Yields", "Raises", "Example", "Attributes", "Fields")
ENTRY = re.compile(r"^(\*{0,2}\w+)(?: \(|:|$)")


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Name, definition, and whether its first parameter is the instance or the class, of what a caller may use."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    decorators = {ast.unparse(decorator) for decorator in method.decorator_list}
                    yield f"{node.name}.{method.name}", method, "staticmethod" not in decorators


def parameters(function: ast.FunctionDef, bound: bool) -> list[str]:
    """Names of the parameters, with their stars, without `self` and `cls`; `_` is there to be ignored."""
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)][bound:]
    names += [f"*{args.vararg.arg}"] if args.vararg else []
    names += [arg.arg for arg in args.kwonlyargs]
    names += [f"**{args.kwarg.arg}"] if args.kwarg else []
    return [name for name in names if not name.lstrip("*").startswith("_")]


def sections(docstring: str) -> dict[str, list[str]]:
    """Lines of each section of a docstring that `ast.get_docstring` has cleaned."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in docstring.splitlines():
        heading = re.fullmatch(r"(\w+):", line)
        if heading and heading[1] in SECTIONS:
            current = heading[1]
            found[current] = []
        elif current:
            found[current].append(line)
    return found


def documented(lines: list[str]) -> list[str]:
    """Names that an `Args` section documents: those at its first level of indentation."""
    names = []
    for line in lines:
        if line.startswith("    ") and not line.startswith("     "):
            # `width, height (...)` documents two at once.
            head = re.split(r" \(|:", line.strip())[0]
            names += [name.strip() for name in head.split(",") if re.fullmatch(r"\*{0,2}\w+", name.strip())]
    return names


def faults(source: str) -> list[str]:
    """What is wrong with the docstrings of a file."""
    found = []
    tree = ast.parse(source)
    if not ast.get_docstring(tree) and source.strip():
        found.append("the file has no docstring")
    for name, function, bound in public_functions(tree):
        docstring = ast.get_docstring(function)
        if not docstring:
            found.append(f"{name} has no docstring")
            continue
        parts = sections(docstring)
        if "Args" not in parts:
            continue  # a line that says it all needs no sections
        starred = {parameter.lstrip("*") for parameter in parameters(function, bound) if parameter.startswith("*")}
        takes = [parameter.lstrip("*") for parameter in parameters(function, bound)]
        says = [parameter.lstrip("*") for parameter in documented(parts["Args"])]
        # Starred ones may come last, where readers look for them.
        ordered = [[word for word in words if word not in starred] for words in (says, takes)]
        if sorted(ordered[0]) == sorted(ordered[1]) and ordered[0] != ordered[1]:
            found.append(f"{name} documents its parameters in another order")
        for missing in sorted(set(takes) - set(says)):
            found.append(f"{name} does not document `{missing}`")
        for extra in sorted(set(says) - set(takes)):
            found.append(f"{name} documents `{extra}`, which it does not take")
        empty = [heading for heading, lines in parts.items() if not "".join(lines).strip()]
        found += [f"{name}: the section {heading} is empty" for heading in empty]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_docstrings_say_what_functions_take(file):
    assert not faults(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("def f(a):\n    pass", "f has no docstring"),
        ('def f(a, b):\n    """Do.\n\n    Args:\n        a (`int`): one.\n    """', "does not document `b`"),
        ('def f(a):\n    """Do.\n\n    Args:\n        a: one.\n        c: two.\n    """', "documents `c`"),
        ('def f(a, b):\n    """Do.\n\n    Args:\n        b: one.\n        a: two.\n    """', "another order"),
        ('def f(a):\n    """Do.\n\n    Args:\n        a: one.\n\n    Returns:\n    """', "Returns is empty"),
        ('class C:\n    """C."""\n\n    def f(self):\n        pass', "C.f has no docstring"),
    ],
)
def test_the_check_finds(body, fault):
    assert fault in "; ".join(faults(f'"""File."""\n{body}'))


def test_the_check_lets_good_docstrings_pass():
    good = 'def f(a, *b, c=1, **d):\n    """Do.\n\n    Args:\n        a: one,\n            more: of it.\n'
    assert not faults(
        f'"""File."""\n{good}        c: three.\n        *b: two.\n        **d: four.\n    """\ndef _g():\n    pass'
    )
