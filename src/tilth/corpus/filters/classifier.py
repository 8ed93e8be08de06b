"""A classifier of quality, learned: documents that resemble given ones are kept, as was done with curated text for
GPT-3 (Brown et al. 2020, appendix A).

Logistic regression on hashed words and pairs of words (Weinberger et al. 2009, "Feature Hashing for Large Scale
Multitask Learning") tells the given texts from a sample of the corpus. The sample holds good documents too: the score
ranks documents, it is no probability of being good.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tilth.corpus.filters.excerpt import excerpt
from tilth.corpus.filters.ranking import ranking_stage
from tilth.corpus.filters.segments import gather
from tilth.errors import UsageError
from tilth.files import fingerprint
from tilth.key import Key, draw

if TYPE_CHECKING:
    from scipy import sparse

REASONS = {"unlike": "does not resemble the texts that were given as an example"}

BITS = 18
"""Words and pairs of words fall into 2**18 features."""

EXCERPT = 6000
"""Characters of a document that its score is from, in three places; the given texts are cut into pieces so long."""

MOST = 20_000
"""Pieces of the given texts, and documents of the sample, that the classifier learns from."""

HELD_OUT = 0.2
FEWEST = 20


@dataclass(frozen=True)
class Scorer:
    """What was learned.

    weights: float32 (2**18,). auc: area under the ROC curve on held-out pieces and documents, `tested` of each: 0.5
    when nothing was learned. given_scores, sample_scores: ascending, of the given pieces and of the corpus's documents
    that were held out.
    """

    weights: np.ndarray
    bias: float
    auc: float
    given_scores: np.ndarray
    sample_scores: np.ndarray

    @property
    def tested(self) -> tuple[int, int]:
        """How many given pieces, and how many of the corpus's documents, were held out."""
        return len(self.given_scores), len(self.sample_scores)

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (texts,) from 0 to 1: how much each resembles the given texts rather than the sample."""
        return _logistic(hashed_words([excerpt(text, EXCERPT) for text in texts]), self.weights, self.bias)

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        figures = np.array([self.bias, self.auc])
        given, sample = self.given_scores, self.sample_scores
        with open(path, "wb") as file:
            np.savez(file, weights=self.weights, figures=figures, given_scores=given, sample_scores=sample)

    @classmethod
    def load(cls, path: Path) -> "Scorer":
        """The scorer that `save` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            bias, auc = saved["figures"].tolist()
            return cls(saved["weights"], bias, auc, saved["given_scores"], saved["sample_scores"])

    @property
    def fingerprint(self) -> str:
        """A hash of what decides the scores."""
        arrays = (self.weights, self.given_scores, self.sample_scores)
        return fingerprint([*(array.astype("<f8").tobytes().hex() for array in arrays), self.bias])


def fit_classifier(
    like_texts: Iterable[str],
    sample_texts: Iterable[str],
    seed: int = 0,
    contents: tuple[np.ndarray, np.ndarray] | None = None,
) -> Scorer:
    """Learn to tell the texts of `like_texts` from those of the corpus.

    sample_texts: documents of the corpus, any number; of more than `MOST`, a seeded sample is drawn as they pass. A
    fifth of the given texts (of fewer than ten: of their pieces) and of the sample is held out for `auc` and for the
    scores that thresholds are from. Equal texts and seed give equal scorers.
    contents: a number for each of the texts and of the documents, the same for those that are the same: they are then
    held out together, so that none is told by a copy that was learned from. No more than `MOST` of either.
    Raises: UsageError when there are fewer than 20 pieces or documents of either kind.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    like, origin = cut_texts(like_texts, seed)
    passing = (excerpt(text, EXCERPT) for text in sample_texts if text.strip())
    sample = draw(passing, MOST, Key(seed, 0, "like sample"))
    for name, count in (("the texts to resemble", len(like)), ("the corpus's documents", len(sample))):
        if count < FEWEST:
            raise UsageError(f"like: {name} make {count} pieces of text; {FEWEST} or more are needed to learn from")
    test = _held_out_of_both(origin, len(sample), contents, seed)
    features = hashed_words(like + sample)
    labels = np.repeat([1, 0], [len(like), len(sample)])
    with threadpool_limits(1):  # sums in one order, whatever the machine
        model = LogisticRegression(class_weight="balanced", max_iter=300).fit(features[~test], labels[~test])
    weights = model.coef_[0].astype(np.float32)
    bias = float(model.intercept_[0])
    scores = _logistic(features[test], weights, bias)
    auc = float(roc_auc_score(labels[test], scores))
    given_scores, sample_scores = (np.sort(scores[labels[test] == label]) for label in (1, 0))
    return Scorer(weights, bias, auc, given_scores, sample_scores)


def like(
    scorer: Scorer | str, keep: float | None = None, threshold: float | None = None
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that drops documents whose score is below a threshold, and adds `like_score` to the metadata.

    scorer: or the file that one was saved to. keep: the share of documents to keep, by the scores of the scorer's
    sample; threshold: the score itself.
    Raises: UsageError unless one of the two is given, from 0 to 1.
    """
    scorer = Scorer.load(Path(scorer)) if isinstance(scorer, str) else scorer
    return ranking_stage("like", "unlike", scorer.score, scorer.sample_scores, keep, threshold)


