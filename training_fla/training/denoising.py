"""MBart's own pre-training: rebuild a sentence from which spans were cut out (Liu et al. 2020, Sec. 2.2).

The demo has no released MBart to download, so `fla denoise` makes a small one; on a real corpus it continues a
released one on text of the corpus's language or topic.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    MBartConfig,
    MBartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)

from processing_fla import train_tokenizer
from training_fla.data.batching import ClipBatchSampler, ClipLoader, FilledBatches
from training_fla.errors import InputError
from training_fla.folders import atomic_folder, check_folder, write_marker
from training_fla.loading import loading

from .callbacks import show_progress
from .checkpoints import last_whole_checkpoint
from .parts import load_tokenizer, set_language, special_token_ids

MASKED_SHARE = 0.35  # Liu et al. 2020: 35 % of the words of an instance
MEAN_SPAN = 3.5  # Liu et al. 2020: span lengths are Poisson distributed with this mean


def infill(token_ids: Sequence[int], mask_id: int, generator: np.random.Generator) -> list[int]:
    """Replace spans of tokens by one mask each; a span of length 0 puts a mask between two tokens."""
    budget = int(MASKED_SHARE * len(token_ids) + generator.random())
    spans: list[int] = []
    while sum(spans) < budget:
        spans.append(min(int(generator.poisson(MEAN_SPAN)), budget - sum(spans)))
    # Any order of kept tokens and spans is equally likely; a span replaces the tokens at its place.
    units = len(token_ids) - sum(spans) + len(spans)
    span_at = dict(zip(generator.permutation(units)[: len(spans)].tolist(), spans, strict=True))
    noised, position = [], 0
    for unit in range(units):
        if unit in span_at:
            noised.append(mask_id)
            position += span_at[unit]
        else:
            noised.append(token_ids[position])
            position += 1
    return noised


class NoisedSentences(Dataset):
    """Tokens of sentences, and what decides their noise: seed, epoch and place, also where a run was resumed."""

    def __init__(self, sentences: Sequence[list[int]], seed: int):
        self.sentences = sentences
        self.lengths = [len(sentence) for sentence in sentences]
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose noise is given next, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"input_ids": self.sentences[index], "noise_seed": [self.seed, self.epoch, index]}


class InfillingCollator:
    """Masks spans of each sentence anew and pads; what marks the language (`</s> de_DE`) stays around both."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        whole = tokenizer(text_target="a")["input_ids"]
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        start = whole.index(bare[0])
        self.prefix, self.suffix = whole[:start], whole[start + len(bare) :]

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Mask spans of sentences and pad them.

        Args:
            examples (`list[dict]`): of [`NoisedSentences`]: `input_ids`, the tokens of a sentence without special
                ones, and `noise_seed`, numbers.

        Returns:
            `dict[str, torch.Tensor]`: `input_ids`, `attention_mask` `(B, L')` and `labels` `(B, L)`, int64, -100 at
            padding.
        """
        sentences = [example["input_ids"] for example in examples]
        generators = [np.random.default_rng(example["noise_seed"]) for example in examples]
        mask = self.tokenizer.mask_token_id
        noised = [infill(ids, mask, generator) for ids, generator in zip(sentences, generators, strict=True)]
        noised = [[*self.prefix, *ids, *self.suffix] for ids in noised]
        batch = self.tokenizer.pad({"input_ids": noised}, return_tensors="pt")
        labels = [torch.tensor([*self.prefix, *ids, *self.suffix]) for ids in sentences]
        batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        return dict(batch)


def small_mbart(tokenizer: PreTrainedTokenizerBase, width: int, layers: int) -> MBartForConditionalGeneration:
    """A randomly initialised MBart of a size that two processor cores can train, in MBart's proportions."""
    if width % 64:
        raise InputError(f"--width must be a multiple of 64, got {width}")
    config = MBartConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=width // 64, decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, scale_embedding=True, max_position_embeddings=1024,
        init_std=0.02 * math.sqrt(1024 / width),  # MBart's 0.02, widened as the model is narrowed
        **special_token_ids(tokenizer),
    )  # fmt: skip
    return MBartForConditionalGeneration(config)


