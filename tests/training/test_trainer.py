"""What a step and an evaluation cost, in which precision they run, and that scores are those of the saved model."""

import gc
import json
import os
import re
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    MBart50Tokenizer,
    MBartConfig,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
)
from transformers import MBartForConditionalGeneration as MBart

from modeling_fla import FlaConfig, FlaForConditionalGeneration, FlaVisionConfig
from modeling_fla.batch_norm_fla import RealFrames, count_real_frames
from processing_fla import FlaProcessor
from tests.tiny_runs import ROOT, STAGE2, pack_demo, run, stage1_of_one_step, weights
from training_fla.data.batching import NO_CLIP
from training_fla.data.collation import RoundedSizes, SignTranslationCollator
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.errors import InputError
from training_fla.recipe import Stage1Arguments, Stage2Arguments, parse_recipe
from training_fla.stages import building, launch
from training_fla.training.callbacks import start_copies
from training_fla.training.parts import special_token_ids
from training_fla.training.trainer import SignTranslationTrainer, token_loss

SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trainer")
    corpus = pack_demo(folder / "corpus", num_train=11, num_dev=4, num_test=5)
    stage1_of_one_step(folder, corpus)
    given = f"dataset: {corpus}\nstage1_checkpoint: {folder}/stage1\ntokenizer: {folder}/stage1\n"
    (folder / "stage2.yaml").write_text(given + STAGE2)
    return folder


def make(folder: Path, script: str, out: Path, *lines) -> SignTranslationTrainer:
    """The trainer of a run, before it trains."""
    arguments = {"run_stage1": Stage1Arguments, "run_stage2": Stage2Arguments}[script]
    words = [str(folder / f"{script[4:]}.yaml"), "--output_dir", str(out), *map(str, lines)]
    recipe = parse_recipe(arguments, words, "")
    sys.path.insert(0, str(ROOT))
    module = __import__(script)
    sys.path.remove(str(ROOT))
    splits, args = building.open_splits(recipe), launch.training_arguments(recipe)
    parts = building.build_parts(recipe, args, splits, module.build_processor, module.build_model)
    return building.make_trainer(recipe, args, splits, *parts)


@pytest.mark.parametrize(
    ("bleu1", "losses", "best", "last"),
    [
        ([0, 20, 60, 95], [4, 4, 4, 4], 8, 8),
        ([0, 0, 0, 0], [4, 3, 2, 1], 8, 8),
        ([30, 60, 20, 20], [4, 3, 2, 1], 4, 6),
        ([30, 30, 30, 30], [4, 4, 4, 4], 2, 4),
    ],
)
def test_equal_scores_are_told_apart_by_bleu_1_and_the_loss(folder, tmp_path, monkeypatch, bleu1, losses, best, last):
    """BLEU-4 of one or two words is always 0; early stopping waits for one evaluation."""
    lines = ("--max_steps", 8, "--eval_steps", 2, "--save_steps", 2, "--early_stopping_patience", 1)
    trainer = make(folder, "run_stage2", tmp_path / "out", *lines)
    scores = [{"bleu4": 0.0, "bleu1": float(score), "num_sentences": 4} for score in bleu1]
    rest = iter(losses)
    monkeypatch.setattr(trainer, "translate", lambda dataset, description: (["ja"] * 4, float(next(rest))))
    monkeypatch.setattr(trainer.metric, "compute", lambda **_: scores.pop(0))
    trainer.train()
    assert (trainer.state.best_global_step, trainer.state.global_step) == (best, last)
    logged = [row["eval_bleu4"] for row in trainer.state.log_history if "eval_bleu4" in row]
    assert set(logged) == {0.0}, "the log has the scores as they are"
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")


@pytest.mark.parametrize("cache", ["auto", "null"])
def test_a_clip_is_encoded_once_an_evaluation(folder, tmp_path, cache):
    """Four clips in batches of three are two calls; loss and beams share them."""
    trainer = make(folder, "run_stage2", tmp_path / "out", "--feature_cache", cache)
    calls = {"visual": 0, "language": 0}
    watched = {"visual": trainer.model.visual_encoder, "language": trainer.model.language_model.get_encoder()}
    for name, part in watched.items():
        part.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    trainer.evaluate()
    assert calls == {"visual": 0 if cache == "auto" else 2, "language": 2}
    assert len(trainer.last_translations) == 4


