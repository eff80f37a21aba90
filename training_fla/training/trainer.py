"""Seq2SeqTrainer for sign language translation: loaders, loss, step, evaluation, in this order."""

import shutil
import signal
import time
import warnings
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object, send_to_device
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import EarlyStoppingCallback, Seq2SeqTrainer
from transformers.modeling_outputs import BaseModelOutput
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_fla.batch_norm_fla import RealFrames
from processing_fla.processing_fla import IGNORED_LABEL
from training_fla.console import progress
from training_fla.data.augmentation import take_places
from training_fla.data.batching import NO_CLIP, ClipBatchSampler, ClipLoader, FilledBatches, check_batching
from training_fla.data.worker_processes import START_METHOD
from training_fla.errors import InputError
from training_fla.recipe import OptimizationArguments
from training_fla.scoring.metric import score_dataset
from training_fla.scoring.scores import SCORE_NAMES

from .acceleration import (
    ShortWalks,
    check_sharding,
    compile_visual_encoder,
    gather,
    keep_channels_last,
    share_tied_tables,
    take_compile_options,
    without_weights,
)
from .adapters import unsaved_weights
from .callbacks import LossCheck, StoppedError, Stops, Throughput
from .checkpoints import step_of
from .optimization import build_optimizer

TIE = 1e-9  # by so much the better of two equal scores is better for transformers; the log has both as they are
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SignTranslationTrainer(Seq2SeqTrainer):
    """Trains either stage.

    `metric` scores translations against raw sentences; of several corpora each has its own. `generation` is how the
    model translates from now on, `frames_per_batch` is the most frames of a training batch, padding included, and
    `real_frames` is what the visual encoder's norms count, if they are converted. Datasets have `lengths`, `sentences`
    and `ids`; those of several corpora `parts` and, maybe, `languages`.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the tokens of the whole step

    def __init__(
        self,
        *,
        optimization: OptimizationArguments,
        metric,
        generation,
        frames_per_batch: int | None = None,
        real_frames: RealFrames | None = None,
        **kwargs,
    ):
        args = kwargs["args"]
        check_batching(args)
        compile_options = take_compile_options(args)
        args.enable_jit_checkpoint = False  # what it is for is always done, and at the end of a step
        super().__init__(**kwargs)
        self.optimization = optimization
        self.metric = metric
        self.frames_per_batch = frames_per_batch
        self.real_frames = real_frames
        self.short_walks: ShortWalks | None = None
        self.last_translations: list[str] = []
        self.dev_loader: DataLoader | None = None
        self.model.generation_config = generation
        self.model.register_load_state_dict_post_hook(forget_unsaved_weights)
        self.loss_check = LossCheck(self)
        self.stops = Stops(self)
        for callback in (Throughput(), self.loss_check, self.stops):
            self.add_callback(callback)
        if self.is_fsdp_enabled:
            check_sharding(self.accelerator, optimization)
        elif args.device.type == "cuda" and self.model.visual_encoder is not None:
            keep_channels_last(self.model.visual_encoder)
        if compile_options is not None:
            compile_visual_encoder(self.model, self.is_fsdp_enabled, **compile_options)
        if args.world_size > 1:  # the model is the same everywhere by now, its dropout is not
            torch.manual_seed(args.seed + args.process_index)

    # Loaders

    def get_train_dataloader(self) -> DataLoader:
        """Batches of equally many clips, within a budget of frames, or of a stream."""
        args = self.args
        if isinstance(self.train_dataset, IterableDataset):
            return self.make_loader(
                self.train_dataset,
                batch_size=args.train_batch_size,
                persistent_workers=args.dataloader_persistent_workers,
            )
        sampler = ClipBatchSampler(
            self.train_dataset,
            args.train_batch_size,
            args.seed if args.data_seed is None else args.data_seed,
            by_length=args.train_sampling_strategy == "group_by_length",
            frames_per_batch=self.frames_per_batch,
            accumulation=args.gradient_accumulation_steps,
            num_processes=args.world_size,
            process_index=args.process_index,
        )
        return self.make_loader(
            FilledBatches(self.train_dataset),
            batch_sampler=sampler,
            persistent_workers=args.dataloader_persistent_workers,
        )

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """This process's share of a split, longest clips first: little padding, and a lack of memory shows at once."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        order = sorted(range(len(dataset)), key=lambda index: (-dataset.lengths[index], index))
        world = self.args.world_size
        # Some clips again, so that all processes have equally many; `translate` keeps one translation of each.
        repeated = list(islice(cycle(order), -(-len(order) // world) * world))
        share = repeated[self.args.process_index :: world]
        batch_size = self.args.eval_batch_size
        # A worker that is not forked takes seconds to start, so those of dev stay until the end of the run.
        if dataset is not self.eval_dataset or self.start_method in (None, "fork"):
            return self.make_loader(dataset, batch_size=batch_size, sampler=share)
        if self.dev_loader is None:
            self.dev_loader = self.make_loader(dataset, batch_size=batch_size, sampler=share, persistent_workers=True)
        return self.dev_loader

    @property
    def start_method(self) -> str | None:
        """How workers that read clips are started; `None` where there are none."""
        args = self.args
        return (args.dataloader_multiprocessing_context or START_METHOD) if args.dataloader_num_workers else None

    def make_loader(
        self, dataset, *, batch_size=1, sampler=None, batch_sampler=None, persistent_workers=False
    ) -> ClipLoader:
        """A loader with the recipe's number of workers."""
        args = self.args
        return ClipLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            batch_sampler=batch_sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            persistent_workers=persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=self.start_method,
            worker_init_fn=ignore_sigterm,
            in_order=args.dataloader_in_order,
            pin_memory=args.dataloader_pin_memory,
            generator=torch.Generator(),  # or dropout would depend on how many loaders there were
        )

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        """As [`~transformers.Trainer.get_batch_samples`], which would begin an epoch even after the last step."""
        if self.is_finished():
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(map(self.prepare_batch, epoch_iterator), num_batches, device)

    def prepare_batch(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put a batch on this process's device, crop its frames if they are whole, and make the decoder's input.

        The collator cannot: workers that are not forked would get a copy of the model with it.

        Args:
            batch (`dict[str, torch.Tensor]`): as the collator makes it; an index of `NO_CLIP` is of a clip that does
                not count.

        Returns:
            `dict`: the batch with `decoder_input_ids` `(B, L)` and the number of frames that count; `labels` `(B, L)`
            are -100 at padding and for clips that do not count.
        """
        counts = batch["indices"][0] != NO_CLIP
        number = int((batch["positions"] < batch["attention_mask"].numel()).sum()) if counts else 0
        batch = send_to_device(batch, self.args.device, non_blocking=self.accelerator.non_blocking)
        if "places" in batch:
            clips = (batch["positions"] // batch["attention_mask"].shape[1]).clamp(max=len(batch["indices"]) - 1)
            batch["pixel_values_videos"] = take_places(batch["pixel_values_videos"], batch.pop("places"), clips)
        labels = batch["labels"]
        decoder_input_ids = self.model.prepare_decoder_input_ids_from_labels(labels)
        is_no_clip = batch["indices"][:, None] == NO_CLIP
        return batch | {
            "decoder_input_ids": decoder_input_ids,
            "labels": labels.masked_fill(is_no_clip, IGNORED_LABEL),
            "num_frames": number,
        }

    # Loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of a training batch, in either stage; the model gets no `labels`, so it computes none."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        indices = inputs.pop("indices")
        number = inputs.pop("num_frames")
        if model.training:
            self.fix_batch_norms(number)
            if self.real_frames is not None:
                self.real_frames.set(number, len(inputs["positions"]), self.args.device)
        outputs = model(**inputs)
        smoothing = self.args.label_smoothing_factor
        loss = token_loss(outputs.logits, labels, num_items_in_batch, smoothing)
        light_t_logits = getattr(outputs, "light_t_logits", None)
        if light_t_logits is not None:  # both stages are one run
            loss = loss + token_loss(light_t_logits, labels, num_items_in_batch, smoothing)
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # whose gradients are averaged
        self.loss_check.check(loss, indices)  # before the backward pass
        return (loss, outputs) if return_outputs else loss

    def fix_batch_norms(self, num_frames: int) -> None:
        """Normalise by running statistics where the recipe says so, and one frame, which has no variance."""
        is_shared = self.real_frames is not None and self.real_frames.is_shared
        if not (self.optimization.freeze_batch_norm_statistics or (num_frames == 1 and not is_shared)):
            return
        for module in self.model.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()

    # Step

    def train(self, *args, **kwargs):
        """As [`~transformers.Trainer.train`]; a checkpoint that cannot be written ends the run with one line.

        Raises:
            StoppedError: SIGTERM or a callback stopped training before its last step.
            InputError: a checkpoint cannot be written, or the loss is not a number.
        """
        if self.is_fsdp_enabled:
            self.empty_model = without_weights(self.model)
            share_tied_tables(self.model.language_model)
        # accelerate gives torch the name before `forward_sync_buffers`, which torch has from 2.13 on.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        try:
            with self.stops.noticing_sigterm():
                outcome = super().train(*args, **kwargs)
            if self.stops.is_signalled:  # too late for a step to end by it
                raise StoppedError(self.state.global_step, by_signal=True)
            return outcome
        # A full disk is an OSError to Python, a SafetensorError to safetensors and a RuntimeError to torch.save.
        except (OSError, SafetensorError, RuntimeError) as error:
            folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            if not folder.is_dir() or step_of(folder) is not None:
                raise
            # Older checkpoints are deleted only after this one is whole, so they are still there.
            shutil.rmtree(folder, ignore_errors=True)
            raise InputError(
                f"cannot save {folder}: {error}; make room, then --resume goes on from the checkpoint before"
            ) from error
        finally:
            if self.short_walks is not None:
                self.short_walks.end()
                self.short_walks = None

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Make the recipe's optimizer once."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model if model is None else model, self.optimization, self.args)
        return self.optimizer

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """As [`~transformers.Trainer.training_step`], counted; inputs `(B, ...)` in, a loss of shape `()` out."""
        self.throughput.count(inputs)
        if self.short_walks is None and type(model).zero_grad is nn.Module.zero_grad:
            self.short_walks = ShortWalks(model)
        return super().training_step(model, inputs, num_items_in_batch)

    @property
    def throughput(self) -> Throughput:
        """The callback that counts; transformers makes a new one where a run is resumed."""
        return next(c for c in self.callback_handler.callbacks if isinstance(c, Throughput))

    def _get_grad_norm(self, model, grad_norm=None):
        # Without clipping the norm is for the log alone, and takes as long as half an optimizer step.
        step = self.state.global_step + 1
        is_logged = self.args.logging_strategy == "epoch" or step == 1 or step % self.state.logging_steps == 0
        every = self.optimization.norm_logging_steps  # which need fp16's gradients without their scale
        if grad_norm is None and not is_logged and not (every and step % every == 0):
            return None
        return super()._get_grad_norm(model, grad_norm)

    def floating_point_ops(self, inputs) -> int:
        """0: transformers' estimate takes every pixel for a token, and counts the parameters anew at every step."""
        return 0

    def is_finished(self) -> bool:
        """Whether no step is left to do, as where a run resumes that was interrupted while it was scored or saved."""
        stoppers = [c for c in self.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
        stopped = any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in stoppers)
        return stopped or self.state.global_step >= self.state.max_steps

    def whole_model(self):
        """The model to save, put together where it is in shards: then the first process alone has its weights."""
        return gather(self.accelerator, self.model, self.empty_model) if self.is_fsdp_enabled else self.model

    # Evaluation

    def translate(self, dataset, description: str = "translating") -> tuple[list[str], float]:
        """Every clip's sentence in the dataset's order, and the mean smoothed loss per target token."""
        self.model.eval()
        rows: dict[int, tuple[str, float, int]] = {}
        languages = getattr(dataset, "languages", None)  # `None`: all sentences have one
        quiet = not self.is_local_process_zero() or self.args.disable_tqdm
        for batch in progress(self.get_eval_dataloader(dataset), desc=description, leave=False, disable=quiet):
            rows |= self.translate_batch(send_to_device(batch, self.args.device), languages)
        if self.args.world_size > 1:
            rows = dict(gather_object(list(rows.items())))
        translations = [rows[index][0] for index in range(len(dataset))]
        return translations, sum(row[1] for row in rows.values()) / max(1, sum(row[2] for row in rows.values()))

    @torch.no_grad()
    def translate_batch(
        self, batch: dict[str, torch.Tensor], languages: Sequence[str] | None = None
    ) -> dict[int, tuple[str, float, int]]:
        """Encode clips once, and take both their loss and their beams from there.

        Args:
            batch (`dict[str, torch.Tensor]`): of shape `(B, ...)`, as the collator makes it, on the model's device.
            languages (`Sequence[str]`, *optional*): of each clip of the dataset, where it has several.

        Returns:
            `dict[int, tuple[str, float, int]]`: place in the dataset to sentence, summed loss and target tokens.
        """
        indices, labels = batch.pop("indices"), batch.pop("labels")
        batch["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels)
        with self.accelerator.autocast():
            outputs = self.model(**batch, use_cache=False)
            ids = self.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=outputs.encoder_last_hidden_state),
                attention_mask=batch["attention_mask"],
                language=None if languages is None else [languages[index] for index in indices.tolist()],
                # In shards, a process whose sentences have ended must still take part in the others' steps.
                synced_gpus=self.is_fsdp_enabled,
            )
        logits, smoothing = outputs.logits.float().transpose(1, 2), self.args.label_smoothing_factor
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none").sum(1)  # 0 at padding
        sentences = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        counts = labels.ne(IGNORED_LABEL).sum(1)
        return dict(zip(indices.tolist(), zip(sentences, losses.tolist(), counts.tolist(), strict=True), strict=True))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval", **_) -> dict[str, float]:
        """Translate and score a split: `PREFIX_bleu1` to `PREFIX_bleu4`, `PREFIX_rouge_l`, `PREFIX_loss` and more."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        start = time.perf_counter()
        self.last_translations, loss = self.translate(dataset, description=metric_key_prefix)
        scores = score_dataset(self.metric, dataset, self.last_translations)
        parts = {
            f"{name}_{score}": of[score] for name, of in scores.get("corpora", {}).items() for score in SCORE_NAMES
        }
        figures = {name: value for name, value in (scores | parts).items() if isinstance(value, int | float)}
        figures |= {"loss": loss, "runtime": round(time.perf_counter() - start, 2)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        texts = [f"{ours!r} for {true!r}" for ours, true in self.samples(dataset)] if self.args.report_to else []
        self.log(metrics | {f"{metric_key_prefix}_sample_{n}": text for n, text in enumerate(texts, start=1)})
        metrics = self.without_ties(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def without_ties(self, metrics: dict[str, float]) -> dict[str, float]:
        """Where the metric that chooses equals the best so far, BLEU-1 and then the loss decide which is better.

        BLEU-4 of sentences of fewer than four words is always 0: otherwise the first checkpoint would stay the best.
        """
        name = f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"
        best = self.state.best_metric
        if name not in metrics or best is None:
            return metrics
        sign = 1 if self.args.greater_is_better else -1

        def rank(row: dict[str, float]) -> tuple[float, float, float]:
            return sign * row[name], row["eval_bleu1"], -row["eval_loss"]

        step = self.state.global_step
        earlier = [rank(row) for row in self.state.log_history if name in row and row["step"] < step]
        is_tie = sign * metrics[name] <= sign * best
        if is_tie and earlier and rank(metrics) > max(earlier):
            return metrics | {name: best + sign * TIE}
        return metrics

    def samples(self, dataset) -> list[tuple[str, str]]:
        """One or two of the last translations, each with its sentence: spread over a split, and others each step."""
        step, count = self.state.global_step, len(self.last_translations)
        places = sorted({step % count, (step + count // 2) % count})
        return [(self.last_translations[place], dataset.sentences[place]) for place in places]


def token_loss(
    logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch=None, smoothing: float = 0.0
) -> torch.Tensor:
    """Mean label-smoothed negative log-likelihood per target token, in nats, over the whole accumulated batch.

    Unstated: the paper says "label smoothing of 0.2"; spread over all V tokens as PyTorch does, padding left out.

    Args:
        logits (`torch.Tensor` of shape `(B, L, V)`): scores, of any floating dtype.
        labels (`torch.LongTensor` of shape `(B, L)`): the token at each place, -100 at padding.
        num_items_in_batch (`int` or `torch.LongTensor` of shape `()`, *optional*): target tokens of all micro-batches
            of the step, on all devices.
        smoothing (`float`): share of the probability that is spread, in [0, 1).

    Returns:
        `torch.FloatTensor` of shape `()`: fp32; 0 where no token counts.
    """
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), label_smoothing=smoothing, reduction="sum")
    count = labels.ne(IGNORED_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(count).clamp(min=1)


def ignore_sigterm(worker: int) -> None:
    """In a loader's worker, which a scheduler signals too: the step under way needs it; it ends with its parent."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def forget_unsaved_weights(model: nn.Module, incompatible_keys) -> None:
    """A checkpoint holds one of several tied weights, and beside LoRA no frozen ones; the others are not missing."""
    unsaved = {*model.all_tied_weights_keys, *unsaved_weights(model)}
    incompatible_keys.missing_keys[:] = [key for key in incompatible_keys.missing_keys if key not in unsaved]
