"""Examples and batches: the right frames, the same every time, and padding that is marked as such."""

import copy
import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.data.test_feature_store import tiny_model
from training_fla.data.augmentation import ClipAugmentation
from training_fla.data.batching import ClipBatchSampler
from training_fla.data.collation import SignTranslationCollator
from training_fla.data.datasets import SignVideoDataset
from training_fla.data.packed_corpus import PackedCorpus
from training_fla.errors import InputError


@pytest.fixture
def videos(packed_demo, demo_processor) -> SignVideoDataset:
    return SignVideoDataset(PackedCorpus(packed_demo, "train"), demo_processor)


def test_evaluation_keeps_the_first_frame_of_every_window_and_crops_the_middle(videos):
    corpus = videos.corpus
    example = videos[4]
    kept = np.arange(0, corpus.num_frames[4], 4)
    assert torch.equal(example["pixel_values_videos"], corpus.read_frames(4, kept)[:, :, 2:30, 2:30])
    assert example["pixel_values_videos"].dtype == torch.uint8
    assert videos.lengths[4] == len(kept)


def test_a_dataset_gives_what_the_processor_gives_for_the_same_frames(videos, demo_processor):
    source = videos.corpus.read_frames(2, np.arange(videos.corpus.num_frames[2]))
    whole = demo_processor(videos=source, do_rescale=False, do_normalize=False, return_tensors="pt")
    assert torch.equal(whole["pixel_values_videos"][0], videos[2]["pixel_values_videos"])


def test_packed_frames_of_another_size_are_resized_as_the_processor_does(packed_demo, demo_processor):
    processor = copy.deepcopy(demo_processor)
    processor.video_processor.size = {"height": 40, "width": 44}
    plain = SignVideoDataset(PackedCorpus(packed_demo, "train"), processor)
    source = plain.corpus.read_frames(2, np.arange(plain.corpus.num_frames[2]))
    whole = processor(videos=source, do_rescale=False, do_normalize=False, return_tensors="pt")
    assert torch.equal(whole["pixel_values_videos"][0], plain[2]["pixel_values_videos"])
    # Training starts from the same frames: with nothing drawn, it cuts its crop out of them.
    varied = SignVideoDataset(plain.corpus, processor, augmentation=ClipAugmentation(crop_size=28, probability=0.0))
    processor.video_processor.crop_size = {"height": 40, "width": 44}
    frames, cut = plain[2]["pixel_values_videos"], varied[2]["pixel_values_videos"]
    places = [(top, left) for top in range(13) for left in range(17)]
    assert any(torch.equal(frames[..., top : top + 28, left : left + 28], cut) for top, left in places)


def test_random_choices_follow_from_seed_epoch_and_clip_alone(packed_demo, demo_processor):
    def make(seed):
        augmentation = ClipAugmentation(crop_size=28, rotate_degrees=10, probability=1.0)
        corpus = PackedCorpus(packed_demo, "train")
        return SignVideoDataset(corpus, demo_processor, augmentation=augmentation, random_frame_phase=True, seed=seed)

    one, two = make(3), make(3)
    one[7]  # an example drawn before must not matter
    one.set_epoch(5), two.set_epoch(5)
    assert torch.equal(one[1]["pixel_values_videos"], two[1]["pixel_values_videos"])
    two.set_epoch(6)
    assert not torch.equal(one[1]["pixel_values_videos"], two[1]["pixel_values_videos"])
    other = make(4)
    other.set_epoch(5)
    assert not torch.equal(one[1]["pixel_values_videos"], other[1]["pixel_values_videos"])


def test_workers_that_live_on_see_the_next_epoch(packed_demo, demo_processor):
    augmentation = ClipAugmentation(crop_size=28, probability=1.0)
    videos = SignVideoDataset(PackedCorpus(packed_demo, "train"), demo_processor, augmentation=augmentation, seed=1)
    loader = torch.utils.data.DataLoader(videos, batch_size=None, num_workers=1, persistent_workers=True)
    first = [example["pixel_values_videos"] for example in loader]
    videos.set_epoch(1)
    second = [example["pixel_values_videos"] for example in loader]
    assert torch.equal(second[0], videos[0]["pixel_values_videos"])
    assert not torch.equal(first[0], second[0])


