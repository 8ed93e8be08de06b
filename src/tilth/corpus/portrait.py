"""What a corpus looks like to a person: figures and examples that its card does not hold, told from a seeded sample."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilth.corpus.languages import languages_of, shares
from tilth.corpus.readability import reading_ease
from tilth.corpus.reader import Corpus
from tilth.corpus.sample import Sampled, sample_corpus
from tilth.corpus.topics import find_topics
from tilth.corpus.unigrams import WordCounts, characteristic_words, count_words
from tilth.key import Key

SAMPLED = 2000
"""Documents that the figures are from, so that they take seconds, whatever the corpus."""

MOST_READ = 1000
"""English documents that readability is measured on."""

HOSTS, WORDS, SOURCES, EXAMPLES = 15, 40, 6, 8
_BOUNDS = [digit * 10**power for power in range(12) for digit in (1, 3)]
"""Of lengths in characters."""

_FIRST_TOKENS = 1000
_POINTS = 40


def portrait(corpus: Corpus, seed: int = 0) -> dict[str, Any]:
    """Figures of a sample of a corpus's documents.

    sampled, of: documents in the sample and in the corpus. languages: the share of each, None where the extra
    `language` is not installed. lengths: [from, below, documents] by characters.
    readability: percentiles of `reading_ease` of English documents, None without any. vocabulary: see `heaps`. words:
    the most frequent, with their counts. characteristic_words: of each of the largest sources against all others.
    topics: see `find_topics`.
    hosts: documents by host of their address. personal: masked numbers, addresses and so on by kind, of the sample.
    examples: documents. Raises: TilthError when the corpus is damaged.
    """
    documents = sample_corpus(corpus, SAMPLED, seed)
    order = Key(seed, 0, "portrait").generator().permutation(len(documents))
    documents = [documents[place] for place in order]
    counted = count_words([document.text for document in documents])
    languages = languages_of(documents)
    hosts = Counter(document.host for document in documents if document.host)
    return {
        "sampled": len(documents),
        "of": sum(split["documents"] for split in corpus.card["splits"].values()),
        "languages": None if languages is None else shares(languages),
        "lengths": _lengths([document.characters for document in documents]),
        "readability": _readability(documents, languages),
        "vocabulary": heaps(counted),
        "words": _frequent(counted),
        "characteristic_words": _of_sources(documents),
        "topics": find_topics(documents, counted, seed),
        "hosts": [list(pair) for pair in hosts.most_common(HOSTS)],
        "hosts_in_all": len(hosts),
        "with_host": hosts.total(),
        "personal": dict(sum((_personal(document) for document in documents), Counter()).most_common()),
        "examples": [document.shown() for document in documents[:EXAMPLES]],
    }


def heaps(counted: WordCounts) -> dict[str, Any]:
    """How the vocabulary grows with the text: Heaps' law, types = K tokens^exponent (Heaps 1978, "Information
    Retrieval", 7.5), fitted by least squares on logarithms from 1,000 tokens on.

    Returns tokens, types, points of the curve as [tokens, types], and exponent and factor K, None where the text has
    too few words.
    """
    counts = counted.counts.tocsc()
    counts.sort_indices()
    first = counts.indices[counts.indptr[:-1]]  # of each word, the first document that has it
    tokens = np.cumsum(np.asarray(counted.counts.sum(axis=1)).ravel())
    types = np.cumsum(np.bincount(first, minlength=len(tokens)))
    if not len(tokens) or not tokens[-1]:
        return {"tokens": 0, "types": 0, "points": [], "exponent": None, "factor": None}
    marks = np.geomspace(min(_FIRST_TOKENS, tokens[-1]), tokens[-1], _POINTS)
    places = np.unique(np.minimum(np.searchsorted(tokens, marks), len(tokens) - 1))
    exponent = factor = None
    if len(places) >= 5:
        slope, start = np.polyfit(np.log(tokens[places]), np.log(types[places]), 1)
        exponent, factor = float(slope), float(np.exp(start))
    points = [[int(tokens[place]), int(types[place])] for place in places]
    return {
        "tokens": int(tokens[-1]),
        "types": int(types[-1]),
        "points": points,
        "exponent": exponent,
        "factor": factor,
    }


def _lengths(characters: Sequence[int]) -> list[list[int]]:
    places = np.searchsorted(_BOUNDS, characters, side="right")
    found = np.bincount(places, minlength=len(_BOUNDS) + 1)
    rows = [[low, high, int(count)] for low, high, count in zip(_BOUNDS, _BOUNDS[1:], found[1:], strict=False)]
    filled = [index for index, row in enumerate(rows) if row[2]]
    return rows[filled[0] : filled[-1] + 1] if filled else []


def _readability(documents: Sequence[Sampled], languages: Sequence[str] | None) -> dict[str, Any] | None:
    """languages: of each document; where they could not be told, nothing is known to be English."""
    english = [document for document, name in zip(documents, languages or (), strict=False) if name == "en"]
    found = [ease for document in english[:MOST_READ] if (ease := reading_ease(document.text)) is not None]
    if not found:
        return None
    values = np.percentile(found, (5, 25, 50, 75, 95)).tolist()
    return {"documents": len(found), **dict(zip(("p5", "p25", "p50", "p75", "p95"), values, strict=True))}


def _frequent(counted: WordCounts) -> list[list[Any]]:
    sums = counted.sums(slice(None))
    order = np.argsort(-sums, kind="stable")[:WORDS].tolist()
    return [[counted.words[word], int(sums[word])] for word in order]


def _of_sources(documents: Sequence[Sampled]) -> dict[str, list[str]]:
    """Of each of the sources with most documents, where there are two or more: the words most characteristic of it."""
    names = [name for name, _ in Counter(document.source for document in documents).most_common(SOURCES)]
    found = {}
    for name in names if len(names) > 1 else ():
        inside = [document.text for document in documents if document.source == name]
        outside = [document.text for document in documents if document.source != name]
        found[name] = characteristic_words(count_words(inside + outside), len(inside))[0]
    return found


def _personal(document: Sampled) -> Counter[str]:
    said = document.metadata.get("personal")
    if not isinstance(said, dict):
        return Counter()
    return Counter({str(kind): count for kind, count in said.items() if isinstance(count, int)})
