"""The nearest documents are those that share words with some of the texts, however rare the rest of the corpus is."""

import numpy as np
import pytest

from tilth.corpus.filters.nearest import Neighbours, fit_neighbours, nearest
from tilth.errors import UsageError


@pytest.fixture(scope="module")
def mixture(farm_text, sea_text):
    """mixture(farms, seas): so many texts of each."""

    def make(farms: int, seas: int) -> list[str]:
        return [farm_text(1000 + number) for number in range(farms)] + [sea_text(2000 + n) for n in range(seas)]

    return make


@pytest.mark.parametrize(("farms", "seas"), [(100, 100), (290, 10), (10, 290)])
def test_the_right_ones_are_nearest_in_any_mixture(farm, farms, seas, mixture):
    texts = mixture(farms, seas)
    scores = fit_neighbours(farm, texts).score(texts)
    below = (scores[:farms, None] < scores[None, farms:]).mean()
    assert below < 0.05


def test_what_is_foreign_to_all_is_far(farm, mixture):
    texts = [*mixture(290, 0), *("\u9762\u5411 \u793e\u4ea4 \u5a92\u4f53 " * 20 for _ in range(10))]
    scores = fit_neighbours(farm, texts).score(texts)
    assert scores[290:].max() < scores[:290].min()


def test_documents_that_are_far_are_dropped(run, farm, mixture):
    texts = mixture(60, 60)
    scorer = fit_neighbours(farm, texts)
    result = run(nearest(scorer, keep=0.5), *texts)
    assert result.dropped.count("not_nearest") == 60
    assert result.dropped[60:].count("not_nearest") >= 57
    scores = scorer.score(texts)
    assert [facts["nearest_score"] for facts in result.metadata] == [round(score, 4) for score in scores.tolist()]
    assert scorer.sample_scores.tolist() == pytest.approx(sorted(scores))


def test_the_score_of_a_document_that_is_given(farm):
    scorer = fit_neighbours(["soil and seed"], [*farm, "sail"])
    assert scorer.score(["soil and seed", "sail", ""]).tolist() == pytest.approx([1, 0, 0], abs=1e-6)


def test_a_saved_scorer_scores_alike(tmp_path, farm, mixture):
    texts = mixture(20, 20)
    scorer = fit_neighbours(iter(farm), iter(texts))
    scorer.save(tmp_path / "scorer.npz")
    again = Neighbours.load(tmp_path / "scorer.npz")
    assert again.score(texts).tolist() == scorer.score(texts).tolist()
    assert again.fingerprint == scorer.fingerprint == fit_neighbours(farm, texts).fingerprint
    assert scorer.fingerprint != fit_neighbours(farm[1:], texts).fingerprint


def test_a_score_does_not_depend_on_the_batch(farm, mixture):
    texts = mixture(300, 300)
    scorer = fit_neighbours(farm, texts)
    assert scorer.score(texts)[-5:].tolist() == pytest.approx(scorer.score(texts[-5:]).tolist(), rel=1e-6)


def test_odd_texts(run, farm, odd_text):
    score = run(nearest(fit_neighbours(farm, farm), threshold=0), odd_text, "").metadata[0]["nearest_score"]
    assert 0 <= score <= 1


def test_wrong_settings(farm):
    with pytest.raises(UsageError, match="nearest: give keep"):
        nearest(fit_neighbours(farm, farm))
    with pytest.raises(UsageError, match="nearest: keep is not a share"):
        nearest(fit_neighbours(farm, farm), keep=2)
    with pytest.raises(UsageError, match="there is no text to be near to"):
        fit_neighbours([" "], farm)
    with pytest.raises(UsageError, match="there is no document in the corpus"):
        fit_neighbours(farm, [""])


def test_abstracts_are_nearer_than_novels_to_sentences_of_papers(abstracts, novels, sentences_of_papers):
    chapters = [novel[:6000] for novel in novels]
    spread = abstracts[::18]
    texts = [*spread, *chapters]
    scores = fit_neighbours(sentences_of_papers, texts).score(texts)
    near, far = scores[: len(spread)], scores[len(spread) :]
    assert (near[:, None] > far).mean() > 0.9
    assert np.median(far) < np.quantile(near, 0.1)
