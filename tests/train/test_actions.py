"""What a run does about what the monitor finds; and that it does the same when it is interrupted."""

import json
import os
from pathlib import Path

import pytest
import torch

from tilth.errors import TilthError
from tilth.train.batches import Batches
from tilth.train.checkpoint import read_checkpoint, save_checkpoint
from tilth.train.control import Change, Control
from tilth.train.layers import LayerMonitor
from tilth.train.loop import Run, pretrain
from tilth.train.monitor import Finding
from tilth.train.trackers import read_log

RUN = ("gpt2-mini", "model.dropout=0.1", "train.budget=30 steps", "train.evaluate_every=10 steps", "train.lr=1e-2")


def events(run, kind):
    return [record for record in read_log(run / "log.jsonl") if record["event"] == kind]


@pytest.fixture
def nan_batch(monkeypatch):
    """A function: from then on a weight becomes NaN just before the batches of one place in the data are trained on."""

    def plant(place: int) -> None:
        train_step = Run.train_step

        def planted(self, batches, update):
            if self.position.step + self.batches_left_out == place:
                with torch.no_grad():
                    self.model.trunk.blocks[0].mlp.up.weight[1, 2] = float("nan")
            train_step(self, batches, update)

        monkeypatch.setattr(Run, "train_step", planted)

    return plant


@pytest.fixture
def strange_batches(monkeypatch):
    """A function: from then on the batches of some places in the data are one token over and over, and its targets the
    last of the vocabulary."""

    def plant(*places: int) -> None:
        at = Batches.at

        def strange(self, step):
            batches = at(self, step)
            for batch in batches if step in places else []:
                batch.inputs.tokens.fill_(7)
                batch.predictions["causal"].targets.fill_(299)
            return batches

        monkeypatch.setattr(Batches, "at", strange)

    return plant


