"""Every public function says what it does, and what it documents is what it takes, gives and raises: `make style`.

A docstring that begins with "As [`name`]" refers to the sections there; properties say their type in their one line.
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
SECTIONS = ("Shapes", "Args", "Attributes", "Fields", "Returns", "Yields", "Raises", "Example")
TENSOR = re.compile(r"\b\w*Tensor\b|\bndarray\b")
SHAPE = re.compile(r"of shape `?\(|`\([^`]*\)`|a scalar")
DTYPE = re.compile(r"(Float|Long|Bool|Byte|Int|Half)Tensor|\b(u?int\d*|float\d*|bool|booleans?|dtype)\b")
# What a framework calls by a name and with arguments of its own, which it documents itself.
FRAMEWORK = {
    "train", "to_dict", "from_dict", "save_pretrained", "compute_loss", "set_epoch", "floating_point_ops",
    "prepare_decoder_input_ids_from_labels", "get_encoder", "get_decoder", "get_input_embeddings",
    "set_input_embeddings", "get_output_embeddings", "set_output_embeddings", "resize_token_embeddings",
}  # fmt: skip
EVENT = re.compile(r"on_\w+")  # of a TrainerCallback
# `training_fla/cli.py` says what these are, for all files of the folder.
COMMANDS = {"add_arguments", "run"}


def public_classes(tree: ast.Module) -> list[ast.ClassDef]:
    """What a caller may use."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Name, definition, and whether its first parameter is the instance or the class, of what a caller may use."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, False
    for node in public_classes(tree):
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                yield f"{node.name}.{method.name}", method, "staticmethod" not in decorators(method)


def decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Names of decorators, without their arguments."""
    return {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in node.decorator_list}


def parameters(function: ast.FunctionDef, bound: bool) -> dict[str, ast.arg]:
    """The parameters by name, with their stars, without `self` and `cls`; `_` is there to be ignored."""
    args = function.args
    found = {arg.arg: arg for arg in [*args.posonlyargs, *args.args][bound:]}
    found |= {f"*{args.vararg.arg}": args.vararg} if args.vararg else {}
    found |= {arg.arg: arg for arg in args.kwonlyargs}
    found |= {f"**{args.kwarg.arg}": args.kwarg} if args.kwarg else {}
    return {name: arg for name, arg in found.items() if not name.lstrip("*").startswith("_")}


def none_by_default(function: ast.FunctionDef) -> set[str]:
    """Parameters that may be left out and are `None` then."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    pairs = [*zip(positional[::-1], args.defaults[::-1], strict=False)]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return {arg.arg for arg, default in pairs if isinstance(default, ast.Constant) and default.value is None}


def fields(node: ast.ClassDef) -> list[str]:
    """What a class is made with: the parameters of `__init__`, or the fields of a dataclass without a help text."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return list(parameters(method, bound=True))
    bases = {ast.unparse(base) for base in node.bases}
    if not decorators(node) & {"dataclass"} and "NamedTuple" not in bases:
        return []
    found = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and not item.target.id.startswith("_"):
            value = ast.unparse(item.value) if item.value else ""
            if "help" not in value and "init=False" not in value and "ClassVar" not in ast.unparse(item.annotation):
                found.append(item.target.id)
    return found


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


def entries(lines: list[str]) -> dict[str, str]:
    """What an `Args` section says of each name, in its order; `width, height (...)` documents two at once."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        head = re.match(r"    (\*{0,2}\w+(?:, \*{0,2}\w+)*)(?= \(|:|$)", line)
        if head:
            names = [name.strip() for name in head[1].split(",")]
            line = line[head.end() :]
        for name in names:
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def own_nodes(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, set[str]]]:
    """The nodes of a function without those of functions inside it, and the errors that are caught around each."""
    waiting: list[tuple[ast.AST, set[str]]] = [(node, set()) for node in function.body]
    while waiting:
        node, caught = waiting.pop()
        yield node, caught
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        guarded: list[ast.AST] = []
        if isinstance(node, ast.Try):
            names = {
                name for handler in node.handlers for name in re.findall(r"\w+", ast.unparse(handler.type or handler))
            }
            guarded = node.body
            waiting += [(child, caught | names) for child in guarded]
        waiting += [(child, caught) for child in ast.iter_child_nodes(node) if child not in guarded]


def gives(function: ast.FunctionDef) -> str:
    """`Yields`, `Returns` or nothing."""
    nodes = [node for node, _ in own_nodes(function)]
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in nodes):
        return "Yields" if ast.unparse(function.returns or ast.Constant("")) != "Iterator[None]" else ""
    values = [node.value for node in nodes if isinstance(node, ast.Return) and node.value]
    return "Returns" if any(ast.unparse(value) not in ("None", "self") for value in values) else ""


