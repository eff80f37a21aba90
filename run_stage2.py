"""Stage 2, LLM fine-tuning (paper Sec. 4.3): stage 1's visual encoder, frozen, a new LLM-Adapter, a pre-trained MBart.

    python run_stage2.py recipes/demo/stage2.yaml
    accelerate launch run_stage2.py recipes/phoenix14t/stage2.yaml --stage1_checkpoint runs/phoenix14t/stage1

The first word is a recipe; `--name value` replaces one of its lines. --check only prints what the run would need,
--resume goes on after an interruption, --overwrite starts anew, --quiet shows neither progress nor notes. The folder
it leaves is for `from_pretrained` and `fla translate`.
"""

import sys

from training_fla.cli import exit_status
from training_fla.console import Done
from training_fla.recipe import Recipe, Stage2Arguments, parse_recipe


def build_processor(recipe: Recipe, splits):
    """The recipe's frames and the language model's own tokenizer; a random language model takes that of stage 1."""
    from training_fla.stages.building import make_processor
    from training_fla.training.parts import check_targets, load_tokenizer

    arguments = recipe.model
    source = recipe.text.tokenizer or arguments.language_model or arguments.stage1_checkpoint
    processor = make_processor(recipe, load_tokenizer(source))
    check_targets(processor.tokenizer, source, splits.train.sentences, arguments.stage1_checkpoint)
    return processor


def build_model(recipe: Recipe, processor):
    """Stage 1's visual encoder, frozen as the recipe says, a fresh LLM-Adapter, and the language model.

    A dataset of features takes the place of the visual encoder.
    """
    from modeling_fla import FlaForConditionalGeneration
    from training_fla.training import parts
    from training_fla.training.adapters import add_peft
    from training_fla.training.one_run import OneRunModel, add_light_t

    arguments = recipe.model
    features = parts.sign_feature_fields(recipe)
    language_model = parts.load_language_model(arguments, processor.tokenizer)
    if features:
        visual = None
    elif arguments.stage1_checkpoint:
        visual = parts.load_stage1(arguments.stage1_checkpoint)
        parts.check_same_frames(arguments.stage1_checkpoint, processor)
    else:
        visual = parts.untrained_visual_model(arguments)
    model_class = OneRunModel if arguments.one_run_light_t else FlaForConditionalGeneration
    model = model_class.from_visual_encoder_and_language_model(
        visual,
        language_model,
        input_features=arguments.input_features,
        freeze_vision_backbone=arguments.freeze_vision_backbone,
        freeze_temporal_module=arguments.freeze_temporal_module,
        adapter_hidden_size=arguments.adapter_hidden_size,
        input_embed_scale=arguments.input_embed_scale,
        **features,
    )
    if arguments.language_model and arguments.language_model == arguments.stage1_checkpoint:
        parts.continue_from(model, visual, recipe)
    if arguments.one_run_light_t:
        ids = parts.special_token_ids(processor.tokenizer)
        add_light_t(model, arguments.one_run_light_t, arguments.one_run_light_t_overrides, ids)
    if arguments.peft:
        add_peft(model, arguments.peft)
    return model


def main(argv: list[str] | None = None) -> int:
    """Run stage 2; the exit status, as of `fla`."""

    def work(words: list[str]) -> Done | int | None:
        recipe = parse_recipe(Stage2Arguments, words, __doc__)
        from training_fla.stages.run import run_stage
        from training_fla.training.parts import sign_feature_fields

        use = "fla push {} OWNER/NAME" if sign_feature_fields(recipe) else "fla translate {} VIDEO"
        return run_stage(recipe, build_processor, build_model, use.format(recipe.output_dir))

    return exit_status(work, sys.argv[1:] if argv is None else argv, prog="run_stage2.py")


if __name__ == "__main__":
    sys.exit(main())