def test_long_clips_are_thinned_evenly_before_the_stride(packed_demo, demo_processor):
    processor = copy.deepcopy(demo_processor)
    processor.video_processor.max_source_frames = 8
    videos = SignVideoDataset(PackedCorpus(packed_demo, "train"), processor)
    longest = int(np.argmax(videos.corpus.num_frames))
    kept = videos.kept(videos.corpus.num_frames[longest])
    assert len(kept) == 2 and kept[0] == 0 and kept[1] > 4


def test_a_batch_is_padded_with_zeros_and_minus_100_and_knows_its_clips(videos):
    examples = [videos[0], videos[3], videos[5]]
    batch = SignTranslationCollator(lambda labels: labels.clamp(min=0))(examples)
    lengths = [len(example["pixel_values_videos"]) for example in examples]
    assert len(set(lengths)) > 1, "the test needs clips of different lengths"
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["pixel_values_videos"].shape == (3, max(lengths), 3, 28, 28)
    assert not batch["pixel_values_videos"][batch["attention_mask"] == 0].any()
    assert batch["indices"].tolist() == [0, 3, 5]
    for row, example in zip(batch["labels"], examples, strict=True):
        assert row[row != -100].tolist() == example["labels"]


def rows_of(videos, processor, **options):
    """Rows straight from the processor, as a user's own data set makes them."""
    clips = [videos.corpus.read_frames(index, range(videos.corpus.num_frames[index])) for index in (0, 3, 5)]
    return [processor(videos=clip, text=text, **options) for clip, text in zip(clips, videos.sentences, strict=False)]


@pytest.mark.parametrize("options", [{}, {"return_tensors": "pt"}, {"return_tensors": "np"}])
def test_rows_straight_from_the_processor_are_collated(videos, demo_processor, options):
    rows = rows_of(videos, demo_processor, **options)
    batch = SignTranslationCollator(lambda labels: labels.clamp(min=0))([dict(row) for row in rows])
    assert "indices" not in batch
    assert batch["attention_mask"].sum(1).tolist() == [videos.lengths[index] for index in (0, 3, 5)]
    assert batch["pixel_values_videos"].dtype == torch.float32
    for index in range(3):
        length = batch["attention_mask"][index].sum()
        row = torch.as_tensor(np.asarray(rows[index]["pixel_values_videos"][0]))
        torch.testing.assert_close(batch["pixel_values_videos"][index, :length], row)
        assert not batch["pixel_values_videos"][index, length:].any()
        assert batch["labels"][index][batch["labels"][index] != -100].tolist() == videos[index]["labels"]


def test_padding_within_a_row_is_left_out(videos, demo_processor):
    batch = demo_processor(
        videos=[videos.corpus.read_frames(0, range(20)), videos.corpus.read_frames(0, range(9))],
        text=["ein satz", "noch ein laengerer satz"],
        return_tensors="pt",
    )
    rows = [{name: value[index] for name, value in batch.items()} for index in (1,)]
    alone = SignTranslationCollator(lambda labels: labels)(rows)
    assert alone["attention_mask"].tolist() == [[1, 1, 1]] and (alone["labels"] != -100).all()