def raised(function: ast.FunctionDef) -> set[str]:
    """Names of the errors a function raises by its own `raise` lines and does not catch again."""
    found = set()
    for node, caught in own_nodes(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).split(".")[-1]
            # Our own errors are ValueErrors, so whoever catches those catches them.
            if name[0].isupper() and not caught & {name, "Exception", "ValueError"}:
                found.add(name)
    return found


def argument_faults(name: str, takes: list[str], optional: set[str], says: dict[str, str]) -> list[str]:
    """What is wrong with an `Args` section."""
    starred = {parameter.lstrip("*") for parameter in takes if parameter.startswith("*")}
    wanted, given = ([word.lstrip("*") for word in words] for words in (takes, says))
    found = [f"{name} does not document `{missing}`" for missing in sorted(set(wanted) - set(given))]
    found += [f"{name} documents `{extra}`, which it does not take" for extra in sorted(set(given) - set(wanted))]
    # Starred ones may come last, where readers look for them.
    ordered = [[word for word in words if word not in starred] for words in (given, wanted)]
    if sorted(ordered[0]) == sorted(ordered[1]) and ordered[0] != ordered[1]:
        found.append(f"{name} documents its parameters in another order")
    for parameter, text in says.items():
        if parameter.lstrip("*") in starred:
            continue
        type_, _, meaning = text.partition("):")
        if not (type_.startswith("(") and "`" in type_):
            found.append(f"{name}: `{parameter}` has no type in the form (`type`)")
        elif not meaning.strip():
            found.append(f"{name}: of `{parameter}` nothing but its type is said")
        if parameter in optional and "*optional*" not in type_:
            found.append(f"{name}: `{parameter}` may be left out, but is not called *optional*")
        if TENSOR.search(type_) and not re.search("Callable|Iterable|StoredTensor", type_):
            found += [f"{name}: `{parameter}` has no shape"] * (not SHAPE.search(text))
            found += [f"{name}: `{parameter}` has no dtype"] * (not DTYPE.search(text) and "torch.Tensor" not in type_)
    return found


def function_faults(name: str, function: ast.FunctionDef, takes: dict[str, ast.arg]) -> list[str]:
    """What is wrong with a function's docstring."""
    docstring = ast.get_docstring(function)
    if not docstring:
        return [f"{name} has no docstring"]
    parts = sections(docstring)
    found = [
        f"{name}: the section {heading} is empty" for heading, lines in parts.items() if not "".join(lines).strip()
    ]
    if list(parts) != [heading for heading in SECTIONS if heading in parts]:
        found.append(f"{name}: sections are in another order than {', '.join(SECTIONS)}")
    method = name.split(".")[-1]
    if (method in FRAMEWORK or EVENT.fullmatch(method)) and not parts:
        return found
    stated = set(re.findall(r"\w+", "\n".join(parts.get("Raises", []))))
    found += [f"{name} raises {error}, but does not say so" for error in sorted(raised(function) - stated)]
    if re.match(r"As \[`", docstring) and not parts:
        return found
    if takes:
        found += argument_faults(name, list(takes), none_by_default(function), entries(parts.get("Args", [])))
    section = gives(function)
    if section and section not in parts and not decorators(function) & {"property", "cached_property"}:
        found.append(f"{name} has no section {section}")
    returned = "\n".join(parts.get("Returns", []))
    if re.match(r" *`torch\.\w*Tensor|\s*`np\.ndarray", returned) and not SHAPE.search(returned):
        found.append(f"{name}: what it returns has no shape")
    return found


def class_faults(node: ast.ClassDef) -> list[str]:
    """What is wrong with a class's docstring."""
    docstring = ast.get_docstring(node)
    if not docstring:
        return [f"{node.name} has no docstring"]
    parts = sections(docstring)
    says = {name: text for heading in ("Args", "Fields") for name, text in entries(parts.get(heading, [])).items()}
    takes = fields(node)
    if any(name.startswith("**") for name in takes):  # what goes in there may be documented one by one
        plain = {name.lstrip("*") for name in takes}
        says = {name: text for name, text in says.items() if name.lstrip("*") in plain}
    return argument_faults(node.name, takes, set(), says) if takes else []


