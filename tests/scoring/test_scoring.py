import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from training_fla.errors import InputError
from training_fla.scoring.conventions import ALTERNATIVES, CONVENTIONS, TextForm, convention_for
from training_fla.scoring.metric import SignTranslationMetric
from training_fla.scoring.rouge import ROUGE_VARIANTS, f_score, google_rouge_l, lcs_length, rouge_l
from training_fla.scoring.scores import (
    SCORE_NAMES,
    alternative_scores,
    compare_systems,
    corpus_scores,
    seed_intervals,
    sentence_statistics,
    signature_of,
)

VOCABULARY = [
    "der",
    "die",
    "regen",
    "wind",
    "weht",
    ".",
    ",",
    "!",
    "süden",
    "3,5",
    "grad's",
    "(",
    "x",
    ")",
    "你",
    "好",
]


def random_pairs(number: int, seed: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    pairs = ([], [])
    for _ in range(number):
        reference = draw.choices(VOCABULARY, k=draw.randint(1, 9))
        prediction = [draw.choice(VOCABULARY) if draw.random() < 0.4 else word for word in reference]
        pairs[0].append(" ".join(prediction[: draw.randint(0, 9)]))
        pairs[1].append(" ".join(reference))
    return pairs


DEGENERATE = [
    ([""], ["der wind weht morgen"]),
    (["", ""], ["der wind weht morgen", "regen"]),
    (["", "der wind weht morgen im süden"], ["regen", "der wind weht morgen im süden"]),
    (["regen"], ["regen"]),
    (["regen"], ["wind"]),
    (["der wind weht morgen"], ["der wind weht morgen"]),
    (["der wind weht"] * 3, ["der regen weht"] * 3),
    (["a b c d e"], ["a b x d e"]),
    ([". , !"], ["! , ."]),
    (["..."], ["der wind"]),
    (["der der der der der"], ["der wind"]),
    (["  der   wind  "], ["der wind "]),
    (["Der (Wind) weht: 3,5 Grad."], ["Der Wind weht: 3.5 Grad!"]),
]
CASES = DEGENERATE + [random_pairs(1 + seed % 7, seed) for seed in range(60)]


@pytest.mark.parametrize("tokenize", ["none", "13a", "zh"])
def test_bleu_is_exactly_sacrebleus(tokenize):
    form = TextForm(tokenize=tokenize)
    for predictions, references in CASES:
        scores = corpus_scores(predictions, references, form)
        for order in range(1, 5):
            metric = sacrebleu.BLEU(tokenize=tokenize, max_ngram_order=order)
            assert scores[f"bleu{order}"] == metric.corpus_score(predictions, [references]).score


def test_characters_are_scored_as_sacrebleu_scores_spaced_characters():
    form = CONVENTIONS["csl_daily"]
    predictions, references = (
        ["她 今 年 5 0 岁 。", "今天我想吃面条，好"],
        ["他今年四岁。", "今 天 我 想 吃 面 条 , 好 ！"],
    )
    spaced = [
        [" ".join("她今年50岁。"), " ".join("今天我想吃面条,好")],
        [" ".join("他今年四岁。"), " ".join("今天我想吃面条,好!")],
    ]
    expected = sacrebleu.corpus_bleu(spaced[0], [spaced[1]], tokenize="none").score
    assert corpus_scores(predictions, references, form)["bleu4"] == expected


def brute_force_lcs(first: list, second: list) -> int:
    if not first or not second:
        return 0
    if first[0] == second[0]:
        return 1 + brute_force_lcs(first[1:], second[1:])
    return max(brute_force_lcs(first[1:], second), brute_force_lcs(first, second[1:]))


short = st.lists(st.sampled_from("abc"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(first=short, second=short)
def test_lcs_and_rouge_agree_with_brute_force(first, second):
    common = brute_force_lcs(first, second)
    assert lcs_length(first, second) == lcs_length(second, first) == common
    expected = 0.0
    if common:
        precision, recall = common / len(first), common / len(second)
        expected = 100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert f_score(first, second, 1.2) == pytest.approx(expected)
    predictions, references = [" ".join(first), "a"], [" ".join(second), "a"]
    assert corpus_scores(predictions, references, TextForm())["rouge_l"] == pytest.approx((expected + 100) / 2)


@pytest.mark.parametrize("tokenize", ["none", "13a", "zh"])
def test_sums_over_sentences_give_sacrebleus_score_to_the_last_bit(tokenize):
    """Of any sentences, each any number of times, as resampling draws them."""
    form, draw = TextForm(tokenize=tokenize), np.random.default_rng(0)
    metrics = {f"bleu{order}": sacrebleu.BLEU(tokenize=tokenize, max_ngram_order=order) for order in range(1, 5)}
    for predictions, references in CASES:
        weights = draw.integers(3, size=len(references))
        drawn = [[text for text, times in zip(side, weights, strict=True) for _ in range(times)]
                 for side in (predictions, references)]  # fmt: skip
        for name, metric in (metrics | {"chrf": sacrebleu.CHRF()}).items():
            statistics, score = sentence_statistics(name, [predictions], references, form)
            assert score(statistics[0].sum(0)) == metric.corpus_score(predictions, [references]).score
            if any(weights):
                assert score(weights @ statistics[0]) == metric.corpus_score(drawn[0], [drawn[1]]).score
        statistics, score = sentence_statistics("rouge_l", [predictions], references, form)
        assert score(statistics[0].sum(0)) == corpus_scores(predictions, references, form)["rouge_l"]


def test_google_deletes_what_is_not_ascii_and_a_script_that_it_deletes_is_left_out():
    # by hand: "the cat s at" and "the cat sat": LCS 2, P = 2 / 4, R = 2 / 3
    expected = 100 * 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)
    assert google_rouge_l(["The cat s-at!", "x"], ["the cat sat", "y"]) == pytest.approx(expected / 2)
    assert google_rouge_l(["im süden"], ["im s den"]) == pytest.approx(100), "an umlaut separates words"
    for deleted in ("今 天", "привет", "안녕 하세요", "123"):
        assert google_rouge_l([deleted], [deleted]) is None
    assert "rouge_score" in alternative_scores(["im norden"], ["im süden"], "words")
    assert "rouge_score" not in alternative_scores(["今天"], ["今天"], "characters")


def test_beta_may_be_precision_over_recall():
    # by hand: LCS 2 of lengths 3 and 4; beta = P / R
    precision, recall = 2 / 3, 2 / 4
    square = (precision / recall) ** 2
    expected = 100 * (1 + square) * precision * recall / (recall + square * precision)
    assert rouge_l(["a b c"], ["a x b y"], ROUGE_VARIANTS["p_over_r"]) == pytest.approx(expected)


sentences = st.lists(st.sampled_from([*"abcde.", "Ä", "你"]), min_size=4, max_size=8).map(" ".join)
corpora = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(pairs=corpora, convention=st.sampled_from(sorted(CONVENTIONS)), seed=st.integers(0, 99))
def test_order_changes_nothing_identity_gives_100_and_scores_stay_in_range(pairs, convention, seed):
    form = CONVENTIONS[convention]

    def score(pairs):
        scores = corpus_scores([p for p, _ in pairs], [r for _, r in pairs], form)
        return {name: scores[name] for name in SCORE_NAMES}

    scores = score(pairs)
    assert all(0 <= value <= 100 + 1e-9 for value in scores.values())
    assert score(random.Random(seed).sample(pairs, len(pairs))) == pytest.approx(scores)
    references = [(r, r) for _, r in pairs if sum(c != "." for c in form.tokens(r)) >= 4]
    if references:
        assert score(references) == pytest.approx(dict.fromkeys(SCORE_NAMES, 100))


def test_phoenix14t_is_lower_case_without_the_final_period():
    form = CONVENTIONS["phoenix14t"]
    assert form.tokens("Der Wind weht . ") == ["der", "wind", "weht"]
    assert form.tokens("3 . grad") == ["3", ".", "grad"] and form.tokens(".") == []
    assert ALTERNATIVES["phoenix14t"]["with_final_period"].tokens("der wind") == ["der", "wind", "."]
    assert ALTERNATIVES["phoenix14t"]["as_given"].tokens("Der wind .") == ["der", "wind", "."]


@pytest.mark.parametrize(
    ("corpus", "references", "convention"),
    [
        ("phoenix14t", ["你好"], "phoenix14t"),
        ("demo", [], "words"),
        ("my_corpus", ["der wind", "你"], "words"),
        (None, ["今 天 OK", "好！"], "characters"),
        ("auto", ["こんにちは"], "characters"),
        ("auto", ["안녕 하세요"], "words"),
        ("auto", ["123 !"], "words"),
    ],
)
def test_own_corpora_are_scored_by_script(corpus, references, convention):
    assert convention_for(corpus, references) == convention


def test_the_signature_says_what_was_done():
    fields = dict(field.split(":", 1) for field in signature_of(CONVENTIONS["csl_daily"], "p_over_r").split("|"))
    assert fields["norm"] == "nfkc" and fields["level"] == "char" and fields["tok"] == "none"
    assert fields["rouge-l"] == "p_over_r,sentence-mean" and fields["smooth"] == "exp" and fields["refs"] == "raw"
    assert fields["sacrebleu"] == sacrebleu.__version__ and "fla-llm" in fields
    assert "case:lc|norm:no|punct:no-final-period|level:word" in signature_of(CONVENTIONS["phoenix14t"])


def test_exact_and_distinct_answers_are_counted_in_the_form_that_is_scored():
    predictions, references = ["Ja .", "ja", "nein", "ja  doch"], ["ja", "Ja.", "ja", "ja doch"]
    scores = SignTranslationMetric("phoenix14t").compute(predictions=predictions, references=references)
    assert (scores["exact_matches"], scores["distinct_predictions"], scores["distinct_references"]) == (2, 3, 3)


def test_intervals_hold_the_score_and_shrink_with_more_sentences():
    predictions, references = random_pairs(60, seed=1)
    wide = seed_intervals([predictions], references, TextForm(), samples=200)
    narrow = seed_intervals([predictions * 9], references * 9, TextForm(), samples=200)
    scores = corpus_scores(predictions, references, TextForm())
    for name in SCORE_NAMES:
        assert 0 <= wide[name][0] <= scores[name] <= wide[name][1] <= 100
        assert narrow[name][1] - narrow[name][0] < wide[name][1] - wide[name][0]
    assert seed_intervals([predictions], references, TextForm(), samples=200) == wide, "the seed decides"


def test_significance_tells_a_better_system_from_an_equal_one():
    predictions, references = random_pairs(60, seed=1)
    test = compare_systems([references], [predictions], references, TextForm(), samples=200)
    for name in ("bleu4", "rouge_l"):
        assert test[name].difference > 0 and test[name].p_value == pytest.approx(1 / 201)
        assert 0 < test[name].interval[0] < test[name].difference < test[name].interval[1]
    same = compare_systems([predictions], [predictions], references, TextForm(), samples=50)["rouge_l"]
    assert (same.difference, same.interval, same.p_value) == (0, [0, 0], 1)
    with pytest.raises(InputError, match="1 seeds .* 2"):
        compare_systems([predictions], [predictions] * 2, references, TextForm())


def test_the_metric_is_an_evaluate_metric():
    metric = SignTranslationMetric("phoenix14t")
    predictions, references = ["der Wind weht im süden", ""], ["der wind weht im norden", "regen ."]
    whole = metric.compute(predictions=predictions, references=references)
    metric.add_batch(predictions=predictions[:1], references=references[:1])
    metric.add(prediction=predictions[1], reference=references[1])
    assert metric.compute() == whole
    assert whole["num_sentences"] == 2 and whole["prediction_length"] == 5 and whole["reference_length"] == 6
    alternatives = alternative_scores(predictions, references, "phoenix14t")
    more = metric.compute(predictions=predictions, references=references, alternatives=True, intervals=True)
    assert more["alternatives"] == alternatives and more["confidence_intervals"].keys() == set(SCORE_NAMES)
    assert alternatives["with_final_period"]["bleu1"] > whole["bleu1"]
    assert {"rouge_l_p_over_r", "rouge_score", "smooth_floor0"} < alternatives.keys()
    assert SignTranslationMetric("phoenix14t", rouge="p_over_r").compute(
        predictions=predictions, references=references
    )["rouge_l"] == pytest.approx(alternatives["rouge_l_p_over_r"])


def test_the_metric_decides_by_script_and_refuses_what_it_does_not_know():
    result = SignTranslationMetric().compute(predictions=["今天"], references=["今 天"])
    assert "level:char" in result["signature"] and result["rouge_l"] == 100
    with pytest.raises(InputError, match="'klingon'.*phoenix14t, csl_daily, how2sign"):
        SignTranslationMetric("klingon")
    with pytest.raises(InputError, match="unknown ROUGE-L variant 'rouge7': known are beta1.2"):
        SignTranslationMetric(rouge="rouge7")
    with pytest.raises(InputError, match="reference 1 .*None"):
        SignTranslationMetric("words").compute(predictions=["a", "b"], references=["a", None])
    with pytest.raises(ValueError):
        SignTranslationMetric("words").compute(predictions=["a", "b"], references=["a"])


def test_a_convention_is_added_in_one_place(monkeypatch):
    monkeypatch.setitem(CONVENTIONS, "mine", TextForm(lowercase=True))
    scores = SignTranslationMetric("mine").compute(
        predictions=["Wind und Regen"], references=["wind und regen"], alternatives=True
    )
    assert scores["rouge_l"] == 100 and "smooth_floor0" in scores["alternatives"]


def test_sentences_are_gathered_over_processes(tmp_path):
    pairs = [("der wind weht heute", "der wind weht morgen"), ("regen im süden", "schnee im süden"), ("", "sonne")]

    def work(rank: int):
        # evaluate's processes meet through locked files only, so two threads stand in for two processes
        options = {"num_process": 2, "process_id": rank, "experiment_id": "test", "cache_dir": str(tmp_path)}
        metric = SignTranslationMetric("words", **options)
        for prediction, reference in pairs[rank::2]:
            metric.add(prediction=prediction, reference=reference)
        return metric.compute()

    with ThreadPoolExecutor(2) as pool:
        gathered, nothing = pool.map(work, range(2))
    whole = SignTranslationMetric("words").compute(predictions=[p for p, _ in pairs], references=[r for _, r in pairs])
    assert nothing is None
    assert {name: value for name, value in gathered.items() if name != "signature"} == pytest.approx(
        {name: value for name, value in whole.items() if name != "signature"}
    )