def released_model(source: str, language_code: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model to continue, for text of a language."""
    tokenizer = load_tokenizer(source)
    if tokenizer.mask_token_id is None:
        raise InputError(f"{source}: its tokenizer has no mask token, so it cannot be trained by infilling")
    set_language(tokenizer, language_code, "--language")
    with loading(source):
        return tokenizer, AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.float32)


def denoise(
    sentences: Sequence[str],
    out: Path,
    *,
    model: str | None = None,
    language_code: str = "de_DE",
    vocab_size: int = 4000,
    vocab_sentences: Sequence[str] = (),
    width: int = 256,
    layers: int = 3,
    max_steps: int = 1000,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    warmup_steps: int = 100,
    max_tokens: int = 128,
    save_steps: int = 500,
    group_by_length: bool = False,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> dict:
    """Pre-train a small MBart, or continue a released one, and save it with its tokenizer; `fla denoise` says more."""
    if not sentences:
        raise InputError("--text holds no sentence")
    checkpoints = out.with_name(out.name + ".checkpoints")
    check_folder(checkpoints, "run", overwrite=resume or overwrite)
    with atomic_folder(out, "model", overwrite=overwrite) as folder:
        set_seed(seed)
        if model is None:
            tokenizer = train_tokenizer([*sentences, *vocab_sentences], vocab_size, (language_code,))
            network: PreTrainedModel = small_mbart(tokenizer, width, layers)
        else:
            tokenizer, network = released_model(model, language_code)
        if checkpoints.exists() and not resume:
            shutil.rmtree(checkpoints)
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_marker(checkpoints, "run")
        schedule = {"max_steps": max_steps, "per_device_train_batch_size": batch_size, "save_steps": save_steps}
        schedule |= {"learning_rate": learning_rate, "warmup_steps": warmup_steps, "seed": seed}
        schedule["train_sampling_strategy"] = "group_by_length" if group_by_length else "random"
        ids = tokenizer(list(sentences), add_special_tokens=False)["input_ids"]
        dataset = NoisedSentences([sentence[:max_tokens] for sentence in ids if sentence], seed)
        trainer = infilling_trainer(network, tokenizer, dataset, checkpoints, schedule)
        checkpoint = last_whole_checkpoint(checkpoints) if resume else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    shutil.rmtree(checkpoints)
    loss = [row["loss"] for row in trainer.state.log_history if "loss" in row][-1]
    counts = {"sentences": len(dataset), "vocab_size": len(tokenizer), "parameters": network.num_parameters()}
    return {"loss": loss, **counts}


class InfillingTrainer(Seq2SeqTrainer):
    """Deals out sentences in an order that depends on seed and epoch alone, so that a resumed run has the same.

    transformers gives a resumed epoch the order of the first one, and the random state that it restores is that of a
    loader which fetches one batch ahead.
    """

    def get_train_dataloader(self) -> ClipLoader:
        """Batches of sentences."""
        args = self.args
        sampler = ClipBatchSampler(
            self.train_dataset,
            args.train_batch_size,
            args.seed,
            by_length=args.train_sampling_strategy == "group_by_length",
            num_processes=args.world_size,
            process_index=args.process_index,
        )
        return ClipLoader(
            FilledBatches(self.train_dataset),
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
            generator=torch.Generator(),
        )

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        """As [`~transformers.Trainer.get_batch_samples`], which takes another step after a saved last one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)


def infilling_trainer(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: NoisedSentences,
    folder: Path,
    schedule: dict,
) -> InfillingTrainer:
    """A trainer that masks spans anew in every batch; `schedule` has further training arguments."""
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder), lr_scheduler_type="cosine", weight_decay=0.01, max_grad_norm=1.0,
        optim="adamw_torch_fused", save_total_limit=1, logging_steps=max(1, schedule["max_steps"] // 10),
        report_to="none", dataloader_pin_memory=torch.cuda.is_available(), remove_unused_columns=False, **schedule,
    )  # fmt: skip
    collator = InfillingCollator(tokenizer)
    trainer = InfillingTrainer(
        network, args, train_dataset=dataset, data_collator=collator, processing_class=tokenizer
    )
    show_progress(trainer)
    return trainer
