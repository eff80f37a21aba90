"""Recipe files with their `base:` recipes, and the command line: names and values as they are written."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from training_fla.errors import InputError
from training_fla.recipe.batch_size import BATCH_LINES

NO_VALUE = ("", "~", "null")  # what YAML writes for nothing


class RecipeLoader(yaml.SafeLoader):
    """Refuses a key that is written twice, and reads `1e-3` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As in YAML, which would keep the last of equal keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise InputError(f"{mark.name}, line {mark.line + 1}: key `{key}` is given twice")
        return super().construct_mapping(node, deep)


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def read_recipe(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The lines of a recipe and its `base:` recipes: plain values as they are written, mappings and lists as YAML."""
    if file.resolve() in seen:
        raise InputError(f"{file}: its `base:` lines lead back to itself")
    lines = read_yaml(file)
    base = lines.pop("base", None)
    earlier = {} if base is None else read_recipe(file.parent / base, (*seen, file.resolve()))
    return override(earlier, lines, str(file))


def read_yaml(file: Path) -> dict[str, Any]:
    """The lines of one file, with variables of the environment filled in."""
    try:
        with open(file, encoding="utf-8-sig") as opened:
            loader = RecipeLoader(opened)
            node = loader.get_single_node()
            if node is None:
                return {}
            if not isinstance(node, yaml.MappingNode):
                raise InputError(f"{file} is not a recipe: it holds no `key: value` lines")
            values = loader.construct_mapping(node, deep=True)
    except FileNotFoundError:
        raise InputError(f"there is no recipe {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read recipe {file}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not YAML: {error}") from None
    # The type of the field decides what `no` or `0123` is, not YAML.
    written = {key.value: value.value for key, value in node.value if isinstance(value, yaml.ScalarNode)}
    return {name: expand_variables(written[name], file) if name in written else values[name] for name in values}


def override(lines: dict[str, Any], later: dict[str, Any], place: str) -> dict[str, Any]:
    """Lines with later ones, given at `place`, over them; either line of the batch's size replaces the other."""
    sizes = [name for name in BATCH_LINES if later.get(name) not in (None, *NO_VALUE)]
    if len(sizes) == 2:
        raise InputError(f"{place} gives both `{sizes[0]}` and `{sizes[1]}`: give one of the two")
    if sizes:
        lines = {name: value for name, value in lines.items() if name not in BATCH_LINES}
    return lines | later


def expand_variables(text: str, file: Path) -> str:
    """Fill `${NAME}` and `${NAME:-default}` from the environment."""

    def fill(match: re.Match) -> str:
        name, default = match["name"], match["default"]
        if name not in os.environ and default is None:
            raise InputError(f"{file} uses ${{{name}}}, which is not set in the environment")
        return os.environ.get(name, default)

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}", fill, text)


def read_overrides(arguments: list[str]) -> dict[str, str]:
    """The values of `--name value`, `--name=value` and bare `--flag` (true), by name."""
    lines: dict[str, str] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"expected --name value, got `{word}`")
        name, equals, text = word[2:].partition("=")
        if not equals:
            text = words.pop(0) if words and not words[0].startswith("--") else "true"
        if re.fullmatch(r"'[^']*'|\"[^\"]*\"", text):
            text = text[1:-1]
        lines[name.replace("-", "_")] = text
    return lines