def test_what_is_no_example_is_refused(videos, demo_processor):
    collate = SignTranslationCollator(lambda labels: labels)
    with pytest.raises(ValueError, match="needs `pixel_values_videos` or `sign_features`, got input_ids"):
        collate([{"input_ids": [1]}])
    two = {"pixel_values_videos": torch.zeros(2, 3, 3, 8, 8), "labels": [1]}
    with pytest.raises(ValueError, match=r"4 dimensions.*\(2, 3, 3, 8, 8\)"):
        collate([two])


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_plain_trainer_trains_and_evaluates(videos, demo_processor, tmp_path, smoothing):
    """transformers' own `Seq2SeqTrainer`, our model, processor and collator, nothing set that a user would not."""
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

    model = tiny_model(vocab_size=len(demo_processor.tokenizer), frozen=False)
    rows = [dict(row) for row in rows_of(videos, demo_processor)]
    args = Seq2SeqTrainingArguments(
        output_dir=tmp_path,
        per_device_train_batch_size=2,
        max_steps=30,
        learning_rate=1e-2,
        label_smoothing_factor=smoothing,
        predict_with_generate=True,
        generation_max_length=6,
        use_cpu=True,
        report_to="none",
        logging_steps=2,
        disable_tqdm=True,
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=rows[:1],
        data_collator=SignTranslationCollator(model.prepare_decoder_input_ids_from_labels),
        processing_class=demo_processor,
    )
    trainer.train()
    curve = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert curve[-1] < 0.8 * curve[0]
    assert 0 < trainer.evaluate()["eval_loss"] < curve[0]


def test_a_worker_fills_batches_where_the_process_that_trains_can_see_them(videos):
    """Its frames are the same, and in memory that is shared already, so that nothing is copied to hand them over."""
    collate = SignTranslationCollator(lambda labels: labels.clamp(min=0))

    def noting(examples):
        batch = collate(examples)
        return batch | {"was_shared": batch["pixel_values_videos"].is_shared()}

    loader = torch.utils.data.DataLoader(videos, batch_size=4, num_workers=1, collate_fn=noting)
    assert len(loader) > 1
    for number, batch in enumerate(loader):
        assert batch["was_shared"]
        here = collate([videos[index] for index in range(4 * number, min(4 * number + 4, len(videos)))])
        assert torch.equal(batch["pixel_values_videos"], here["pixel_values_videos"])
        assert batch["pixel_values_videos"].stride() == here["pixel_values_videos"].stride()


def test_targets_end_with_the_language(videos, demo_processor):
    tokenizer = demo_processor.tokenizer
    assert videos[0]["labels"][-2:] == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("de_DE")]


def test_a_target_that_is_too_long_or_empty_names_its_clip(packed_demo, demo_processor, tmp_path):
    corpus = PackedCorpus(packed_demo, "train")
    with pytest.raises(
        InputError, match=r"clip train-\d+: its sentence has \d+ tokens, more than max_target_tokens 2"
    ):
        SignVideoDataset(corpus, demo_processor, max_target_tokens=2)
    longest = max(len(demo_processor.tokenizer(text_target=text)["input_ids"]) for text in corpus.sentences)
    SignVideoDataset(corpus, demo_processor, max_target_tokens=longest)
    with pytest.raises(InputError, match=f"has {longest} tokens, more than max_target_tokens {longest - 1}"):
        SignVideoDataset(corpus, demo_processor, max_target_tokens=longest - 1)


def test_a_corpus_of_many_clips_opens_at_once_and_takes_little_memory(packed_demo, demo_processor, monkeypatch):
    """Ten clips over and over: 200,000 rows. At most 300 bytes a clip; nothing is tokenised."""
    corpus = PackedCorpus(packed_demo, "train")
    many = pa.concat_tables([corpus._read_index()] * 20_000).combine_chunks()
    monkeypatch.setattr(PackedCorpus, "_read_index", lambda self, check=False: many)
    monkeypatch.setattr(PackedCorpus, "__len__", lambda self: many.num_rows)
    monkeypatch.setattr(type(demo_processor.tokenizer), "__call__", lambda *_, **__: pytest.fail("it tokenises"))
    tracemalloc.start()
    videos = SignVideoDataset(corpus, demo_processor)
    sampler = ClipBatchSampler(videos, 8, seed=0, by_length=True)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(videos) == 8 * len(sampler) == 200_000 and used + many.nbytes < 300 * len(videos)
    assert len(pickle.dumps(videos)) < 50 * len(videos) + 200_000
    assert videos.ids[-1] == "train-00009" and videos.sentences[10] == corpus.sentences[0]
