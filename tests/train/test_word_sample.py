"""The words that stand for a vocabulary in a step's loss."""

import math

import numpy as np
import pytest

from tilth.train import word_sample
from tilth.train.loop import pretrain
from tilth.train.trackers import read_log
from tilth.train.word_sample import WordSample


class Split:
    """Shards of one document, in which word n comes n times."""

    document_starts = np.array([0, 55])

    def tokens(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.repeat(np.arange(11), np.arange(11))


def test_the_most_frequent_words_are_certain_and_others_stand_for_their_like():
    words = WordSample(Split(), 12, 0.5, seed=0)  # pyright: ignore[reportArgumentType]
    drawn = set()
    for step in range(40):
        sample = words.at(step, 0.5)
        assert sample is not None
        assert sample.words[:4].tolist() == [10, 9, 8, 7]
        assert sample.log_weights.tolist() == pytest.approx([0] * 4 + [math.log(4)] * 2)  # eight others, by two
        assert sample.places[sample.words].tolist() == [0, 1, 2, 3, 4, 5]
        assert (sample.places == -1).sum() == 6
        assert set(sample.words[4:].tolist()) <= {0, 1, 2, 3, 4, 5, 6, 11} and len(sample.words.unique()) == 6
        drawn |= set(sample.words[4:].tolist())
    assert len(drawn) == 8


def test_a_sample_depends_on_the_seed_and_the_step_only():
    def drawn(seed: int, step: int) -> list[int]:
        sample = WordSample(Split(), 1000, 0.5, seed).at(step, 0.5)  # pyright: ignore[reportArgumentType]
        assert sample is not None
        return sample.words.tolist()

    assert drawn(0, 3) == drawn(0, 3)
    assert drawn(0, 3) != drawn(0, 4) and drawn(0, 3) != drawn(1, 3)


def test_all_words_are_taken_at_the_beginning_and_the_end_and_where_they_are_few(monkeypatch):
    words = WordSample(Split(), 12, 0.5, seed=0)  # pyright: ignore[reportArgumentType]
    assert [words.at(5, spent) is None for spent in (0.0, 0.09, 0.1, 0.79, 0.8, 1.0)] == [
        True, True, False, False, True, True,
    ]  # fmt: skip
    assert WordSample(Split(), 12, 1.0, seed=0).at(5, 0.5) is None  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(word_sample, "SMALL_VOCABULARY", 12)
    assert WordSample(Split(), 12, 0.5, seed=0).at(5, 0.5) is None  # pyright: ignore[reportArgumentType]


def test_a_run_samples_in_training_and_evaluates_on_all_words(recipe, corpus, tmp_path):
    """The estimate is near the loss, and differs from step to step; the first step and the evaluations have all."""
    losses, held_out = {}, {}
    for share in (0.25, 0.5, 1.0):
        run = tmp_path / str(share)
        pretrain(
            recipe("gpt2-mini", f"objective.vocabulary_share={share}", "train.lr=1e-9"), corpus, run, progress=False
        )
        records = read_log(run / "log.jsonl")
        losses[share] = [record["loss"] for record in records if record["event"] == "step"]
        held_out[share] = [record["held_out_loss"] for record in records if record["event"] == "evaluation"]
    for share in (0.25, 0.5):
        assert held_out[share] == pytest.approx(held_out[1.0], abs=1e-6)
        same = np.isclose(losses[share], losses[1.0], rtol=0, atol=1e-6)
        assert same.tolist() == [True] * 2 + [False] * 8 + [True] * 2
        assert losses[share] == pytest.approx(losses[1.0], abs=0.05)
