"""What the weights of a run depend on, and what they do not."""

import pytest
import torch
from safetensors.torch import load_file

from tilth.train.loop import pretrain
from tilth.train.trackers import read_log


def steps_of(run):
    return [record for record in read_log(run / "log.jsonl") if record["event"] == "step"]


@pytest.mark.parametrize("name", ["bert-mini", "roberta-mini", "gpt2-mini"])
def test_micro_batches_change_nothing_but_rounding(name, recipe, corpus, tmp_path):
    """Also where their numbers of predictions differ, so that a mean of means would be wrong."""
    runs = {}
    for rows in (16, 8, 4, 1):
        out = tmp_path / str(rows)
        settings = recipe(
            name, f"train.micro_batch_tokens={32 * rows}", "train.budget=2 steps", "train.lr=1e-4", "train.clip=1e9"
        )
        pretrain(settings, corpus, out, progress=False)
        runs[rows] = steps_of(out), load_file(out / "checkpoints" / "step-00000002" / "weights.safetensors")
    steps, weights = runs[16]
    for rows in (8, 4, 1):
        for ours, theirs in zip(runs[rows][0], steps, strict=True):
            assert ours["tokens"] == theirs["tokens"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        for key, value in runs[rows][1].items():
            torch.testing.assert_close(value, weights[key], rtol=0, atol=2e-5)


def test_micro_batches_do_differ_in_predictions(opened):
    counts = [batch.counts["masked"] for batch in opened("bert-mini", "train.micro_batch_tokens=128").batches.at(0)]
    assert len(counts) == 4 and len(set(counts)) > 1


def test_equal_runs_are_equal_and_other_seeds_differ(recipe, corpus, outcome, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        settings = recipe("roberta-mini", "model.dropout=0.1", f"seed={seed}", "train.budget=3 steps")
        pretrain(settings, corpus, tmp_path / name, progress=False)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    assert outcome(tmp_path / "one")["weights"] != outcome(tmp_path / "three")["weights"]


@pytest.mark.parametrize(
    "override",
    [
        "train.optimizer=adamw",
        "train.weight_decay=0.5",
        "train.clip=0.01",
        "model.dropout=0.2",
        "model.start=random",
        "objective.rate=0.3",
        "objective={name: masked, masks: fixed, duplicates: 1}",
        "data.cross_documents=true",
        "train.batch_tokens=256",
    ],
)
def test_each_setting_changes_what_is_learnt(override, recipe, corpus, outcome, plain, tmp_path):
    # Muon and AdamW forget the size of gradients, so clipping shows from the second step on.
    settings = recipe("roberta-mini", "train.budget=6 steps", override)
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert outcome(tmp_path / "run")["weights"] != plain["weights"]


@pytest.fixture(scope="module")
def plain(recipe, corpus, outcome, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    pretrain(recipe("roberta-mini", "train.budget=6 steps"), corpus, out, progress=False)
    return outcome(out)


@pytest.mark.parametrize("largest", [0.01, 1e6])
def test_gradients_are_scaled_down_to_the_largest_norm_and_left_alone_below_it(opened, largest):
    run = opened("gpt2-mini")
    generator = torch.Generator().manual_seed(0)
    parameters = list(run.model.parameters())[:-1]  # the last one without a gradient
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    before = [parameter.grad.clone() for parameter in parameters]
    norm = torch.stack([gradient.double().square().sum() for gradient in before]).sum().sqrt().item()
    assert run.replica.clip(largest) == pytest.approx(norm, rel=1e-6)
    scale = min(1.0, largest / norm)
    for parameter, gradient in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * scale, rtol=1e-5 if scale < 1 else 0, atol=0)