def test_in_bf16_beams_run_under_autocast_as_training_does(folder, tmp_path):
    for name, expected in (("true", torch.bfloat16), ("false", torch.float32)):
        trainer = make(folder, "run_stage2", tmp_path / name, "--bf16", name)
        kinds = set()
        layer = trainer.model.language_model.get_decoder().layers[0].fc1
        layer.register_forward_hook(lambda module, inputs, output, kinds=kinds: kinds.add(output.dtype))
        trainer.evaluate()
        assert kinds == {expected}
        kinds.clear()
        trainer.train()
        assert kinds == {expected}


def test_in_bf16_statistics_of_batch_norm_and_the_loss_are_fp32(folder, tmp_path):
    trainer = make(folder, "run_stage1", tmp_path / "out", "--bf16", "true", "--max_steps", 1)
    norms, seen = [m for m in trainer.model.modules() if isinstance(m, torch.nn.BatchNorm2d)], []
    for norm in norms:
        norm.momentum = 1.0
    norms[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()) if module.training else None)
    compute_loss, losses = trainer.compute_loss, []
    trainer.compute_loss = lambda *args, **options: losses.append(compute_loss(*args, **options)) or losses[-1]
    trainer.train()
    (loss,), (hidden,) = losses, seen
    assert loss.dtype == torch.float32 and hidden.dtype == torch.bfloat16
    assert all(norm.running_var.dtype == torch.float32 for norm in norms)
    mean = hidden.double().mean((0, 2, 3)).float()
    torch.testing.assert_close(norms[0].running_mean, mean, atol=1e-6, rtol=1e-5)  # bf16 has three digits


def test_evaluations_keep_a_constant_number_of_workers_and_descriptors(folder, tmp_path):
    lines = ("--dataloader_num_workers", 2, "--feature_cache", "null", "--max_new_tokens", 1)
    trainer = make(folder, "run_stage2", tmp_path / "out", *lines)
    counts = []
    for _ in range(4):
        trainer.evaluate()
        gc.collect()
        for thread in threading.enumerate():
            if thread.name == "QueueFeederThread":  # which closes the queue of a worker that has ended
                thread.join(timeout=60)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        counts.append((len(children), len(os.listdir("/proc/self/fd"))))
    assert len(set(counts[1:])) == 1, counts


