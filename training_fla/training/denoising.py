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
    Seq2SeqTrainingArguments,
    set_seed,
)

from processing_fla import train_tokenizer
from training_fla.files import InputError, atomic_folder
from training_fla.recipe import OptimizationArguments
from training_fla.training.monitoring import show_progress
from training_fla.training.parts import load_tokenizer, special_token_ids
from training_fla.training.trainer import SignTranslationTrainer, last_whole_checkpoint

MASKED_SHARE = 0.35  # Liu et al. 2020: 35 % of the words of an instance
MEAN_SPAN = 3.5  # Liu et al. 2020: span lengths are Poisson distributed with this mean


def infill(token_ids: Sequence[int], mask_id: int, generator: np.random.Generator) -> list[int]:
    """Replace spans of tokens by one mask each (text infilling).

    Args:
        token_ids (`Sequence[int]`): a sentence without special tokens.
        mask_id (`int`): what stands for a span.
        generator (`np.random.Generator`): draws number, lengths and places of the spans.

    Returns:
        `list[int]`: 35 % of the tokens are gone, rounded at random; a span of length 0 puts a mask between two.
    """
    budget = int(MASKED_SHARE * len(token_ids) + generator.random())
    spans: list[int] = []
    while sum(spans) < budget:
        spans.append(min(int(generator.poisson(MEAN_SPAN)), budget - sum(spans)))
    # Any order of kept tokens and spans is equally likely; a span swallows the tokens that stand where it falls.
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


