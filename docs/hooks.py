"""What `make docs` puts into two pages: the options of every command, and the lines of a recipe."""

import argparse
import dataclasses
import enum
import html
import inspect
import json
import types
import typing
from pathlib import Path

import yaml

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def on_page_markdown(markdown: str, **_) -> str:
    """Replace a marker by what it names; mkdocs calls this for each page."""
    for marker, make in {"<!-- commands -->": commands, "<!-- recipe lines -->": recipe_lines}.items():
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def commands() -> str:
    """Every command, in the order of `fla --help`."""
    from training_fla.cli import GROUPS, command_parser

    sections = []
    for group in GROUPS.values():
        for name in group:
            module, parser = command_parser(name)
            sections += [f"## fla {name}", parser.description.strip(), f"```bash\n{module.EXAMPLE}\n```"]
            sections += [options_of(parser), *subcommands_of(parser)]
    return "\n\n".join(filter(None, sections))


def subcommands_of(parser: argparse.ArgumentParser) -> list[str]:
    """A section for each word after `fla prepare`: the options of all corpora are shown once."""
    choices = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), {})
    rows = {name: rows_of(subparser) for name, subparser in choices.items()}
    # `subtitles` and `sentences` have no source: they make a table.
    corpora = [rows[name] for name, subparser in choices.items() if subparser.get_default("source")]
    shared = [row for row in next(iter(corpora), []) if all(row in others for others in corpora)]
    sections = []
    for name, own in rows.items():
        own = [row for row in own if row not in shared] if own in corpora else own
        sections += [f"### {parser.prog} {name}", table(own)]
    return [*sections, *([f"### {parser.prog}, every corpus", table(shared)] if shared else [])]


def options_of(parser: argparse.ArgumentParser) -> str:
    """The table of a parser's arguments and options."""
    return table([row for row in rows_of(parser) if "--quiet" not in row[0]])


def rows_of(parser: argparse.ArgumentParser) -> list[tuple[str, ...]]:
    """How an option is written, and what it does."""
    rows = []
    for action in parser._actions:
        hidden = action.help == argparse.SUPPRESS
        if hidden or isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        values = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
        value = "" if action.nargs == 0 else action.metavar or values
        written = f"{action.option_strings[0]} {value}".strip() if action.option_strings else value
        written += " ..." if action.nargs in ("+", "*") else ""
        text = plain_text((action.help or "") % vars(action))
        rows.append((f"`{written}`", ("required: " if action.option_strings and action.required else "") + text))
    return rows


def recipe_lines() -> str:
    """Every line of ours by topic, then those of transformers that a recipe of ours or its defaults set."""
    from training_fla import recipe

    parts = {
        "Data": recipe.DataArguments,
        "Text": recipe.TextArguments,
        "Visual encoder": recipe.VisualArguments,
        "Stage 1": recipe.Stage1Arguments,
        "Stage 2": recipe.Stage2Arguments,
        "Optimization": recipe.OptimizationArguments,
        "Output folder": recipe.RunArguments,
    }
    sections = []
    for title, part in parts.items():
        own = inspect.get_annotations(part)  # without those of the class that it extends
        rows = [line_of(part, field) for field in dataclasses.fields(part) if field.name in own]
        sections += [f"## {title}", table(rows, LINE)]
    ours = {field.name for part in parts.values() for field in dataclasses.fields(part)}
    return "\n\n".join([*sections, "## Lines of transformers", lines_of_transformers(ours)])


LINE = ("line", "type", "default", "what it does")


def lines_of_transformers(ours: set[str]) -> str:
    """Those that `recipes/` or our defaults set, with the default that holds here."""
    from transformers import Seq2SeqTrainingArguments

    from training_fla.recipe import REFUSED, TRAINING_DEFAULTS

    used = set(TRAINING_DEFAULTS)
    for file in RECIPES.rglob("*.yaml"):
        used |= set(yaml.safe_load(file.read_text(encoding="utf-8")))
    names = used - ours - set(REFUSED)
    fields = [field for field in dataclasses.fields(Seq2SeqTrainingArguments) if field.name in names]
    rows = []
    for field in fields:
        name, kind, default, text = line_of(Seq2SeqTrainingArguments, field)
        if field.name in TRAINING_DEFAULTS:
            default = value_text(TRAINING_DEFAULTS[field.name])
        rows.append((name, kind, default, text))
    return table(rows, LINE)


def line_of(part: type, field: dataclasses.Field) -> tuple[str, ...]:
    """Name, type, default and help of a field."""
    default = field.default_factory() if field.default is dataclasses.MISSING else field.default
    kind = type_text(typing.get_type_hints(part)[field.name])
    return f"`{field.name}`", kind, value_text(default), plain_text(field.metadata.get("help", "").replace("%%", "%"))


def value_text(value: typing.Any) -> str:
    """A default as a recipe writes it."""
    value = value.value if isinstance(value, enum.Enum) else value
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def type_text(kind: typing.Any) -> str:
    """`int | None` as "int or null", `Literal["a", "b"]` as its values."""
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(kind))
    plain = typing.get_origin(kind) or kind
    if plain in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(option) for option in typing.get_args(kind)))
    if issubclass(plain, enum.Enum):
        return "text"
    names = {
        types.NoneType: "null",
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        dict: "mapping",
        list: "list",
    }
    return names.get(plain, plain.__name__)


def plain_text(text: str) -> str:
    """One line in which Markdown sees no HTML and no attributes."""
    return " ".join(html.escape(text, quote=False).replace("{", "&#123;").split())


def table(rows: list[tuple[str, ...]], header: tuple[str, ...] = ("option", "what it does")) -> str:
    """A Markdown table; nothing where there are no rows."""
    lines = [header, ["---"] * len(header), *rows] if rows else []
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
