import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tilth.evidence.baselines import DEFAULT_STRENGTH, STRENGTHS, features, fit_tfidf
from tilth.tasks.data import Examples, read_examples, stratified_sample

TRAIN = Examples([f"{word} film number {number}" for number in range(10) for word in ("good", "bad")], ["p", "n"] * 10)


def test_it_learns_the_word_that_decides():
    fitted = fit_tfidf(TRAIN, ["a good one", "bad again", "good"], ["n", "p"], seed=0)
    assert fitted.test_predictions.tolist() == [1, 0, 1]
    assert fitted.train_predictions.tolist() == [1, 0] * 10
    assert fitted.strength in STRENGTHS
    assert fitted.num_features == 2 + 1 + 1 + 10 + 2 + 1 + 10


def test_too_few_examples_to_cross_validate_use_the_default():
    few = TRAIN.take(range(8))
    assert fit_tfidf(few, ["good"], ["n", "p"], seed=0).strength == DEFAULT_STRENGTH


def test_spaced_text_is_seen_as_words_and_pairs_of_words():
    analyze = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b").build_analyzer()
    for text in ("A well-known, 2nd FILM!", "Über das Straßencafé: l'été 😀", "это фильм", "यह फिल्म अच्छी है"):
        assert features(text) == analyze(text)


def test_text_without_spaces_is_also_seen_as_characters():
    words, characters = ["好片", "iphone很好", "好片 iphone很好"], ["好", "片", "好片", "很", "好", "很好"]
    assert features("好片。iPhone很好") == words + characters
    assert "ดี" in features("หนังดีมาก") and "すご" in features("これはすごい")


def test_text_without_words_is_seen_as_characters():
    assert features("😀!") == [" ", "😀", "!", " ", " 😀", "😀!", "! ", " 😀!", "😀! "]
    assert features(" ") == [" ", " ", "  "]


@pytest.mark.parametrize(("good", "bad"), [("好", "坏"), ("良", "悪"), ("ดี", "แย่"), ("😀", "😡"), ("!", "?")])
@pytest.mark.parametrize("count", [4, 100])
def test_the_character_that_decides_is_found_in_text_without_spaces_or_words(good, bad, count):
    filler = np.random.default_rng(0)
    alphabet = {"ดี": "กขคงจฉ", "😀": "🎬🎥📽🍿", "!": ".,;:"}.get(good, "的一是了我不在人有他这中大来上国")

    def text(word: str) -> str:
        before, after = ("".join(filler.choice(list(alphabet), 4)) for _ in range(2))
        return before + word + after

    def examples(number: int) -> Examples:
        return Examples([text(word) for _ in range(number) for word in (good, bad)], ["p", "n"] * number)

    test = examples(50)
    fitted = fit_tfidf(examples(count), test.texts, ["n", "p"], seed=0)
    accuracy = np.mean(fitted.test_predictions == np.array([1, 0] * 50))
    assert accuracy > (0.98 if count == 100 else 0.65)


@pytest.mark.parametrize("others", [2, 7])
def test_texts_without_any_character_get_the_label_of_most(others):
    empty = Examples([""] * (10 + others), ["p"] * 10 + ["n"] * others)
    assert fit_tfidf(empty, ["", " "], ["n", "p"], seed=0).test_predictions.tolist() == [1, 1]


def test_test_texts_do_not_change_what_is_learned():
    alone = fit_tfidf(TRAIN, ["good"], ["n", "p"], seed=0)
    with_others = fit_tfidf(TRAIN, ["good", *["unheard of words"] * 50], ["n", "p"], seed=0)
    assert alone.num_features == with_others.num_features and alone.strength == with_others.strength


def test_the_baseline_is_strong_on_real_news(shared_data):
    train = stratified_sample(read_examples(shared_data / "classify" / "ag_news" / "dev.tsv"), 128, seed=0)
    test = read_examples(shared_data / "classify" / "ag_news" / "test.tsv")
    labels = train.label_names()
    fitted = fit_tfidf(train, test.texts, labels, seed=0)
    assert np.mean(fitted.test_predictions == np.array(test.label_indexes(labels))) > 0.75
