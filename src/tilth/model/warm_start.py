"""A start for token embeddings from the corpus's own co-occurrence.

A young masked model spends its first minutes learning which words go together. Counting that is quicker: positive
pointwise mutual information within a window, factored by a truncated SVD (Levy and Goldberg 2014, "Neural Word
Embedding as Implicit Matrix Factorization"; Bullinaria and Levy 2007), gives the token table to start from.
"""

from typing import Any

import numpy as np
import torch

from tilth.key import Key
from tilth.model.model import INITIAL_DEVIATION, Model
from tilth.tokens.shards import ShardSplit

WINDOW = 4
MAX_TOKENS = 4_000_000
MAX_WORDS = 32_768
"""Only the most frequent entries are factored; rarer ones keep their random start."""
POWER_ITERATIONS = 3
"""Of the randomised SVD: 7 found 4 % more of the association's squared sum, in float64 at three times the time."""


@torch.no_grad()
def warm_start_embeddings(model: Model, split: ShardSplit, special_ids: frozenset[int], seed: int) -> None:
    """Replace the rows of the token table that the sample has seen; the others, and special tokens, stay random.

    The bias of a masked head starts at the logarithm of the entries' frequencies.

    Where no tokens are ever near each other there is nothing to learn from, and all rows stay.

    Rows are scaled so that the table keeps the standard deviation of fresh weights. A pure function of (shards, seed).
    """
    tokens = _sample(split, seed)
    vocab_size, width = model.config.vocab_size, model.config.table_width
    frequency = np.bincount(tokens[tokens >= 0], minlength=vocab_size)
    frequency[list(special_ids)] = 0
    speaker = model.generator or model
    if "masked" in speaker.heads:
        # The output starts at word frequencies, the best guess without context.
        speaker.heads["masked"].get_parameter("bias").copy_(
            torch.from_numpy(np.log((frequency + 1) / (frequency + 1).sum()))
        )
    words = np.sort(np.argsort(-frequency, kind="stable")[: min(MAX_WORDS, np.count_nonzero(frequency))])
    rank = min(width, len(words) - 1)
    if rank < 2:
        return
    association = _positive_mutual_information(tokens, words, vocab_size)
    if association.nnz == 0:
        return
    vectors = _factor(association, rank, width, seed)
    vectors *= INITIAL_DEVIATION / vectors.std()
    table = model.trunk.embeddings.tokens.weight
    table[torch.from_numpy(words)] = torch.from_numpy(vectors).to(table)


def _factor(association: Any, rank: int, width: int, seed: int) -> np.ndarray:
    """Centred vectors (words, width) from a sparse matrix (words, words) by truncated SVD."""
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    generator = Key(seed, 0, "warm start rotation").generator()
    # One thread: another number of them rounds otherwise, and the number that training takes depends on the machine.
    with threadpool_limits(1):
        left, strength, _ = randomized_svd(
            association.astype(np.float32), rank,
            n_iter=POWER_ITERATIONS,  # type: ignore[arg-type] - its default is a word
            random_state=Key(seed, 0, "warm start").torch_seed() % 2**32,
        )  # fmt: skip
        vectors = np.zeros((association.shape[0], width))
        vectors[:, :rank] = left * np.sqrt(strength)
        vectors -= vectors.mean(0)
        # A random rotation spreads the leading directions over all dimensions, so that no attention head holds them
        # alone.
        rotation, _ = np.linalg.qr(generator.standard_normal((width, width)))
        return vectors @ rotation


def _sample(split: ShardSplit, seed: int) -> np.ndarray:
    """Token ids of up to MAX_TOKENS from spans spread over the split; between spans and documents WINDOW times -1."""
    starts = split.document_starts
    total = int(starts[-1])
    span = 65_536
    begins = np.arange(0, total, span)
    wanted = max(1, MAX_TOKENS // span)
    if len(begins) > wanted:
        begins = np.sort(Key(seed, 0, "warm start sample").generator().choice(begins, wanted, replace=False))
    parts = []
    for begin in begins:
        end = min(begin + span, total)
        ids = split.tokens(np.array([begin]), np.array([end - begin]))
        inner = starts[(starts > begin) & (starts < end)] - begin
        parts += [np.insert(ids, np.repeat(inner, WINDOW), -1), np.full(WINDOW, -1)]
    return np.concatenate(parts)


def _positive_mutual_information(tokens: np.ndarray, words: np.ndarray, vocab_size: int):
    """Sparse (words, words): max(0, log p(a, b) / (p(a) p(b))), with a and b at most WINDOW tokens apart.

    The contexts' p(b) is smoothed by the power 0.75 (Levy et al. 2015, section 3.2).
    """
    from scipy import sparse

    number = np.full(vocab_size + 1, -1, dtype=np.int64)
    number[words] = np.arange(len(words))
    ids = number[tokens]
    counts = sparse.csr_matrix((len(words), len(words)), dtype=np.float64)
    for distance in range(1, WINDOW + 1):
        left, right = ids[:-distance], ids[distance:]
        inside = (left >= 0) & (right >= 0)
        ones = np.ones(int(inside.sum()))
        pairs = sparse.coo_matrix((ones, (left[inside], right[inside])), shape=counts.shape).tocsr()
        counts = counts + pairs + pairs.T
    counts = counts.tocoo()
    occurrences = np.asarray(counts.sum(0)).ravel()
    context = occurrences**0.75
    context /= max(context.sum(), 1e-12)
    information = np.log(counts.data / np.maximum(occurrences[counts.row], 1) / np.maximum(context[counts.col], 1e-12))
    kept = information > 0
    return sparse.csr_matrix((information[kept], (counts.row[kept], counts.col[kept])), shape=counts.shape)
