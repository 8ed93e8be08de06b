"""The words that stand for a vocabulary in a step's loss."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tilth.evidence.report import write_run_report
from tilth.tokens.packing import Framing
from tilth.train import word_sample
from tilth.train.distributed import World
from tilth.train.loop import pretrain
from tilth.train.trackers import read_log
from tilth.train.word_sample import WordSample


class Split:
    """Shards of one document, in which word n comes n times."""

    document_starts = np.array([0, 55])
    num_documents = 1

    def tokens(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.repeat(np.arange(11), np.arange(11))


def sampler(vocab_size: int, share: float, seed: int = 0, documents: int = 1) -> WordSample:
    split = Split()
    split.num_documents = documents
    objective = SimpleNamespace(framing=Framing(document_prefix=(5,), document_suffix=(2,), overlap=1))
    return WordSample(objective, split, vocab_size, share, seed, torch.device("cpu"), World())  # pyright: ignore[reportArgumentType]


def test_the_most_frequent_words_are_certain_and_others_stand_for_their_like():
    words = sampler(12, 0.5)
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
    assert words.mean_share == pytest.approx(1 - 0.7 * 0.5)


def test_what_packing_adds_to_each_document_is_counted():
    """Of eight documents the end comes ten times, twice in the text and once after each."""
    sample = sampler(12, 0.5, documents=8).at(0, 0.5)
    assert sample is not None
    assert sample.words[:4].tolist() == [2, 10, 9, 8]


def test_the_end_of_text_is_certain_in_a_run(opened):
    run = opened("gpt2-mini")
    sample = run.word_sample.at(0, 0.5)
    end = run.prepared.tokenizer.special.eot
    batch = run.batches.at(0)[0]
    assert (batch.predictions["causal"].targets == end).sum() > 1
    assert sample.places[end] >= 0 and sample.log_weights[sample.places[end]] == 0


def test_a_sample_depends_on_the_seed_and_the_step_only():
    def drawn(seed: int, step: int) -> list[int]:
        sample = sampler(1000, 0.5, seed).at(step, 0.5)
        assert sample is not None
        return sample.words.tolist()

    assert drawn(0, 3) == drawn(0, 3)
    assert drawn(0, 3) != drawn(0, 4) and drawn(0, 3) != drawn(1, 3)


def test_all_words_are_taken_at_the_beginning_and_the_end_and_where_they_are_few(monkeypatch):
    words = sampler(12, 0.5)
    assert [words.at(5, spent) is None for spent in (0.0, 0.09, 0.1, 0.79, 0.8, 1.0)] == [
        True, True, False, False, True, True,
    ]  # fmt: skip
    assert sampler(12, 1.0).at(5, 0.5) is None
    monkeypatch.setattr(word_sample, "SMALL_VOCABULARY", 12)
    assert sampler(12, 0.5).at(5, 0.5) is None and sampler(12, 0.5).mean_share == 1


@pytest.mark.parametrize("name", ["gpt2-mini", "bert-mini"])
def test_a_run_samples_in_training_and_evaluates_on_all_words(name, recipe, corpus, tmp_path):
    """The estimate is near the loss, and another one; the first and the last steps, and the evaluations, have all."""
    losses, held_out, flops = {}, {}, {}
    for share in (0.25, 0.5, 1.0):
        run = tmp_path / str(share)
        settings = recipe(name, f"objective.vocabulary_share={share}", "train.lr=1e-9")
        summary = pretrain(settings, corpus, run, progress=False)
        records = read_log(run / "log.jsonl")
        losses[share] = [record["loss"] for record in records if record["event"] == "step"]
        held_out[share] = [record["held_out_loss"] for record in records if record["event"] == "evaluation"]
        flops[share] = summary["flops_per_token"]
        page = write_run_report(run).read_text(encoding="utf-8")
        assert ("from a sample of the vocabulary" in page) == (share < 1)
    for share in (0.25, 0.5):
        assert held_out[share] == pytest.approx(held_out[1.0], abs=1e-6)
        same = np.isclose(losses[share], losses[1.0], rtol=0, atol=1e-6)
        assert same.tolist() == [True] * 2 + [False] * 8 + [True] * 2
        assert losses[share] == pytest.approx(losses[1.0], abs=0.2)
        assert np.mean(losses[share]) == pytest.approx(np.mean(losses[1.0]), abs=0.02)
    assert flops[1.0] - flops[0.25] == pytest.approx(1.5 * (flops[1.0] - flops[0.5]), rel=1e-3)
    assert flops[1.0] > flops[0.5]
