"""What the packages lean on in other libraries that is private there: the list is complete, and all of it is there."""

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator

import pytest

from tests.tiny_runs import ROOT

PACKAGES = ("modeling_fla", "processing_fla", "training_fla", "experiments")
# Our file; the library's class, module or function; its attributes or parameters; why it needs them.
# What a library asks its subclasses to declare or to fill in: an interface, though with an underscore.
DECLARED = [
    (
        "modeling_fla/visual_encoder_fla.py",
        "transformers.PreTrainedModel",
        "_init_weights _supports_sdpa _supports_flash_attn _supports_flex_attn _can_compile_fullgraph"
        " _keys_to_ignore_on_load_unexpected",
        "what a model class declares",
    ),
    (
        "modeling_fla/modeling_fla.py",
        "transformers.PreTrainedModel",
        "_keys_to_ignore_on_load_unexpected _tied_weights_keys",
        "what a model class declares",
    ),
    (
        "processing_fla/video_processing_fla.py",
        "transformers.BaseVideoProcessor",
        "_decode_and_sample_videos _prepare_input_videos _preprocess",
        "the steps of `preprocess`: frames are read, chosen and scaled our way",
    ),
    (
        "processing_fla/pipeline_fla.py",
        "transformers.Pipeline",
        "_sanitize_parameters _forward _load_processor _load_tokenizer _load_image_processor _load_video_processor"
        " _load_feature_extractor _pipeline_calls_generate _default_generation_config",
        "what a pipeline class declares",
    ),
    (
        "training_fla/training/adapters.py",
        "transformers.PreTrainedModel",
        "_keys_to_ignore_on_save",
        "checkpoints leave out frozen weights",
    ),
    ("training_fla/scoring/metric.py", "evaluate.Metric", "_info _compute", "what a metric class declares"),
]
# What may go without notice; nothing public does the same.
PRIVATE = [
    (
        "modeling_fla/visual_encoder_fla.py",
        "transformers.PreTrainedConfig",
        "_attn_implementation",
        "a refused attention implementation is taken back from all parts",
    ),
    ("modeling_fla/visual_encoder_fla.py", "torch", "_dynamo", "one graph for every number of frames"),
    ("modeling_fla/batch_norm_fla.py", "torch", "_dynamo _foreach_copy_", "the same; one operation for all norms"),
    (
        "modeling_fla/modeling_fla.py",
        "transformers.PreTrainedConfig",
        "_attn_implementation",
        "which masks the language model adds to its scores",
    ),
    (
        "modeling_fla/modeling_fla.py",
        "transformers.GenerationMixin",
        "_prepare_cache_for_generation",
        "the cache is the language model's",
    ),
    (
        "modeling_fla/exported_fla.py",
        "transformers.GenerationMixin",
        "_prepare_cache_for_generation",
        "the cache is that of the graph of the decoder",
    ),
    (
        "modeling_fla/exported_fla.py",
        "transformers.PreTrainedConfig",
        "_auto_class",
        "a class whose code does not travel",
    ),
    (
        "processing_fla/processing_fla.py",
        "transformers.ProcessorMixin",
        "_merge_kwargs",
        "options of a call, as all processors sort them",
    ),
    (
        "processing_fla/pipeline_fla.py",
        "transformers.Pipeline",
        "_prepare_generate_kwargs",
        "options of `generate` as all pipelines merge them",
    ),
    (
        "training_fla/training/trainer.py",
        "transformers.Trainer",
        "_get_grad_norm",
        "the norm is computed only for steps that are logged",
    ),
    (
        "training_fla/training/one_run.py",
        "transformers.PreTrainedModel",
        "_auto_class",
        "a class that is never saved for others",
    ),
    ("training_fla/data/collation.py", "torch.UntypedStorage", "_new_shared", "batches in shared memory, as torch's"),
    ("training_fla/corpora/csl_daily.py", "pickle", "_Unpickler", "the one in C allocates any stated length"),
]
LEANT_ON = [*DECLARED, *PRIVATE]
NOT_PRIVATE = {"_asdict", "_exit", "_replace", "_fields"}  # named tuples' and os's, with an underscore by design


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in {"_", *NOT_PRIVATE}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def names_read(node: ast.AST) -> list[str]:
    """Names that a piece of code takes from an object, a call's parameters or a module."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.keyword):
        return [node.arg or ""]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [*node.module.split("."), *(alias.name for alias in node.names)]
    if isinstance(node, ast.Import):
        return [part for alias in node.names for part in alias.name.split(".")]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
        return [node.args[1].value] if isinstance(node.args[1], ast.Constant) else []
    return []


def names_defined(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
        return [node.attr]
    return []


def names_overridden(file: str, tree: ast.Module) -> Iterator[str]:
    """Private attributes of our classes that a class of a library has, too."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in classes:
        ours = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), node.name)
        theirs = {name for base in ours.__mro__ if is_foreign(base) for name in vars(base)}
        defined = {name for line in node.body for part in ast.walk(line) for name in names_defined(part)}
        yield from filter(is_private, defined & theirs)


def is_foreign(base: type) -> bool:
    top = base.__module__.split(".")[0]
    return top not in PACKAGES and top not in sys.stdlib_module_names


def test_the_list_is_complete():
    files = dict(trees())
    overridden = {(file, name) for file, tree in files.items() for name in names_overridden(file, tree)}
    nodes = [(file, node) for file, tree in files.items() for node in ast.walk(tree)]
    ours = {name for _, node in nodes for name in names_defined(node)} - {name for _, name in overridden}
    read = {(file, name) for file, node in nodes for name in names_read(node) if is_private(name)}
    used = {(file, name) for file, name in read if name not in ours}
    assert used | overridden == {(file, name) for file, _, names, _ in LEANT_ON for name in names.split()}


@pytest.mark.parametrize(("file", "owner", "names", "why"), LEANT_ON, ids=lambda value: str(value)[:40])
def test_what_the_packages_lean_on_is_there(file, owner, names, why):
    value = importlib.import_module(owner.split(".")[0])
    for part in owner.split(".")[1:]:
        value = getattr(value, part)
    there = inspect.signature(value).parameters if inspect.isfunction(value) else dir(value)
    missing = [name for name in names.split() if name not in there]
    assert not missing, f"{owner} has no {missing[0]} any more, which {file} needs: {why}"
