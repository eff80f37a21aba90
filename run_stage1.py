"""Stage 1, visual initialing (paper Sec. 4.2): train visual encoder, VL-Adapter and Light-T from videos and sentences.

    python run_stage1.py recipes/demo/stage1.yaml
    accelerate launch --config_file recipes/accelerate/two_gpus.yaml run_stage1.py recipes/phoenix14t/stage1.yaml

The first word is a recipe; `--name value` replaces one of its lines. --check only prints what the run would need,
--resume goes on after an interruption, --overwrite starts anew, --quiet shows neither progress nor notes.
Next: run_stage2.py --stage1_checkpoint OUTPUT_DIR.
"""

import sys

from training_fla.cli import exit_status
from training_fla.console import Done
from training_fla.errors import InputError
from training_fla.recipe import Recipe, Stage1Arguments, parse_recipe, stage2_words


def build_processor(recipe: Recipe, splits):
    """The recipe's frames and the tokenizer of the language model that stage 2 will use (paper Sec. 4.2)."""
    from processing_fla import train_tokenizer
    from training_fla.data.several.corpora import spoken_languages
    from training_fla.stages.building import make_processor
    from training_fla.training.parts import check_targets, default_first, load_tokenizer

    pieces, text = recipe.model.train_tokenizer_pieces, recipe.text
    if not pieces:
        tokenizer = load_tokenizer(text.tokenizer)
        check_targets(tokenizer, text.tokenizer, splits.train.sentences)
        return make_processor(recipe, tokenizer)
    if text.tokenizer:
        raise InputError("the recipe names a `tokenizer` and `train_tokenizer_pieces`: give one of the two")
    codes = default_first(spoken_languages(splits.train), text.language_code) or [text.language_code]
    if codes == [None]:
        raise InputError("`train_tokenizer_pieces` needs a `language_code`, e.g. en_XX")
    tokenizer = train_tokenizer(splits.train.sentences, vocab_size=pieces, language_codes=codes)
    return make_processor(recipe, tokenizer)


def build_model(recipe: Recipe, processor):
    """ImageNet ResNet18 or another model's encoder, fresh temporal module, VL-Adapter and Light-T (paper Sec. 5.2)."""
    from modeling_fla import FlaConfig, FlaForConditionalGeneration, load_imagenet_weights
    from processing_fla.tokenization_fla import set_start_tokens
    from training_fla.loading import loading
    from training_fla.training import parts

    arguments = recipe.model
    parts.check_fields({"model_type": "mbart"} | arguments.light_t_overrides, "light_t_overrides")
    start = parts.load_stage1(arguments.stage1_checkpoint) if arguments.stage1_checkpoint else None
    config = FlaConfig.light_t(
        arguments.light_t,
        vocab_size=len(processor.tokenizer),
        vision_config=start.visual_encoder.config if start else parts.vision_config(arguments),
        **parts.special_token_ids(processor.tokenizer),
        **arguments.light_t_overrides,
    )
    config.adapter_hidden_size = arguments.adapter_hidden_size
    model = FlaForConditionalGeneration(config)
    set_start_tokens(model, processor.tokenizer)
    if arguments.imagenet_weights:
        with loading(arguments.imagenet_weights, "ImageNet weights"):
            load_imagenet_weights(model, arguments.imagenet_weights)
    if start:
        recipe.start |= parts.start_from(model, start, arguments.stage1_checkpoint, processor)
    return model


def main(argv: list[str] | None = None, stage2: tuple[str, ...] = ("python", "run_stage2.py")) -> int:
    """Run stage 1; the exit status, as of `fla`. The next command begins with `stage2`."""

    def work(words: list[str]) -> Done | int | None:
        recipe = parse_recipe(Stage1Arguments, words, __doc__)
        from training_fla.stages.launch import one_process
        from training_fla.stages.run import run_stage

        next_command = one_process([*stage2, *stage2_words(recipe, words[0])])
        return run_stage(recipe, build_processor, build_model, next_command)

    return exit_status(work, sys.argv[1:] if argv is None else argv, prog="run_stage1.py")


if __name__ == "__main__":
    sys.exit(main())