PLANTS = {
    "rewind from NaN": (["train.on_nonfinite=rewind", "train.save_every=6 steps"], "nan_batch", [14], [8, 13, 20]),
    "rewind from a spike": (["train.on_spike=rewind", "train.save_every=7 steps"], "strange_batches", [24], [22, 26]),
    "skip a spike": (["train.on_spike=skip", "train.save_every=7 steps"], "strange_batches", [20, 22], [19, 21, 23]),
    "lower the rate": (
        ["train.on_spike=lower_rate", "train.save_every=50 steps"], "strange_batches", [20, 22], [20, 21, 25],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_an_interrupted_run_acts_as_the_straight_one(name, recipe, corpus, run_until, outcome, tmp_path, request):
    overrides, fixture, places, stops = PLANTS[name]
    request.getfixturevalue(fixture)(*places)
    settings = recipe(*RUN, *overrides)
    pretrain(settings, corpus, tmp_path / "straight", progress=False)
    kind = "nonfinite" if fixture == "nan_batch" else "spike"
    warnings = [(record["kind"], record["action"]) for record in events(tmp_path / "straight", "warning")]
    assert (kind, settings.model_dump()["train"][f"on_{kind}"]) in warnings
    straight = outcome(tmp_path / "straight")
    for number, stop in enumerate(stops):
        run_until(settings, corpus, tmp_path / "run", stop=stop, resume=number > 0)
    pretrain(settings, corpus, tmp_path / "run", resume=True, progress=False)
    interrupted = outcome(tmp_path / "run")
    for part in ("state", "weights", "optimizer", "model"):
        assert interrupted[part] == straight[part], part
    assert interrupted["log"] == straight["log"]


def test_a_rewind_goes_back_to_the_checkpoint_and_leaves_batches_out(recipe, corpus, nan_batch, monkeypatch, tmp_path):
    """Steps 13 to 15 are done again, with the batches after those that led to the fault."""
    nan_batch(14)
    settings = recipe(*RUN, "train.on_nonfinite=rewind", "train.save_every=6 steps")
    summary = pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert (summary["step"], summary["reason"]) == (30, "budget")
    (warning,) = events(tmp_path / "run", "warning")
    assert (warning["kind"], warning["step"], warning["action"]) == ("nonfinite", 15, "rewind")
    assert len(warning["documents"]) > 3
    (rewind,) = events(tmp_path / "run", "rewind")
    assert (rewind["step"], rewind["from_step"], rewind["batches_left_out"]) == (12, 15, 3)
    steps = [record["step"] for record in events(tmp_path / "run", "step")]
    assert steps == [*range(1, 15), *range(13, 31)]
    assert all(record["loss"] is not None for record in events(tmp_path / "run", "step"))
    # The same weights as a run that has no other batches after step 12 to begin with.
    monkeypatch.undo()
    at = Batches.at
    monkeypatch.setattr(Batches, "at", lambda self, step: at(self, step if step < 12 else step + 3))
    pretrain(settings, corpus, tmp_path / "other", progress=False)
    weights = [
        (tmp_path / run / "checkpoints" / "step-00000030" / "weights.safetensors").read_bytes()
        for run in ("run", "other")
    ]
    assert weights[0] == weights[1]


def test_a_rewind_to_before_an_accepted_change_brings_no_losses_of_then_back(
    recipe, corpus, nan_batch, run_until, tmp_path
):
    settings, run = (*RUN, "train.on_nonfinite=rewind", "train.save_every=6 steps"), tmp_path / "run"
    run_until(recipe(*settings), corpus, run, stop=13)
    saved = {step: read_checkpoint(run / "checkpoints" / f"step-{step:08d}") for step in (12, 13)}
    for step, checkpoint in saved.items():
        checkpoint.state["monitor"] |= {"best_loss": 1.0}  # lower than any that comes
        save_checkpoint(run / "checkpoints", step, checkpoint, keep=9)
    nan_batch(14)
    changed = recipe(*settings, "train.evaluate_tokens=300")
    summary = pretrain(changed, corpus, run, resume=True, accept_changes=True, progress=False)
    assert [record["step"] for record in events(run, "rewind")] == [12]
    after = [record for record in events(run, "evaluation") if record["step"] > 10]
    assert [record["step"] for record in after] == [20, 30] and after[0]["best"]
    assert summary["held_out_loss"] == min(record["held_out_loss"] for record in after)


def test_a_rewound_run_that_is_interrupted_where_it_was_before_is_saved_again(
    recipe, corpus, nan_batch, run_until, monkeypatch, tmp_path
):
    settings = recipe(*RUN, "train.on_nonfinite=rewind", "train.save_every=6 steps")
    run_until(settings, corpus, tmp_path / "run", stop=14)
    nan_batch(14)
    run_until(settings, corpus, tmp_path / "run", stop=14, resume=True)
    assert [record["from_step"] for record in events(tmp_path / "run", "rewind")] == [15]
    assert (tmp_path / "run" / "checkpoints" / "step-00000014").is_dir()


def test_two_findings_of_one_look_lead_to_one_rewind(recipe, corpus, monkeypatch, tmp_path):
    findings = iter([[], [Finding("dead", "a layer is dead"), Finding("exploding", "another explodes")]])
    monkeypatch.setattr(LayerMonitor, "take", lambda self, looks: next(findings, []))
    settings = recipe(*RUN, "train.on_layers=rewind", "train.save_every=6 steps")
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    warnings = [(record["kind"], record["action"]) for record in events(tmp_path / "run", "warning")]
    assert sorted(warnings) == [("dead", "rewind"), ("exploding", "rewind")]
    (rewind,) = events(tmp_path / "run", "rewind")
    assert (rewind["step"], rewind["from_step"], rewind["batches_left_out"]) == (18, 21, 3)


def test_a_rewind_that_does_not_help_ends_the_run(recipe, corpus, monkeypatch, tmp_path):
    train_step = Run.train_step

    def broken(self, batches, update):
        if self.position.step == 14:
            with torch.no_grad():
                self.model.trunk.blocks[0].mlp.up.weight[1, 2] = float("nan")
        train_step(self, batches, update)

    monkeypatch.setattr(Run, "train_step", broken)
    settings = recipe(*RUN, "train.on_nonfinite=rewind", "train.save_every=6 steps")
    with pytest.raises(TilthError, match="step 15: loss nan, gradient norm nan: no update was made"):
        pretrain(settings, corpus, tmp_path / "run", progress=False)
    actions = [record["action"] for record in events(tmp_path / "run", "warning")]
    assert actions == ["rewind"] * 3 + ["stop"]
    assert [record["batches_left_out"] for record in events(tmp_path / "run", "rewind")] == [3, 6, 9]


def test_without_a_checkpoint_a_rewind_is_a_skip(recipe, corpus, strange_batches, tmp_path):
    strange_batches(20)
    settings = recipe(*RUN, "train.on_spike=rewind", "train.save_every=50 steps")
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    (warning,) = events(tmp_path / "run", "warning")
    assert (warning["kind"], warning["step"], warning["action"]) == ("spike", 21, "skip")


def test_the_rate_is_halved(recipe, corpus, strange_batches, tmp_path):
    strange_batches(20)
    for name, action in (("lower", "lower_rate"), ("plain", "continue")):
        settings = recipe(*RUN, f"train.on_spike={action}")
        pretrain(settings, corpus, tmp_path / name, progress=False)
    lower, plain = ([record["lr"] for record in events(tmp_path / name, "step")] for name in ("lower", "plain"))
    assert lower[:21] == plain[:21]
    assert lower[21:] == [value / 2 for value in plain[21:]]


def ask(run: Path, text: str) -> None:
    (run / "control.yaml").write_text(text)


@pytest.fixture
def at_step(monkeypatch):
    """A function: do something with the run folder just before the numbered step is begun, once."""

    def plan(step, act):
        train_step, done = Run.train_step, []

        def acting(self, batches, update):
            if self.position.step + 1 == step and not done:
                done.append(act(self.out))
            train_step(self, batches, update)

        monkeypatch.setattr(Run, "train_step", acting)

    return plan


def test_a_change_of_the_rate_takes_effect_and_is_replayed(recipe, corpus, at_step, outcome, tmp_path):
    at_step(9, lambda run: ask(run, "lr: 5e-4\n"))
    settings = recipe(*RUN, "train.save_every=6 steps", "train.keep_checkpoints=9")
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "control.yaml").exists()
    (change,) = events(tmp_path / "run", "change")
    assert {name: change[name] for name in ("step", "lr", "stop")} == {"step": 10, "lr": 5e-4, "stop": False}
    rates = [record["lr"] for record in events(tmp_path / "run", "step")]
    assert rates[5] == rates[9] == 1e-2 and rates[10] == rates[11] == 5e-4
    straight = outcome(tmp_path / "run")
    for step in (12, 18, 24, 30):  # go on from before the change, with nobody there to ask for it again
        folder = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        (folder / "weights.safetensors").write_bytes(b"")
    pretrain(settings, corpus, tmp_path / "run", resume=True, progress=False)
    assert events(tmp_path / "run", "resume")[0]["step"] == 6
    assert outcome(tmp_path / "run") == straight
    assert len(events(tmp_path / "run", "change")) == 1


def test_a_change_after_a_record_cut_short_is_replayed(tmp_path):
    (tmp_path / "changes.jsonl").write_text('{"step": 3, "lr": 0.1, "asked": 1}\n{"step": 5, "lr"')
    control = Control(tmp_path, resume=True)
    ask(tmp_path, "lr: 0.2")
    assert control.take(7) is None and control.take(8) == Change(lr=0.2)
    again = Control(tmp_path, resume=True)
    assert [again.take(step) for step in (3, 5, 8)] == [Change(lr=0.1), None, Change(lr=0.2)]


def test_a_change_is_new_however_old_its_file(tmp_path):
    """A copy that keeps the time of its original; but what a crash left behind is no request."""
    first = Control(tmp_path, resume=False)

    def copy() -> None:
        ask(tmp_path, "lr: 0.2")
        os.utime(tmp_path / "control.yaml", ns=(10**18, 10**18))

    for step in (0, 10):
        copy()
        assert [first.take(step + look) for look in range(3)] == [None, Change(lr=0.2), None]
    copy()
    resumed = Control(tmp_path, resume=True)
    assert [resumed.take(step) for step in (1, 11, 12, 13)] == [Change(lr=0.2), Change(lr=0.2), None, None]
    assert not (tmp_path / "control.yaml").exists()
    copy()
    assert [resumed.take(step) for step in (14, 15)] == [None, Change(lr=0.2)]


@pytest.mark.parametrize(
    "line", [b'{"x": 1}', b'{"step": 5, "lr": 0.2, "asked": "\xff"}', b"5", b'{"step": [], "lr": 1}']
)
def test_a_damaged_record_of_changes_is_named(line, tmp_path):
    (tmp_path / "changes.jsonl").write_bytes(b'{"step": 3, "lr": 0.1, "asked": 1}\n' + line + b"\n")
    with pytest.raises(TilthError, match=r"changes\.jsonl is damaged in line 2: restore the line, or remove it"):
        Control(tmp_path, resume=True)


def test_what_cannot_be_set_aside_is_reported_once_and_ignored(recipe, corpus, at_step, tmp_path):
    def make_folder(run):
        (run / "control.yaml").mkdir()
        (run / "control.invalid.yaml").write_text("from before")

    at_step(5, make_folder)
    summary = pretrain(recipe(), corpus, tmp_path / "run", progress=False)
    (warning,) = events(tmp_path / "run", "warning")
    assert warning["kind"] == "control" and "it is still there, because it cannot be set aside" in warning["message"]
    assert (summary["step"], summary["reason"]) == (12, "budget")
    assert (tmp_path / "run" / "control.invalid.yaml").read_text() == "from before"


def test_a_run_can_be_asked_to_stop_and_goes_on_later(recipe, corpus, at_step, tmp_path):
    at_step(9, lambda run: ask(run, "stop: true"))
    settings = recipe(*RUN)
    summary = pretrain(settings, corpus, tmp_path / "run", progress=False)
    assert (summary["step"], summary["reason"]) == (10, "stopped on request")
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert pretrain(settings, corpus, tmp_path / "run", resume=True, progress=False)["step"] == 30


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: fast", "lr: must be a valid number"),
        ("lr: -1", "lr: must be greater than 0"),
        ("rate: 1", "unknown key rate"),
        ("stop: false", "nothing to change"),
        ("lr: [", "not valid YAML"),
    ],
)
def test_a_change_that_is_not_valid_is_reported_once_and_ignored(
    text, words, recipe, corpus, at_step, outcome, tmp_path
):
    settings = recipe("gpt2-mini")
    at_step(5, lambda run: ask(run, text))
    pretrain(settings, corpus, tmp_path / "run", progress=False)
    (warning,) = events(tmp_path / "run", "warning")
    assert warning["kind"] == "control" and words in warning["message"]
    assert (tmp_path / "run" / "control.invalid.yaml").read_text() == text
    assert not (tmp_path / "run" / "control.yaml").exists()
    rates = [record["lr"] for record in events(tmp_path / "run", "step")]
    assert rates[1:7] == [1e-3] * 6 and len(rates) == 12


def test_findings_are_shown_in_the_terminal_and_in_the_report(recipe, corpus, strange_batches, capsys, tmp_path):
    from tilth.evidence.report import write_run_report

    strange_batches(20)
    pretrain(recipe(*RUN, "train.on_spike=skip"), corpus, tmp_path / "run")
    shown = capsys.readouterr().err
    assert "spike at step 21: the loss jumped to" in shown and "(no update was made)" in shown
    write_run_report(tmp_path / "run")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<strong>Spike</strong> at step 21: the loss jumped to" in report and "(no update was made)" in report
    (warning,) = events(tmp_path / "run", "warning")
    assert warning["documents"][0] in report
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["step"] == 30
