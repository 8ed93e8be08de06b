"""A start for token embeddings from the corpus's own co-occurrence.

A young masked model spends its first minutes learning which words go together. Counting that is quicker: positive
pointwise mutual information within a window, factored by a truncated SVD (Levy and Goldberg 2014, "Neural Word
Embedding as Implicit Matrix Factorization"; Bullinaria and Levy 2007), gives the token table to start from.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from tilth.key import Key
from tilth.model.model import INITIAL_DEVIATION, Model
from tilth.processors import usable_processors
from tilth.tokens.shards import ShardSplit

WINDOW = 4
MAX_TOKENS = 4_000_000
MAX_WORDS = 32_768
"""Only the most frequent entries are factored; rarer ones keep their random start."""
MANY_TOKENS = 1_000_000
"""In a sample of so many, pairs of words seen once are left out: most pairs are, many by chance, and without them the
start is better and sooner made. Of a few tokens they are most of what there is (benchmarks/NOTES.md)."""
POWER_ITERATIONS, OVERSAMPLES = 3, 10
"""Of the randomised SVD: 7 found 4 % more of the association's squared sum, in float64 at three times the time."""


@torch.no_grad()
def warm_start_embeddings(model: Model, split: ShardSplit, special_ids: frozenset[int], seed: int) -> None:
    """Replace the rows of the token table that the sample has seen near others; the rest, and special tokens, stay
    random.

    The bias of a masked head starts at the logarithm of the entries' frequencies.

    Rows are scaled so that the table keeps the standard deviation of fresh weights. A pure function of (shards, seed).
    """
    tokens = sample_tokens(split, seed)
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
    association = _positive_mutual_information(tokens, words, vocab_size)
    is_known = np.diff(association.indptr) > 0
    words, association = words[is_known], association[is_known]
    rank = min(width, len(words) - 1)
    if rank < 2:
        return
    vectors = _factor(association, rank, width, seed)
    vectors *= INITIAL_DEVIATION / vectors.std()
    table = model.trunk.embeddings.tokens.weight
    table[torch.from_numpy(words)] = torch.from_numpy(vectors).to(table)


def _factor(association: Any, rank: int, width: int, seed: int) -> np.ndarray:
    """Centred vectors (words, width) from a sparse matrix (words, contexts) by truncated SVD."""
    import scipy.linalg  # noqa: F401 - the limit is that of libraries which are loaded
    from threadpoolctl import threadpool_limits

    generator = Key(seed, 0, "warm start rotation").generator()
    # One thread: another number of them rounds otherwise, and the number that training takes depends on the machine.
    with threadpool_limits(1):
        left, strength = _truncated_svd(association.astype(np.float32), rank, Key(seed, 0, "warm start").generator())
        vectors = np.zeros((association.shape[0], width))
        vectors[:, :rank] = left * np.sqrt(strength)
        vectors -= vectors.mean(0)
        # A random rotation spreads the leading directions over all dimensions, so that no attention head holds them
        # alone.
        rotation, _ = np.linalg.qr(generator.standard_normal((width, width)))
        return vectors @ rotation


def _truncated_svd(matrix: Any, rank: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The leading left singular vectors (rows, rank) and values (rank,) of a sparse matrix, largest first.

    Halko et al. 2011 ("Finding structure with randomness", algorithms 4.4 and 5.1), with LU between the iterations as
    scikit-learn has it, whose import takes as long as this, and whose products take one thread: columns are products of
    their own, so that any number of threads gives the same bits.
    """
    from scipy.linalg import lu, qr

    threads = usable_processors()
    with ThreadPoolExecutor(threads) as pool:

        def product(sparse: Any, dense: np.ndarray) -> np.ndarray:
            parts = np.array_split(dense, threads, axis=1)
            return np.concatenate(list(pool.map(lambda part: sparse @ part, parts)), axis=1)

        basis: Any = generator.standard_normal((matrix.shape[1], rank + OVERSAMPLES), dtype=np.float32)
        for _ in range(POWER_ITERATIONS):
            for way in (matrix, matrix.T):
                basis = lu(product(way, basis), permute_l=True)[0]
        basis = qr(product(matrix, basis), mode="economic")[0]
        within = product(matrix.T, basis)
    # In float32 the squares of values below 0.0002 of the first are lost: of words, the last was 0.07 of it.
    squares, directions = np.linalg.eigh((within.T @ within).astype(np.float64))
    leading = slice(None, -rank - 1, -1)
    return basis @ directions[:, leading], np.sqrt(np.maximum(squares[leading], 0))


def sample_tokens(split: ShardSplit, seed: int) -> np.ndarray:
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
    """Sparse (words, words): max(0, log p(a, b) / (p(a) p(b))), with a and b at most WINDOW tokens apart; 0 for pairs
    seen once, among many tokens.

    The contexts' p(b) is smoothed by the power 0.75 (Levy et al. 2015, section 3.2).
    """
    from scipy import sparse

    number = np.full(vocab_size + 1, -1, dtype=np.int32)
    number[words] = np.arange(len(words), dtype=np.int32)
    ids = number[tokens]

    def counted(distance: int) -> Any:
        left, right = ids[:-distance], ids[distance:]
        inside = (left >= 0) & (right >= 0)
        ones = np.ones(int(inside.sum()), dtype=np.int32)
        return sparse.coo_matrix((ones, (left[inside], right[inside])), shape=(len(words), len(words))).tocsr()

    with ThreadPoolExecutor(usable_processors()) as pool:
        ahead: Any = sum(pool.map(counted, range(1, WINDOW + 1)))
    counts = (ahead + ahead.T).tocoo()
    occurrences = np.asarray(counts.sum(0)).ravel()
    context = occurrences**0.75
    context /= max(context.sum(), 1e-12)
    information = np.log(counts.data / np.maximum(occurrences[counts.row], 1) / np.maximum(context[counts.col], 1e-12))
    least = 2 if np.count_nonzero(tokens >= 0) >= MANY_TOKENS else 1
    kept = (information > 0) & (counts.data >= least)
    return sparse.csr_matrix((information[kept], (counts.row[kept], counts.col[kept])), shape=counts.shape)
