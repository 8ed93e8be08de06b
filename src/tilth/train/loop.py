"""The training loop.

One step: micro-batches forward and backward, one clipped update, and on schedule an evaluation, samples and a
checkpoint.
Everything random comes from (seed, step), so a resumed run is the run that was never stopped; only a budget in minutes
makes the rate and the end depend on the clock.
"""

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tilth.errors import Interrupted, TilthError, UsageError
from tilth.files import output_folder, read_json, recover_folder, sha256_file, write_json, write_text
from tilth.key import Key
from tilth.model.folder import load_model, save_model
from tilth.model.model import Model
from tilth.model.precision import compute_dtype, describe_processor, keep_freed_memory, pick_device
from tilth.model.threads import choose_threads, threads_restored
from tilth.objectives.objective import Batch, loss_sums
from tilth.progress import progress_bar
from tilth.recipe import Budget, Recipe
from tilth.train.batches import Batches
from tilth.train.checkpoint import Checkpoint, holds_checkpoints, load_latest, recorded_threads
from tilth.train.held_out import HeldOut, held_out_loss
from tilth.train.identity import check_identity, run_identity
from tilth.train.interrupt import Interrupt
from tilth.train.monitor import Monitor
from tilth.train.optimizers import Optimizers
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
) -> dict[str, Any]:
    """Pre-train a model and leave it, with its log and checkpoints, in the run folder `out`.

    corpus: a corpus folder, or raw data to build one from. resume: go on from the newest whole checkpoint in `out`; a
    run that has ended, by its budget or stopped early, is left as it is. accept_changes: go on although what has
    changed since leads to another result.
    Returns the run's summary (also `summary.json`).
    Raises: TilthError or UsageError for data, settings or folders that cannot be used; Interrupted after a signal,
    once saved.
    """
    device = pick_device(recipe.train.device)
    if device.type == "cpu":
        keep_freed_memory()
    output_folder(out)
    if accept_changes and not resume:
        raise UsageError("changes can be accepted in a run that goes on: give --accept-changes with --resume")
    if not resume and holds_checkpoints(out / "checkpoints"):
        raise UsageError(f"{out} already holds a run; go on with --resume, or choose another --out")
    if resume and not (out / "recipe.yaml").exists():
        raise UsageError(f"{out} holds no run to resume; start one without --resume")
    # A run that ended before its first checkpoint has nothing to go on with, and is started anew.
    resume = resume and (holds_checkpoints(out / "checkpoints") or has_saved(out))
    prepared = prepare(recipe, corpus, out, resume, progress, accept_changes)
    choose_threads(device, recorded_threads(out / "checkpoints") if resume else None, progress)
    return Run(recipe, prepared, out, device, resume, accept_changes).train(progress)


