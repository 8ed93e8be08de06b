"""The training loop.

One step: micro-batches forward and backward, one clipped update, and on schedule an evaluation, samples and a
checkpoint.
Everything random comes from (seed, step), so a resumed run is the run that was never stopped; only a budget in minutes
makes the rate, the end, and the steps whose softmax takes all words depend on the clock.
"""

import contextlib
import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tilth.errors import TilthError
from tilth.files import read_json, write_text
from tilth.key import Key
from tilth.model.folder import save_model
from tilth.model.model import Model
from tilth.model.precision import compute_dtype, deterministic_kernels, keep_freed_memory
from tilth.model.threads import choose_threads, threads_restored
from tilth.objectives.objective import Batch
from tilth.progress import progress_bar
from tilth.recipe import Recipe
from tilth.train.account import describe_start, found_at_start, sum_up
from tilth.train.batches import Batches, batch_rows
from tilth.train.checkpoint import load_latest, recorded_threads
from tilth.train.control import Control
from tilth.train.corruption import GUARD_TOKENS, recompute
from tilth.train.distributed import World, goes_on, note_start
from tilth.train.external_trackers import check_installed
from tilth.train.held_out import HeldOut, held_out_loss
from tilth.train.identity import check_fixed, run_identity
from tilth.train.interrupt import Interrupt
from tilth.train.layers import EVERY, LayerMonitor, LayerProbe
from tilth.train.mending import unwritable
from tilth.train.monitor import Monitor, Starvation
from tilth.train.optimizers import Optimizers
from tilth.train.out_of_memory import step_in_memory
from tilth.train.parallel import Replica, compiles
from tilth.train.persistence import restore, snapshot
from tilth.train.position import Position
from tilth.train.prepare import RECIPE, Prepared, fresh_model, prepare
from tilth.train.responses import respond, respond_to_layers, take_change
from tilth.train.run_folder import alone_in, check_run, holds_run
from tilth.train.samples import default_prompts, sample
from tilth.train.saver import Saver
from tilth.train.schedules import rate
from tilth.train.trackers import Trackers
from tilth.train.word_sample import WordSample

