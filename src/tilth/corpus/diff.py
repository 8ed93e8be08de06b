"""`tilth corpus diff`: what differs between two corpora."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tilth.corpus.dedupe import DIGEST_BYTES, digest
from tilth.corpus.languages import languages_of, shares
from tilth.corpus.normalise import normalised
from tilth.corpus.reader import Corpus, Document
from tilth.corpus.sample import sample_corpus
from tilth.corpus.unigrams import characteristic_words, count_words, estimate_divergence
from tilth.key import Key, draw

SHOWN, SHOWN_CHARACTERS = 3, 200
_SIZES = ("documents", "bytes", "words")


def diff_corpora(first: Corpus, second: Corpus, seed: int = 0) -> dict[str, Any]:
    """What differs between two corpora; each pair of figures is (first, second).

    documents: how many are in both, only in the first, only in the second, or `changed`: another text under an id that
    both have. Texts are compared apart from case and white space, and from what split they are in. examples: some of
    each kind, as [id, start of the text] (of `changed`, the first's). counts: records in, kept, dropped and rejected by
    reason, where they differ. sizes; settings and stages that differ; sources only in one; the
    shares of languages (None where they cannot be told); the divergence of their words (see `estimate_divergence`) and
    the words most characteristic of each (`log_odds`), the last three from a seeded sample of either.
    Memory: 24 bytes a document. Raises: TilthError when a corpus is damaged.
    """
    documents, examples = _compare(first, second, Key(seed, 0, "diff examples"))
    cards = first.card, second.card
    sampled = [sample_corpus(corpus, seed=seed) for corpus in (first, second)]
    texts = [[document.text for document in sample] for sample in sampled]
    counted = count_words(texts[0] + texts[1])
    languages = [languages_of(sample) for sample in sampled]
    return {
        "corpora": [str(first.path), str(second.path)],
        "equal": first.fingerprint == second.fingerprint,
        "documents": documents,
        "examples": examples,
        "counts": _differing(_counts(cards[0]), _counts(cards[1]), 0),
        "sizes": {
            f"{split}: {name}": [card["splits"][split][name] for card in cards]
            for split in ("train", "validation")
            for name in _SIZES
        },
        "sources": {
            "only_first": sorted(_sources(cards[0]) - _sources(cards[1])),
            "only_second": sorted(_sources(cards[1]) - _sources(cards[0])),
        },
        "settings": _differing(cards[0]["settings"], cards[1]["settings"], None),
        "stages": _differing(_stages(cards[0]), _stages(cards[1]), None),
        "languages": [None if names is None else shares(names) for names in languages],
        "divergence": estimate_divergence(counted, len(texts[0]), seed),
        "characteristic_words": list(characteristic_words(counted, len(texts[0]))),
    }


def _compare(first: Corpus, second: Corpus, key: Key) -> tuple[dict[str, int], dict[str, list[list[str]]]]:
    (digests, names), (other_digests, other_names) = _keys(first), _keys(second)
    new, other_new = ~np.isin(digests, other_digests), ~np.isin(other_digests, digests)
    changed = new.copy()
    changed[new] = np.isin(names[new], other_names[other_new])
    other_changed = other_new.copy()
    other_changed[other_new] = np.isin(other_names[other_new], names[new])
    kinds = {"only_first": new & ~changed, "only_second": other_new & ~other_changed, "changed": changed}
    counts = {"both": int((~new).sum()), **{kind: int(rows.sum()) for kind, rows in kinds.items()}}
    corpora = {"only_first": first, "only_second": second, "changed": first}
    drawn = {kind: draw(np.flatnonzero(rows).tolist(), SHOWN, key) for kind, rows in kinds.items()}
    return counts, {kind: _shown(corpora[kind], set(rows)) for kind, rows in drawn.items()}


def _keys(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Of each document a digest of its text, and 64 bits of one of its id."""
    digests, names = bytearray(), bytearray()
    for document in _documents(corpus):
        digests += digest(normalised(document.text))
        names += digest(document.id)[:8]
    # Fixed-width strings: NumPy sorts these, and compares them as the bytes they are.
    return np.frombuffer(digests, f"S{DIGEST_BYTES}"), np.frombuffer(names, "<u8")


def _documents(corpus: Corpus) -> Iterator[Document]:
    yield from corpus.documents("train")
    yield from corpus.documents("validation")


def _shown(corpus: Corpus, wanted: set[int]) -> list[list[str]]:
    shown = []
    for row, document in enumerate(_documents(corpus) if wanted else ()):
        if row in wanted:
            shown.append([document.id, " ".join(document.text[:SHOWN_CHARACTERS].split())])
            if len(shown) == len(wanted):
                break
    return shown


def _counts(card: dict[str, Any]) -> dict[str, int]:
    reasons = {f"{word}: {reason}": count for word in ("dropped", "rejected") for reason, count in card[word].items()}
    return {"in": card["in"], "kept": card["kept"], **reasons}


def _sources(card: dict[str, Any]) -> set[str]:
    return {source["source"] for source in card["sources"]}


def _stages(card: dict[str, Any]) -> dict[str, Any]:
    return {stage["name"]: f"version {stage['version']}, {stage['parameters']}" for stage in card["stages"]}


def _differing(first: dict[str, Any], second: dict[str, Any], absent: Any) -> dict[str, list[Any]]:
    """Both values of each name whose values differ."""
    pairs = {name: [first.get(name, absent), second.get(name, absent)] for name in {**first, **second}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
