r"""How well does a language model of `fla denoise` know text it has not seen?

    python -m experiments.perplexity --model runs/phoenix_drawn/mbart-trimmed \\
        --text runs/phoenix_drawn/corpus/dev.sentences.txt --train runs/phoenix_drawn/corpus/train.sentences.txt

Perplexity a token of sentences whose spans are masked as in pre-training. Beside the model: the same without its
training, and one of Light-T's size that saw no more than the training sentences of the corpus, as Light-T does.
"""

import argparse
import json
import math
from pathlib import Path

import torch


def perplexity(model, tokenizer, sentences: list[str]) -> float:
    """Of all tokens together; the same spans are masked for every model."""
    from training_fla.training.denoising import InfillingCollator, NoisedSentences

    collator = InfillingCollator(tokenizer)
    noised = NoisedSentences(tokenizer(sentences, add_special_tokens=False)["input_ids"], seed=0)
    loss, count = 0.0, 0
    for start in range(0, len(noised), 32):
        batch = collator([noised[place] for place in range(start, min(start + 32, len(noised)))])
        tokens = int(batch["labels"].ne(-100).sum())
        with torch.no_grad():
            loss += float(model.eval()(**batch).loss) * tokens
        count += tokens
    return math.exp(loss / count)


def main(args: list[str] | None = None) -> None:
    """Measure and print one line a model, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of `fla denoise` or `fla trim`")
    parser.add_argument("--text", type=Path, required=True, help="sentences the model has not seen, one a line")
    parser.add_argument("--train", type=Path, required=True, help="training sentences of the corpus")
    parser.add_argument("--steps", type=int, default=1880, help="of the model of Light-T's size [%(default)s]")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args(args)
    from tempfile import TemporaryDirectory

    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from training_fla.tables import read_sentences
    from training_fla.training.denoising import NoisedSentences, infilling_trainer, small_mbart

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    sentences, train = read_sentences([options.text]), read_sentences([options.train])
    torch.manual_seed(0)
    models = {"pre-trained": AutoModelForSeq2SeqLM.from_pretrained(options.model, dtype=torch.float32)}
    models["not trained"] = AutoModelForSeq2SeqLM.from_config(models["pre-trained"].config)
    models["of Light-T's size"] = small_mbart(tokenizer, width=128, layers=2)
    noised = NoisedSentences(tokenizer(train, add_special_tokens=False)["input_ids"], seed=0)
    schedule = {
        "max_steps": options.steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 50,
    }
    with TemporaryDirectory() as folder:
        schedule |= {"save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
        schedule["train_sampling_strategy"] = "group_by_length"  # as the pre-trained one of docs/factorization.md
        infilling_trainer(models["of Light-T's size"], tokenizer, noised, Path(folder), schedule).train()
    found = {name: perplexity(model, tokenizer, sentences) for name, model in models.items()}
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<20} {value:10.1f}")


if __name__ == "__main__":
    main()
