"""Fields of transformers' Seq2SeqTrainingArguments: those with another default here, those that are refused."""

from typing import Any

# Fields of Seq2SeqTrainingArguments whose defaults are wrong for this task.
TRAINING_DEFAULTS: dict[str, Any] = {
    "label_smoothing_factor": 0.2,  # Paper: Sec. 5.2, both stages
    "lr_scheduler_type": "cosine",  # Paper: Sec. 5.2, both stages
    "max_grad_norm": 0.0,  # Unstated: neither the paper nor the systems it follows clip; transformers clips at 1.0
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the last
    "load_best_model_at_end": True,
    "metric_for_best_model": "bleu4",  # Unstated: BLEU-4 on dev, as GFSLT-VLP and TwoStream choose
    "restore_callback_states_from_checkpoint": True,  # early stopping goes on counting after --resume
    "report_to": "none",
    "logging_steps": 50,
    "logging_nan_inf_filter": False,  # a loss that is no number ends the run; the filter waits for it twice a step
    "train_sampling_strategy": "random",
    "ddp_find_unused_parameters": False,  # every trained parameter has a gradient at every step
    "ddp_broadcast_buffers": False,  # BatchNorm's statistics are equal on all processes, the others do not change
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "predict_with_generate": True,
    "remove_unused_columns": False,  # the Trainer would drop the video column
    "hub_strategy": "end",  # on every save transformers would upload whatever lies in the folder
}
# Fields of Seq2SeqTrainingArguments that cannot be changed, by what to do instead or why.
REFUSED = {
    "resume_from_checkpoint": "give --resume",
    "do_train": "a run trains, evaluates on dev and reports test",
    "do_eval": "a run trains, evaluates on dev and reports test",
    "do_predict": "a run trains, evaluates on dev and reports test",
    "predict_with_generate": "dev and test are translated clip by clip",
    "prediction_loss_only": "dev and test are translated clip by clip",
    "include_for_metrics": "dev and test are translated clip by clip",
    "eval_do_concat_batches": "dev and test are translated clip by clip",
    "eval_use_gather_object": "dev and test are translated clip by clip",
    "eval_accumulation_steps": "dev and test are translated clip by clip",
    "batch_eval_metrics": "dev and test are translated clip by clip",
    "generation_max_length": "set `max_new_tokens`",
    "generation_config": "set `generation_num_beams` and `max_new_tokens`",
    "optim": "set `optimizer`, and `momentum` or `adam_beta1` and so on",
    "optim_args": "set `optimizer`, and `momentum` or `adam_beta1` and so on",
    "optim_target_modules": "set `optimizer`, and `momentum` or `adam_beta1` and so on",
    "dataloader_drop_last": "every clip of every split is read",
    "remove_unused_columns": "the collator names its columns",
    "label_names": "the collator names its columns",
    "length_column_name": "the collator names its columns",
    "sortish_sampler": "set `train_sampling_strategy: group_by_length`",
    "auto_find_batch_size": "set `total_batch_size`, or `frames_per_batch`",
    "use_cache": "training keeps nothing of earlier steps",
    "use_liger_kernel": "it has no kernels for these models",
    "liger_kernel_config": "it has no kernels for these models",
    "neftune_noise_alpha": "the encoder reads videos, not text",
    "include_num_input_tokens_seen": "metrics.json counts frames and target tokens",
    "bf16_full_eval": "evaluation has the precision of training",
    "fp16_full_eval": "evaluation has the precision of training",
    "hub_strategy": "the model is pushed once, at the end",
    "hub_always_push": "the model is pushed once, at the end",
    "parallelism_config": "it belongs to the launcher",
    "local_rank": "it belongs to the launcher",
    "greater_is_better": "it follows `metric_for_best_model`",
}
