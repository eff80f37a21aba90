"""What Trainer, DistributedDataParallel and peft expect of the model."""

import copy
import os

import pytest
import torch
from torch import distributed
from transformers import AutoModelForSeq2SeqLM, Trainer, TrainingArguments

from .conftest import C, tiny_model

LENGTHS = (7, 2, 5, 4)
BEAMS = {"num_beams": 5, "max_new_tokens": 6}


def without_dropout(model):
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def clips():
    generator = torch.Generator().manual_seed(1)
    sentences = [[7, 8, 9, 2, 4], [9, 2, 4], [5, 2, 4], [8, 7, 2, 4]]
    return [
        {"sign_features": torch.rand(n, C, generator=generator), "labels": torch.tensor(sentence)}
        for n, sentence in zip(LENGTHS, sentences, strict=True)
    ]


def collate(rows):
    lengths = [len(row["sign_features"]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "sign_features": pad([row["sign_features"] for row in rows], batch_first=True),
        "attention_mask": torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths]),
        "labels": pad([row["labels"] for row in rows], batch_first=True, padding_value=-100),
    }


def train(model, output_dir, batch_size, accumulation):
    arguments = TrainingArguments(
        output_dir=output_dir,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
        optim="sgd",
        learning_rate=0.5,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        remove_unused_columns=False,
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=clips(), data_collator=collate)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_two_batches_of_one_accumulated_are_one_batch_of_two(tmp_path):
    whole = without_dropout(tiny_model())
    split = copy.deepcopy(whole)
    before = copy.deepcopy(whole.state_dict())
    whole_losses = train(whole, tmp_path, batch_size=2, accumulation=1)
    split_losses = train(split, tmp_path, batch_size=1, accumulation=2)
    assert whole_losses == pytest.approx(split_losses, abs=1e-4)
    moved = 0
    for (name, ours), theirs in zip(whole.named_parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)
        moved += not torch.equal(ours, before[name])
    assert moved


def test_distributed_data_parallel_waits_for_no_unused_parameter(video, mask, labels, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(20000 + os.getpid() % 20000))
    distributed.init_process_group("gloo", rank=0, world_size=1)
    try:
        model = tiny_model()
        model.freeze_visual_encoder(vision_backbone=True, temporal_module=False)
        statistics = copy.deepcopy(model.visual_encoder.vision_backbone.state_dict())
        wrapped = torch.nn.parallel.DistributedDataParallel(model).train()
        for _ in range(2):  # an unused parameter would stop the second step
            wrapped(video, mask, labels=labels).loss.backward()
        after = model.visual_encoder.vision_backbone.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in statistics.items())
    finally:
        distributed.destroy_process_group()


def test_peft_wraps_the_model_as_its_documentation_says(video, mask, labels, tmp_path):
    peft = pytest.importorskip("peft")
    base = tiny_model()
    base.freeze_visual_encoder()
    base.save_pretrained(tmp_path / "base")
    plain, model = (AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base") for _ in range(2))
    inputs = {"pixel_values_videos": video, "attention_mask": mask, "labels": labels}
    lora = {"r": 2, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["adapter"]}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **lora))
    assert torch.equal(wrapped(**inputs).logits, plain(**inputs).logits)  # LoRA starts at zero

    optimizer = torch.optim.SGD((p for p in wrapped.parameters() if p.requires_grad), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        wrapped.train()(**inputs).loss.backward()
        optimizer.step()
    wrapped.eval()
    logits, features = wrapped(**inputs).logits, model.get_sign_features(video, mask)
    assert not torch.allclose(logits, plain(**inputs).logits, atol=1e-3)
    assert {name.split(".")[2] for name, p in wrapped.named_parameters() if p.requires_grad} == {
        "adapter",
        "language_model",
    }
    sentences = wrapped.generate(sign_features=features, attention_mask=mask, **BEAMS)
    assert torch.equal(wrapped.generate(pixel_values_videos=video, attention_mask=mask, **BEAMS), sentences)

    wrapped.save_pretrained(tmp_path / "lora")
    for loaded in (
        peft.PeftModel.from_pretrained(plain, tmp_path / "lora"),
        peft.AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "lora"),
    ):
        assert torch.equal(loaded(**inputs).logits, logits)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(**inputs).logits, logits, atol=1e-4, rtol=1e-4)


def test_evaluation_gathers_logits_of_several_batches(tmp_path):
    arguments = TrainingArguments(
        output_dir=tmp_path, use_cpu=True, remove_unused_columns=False, per_device_eval_batch_size=2, report_to="none"
    )
    trainer = Trainer(model=tiny_model(), args=arguments, data_collator=collate)
    prediction = trainer.predict(clips())
    assert prediction.metrics["test_loss"] > 0 and len(prediction.predictions[0]) == 4
