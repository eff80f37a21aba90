"""Recipes: types, checks, overrides, and the time that help takes."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import MBartTokenizer

from training_fla.errors import InputError
from training_fla.recipe import (
    REFUSED,
    TRAINING_DEFAULTS,
    DataArguments,
    OptimizationArguments,
    RunArguments,
    Stage1Arguments,
    Stage2Arguments,
    TextArguments,
    clips_a_process,
    clips_a_step,
    parse_recipe,
    read_kept_lines,
    read_lines,
    read_recipe,
    typed_lines,
)

ROOT = Path(__file__).resolve().parents[2]


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
    assert recipe.model.light_t == "tiny"
    assert recipe.optimization.momentum == 0.5
    assert recipe.training["label_smoothing_factor"] == 0.2, "the paper's, unless the recipe says otherwise"


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_its_base(tmp_path):
    write(tmp_path, "base.yaml", "output_dir: out\nframe_stride: 2\ncrop_size: 100\nframe_size: 120\n")
    file = write(tmp_path, "r.yaml", "base: base.yaml\ncrop_size: 90\n")
    argv = [str(file), "--frame-stride", "8", "--seed=7", "--resume", "--hub_token", "secret"]
    recipe = parse_recipe(Stage1Arguments, argv, "usage")
    assert (recipe.data.frame_stride, recipe.data.crop_size, recipe.data.frame_size) == (8, 90, 120)
    assert recipe.training["seed"] == 7
    assert recipe.run.resume is True
    assert recipe.resolved["crop_size"] == 90
    assert not {"base", "resume", "overwrite", "hub_token"} & recipe.resolved.keys()


def test_either_line_of_the_batchs_size_replaces_the_other(tmp_path):
    total, device = "total_batch_size", "per_device_train_batch_size"
    base = write(tmp_path, "base.yaml", f"output_dir: out\n{total}: 8\n")
    file = write(tmp_path, "r.yaml", f"base: base.yaml\n{device}: 3\n")
    for argv, given in (
        ([base], {total: 8}),
        ([base, f"--{device}=2"], {device: 2}),
        ([file], {device: 3}),
        ([file, f"--{total}=6"], {total: 6}),
        ([file, f"--{total}=null"], {device: 3, total: None}),
    ):
        recipe = parse_recipe(Stage1Arguments, list(map(str, argv)), "usage")
        lines = {name: recipe.resolved[name] for name in (total, device) if name in recipe.resolved}
        assert lines == {total: None} | given
        assert recipe.optimization.total_batch_size == given.get(total)
    with pytest.raises(InputError, match=f"the command line gives both `{total}` and `{device}`"):
        parse_recipe(Stage1Arguments, [str(base), f"--{total}=8", f"--{device}=2"], "usage")
    both = write(tmp_path, "both.yaml", f"{total}: 8\n{device}: 2\n")
    with pytest.raises(InputError, match=f"both.yaml gives both `{total}` and `{device}`"):
        read_recipe(both)


def test_the_clips_of_a_step_are_those_of_the_recipe_on_any_number_of_processes():
    for processes, accumulation, clips in ((1, 1, 8), (2, 1, 4), (8, 1, 1), (2, 2, 2), (1, 8, 1)):
        lines = {"total_batch_size": 8, "gradient_accumulation_steps": accumulation}
        assert clips_a_step(lines, processes) == 8
        assert clips_a_process(8, processes, accumulation) == clips
    assert clips_a_step({"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}, 4) == 24
    assert clips_a_step({"total_batch_size": None}, 2) == 16, "transformers' eight on each"


@pytest.mark.parametrize(
    ("processes", "accumulation", "message"),
    [
        (3, 1, r"total_batch_size 8 cannot be shared out to 3 process\(es\): launch 1, 2, 4, 8"),
        (9, 1, "launch 1, 2, 4, 8"),
        (4, 4, "with gradient_accumulation_steps 4: launch 1, 2, or"),
        (1, 3, "choose another gradient_accumulation_steps"),
    ],
)
def test_a_batch_that_cannot_be_shared_out_equally_is_refused(processes, accumulation, message):
    """Nine processes and eight clips: one of them would have none."""
    with pytest.raises(InputError, match=message):
        clips_a_step({"total_batch_size": 8, "gradient_accumulation_steps": accumulation}, processes)


@pytest.mark.parametrize("stage", [Stage1Arguments, Stage2Arguments])
def test_a_run_keeps_every_line_but_secrets_and_paths_that_were_not_given(tmp_path, monkeypatch, stage):
    from training_fla.stages.output_folder import kept_text

    monkeypatch.chdir(tmp_path)
    argv = ["--output_dir", "runs/one", "--dataset", "s3://key:secret@bucket/corpus", "--hub_token", "hf_secret"]
    recipe = parse_recipe(stage, [*argv, "--momentum", "0.5", "--resume"], "usage")
    text = kept_text(recipe)
    assert not [word for word in ("secret", "hub_token", "resume", str(tmp_path)) if word in text]
    kept = read_kept_lines(stage, write(tmp_path, "recipe.yaml", text))
    assert kept == recipe.resolved and list(kept)[:3] == ["output_dir", "dataset", "momentum"]
    classes = (stage, DataArguments, TextArguments, OptimizationArguments)
    own = {name for cls in classes for name in cls.__dataclass_fields__}
    assert own | TRAINING_DEFAULTS.keys() - REFUSED.keys() <= kept.keys()
    assert kept["adam_beta2"] == 0.999 and kept["dataset"] == "s3://bucket/corpus", "transformers' too"
    again = parse_recipe(stage, ["recipe.yaml"], "usage")
    assert again.resolved == recipe.resolved
    write(tmp_path, "recipe.yaml", text + "a_line_of_another_version: 3\n")
    assert read_kept_lines(stage, tmp_path / "recipe.yaml") == kept


def test_an_unknown_key_names_the_nearest_right_one(tmp_path):
    file = write(tmp_path, "r.yaml", "output_dir: out\nframe_strid: 2\n")
    with pytest.raises(InputError, match="`frame_strid`.*`frame_stride`"):
        parse_recipe(Stage1Arguments, [str(file)], "usage")


def test_a_key_of_the_other_stage_is_unknown_here(tmp_path):
    file = write(tmp_path, "r.yaml", "output_dir: out\nlight_t: base\n")
    with pytest.raises(InputError, match="`light_t`"):
        parse_recipe(Stage2Arguments, [str(file)], "usage")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame_stride: four", "`frame_stride`.*'four'"),
        ("frame_stride: 2.5", r"`frame_stride`.*'2\.5'"),
        ("frame_stride: true", "`frame_stride`.*'true'"),
        ("freeze_vision_backbone: true\nlight_t: base", "`freeze_vision_backbone`"),
        ("packed_size:", "`packed_size`"),
        ("frame_stride: [2]", r"`frame_stride` .*\[2\]"),
        ("tokenizer: {a: 1}", "`tokenizer` .*{'a': 1}"),
        ("vision_backbone: resnet", "`vision_backbone`.*'resnet'"),
        ("lr_scheduler_type: cosinus", "`lr_scheduler_type`.*'cosinus'"),
        ("- a\n- b", "is not a recipe: it holds no `key: value` lines"),
        ("a: [", "is not YAML"),
        ('light_t_overrides: "{a: "', "`light_t_overrides` is not YAML"),
        ("frame_stride: 1\nframe_stride: 2", r"r\.yaml, line 2: .*`frame_stride`"),
        ("light_t_overrides:\n  d_model: 1\n  d_model: 2", r"r\.yaml, line 3: .*`d_model`"),
        ("output_dir: ${NO_SUCH_PLACE}", r"r\.yaml .*NO_SUCH_PLACE"),
        ("frame_stride: 2", "names no `output_dir`"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path, text, message):
    file = write(tmp_path, "r.yaml", text)
    with pytest.raises(InputError, match=message):
        parse_recipe(Stage1Arguments, [str(file)], "usage")


def test_a_missing_recipe_and_a_circle_of_bases_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        read_recipe(tmp_path / "nowhere.yaml")
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    write(tmp_path, "b.yaml", "base: a.yaml\n")
    with pytest.raises(InputError, match="lead back to itself"):
        read_recipe(tmp_path / "a.yaml")


def test_a_stray_word_on_the_command_line_is_named(tmp_path):
    file = write(tmp_path, "r.yaml", "output_dir: out\n")
    with pytest.raises(InputError, match="expected --name value, got `stray`"):
        parse_recipe(Stage1Arguments, [str(file), "stray"], "usage")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("save_strategy: no", "no"),
        ("output_dir: 0123", "0123"),
        ("output_dir: 1_000", "1_000"),
        ("tokenizer: 12", "12"),
        ("tokenizer: on", "on"),
        ("run_name: 2024-01-02", "2024-01-02"),
        ("learning_rate: 1e-2", 0.01),
        ("seed: 3", 3),
        ("freeze_vision_backbone: no", False),
        ("random_frame_phase: True", True),
        ("random_frame_phase: ~", None),
        ("report_to: [tensorboard, trackio]", ["tensorboard", "trackio"]),
        ("report_to: none", "none"),
        ("fsdp: true", True),
        ("peft: {type: lora, r: 8, lora_dropout: 5e-2, use_dora: no}",
         {"type": "lora", "r": 8, "lora_dropout": 0.05, "use_dora": False}),
    ],
)  # fmt: skip
def test_a_value_is_read_by_the_type_of_its_field(tmp_path, line, value):
    """In a file as on the command line; YAML would make False of `no` and 83 of `0123`."""
    (name, text), file = line.split(": ", 1), write(tmp_path, "r.yaml", line)
    assert read_lines(Stage2Arguments, file) == {name: value}
    recipe = parse_recipe(Stage2Arguments, ["--output_dir", "out", f"--{name.replace('_', '-')}", text], "usage")
    assert recipe.resolved[name] == value and type(recipe.resolved[name]) is type(value)


def test_a_variable_is_filled_from_the_environment_or_its_default(tmp_path, monkeypatch):
    file = write(tmp_path, "r.yaml", "seed: ${SOME_SEED:-3}\noutput_dir: ${SOME_PLACE}/run\n")
    monkeypatch.setenv("SOME_PLACE", "runs")
    assert read_lines(Stage1Arguments, file) == {"seed": 3, "output_dir": "runs/run"}
    monkeypatch.setenv("SOME_SEED", "null")
    with pytest.raises(InputError, match="`seed` needs a value, got none"):
        read_lines(Stage1Arguments, file)


# A value for every field of Seq2SeqTrainingArguments that a recipe may set, other than its default.
ACCEPTED = {
    "output_dir": "out", "per_device_train_batch_size": 3, "num_train_epochs": 2.5, "max_steps": 7,
    "learning_rate": 0.5, "lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"num_cycles": 2}, "warmup_steps": 5.0,
    "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 0.1, "gradient_accumulation_steps": 2,
    "average_tokens_across_devices": False, "max_grad_norm": 2.0, "label_smoothing_factor": 0.4, "bf16": True,
    "activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False},
    "torch_empty_cache_steps": 4, "logging_strategy": "epoch", "logging_steps": 9.0, "logging_first_step": True,
    "log_on_each_node": False, "logging_nan_inf_filter": True, "log_level": "error", "log_level_replica": "error",
    "disable_tqdm": True, "run_name": "name", "project": "mine",
    "trackio_space_id": "a/b", "trackio_bucket_id": "a/b", "trackio_static_space_id": "a/b",
    "eval_strategy": "steps", "eval_steps": 4.0,
    "eval_delay": 2.0, "per_device_eval_batch_size": 3, "eval_on_start": True, "save_only_model": True,
    "save_strategy": "steps", "save_steps": 8.0, "save_on_each_node": True, "save_total_limit": 5,
    "enable_jit_checkpoint": True, "push_to_hub": True, "hub_token": "secret", "hub_private_repo": True,
    "hub_model_id": "a/b", "hub_revision": "branch", "load_best_model_at_end": False, "metric_for_best_model": "loss",
    "ignore_data_skip": True, "restore_callback_states_from_checkpoint": False, "full_determinism": True, "seed": 3,
    "data_seed": 4, "use_cpu": True, "dataloader_num_workers": 2, "dataloader_pin_memory": False,
    "dataloader_persistent_workers": False, "dataloader_prefetch_factor": 3, "dataloader_in_order": False,
    "dataloader_multiprocessing_context": "spawn", "train_sampling_strategy": "group_by_length",
    "ddp_find_unused_parameters": True, "ddp_bucket_cap_mb": 9, "ddp_broadcast_buffers": True,
    "ddp_static_graph": True, "ddp_timeout": 99, "skip_memory_metrics": False,
    "generation_num_beams": 3,
}  # fmt: skip
# These need hardware, a package or a launcher, or are another name; here only that they reach transformers.
PASSED_ON = {
    "fp16": True, "tf32": True, "fsdp": True, "fsdp_config": {"version": 2}, "deepspeed": "file.json",
    "debug": "underflow_overflow", "accelerator_config": {"split_batches": False}, "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False}, "ddp_backend": "gloo", "torch_compile": True,
    "torch_compile_backend": "eager", "torch_compile_mode": "default", "report_to": ["tensorboard"],
}  # fmt: skip


def test_a_line_has_its_effect_or_is_refused(tmp_path, monkeypatch):
    from transformers import Seq2SeqTrainingArguments

    from training_fla.stages.launch import training_arguments

    fields = {field.name: field for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    assert {*ACCEPTED, *PASSED_ON, *REFUSED} <= fields.keys()
    file = write(tmp_path, "r.yaml", yaml.safe_dump(ACCEPTED))
    recipe = parse_recipe(Stage1Arguments, [str(file)], "usage")
    monkeypatch.setattr("os.environ", os.environ.copy())  # transformers notes some fields there
    args = training_arguments(recipe)
    for name, value in ACCEPTED.items():
        assert getattr(args, name) == value, name
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in PASSED_ON.items()}
    words = [f"--{name}={text}" for name, text in texts.items()]
    passed = parse_recipe(Stage1Arguments, ["--output_dir", "out", *words], "usage").training
    assert {name: passed[name] for name in PASSED_ON} == PASSED_ON
    for name, reason in REFUSED.items():
        default = TRAINING_DEFAULTS.get(name, fields[name].default)
        text = str(not default).lower() if isinstance(default, bool) else "7"
        text = {"hub_strategy": "every_save", "optim": "sgd", "include_num_input_tokens_seen": "true"}.get(name, text)
        text = {"liger_kernel_config": "{a: 1}", "greater_is_better": "true", "label_names": "[a]"}.get(name, text)
        if name in ("include_for_metrics", "parallelism_config"):
            continue  # a list and an object, which no line gives
        with pytest.raises(InputError, match=f"`{name}: .*` would have no effect; {re.escape(reason)}"):
            typed_lines(Stage1Arguments, {name: text})


def test_a_line_that_says_what_is_so_anyway_is_accepted():
    lines = {"do_train": "true", "predict_with_generate": "true", "remove_unused_columns": "false"}
    lines |= {"resume_from_checkpoint": "null", "dataloader_drop_last": "false", "optim": "adamw_torch_fused"}
    assert len(typed_lines(Stage1Arguments, lines)) == len(lines)


def test_the_best_model_by_loss_is_the_one_of_the_least(tmp_path):
    from training_fla.stages.launch import training_arguments

    for metric, greater in (("loss", False), ("eval_loss", False), ("bleu4", True), ("rouge_l", True)):
        argv = ["--output_dir", str(tmp_path), "--metric_for_best_model", metric, "--use_cpu"]
        assert training_arguments(parse_recipe(Stage1Arguments, argv, "usage")).greater_is_better is greater


def test_one_process_for_two_gpus_is_refused_with_the_line_to_launch(tmp_path, monkeypatch):
    from training_fla.stages.launch import check_launch

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("sys.argv", ["run_stage1.py", "my recipe.yaml", "--seed", "3"])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    recipe = parse_recipe(Stage1Arguments, ["--output_dir", str(tmp_path)], "usage")
    line = "`accelerate launch --multi_gpu --num_processes 2 run_stage1.py 'my recipe.yaml' --seed 3`"
    with pytest.raises(InputError, match=f"2 GPUs .* {line}, or set CUDA_VISIBLE_DEVICES=0"):
        check_launch(recipe)
    check_launch(parse_recipe(Stage1Arguments, ["--output_dir", str(tmp_path), "--use_cpu"], "usage"))
    monkeypatch.setenv("LOCAL_RANK", "0")
    check_launch(recipe)


def test_more_processes_than_gpus_are_refused_once_with_the_line_to_start(tmp_path, monkeypatch):
    """`accelerate launch` with two_gpus.yaml where one is visible; without any, the processes are the CPU's."""
    from training_fla.stages.launch import check_launch

    recipe = parse_recipe(Stage1Arguments, ["--output_dir", str(tmp_path)], "usage")
    monkeypatch.setattr("sys.argv", ["run_stage1.py", "r.yaml"])
    for name, value in (("LOCAL_WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    for gpus, line in (
        (1, "python run_stage1.py r.yaml"),
        (2, "accelerate launch --multi_gpu --num_processes 2 run_st"),
    ):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        with pytest.raises(InputError, match=rf"4 processes were launched for {gpus} visible GPU\(s\): `{line}"):
            check_launch(recipe)
    for gpus in (4, 0):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        check_launch(recipe)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(SystemExit):
        check_launch(recipe)


def test_the_next_command_is_of_one_process_where_two_gpus_are_visible(monkeypatch):
    from training_fla.stages.launch import one_process

    words = ["python", "run_stage2.py", "my recipe.yaml"]
    for gpus, visible, prefix in (
        (1, None, ""),
        (2, None, "CUDA_VISIBLE_DEVICES=0 "),
        (2, "5,6", "CUDA_VISIBLE_DEVICES=5 "),
    ):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert one_process(words) == f"{prefix}python run_stage2.py 'my recipe.yaml'"


def test_stride_beams_length_and_augmentation_have_their_defaults_in_one_place(tmp_path):
    from processing_fla import FlaVideoProcessor
    from training_fla.data.augmentation import ClipAugmentation
    from training_fla.data.datasets import clip_augmentation
    from training_fla.stages.building import make_processor

    argv = ["--output_dir", str(tmp_path), "--augmentation_probability", "1"]
    recipe = parse_recipe(Stage1Arguments, [*argv, "--max_source_frames", "300"], "usage")
    tokenizer = MBartTokenizer(vocab=[("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)])
    processor = make_processor(recipe, tokenizer).video_processor
    assert processor.frame_stride == FlaVideoProcessor().frame_stride == 4
    assert processor.max_source_frames == 300
    assert clip_augmentation(recipe.data, learns=True)[0] == ClipAugmentation(probability=1)
    recipe = parse_recipe(Stage1Arguments, [*argv, "--frame_stride", "2", "--rotate_degrees", "0"], "usage")
    processor = make_processor(recipe, tokenizer).video_processor
    assert (processor.frame_stride, processor.max_source_frames) == (2, None)
    assert clip_augmentation(recipe.data, learns=True)[0].rotate_degrees == 0


def test_lines_that_another_line_makes_idle_are_refused():
    argv = ["--output_dir", "out", "--stage1_checkpoint", "runs/stage1"]
    for name, value in (("imagenet_weights", "torchvision"), ("visual_feature_size", "64")):
        with pytest.raises(InputError, match=f"`{name}` would have no effect; the visual encoder is that of"):
            parse_recipe(Stage2Arguments, [*argv, f"--{name}", value], "usage")
        parse_recipe(Stage2Arguments, ["--output_dir", "out", f"--{name}", value], "usage")


def test_every_field_explains_itself():
    classes = (DataArguments, TextArguments, OptimizationArguments, RunArguments, Stage1Arguments, Stage2Arguments)
    for cls in classes:
        for name, field in cls.__dataclass_fields__.items():
            assert field.metadata.get("help"), f"{cls.__name__}.{name} has no help"


@pytest.mark.parametrize("script", ["run_stage1.py", "run_stage2.py"])
def test_help_imports_nothing_heavy(script):
    code = (
        f"import sys; sys.argv=[{script!r}, '--help']; import runpy\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "assert not {'torch', 'datasets', 'tokenizers', 'accelerate', 'av'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    assert "--frame_stride" in shown.stdout and "\noutput folder:\n" in shown.stdout, "fields by topic"


def test_bad_input_is_one_line_and_status_2():
    argv = [sys.executable, "run_stage1.py", "recipes/nowhere.yaml"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("run_stage1.py: error: ")
