"""Memory that does not suffice: a step is done again in smaller micro-batches, and comes out the same."""

import json
import re
import subprocess
import sys

import pytest
import torch

import tilth.train.loop as loop
from tilth.errors import TilthError, is_out_of_memory
from tilth.objectives.objective import Batch
from tilth.train.loop import pretrain
from tilth.train.trackers import read_log

TINY = (
    "model.layers=2", "model.width=32", "model.heads=2", "tokenizer.vocab_size=300", "data.length=32",
    "train.budget=12 steps", "train.lr=1e-3", "train.device=cpu", "train.precision=float32",
)  # fmt: skip
EIGHT_ROWS = ("train.micro_batch_tokens=256", "train.batch_tokens=512", "train.evaluate_tokens=100000")


@pytest.fixture
def room_for(monkeypatch):
    """A function: from a step on, forward passes of more than so many rows fail as PyTorch's do."""

    def limit(rows, from_step=0, message="DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"):
        original, started = Batch.loss_sums, []

        def loss_sums(batch, model, dtype):
            sums = original(batch, model, dtype)
            if not model.training:  # held-out text fits
                return sums
            started.append(len(batch.inputs.tokens))
            if len(batch.inputs.tokens) > rows and len(started) > 2 * from_step:
                raise RuntimeError(message)
            return sums

        monkeypatch.setattr(Batch, "loss_sums", loss_sums)
        return started

    return limit


def events(run, kind):
    return [record for record in read_log(run / "log.jsonl") if record["event"] == kind]


def losses(run):
    return [record["loss"] for record in events(run, "step")]


@pytest.mark.parametrize("name", ["gpt2-mini", "bert-mini"])
def test_the_result_is_that_of_small_micro_batches_from_the_start(
    name, recipe, corpus, tmp_path, room_for, outcome, capsys
):
    pretrain(recipe(name, *EIGHT_ROWS, "train.micro_batch_tokens=64"), corpus, tmp_path / "small", progress=False)
    pretrain(recipe(name, *EIGHT_ROWS), corpus, tmp_path / "large", progress=False)
    capsys.readouterr()
    room_for(2)
    summary = pretrain(recipe(name, *EIGHT_ROWS), corpus, tmp_path / "halved", progress=False)
    halved, small = outcome(tmp_path / "halved"), outcome(tmp_path / "small")
    assert halved["weights"] == small["weights"] and halved["optimizer"] == small["optimizer"]
    assert losses(tmp_path / "halved") == losses(tmp_path / "small")
    assert losses(tmp_path / "halved") == pytest.approx(losses(tmp_path / "large"), rel=2e-5)
    assert summary["step"] == 12
    warnings = events(tmp_path / "halved", "warning")
    assert [record["kind"] for record in warnings] == ["out of memory"] * 2
    assert [record["step"] for record in warnings] == [0, 0]
    assert "micro-batches of 8 rows: the run goes on with 4, and the same loss" in warnings[0]["message"]
    assert "train.micro_batch_tokens=64 " in warnings[1]["message"] and "dropout" not in warnings[1]["message"]
    printed = capsys.readouterr().err
    assert all(f"Warning: {record['message']}\n" in printed for record in warnings)


def test_a_halving_in_mid_run_changes_nothing_but_rounding_and_outlasts_a_resume(
    recipe, corpus, tmp_path, room_for, run_until, outcome, monkeypatch
):
    settings = recipe("gpt2-mini", *EIGHT_ROWS)
    pretrain(settings, corpus, tmp_path / "large", progress=False)
    room_for(4, from_step=5)
    pretrain(settings, corpus, tmp_path / "straight", progress=False)
    monkeypatch.undo()
    assert [record["step"] for record in events(tmp_path / "straight", "warning")] == [5]
    assert losses(tmp_path / "straight")[:5] == losses(tmp_path / "large")[:5]
    assert losses(tmp_path / "straight") == pytest.approx(losses(tmp_path / "large"), rel=2e-5)
    room_for(4, from_step=5)
    run_until(settings, corpus, tmp_path / "stopped", stop=7)
    monkeypatch.undo()
    pretrain(settings, corpus, tmp_path / "stopped", resume=True, progress=False)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")


