"""`tilth corpus match`: how near a corpus is to the text of a task, and which part of it is nearest.

Gururangan et al. 2020, "Don't Stop Pretraining", found that pre-training on more text of a task's domain helps most
where the domain is far from what a model has read, and that text chosen as the nearest to the task's helps more than
text of the domain at random. Everything here but the selection is told from a seeded sample. What is nearest is told by
neighbours (`filters.nearest`), not by the classifier that tells the two apart: see there.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tilth.corpus.build import build_corpus
from tilth.corpus.filters.classifier import EXCERPT, fit_classifier
from tilth.corpus.filters.nearest import fit_neighbours
from tilth.corpus.likeness import read_examples
from tilth.corpus.reader import Corpus
from tilth.corpus.sample import SAMPLED, Sampled, sample_corpus
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.unigrams import count_words, estimate_divergence
from tilth.errors import UsageError
from tilth.key import Key, draw

VOCABULARY = 10_000
"""Most frequent words of the corpus that the task's words are looked up in, as many as Gururangan et al. take."""

FEW_TEXTS = 100
"""Texts of a task below which they are cut into pieces: a novel is one text, but not one example."""

RESAMPLES = 200
SHOWN, SHOWN_CHARACTERS, FEWEST_OF_A_HOST = 5, 300, 5
NEAR_PART = 0.2
"""Share of the documents that counts as the nearest part, in what is said of sources and hosts."""

_DISTANCES = ((0.6, "hardly to be told from"), (0.8, "near to"), (0.95, "some way from"), (1.1, "far from"))
"""What an AUC below a limit is called: a convention, for people."""


