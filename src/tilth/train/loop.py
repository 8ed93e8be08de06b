"""The training loop.

One step: micro-batches forward and backward, one clipped update, and on schedule an evaluation, samples and a
checkpoint.
Everything random comes from (seed, step), so a resumed run is the run that was never stopped; only a budget in minutes
makes the rate and the end depend on the clock.
"""

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tilth.errors import Interrupted, TilthError, UsageError
from tilth.files import output_folder, read_json, recover_folder, sha256_file, write_json, write_text
from tilth.key import Key
from tilth.model.folder import load_model, save_model
from tilth.model.model import Model
from tilth.model.precision import compute_dtype, describe_processor, keep_freed_memory
from tilth.model.threads import choose_threads, threads_restored
from tilth.objectives.objective import Batch
from tilth.progress import announce, progress_bar
from tilth.recipe import Budget, Recipe
from tilth.train.batches import Batches
from tilth.train.checkpoint import Checkpoint, go_back, holds_checkpoints, load_latest, recorded_threads
from tilth.train.control import Change, Control
from tilth.train.corruption import GUARD_TOKENS, recompute
from tilth.train.distributed import World, goes_on, note_start
from tilth.train.held_out import HeldOut, held_out_loss
from tilth.train.identity import check_identity, run_identity
from tilth.train.interrupt import Interrupt
from tilth.train.layers import EVERY, LayerMonitor, LayerProbe, Look
from tilth.train.monitor import ACTIONS, Finding, Monitor, Starvation
from tilth.train.optimizers import Optimizers
from tilth.train.out_of_memory import step_in_memory
from tilth.train.parallel import Replica
from tilth.train.prepare import Prepared, fresh_model, prepare
from tilth.train.samples import default_prompts, sample
from tilth.train.saver import Saver
from tilth.train.schedules import rate
from tilth.train.trackers import Trackers, has_saved
from tilth.version import __version__

EVALUATIONS, SAVES = 12, 6
"""How often a run evaluates and saves over its budget, unless the recipe says."""
INTERVALS = {"last_evaluated": "evaluate_every", "last_saved": "save_every", "last_milestone": "keep_every"}
"""Where a run keeps how far it was when it last did something, in the unit of the setting that says how often."""
GOES_ON = ("interrupted", "stopped on request")
"""Reasons to end from which a resume trains on."""
MOST_REWINDS = 3
"""How often a run goes back to one checkpoint; where that does not help, other batches are no cure."""
MICRO_BATCH_TOKENS = {"cpu": 8192, "cuda": 65_536, "mps": 8192}


@threads_restored()
def pretrain(
    recipe: Recipe,
    corpus: Path,
    out: Path,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    progress: bool = True,
    world: World | None = None,
) -> dict[str, Any]:
    """Pre-train a model and leave it, with its log and checkpoints, in the run folder `out`.

    corpus: a corpus folder, or raw data to build one from. resume: go on from the newest whole checkpoint in `out`; a
    run that has ended, by its budget or stopped early, is left as it is. accept_changes: go on although what has
    changed since leads to another result. world: the processes that train together, when there are others.
    Returns the run's summary (also `summary.json`).
    Raises: TilthError or UsageError for data, settings or folders that cannot be used; Interrupted after a signal,
    once saved.
    """
    world = world or World()
    device = world.device(recipe.train.device)
    if device.type == "cpu":
        keep_freed_memory()
    resume = goes_on(world, out, resume)
    if world.is_first:
        _check_folder(out, resume, accept_changes)
        note_start(out)
    # A run that ended before its first checkpoint has nothing to go on with, and is started anew.
    resume = world.share(resume and (holds_checkpoints(out / "checkpoints") or has_saved(out)))
    prepared = world.first_then_others(
        # What the first process has made anew is what the others find.
        lambda first: prepare(recipe, corpus, out, resume or not first, progress and first, accept_changes and first),
        f"prepared {out}",
    )
    if world.size == 1:  # processes that share a host take the threads that torchrun gives each
        choose_threads(device, recorded_threads(out / "checkpoints") if resume else None, progress)
    return Run(recipe, prepared, out, device, resume, accept_changes, world).train(progress and world.is_first)


