"""Divergences and characteristic words of texts of which they are known."""

import random

import numpy as np
import pytest

from tilth.corpus.unigrams import characteristic_words, count_words, estimate_divergence, js_divergence, log_odds


def drawn(words, seed, texts=200, size=30):
    choose = random.Random(seed)
    return [" ".join(choose.choice(words) for _ in range(size)) for _ in range(texts)]


def test_words_are_counted_by_document():
    counted = count_words(["The cat, the DOG.", "", "Straße \u0915\u093f\u0924\u093e\u092c the"])
    assert counted.words == sorted(counted.words, key=counted.words.index)
    found = [
        {counted.words[word]: int(count) for word, count in zip(row.indices, row.data, strict=True)}
        for row in counted.counts
    ]
    assert found == [{"the": 2, "cat": 1, "dog": 1}, {}, {"strasse": 1, "\u0915\u093f\u0924\u093e\u092c": 1, "the": 1}]
    assert count_words([]).counts.shape == (0, 0)


def test_divergence_in_bits():
    assert js_divergence(np.array([3, 1]), np.array([6, 2])) == 0
    assert js_divergence(np.array([3, 0]), np.array([0, 5])) == 1
    assert js_divergence(np.array([0, 0]), np.array([1, 0])) == 1
    assert js_divergence(np.array([0]), np.array([0])) == 0
    # p = (1, 0), q = (1/2, 1/2): H(3/4, 1/4) - (H(p) + H(q)) / 2 = 0.811278 - 0.5
    assert js_divergence(np.array([2, 0]), np.array([1, 1])) == pytest.approx(0.3112781, abs=1e-7)


def test_the_estimate_of_equal_and_of_disjoint_texts():
    same = drawn(["a", "b", "c"], 0)
    found = estimate_divergence(count_words(same + same), len(same))
    assert (found["plug_in"], found["value"], found["low"]) == (0, 0, 0)
    other = estimate_divergence(count_words(same + drawn(["x", "y"], 1)), len(same))
    assert other == {"value": 1, "low": 1, "high": 1, "plug_in": 1}


def test_the_estimate_takes_out_what_chance_adds():
    words = [f"w{number}" for number in range(3000)]
    counted = count_words(drawn(words, 0) + drawn(words, 1))
    found = estimate_divergence(counted, 200)
    assert found["plug_in"] > 0.1  # 6,000 words of each, from one distribution
    assert found["low"] <= found["value"] <= found["high"] < 0.6 * found["plug_in"]
    assert found == estimate_divergence(counted, 200)


def test_the_interval_holds_the_true_divergence():
    first, second = ["a"] * 3 + ["b"], ["a"] + ["b"] * 3
    true = js_divergence(np.array([3, 1]), np.array([1, 3]))
    found = estimate_divergence(count_words(drawn(first, 3) + drawn(second, 4)), 200)
    assert found["low"] < true < found["high"] and found["high"] - found["low"] < 0.05


def test_few_documents_have_no_interval():
    found = estimate_divergence(count_words(["a b"] * 3 + ["a c"] * 30), 3)
    assert found["low"] is None and found["value"] == found["plug_in"] == pytest.approx(0.5)


def test_log_odds_of_known_counts():
    scores = log_odds(np.array([90, 10]), np.array([10, 90]))
    # Each prior is 250: (90 + 250) / (10 + 250) against (10 + 250) / (90 + 250).
    expected = 2 * np.log(340 / 260) / np.sqrt(1 / 340 + 1 / 260)
    assert scores.tolist() == pytest.approx([expected, -expected])
    assert log_odds(np.array([5, 5]), np.array([50, 50])).tolist() == [0, 0]


def test_characteristic_words():
    farm, sea = drawn(["the", "and", "soil", "plough"], 0), drawn(["the", "and", "sail"], 1)
    first, second = characteristic_words(count_words(farm + sea), len(farm))
    assert set(first) == {"soil", "plough"} and second[0] == "sail"
    assert characteristic_words(count_words(farm + farm), len(farm)) == ([], [])
    assert characteristic_words(count_words(farm), 0) == ([], [])