def faults(source: str, commands: bool = False) -> list[str]:
    """What is wrong with the docstrings of a file; `commands` says that it is a subcommand of `fla`."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) or not source.strip() else ["the file has no docstring"]
    for node in public_classes(tree):
        found += class_faults(node)
    for name, function, bound in public_functions(tree):
        takes = {} if commands and name in COMMANDS else parameters(function, bound)
        if commands and name in COMMANDS:
            found += [] if ast.get_docstring(function) else [f"{name} has no docstring"]
        else:
            found += function_faults(name, function, takes)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_docstrings_say_what_functions_take(file):
    assert not faults(file.read_text(encoding="utf-8"), commands=file.parent.name == "commands")


ARGS = '"""Do.\n\n    Args:\n        a (`int`): one.\n'


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("def f(a):\n    pass", "f has no docstring"),
        (f'def f(a, b):\n    {ARGS}    """', "does not document `b`"),
        (f'def f(a):\n    {ARGS}        c (`int`): two.\n    """', "documents `c`"),
        (f'def f(b, a):\n    {ARGS}        b (`int`): two.\n    """', "another order"),
        (f'def f(a):\n    {ARGS}\n    Returns:\n    """', "Returns is empty"),
        (
            f'def f(a):\n    """Do.\n\n    Returns:\n        `int`: b.\n{ARGS[6:]}    """',
            "sections are in another order",
        ),
        ('class C:\n    """C."""\n\n    def f(self):\n        pass', "C.f has no docstring"),
        ('def f(a: int, b: int, c: int) -> None:\n    """Do."""', "does not document `c`"),
        ('def f(a) -> None:\n    """Do."""', "does not document `a`"),
        ('def f(a: torch.Tensor) -> None:\n    """Do."""', "does not document `a`"),
        ('def f() -> torch.Tensor:\n    """Do."""\n    return 1', "no section Returns"),
        ('def f(a: int) -> int:\n    """Do."""\n    raise ValueError(a)', "f raises ValueError, but does not say so"),
        (f'def f(a):\n    {ARGS}    """\n    return a', "f has no section Returns"),
        (f'def f(a):\n    {ARGS}    """\n    yield a', "f has no section Yields"),
        (f'def f(a):\n    {ARGS}    """\n    if a:\n        raise KeyError(a)', "f raises KeyError"),
        (f'def f(a=None):\n    {ARGS}    """', "may be left out, but is not called *optional*"),
        ('def f(a):\n    """Do.\n\n    Args:\n        a: one.\n    """', "`a` has no type"),
        ('def f(a):\n    """Do.\n\n    Args:\n        a (`int`):\n    """', "nothing but its type"),
        ('def f(a):\n    """Do.\n\n    Args:\n        a (`torch.LongTensor`): ids.\n    """', "`a` has no shape"),
        (
            'def f(a):\n    """Do.\n\n    Args:\n        a (`np.ndarray` of shape `(T,)`): x.\n    """',
            "`a` has no dtype",
        ),
        (f'def f(a):\n    {ARGS}\n    Returns:\n        `torch.FloatTensor`: x.\n    """\n    return a', "no shape"),
        ('class C:\n    """C."""\n\n    def __init__(self, a):\n        pass', "C does not document `a`"),
        ('@dataclass\nclass C:\n    """C."""\n\n    a: int = 1\n', "C does not document `a`"),
        ('def f():\n    """F."""', "the file has no docstring"),
    ],
)
def test_the_check_finds(body, fault):
    head = "" if fault.startswith("the file") else '"""File."""\n'
    assert fault in "; ".join(faults(f"{head}{body}"))


@pytest.mark.parametrize(
    "body",
    [
        'def f(a, *b, c=1, **d):\n    """Do.\n\n    Args:\n        a (`int`): one,\n            more: of it.\n'
        '        c (`int`): three.\n        *b: two.\n        **d: four.\n    """\ndef _g():\n    pass',
        'class C(D):\n    """C."""\n\n    @property\n    def f(self):\n        """`int`: one."""\n        return 1',
        'class C(D):\n    """C."""\n\n    def f(self, a, b, c):\n        """As [`D.f`], faster."""\n        return a',
        'class C(D):\n    """C."""\n\n    def on_log(self, a, b, c):\n        """Print."""\n        return a',
        f'def f(a):\n    {ARGS}    """\n    try:\n        raise KeyError(a)\n    except KeyError:\n        pass',
        f'def f(a):\n    {ARGS}    """\n\n    def g():\n        return a',
        '@dataclass\nclass C:\n    """C."""\n\n    a: int = field(metadata={"help": "one"})\n    _b: int = 1\n',
    ],
)
def test_the_check_lets_good_docstrings_pass(body):
    assert not faults(f'"""File."""\n{body}')


def test_commands_share_a_contract():
    body = (
        '"""File."""\ndef add_arguments(parser):\n    """Declare."""\ndef run(args):\n    """Run."""\n    return 0\n'
    )
    assert not faults(body, commands=True) and faults(body)
