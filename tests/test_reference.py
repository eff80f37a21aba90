"""`make docs`: which modules it documents, and which references it turns into links. CI builds the pages."""

import importlib.util
import subprocess
from types import SimpleNamespace

import pytest

from tests.tiny_runs import ROOT


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_reference", ROOT / "docs" / "build_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_of_the_packages_has_a_page(builder):
    names = builder.module_names()
    assert names[0] == "modeling_fla" and len(set(names)) == len(names)
    assert {"processing_fla.pipeline_fla", "training_fla.corpora", "training_fla.corpora.row"} <= set(names)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("see [`FlaModel`].", "see `FlaModel`."),
        ("a [`~training_fla.stage.Splits`] and [`~x.y.f()`]", "a `training_fla.stage.Splits` and `x.y.f`"),
        ("[`written`](elsewhere) `code` [1]", "[`written`](elsewhere) `code` [1]"),
    ],
)
def test_references_become_names_in_backticks(builder, text, plain):
    assert builder.plain_references(text) == plain


def test_a_reference_that_leads_nowhere_is_found(builder, tmp_path):
    file = tmp_path / "stage.py"
    file.write_text("[`~training_fla.stage.Splits.train`] [`~training_fla.stage.Gone`] [`~torch.Tensor`] [`Gone`]")
    splits = SimpleNamespace(train=1)
    modules = {"training_fla.stage": SimpleNamespace(obj=SimpleNamespace(Splits=splits), source_file=file)}
    assert builder.dead_references(modules) == ["training_fla.stage: `training_fla.stage.Gone`"]


def test_the_site_stays_out_of_the_repository():
    done = subprocess.run(["git", "check-ignore", "site/index.html"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0
