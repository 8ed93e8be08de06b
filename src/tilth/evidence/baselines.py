"""What a comparison must beat: TF-IDF with logistic regression, tuned as a careful practitioner would."""

import itertools
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilth.corpus.languages import UNSPACED
from tilth.tasks.data import Examples

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse regularisation strengths to choose from. TF-IDF vectors have unit length: below 1 the classes hardly part."""
DEFAULT_STRENGTH = 10.0
FOLDS = 5
FEWEST_TO_TUNE = FOLDS
"""Examples that every class must have for the strength to be cross-validated."""
MOST_CHARACTERS = 3
"""Characters in the longest feature of text that has no spaces between words."""
_WORD = re.compile(r"\b\w+\b")
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")


@dataclass(frozen=True)
class BaselineFit:
    """Predicted label indexes of the training and the test texts; `strength` is the inverse regularisation used."""

    train_predictions: np.ndarray
    test_predictions: np.ndarray
    strength: float
    num_features: int
    seconds: float


def features(text: str) -> list[str]:
    """What the baseline sees of a text: words and pairs of words, in lower case.

    Where a script puts no spaces between words, also one to three characters in a row, since a "word" there is a whole
    sentence that no other text repeats; so too of a text without any word, such as one of emoji. No text is without
    features: an empty vocabulary could not be learned from.
    """
    text = text.lower()
    words = _WORD.findall(text)
    found = words + [" ".join(pair) for pair in itertools.pairwise(words)]
    for run in _UNSPACED_RUN.findall(text):
        found += _in_a_row(run)
    return found or _in_a_row(f" {' '.join(text.split())} ")


def _in_a_row(text: str) -> list[str]:
    sizes = range(1, MOST_CHARACTERS + 1)
    return [text[start : start + size] for size in sizes for start in range(len(text) - size + 1)]


def fit_tfidf(train: Examples, test_texts: Sequence[str], labels: Sequence[str], seed: int) -> BaselineFit:
    """Learn from `train` and label `test_texts`.

    Features: see `features`; logarithmic counts, inverse document frequency, unit length. The regularisation is chosen
    by stratified cross-validation of macro-F1 within `train` where every class has 5 examples; else it is 10.
    seed: of the folds. Nothing of the test texts is used to learn.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    began = time.monotonic()
    targets = np.array(train.label_indexes(labels))
    analyzer: Any = features  # the type that scikit-learn's stubs know is a name alone
    vectorizer = TfidfVectorizer(analyzer=analyzer, sublinear_tf=True)
    pipeline: Any = make_pipeline(vectorizer, LogisticRegression(C=DEFAULT_STRENGTH, solver="newton-cg", max_iter=1000))
    # The solver's vectors are small: threads would only wait for each other (measured 10 to 40 times slower).
    with threadpool_limits(1):
        if min(Counter(train.labels).values()) >= FEWEST_TO_TUNE:
            folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
            grid = {"logisticregression__C": list(STRENGTHS)}
            pipeline = (
                GridSearchCV(pipeline, grid, scoring="f1_macro", cv=folds).fit(train.texts, targets).best_estimator_
            )
        else:
            pipeline.fit(train.texts, targets)
    return BaselineFit(
        train_predictions=pipeline.predict(train.texts),
        test_predictions=pipeline.predict(list(test_texts)),
        strength=float(pipeline[-1].C),
        num_features=len(pipeline[0].vocabulary_),
        seconds=time.monotonic() - began,
    )
