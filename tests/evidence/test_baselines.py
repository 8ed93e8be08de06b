import numpy as np

from tilth.evidence.baselines import DEFAULT_STRENGTH, STRENGTHS, fit_tfidf
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
