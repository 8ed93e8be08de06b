import random

import numpy as np
import pyarrow as pa
import pytest

from tilth.corpus import sketch as sketch_module
from tilth.corpus.groups import join_documents
from tilth.corpus.sketch import NEAR, band_values, shingle_hashes, sketcher

WORDS = [f"w{number}" for number in range(2000)]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split(" ")
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def some_text(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def similarity(left: str, right: str) -> float:
    return len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))


@pytest.mark.parametrize("slice_bytes", [1, 400, 1_000_000])
def test_equal_shingles_and_no_others_have_equal_hashes(monkeypatch, slice_bytes):
    monkeypatch.setattr(sketch_module, "SLICE_BYTES", slice_bytes)
    texts = [some_text(seed, words) for seed, words in ((0, 300), (1, 1), (2, 4), (3, 5), (4, 6), (5, 90))]
    texts += [f"x {texts[0]}", "ä ö ü ß é ï", ""]
    found: dict[int, tuple] = {}
    counts = []
    for hashes, starts in shingle_hashes(pa.array(texts), 5):
        ends = [*starts[1:], len(hashes)]
        for start, end in zip(starts, ends, strict=True):
            words = texts[len(counts)].split(" ")
            counts.append(end - start)
            for place, value in enumerate(hashes[start:end].tolist()):
                shingle = tuple(words[place : place + 5])
                assert found.setdefault(value, shingle) == shingle
    assert counts == [max(1, len(text.split(" ")) - 4) for text in texts]
    assert len(found) == len(set().union(*map(shingles, texts)))


def test_a_sketch_is_of_the_start_of_a_document(monkeypatch):
    monkeypatch.setattr(sketch_module, "MAX_BYTES", 500)
    start = some_text(0, 300)[:499] + " "
    texts = pa.array([start + some_text(1, 50), start + some_text(2, 80)])
    first, second = band_values(sketcher(5, near=False)(pa.record_batch({"normalised": texts}))["sketch"])
    assert first.tolist() == second.tolist()


def test_the_share_of_equal_minima_is_the_similarity():
    rng = random.Random(0)
    estimates, truths = [], []
    for seed in range(300):
        left = some_text(seed, 300)
        right = " ".join(word if rng.random() > 0.03 else "other" for word in left.split(" "))
        salts = sketch_module._salts(112)
        minima = [
            sketch_module._minima(hashes, starts, salts)
            for hashes, starts in shingle_hashes(pa.array([left, right]), 5)
        ]
        both = np.concatenate(minima, axis=1)
        estimates.append((both[:, 0] == both[:, 1]).mean())
        truths.append(similarity(left, right))
    errors = np.array(estimates) - np.array(truths)
    assert abs(errors.mean()) < 3 * errors.std() / len(errors) ** 0.5
    expected = np.sqrt(np.mean([truth * (1 - truth) / 112 for truth in truths]))
    assert errors.std() == pytest.approx(expected, rel=0.15)


def test_bands_join_the_similar_and_not_the_different():
    joined = {}
    for share, changed in (("similar", 0.01), ("different", 0.2)):
        count = 0
        for seed in range(100):
            rng = random.Random(seed)
            left = some_text(seed, 400)
            right = " ".join(word if rng.random() > changed else "other" for word in left.split(" "))
            batch = sketcher(5, near=True)(pa.record_batch({"normalised": pa.array([left, right])}))
            values = band_values(batch["sketch"])[:, 8 : 8 + NEAR.bands]
            count += int(join_documents(values.T, 2)[1] == 0)
        joined[share] = count
    assert joined["similar"] >= 97  # of a similarity of 0.9
    assert joined["different"] == 0  # of 0.2


def test_components_are_named_by_their_first_document():
    bands = [np.array([7, 1, 7, 2, 3, 4], np.uint64), np.array([1, 2, 3, 4, 4, 2], np.uint64)]
    assert join_documents(bands, 6).tolist() == [0, 1, 0, 3, 3, 1]
    assert join_documents([], 3).tolist() == [0, 1, 2]
