"""What a run does about what the monitor finds, and about what is asked of it while it goes on."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tilth.errors import TilthError, UsageError
from tilth.objectives.objective import Batch
from tilth.progress import announce
from tilth.train.control import Change
from tilth.train.layers import LayerProbe, Look
from tilth.train.monitor import ACTIONS, Finding
from tilth.train.persistence import rewind

if TYPE_CHECKING:
    from tilth.train.loop import Run

MOST_REWINDS = 3
"""How often a run goes back to one checkpoint; where that does not help, other batches are no cure."""


def respond(run: "Run", finding: Finding, batches: list[Batch]) -> str:
    """Log a finding and do what the recipe says; returns what was done.

    `skip`, and leaving out the update of a run that stops, are left to the caller.
    batches: those it was found in, if it is about any.
    Raises: TilthError when the run cannot go on.
    """
    action = _choose(run, finding)
    documents = _warn(run, finding, batches, action)
    if action == "stop" and finding.kind in ("nonfinite", "corruption"):
        run.optimizers.clear()
        if finding.kind == "corruption":  # what is in memory cannot be trusted
            raise TilthError(f"step {run.position.step}: {finding.message}; nothing was saved since (see log.jsonl)")
        run.save()
        raise TilthError(
            f"step {run.position.step + 1}: {finding.message}: no update was made; "
            "start another run with a lower train.lr, or with train.precision=float32; "
            f"the batch held {', '.join(documents[:3])}{' and others' if documents[3:] else ''} (see log.jsonl)"
        )
    if action == "stop":
        run.ended = "stopped early"
    elif action == "lower_rate":
        run.peak_rate /= 2
    elif action == "rewind":
        rewind(run)
    return action


def _choose(run: "Run", finding: Finding) -> str:
    """What the recipe says to do about a finding, as far as it can be done now."""
    setting = {"dead": "on_layers", "exploding": "on_layers"}.get(finding.kind, f"on_{finding.kind}")
    action = getattr(run.settings, setting, "continue")
    if action == "rewind" and run.scheduled_step == 0:
        action = "skip" if finding.kind in ("nonfinite", "spike") else "continue"
    elif action == "rewind" and run.rewinds >= MOST_REWINDS:
        action = "skip" if finding.kind == "spike" else "stop"
    return action


def respond_to_layers(run: "Run", probe: LayerProbe, batches: list[Batch]) -> str:
    """Judge the layers after an update; returns what was done about what was found."""
    # The first process's, so that all judge alike: each has seen the outputs for its own rows.
    shared = run.world.share({name: asdict(look) for name, look in probe.after_update().items()})
    looks = {name: Look(**figures) for name, figures in shared.items()}
    run.trackers.log("layers", run.position.step + 1, layers=shared)
    findings = run.layers.take(looks)
    for finding in findings[1:]:  # one act answers all that one look finds
        _warn(run, finding, batches, _choose(run, finding))
    return respond(run, findings[0], batches) if findings else "continue"


def take_change(run: "Run") -> None:
    """Make the change that was asked for through the run folder, which the first process reads."""
    asked: dict[str, Any] | None = None
    if run.control is not None:
        try:
            change = run.control.take(run.position.step)
            asked = None if change is None else change.model_dump()
        except UsageError as error:
            _warn(run, Finding("control", str(error)), [], "continue")
    asked = run.world.share(asked)
    if asked is None:
        return
    change = Change(**asked)
    run.trackers.log("change", run.position.step, **change.model_dump())
    if change.lr is not None:
        announce(f"step {run.position.step}: peak rate {change.lr:g}, as control.yaml asks", run.progress_shown)
        run.peak_rate = change.lr
    if change.stop:
        announce(f"step {run.position.step}: stops, as control.yaml asks", run.progress_shown)
        run.ended = "stopped on request"


def _warn(run: "Run", finding: Finding, batches: list[Batch], action: str) -> list[str]:
    """Log a finding; returns the names of the documents in its batches, twenty at most."""
    numbers = sorted({int(number) for batch in batches for number in batch.documents})
    if run.world.size > 1 and finding.kind in ("nonfinite", "spike"):
        numbers = run.batches.documents(run.position.step + run.batches_left_out)
    documents = run.prepared.train.split.document_names(numbers[:20])
    step = run.position.step + 1 if batches else run.position.step
    figures = {"kind": finding.kind, "message": finding.message, "documents": documents, "action": action}
    run.trackers.log("warning", step, **figures)
    announce(f"{finding.kind} at step {step}: {finding.message} ({ACTIONS[action]})", run.progress_shown)
    return documents
