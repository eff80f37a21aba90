"""Several corpora in one run: which clips an epoch has, what a recipe may say, and that one corpus is as it was."""

import numpy as np
import pytest
import yaml

from training_fla.data.batching import ClipBatchSampler
from training_fla.data.several.corpora import SeveralCorpora, spoken_languages
from training_fla.data.several.datasets import EpochMixture, epoch_counts
from training_fla.errors import InputError
from training_fla.recipe import CorpusEntry, DataArguments, Stage1Arguments, corpus_entries, parse_recipe


@pytest.mark.parametrize(
    ("counts", "weights", "temperature", "drawn"),
    [
        ([30, 10], [1, 1], 1, [30, 10]),
        ([30, 10], [1, 3], 1, [20, 20]),
        ([90, 10], [1, 1], 2, [75, 25]),  # 3 to 1
        ([90, 10], [1, 1], 1e9, [50, 50]),
        ([97, 3], [1000, 1], 1, [99, 1]),  # never none
    ],
)
def test_corpora_are_drawn_by_weight_and_temperature(counts, weights, temperature, drawn):
    assert epoch_counts(counts, weights, temperature) == drawn


class Clips:
    def __init__(self, lengths, mixture=None):
        self.lengths, self.mixture = np.array(lengths), mixture


def test_each_clip_of_a_mixture_is_seen_equally_often_and_an_epoch_depends_on_its_number_alone():
    mixture = EpochMixture([range(0, 6), range(6, 9)], [4, 5], seed=3)
    epochs = [mixture.clips(epoch) for epoch in range(6)]
    assert [len(clips) for clips in epochs] == [9] * 6
    counts = np.bincount(np.concatenate(epochs), minlength=9)
    assert counts.tolist() == [4] * 6 + [10] * 3
    assert EpochMixture([range(0, 6), range(6, 9)], [4, 5], seed=3).clips(5).tolist() == epochs[5].tolist()


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_of_a_mixture_stay_within_a_budget_of_frames_in_every_epoch(processes):
    lengths = np.random.default_rng(0).integers(3, 30, 40)
    mixture = EpochMixture([range(0, 30), range(30, 40)], [15, 25], seed=0)
    options = {"frames_per_batch": 60, "num_processes": processes}
    shares = [ClipBatchSampler(Clips(lengths, mixture), 8, 0, process_index=n, **options) for n in range(processes)]
    for epoch in range(7):
        batches = []
        for share in shares:
            share.set_epoch(epoch)
            own = list(share)
            assert len(own) == len(share)
            batches += own
        assert sorted(clip for batch in batches for clip in batch) == sorted(mixture.clips(epoch).tolist())
        assert all(len(batch) * lengths[batch].max() <= 60 for batch in batches)


def test_without_a_mixture_the_order_is_that_of_one_corpus():
    ours, before = Clips([5] * 9), Clips([5] * 9)
    del before.mixture
    assert list(ClipBatchSampler(ours, 4, 1)) == list(ClipBatchSampler(before, 4, 1))


def test_an_entry_is_a_path_or_a_mapping():
    data = DataArguments(dataset=["data/a", {"path": "data/b", "weight": 2, "language": "zh_CN", "name": "other"}])
    first, second = corpus_entries(data)
    assert (first.path, first.name, first.weight, first.language) == ("data/a", "a", 1, None)
    assert (second.path, second.name, second.weight, second.language) == ("data/b", "other", 2, "zh_CN")
    assert corpus_entries(DataArguments(dataset="data/a")) == []


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ([], ["empty"]),
        (["x/a", "y/a"], ["a", "name"]),
        ([{"weight": 1}], ["path"]),
        ([{"path": "a", "wieght": 1}], ["wieght", "weight"]),
        ([{"path": "a", "weight": 0}], ["weight", "0"]),
        ([{"path": "a", "language": False}], ["language", "False", "quotes"]),
        ([{"path": "a b"}], ["a b", "name"]),
    ],
)
def test_a_bad_entry_is_named(dataset, words):
    with pytest.raises(InputError) as error:
        corpus_entries(DataArguments(dataset=dataset))
    assert all(word in str(error.value) for word in words)


def test_a_recipe_and_a_command_line_list_corpora(tmp_path):
    listed = [{"path": "a", "weight": 2}, "b"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"dataset": listed, "output_dir": "o"}))
    recipe = parse_recipe(Stage1Arguments, [str(tmp_path / "r.yaml")], "")
    assert recipe.data.dataset == listed
    words = ["--dataset", '[{"path": "a", "weight": 2}, "b"]', "--output_dir", "o"]
    assert parse_recipe(Stage1Arguments, words, "").data.dataset == listed
    assert parse_recipe(Stage1Arguments, ["--dataset", "a", "--output_dir", "o"], "").data.dataset == "a"
    with pytest.raises(InputError, match="sampling_temperature"):
        corpus_entries(DataArguments(dataset="a", sampling_temperature=2))
    with pytest.raises(InputError, match="sampling_temperature.*at least 1"):
        parse_recipe(Stage1Arguments, [*words, "--sampling_temperature", "0.5"], "")


def test_credentials_in_a_list_are_not_kept(tmp_path):
    words = ["--dataset", '["s3://me:secret@host/a"]', "--output_dir", "o"]
    assert parse_recipe(Stage1Arguments, words, "").resolved["dataset"] == ["s3://host/a"]


class Packed:
    """What is asked of one split of a packed folder."""

    feature_size, extractor = None, ""

    def __init__(self, folder: str, languages: list[str], size=None):
        self.folder, self.languages, self.size = folder, languages, size

    def column(self, name):
        return self.languages

    def size_before(self, video_processor):
        return self.size


def corpora(*parts: Packed, languages=(None, None), default=None) -> SeveralCorpora:
    entries = [
        CorpusEntry(part.folder, part.folder, language=code) for part, code in zip(parts, languages, strict=True)
    ]
    return SeveralCorpora(entries, parts, default)


def test_a_clip_has_the_language_of_the_entry_else_of_its_row_else_of_the_recipe():
    both = corpora(Packed("a", ["de_DE", ""]), Packed("b", ["en_XX"]), languages=(None, "zh_CN"), default="fr_XX")
    assert both.languages == [["de_DE", "fr_XX"], ["zh_CN"]]
    assert spoken_languages(both) == ["de_DE", "fr_XX", "zh_CN"]
    assert spoken_languages(corpora(Packed("a", [""]), Packed("b", [""]))) == []
    with pytest.raises(InputError, match="b does not say the language"):
        spoken_languages(corpora(Packed("a", ["de_DE"]), Packed("b", [""])))


def test_frames_go_by_the_packed_size_only_where_all_corpora_have_it():
    large, small = {"height": 72, "width": 72}, {"height": 48, "width": 48}
    assert corpora(Packed("a", [], large), Packed("b", [], large)).size_before(None) == large
    for other in (small, None):
        assert corpora(Packed("a", [], large), Packed("b", [], other)).size_before(None) is None
