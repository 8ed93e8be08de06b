import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse

from tilth.model import warm_start
from tilth.model.families import FAMILIES
from tilth.model.model import INITIAL_DEVIATION, build_model
from tilth.model.warm_start import warm_start_embeddings

VOCAB, SPECIAL = 40, frozenset({0, 1, 2})


class Split:
    """Documents as a split of shards gives them."""

    def __init__(self, documents: list[list[int]]) -> None:
        self.document_starts = np.cumsum([0, *map(len, documents)])
        self._ids = np.array(sum(documents, []))

    def tokens(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.concatenate([self._ids[s : s + n] for s, n in zip(starts, lengths, strict=True)])


def model():
    config = replace(
        FAMILIES["bert"].sizes["mini"], vocab_size=VOCAB, layers=1, width=16, heads=1, head_size=16, mlp_width=16
    )
    return build_model(FAMILIES["bert"], config, ("masked",), seed=0)


def started(documents: list[list[int]], seed: int = 0) -> torch.Tensor:
    warmed = model()
    warm_start_embeddings(warmed, Split(documents), SPECIAL, seed)
    return warmed.trunk.embeddings.tokens.weight.detach()


def two_topics() -> list[list[int]]:
    """Documents about 3..9 or about 10..16; 17 in both; 0..2 special; 18 and above never."""
    generator = np.random.default_rng(0)
    return [[0, *(generator.integers(3, 10, 20) + 7 * (number % 2)).tolist(), 17, 1] for number in range(200)]


def test_related_words_start_closer_than_unrelated_ones():
    table = F.normalize(started(two_topics()))
    near = [table[3:10] @ table[3:10].T, table[10:17] @ table[10:17].T]
    far = table[3:10] @ table[10:17].T
    off_diagonal = ~torch.eye(7, dtype=torch.bool)
    assert min(similar[off_diagonal].mean() for similar in near) > 0.5 > 0 > far.mean()
    fresh = F.normalize(model().trunk.embeddings.tokens.weight.detach())
    assert abs((fresh[3:10] @ fresh[3:10].T)[off_diagonal].mean()) < 0.2


def test_special_and_unseen_rows_stay_as_they_were():
    table, fresh = started(two_topics()), model().trunk.embeddings.tokens.weight
    assert torch.equal(table[:3], fresh[:3])
    assert torch.equal(table[18:], fresh[18:])
    assert not (table[3:18] == fresh[3:18]).any()
    assert table[3:18].std(unbiased=False).item() == pytest.approx(INITIAL_DEVIATION, rel=1e-3)
    assert table[3:18].mean(0).abs().max() < 1e-6


def test_words_near_others_but_once_stay_as_they_were_among_many(monkeypatch):
    """20 and 21 are near nothing twice."""
    documents = [*two_topics(), [20, 3], [20, 10], [21, 4]]
    assert not (started(documents)[20:22] == model().trunk.embeddings.tokens.weight[20:22]).any()
    monkeypatch.setattr(warm_start, "MANY_TOKENS", 1000)
    table, fresh = started(documents), model().trunk.embeddings.tokens.weight
    assert torch.equal(table[18:], fresh[18:])
    assert not (started([*documents, [21, 4]])[21] == fresh[21]).any()


def test_it_depends_on_the_text_and_the_seed_alone():
    table = started(two_topics())
    torch.manual_seed(9)
    np.random.seed(9)
    assert torch.equal(started(two_topics()), table)
    assert not torch.equal(started(two_topics(), seed=1), table)


def test_words_of_neighbouring_documents_are_not_related():
    """Counted within documents alone: the order of documents changes nothing but rounding."""
    documents = two_topics()
    counted = []
    for texts in (documents, documents[::2] + documents[1::2]):
        sample = warm_start.sample_tokens(Split(texts), 0)
        counted.append(warm_start._positive_mutual_information(sample, np.arange(3, 18), VOCAB).toarray())
    np.testing.assert_allclose(counted[0], counted[1], rtol=1e-9)
    assert (counted[0][:7, 7:14] == 0).all()
    assert (counted[0][:7, :7] > 0).any()


def test_the_output_starts_at_word_frequencies():
    warmed = model()
    documents = [[0, 5, 5, 5, 6, 7, 1], [0, 5, 8, 1]]
    warm_start_embeddings(warmed, Split(documents), SPECIAL, seed=0)
    shares = warmed.heads["masked"].bias.softmax(0)
    total = 7 + VOCAB
    assert shares[5].item() == pytest.approx(5 / total)
    assert shares[6].item() == pytest.approx(2 / total)
    assert shares[[0, 1, 30]].tolist() == pytest.approx([1 / total] * 3)
    unseen = model()
    warm_start_embeddings(unseen, Split([[0, 1], [1]]), SPECIAL, seed=0)
    assert unseen.heads["masked"].bias.softmax(0).tolist() == pytest.approx([1 / VOCAB] * VOCAB)


def test_text_without_pairs_leaves_the_table_alone():
    fresh = model().trunk.embeddings.tokens.weight
    for documents in ([[5], [6], [7], [8]], [[5, 5, 5, 5]]):
        assert torch.equal(started(documents), fresh)


def test_a_long_text_is_sampled(monkeypatch):
    monkeypatch.setattr(warm_start, "MAX_TOKENS", 3 * 65_536)
    generator = np.random.default_rng(1)
    documents = [generator.integers(3, 17, 30_000).tolist() for _ in range(12)]
    sample = warm_start.sample_tokens(Split(documents), 0)
    assert 2 * 65_536 < (sample >= 0).sum() <= 3 * 65_536
    assert (sample == warm_start.sample_tokens(Split(documents), 0)).all()
    assert not np.array_equal(sample, warm_start.sample_tokens(Split(documents), 1))


FACTORED = """
from hashlib import sha256
from scipy import sparse
from tilth.model import warm_start
association = sparse.random(3000, 3000, density=0.02, random_state=0, format="csr")
print(sha256(warm_start._factor(association, 256, 256, seed=0)).hexdigest())
"""


def test_the_number_of_threads_changes_nothing():
    """In processes of their own: what limits the threads of a library must come after it is loaded."""
    found = []
    for threads in ("1", "2"):
        env = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", FACTORED], env=env, capture_output=True, text=True, check=True)
        found.append(done.stdout)
    assert found[0] == found[1] and len(found[0].strip()) == 64


def test_the_truncated_svd_is_that_of_numpy(monkeypatch):
    generator = np.random.default_rng(0)
    dense = generator.standard_normal((120, 6)) @ np.diag([40, 30, 20, 10, 5, 2]) @ generator.standard_normal((6, 90))
    dense[np.abs(dense) < 20] = 0
    matrix = sparse.csr_matrix(dense.astype(np.float32))
    expected, strength, _ = np.linalg.svd(matrix.toarray())
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(warm_start, "usable_processors", lambda threads=threads: threads)
        found.append(warm_start._truncated_svd(matrix, 4, np.random.default_rng(1)))
    left, values = found[0]
    np.testing.assert_allclose(values, strength[:4], rtol=1e-4)
    np.testing.assert_allclose(np.abs((left * expected[:, :4]).sum(0)), 1, atol=1e-3)
    for one, three in zip(*found, strict=True):
        assert (one == three).all()
