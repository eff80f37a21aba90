"""Recipes: typed, checked, overridable, and quick to explain themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from training_fla.files import InputError
from training_fla.recipe import DataArguments, Stage1Arguments, Stage2Arguments, convert, parse_recipe, read_recipe

ROOT = Path(__file__).resolve().parents[1]


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_lines_reach_the_dataclass_they_belong_to(tmp_path):
    file = write(
        tmp_path, "r.yaml", "output_dir: out\nframe_stride: 2\nlearning_rate: 1e-2\nlight_t: tiny\nmomentum: 0.5\n"
    )
    recipe = parse_recipe(Stage1Arguments, [str(file)], "usage")
    assert recipe.data.frame_stride == 2
    assert recipe.training["learning_rate"] == 0.01, "YAML reads 1e-2 as text; a rate must be a number all the same"
    assert recipe.stage.light_t == "tiny"
    assert recipe.optimization.momentum == 0.5
    assert recipe.training["label_smoothing_factor"] == 0.2, "the paper's, unless the recipe says otherwise"


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_its_base(tmp_path):
    write(tmp_path, "base.yaml", "output_dir: out\nframe_stride: 2\ncrop_size: 100\nframe_size: 120\n")
    file = write(tmp_path, "r.yaml", "base: base.yaml\ncrop_size: 90\n")
    recipe = parse_recipe(Stage1Arguments, [str(file), "--frame-stride", "8", "--seed=7", "--resume"], "usage")
    assert (recipe.data.frame_stride, recipe.data.crop_size, recipe.data.frame_size) == (8, 90, 120)
    assert recipe.training["seed"] == 7
    assert recipe.run.resume is True
    assert recipe.resolved["crop_size"] == 90 and "base" not in recipe.resolved


def test_an_unknown_key_names_the_nearest_right_one(tmp_path):
    file = write(tmp_path, "r.yaml", "output_dir: out\nframe_strid: 2\n")
    with pytest.raises(InputError, match=r"unknown recipe key `frame_strid`; did you mean `frame_stride`\?"):
        parse_recipe(Stage1Arguments, [str(file)], "usage")


def test_a_key_of_the_other_stage_is_unknown_here(tmp_path):
    file = write(tmp_path, "r.yaml", "output_dir: out\nlight_t: base\n")
    with pytest.raises(InputError, match="unknown recipe key `light_t`"):
        parse_recipe(Stage2Arguments, [str(file)], "usage")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame_stride: four", "`frame_stride` must be of type int, got 'four'"),
        ("frame_stride: 2.5", "`frame_stride` must be of type int, got 2.5"),
        ("frame_stride: true", "`frame_stride` must be a number, got True"),
        ("frame_stride:", "`frame_stride` needs a value, got none"),
        ("- a\n- b", "holds a list, not `key: value` lines"),
        ("a: [", "is not YAML"),
        ("frame_stride: 1\nframe_stride: 2", "line 2: key `frame_stride` is given twice"),
        ("frame_stride: 2", "names no `output_dir`"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path, text, message):
    file = write(tmp_path, "r.yaml", text)
    with pytest.raises(InputError, match=message):
        parse_recipe(Stage1Arguments, [str(file)], "usage")


def test_a_missing_recipe_and_a_circle_of_bases_are_named(tmp_path):
    with pytest.raises(InputError, match="there is no recipe .*nowhere.yaml"):
        read_recipe(tmp_path / "nowhere.yaml")
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    write(tmp_path, "b.yaml", "base: a.yaml\n")
    with pytest.raises(InputError, match="lead back to itself"):
        read_recipe(tmp_path / "a.yaml")


def test_a_stray_word_on_the_command_line_is_named(tmp_path):
    file = write(tmp_path, "r.yaml", "output_dir: out\n")
    with pytest.raises(InputError, match="expected --name value, got `stray`"):
        parse_recipe(Stage1Arguments, [str(file), "stray"], "usage")


def test_values_become_what_the_field_asks_for():
    assert convert("x", "3", int) == 3
    assert convert("x", 3, float) == 3.0 and isinstance(convert("x", 3, float), float)
    assert convert("x", None, int | None) is None
    assert convert("x", 12, str) == "12"
    assert convert("x", {"a": 1}, dict) == {"a": 1}


def test_every_field_explains_itself():
    for cls in (DataArguments, Stage1Arguments, Stage2Arguments):
        for name, field in cls.__dataclass_fields__.items():
            assert field.metadata.get("help"), f"{cls.__name__}.{name} has no help"


@pytest.mark.parametrize("script", ["run_stage1.py", "run_stage2.py"])
def test_help_imports_nothing_heavy(script):
    code = (
        f"import sys; sys.argv=[{script!r}, '--help']; import runpy\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    assert "--frame_stride" in shown.stdout and "--learning_rate" not in shown.stderr


@pytest.mark.parametrize("argv", [["recipes/nowhere.yaml"], ["recipes/demo/stage1.yaml", "--frame_strid", "3"]])
def test_bad_input_is_one_line_and_status_2(argv):
    done = subprocess.run([sys.executable, "run_stage1.py", *argv], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("run_stage1.py: error: ")