@dataclass
class Clock:
    """Seconds spent training, those before a resume included."""

    before: float
    started: float

    @property
    def seconds(self) -> float:
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
    ) -> None:
        self.recipe, self.settings, self.prepared, self.out = recipe, recipe.train, prepared, out
        self.device, self.dtype = device, compute_dtype(recipe.train.precision, device)
        length = recipe.data.length
        micro_tokens = self.settings.micro_batch_tokens or MICRO_BATCH_TOKENS[device.type]
        self.rows_per_step = max(1, self.settings.batch_tokens // length)
        rows_per_micro_batch = max(1, min(self.rows_per_step, micro_tokens // length))
        sizes = (recipe.seed, self.rows_per_step, rows_per_micro_batch)
        self.batches = Batches(prepared.objective, prepared.train, *sizes)
        held_out = Batches(prepared.objective, prepared.validation, *sizes)
        self.held_out = held_out.first_rows(self.settings.evaluate_tokens)
        self.prompts = list(self.settings.prompts) or default_prompts(
            prepared.validation.split, prepared.tokenizer, prepared.objective.heads[0]
        )
        self.identity = run_identity(recipe, prepared, device, self.dtype)
        self.clock = Clock(0.0, time.perf_counter())
        self.model: Model = fresh_model(recipe, prepared, warm=not resume).to(device)
        self.optimizers = Optimizers(self.model, self.settings)
        self.monitor = Monitor(self.settings.patience)
        self.step, self.tokens = 0, 0
        self.loss_since_evaluation, self.steps_since_evaluation = 0.0, 0
        self.last_evaluated = 0.0
        self.last_saved, self.last_milestone = 0.0, 0.0
        self.last_held_out: HeldOut | None = None
        self.last_held_out_loss: float | None = None
        self.log_bytes = 0
        self.ended: str | None = None
        resumed = self._restore(accept_changes) if resume else {}
        self.is_finished = self.ended is not None and (out / "summary.json").exists()
        if self.is_finished:
            return
        self.saved = self._place() if resume else None
        self.trackers = Trackers(out, self.step if resume else None, self.log_bytes)
        self.saver = Saver(out / "checkpoints", self.settings.keep_checkpoints, self.trackers.log)
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
        reason = self.ended or "budget"
        with (
            Interrupt() as interrupt,
            progress_bar("Pre-training", 1.0, "budget", shown=progress) as update,
        ):
            try:
                for batches in self.batches.from_step(self.step):
                    if self.progress >= 1 or self.ended is not None:
                        break
                    self._train_step(batches, update)
                    if self._due(self.settings.evaluate_every, self.last_evaluated, EVALUATIONS):
                        self.last_evaluated = self._units(self.settings.evaluate_every)
                        if self._evaluate() and self.settings.on_overfitting == "stop":
                            reason = "stopped early"
                            break
                    if interrupt.signal_number is not None:
                        reason = "interrupted"
                        break
                    self.saver.poll()
                    if self.progress < 1 and self._due(self.settings.save_every, self.last_saved, SAVES):
                        self.save()
                if reason != "interrupted" and self.steps_since_evaluation:
                    self._evaluate()
                self.ended = None if reason == "interrupted" else reason
                self.save()
                self.saver.wait()
                return self._finish(reason, interrupt.signal_number)
            finally:
                self.saver.close()
                self.trackers.close()

    @property
    def progress(self) -> float:
        """Share of the budget spent."""
        return self._units(self.settings.budget) / self.settings.budget.amount

    def _train_step(self, batches: list[Batch], update: Any) -> None:
        step_started = time.perf_counter()
        lr = self.optimizers.set_rate(rate(self.settings, min(1.0, self.progress)))
        counts: dict[str, int] = {}
        for batch in batches:
            for head, count in batch.counts.items():
                counts[head] = counts.get(head, 0) + count
        loss = torch.zeros((), device=self.device)
        for index, batch in enumerate(batches):
            torch.manual_seed(Key(self.recipe.seed, self.step, f"dropout {index}").torch_seed())
            sums = loss_sums(self.model, batch.to(self.device), self.dtype)
            # Divided by the whole step's counts: the same gradient whatever the number of micro-batches.
            part = torch.stack([total / max(1, counts[head]) for head, total in sums.items()]).sum()
            part.backward()
            loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        value, norm_value = float(loss), float(norm)
        if not (math.isfinite(value) and math.isfinite(norm_value)):
            self._handle_nonfinite(batches, value, norm_value)
        else:
            self.optimizers.step()
            self.loss_since_evaluation += value
            self.steps_since_evaluation += 1
        self.step += 1
        tokens = sum(batch.tokens for batch in batches)
        self.tokens += tokens
        speed = tokens / (time.perf_counter() - step_started)
        figures = {"tokens": self.tokens, "epoch": self._epoch(), "progress": round(min(1.0, self.progress), 6)}
        self.trackers.log(
            "step", self.step, **figures, loss=value, lr=lr, grad_norm=norm_value,
            tokens_per_second=round(speed), seconds=round(self.clock.seconds, 3),
        )  # fmt: skip
        held_out = {} if self.last_held_out is None else {"held-out": f"{self.last_held_out.loss:.3f}"}
        update(min(1.0, self.progress), loss=f"{value:.3f}", **held_out, rate=f"{speed:,.0f} tokens/s")

    def _evaluate(self) -> bool:
        """Held-out loss and samples; keeps the model when it is the best.

        Returns whether overfitting has just been named.
        """
        held_out = held_out_loss(self.model, self.held_out, self.device, self.dtype)
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
        for prompt in self.prompts:
            try:
                text = sample(self.model, self.prepared.tokenizer, prompt, self.recipe.seed, self.dtype)
            except TilthError as error:
                text = f"({error})"
            self.trackers.log("sample", self.step, tokens=self.tokens, prompt=prompt, text=text)
        if best:
            save_model(self.model, self.prepared.tokenizer, self.out / "model")
        if not self.monitor.names_overfitting(train_loss):
            return False
        self.trackers.log(
            "warning", self.step, kind="overfitting", documents=[],
            message=(
                f"held-out loss has not improved on {self.monitor.best_loss:.3f} (step {self.monitor.best_step}) "
                f"for {self.monitor.patience} evaluations while the training loss fell to {train_loss:.3f}: the run "
                "overfits; the model of that step is kept. Use more text, a smaller model, or fewer epochs"
            ),
        )  # fmt: skip
        return True

    def save(self) -> None:
        """Begin to write a checkpoint of this step."""
        if self.saved == self._place():
            return
        self.saver.wait()  # so that the log tells of the one before within the bytes that this one counts
        self.last_saved = self._units(self.settings.save_every)
        keep_every = self.settings.keep_every
        if milestone := keep_every is not None and self._due(keep_every, self.last_milestone, 1):
            self.last_milestone = self._units(keep_every)
        checkpoint = Checkpoint(
            weights=dict(self.model.state_dict()),
            optimizer=self.optimizers.state(),
            state={
                "step": self.step, "tokens": self.tokens, "seconds": self.clock.seconds, "monitor":
                self.monitor.state(),
                "loss_since_evaluation": self.loss_since_evaluation, "steps_since_evaluation":
                self.steps_since_evaluation,
                "last_evaluated": self.last_evaluated, "last_saved": self.last_saved, "last_milestone":
                self.last_milestone, "last_held_out_loss": self.last_held_out_loss,
                "log_bytes": self.trackers.synced_bytes(), "ended": self.ended,
            },
            identity=self.identity,
            held_out_loss=self.last_held_out_loss,
            milestone=milestone,
        )  # fmt: skip
        self.saver.save(self.step, checkpoint)
        self.saved = self._place()

    def _place(self) -> tuple[int, int, str | None]:
        """What tells one state to save from another."""
        return self.step, self.steps_since_evaluation, self.ended

    def _restore(self, accept_changes: bool) -> dict[str, list[str]]:
        """Take up the newest whole checkpoint; returns what the log should tell of it."""
        checkpoint, problems = load_latest(self.out / "checkpoints")
        for problem in problems:
            print(f"passed over: {problem}", file=sys.stderr)
        changes = check_identity(checkpoint.identity, self.identity, accept_changes)
        recover_folder(self.out / "model")
        self.model.load_state_dict(checkpoint.weights)
        self.optimizers.load_state(checkpoint.optimizer)
        state = dict(checkpoint.state)
        self.monitor = Monitor.from_state(state.pop("monitor") | {"patience": self.settings.patience})
        self.clock = Clock(state.pop("seconds"), time.perf_counter())
        for name, value in state.items():
            setattr(self, name, value)
        if changes["accepted"]:
            self.ended = None
        before, now = (identity["recipe"]["train"] for identity in (checkpoint.identity, self.identity))
        for last, every in INTERVALS.items():
            if any(before.get(name) != now[name] for name in (every, "budget")):  # it may count in another unit now
                setattr(self, last, self._units(getattr(self.settings, every)))
        return {"damaged": problems, **changes}

    def _handle_nonfinite(self, batches: list[Batch], loss: float, norm: float) -> None:
        self.optimizers.clear()
        numbers = sorted({int(number) for batch in batches for number in batch.documents})[:20]
        documents = self.prepared.train.split.document_names(numbers)
        message = f"step {self.step}: loss {loss}, gradient norm {norm}: no update was made"
        self.trackers.log("warning", self.step, kind="nonfinite", message=message, documents=documents)
        if self.settings.on_nonfinite == "stop":
            self.save()
            raise TilthError(
                f"{message}; start another run with a lower train.lr, or with train.precision=float32; "
                f"the batch held {', '.join(documents[:3])}{' and others' if documents[3:] else ''} (see log.jsonl)"
            )

    def _finish(self, reason: str, signal_number: int | None) -> dict[str, Any]:
        figures: dict[str, Any] = {"tokens": self.tokens, "seconds": round(self.clock.seconds, 3), "reason": reason}
        # Whoever sent a signal will not wait for long: the figures of the best model can be had from the log.
        if self.monitor.best_step and signal_number is None:
            model, _ = load_model(self.out / "model")
            best = held_out_loss(model.to(self.device), self.held_out, self.device, self.dtype)
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
            "parameters": self.model.num_parameters(),
            "flops_per_token": self.model.flops_per_token(self.recipe.data.length),
            "corpus": self.prepared.corpus.fingerprint,
            "tokenizer": self.prepared.tokenizer.fingerprint,
            "weights_sha256": sha256_file(self.out / "model" / "model.safetensors"),
        }
        write_json(self.out / "summary.json", summary)
        return summary

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
            "parameters": self.model.num_parameters(),
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