def match_corpus(
    corpus: Corpus,
    to: str,
    *,
    text_column: str | None = None,
    nearest: float | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """How near a corpus is to a task's text, by words and by a classifier, and which of its documents are nearest.

    to: a file, folder or glob of any format that a source may have; a corpus too. text_column: of its tables and JSON
    records, where it has no usual name. nearest: the share of the documents, in (0, 1), that a new corpus in `out` is
    made of. overwrite: see `build_corpus`.

    Returns vocabulary (shares of the task's word tokens and types that are among the corpus's `VOCABULARY` most
    frequent words), divergence (see `estimate_divergence`; `task_halves` is that of the task's text from itself),
    two_sample (see `_two_sample`), sources and hosts by the mean nearness of their documents, nearest and farthest
    documents, a verdict in one sentence, and, with `out`, what was selected.
    Raises: UsageError for wrong arguments and fewer than 20 texts, TilthError when the corpus is damaged.
    """
    if (nearest is None) != (out is None):
        raise UsageError("--nearest says how much to select and --out where to put it: give both, or neither")
    if nearest is not None and not 0 < nearest < 1:
        raise UsageError(f"--nearest is {nearest:.3g}: give a share between 0 and 1, such as 20%")
    texts = draw(read_examples([to], text_column, "--to"), SAMPLED, Key(seed, 0, "task sample"))
    if not texts:
        raise UsageError(f"--to: there is no text in {to}")
    documents = sample_corpus(corpus, seed=seed)
    scorer = fit_neighbours(texts, (document.text for document in documents), seed)
    scores = scorer.score([document.text for document in documents])
    pieces = _pieces(texts)
    counted = count_words([*pieces, *(document.text for document in documents)])
    result: dict[str, Any] = {
        "corpus": str(corpus.path),
        "to": to,
        "sampled": {"documents": len(documents), "texts": len(texts)},
        "vocabulary": _vocabulary(counted.sums(slice(len(pieces))), counted.sums(slice(len(pieces), None))),
        "divergence": estimate_divergence(counted, len(pieces), seed),
        "task_halves": _halves(pieces, seed),
        "two_sample": _two_sample(pieces, [document.text for document in documents], seed),
        "sources": _groups(documents, scores, [document.source for document in documents], 1),
        "hosts": _groups(documents, scores, [document.host for document in documents], FEWEST_OF_A_HOST)[:20],
        "nearest": _shown(documents, scores, np.argsort(-scores, kind="stable")),
        "farthest": _shown(documents, scores, np.argsort(scores, kind="stable")),
    }
    if nearest is not None and out is not None:
        result["selected"] = _select(corpus, to, text_column, nearest, out, overwrite, progress)
    return {**result, "verdict": _verdict(result)}


def _pieces(texts: Sequence[str]) -> list[str]:
    """Each text's start, or of few texts all pieces, none longer than what is kept of a document of the corpus."""
    if len(texts) >= FEW_TEXTS:
        return [text[:EXCERPT] for text in texts]
    return [text[start : start + EXCERPT] for text in texts for start in range(0, max(1, len(text)), EXCERPT)]


def _vocabulary(task: np.ndarray, corpus: np.ndarray) -> dict[str, Any]:
    """task, corpus: int64 (words,), how often each word occurs."""
    order = np.argsort(-corpus, kind="stable")[:VOCABULARY]
    frequent = order[corpus[order] > 0]
    found = task[frequent]
    tokens = float(found.sum() / max(1, task.sum()))
    types = float((found > 0).sum() / max(1, (task > 0).sum()))
    return {"tokens": tokens, "types": types, "size": len(frequent)}


def _halves(pieces: Sequence[str], seed: int) -> float | None:
    """The divergence of two random halves of the task's own text: about what text of the same kind would show."""
    if len(pieces) < 20:
        return None
    order = Key(seed, 0, "task halves").generator().permutation(len(pieces))
    counted = count_words([pieces[int(place)] for place in order])
    return estimate_divergence(counted, len(pieces) // 2, seed)["value"]


def _two_sample(task: Sequence[str], corpus: Sequence[str], seed: int) -> dict[str, Any]:
    """A classifier two-sample test (Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests").

    How well a classifier tells held-out texts of the two apart: the area under its ROC curve and its accuracy, both
    kinds weighing the same, with 95 % bootstrap intervals over the `tested` texts; 0.5 is chance. Texts are cut so that
    the two have equal distributions of length, which would give them away.
    """
    generator = Key(seed, 0, "two samples").generator()
    numbers: dict[str, int] = {}
    contents = [np.array([numbers.setdefault(text, len(numbers)) for text in texts]) for texts in (task, corpus)]
    spans = _spans(task, corpus, generator), _spans(corpus, task, generator)
    scorer = fit_classifier(*spans, seed, contents=(contents[0], contents[1]))
    given, sample = scorer.given_scores, scorer.sample_scores
    drawn = [
        _told_apart(np.sort(generator.choice(given, len(given))), np.sort(generator.choice(sample, len(sample))))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0).tolist()
    values = _told_apart(given, sample)
    intervals = zip(("auc", "accuracy"), values, low, high, strict=True)
    figures = {name: {"value": value, "low": least, "high": most} for name, value, least, most in intervals}
    return {**figures, "tested": list(scorer.tested)}


def _told_apart(given: np.ndarray, sample: np.ndarray) -> tuple[float, float]:
    """The area under the ROC curve and the balanced accuracy of sorted scores."""
    below, up_to = (np.searchsorted(sample, given, side).sum() for side in ("left", "right"))
    accuracy = ((given > 0.5).mean() + (sample <= 0.5).mean()) / 2
    return float((below + up_to) / 2 / (len(given) * len(sample))), float(accuracy)


def _spans(texts: Sequence[str], others: Sequence[str], generator: np.random.Generator) -> Iterator[str]:
    """A span of each text, at a random place, no longer than one of the others, drawn at random, is.

    Lengths, in words, are then on both sides distributed as the lesser of a length of either.
    """
    lengths = [len(_units(other)[0]) for other in others]
    limits = generator.integers(len(others), size=len(texts)).tolist()
    places = generator.random(len(texts)).tolist()
    for text, other, place in zip(texts, limits, places, strict=True):
        units, between = _units(text)
        start = int(place * (max(0, len(units) - lengths[other]) + 1))
        yield between.join(units[start : start + lengths[other]])


def _units(text: str) -> tuple[Sequence[str], str]:
    """What a text may be cut between, and what stands between: words, or characters where blanks divide no words."""
    words = text.split()
    return (words, " ") if len(text) < 20 * len(words) else (text, "")


def _groups(
    documents: Sequence[Sampled], scores: np.ndarray, names: Sequence[str | None], fewest: int
) -> list[dict[str, Any]]:
    """Of each name: its documents in the sample, their mean nearness, and how much of them is in the nearest part."""
    limit = np.quantile(scores, 1 - NEAR_PART)
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if name is not None:
            members.setdefault(name, []).append(index)
    rows = [
        {
            "name": name,
            "documents": len(places),
            "nearness": float(scores[places].mean()),
            "in_nearest_fifth": float((scores[places] >= limit).mean()),
        }
        for name, places in members.items()
        if len(places) >= fewest
    ]
    return sorted(rows, key=lambda row: (-row["nearness"], row["name"]))


def _shown(documents: Sequence[Sampled], scores: np.ndarray, order: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "id": documents[place].id,
            "source": documents[place].source,
            "nearness": float(scores[place]),
            "text": " ".join(documents[place].text[:SHOWN_CHARACTERS].split()),
        }
        for place in order[:SHOWN].tolist()
    ]


def _select(
    corpus: Corpus, to: str, text_column: str | None, share: float, out: Path, overwrite: bool, progress: bool
) -> dict[str, Any]:
    """Build a corpus of the nearest documents: what `filters.nearest` of a build from the corpus itself keeps."""
    nearest = {"paths": [to], "keep": share} | ({"text_column": text_column} if text_column else {})
    settings = CorpusSettings(filters={"nearest": nearest})
    card = build_corpus([str(corpus.path)], out, settings, overwrite=overwrite, progress=progress).card
    return {"out": str(out), "in": card["in"], "kept": card["kept"], "share": card["kept"] / card["in"]}


def _verdict(result: dict[str, Any]) -> str:
    auc = result["two_sample"]["auc"]["value"]
    distance = next(words for limit, words in _DISTANCES if auc < limit)
    vocabulary, divergence = result["vocabulary"], result["divergence"]["value"]
    sentence = (
        f"The corpus is {distance} the task's text: its {vocabulary['size']:,} commonest words cover "
        f"{vocabulary['tokens']:.0%} of the task's, their words diverge by {divergence:.2f} bits of 1, and a "
        f"classifier tells them apart with an AUC of {auc:.2f} (0.5 is chance)"
    )
    if len(result["sources"]) > 1:
        best, *_, worst = result["sources"]
        sentence += f"; nearest is {best['name']}, farthest {worst['name']}"
    return sentence + "."
