"""Does translating from features cost more than the bare language model's own `generate`?

    python -m benchmarks.generation [--quick] [--batch-size 8] [--repeats 5] [--json]        five minutes on two cores

Beam 5, 40 new tokens, eight videos of PHOENIX14T's lengths, MBart-large's shapes with a trimmed vocabulary, random
weights, fp32. The bare model is given the embeddings our adapter makes, so both must give the same tokens. In turn,
medians. Limit: 1.10 times.
"""

import argparse
import sys

import torch
from transformers import MBartConfig

from modeling_fla import FlaConfig, FlaForConditionalGeneration

LIMIT = 1.10
LENGTHS = (49, 38, 33, 29, 26, 23, 19, 15)
OPTIONS = {"num_beams": 5, "min_new_tokens": 40, "max_new_tokens": 40, "do_sample": False}


def make_model(quick: bool) -> FlaForConditionalGeneration:
    """MBart-large behind the visual encoder; a tenth of it for a quick look."""
    size = {"d_model": 256, "encoder_layers": 2, "decoder_layers": 2} if quick else {"d_model": 1024}
    text_config = MBartConfig(vocab_size=2429, decoder_start_token_id=4, **size)
    return FlaForConditionalGeneration(FlaConfig(text_config=text_config)).eval()


def make_works(model: FlaForConditionalGeneration, lengths: tuple[int, ...]) -> dict:
    """Ours from features, and the bare language model from the embeddings the adapter makes of them."""
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
    features = torch.rand(*mask.shape, model.config.adapter_input_size) * mask.unsqueeze(-1)
    with torch.no_grad():
        sign_embeds = model.adapter(features) * model.config.input_embed_scale
    works = {
        "bare": lambda: model.language_model.generate(inputs_embeds=sign_embeds, attention_mask=mask, **OPTIONS),
        "ours": lambda: model.generate(sign_features=features, attention_mask=mask, **OPTIONS),
    }
    if not torch.equal(works["bare"](), works["ours"]()):
        raise AssertionError("ours and the bare language model give different tokens")
    return works


def main(args: list[str] | None = None) -> int:
    """Measure and print; 1 where the limit is exceeded."""
    from benchmarks.measuring import ratio_of_medians, report, seconds_in_turn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8, help="videos, 1 to 8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small model: to see that it runs, not to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(args)
    torch.manual_seed(0)
    works = make_works(make_model(options.quick), LENGTHS[: options.batch_size])
    seconds = seconds_in_turn(works, options.repeats)
    rows = [("beam-5 generate / bare language model", ratio_of_medians(seconds, "ours", "bare"), LIMIT)]
    return report(rows, " x", options.json, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