def _logistic(features: "sparse.csr_matrix", weights: np.ndarray, bias: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(features @ weights.astype(np.float64) + bias)))


def hashed_words(texts: Sequence[str]) -> "sparse.csr_matrix":
    """float64 (texts, 2**18): logarithms of counts, each row of length 1."""
    from scipy import sparse

    parts = []
    for segments in gather([text.casefold() for text in texts]):
        document = segments.words.document
        rows, columns = [document], [segments.words.hashes]
        pairs = segments.whole(2)
        rows.append(document[pairs])
        columns.append(segments.ngrams(2)[pairs])
        places = (np.concatenate(rows), (np.concatenate(columns) >> np.uint64(64 - BITS)).astype(np.int64))
        counts = sparse.coo_matrix((np.ones(len(places[0])), places), (segments.count, 2**BITS)).tocsr()
        parts.append(counts)
    features = sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, 2**BITS))
    features.data = np.log1p(features.data)
    lengths = np.sqrt(np.asarray(features.multiply(features).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.where(lengths, lengths, 1)) @ features)


def cut_texts(texts: Iterable[str], seed: int) -> tuple[list[str], np.ndarray]:
    """Pieces of the texts, of more than `MOST` a seeded sample, and which text each is from."""
    cut = (
        (index, text[start : start + EXCERPT])
        for index, text in enumerate(texts)
        for start in range(0, max(1, len(text) - EXCERPT // 4), EXCERPT)
        if text[start : start + EXCERPT].strip()
    )
    drawn = draw(cut, MOST, Key(seed, 0, "like sample"))
    origin = np.array([index for index, _ in drawn], np.int64)
    if len(np.unique(origin)) < 10:
        origin = np.arange(len(drawn))
    return [text for _, text in drawn], origin


def _held_out_of_both(
    origin: np.ndarray, documents: int, contents: tuple[np.ndarray, np.ndarray] | None, seed: int
) -> np.ndarray:
    """bool (pieces and documents,): what is held out."""
    if contents is not None and origin.max() < len(contents[0]) and documents == len(contents[1]):
        test = _held_out(np.concatenate([contents[0][origin], contents[1]]), Key(seed, 0, "both held out"))
        if all(0 < part.sum() < len(part) for part in (test[: len(origin)], test[len(origin) :])):
            return test
    groups = (origin, np.arange(documents))
    return np.concatenate([_held_out(texts, Key(seed, index, "like held out")) for index, texts in enumerate(groups)])


def _held_out(origin: np.ndarray, key: Key) -> np.ndarray:
    """bool (pieces,): a fifth of the texts that the pieces are from, at least one."""
    texts = np.unique(origin)
    chosen = key.generator().permutation(texts)[: max(1, round(HELD_OUT * len(texts)))]
    return np.isin(origin, chosen)
