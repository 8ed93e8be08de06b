"""Whole runs at the smallest size: what they log, keep, and do when things go wrong."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tilth.errors import TilthError
from tilth.files import sha256_file
from tilth.model.folder import load_model
from tilth.train import loop
from tilth.train.checkpoint import verify_checkpoint
from tilth.train.held_out import held_out_loss
from tilth.train.loop import pretrain
from tilth.train.monitor import Finding, Monitor
from tilth.train.trackers import read_log


def events(run, kind):
    return [record for record in read_log(run / "log.jsonl") if record["event"] == kind]


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ("7 steps", lambda run: 7),
        ("1 epochs", lambda run: math.ceil(run.prepared.train.num_rows / 16)),
        ("0.3 epochs", lambda run: math.ceil(0.3 * run.prepared.train.num_rows / 16)),
        ("2000 tokens", lambda run: math.ceil(2000 / (16 * run.prepared.train.length * run.prepared.train.fill))),
    ],
)
def test_a_budget_ends_the_run_at_its_step(budget, steps, recipe, corpus, opened, tmp_path):
    expected = steps(opened("gpt2-mini"))
    summary = pretrain(recipe("gpt2-mini", f"train.budget={budget}"), corpus, tmp_path / "run", progress=False)
    assert summary["step"] == expected
    assert summary["reason"] == "budget"
    logged = events(tmp_path / "run", "step")
    assert [record["step"] for record in logged] == list(range(1, expected + 1))
    assert logged[-1]["progress"] == 1 and all(record["progress"] < 1 for record in logged[:-1])
    assert logged[-1]["tokens"] == summary["tokens"]
    if "tokens" in budget:
        assert summary["tokens"] == pytest.approx(2000, abs=16 * 32)


def test_training_on_a_cpu_loads_neither_torchs_compiler_nor_scikit_learn(recipe, corpus, tmp_path):
    """Each takes two seconds and more to import, and torch's optimizers load its compiler."""
    (tmp_path / "recipe.yaml").write_text(recipe("bert-mini", "train.budget=2 steps").to_yaml())
    examples = [{"text": f"{word} {number}", "label": word} for word in ("yes", "no") for number in range(4)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    code = """
import sys
import tilth
recipe, corpus, out = sys.argv[1:]
tilth.pretrain(recipe, corpus, out + "/run", progress=False)
examples = out + "/examples.jsonl"
tilth.finetune(out + "/run", examples, out + "/tuned", overrides=["max_steps=2"], progress=False)
tilth.evaluate(out + "/tuned", examples, progress=False)
print([name for name in ("torch._dynamo", "sklearn") if name in sys.modules])
"""
    arguments = [str(path) for path in (tmp_path / "recipe.yaml", corpus, tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_a_budget_of_minutes_ends_the_run_in_time(recipe, corpus, tmp_path):
    summary = pretrain(recipe("gpt2-mini", "train.budget=0.02 minutes"), corpus, tmp_path / "run", progress=False)
    logged = events(tmp_path / "run", "step")
    assert summary["seconds"] >= 1.2
    assert all(record["seconds"] < 1.2 for record in logged[:-1])
    assert len(logged) == summary["step"] > 3


def test_the_rate_follows_the_schedule(recipe, corpus, tmp_path):
    settings = recipe("gpt2-mini", "train.schedule=linear", "train.warmup=0.25", "train.lr=0.012")
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    rates = [record["lr"] for record in events(tmp_path / "run", "step")]
    assert rates[1:3] == pytest.approx([0.004, 0.008])
    assert rates[3:] == pytest.approx([0.012 * (12 - step) / 9 for step in range(3, 12)])


@pytest.mark.parametrize("name", ["gpt2-mini", "bert-mini"])
def test_the_log_of_a_run_says_what_it_should(name, recipe, corpus, tmp_path):
    run = tmp_path / "run"
    summary = pretrain(recipe(name), corpus, run, progress=False)
    records = read_log(run / "log.jsonl")
    start, end = records[0], records[-1]
    assert (start["event"], end["event"]) == ("start", "end")
    model, tokenizer = load_model(run / "model")
    assert start["parameters"] == summary["parameters"] == model.num_parameters()
    assert start["trunk_parameters"] == sum(parameter.numel() for parameter in model.trunk.blocks.parameters())
    assert start["tokenizer"] == summary["tokenizer"] == tokenizer.fingerprint
    assert start["dtype"] == "float32"
    assert [record["step"] for record in events(run, "evaluation")] == [3, 6, 9, 12]
    evaluations, steps = events(run, "evaluation"), events(run, "step")
    for record in evaluations:
        between = [step["loss"] for step in steps if record["step"] - 3 < step["step"] <= record["step"]]
        assert record["train_loss"] == pytest.approx(np.mean(between))
        assert record["gap"] == pytest.approx(record["held_out_loss"] - record["train_loss"])
        assert record["held_out_loss"] == pytest.approx(sum(record["parts"].values()))
    best = min(evaluations, key=lambda record: record["held_out_loss"])
    assert summary["best_step"] == end["best_step"] == best["step"]
    assert summary["held_out_loss"] == pytest.approx(best["held_out_loss"], rel=1e-5)
    assert summary["bits_per_byte"] == pytest.approx(best["bits_per_byte"], rel=1e-5)
    assert summary["weights_sha256"] == sha256_file(run / "model" / "model.safetensors")
    assert json.loads((run / "summary.json").read_text()) == summary
    samples = events(run, "sample")
    assert len(samples) == 2 * len(evaluations)
    assert all(record["prompt"] and record["text"] for record in samples)


@pytest.mark.parametrize("name", ["gpt2-mini", "bert-mini", "roberta-mini"])
def test_what_is_held_out_is_of_the_validation_split_and_fixed(name, opened):
    run = opened(name, "train.evaluate_tokens=1000000")
    assert sum(len(batch.inputs.tokens) for batch in run.held_out) == run.prepared.validation.num_rows
    split = run.prepared.validation.split
    documents = np.unique(np.concatenate([batch.documents for batch in run.held_out]))
    assert documents.tolist() == list(range(split.num_documents))
    if name != "bert-mini":  # whose pairs repeat some text and leave out other
        seen = []
        for batch in run.held_out:
            for predictions in batch.predictions.values():
                tokens = batch.inputs.tokens.clone()
                if name == "roberta-mini":
                    tokens.view(-1)[predictions.places] = predictions.targets
            seen += tokens[batch.inputs.documents >= 0].tolist()
        special = run.prepared.tokenizer.special_ids
        text = split.tokens(np.array([0]), np.array([split.num_tokens])).tolist()
        ordinary = sorted(token for token in text if token not in special)
        assert sorted(token for token in seen if token not in special) == ordinary
    again = opened(name, "train.evaluate_tokens=1000000")
    for one, other in zip(run.held_out, again.held_out, strict=True):
        assert torch.equal(one.inputs.tokens, other.inputs.tokens)


def test_few_held_out_tokens_are_enough_when_the_recipe_says_so(opened):
    run = opened("gpt2-mini", "train.evaluate_tokens=100")
    assert [len(batch.inputs.tokens) for batch in run.held_out] == [3]


@pytest.fixture(scope="module")
def overfitted(recipe, make_corpus, tmp_path_factory):
    """A function: a run that learns eight short texts by heart, begun or resumed; (its folder, its summary)."""
    corpus = make_corpus([topics[name][:150] for name in sorted(topics)[:10]])

    def make(*overrides: str, resumed: Path | None = None):
        out = resumed or tmp_path_factory.mktemp("overfitted") / "run"
        settings = recipe(
            "gpt2-mini", "train.budget=60 steps", "train.lr=0.02", "train.evaluate_every=4 steps",
            "train.batch_tokens=1024", "train.patience=2", "train.schedule=linear", *overrides,
        )  # fmt: skip
        return out, pretrain(settings, corpus, out, resume=resumed is not None, progress=False)

    return make


def test_a_run_that_overfits_says_so_and_keeps_its_best_model(overfitted):
    run, summary = overfitted()
    assert (summary["step"], summary["reason"]) == (60, "budget")
    warning = events(run, "warning")[0]
    assert warning["kind"] == "overfitting"
    assert "the run overfits; the model of that step is kept" in warning["message"]
    evaluations = events(run, "evaluation")
    best = min(evaluations, key=lambda record: record["held_out_loss"])
    assert best["step"] == summary["best_step"] < warning["step"] < 60
    assert f"step {best['step']}" in warning["message"]
    last = evaluations[-1]
    assert last["held_out_loss"] > best["held_out_loss"] + 0.5
    assert last["train_loss"] < best["train_loss"] / 2
    assert [record["best"] for record in evaluations if record["step"] > best["step"]] == [False] * (
        (60 - best["step"]) // 4
    )
    assert summary["held_out_loss"] == pytest.approx(best["held_out_loss"], rel=1e-5)
    kept = load_model(run / "model")[0].trunk.embeddings.tokens.weight
    final = load_file(run / "checkpoints" / "step-00000060" / "weights.safetensors")["trunk.embeddings.tokens.weight"]
    assert (kept - final).abs().max() > 0.01


def test_a_run_stops_early_when_the_recipe_says_so(overfitted):
    run, summary = overfitted("train.on_overfitting=stop")
    (warning,) = events(run, "warning")
    assert summary["reason"] == events(run, "end")[0]["reason"] == "stopped early"
    assert summary["step"] == warning["step"] < 60
    assert summary["best_step"] == warning["step"] - 2 * 4
    verify_checkpoint(run / "checkpoints" / f"step-{summary['step']:08d}")
    log = (run / "log.jsonl").read_bytes()
    assert overfitted("train.on_overfitting=stop", resumed=run)[1] == summary
    assert (run / "log.jsonl").read_bytes() == log
    (run / "summary.json").unlink()
    again = overfitted("train.on_overfitting=stop", resumed=run)[1]
    assert again | {"seconds": 0} == summary | {"seconds": 0}
    assert [record["step"] for record in events(run, "step")] == list(range(1, summary["step"] + 1))


def test_a_loss_that_is_no_number_stops_the_run_and_names_documents(recipe, corpus, tmp_path):
    run = tmp_path / "run"
    settings = recipe("gpt2-mini", "train.lr=1e30", "train.save_every=1 steps")
    with pytest.raises(
        TilthError, match=r"no update was made; start another run with a lower train\.lr.*the batch held .*text-\d+"
    ) as raised:
        pretrain(settings, corpus, run, progress=False)
    assert raised.value.exit_status == 1
    (warning,) = [record for record in events(run, "warning") if record["kind"] == "nonfinite"]
    assert warning["action"] == "stop"
    names = {json.loads(line) for line in (run / "shards" / "train.names").read_text().splitlines()}
    assert len(warning["documents"]) > 3 and set(warning["documents"]) <= names
    assert all(math.isfinite(record["loss"]) for record in events(run, "step"))
    step = warning["step"] - 1
    assert len(events(run, "step")) == step > 0
    for folder in (run / "checkpoints").glob("step-*"):
        verify_checkpoint(folder)
        weights = load_file(folder / "weights.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
    assert (run / "checkpoints" / f"step-{step:08d}").is_dir()


def test_updates_that_are_no_numbers_can_be_skipped(recipe, corpus, tmp_path):
    """After the first update nothing is finite any more, and the run says that it has nothing to show."""
    run = tmp_path / "run"
    settings = recipe("gpt2-mini", "train.lr=1e30", "train.on_nonfinite=skip")
    with pytest.raises(TilthError, match=r"no held-out loss was finite"):
        pretrain(settings, corpus, run, progress=False)
    steps = events(run, "step")
    warnings = [record for record in events(run, "warning") if record["kind"] == "nonfinite"]
    assert len(steps) == 12
    skipped = [record["step"] for record in steps if record["loss"] is None or record["grad_norm"] is None]
    assert [record["step"] for record in warnings] == skipped and len(skipped) > 5
    assert [record["train_loss"] for record in events(run, "evaluation")][1:] == [None] * len(
        events(run, "evaluation")[1:]
    )
    for folder in (run / "checkpoints").glob("step-*"):
        assert all(value.isfinite().all() for value in load_file(folder / "weights.safetensors").values())


def test_a_step_that_comes_again_worse_is_not_taken_for_the_kept_model(recipe, corpus, tmp_path, monkeypatch):
    """Step 3 is the best; after a rewind it comes again, is worse, and ends the run."""
    settings = recipe(
        "gpt2-mini", "train.on_nonfinite=rewind", "train.save_every=2 steps", "train.on_overfitting=stop"
    )  # fmt: skip
    losses, steps = [], []

    def second_is_worse(replica, batches):
        held_out = held_out_loss(replica, batches)
        losses.append(held_out.loss + (1.0 if losses else 0.0))
        return replace(held_out, loss=losses[-1])

    def fourth_is_infinite(monitor, loss, norm):
        steps.append(loss)
        return take_step(monitor, math.nan if len(steps) == 4 else loss, norm)

    take_step = Monitor.take_step
    monkeypatch.setattr(loop, "held_out_loss", second_is_worse)
    monkeypatch.setattr(Monitor, "take_step", fourth_is_infinite)
    overfits = Finding("overfitting", "the second evaluation is worse")
    monkeypatch.setattr(Monitor, "names_overfitting", lambda *_: overfits if len(losses) == 2 else None)
    summary = pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert [record["step"] for record in events(tmp_path / "run", "evaluation")][-1] == summary["step"] == 3
    assert (summary["best_step"], summary["held_out_loss"]) == (3, losses[0])


def test_a_run_whose_last_evaluation_is_its_best_is_not_scored_again(recipe, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("tilth.train.account.held_out_loss", lambda *_: pytest.fail("scored again"))
    summary = pretrain(recipe("gpt2-mini"), corpus, tmp_path / "run", progress=False)
    last = events(tmp_path / "run", "evaluation")[-1]
    assert summary["best_step"] == last["step"] == 12
    assert summary["held_out_loss"] == last["held_out_loss"] and summary["bits_per_byte"] == last["bits_per_byte"]
