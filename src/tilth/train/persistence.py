"""What a run keeps in its checkpoints, and how it takes that up again: to go on, or to go back."""

import sys
from typing import TYPE_CHECKING, Any

from tilth.errors import UsageError
from tilth.files import recover_folder
from tilth.train.checkpoint import Checkpoint, go_back, load_latest
from tilth.train.identity import check_identity, measured_otherwise
from tilth.train.layers import LayerMonitor
from tilth.train.lost_model import restore_model
from tilth.train.monitor import Monitor
from tilth.train.position import Clock

if TYPE_CHECKING:
    from tilth.train.loop import Run

COUNTERS = (
    "batches_left_out", "rewinds", "scheduled_step", "loss_since_evaluation", "steps_since_evaluation",
    "last_held_out_loss", "ended", "rows_per_micro_batch", "peak_rate",
)  # fmt: skip
"""The attributes of a run that are kept as they are."""


def snapshot(run: "Run", milestone: bool) -> Checkpoint:
    """The run as it is now. Every process takes part; the weights and the optimizer's state are the first's.

    milestone: it stays when older checkpoints are removed.
    """
    return Checkpoint(
        weights=run.replica.weights(),
        optimizer=run.optimizers.state(),
        state={name: getattr(run, name) for name in COUNTERS}
        | run.position.state()
        | {
            "seconds": run.position.clock.seconds,
            "monitor": run.monitor.state(),
            "layers": run.layers.state(),
            "log_bytes": run.trackers.synced_bytes(),
        },
        identity=run.identity,
        held_out_loss=run.last_held_out_loss,
        milestone=milestone,
        protected=run.scheduled_step or None,  # to rewind to, if a resume asks for that
    )


def restore(run: "Run", accept_changes: bool) -> dict[str, list[str]]:
    """Take up the newest whole checkpoint; returns what the log should tell of it.

    Raises: TilthError when none is whole; UsageError for changes that lead to another result and are not accepted, and
    for a budget below what has been done.
    """
    # The first process reads, so that all go on from the same checkpoint whatever they see of the folder.
    checkpoint, problems, found = None, [], None
    if run.world.is_first:
        checkpoint, problems = load_latest(run.out / "checkpoints")
        for problem in problems:
            print(f"passed over: {problem}", file=sys.stderr)
        changes = check_identity(checkpoint.identity, run.identity, accept_changes)
        recover_folder(run.out / "model")
        found = checkpoint.state["seconds"], checkpoint.identity["recipe"]["train"], changes
    rows = run.rows_per_micro_batch
    _load(run, checkpoint)
    best = run.world.share(restore_model(run, accept_changes, problems) if run.world.is_first else None)
    assert best is not None
    run.monitor.best_step, run.monitor.best_loss = best
    shared = run.world.share(found)
    assert shared is not None
    seconds, before, changes = shared
    run.position.clock = Clock(seconds, agreed=seconds if run.world.size > 1 else None)
    if changes["accepted"]:
        run.ended = None
    now = run.identity["recipe"]["train"]
    if before.get("lr") != now["lr"]:
        run.peak_rate = now["lr"]
    if before.get("micro_batch_tokens") != now["micro_batch_tokens"]:
        run.rows_per_micro_batch = rows
    run.position.recount(before, now)
    if before.get("budget") != now["budget"] and run.position.spent > 1:
        done = run.position.units(run.settings.budget)
        raise UsageError(
            f"the run has done {done:.5g} {run.settings.budget.unit} already, more than train.budget="
            f"{run.settings.budget}: give it as much or more"
        )
    _forget_other_losses(run, checkpoint)
    return {"damaged": problems, **changes}


def rewind(run: "Run") -> None:
    """Go back to the last checkpoint on schedule, and leave out the batches since.

    The best model seen stays the best, wherever it was seen.
    """
    target, rewinds, best = run.scheduled_step, run.rewinds, run.monitor
    failed, last_batches = run.position.step + 1, run.position.step + run.batches_left_out
    run.optimizers.clear()
    run.saver.wait()
    checkpoint = go_back(run.out / "checkpoints", target) if run.world.is_first else None
    _load(run, checkpoint)
    _forget_other_losses(run, checkpoint)
    if best.best_loss < run.monitor.best_loss:
        run.monitor.best_loss, run.monitor.best_step = best.best_loss, best.best_step
        run.monitor.train_loss_at_best = best.train_loss_at_best
    run.rewinds = rewinds + 1
    run.batches_left_out = last_batches + 1 - target
    run.saved = None  # the checkpoints of later steps are gone
    run.upcoming.close()
    run.upcoming = run.batches.from_step(target + run.batches_left_out)
    run.trackers.log("rewind", target, from_step=failed, batches_left_out=run.batches_left_out)


def _load(run: "Run", checkpoint: Checkpoint | None) -> None:
    """Everything of a checkpoint but its clock. The first process has it, the others give None."""
    run.replica.load_weights(checkpoint.weights if checkpoint else None)
    run.optimizers.load_state(checkpoint.optimizer if checkpoint else None)
    state: dict[str, Any] = run.world.share(dict(checkpoint.state) if checkpoint else {})
    run.monitor = Monitor.from_state(state["monitor"] | {"patience": run.settings.patience})
    run.layers = LayerMonitor(**state["layers"])
    run.position.load_state(state)
    run.log_bytes = state["log_bytes"]
    for name in COUNTERS:
        setattr(run, name, state[name])


def _forget_other_losses(run: "Run", checkpoint: Checkpoint | None) -> None:
    """Of what a checkpoint remembers, forget the losses that would be others now, by changes accepted since.

    The best model so far stays in the run's folder until the next evaluation, which takes its place.
    """
    others = run.world.share(measured_otherwise(checkpoint.identity, run.identity) if checkpoint else [])
    if "training" in others:
        run.monitor.forget_training_losses()
        if run.position.spent < 1:  # otherwise the last steps before are still to be evaluated
            run.loss_since_evaluation, run.steps_since_evaluation = 0.0, 0
    if "held_out" in others:
        run.monitor.forget_held_out_losses()
        run.last_held_out_loss = None
