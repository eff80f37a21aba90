"""Seq2SeqTrainer for sign language translation: own optimizer groups, one loss, and scores against raw sentences."""

import copy
import json
import shutil
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import SequentialSampler
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, GenerationConfig, Seq2SeqTrainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training_fla.data.batching import EpochSampler, FrameBudgetSampler, budget_loader, check_batching
from training_fla.files import InputError
from training_fla.recipe import OptimizationArguments
from training_fla.training.monitoring import sample_places
from training_fla.training.optimization import build_optimizer
from training_fla.training.sharding import check_sharding, gather, share_tied_tables, without_weights
from training_fla.training.throughput import Throughput


class SmoothedCrossEntropy:
    """Mean label-smoothed negative log-likelihood per target token, in nats, over the whole accumulated batch.

    Unstated: the paper says "label smoothing of 0.2"; spread over all V tokens as PyTorch does, padding left out.

    Args:
        smoothing (`float`): share of the probability that is spread, in [0, 1).
    """

    def __init__(self, smoothing: float):
        self.smoothing = smoothing

    def __call__(
        self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Score a batch.

        Args:
            outputs ([`~transformers.modeling_outputs.Seq2SeqLMOutput`]): `logits` `(B, L, V)`.
            labels (`torch.LongTensor` of shape `(B, L)`): -100 at padding.
            num_items_in_batch (`int`, *optional*): target tokens of all micro-batches of the step, on all devices.

        Returns:
            `torch.Tensor`: a scalar.
        """
        # Light-T's logits are there in a one-run training, whose loss is the sum of both models'.
        total = sum(
            F.cross_entropy(
                logits.float().flatten(0, 1),
                labels.flatten(),
                label_smoothing=self.smoothing,
                ignore_index=-100,
                reduction="sum",
            )
            for logits in (outputs.logits, getattr(outputs, "light_t_logits", None))
            if logits is not None
        )
        return total / (labels.ne(-100).sum() if num_items_in_batch is None else num_items_in_batch)


class SignTranslationTrainer(Seq2SeqTrainer):
    """Trains either stage; nothing here knows which.

    Args:
        optimization ([`OptimizationArguments`]): optimizer, momentum, rates by part.
        metric ([`~training_fla.scoring.metric.SignTranslationMetric`]): scores translations against raw sentences.
        generation ([`~transformers.GenerationConfig`]): beam search at evaluation.
        frames_per_batch (`int`, *optional*): most frames of a training batch, padding included.
        **kwargs: of [`~transformers.Seq2SeqTrainer`]. Datasets have `lengths`, `sentences` and `ids`.

    Raises:
        InputError: lines that say different things about what a batch is.
    """

    frames_per_batch: int | None = None

    def __init__(
        self,
        *,
        optimization: OptimizationArguments,
        metric,
        generation: GenerationConfig,
        frames_per_batch: int | None = None,
        **kwargs,
    ):
        args = kwargs["args"]
        check_batching(args, frames_per_batch)
        self.frames_per_batch = frames_per_batch
        super().__init__(compute_loss_func=SmoothedCrossEntropy(args.label_smoothing_factor), **kwargs)
        self.optimization, self.metric, self.generation = optimization, metric, generation
        self.last_translations: list[str] = []
        self.throughput = Throughput()
        self.add_callback(EpochCallback(self))
        if self.is_fsdp_enabled:
            check_sharding(self.accelerator, optimization)

    def train(self, *args, **kwargs):
        """As [`~transformers.Trainer.train`], timed."""
        if self.is_fsdp_enabled:
            self.empty_model = without_weights(self.model)
            share_tied_tables(self.model.language_model)
        with self.throughput.running():
            return super().train(*args, **kwargs)

    def whole_model(self):
        """The model to save: what was trained, put together again where it is in shards.

        Returns:
            [`~modeling_fla.FlaForConditionalGeneration`]: with weights on the first process only, after FSDP.
        """
        if not self.is_fsdp_enabled:
            return self.model
        whole = gather(self.accelerator, self.model, self.empty_model)
        self.is_fsdp_enabled = False  # `save_model` would gather once more
        return whole

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Make the recipe's optimizer once.

        Args:
            model (`nn.Module`, *optional*): what to optimise; the trainer's model when absent.

        Returns:
            `torch.optim.Optimizer`: see [`~training_fla.training.optimization.build_optimizer`].
        """
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model if model is None else model, self.optimization, self.args)
        return self.optimizer

    def _get_train_sampler(self, train_dataset=None) -> EpochSampler | FrameBudgetSampler:
        dataset, args = self.train_dataset if train_dataset is None else train_dataset, self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        if self.frames_per_batch is not None:
            self.train_sampler = FrameBudgetSampler(
                dataset.lengths, self.frames_per_batch, args.train_batch_size, seed, names=dataset.ids,
                accumulation=args.gradient_accumulation_steps,
                num_processes=args.world_size, process_index=args.process_index,
            )  # fmt: skip
        else:
            groups = args.train_sampling_strategy == "group_by_length"
            total = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            self.train_sampler = EpochSampler(dataset.lengths, seed, total if groups else None)
        return self.train_sampler

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """As [`~transformers.Trainer.get_train_dataloader`], or batches within a budget of frames."""
        if self.frames_per_batch is None:
            return super().get_train_dataloader()
        sampler = self._get_train_sampler()
        return budget_loader(self.train_dataset, sampler, self.data_collator, self.args, self.accelerator)

    def is_finished(self) -> bool:
        """Whether no step is left to do, as where a run resumes that was interrupted while it was scored or saved.

        Returns:
            `bool`: of the state as it is now.
        """
        stoppers = [c for c in self.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
        stopped = any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in stoppers)
        return stopped or self.state.global_step >= self.state.max_steps

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        """As [`~transformers.Trainer.get_batch_samples`], which would begin an epoch even after the last step."""
        if self.is_finished():
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        # Accelerate fills an epoch's last batch with clips of its first, so that all processes have equally many;
        # without labels they weigh nothing, and on any number of processes a clip counts once an epoch.
        # (Counted here: Accelerate's own `remainder` is unknown in the epoch a resumed run begins in.)
        at_end = self.accelerator.gradient_state.end_of_dataloader and not self.args.dataloader_drop_last
        remainder = len(self.train_dataset) % (self.args.train_batch_size * self.args.world_size)
        if self.args.world_size > 1 and self.frames_per_batch is None and batch_samples and at_end and remainder > 0:
            real = max(0, remainder - self.args.process_index * self.args.train_batch_size)
            batch_samples[-1]["labels"][real:] = -100
        return super()._get_num_items_in_batch(batch_samples, device)

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(sorted_by_length(eval_dataset))

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """As [`~transformers.Trainer.training_step`]; a loss that is no number ends the run and names the clips."""
        self.throughput.count(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Looked at only now: while the processor waits for it, an accelerator still has the backward pass to do.
        if not torch.isfinite(loss):
            self._report_bad_batch(inputs["indices"], loss)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        # Without clipping the norm is for the log alone, and takes as long as half an optimizer step.
        step = self.state.global_step + 1
        is_logged = step == 1 or step % self.state.logging_steps == 0
        if grad_norm is None and self.args.logging_strategy != "epoch" and not is_logged:
            return None
        return super()._get_grad_norm(model, grad_norm)

    def floating_point_ops(self, inputs) -> int:
        """0: transformers' estimate takes every pixel for a token, and counts the parameters anew at every step."""
        return 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As [`~transformers.Trainer.compute_loss`], for batches that know their clips."""
        inputs = {name: value for name, value in inputs.items() if name != "indices"}
        inputs["use_cache"] = False  # a whole sentence needs no memory of earlier steps; MBart builds one by default
        if self.optimization.freeze_batch_norm_statistics and model.training:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)

    def _save_checkpoint(self, model, trial) -> None:
        try:
            with self.throughput.paused():
                super()._save_checkpoint(model, trial)
        # A full disk is an OSError to Python, a SafetensorError to safetensors and a RuntimeError to torch.save.
        except (OSError, SafetensorError, RuntimeError) as error:
            folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            # Older checkpoints are deleted only after this one is whole, so they are still there.
            shutil.rmtree(folder, ignore_errors=True)
            raise InputError(
                f"cannot save {folder}: {error}; make room, then --resume goes on from the checkpoint before"
            ) from error

    def _issue_warnings_after_load(self, load_result):
        # Tied embeddings are saved once; what is filled from its twin is not missing.
        tied = set(self.model.all_tied_weights_keys)
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def _report_bad_batch(self, indices: torch.Tensor, loss: torch.Tensor) -> None:
        names = [self.train_dataset.ids[index] for index in indices.tolist()]
        file = Path(self.args.output_dir) / f"bad_batch_{self.args.process_index}.json"
        file.write_text(
            json.dumps({"step": self.state.global_step, "loss": str(loss.item()), "clips": names}, indent=1)
        )
        raise InputError(
            f"the loss is {loss.item()} at step {self.state.global_step}; the batch's clips are in {file}"
        )

    @torch.no_grad()
    def translate(self, dataset, description: str = "translating") -> tuple[list[str], float]:
        """Translate every clip of a dataset once, on all processes.

        Args:
            dataset ([`~torch.utils.data.Dataset`]): frames or stored features.
            description (`str`): shown by the progress bar.

        Returns:
            `tuple`: the sentences in the dataset's order, and the mean label-smoothed loss per target token.
        """
        rows = self._translate_rows(sorted_by_length(dataset), description)
        if self.args.world_size > 1:
            rows = dict(gather_object(list(rows.items())))  # the last batch may repeat clips: the dictionary keeps one
        translations = [rows[index][0] for index in range(len(dataset))]
        return translations, sum(row[1] for row in rows.values()) / max(1, sum(row[2] for row in rows.values()))

    def _translate_rows(self, ordered, description: str) -> dict[int, tuple[str, float, int]]:
        """Sentence, summed loss and target tokens of every clip this process was given."""
        self.model.eval()
        rows: dict[int, tuple[str, float, int]] = {}
        # Not `get_eval_dataloader`: with persistent workers that gives the loader of whatever was evaluated first.
        loader = self.get_test_dataloader(ordered)
        for batch in tqdm(
            loader, desc=description, leave=False, disable=not self.is_local_process_zero() or self.args.disable_tqdm
        ):
            batch = self._prepare_inputs(batch)
            indices, labels = batch.pop("indices"), batch.pop("labels")
            logits = self.model(**batch, use_cache=False).logits.float()
            losses = F.cross_entropy(
                logits.transpose(1, 2), labels, label_smoothing=self.args.label_smoothing_factor, reduction="none"
            )  # (B, L), 0 at padding
            batch.pop("decoder_input_ids")
            ids = self.model.generate(
                **batch,
                generation_config=copy.deepcopy(self.generation),
                # In shards, a process whose sentences have ended must still take part in the others' steps.
                synced_gpus=self.is_fsdp_enabled,
            )
            sentences = self.processing_class.batch_decode(ids, skip_special_tokens=True)
            counts = labels.ne(-100).sum(1).tolist()
            for index, sentence, loss, count in zip(
                indices.tolist(), sentences, losses.sum(1).tolist(), counts, strict=True
            ):
                rows[index] = (sentence, loss, count)
        return rows

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval", **_) -> dict[str, float]:
        """Translate and score a split.

        Args:
            eval_dataset ([`~torch.utils.data.Dataset`], *optional*): the dev split when absent.
            ignore_keys (`list[str]`, *optional*): unused, for transformers' signature.
            metric_key_prefix (`str`): before every figure's name.

        Returns:
            `dict[str, float]`: `PREFIX_bleu1` ... `PREFIX_bleu4`, `PREFIX_rouge_l`, `PREFIX_loss`, and so on.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        start = time.perf_counter()
        with self.throughput.paused():
            self.last_translations, loss = self.translate(dataset, description=metric_key_prefix)
            scores = self.metric.compute(predictions=self.last_translations, references=dataset.sentences)
        figures = {name: value for name, value in scores.items() if isinstance(value, int | float)}
        figures |= {"loss": loss, "runtime": round(time.perf_counter() - start, 2)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics | (self._samples(dataset, metric_key_prefix) if self.args.report_to else {}))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _samples(self, dataset, prefix: str) -> dict[str, str]:
        """Two translations as texts for the log, as a person would read them."""
        places = sample_places(self.state.global_step, len(dataset.sentences))
        pairs = [(self.last_translations[place], dataset.sentences[place]) for place in places]
        return {f"{prefix}_sample_{n}": f"{ours!r} for {true!r}" for n, (ours, true) in enumerate(pairs, start=1)}


class SortedByLength(torch.utils.data.Dataset):
    """A view of a dataset, longest clip first, so that evaluation pads little and fails at once where memory is short.

    Args:
        dataset ([`~torch.utils.data.Dataset`]): with `lengths`.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self.order = sorted(range(len(dataset)), key=lambda index: (-dataset.lengths[index], index))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict:
        return self.dataset[self.order[position]]


def sorted_by_length(dataset):
    """Wrap a dataset once.

    Args:
        dataset ([`~torch.utils.data.Dataset`]): with `lengths`, or already wrapped.

    Returns:
        [`SortedByLength`]: longest clip first; items keep their own `index`.
    """
    return dataset if isinstance(dataset, SortedByLength) else SortedByLength(dataset)


class EpochCallback(TrainerCallback):
    """Tells sampler and dataset which epoch begins, on resuming too (Accelerate does not reach a skipping sampler).

    Args:
        trainer ([`SignTranslationTrainer`]): whose parts they are.
    """

    def __init__(self, trainer: SignTranslationTrainer):
        self.trainer, self.began_at = trainer, -1

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Set the epoch that `state` is in."""
        epoch, self.began_at = int(state.epoch or 0), state.global_step
        for part in (self.trainer.train_sampler, self.trainer.train_dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def on_epoch_end(self, args, state, control, **kwargs):
        """Where an epoch had no step, its last state is scored and saved already."""
        if self.began_at == state.global_step:
            control.should_evaluate = control.should_save = control.should_log = False


def last_whole_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end; one that was not is renamed to `broken-checkpoint-STEP`."""
    whole: dict[int, Path] = {}
    for folder in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-[0-9]*"):
        if not folder.is_dir():
            continue
        state = folder / "trainer_state.json"  # the last file of a checkpoint
        try:
            whole[json.loads(state.read_text(encoding="utf-8"))["global_step"]] = folder
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            aside, number = folder.with_name(f"broken-{folder.name}"), 1
            while aside.exists():
                number += 1
                aside = folder.with_name(f"broken-{folder.name}-{number}")
            folder.rename(aside)
            print(f"{folder} was not written to its end; it is now {aside.name}", file=sys.stderr)
        except OSError as error:
            raise InputError(f"{state} cannot be read: {error.strerror}") from error
    return whole[max(whole)] if whole else None


def clean_generation_config(model: nn.Module, num_beams: int, max_new_tokens: int) -> GenerationConfig:
    """What a saved model translates with by default.

    Args:
        model ([`~modeling_fla.FlaForConditionalGeneration`]): its special token ids are kept.
        num_beams (`int`): width of the beam.
        max_new_tokens (`int`): longest translation.

    Returns:
        [`~transformers.GenerationConfig`]: token ids, beam and length; nothing else.
    """
    old = model.generation_config
    kept = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "forced_bos_token_id")
    return GenerationConfig(
        **{name: getattr(old, name, None) for name in kept}, num_beams=num_beams, max_new_tokens=max_new_tokens
    )