class DenoisingDataset(Dataset):
    """Sentences with their noised selves; the noise is a function of (seed, epoch, sentence).

    Args:
        sentences (`Sequence[str]`): text, a sentence each.
        tokenizer ([`~transformers.MBartTokenizer`]): with a mask token.
        max_tokens (`int`): longer sentences are cut.
        seed (`int`): of the noise.
    """

    def __init__(self, sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int, seed: int):
        ids = tokenizer(list(sentences), add_special_tokens=False)["input_ids"]
        self.token_ids = [sentence[:max_tokens] for sentence in ids if sentence]
        # MBart marks a text by what ends it: `</s> de_DE`.
        self.suffix = tokenizer(text_target=sentences[0])["input_ids"][len(ids[0]) :]
        self.mask_id, self.pad_id, self.seed, self.epoch = tokenizer.mask_token_id, tokenizer.pad_token_id, seed, 0
        self.lengths = [len(sentence) for sentence in self.token_ids]
        self.ids = [f"line {number}" for number in range(len(self.token_ids))]

    def __len__(self) -> int:
        return len(self.token_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose noise is drawn next.

        Args:
            epoch (`int`): counted from 0.
        """
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict:
        generator = np.random.default_rng([self.seed, self.epoch, index])
        sentence = self.token_ids[index]
        return {
            "index": index,
            "input_ids": infill(sentence, self.mask_id, generator) + self.suffix,
            "labels": sentence + self.suffix,
        }


class DenoisingCollator:
    """Pads noised and true sentences.

    Args:
        pad_id (`int`): fills `input_ids`; labels are filled with -100.
        prepare_decoder_input_ids (`Callable`): the model's `prepare_decoder_input_ids_from_labels`.
    """

    def __init__(self, pad_id: int, prepare_decoder_input_ids):
        self.pad_id, self.prepare_decoder_input_ids = pad_id, prepare_decoder_input_ids

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Pad a list of examples to `input_ids`, `attention_mask`, `labels`, `decoder_input_ids` and `indices`."""

        def pad(name: str, value: int) -> torch.Tensor:
            rows = [torch.tensor(example[name]) for example in examples]
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

        input_ids, labels = pad("input_ids", self.pad_id), pad("labels", -100)
        return {
            "input_ids": input_ids,
            "attention_mask": input_ids.ne(self.pad_id).long(),
            "labels": labels,
            "decoder_input_ids": self.prepare_decoder_input_ids(labels),
            "indices": torch.tensor([example["index"] for example in examples]),
        }


def small_mbart(tokenizer: PreTrainedTokenizerBase, width: int, layers: int) -> MBartForConditionalGeneration:
    """A randomly initialised MBart of a size that two processor cores can train.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its vocabulary.
        width (`int`): `d_model`; heads of 64 channels and a feed-forward four times as wide, MBart's proportions.
        layers (`int`): of the encoder, and of the decoder.

    Returns:
        [`~transformers.MBartForConditionalGeneration`]: untrained.

    Raises:
        InputError: a width that heads of 64 channels do not divide.
    """
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
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> dict:
    """Pre-train a small MBart, or continue a released one, and save it with its tokenizer.

    Args:
        sentences (`Sequence[str]`): what it learns to rebuild.
        out (`Path`): the new model's folder; it appears when training is done.
        model (`str`, *optional*): folder or Hub id to continue from; without it a small one is made.
        language_code (`str`): the language a target ends with.
        vocab_size (`int`): pieces of a new tokenizer.
        vocab_sentences (`Sequence[str]`): further text the new tokenizer, but not the model, is trained on.
        width (`int`): `d_model` of a new model.
        layers (`int`): layers of a new model's encoder and decoder.
        max_steps (`int`): optimizer steps.
        batch_size (`int`): sentences a step.
        learning_rate (`float`): peak of AdamW's cosine schedule.
        warmup_steps (`int`): linear warm-up.
        max_tokens (`int`): longer sentences are cut.
        save_steps (`int`): steps between checkpoints.
        seed (`int`): of weights, noise and order.
        resume (`bool`): go on from a killed run's last checkpoint.
        overwrite (`bool`): replace `out`.

    Returns:
        `dict`: `loss` (nats per token, over the last tenth of the steps), `sentences`, `vocab_size`, `parameters`.

    Raises:
        InputError: no sentences, `out` exists, or a model without a mask token.
    """
    if not sentences:
        raise InputError("--text holds no sentence")
    checkpoints = out.with_name(out.name + ".checkpoints")
    if checkpoints.exists() and not resume:
        shutil.rmtree(checkpoints)
    with atomic_folder(out, "model", overwrite) as folder:
        set_seed(seed)
        if model is None:
            tokenizer = train_tokenizer([*sentences, *vocab_sentences], vocab_size, (language_code,))
            network: PreTrainedModel = small_mbart(tokenizer, width, layers)
        else:
            tokenizer = load_tokenizer(model)
            tokenizer.src_lang = tokenizer.tgt_lang = language_code
            network = AutoModelForSeq2SeqLM.from_pretrained(model)
        if tokenizer.mask_token_id is None:
            raise InputError(f"{model}: its tokenizer has no mask token, so it cannot be trained by infilling")
        args = Seq2SeqTrainingArguments(
            output_dir=str(checkpoints), max_steps=max_steps, per_device_train_batch_size=batch_size,
            learning_rate=learning_rate, warmup_steps=warmup_steps, lr_scheduler_type="cosine", weight_decay=0.01,
            save_steps=save_steps, save_total_limit=1, logging_steps=max(1, max_steps // 10), seed=seed,
            report_to="none", dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False, max_grad_norm=1.0, train_sampling_strategy="group_by_length",
        )  # fmt: skip
        dataset = DenoisingDataset(list(sentences), tokenizer, max_tokens, seed)
        trainer = SignTranslationTrainer(
            model=network, args=args, train_dataset=dataset, metric=None, generation=None,
            optimization=OptimizationArguments(optimizer="adamw"),
            data_collator=DenoisingCollator(tokenizer.pad_token_id, network.prepare_decoder_input_ids_from_labels),
            processing_class=tokenizer,
        )  # fmt: skip
        show_progress(trainer)
        checkpoint = last_whole_checkpoint(checkpoints) if resume else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"loss": losses[-1], "sentences": len(dataset), "vocab_size": len(tokenizer), "parameters": parameters}
