"""Write the API reference from the docstrings: a static site that needs no network, neither to build nor to read.

    python docs/build_reference.py site

It fails where a module cannot be read or a reference in a docstring leads nowhere.
"""

import argparse
import re
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("modeling_fla", "processing_fla", "training_fla")
# [`Name`] and [`~package.module.Name`], as transformers' own docstrings have them.
REFERENCE = re.compile(r"\[`(~?)([\w.]+)(?:\(\))?`\](?!\()")


def module_names() -> list[str]:
    """Every module of the packages: `__all__` would keep pdoc from the files below a package.

    Returns:
        `list[str]`: packages first, then their modules in the order of their names.
    """
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    parts = [file.relative_to(ROOT).with_suffix("").parts for file in files]
    names = [".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts]
    return sorted(names, key=lambda name: (PACKAGES.index(name.split(".")[0]), name))


def plain_references(docstring: str) -> str:
    """Bring references to the form that pdoc turns into links: a name in backticks.

    Args:
        docstring (`str`): in Markdown.

    Returns:
        `str`: the same, without brackets and tildes.
    """
    return REFERENCE.sub(r"`\2`", docstring)


def dead_references(modules: dict) -> list[str]:
    """References to names of ours that do not exist.

    Args:
        modules (`dict[str, pdoc.doc.Module]`): by name.

    Returns:
        `list[str]`: one a line, where it stands and what it says.
    """
    dead = []
    for name, module in modules.items():
        # Imported names have no page of their own there, but can be referred to.
        for file in [module.source_file] if module.source_file else []:
            for tilde, target in REFERENCE.findall(Path(file).read_text(encoding="utf-8")):
                if tilde and target.split(".")[0] in PACKAGES and not exists(target, modules):
                    dead.append(f"{name}: `{target}`")
    return dead


def exists(target: str, modules: dict) -> bool:
    """Whether a dotted name leads to a module, or to what one holds.

    Args:
        target (`str`): e.g. `training_fla.stage.Splits`.
        modules (`dict[str, pdoc.doc.Module]`): by name.

    Returns:
        `bool`: also true for a method.
    """
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        found = modules.get(".".join(parts[:end]))
        if found:
            value = found.obj
            for part in parts[end:]:
                value = getattr(value, part, None)
            return value is not None
    return False


def build(folder: Path) -> list[str]:
    """Write the site.

    Args:
        folder (`Path`): made if need be.

    Returns:
        `list[str]`: what is wrong with it.
    """
    import jinja2
    from pdoc import doc, render, render_helpers

    @jinja2.pass_context
    def to_markdown(context, docstring: str) -> str:
        return render_helpers.to_markdown_with_context(context, plain_references(docstring))

    render.configure(docformat="google", template_directory=Path(__file__).parent / "templates", footer_text="FLa-LLM")
    render.env.filters["to_markdown"] = to_markdown
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        modules = {name: doc.Module.from_name(name) for name in module_names()}
        for name, module in modules.items():
            page = folder / f"{name.replace('.', '/')}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(render.html_module(module, modules), encoding="utf-8")
    (folder / "index.html").write_text(render.html_index(modules), encoding="utf-8")
    (folder / "search.js").write_text(render.search_index(modules), encoding="utf-8")
    for warning in caught:
        # transformers' configurations annotate with a name that they do not hold.
        if "pdoc" in warning.filename and "Import of Literal failed" not in str(warning.message):
            print(f"note: {warning.message}", file=sys.stderr)
    return [f"a reference leads nowhere: {reference}" for reference in dead_references(modules)]


def main(argv: list[str] | None = None) -> int:
    """Build the site and say what is wrong with it.

    Args:
        argv (`list[str]`, *optional*): the folder to write; the command line's when absent.

    Returns:
        `int`: 0, or 1 where something is wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder to write")
    folder = parser.parse_args(argv).folder
    sys.path.insert(0, str(ROOT))
    wrong = build(folder)
    print("\n".join(wrong) or f"wrote {folder / 'index.html'}", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