def _check_folder(out: Path, resume: bool, accept_changes: bool) -> None:
    output_folder(out)
    if accept_changes and not resume:
        raise UsageError("changes can be accepted in a run that goes on: give --accept-changes with --resume")
    if not resume and holds_checkpoints(out / "checkpoints"):
        raise UsageError(f"{out} already holds a run; go on with --resume, or choose another --out")
    if resume and not (out / "recipe.yaml").exists():
        raise UsageError(f"{out} holds no run to resume; start one without --resume")


@dataclass
class Clock:
    """Seconds spent training, those before a resume included.

    agreed: the first process's reading, where there are several, so that all decide alike.
    """

    before: float
    started: float
    agreed: float | None = None

    @property
    def seconds(self) -> float:
        return self.reading if self.agreed is None else self.agreed

    @property
    def reading(self) -> float:
        """What this process's own clock says."""
        return self.before + time.perf_counter() - self.started


class Run:
    """One pre-training run: what it has, and where it is."""

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        out: Path,
        device: torch.device,
        resume: bool,
        accept_changes: bool = False,
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        self.recipe, self.settings, self.prepared, self.out = recipe, recipe.train, prepared, out
        self.device, self.dtype = device, compute_dtype(recipe.train.precision, device)
        length = recipe.data.length
        micro_tokens = self.settings.micro_batch_tokens or MICRO_BATCH_TOKENS[device.type]
        self.rows_per_step = max(1, self.settings.batch_tokens // length)
        rows_per_micro_batch = max(1, min(self.rows_per_step, micro_tokens // length))
        sizes = (recipe.seed, self.rows_per_step, rows_per_micro_batch, self.world.rank, self.world.size)
        self.batches = Batches(prepared.objective, prepared.train, *sizes)
        self.validation = Batches(prepared.objective, prepared.validation, *sizes)
        self.held_out = self.validation.first_rows(self.settings.evaluate_tokens)
        self.prompts = list(self.settings.prompts) or default_prompts(
            prepared.validation.split, prepared.tokenizer, prepared.objective.heads[0]
        )
        self.identity = run_identity(recipe, prepared, device, self.dtype, self.world.size)
        self.clock = Clock(0.0, time.perf_counter())
        fresh = fresh_model(recipe, prepared, warm=not resume and self.world.is_first)
        self.num_parameters, self.flops_per_token = fresh.num_parameters(), fresh.flops_per_token(length)
        self.replica = Replica(fresh, self.settings, self.world, device, self.dtype)
        self.model: Model = self.replica.model
        self.optimizers = Optimizers(self.model, self.settings, self.world)
        self.monitor, self.layers, self.starvation = Monitor(self.settings.patience), LayerMonitor(), Starvation()
        self.guarded = self.batches.first_rows(GUARD_TOKENS)
        self.control = Control(out, resume) if self.world.is_first else None
        self.progress_shown = False
        self.step, self.tokens = 0, 0
        # The batches of a step are those numbered step + batches_left_out: a rewind leaves some out.
        self.batches_left_out, self.rewinds, self.scheduled_step = 0, 0, 0
        self.loss_since_evaluation, self.steps_since_evaluation = 0.0, 0
        self.last_evaluated = 0.0
        self.last_saved, self.last_milestone = 0.0, 0.0
        self.last_held_out: HeldOut | None = None
        self.last_held_out_loss: float | None = None
        self.log_bytes = 0
        self.ended: str | None = None
        resumed = self._restore(accept_changes) if resume else {}
        # Only the first process looks, so that all go on or end alike.
        has_summary = self.world.share(self.world.is_first and (out / "summary.json").exists())
        self.is_finished = self.ended is not None and has_summary
        if self.is_finished:
            return
        if self.world.size > 1:
            self.clock.agreed = self.clock.before
        self.saved = self._place() if resume else None
        self.upcoming = self.batches.from_step(self.step + self.batches_left_out)
        self.trackers = Trackers(
            out, self.step if resume else None, self.log_bytes, self.settings.trackers, self.identity["recipe"],
            writes=self.world.is_first,
        )  # fmt: skip
        self.saver = Saver(out / "checkpoints", self.settings.keep_checkpoints, self.trackers.log)
        if self.world.is_first:
            write_text(out / "recipe.yaml", recipe.to_yaml())
        if resume:
            # The log was cut to where it was when this checkpoint was begun, and so does not tell of it.
            self.trackers.log("checkpoint", self.step, path=f"checkpoints/step-{self.step:08d}")
            self.trackers.log("resume", self.step, **resumed, threads=torch.get_num_threads())
        else:
            self.trackers.log("start", 0, **self._description())

    def train(self, progress: bool) -> dict[str, Any]:
        """Run to the end of the budget; returns the summary."""
        if self.is_finished:
            if progress:
                print(f"The run in {self.out} has ended ({self.ended}, step {self.step})", file=sys.stderr)
            return read_json(self.out / "summary.json")
        self.model.train()
        self.progress_shown = progress
        reason, signal_number = self.ended or "budget", None
        with (
            Interrupt() as interrupt,
            progress_bar("Pre-training", 1.0, "budget", shown=progress) as update,
        ):
            try:
                while self.progress < 1 and self.ended is None:
                    self._take_change()
                    if self.ended is None:
                        step_in_memory(self, next(self.upcoming), update)
                        signal_number = self._agree(interrupt)
                    if self._due(self.settings.evaluate_every, self.last_evaluated, EVALUATIONS):
                        self.last_evaluated = self._units(self.settings.evaluate_every)
                        self._evaluate()
                        signal_number = self._agree(interrupt)
                    if self.ended is not None:
                        reason = self.ended
                        break
                    if signal_number is not None:
                        reason = "interrupted"
                        break
                    self.saver.poll()
                    if self._save_due():
                        self.save(scheduled=True)
                if reason != "interrupted" and self.steps_since_evaluation:
                    self._evaluate()
                self.ended = None if reason in GOES_ON else reason
                self.save(scheduled=self._save_due())
                self.saver.wait()
                return self._finish(reason, signal_number)
            finally:
                self.upcoming.close()
                self.saver.close()
                self.trackers.close()

    @property
    def progress(self) -> float:
        """Share of the budget spent."""
        return self._units(self.settings.budget) / self.settings.budget.amount

    @property
    def rows_per_micro_batch(self) -> int:
        """Rows in a forward and backward pass; fewer than the recipe's once memory ran out."""
        return self.batches.rows_per_micro_batch

    @rows_per_micro_batch.setter
    def rows_per_micro_batch(self, rows: int) -> None:
        if rows != self.rows_per_micro_batch:
            self.batches.rows_per_micro_batch = self.validation.rows_per_micro_batch = rows
            self.held_out = self.validation.first_rows(self.settings.evaluate_tokens)

    def train_step(self, batches: list[Batch], update: Any) -> None:
        """One step. Until the optimizers' update it changes nothing but gradients, and can be done again."""
        step_started = time.perf_counter()
        probe = LayerProbe(self.model) if self.step % EVERY == 0 and not self.replica.sharded else None
        lr = self.optimizers.set_rate(rate(self.settings, min(1.0, self.progress)))
        try:
            value, tokens = self._backward(batches)
        finally:
            if probe is not None:
                probe.stop()
        norm_value = float(self.replica.clip(self.settings.clip))
        if probe is not None:
            probe.before_update()
        finding = self.monitor.take_step(value, norm_value)
        action = self._respond(finding, batches) if finding is not None else "continue"
        if action == "rewind":
            return
        if action in ("skip", "stop"):
            self.optimizers.clear()
        else:
            self.optimizers.step()
            self.loss_since_evaluation += value
            self.steps_since_evaluation += 1
        if probe is not None and action not in ("skip", "stop") and self._look(probe, batches) == "rewind":
            return
        self.step += 1
        self.tokens += tokens
        speed = tokens / (time.perf_counter() - step_started)
        figures = {"tokens": self.tokens, "epoch": self._epoch(), "progress": round(min(1.0, self.progress), 6)}
        self.trackers.log(
            "step", self.step, **figures, loss=value, lr=lr, grad_norm=norm_value,
            tokens_per_second=round(speed), seconds=round(self.clock.seconds, 3),
        )  # fmt: skip
        starved = self.starvation.take_step(self.batches.waited, time.perf_counter() - step_started)
        if starved is not None:  # each process waits for its own batches, so that nothing is done about it
            self._respond(starved, batches)
        held_out = {} if self.last_held_out is None else {"held-out": f"{self.last_held_out.loss:.3f}"}
        update(min(1.0, self.progress), loss=f"{value:.3f}", **held_out, rate=f"{speed:,.0f} tokens/s")
        if self.settings.recompute_every and self.step % self.settings.recompute_every == 0:
            for finding in recompute(self.replica, self.guarded):
                self._respond(finding, self.guarded)

    def _backward(self, batches: list[Batch]) -> tuple[float, int]:
        """Add up the gradients of a step; returns its loss and its number of tokens, over all processes."""
        heads = self.prepared.objective.heads
        # Divided by the whole step's counts: the same gradient whatever the number of micro-batches and processes.
        own_counts = [sum(batch.counts[head] for batch in batches) for head in heads]
        *totals, tokens = self.world.sum([*own_counts, sum(batch.tokens for batch in batches)])
        counts = dict(zip(heads, totals, strict=True))
        loss = torch.zeros((), device=self.device)
        for index, batch in enumerate(batches):
            number = self.world.rank * len(batches) + index
            torch.manual_seed(Key(self.recipe.seed, self.step, f"dropout {number}").torch_seed())
            with self.replica.last_backward(index == len(batches) - 1):
                sums = self.replica.loss_sums(batch)
                part = torch.stack([total / max(1, counts[head]) for head, total in sums.items()]).sum()
                (part * self.world.size).backward()
            loss += part.detach()
        (value,) = self.world.sum([float(loss)])
        return value, int(tokens)

    def _evaluate(self) -> None:
        """Held-out loss and samples; keeps the model when it is the best."""
        held_out = held_out_loss(self.replica, self.held_out)
        self.last_held_out, self.last_held_out_loss = held_out, held_out.loss
        steps = self.steps_since_evaluation
        train_loss = self.loss_since_evaluation / steps if steps else math.nan  # every update may have been skipped
        self.loss_since_evaluation, self.steps_since_evaluation = 0.0, 0
        best = self.monitor.evaluate(self.step, train_loss, held_out.loss)
        self.trackers.log(
            "evaluation", self.step, tokens=self.tokens, seconds=round(self.clock.seconds, 3), train_loss=train_loss,
            held_out_loss=held_out.loss, bits_per_byte=self._bits_per_byte(held_out), gap=held_out.loss - train_loss,
            best=best, parts=held_out.parts,
        )  # fmt: skip
        whole = self.replica.whole_model()
        if whole is not None:
            self._sample(whole)
        if best and whole is not None:
            save_model(whole, self.prepared.tokenizer, self.out / "model")
        share = rate(self.settings, min(1.0, self.progress))
        for finding in (
            self.monitor.names_overfitting(train_loss),
            self.monitor.names_stall(min(1.0, self.progress), share, train_loss, held_out.loss),
        ):
            if finding is not None:
                self._respond(finding, [])

    def _sample(self, model: Model) -> None:
        for prompt in self.prompts:
            try:
                text = sample(model, self.prepared.tokenizer, prompt, self.recipe.seed, self.dtype)
            except TilthError as error:
                text = f"({error})"
            self.trackers.log("sample", self.step, tokens=self.tokens, prompt=prompt, text=text)

    def save(self, scheduled: bool = False) -> None:
        """Begin to write a checkpoint of this step. Every process takes part; the first writes.

        scheduled: an uninterrupted run would write it, too, so it is one to rewind to.
        """
        if self.saved == self._place():
            return
        self.saver.wait()  # so that the log tells of the one before within the bytes that this one counts
        if scheduled:
            self.last_saved, self.scheduled_step = self._units(self.settings.save_every), self.step
            self.rewinds = 0
        keep_every = self.settings.keep_every
        if milestone := keep_every is not None and self._due(keep_every, self.last_milestone, 1):
            self.last_milestone = self._units(keep_every)
        checkpoint = Checkpoint(
            weights=self.replica.weights(),
            optimizer=self.optimizers.state(),
            state={
                "step": self.step, "tokens": self.tokens, "seconds": self.clock.seconds, "monitor":
                self.monitor.state(), "layers": self.layers.state(), "peak_rate": self.peak_rate,
                "batches_left_out": self.batches_left_out, "rewinds": self.rewinds,
                "scheduled_step": self.scheduled_step,
                "loss_since_evaluation": self.loss_since_evaluation, "steps_since_evaluation":
                self.steps_since_evaluation,
                "last_evaluated": self.last_evaluated, "last_saved": self.last_saved, "last_milestone":
                self.last_milestone, "last_held_out_loss": self.last_held_out_loss,
                "log_bytes": self.trackers.synced_bytes(), "ended": self.ended,
                "rows_per_micro_batch": self.rows_per_micro_batch,
            },
            identity=self.identity,
            held_out_loss=self.last_held_out_loss,
            milestone=milestone,
            protected=self.scheduled_step if self._may_rewind() else None,
        )  # fmt: skip
        if self.world.is_first:
            self.saver.save(self.step, checkpoint)
        self.saved = self._place()

    def _place(self) -> tuple[int, int, str | None]:
        """What tells one state to save from another."""
        return self.step, self.steps_since_evaluation, self.ended

    def _restore(self, accept_changes: bool) -> dict[str, list[str]]:
        """Take up the newest whole checkpoint; returns what the log should tell of it."""
        # The first process reads, so that all go on from the same checkpoint whatever they see of the folder.
        checkpoint, problems, found = None, [], None
        if self.world.is_first:
            checkpoint, problems = load_latest(self.out / "checkpoints")
            for problem in problems:
                print(f"passed over: {problem}", file=sys.stderr)
            changes = check_identity(checkpoint.identity, self.identity, accept_changes)
            recover_folder(self.out / "model")
            found = checkpoint.state["seconds"], checkpoint.identity["recipe"]["train"], changes
        self._load(checkpoint)
        shared = self.world.share(found)
        assert shared is not None
        seconds, before, changes = shared
        self.clock = Clock(seconds, time.perf_counter())
        if changes["accepted"]:
            self.ended = None
        now = self.identity["recipe"]["train"]
        if before.get("lr") != now["lr"]:
            self.peak_rate = now["lr"]
        for last, every in INTERVALS.items():
            if any(before.get(name) != now[name] for name in (every, "budget")):  # it may count in another unit now
                setattr(self, last, self._units(getattr(self.settings, every)))
        return {"damaged": problems, **changes}

    def _load(self, checkpoint: Checkpoint | None) -> None:
        """Everything of a checkpoint but its clock. The first process has it, the others give None."""
        self.replica.load_weights(checkpoint.weights if checkpoint else None)
        self.optimizers.load_state(checkpoint.optimizer if checkpoint else None)
        state = self.world.share(dict(checkpoint.state) if checkpoint else {})
        del state["seconds"]
        self.monitor = Monitor.from_state(state.pop("monitor") | {"patience": self.settings.patience})
        self.layers = LayerMonitor(**state.pop("layers"))
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def peak_rate(self) -> float:
        """The learning rate that the schedule takes its share of: `train.lr` until it is changed."""
        return self.optimizers.peak

    @peak_rate.setter
    def peak_rate(self, value: float) -> None:
        self.optimizers.peak = value

    def _take_change(self) -> None:
        """Make the change that was asked for through the run folder, which the first process reads."""
        asked: dict[str, Any] | None = None
        if self.control is not None:
            try:
                change = self.control.take(self.step)
                asked = None if change is None else change.model_dump()
            except UsageError as error:
                self._warn(Finding("control", str(error)), [], "continue")
        asked = self.world.share(asked)
        if asked is None:
            return
        change = Change(**asked)
        self.trackers.log("change", self.step, **change.model_dump())
        announce(f"step {self.step}: {change} by control.yaml", self.progress_shown)
        if change.lr is not None:
            self.peak_rate = change.lr
        if change.stop:
            self.ended = "stopped on request"

    def _look(self, probe: LayerProbe, batches: list[Batch]) -> str:
        """Judge the layers after an update; returns what was done about what was found."""
        # The first process's, so that all judge alike: each has seen the outputs for its own rows.
        shared = self.world.share({name: asdict(look) for name, look in probe.after_update().items()})
        looks = {name: Look(**figures) for name, figures in shared.items()}
        self.trackers.log("layers", self.step + 1, layers=shared)
        actions = [self._respond(finding, batches) for finding in self.layers.take(looks)]
        return "rewind" if "rewind" in actions else "continue"

    def _respond(self, finding: Finding, batches: list[Batch]) -> str:
        """Log a finding and do what the recipe says; returns what was done.

        `skip`, and leaving out the update of a run that stops, are left to the caller.
        Raises: TilthError when the run cannot go on.
        """
        setting = {"dead": "on_layers", "exploding": "on_layers"}.get(finding.kind, f"on_{finding.kind}")
        action = getattr(self.settings, setting, "continue")
        if action == "rewind" and self.scheduled_step == 0:
            action = "skip" if finding.kind in ("nonfinite", "spike") else "continue"
        elif action == "rewind" and self.rewinds >= MOST_REWINDS:
            action = "skip" if finding.kind == "spike" else "stop"
        documents = self._warn(finding, batches, action)
        if action == "stop" and finding.kind == "nonfinite":
            self.optimizers.clear()
            self.save()
            raise TilthError(
                f"step {self.step + 1}: {finding.message}: no update was made; "
                "start another run with a lower train.lr, or with train.precision=float32; "
                f"the batch held {', '.join(documents[:3])}{' and others' if documents[3:] else ''} (see log.jsonl)"
            )
        if action == "stop":
            self.ended = "stopped early"
        elif action == "lower_rate":
            self.peak_rate /= 2
        elif action == "rewind":
            self._rewind()
        return action

    def _warn(self, finding: Finding, batches: list[Batch], action: str) -> list[str]:
        """Log a finding; returns the names of the documents in its batches, twenty at most."""
        numbers = sorted({int(number) for batch in batches for number in batch.documents})
        if self.world.size > 1 and finding.kind in ("nonfinite", "spike"):
            numbers = self.batches.documents(self.step + self.batches_left_out)
        documents = self.prepared.train.split.document_names(numbers[:20])
        step = self.step + 1 if batches else self.step
        figures = {"kind": finding.kind, "message": finding.message, "documents": documents, "action": action}
        self.trackers.log("warning", step, **figures)
        announce(f"{finding.kind} at step {step}: {finding.message} ({ACTIONS[action]})", self.progress_shown)
        return documents

    def _rewind(self) -> None:
        """Go back to the last checkpoint on schedule, and leave out the batches since.

        The best model seen stays the best, wherever it was seen.
        """
        target, rewinds, best = self.scheduled_step, self.rewinds, self.monitor
        failed, last_batches = self.step + 1, self.step + self.batches_left_out
        self.optimizers.clear()
        self.saver.wait()
        self._load(go_back(self.out / "checkpoints", target) if self.world.is_first else None)
        if best.best_loss < self.monitor.best_loss:
            self.monitor.best_loss, self.monitor.best_step = best.best_loss, best.best_step
            self.monitor.train_loss_at_best = best.train_loss_at_best
        self.rewinds = rewinds + 1
        self.batches_left_out = last_batches + 1 - target
        self.upcoming.close()
        self.upcoming = self.batches.from_step(target + self.batches_left_out)
        self.trackers.log("rewind", target, from_step=failed, batches_left_out=self.batches_left_out)

    def _finish(self, reason: str, signal_number: int | None) -> dict[str, Any]:
        figures: dict[str, Any] = {"tokens": self.tokens, "seconds": round(self.clock.seconds, 3), "reason": reason}
        # Whoever sent a signal will not wait for long: the figures of the best model can be had from the log.
        if self.monitor.best_step and signal_number is None:
            best_model = load_model(self.out / "model")[0] if self.world.is_first else None
            self.replica.load_weights(best_model.state_dict() if best_model else None)
            best = held_out_loss(self.replica, self.held_out)
            figures |= {"best_step": self.monitor.best_step, "held_out_loss": best.loss}
            figures |= {"parts": best.parts, "bits_per_byte": self._bits_per_byte(best)}
        self.trackers.log("end", self.step, **figures)
        if signal_number is None and not self.monitor.best_step:
            raise TilthError(f"no held-out loss was finite, so there is no model to keep; see {self.out / 'log.jsonl'}")
        if signal_number is not None:
            raise Interrupted(
                f"stopped at step {self.step}, {100 * self.progress:.0f} % of the budget; "
                f"saved in {self.out}: the same command with --resume goes on",
                signal_number,
            )
        summary = {
            "step": self.step,
            **figures,
            "objective": self.recipe.objective.name,
            "family": self.recipe.family,
            "size": self.recipe.size,
            "parameters": self.num_parameters,
            "flops_per_token": self.flops_per_token,
            "corpus": self.prepared.corpus.fingerprint,
            "tokenizer": self.prepared.tokenizer.fingerprint,
            "weights_sha256": sha256_file(self.out / "model" / "model.safetensors"),
        }
        if self.world.is_first:
            write_json(self.out / "summary.json", summary)
        return summary

    def _agree(self, interrupt: Interrupt) -> int | None:
        """Take the first process's time for everyone's; returns the signal that one of them got, if any."""
        if self.world.size == 1:
            return interrupt.signal_number
        got = [float(interrupt.signal_number == number) for number in Interrupt.SIGNALS]
        seconds, *counts = self.world.sum([self.clock.reading if self.world.is_first else 0.0, *got])
        self.clock.agreed = seconds
        return next((int(number) for number, count in zip(Interrupt.SIGNALS, counts, strict=True) if count), None)

    def _units(self, budget: Budget | None) -> float:
        """How much has been done, in a budget's unit; without one, the share of the run's budget."""
        if budget is None:
            return self.progress
        if budget.unit == "minutes":
            return self.clock.seconds / 60
        if budget.unit == "tokens":
            # Counted as the plan fills rows on average, so that the number of steps is known before the run.
            return self.step * self.rows_per_step * self.prepared.train.length * self.prepared.train.fill
        return self._epoch() if budget.unit == "epochs" else float(self.step)

    def _may_rewind(self) -> bool:
        return "rewind" in (value for name, value in self.settings if name.startswith("on_"))

    def _save_due(self) -> bool:
        return self.progress < 1 and self._due(self.settings.save_every, self.last_saved, SAVES)

    def _due(self, every: Budget | None, last: float, default_times: int) -> bool:
        interval = 1 / default_times if every is None else every.amount
        return self._units(every) - last >= interval - 1e-9

    def _epoch(self) -> float:
        return self.step * self.rows_per_step / self.prepared.train.num_rows

    def _bits_per_byte(self, held_out: HeldOut) -> float:
        main = held_out.parts[self.prepared.objective.heads[0]]
        return self.prepared.objective.bits_per_byte(main, self.prepared.validation.split)

    def _description(self) -> dict[str, Any]:
        train, validation = self.prepared.train, self.prepared.validation
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "parameters": self.num_parameters,
            "processes": self.world.size,
            "trunk_parameters": sum(p.numel() for p in self.model.trunk.blocks.parameters()),
            "device": self.device.type,
            "processor": describe_processor(self.device),
            "threads": torch.get_num_threads(),
            "dtype": self.identity["compute_type"],
            "tilth": __version__,
            "torch": torch.__version__,
            "corpus": self.identity["corpus"],
            "corpus_card": str((self.prepared.corpus.path / "card.json").resolve()),
            "tokenizer": self.identity["tokenizer"],
            "train_tokens": train.split.num_tokens,
            "validation_tokens": validation.split.num_tokens,
            "rows": train.num_rows,
            "fill": round(train.fill, 4),
        }