class Waits(TorchDispatchMode):
    """Notes the operations whose result the processor must know before it goes on."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "repeat_interleave.Tensor")

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in self.NAMES:
            self.seen.append(function.overloadpacket.__name__)
        return function(*args, **kwargs or {})


class CountWaits(TrainerCallback):
    """Counts them from the beginning of a step, when its batch is there, to its end."""

    def __init__(self, waits: Waits):
        self.waits, self.steps = waits, []

    def on_step_begin(self, args, state, control, **kwargs):
        self.waits.seen.clear()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(list(self.waits.seen))


@pytest.mark.parametrize("script", ["run_stage1", "run_stage2"])
def test_a_step_waits_for_the_device_at_most_once(folder, tmp_path, script):
    """It looks at the loss of the step before; padded and unpadded batches, none of whose masks are read."""
    lines = ["--eval_strategy='no'", "--save_strategy='no'", "--load_best_model_at_end=false", "--logging_steps=100"]
    trainer = make(folder, script, tmp_path / "out", "--max_steps", 5, *lines)
    with Waits() as waits:
        trainer.add_callback(count := CountWaits(waits))
        trainer.train()
    assert len(count.steps) == 5 and all(step in ([], ["_local_scalar_dense"]) for step in count.steps)
    assert count.steps[1] == ["_local_scalar_dense"], "what is counted is seen"


def test_a_run_as_on_a_gpu_has_the_losses_of_one_on_a_processor(folder, tmp_path, monkeypatch):
    """Sizes rounded up, norms that leave frames out, and frames that are cropped and turned after the workers."""
    lines = ["--eval_strategy='no'", "--save_strategy='no'", "--load_best_model_at_end=false", "--logging_steps=1"]
    lines += ["--max_steps", 6, "--augmentation_probability", 1.0, "--dataloader_num_workers", 1]
    lines += ["--light_t_overrides", "{d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24, dropout: 0.0}"]
    curves = {}
    for place in ("processor", "gpu"):
        trainer = make(folder, "run_stage1", tmp_path / place, *lines)
        if place == "gpu":
            trainer.train_dataset.crops_later = True
            trainer.data_collator = SignTranslationCollator(sizes=RoundedSizes())
            trainer.real_frames = RealFrames()
            count_real_frames(trainer.model.visual_encoder, trainer.real_frames)
        trainer.train()
        curves[place] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(curves["gpu"]) == 6 and curves["gpu"] == pytest.approx(curves["processor"], abs=1e-5)


def test_a_clip_that_counts_for_nothing_has_no_labels_and_a_whole_decoder_input(folder, tmp_path):
    trainer = make(folder, "run_stage2", tmp_path / "out")
    labels = torch.tensor([[7, 8, 2, 4], [9, 2, 4, -100]])
    places = {"positions": torch.tensor([0, 1, 2, 4]), "attention_mask": torch.ones(2, 2)}
    batch = trainer.prepare_batch({"labels": labels, "indices": torch.tensor([3, NO_CLIP]), **places})
    assert batch["num_frames"] == 3, "B * T stands for a frame that counts for nothing"
    assert batch["labels"].tolist() == [labels[0].tolist(), [-100] * 4]
    assert batch["decoder_input_ids"].equal(trainer.model.prepare_decoder_input_ids_from_labels(labels))


def test_a_loss_is_read_when_it_is_there_and_processes_draw_different_dropout(folder, tmp_path, monkeypatch):
    asked = []

    class Elsewhere(torch.Tensor):
        """On a device that has no events: its copies must be complete."""

        def to(self, *args, non_blocking=False, **kwargs):
            asked.append(non_blocking)
            return torch.Tensor(self)

    assert start_copies(torch.ones(()).as_subclass(Elsewhere))[1] is None and asked == [False]
    seeds = set()
    for rank in range(2):
        monkeypatch.setattr(Seq2SeqTrainingArguments, "world_size", property(lambda _: 2))
        monkeypatch.setattr(Seq2SeqTrainingArguments, "process_index", property(lambda _, rank=rank: rank))
        trainer = make(folder, "run_stage2", tmp_path / "out", "--feature_cache", "null")
        seeds.add(torch.initial_seed())
    assert seeds == {trainer.args.seed, trainer.args.seed + 1}
    assert trainer.args.ddp_broadcast_buffers is False and not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_batch_in_which_nothing_counts_has_a_loss_of_zero():
    logits = torch.randn(1, 3, 9, requires_grad=True)
    for count in (None, 0, torch.tensor(0)):
        loss = token_loss(logits, torch.full((1, 3), -100), count, smoothing=0.2)
        loss.backward()
        assert loss.item() == 0 and not logits.grad.any()


def test_scores_are_those_of_the_saved_model(folder, tmp_path):
    """The language model's own generation config holds more than ours keeps, and sentences reach `max_new_tokens`."""
    config = MBartConfig(vocab_size=weights(folder / "stage1")["language_model.lm_head.weight"].shape[0], **SIZES)
    torch.manual_seed(0)
    model = MBart(config)
    model.generation_config = GenerationConfig(
        forced_eos_token_id=2, no_repeat_ngram_size=1, length_penalty=3.0, early_stopping=True, num_beams=4,
        decoder_start_token_id=2, eos_token_id=2, pad_token_id=1, bos_token_id=0, max_length=7,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "mbart")
    out, lines = tmp_path / "out", ("--language_model", tmp_path / "mbart", "--language_model_config", "null")
    assert run("run_stage2", folder / "stage2.yaml", "--output_dir", out, *lines) == 0
    rows = [line.split("\t") for line in (out / "predictions_test.tsv").read_text().splitlines()[1:]]
    loaded, processor = AutoModelForSeq2SeqLM.from_pretrained(out), FlaProcessor.from_pretrained(out)
    corpus = PackedCorpus(folder / "corpus", "test")
    videos = [corpus.read_frames(index, range(corpus.num_frames[index])) for index in range(len(corpus))]
    ids = loaded.generate(**processor(videos=videos, return_tensors="pt"))
    assert ids.shape[1] == 1 + 6, "some sentence reaches max_new_tokens"
    assert [row[1] for row in rows] == [
        " ".join(s.split()) for s in processor.batch_decode(ids, skip_special_tokens=True)
    ]
    kept = json.loads((out / "generation_config.json").read_text())
    assert not kept.keys() & {"forced_eos_token_id", "no_repeat_ngram_size", "length_penalty", "max_length"}