GOES_ON = ("interrupted", "stopped on request")
"""Reasons to end from which a resume trains on."""


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
    with deterministic_kernels(device), alone_in(out) if world.is_first else contextlib.nullcontext():
        resume = goes_on(world, out, resume)
        if world.is_first:
            check_run(out, resume, accept_changes)
            check_installed(recipe.train.trackers)
        # A run that ended before its first checkpoint has nothing to go on with, and is started anew.
        resume = world.share(resume and holds_run(out))
        if resume and accept_changes and world.is_first:
            # Before what was made from another corpus is made anew: a refusal leaves the run as it was.
            check_fixed(load_latest(out / "checkpoints")[0].identity, recipe)
        prepared = world.first_then_others(
            # What the first process has made anew is what the others find.
            lambda first: prepare(
                recipe, corpus, out, resume or not first, progress and first, accept_changes and first
            ),
            f"prepared {out}",
        )
        if world.size == 1:  # processes that share a host take the threads that torchrun gives each
            choose_threads(device, recorded_threads(out / "checkpoints") if resume else None, progress)
        run = Run(recipe, prepared, out, device, resume, accept_changes, world)
        if world.is_first:
            note_start(out)
        return run.train(progress and world.is_first)


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
        self.rows_per_step, rows_per_micro_batch = batch_rows(recipe, device)
        sizes = (recipe.seed, self.rows_per_step, rows_per_micro_batch, self.world.rank, self.world.size, device)
        self.batches = Batches(prepared.objective, prepared.train, *sizes)
        self.validation = Batches(prepared.objective, prepared.validation, *sizes)
        self.held_out = self.validation.first_rows(self.settings.evaluate_tokens)
        self.prompts = list(self.settings.prompts) or default_prompts(
            prepared.validation.split, prepared.tokenizer, prepared.objective.heads[0]
        )
        compiled = compiles(self.settings, device, self.world.size)
        self.identity = run_identity(recipe, prepared, device, self.dtype, self.world.size, compiled)
        self.position = Position(self.settings, prepared.train, self.rows_per_step, recipe.data.length)
        if self.world.size > 1:
            self.position.clock.agreed = 0.0
        self.word_sample = WordSample(
            prepared.objective, prepared.train.split, prepared.tokenizer.vocab_size,
            recipe.objective.vocabulary_share, recipe.seed, device, self.world,
        )  # fmt: skip
        fresh = fresh_model(recipe, prepared, warm=not resume and self.world.is_first)
        self.guarded = self.batches.first_rows(GUARD_TOKENS)
        for of_what, batches in (("training", self.guarded), ("held-out", self.held_out)):
            (counted,) = self.world.sum([sum(next(iter(batch.counts.values())) for batch in batches)])
            if not counted:
                raise TilthError(
                    f"there is nothing to predict in the {of_what} text: it is too short, or the tokenizer knows "
                    "none of its characters"
                )
        predicted = sum(next(iter(batch.counts.values())) for batch in self.guarded)  # of the main head
        predicted_share = predicted / max(1, sum(batch.tokens for batch in self.guarded))
        self.num_parameters = fresh.num_parameters()
        self.flops_per_token = fresh.flops_per_token(recipe.data.length, predicted_share, self.word_sample.mean_share)
        self.replica = Replica(fresh, self.settings, self.world, device, self.dtype)
        self.model: Model = self.replica.model
        self.optimizers = Optimizers(self.model, self.settings, self.world)
        self.monitor, self.layers, self.starvation = Monitor(self.settings.patience), LayerMonitor(), Starvation()
        self.control = Control(out, resume) if self.world.is_first else None
        self.progress_shown = False
        # The batches of a step are those numbered step + batches_left_out: a rewind leaves some out.
        self.batches_left_out, self.rewinds, self.scheduled_step = 0, 0, 0
        self.loss_since_evaluation, self.steps_since_evaluation = 0.0, 0
        self.last_held_out: HeldOut | None = None
        self.kept: tuple[int, HeldOut] | None = None
        """The step and the evaluation of the model in the run folder, once this process has put one there."""
        self.last_held_out_loss: float | None = None
        self.log_bytes = 0
        self.ended: str | None = None
        self.has_updated = False
        """Whether the step at hand has changed more than gradients."""
        resumed = restore(self, accept_changes) if resume else {}
        # Only the first process looks, so that all go on or end alike. A damaged summary is made again.
        self.summary: dict[str, Any] | None = self.world.share(_summary(out) if self.world.is_first else None)
        self.is_finished = self.ended is not None and self.summary is not None
        if self.is_finished:
            return
        self.saved = self._place() if resume else None
        self.upcoming = self.batches.from_step(self.position.step + self.batches_left_out)
        self.trackers = Trackers(
            out, self.position.step if resume else None, self.log_bytes, self.settings.trackers,
            self.identity["recipe"], writes=self.world.is_first,
        )  # fmt: skip
        self.saver = Saver(out / "checkpoints", self.settings.keep_checkpoints, self.trackers.log)
        if self.world.is_first:
            (out / "summary.json").unlink(missing_ok=True)  # of a run that ended, and now goes on
            write_text(out / RECIPE, recipe.to_yaml())
        if resume:
            # The log was cut to where it was when this checkpoint was begun, and so does not tell of it.
            self.trackers.log("checkpoint", self.position.step, path=f"checkpoints/step-{self.position.step:08d}")
            self.trackers.log("resume", self.position.step, **resumed, threads=torch.get_num_threads())
        else:
            self.trackers.log("start", 0, **describe_start(self))

    def train(self, progress: bool) -> dict[str, Any]:
        """Run to the end of the budget; returns the summary."""
        if self.is_finished and self.summary is not None:
            if progress:
                print(f"The run in {self.out} has ended ({self.ended}, step {self.position.step})", file=sys.stderr)
            return self.summary
        self.model.train()
        self.progress_shown = progress
        reason, signal_number, failed = self.ended or "budget", None, True
        with (
            Interrupt() as interrupt,
            progress_bar("Pre-training", 1.0, "budget", shown=progress) as update,
        ):
            try:
                for finding in () if self.position.step else found_at_start(self):
                    respond(self, finding, [])
                while self.position.spent < 1 and self.ended is None:
                    self.prepared.shards.verification.poll()
                    take_change(self)
                    if self.ended is None:
                        step_in_memory(self, next(self.upcoming), update)
                        signal_number = self._agree(interrupt)
                    if self.position.is_due("evaluate_every"):
                        self.position.note("evaluate_every")
                        started = self.position.clock.seconds
                        update(self.position.share, now="evaluating")
                        self._evaluate()
                        signal_number = self._agree(interrupt)
                        self.position.note_evaluation(self.position.clock.seconds - started)
                    if self.ended is not None:
                        reason = self.ended
                        break
                    if signal_number is not None:
                        reason = "interrupted"
                        break
                    self.saver.poll()
                    if self._is_save_due():
                        self.save(scheduled=True)
                if reason != "interrupted" and self.steps_since_evaluation:
                    self._evaluate()
                self.ended = None if reason in GOES_ON else reason
                self.save(scheduled=self._is_save_due())
                self.saver.wait()
                summary = sum_up(self, reason, signal_number)
                failed = False
                return summary
            finally:
                self.upcoming.close()
                self.saver.close()
                self.trackers.close(failed)

    @property
    def rows_per_micro_batch(self) -> int:
        """Rows in a forward and backward pass; fewer than the recipe's once memory ran out."""
        return self.batches.rows_per_micro_batch

    @rows_per_micro_batch.setter
    def rows_per_micro_batch(self, rows: int) -> None:
        if rows != self.rows_per_micro_batch:
            self.batches.rows_per_micro_batch = self.validation.rows_per_micro_batch = rows
            self.held_out = self.validation.first_rows(self.settings.evaluate_tokens)

    @property
    def peak_rate(self) -> float:
        """The learning rate that the schedule takes its share of: `train.lr` until it is changed."""
        return self.optimizers.peak

    @peak_rate.setter
    def peak_rate(self, value: float) -> None:
        self.optimizers.peak = value

    def train_step(self, batches: list[Batch], update: Any) -> None:
        """One step. Until `has_updated` it changes nothing but gradients, and can be done again."""
        step_started = time.perf_counter()
        self.has_updated = False
        probe = LayerProbe(self.model) if self.position.step % EVERY == 0 and not self.replica.sharded else None
        lr = self.optimizers.set_rate(rate(self.settings, self.position.share))
        value, tokens = self._backward(batches, probe)
        if probe is not None:
            probe.before_update()  # before clipping, which would hide a gradient that explodes
        norm_value = self.replica.clip(self.settings.clip)
        finding = self.monitor.take_step(value, norm_value)
        action = respond(self, finding, batches) if finding is not None else "continue"
        self.has_updated = True
        if action == "rewind":
            return
        if action in ("skip", "stop"):
            self.optimizers.clear()
        else:
            self.optimizers.step()
            self.loss_since_evaluation += value
            self.steps_since_evaluation += 1
        if probe is not None and action not in ("skip", "stop") and respond_to_layers(self, probe, batches) == "rewind":
            return
        self.position.step += 1
        self.position.tokens += tokens
        speed = tokens / (time.perf_counter() - step_started)
        figures = {
            "tokens": self.position.tokens,
            "epoch": self.position.epoch,
            "progress": round(self.position.share, 6),
        }
        self.trackers.log(
            "step", self.position.step, **figures, loss=value, lr=lr, grad_norm=norm_value,
            tokens_per_second=round(speed), seconds=round(self.position.clock.seconds, 3),
        )  # fmt: skip
        starved = self.starvation.take_step(self.upcoming.waited, time.perf_counter() - step_started)
        if starved is not None:  # each process waits for its own batches, so that nothing is done about it
            respond(self, starved, batches)
        held_out = {} if self.last_held_out is None else {"held-out": f"{self.last_held_out.loss:.3f}"}
        update(self.position.share, loss=f"{value:.3f}", **held_out, rate=f"{speed:,.0f} tokens/s")
        if self.settings.recompute_every and self.position.step % self.settings.recompute_every == 0:
            for finding in recompute(self.replica, self.guarded):
                respond(self, finding, self.guarded)

    def _backward(self, batches: list[Batch], probe: LayerProbe | None) -> tuple[float, int]:
        """Add up the gradients of a step; returns its loss and its number of tokens, over all processes.

        probe: looks at the first micro-batch.
        """
        heads = list(batches[0].counts)
        words = self.word_sample.at(self.position.step, self.position.share)
        # Divided by the whole step's counts: the same gradient whatever the number of micro-batches and processes.
        own_counts = [sum(batch.counts[head] for batch in batches) for head in heads]
        *totals, tokens = self.world.sum([*own_counts, sum(batch.tokens for batch in batches)])
        counts = dict(zip(heads, totals, strict=True))
        loss = torch.zeros((), device=self.device)
        for index, batch in enumerate(batches):
            number = self.world.rank * len(batches) + index
            torch.manual_seed(Key(self.recipe.seed, self.position.step, f"dropout {number}").torch_seed())
            looking = contextlib.nullcontext() if probe is None or index else probe
            with looking, self.replica.last_backward(index == len(batches) - 1):
                sums = self.replica.loss_sums(dataclasses.replace(batch, sample=words))
                part = batch.loss(sums, counts)
                (part * self.world.size).backward()
            loss += part.detach()
            self.upcoming.begin_next()  # the device has been given enough to compute meanwhile
        (value,) = self.world.sum([float(loss)])
        return value, int(tokens)

    def _evaluate(self) -> None:
        """Held-out loss and samples; keeps the model when it is the best."""
        self._trust_shards()
        started = time.perf_counter()
        held_out = held_out_loss(self.replica, self.held_out)
        took = round(time.perf_counter() - started, 3)
        self.last_held_out, self.last_held_out_loss = held_out, held_out.loss
        steps = self.steps_since_evaluation
        train_loss = self.loss_since_evaluation / steps if steps else math.nan  # every update may have been skipped
        self.loss_since_evaluation, self.steps_since_evaluation = 0.0, 0
        best = self.monitor.evaluate(self.position.step, train_loss, held_out.loss)
        self.trackers.log(
            "evaluation", self.position.step, tokens=self.position.tokens,
            seconds=round(self.position.clock.seconds, 3), train_loss=train_loss, held_out_loss=held_out.loss,
            bits_per_byte=self.bits_per_byte(held_out), gap=held_out.loss - train_loss, best=best, took=took,
            parts=held_out.parts,
        )  # fmt: skip
        if best:
            self.kept = (self.position.step, held_out)
        whole = self.replica.whole_model()
        if whole is not None:
            self._sample(whole)
        if best and whole is not None:
            if not self.out.is_dir():  # not made anew: it would be a run without a beginning
                raise unwritable("the model", self.out / "model", self.out, FileNotFoundError())
            save_model(whole, self.prepared.tokenizer, self.out / "model", step=self.position.step)
        share = rate(self.settings, self.position.share)
        for finding in (
            self.monitor.names_overfitting(train_loss),
            self.monitor.names_stall(self.position.share, share, train_loss, held_out.loss),
        ):
            if finding is not None:
                respond(self, finding, [])

    def _sample(self, model: Model) -> None:
        for prompt in self.prompts:
            try:
                text = sample(model, self.prepared.tokenizer, prompt, self.recipe.seed, self.dtype)
            except TilthError as error:
                text = f"({error})"
            self.trackers.log("sample", self.position.step, tokens=self.position.tokens, prompt=prompt, text=text)

    def save(self, scheduled: bool = False) -> None:
        """Begin to write a checkpoint of this step. Every process takes part; the first writes.

        scheduled: an uninterrupted run would write it, too, so it is one to rewind to.
        """
        if self.saved == self._place():
            return
        self._trust_shards()
        self.saver.wait()  # so that the log tells of the one before within the bytes that this one counts
        if scheduled:
            self.position.note("save_every")
            self.scheduled_step, self.rewinds = self.position.step, 0
        if milestone := self.position.is_due("keep_every"):
            self.position.note("keep_every")
        checkpoint = snapshot(self, milestone)
        if self.world.is_first:
            self.saver.save(self.position.step, checkpoint)
        self.saved = self._place()

    def _trust_shards(self) -> None:
        """Wait until every process has compared the shards it used with their hashes, before any result is kept.

        Raises: TilthError when some are damaged.
        """
        self.prepared.shards.verification.wait()
        self.world.sum([0.0])  # a process that has raised does not come here, and no other one goes on

    def _place(self) -> tuple[int, int, str | None]:
        """What tells one state to save from another."""
        return self.position.step, self.steps_since_evaluation, self.ended

    def _is_save_due(self) -> bool:
        return self.position.spent < 1 and self.position.is_due("save_every")

    def _agree(self, interrupt: Interrupt) -> int | None:
        """Take the first process's time for everyone's; returns the signal that one of them got, if any."""
        if self.world.size == 1:
            return interrupt.signal_number
        got = [float(interrupt.signal_number == number) for number in Interrupt.SIGNALS]
        seconds, *counts = self.world.sum([self.position.clock.reading if self.world.is_first else 0.0, *got])
        self.position.clock.agreed = seconds
        return next((int(number) for number, count in zip(Interrupt.SIGNALS, counts, strict=True) if count), None)

    def bits_per_byte(self, held_out: HeldOut) -> float:
        """Held-out loss of the objective's main part, per byte of raw text."""
        main = next(iter(held_out.parts.values()))
        return self.prepared.objective.bits_per_byte(main, self.prepared.validation.split)


def _summary(run: Path) -> dict[str, Any] | None:
    """The summary of a run that has ended; None where there is none, or it is damaged."""
    try:
        summary = read_json(run / "summary.json")
    except TilthError:
        return None
    return summary if isinstance(summary, dict) else None
