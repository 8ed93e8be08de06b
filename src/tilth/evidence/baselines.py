"""What a comparison must beat: TF-IDF with logistic regression, tuned as a careful practitioner would."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilth.tasks.data import Examples

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse regularisation strengths to choose from. TF-IDF vectors have unit length: below 1 the classes hardly part."""
DEFAULT_STRENGTH = 10.0
FOLDS = 5
FEWEST_TO_TUNE = FOLDS
"""Examples that every class must have for the strength to be cross-validated."""


@dataclass(frozen=True)
class BaselineFit:
    """Predicted label indexes of the training and the test texts; `strength` is the inverse regularisation used."""

    train_predictions: np.ndarray
    test_predictions: np.ndarray
    strength: float
    num_features: int
    seconds: float


def fit_tfidf(train: Examples, test_texts: Sequence[str], labels: Sequence[str], seed: int) -> BaselineFit:
    """Learn from `train` and label `test_texts`.

    Features: words and pairs of words, logarithmic counts, inverse document frequency, unit length. The regularisation
    is chosen by stratified cross-validation of macro-F1 within `train` where every class has 5 examples; else it is 10.
    seed: of the folds. Nothing of the test texts is used to learn.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    began = time.monotonic()
    targets = np.array(train.label_indexes(labels))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
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
