"""A classifier tells the texts it was given from the others, the same way every time."""

import numpy as np
import pytest

from tilth.corpus.filters import classifier
from tilth.corpus.filters.classifier import fit_classifier, like
from tilth.errors import UsageError


@pytest.fixture(scope="module")
def mixed(farm_text, sea_text):
    return [(sea_text if number % 5 else farm_text)(1000 + number) for number in range(300)]


@pytest.fixture(scope="module")
def scorer(farm, mixed):
    return fit_classifier(farm, mixed, seed=3)


def test_held_out_auc(scorer):
    assert scorer.tested == (20, 60)
    assert scorer.auc == pytest.approx(0.9, abs=0.06)  # a fifth of the sample is like the given texts


def test_nothing_is_learned_from_what_is_alike(farm_text):
    alike = [farm_text(number) for number in range(1000)]
    assert 0.4 < fit_classifier(alike[:500], alike[500:]).auc < 0.6


def test_documents_that_are_unlike_are_dropped(run, scorer, farm_text, sea_text):
    texts = [(farm_text if number % 2 else sea_text)(5000 + number) for number in range(40)]
    result = run(like(scorer, keep=0.2), *texts)
    scores = [facts["like_score"] for facts in result.metadata]
    assert min(scores[1::2]) > max(scores[::2])
    limit = np.quantile(scorer.sample_scores, 0.8)
    assert result.dropped == ["unlike" if score < limit else None for score in scorer.score(texts)]
    assert result.dropped[::2].count("unlike") > 15
    assert result.dropped[1::2].count(None) == 20


def test_the_threshold_at_both_sides(run, scorer, sea_text):
    score = float(scorer.score(["soil and sail"])[0])
    assert run(like(scorer, threshold=score), "soil and sail").dropped == [None]
    assert run(like(scorer, threshold=np.nextafter(score, 1)), "soil and sail").dropped == ["unlike"]
    assert run(like(scorer, keep=1), *[sea_text(n) for n in range(5)]).dropped.count(None) >= 4


def test_equal_texts_and_seed_give_an_equal_scorer(farm, mixed, scorer):
    again = fit_classifier(iter(farm), iter(mixed), seed=3)
    assert again.fingerprint == scorer.fingerprint
    assert again.sample_scores.tolist() == scorer.sample_scores.tolist()
    assert fit_classifier(farm, mixed, seed=4).fingerprint != scorer.fingerprint


def test_a_score_does_not_depend_on_the_batch(scorer, mixed):
    together = scorer.score(mixed[:50])
    alone = [float(scorer.score([document])[0]) for document in mixed[:50]]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)


def test_one_long_text_is_enough(mixed, farm_text):
    book = " ".join(farm_text(number, 1000) for number in range(100))
    scorer = fit_classifier([book], mixed)
    assert scorer.auc > 0.8


def test_a_large_sample_is_drawn_as_it_passes(farm, monkeypatch, sea_text):
    monkeypatch.setattr(classifier, "MOST", 100)
    seen = iter([sea_text(number) for number in range(1000)])
    scorer = fit_classifier(farm, seen)
    assert next(seen, None) is None
    assert scorer.tested == (20, 20)


def test_odd_texts(run, scorer, odd_text):
    score = run(like(scorer, threshold=0), odd_text, "").metadata[0]["like_score"]
    assert 0 <= score <= 1


def test_wrong_settings(scorer, mixed):
    with pytest.raises(UsageError, match="give keep"):
        like(scorer)
    with pytest.raises(UsageError, match="keep is not a share"):
        like(scorer, keep=0)
    with pytest.raises(UsageError, match="threshold is not a share"):
        like(scorer, threshold=1.5)
    with pytest.raises(UsageError, match="the texts to resemble make 1 pieces"):
        fit_classifier(["short"], mixed)
    with pytest.raises(UsageError, match="the corpus's documents make 0 pieces"):
        fit_classifier(mixed, ["", " "])


def test_abstracts_are_told_from_novels(run, abstracts, novels):
    chapters = [novel[start : start + 3000] for novel in novels for start in range(0, 60_000, 3000)]
    scorer = fit_classifier(abstracts[:500], abstracts[500:800] + chapters[:700])
    assert scorer.auc > 0.8  # three in ten of the sample are abstracts, too
    result = run(like(scorer, keep=0.3), *abstracts[1000:1500], *chapters[900:1400])
    assert result.dropped[500:].count("unlike") > 480
    assert result.dropped[:500].count(None) > 400
