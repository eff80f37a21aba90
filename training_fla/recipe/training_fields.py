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
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "predict_with_generate": True,
    "remove_unused_columns": False,  # the Trainer would drop the video column
    "hub_strategy": "end",  # on every save transformers would upload whatever lies in the folder
}
# Fields of Seq2SeqTrainingArguments that cannot be changed, by what to do instead or why.
REFUSED = {
    name: reason
    for reason, names in {
        "give --resume": "resume_from_checkpoint",
        "a run trains, evaluates on dev and reports test": "do_train do_eval do_predict",
        "dev and test are translated clip by clip": "predict_with_generate prediction_loss_only include_for_metrics "
        "eval_do_concat_batches eval_use_gather_object eval_accumulation_steps batch_eval_metrics",
        "set `max_new_tokens`": "generation_max_length",
        "set `generation_num_beams` and `max_new_tokens`": "generation_config",
        "set `optimizer`, and `momentum` or `adam_beta1` and so on": "optim optim_args optim_target_modules",
        "every clip of every split is read": "dataloader_drop_last",
        "the collator names its columns": "remove_unused_columns label_names length_column_name",
        "set `train_sampling_strategy: group_by_length`": "sortish_sampler",
        "set `total_batch_size`, or `frames_per_batch`": "auto_find_batch_size",
        "training keeps nothing of earlier steps": "use_cache",
        "it has no kernels for these models": "use_liger_kernel liger_kernel_config",
        "the encoder reads videos, not text": "neftune_noise_alpha",
        "metrics.json counts frames and target tokens": "include_num_input_tokens_seen",
        "evaluation has the precision of training": "bf16_full_eval fp16_full_eval",
        "the model is pushed once, at the end": "hub_strategy hub_always_push",
        "it belongs to the launcher": "parallelism_config local_rank",
        "it follows `metric_for_best_model`": "greater_is_better",
    }.items()
    for name in names.split()
}