def test_dropout_is_said_to_differ(opened, room_for):
    run = opened("gpt2-mini", *EIGHT_ROWS, "model.dropout=0.1")
    room_for(4)
    logged = []
    run.trackers.log = lambda event, step, **figures: logged.append((event, figures))
    run.model.train()
    loop.step_in_memory(run, run.batches.at(0), lambda *_, **__: None)
    assert "but for other draws of dropout" in logged[0][1]["message"]
    assert run.position.step == 1 and run.rows_per_micro_batch == 4
    assert not any(module._forward_hooks for module in run.model.modules()), "a failed pass is still looked at"
    assert max(len(batch.inputs.tokens) for batch in run.held_out) == 4


def test_one_row_too_many_ends_the_run_with_its_work_saved(recipe, corpus, tmp_path, room_for):
    room_for(0, from_step=3)
    with pytest.raises(TilthError, match=r"out of memory at step 3 with a single row of 32 tokens.*data\.length"):
        pretrain(recipe("gpt2-mini", *EIGHT_ROWS), corpus, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "checkpoints" / "step-00000003").is_dir()
    assert len(events(tmp_path / "run", "warning")) == 3


def test_other_errors_and_broken_updates_are_not_tried_again(opened, room_for, monkeypatch):
    run = opened("gpt2-mini", *EIGHT_ROWS)
    room_for(4, message="shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        loop.step_in_memory(run, run.batches.at(0), None)
    monkeypatch.undo()

    def fail():
        raise MemoryError

    monkeypatch.setattr(run.optimizers.parts[-1], "step", fail)
    with pytest.raises(MemoryError):
        loop.step_in_memory(run, run.batches.at(0), None)
    assert (run.position.step, run.rows_per_micro_batch) == (0, 8)


def test_an_update_is_not_made_twice(opened, monkeypatch):
    """Memory that runs out after the update, for the looks at layers, must not lead to another update."""
    run = opened("gpt2-mini", *EIGHT_ROWS)

    def fail(self):
        raise MemoryError

    monkeypatch.setattr(loop.LayerProbe, "after_update", fail)
    with pytest.raises(MemoryError):
        loop.step_in_memory(run, run.batches.at(0), None)
    assert run.steps_since_evaluation == 1 and run.rows_per_micro_batch == 8


def test_smaller_micro_batches_can_be_asked_for_when_a_run_goes_on(recipe, corpus, tmp_path, run_until):
    run_until(recipe("gpt2-mini", *EIGHT_ROWS), corpus, tmp_path / "run", stop=6)
    smaller = recipe("gpt2-mini", *EIGHT_ROWS, "train.micro_batch_tokens=64")
    pretrain(smaller, corpus, tmp_path / "run", resume=True, accept_changes=True, progress=False)
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert json.loads((newest / "state.json").read_text())["state"]["rows_per_micro_batch"] == 2


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 56)
    assert is_out_of_memory(raised.value)


LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from tilth.recipe import load_recipe
from tilth.train.loop import Run, step_in_memory
from tilth.train.prepare import prepare

corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
recipe = load_recipe("gpt2-mini", sys.argv[3:])
run = Run(recipe, prepare(recipe, corpus, out, False, False), out, torch.device("cpu"), False)
run.model.train()
batches = [run.batches.at(step) for step in range(2)]
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 300 * 10**6
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for step in range(2):
    step_in_memory(run, batches[step], lambda *_, **__: None)
print(run.rows_per_micro_batch)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and limits the address space")
def test_allocations_that_really_fail(opened, corpus, tmp_path, recipe):
    """A process that may grow by 300 MB, for a step that takes more."""
    # AdamW, whose update needs no scratch memory: half an update cannot be done again.
    settings = (
        "train.batch_tokens=65536", "train.micro_batch_tokens=65536", "train.evaluate_tokens=64",
        "train.optimizer=adamw",
    )  # fmt: skip
    run = opened("gpt2-mini", *settings)
    figures = []
    run.trackers.log = lambda event, step, **values: figures.append(values["loss"]) if event == "step" else None
    run.model.train()
    for step in range(2):
        run.train_step(run.batches.at(step), lambda *_, **__: None)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(corpus), str(tmp_path), *TINY, *settings],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    halvings = len(events(tmp_path, "warning"))
    # The first step finds out. On a busy machine the second was once seen to halve them again.
    told = re.findall(r"Warning: out of memory at step ([01]) with micro-batches of (\d+) rows", done.stderr)
    assert [int(rows) for _, rows in told] == [2048 >> number for number in range(halvings)]
    assert told[0][0] == "0"
    assert int(done.stdout) == 2048 >> halvings
    assert losses(tmp_path) == pytest.approx(figures, rel=2e-5)