def test_a_language_model_in_bf16_is_trained_in_fp32_unless_a_line_says_otherwise(folder, tmp_path):
    config = MBartConfig(vocab_size=weights(folder / "stage1")["language_model.lm_head.weight"].shape[0], **SIZES)
    MBart(config).to(torch.bfloat16).save_pretrained(tmp_path / "mbart")
    common = ("--language_model", tmp_path / "mbart", "--language_model_config", "null")
    for name, lines in {
        "float32": (),
        "bfloat16": ("--language_model_dtype", "bfloat16", "--peft", "{type: lora, r: 2}", "--bf16", "true"),
    }.items():
        trainer = make(folder, "run_stage2", tmp_path / name, *common, *lines)
        assert trainer.model.language_model.get_decoder().layers[0].fc1.weight.dtype == getattr(torch, name)
        trainer.train()
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters() if p.requires_grad)
    with pytest.raises(InputError, match="`language_model_dtype`: invalid choice: 'int8'"):
        make(folder, "run_stage2", tmp_path / "o", *common, "--language_model_dtype", "int8")


def test_a_translation_begins_as_targets_begin_where_the_language_is_first():
    """mBART-50's tokenizer on a Light-T: `</s> en_XX words` in training, and the same two tokens in generation."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁rain", -2.0), ("a", -3.0)]
    tokenizer = MBart50Tokenizer(vocab=pieces, src_lang="en_XX", tgt_lang="en_XX")
    code, eos = tokenizer.convert_tokens_to_ids("en_XX"), tokenizer.eos_token_id
    backbone = {"model_type": "resnet", "layer_type": "basic", "embedding_size": 4, "hidden_sizes": [6], "depths": [1]}
    vision = FlaVisionConfig(backbone_config=backbone, hidden_size=10)
    ids = special_token_ids(tokenizer)
    sizes = {"d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12}
    config = FlaConfig.light_t("tiny", vocab_size=len(tokenizer), vision_config=vision, **sizes, **ids)
    model = FlaForConditionalGeneration(config).eval()
    model.generation_config = building.clean_generation_config(model, tokenizer, num_beams=1, max_new_tokens=4)
    labels = torch.tensor(tokenizer(text_target=["a rain"])["input_ids"])
    assert labels[0, 0] == code and labels[0, -1] == eos
    trained = model.prepare_decoder_input_ids_from_labels(labels)
    generated = model.generate(sign_features=torch.randn(1, 3, 10))
    assert trained[0, :2].tolist() == generated[0, :2].tolist() == [eos, code]


def test_nothing_of_ours_warns_of_what_transformers_will_drop(folder, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        argv = [folder / "stage2.yaml", "--output_dir", tmp_path / "out", "--activation_checkpointing", "true"]
        assert run("run_stage2", *argv) == 0
    assert not [str(w.message) for w in caught if issubclass(w.category, FutureWarning | DeprecationWarning)]


def test_a_resumed_run_misses_no_tied_weight_and_counts_the_time_before(folder, tmp_path, caplog):
    argv = [folder / "stage2.yaml", "--output_dir", tmp_path / "out", "--max_steps", 2, "--save_total_limit", 5]
    assert run("run_stage2", *argv) == 0
    before = json.loads((tmp_path / "out" / "metrics.json").read_text())
    state = tmp_path / "out" / "checkpoint-2" / "trainer_state.json"
    state.write_text(re.sub(r'"earlier_seconds": [\d.]+', '"earlier_seconds": 5000.0', state.read_text()))
    (tmp_path / "out" / "model.safetensors").unlink()
    assert run("run_stage2", *argv, "--resume") == 0
    assert "missing keys" not in caplog.text
    after = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert before["seconds"] < 5000 <= after["seconds"] and after["train"]["seconds"] >= 5000
    assert after["train"]["positions"] == before["train"]["positions"] > 0


def test_the_gradient_norm_is_computed_only_for_the_log(folder, tmp_path, monkeypatch):
    """It rests on a private method of transformers: where that is gone, every step pays for a norm."""
    norms, method = [], Trainer._get_grad_norm
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda *args, **kwargs: norms.append(method(*args, **kwargs)))
    trainer = make(folder, "run_stage2", tmp_path / "out", "--logging_steps", 3)
    trainer.train()
    assert len(norms) == 2, "of step 1 and step 3"
    # And where Figure 2's norms are due: with fp16 this takes their scale away.
    trainer = make(folder, "run_stage2", tmp_path / "norms", "--logging_steps", 100, "--norm_logging_steps", 2)
    trainer.train()
    assert len(norms) == 2 + 3, "of steps 1, 2 and 4"
