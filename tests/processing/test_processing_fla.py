import numpy as np
import pytest
import torch
from transformers import AutoProcessor, DataCollatorForSeq2Seq

from processing_fla import FlaProcessor, normalize_text

from .drawing import marked_frame, tiny_model, tiny_processor


@pytest.fixture(scope="module")
def processor() -> FlaProcessor:
    return tiny_processor()


@pytest.fixture(scope="module")
def videos() -> list[np.ndarray]:
    return [np.stack([marked_frame(number) for number in range(length)]) for length in (9, 4)]


def test_videos_and_sentences_become_pixels_mask_and_labels(processor, videos):
    batch = processor(videos=videos, text=["am tag regen", "schnee"], return_tensors="pt")
    assert set(batch) == {"pixel_values_videos", "attention_mask", "labels"} == set(processor.model_input_names)
    assert batch["pixel_values_videos"].shape == (2, 3, 3, 32, 32)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    tokenizer = processor.tokenizer
    end, language = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("de_DE")
    words = tokenizer.convert_tokens_to_ids(["▁am", "▁tag", "▁regen", "▁schnee"])
    assert batch["labels"].tolist() == [[*words[:3], end, language], [words[3], end, language, -100, -100]]


@pytest.mark.parametrize("return_tensors", [None, "np", "pt"])
def test_labels_of_padding_are_ignored_in_every_form(processor, videos, return_tensors):
    labels = processor(videos=videos, text=["am tag regen", "schnee"], return_tensors=return_tensors)["labels"]
    assert np.asarray(labels)[1].tolist()[-2:] == [-100, -100]


def test_videos_alone_and_text_alone(processor, videos):
    assert set(processor(videos=videos, return_tensors="pt")) == {"pixel_values_videos", "attention_mask"}
    alone = processor(text="am tag", return_tensors="pt")
    assert alone["input_ids"].tolist() == processor.tokenizer("am tag", return_tensors="pt")["input_ids"].tolist()


def test_nothing_and_unequal_numbers_are_refused(processor, videos):
    with pytest.raises(ValueError, match="Give `videos`, `text`, or both"):
        processor()
    with pytest.raises(ValueError, match="Got 2 videos, but 1 sentences"):
        processor(videos=videos, text="am tag", return_tensors="pt")


@pytest.mark.parametrize(("text", "normal"), [("ﬁn", "fin"), ("Ａｂ，１", "Ab,1"), ("u\u0308", "ü"), ("天气", "天气")])
def test_text_is_in_nfkc_before_it_is_tokenised(processor, videos, text, normal):
    assert normalize_text(text) == normal
    assert processor(text=text)["input_ids"] == processor.tokenizer(normal)["input_ids"]
    labels = processor(videos=videos, text=[text] * 2, return_tensors="pt")["labels"]
    assert labels[0].tolist() == processor.tokenizer(text_target=normal)["input_ids"]


def test_decoding_gives_clean_sentences(processor, videos):
    sentences = ["am tag regen", "im norden schnee, 12."]
    labels = processor(videos=videos, text=sentences, return_tensors="pt")["labels"]
    assert processor.batch_decode(labels) == sentences
    assert processor.batch_decode(labels.numpy()) == sentences
    assert processor.batch_decode(labels.tolist(), skip_special_tokens=True) == sentences
    generated = torch.cat([torch.full((2, 1), processor.tokenizer.convert_tokens_to_ids("de_DE")), labels], dim=1)
    assert processor.batch_decode(generated) == sentences


def test_lists_are_decoded_as_the_tokenizer_does_unless_told_otherwise(processor):
    ids = [[processor.tokenizer.convert_tokens_to_ids("▁am"), processor.tokenizer.eos_token_id]]
    assert processor.batch_decode(ids) == processor.tokenizer.batch_decode(ids) == ["am</s>"]


def test_options_reach_the_part_they_belong_to(processor, videos):
    batch = processor(
        videos=videos, text=["am", "tag"], frame_stride=1, padding="max_length", max_length=7, return_tensors="pt"
    )
    assert batch["attention_mask"].shape == (2, 9) and batch["labels"].shape == (2, 7)
    nested = processor(
        videos=videos,
        text=["am", "tag"],
        videos_kwargs={"frame_stride": 3},
        text_kwargs={"padding": True},
        return_tensors="pt",
    )
    assert nested["attention_mask"].shape == (2, 3)


def test_saving_and_loading_gives_the_same_processor(processor, videos, tmp_path):
    processor.save_pretrained(tmp_path)
    assert {"processor_config.json", "tokenizer.json", "tokenizer_config.json"} <= {
        file.name for file in tmp_path.iterdir()
    }
    for load in (FlaProcessor, AutoProcessor):
        again = load.from_pretrained(tmp_path)
        assert type(again) is FlaProcessor and again.to_dict() == processor.to_dict()
        first, second = (p(videos=videos, text=["am tag", "ﬁ 1"], return_tensors="pt") for p in (processor, again))
        assert all(torch.equal(first[name], second[name]) for name in first)


def rows(processor, lengths=(9, 4), **options) -> list[dict]:
    """Two clips of unequal length, each as a data set gives it."""
    videos = [np.stack([marked_frame(number) for number in range(length)]) for length in lengths]
    batch = processor(videos=videos, text=["ein satz", "noch ein satz"], **options)
    return [{name: batch[name][index] for name in batch} for index in range(len(lengths))]


def test_padding_rows_gives_the_batch_of_all_at_once():
    processor = tiny_processor()
    videos = [np.stack([marked_frame(number) for number in range(length)]) for length in (9, 4)]
    whole = processor(videos=videos, text=["ein satz", "noch ein satz"], return_tensors="pt")
    for options in ({}, {"return_tensors": "pt"}):  # the latter rows hold padding, which is left out
        batch = processor.pad(rows(processor, **options))
        assert batch.keys() == whole.keys()
        assert all(torch.equal(batch[name], whole[name]) for name in whole)
    fourfold = processor.pad(rows(processor), pad_to_multiple_of=4, return_tensors="np")
    assert fourfold["pixel_values_videos"].shape[:2] == fourfold["attention_mask"].shape == (2, 4)
    assert fourfold["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert fourfold["labels"].shape[1] % 4 == 0 and fourfold["labels"][0, -1] == -100
    with pytest.raises(ValueError, match="padding=True"):
        processor.pad(rows(processor), padding="max_length", max_length=20)


@pytest.mark.parametrize("options", [{}, {"do_rescale": False, "do_normalize": False}])
def test_transformers_collator_takes_the_processor(options):
    processor = tiny_processor()
    model = tiny_model(processor.tokenizer)
    batch = DataCollatorForSeq2Seq(processor, model)(rows(processor, **options))
    whole = processor.pad(rows(processor, **options))
    assert all(torch.equal(batch[name], whole[name]) for name in whole)
    assert torch.equal(batch["decoder_input_ids"], model.prepare_decoder_input_ids_from_labels(batch["labels"]))
    features = [{"sign_features": torch.rand(length, 16), "labels": [7, 2, 4]} for length in (3, 2)]
    padded = processor.pad(features)
    assert padded["sign_features"].shape == (2, 3, 16) and not padded["sign_features"][1, 2].any()
