"""Faults planted in real runs are named, and healthy runs are not; `benchmarks/planted_faults.py` does more of it."""

import time

import numpy as np
import pytest
import torch

from tilth.errors import TilthError
from tilth.key import Key
from tilth.objectives.causal import Causal
from tilth.objectives.objective import Batch, Predictions
from tilth.train.batches import Batches
from tilth.train.loop import Run, pretrain
from tilth.train.trackers import read_log


def found(run):
    return {record["kind"] for record in read_log(run / "log.jsonl") if record["event"] == "warning"}


@pytest.fixture
def before_step(monkeypatch):
    """A function: plant something in a run just before the step of an index, counted from 0."""

    def plan(index, plant):
        train_step = Run.train_step

        def planted(self, batches, update):
            if self.position.step == index:
                with torch.no_grad():
                    plant(self)
            train_step(self, batches, update)

        monkeypatch.setattr(Run, "train_step", planted)

    return plan


@pytest.mark.parametrize("name", ["bert-mini", "roberta-mini", "gpt2-mini", "gpt3-mini"])
def test_nothing_is_found_in_a_healthy_run(name, recipe, corpus, tmp_path):
    settings = recipe(name, "train.budget=60 steps", "train.recompute_every=5", "train.evaluate_every=6 steps")
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert found(tmp_path / "run") == set()


def test_a_bad_learning_rate_is_found(recipe, corpus, tmp_path):
    pretrain(recipe("gpt2-mini", "train.budget=50 steps", "train.lr=1"), corpus, tmp_path / "run", progress=False)
    assert found(tmp_path / "run") & {"divergence", "exploding"}


def test_wrong_labels_are_found(recipe, corpus, monkeypatch, tmp_path):
    make_batch = Causal.make_batch

    def shuffled(self, packing, indexes, epochs, seed):
        batch = make_batch(self, packing, indexes, epochs, seed)
        predictions = {}
        for head, right in batch.predictions.items():
            order = (
                Key(seed, int(indexes.sum() + 1000 * epochs.sum()), "wrong").generator().permutation(len(right.targets))
            )
            predictions[head] = Predictions(right.places, right.targets[torch.from_numpy(order)])
        return Batch(batch.inputs, predictions, batch.tokens, batch.documents)

    monkeypatch.setattr(Causal, "make_batch", shuffled)
    # By a sample of so few words the loss is estimated too roughly to tell that it stays where it is.
    settings = recipe(
        "gpt2-mini", "train.budget=120 steps", "train.evaluate_every=10 steps", "train.decay=0.2", "train.lr=5e-3",
        "objective.vocabulary_share=1",
    )  # fmt: skip
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert "stall" in found(tmp_path / "run")


@pytest.mark.parametrize("name", ["gpt2-mini", "bert-mini"])
def test_a_dead_layer_is_found(name, recipe, corpus, before_step, tmp_path):
    before_step(15, lambda run: run.model.trunk.blocks[1].mlp.up.bias.fill_(-50))
    # With some other seeds such a run is found to stall as well.
    pretrain(recipe(name, "train.budget=45 steps", "seed=1"), corpus, tmp_path / "run", progress=False)
    (warning,) = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["event"] == "warning"]
    assert (warning["kind"], warning["step"]) == ("dead", 41)
    assert "blocks.1.mlp" in warning["message"] and "blocks.0" not in warning["message"]


def test_an_exploding_layer_is_found(recipe, corpus, before_step, tmp_path):
    before_step(70, lambda run: [matrix.mul_(100) for matrix in run.model.trunk.blocks[0].mlp.parameters()])
    pretrain(recipe("gpt2-mini", "train.budget=82 steps"), corpus, tmp_path / "run", progress=False)
    assert "exploding" in found(tmp_path / "run")


def test_a_gradient_that_explodes_is_found(recipe, corpus, monkeypatch, tmp_path):
    backward = Run._backward

    def exploding(self, *arguments):
        result = backward(self, *arguments)
        if self.position.step >= 70:
            self.model.trunk.blocks[0].mlp.up.weight.grad.mul_(10_000)
        return result

    monkeypatch.setattr(Run, "_backward", exploding)
    pretrain(recipe("gpt2-mini", "train.budget=82 steps"), corpus, tmp_path / "run", progress=False)
    (warning,) = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["event"] == "warning"]
    assert (warning["kind"], warning["step"]) == ("exploding", 81)
    assert "blocks.0.mlp (gradient" in warning["message"] and "blocks.1" not in warning["message"]


def test_slow_data_is_found(recipe, corpus, monkeypatch, tmp_path):
    at = Batches.at

    def slow(self, step):
        time.sleep(0.3)
        return at(self, step)

    monkeypatch.setattr(Batches, "at", slow)
    pretrain(recipe("gpt2-mini", "train.budget=25 steps"), corpus, tmp_path / "run", progress=False)
    assert found(tmp_path / "run") == {"starvation"}


def test_a_shard_that_is_overwritten_is_found(recipe, corpus, before_step, tmp_path):
    def overwrite(run):
        (path,) = run.prepared.shards.path.glob("train-*.ids")
        ids = np.memmap(path, dtype="<u2", mode="r+")
        ids[:] = 40_000

    before_step(5, overwrite)
    with pytest.raises(TilthError, match="train shards in .* are damaged: they hold token 40000.*has 300; make them"):
        pretrain(recipe("gpt2-mini"), corpus, tmp_path / "run", progress=False)
