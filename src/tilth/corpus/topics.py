"""What a corpus is about: clusters of documents that share their words.

Documents are weighted by tf-idf, brought to a hundred dimensions (latent semantic analysis, Deerwester et al. 1990,
"Indexing by Latent Semantic Analysis") and clustered by k-means, as scikit-learn's guide to clustering text does it;
the words that tell a cluster are those that `unigrams` finds characteristic of it. Where a corpus has several
languages, these tell the clusters before anything else does.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilth.corpus.sample import Sampled
from tilth.corpus.unigrams import WordCounts, log_odds
from tilth.key import Key

MOST_TOPICS, DOCUMENTS_OF_A_TOPIC = 12, 20
"""Topics: so many, and no more than there are of these documents each on average."""

FEWEST_DOCUMENTS, MOST_SHARE, MOST_WORDS = 3, 0.1, 20_000
"""Words that tell topics are in at least so many documents, in at most such a share, and no more than the last."""

DIMENSIONS, STARTS = 100, 4
SHOWN_WORDS, EXAMPLES = 10, 2


def find_topics(documents: Sequence[Sampled], counted: WordCounts, seed: int = 0) -> list[dict[str, Any]]:
    """The topics of documents, largest first; none where the documents are too few.

    counted: their words. A topic has documents and text, its shares of the documents and of their characters; words,
    the most characteristic; and examples, the documents nearest to its centre. Documents without a word that tells are
    in no topic.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    if not documents:
        return []
    chosen = _telling_words(counted)
    told = counted.counts[:, chosen]
    rows = np.flatnonzero(told.getnnz(axis=1))
    count = min(MOST_TOPICS, len(rows) // DOCUMENTS_OF_A_TOPIC)
    if count < 2 or len(chosen) <= count:
        return []
    random_state = Key(seed, 0, "topics").digest() % 2**32
    with threadpool_limits(1):  # sums of several threads differ from run to run
        weighted = TfidfTransformer(sublinear_tf=True).fit_transform(told[rows])
        dimensions = min(DIMENSIONS, len(chosen) - 1, len(rows) - 1)
        places = normalize(TruncatedSVD(dimensions, random_state=random_state).fit_transform(weighted))
        means = KMeans(count, n_init=STARTS, random_state=random_state)  # pyright: ignore[reportArgumentType]
        clusters = means.fit(places)
        distances = clusters.transform(places)
    characters = np.array([document.characters for document in documents])
    topics = []
    for cluster in range(count):
        inside = np.flatnonzero(clusters.labels_ == cluster)
        nearest = inside[np.argsort(distances[inside, cluster], kind="stable")][:EXAMPLES]
        topics.append(
            {
                "documents": len(inside) / len(documents),
                "text": float(characters[rows[inside]].sum() / characters.sum()),
                "words": _words_of(counted, chosen, rows[inside]),
                "examples": [documents[row].shown() for row in rows[nearest]],
            }
        )
    return sorted(topics, key=lambda topic: (-topic["documents"], topic["words"]))


def _telling_words(counted: WordCounts) -> np.ndarray:
    """The places of words of three letters or more that are neither rare nor, as those of grammar are, all over."""
    having = counted.counts.getnnz(axis=0)
    worded = np.array([len(word) > 2 and word.isalpha() for word in counted.words], bool)
    fit = np.flatnonzero(worded & (having >= FEWEST_DOCUMENTS) & (having <= MOST_SHARE * counted.documents))
    return np.sort(fit[np.argsort(-having[fit], kind="stable")][:MOST_WORDS])


def _words_of(counted: WordCounts, chosen: np.ndarray, rows: np.ndarray) -> list[str]:
    """The words that tell most for some documents, by how many of these and of the others have them.

    Numbers of documents, as one long document with a word of its own says little of the others.
    """
    having = counted.counts[:, chosen] > 0
    inside = np.asarray(having[rows].sum(axis=0)).ravel()
    scores = log_odds(inside, np.asarray(having.sum(axis=0)).ravel() - inside)
    return [counted.words[chosen[place]] for place in np.argsort(-scores, kind="stable")[:SHOWN_WORDS]]
