"""What a run folder says about its run, whether the run is finished, going on, resumed or broken off."""

import itertools
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tilth.errors import TilthError
from tilth.evidence import human
from tilth.files import read_json

Event = dict[str, Any]


@dataclass
class RunRecord:
    """The events of `log.jsonl` by kind, in order, and the files beside it (None where absent).

    After a resumption only what the resumed run kept is listed: the steps past its checkpoint were done again.
    """

    folder: Path
    recipe: dict[str, Any]
    summary: Event | None
    card: dict[str, Any] | None
    config: dict[str, Any] | None
    plan: dict[str, Any] | None = None
    start: Event = field(default_factory=dict)
    end: Event | None = None
    steps: list[Event] = field(default_factory=list)
    evaluations: list[Event] = field(default_factory=list)
    samples: list[Event] = field(default_factory=list)
    warnings: list[Event] = field(default_factory=list)
    resumes: list[Event] = field(default_factory=list)
    rewinds: list[Event] = field(default_factory=list)
    checkpoints: list[Event] = field(default_factory=list)
    changes: list[Event] = field(default_factory=list)
    unreadable_lines: int = 0

    @property
    def best(self) -> Event | None:
        """The scheduled evaluation with the lowest held-out loss."""
        scored = [event for event in self.evaluations if human.is_number(event.get("held_out_loss"))]
        return min(scored, key=lambda event: event["held_out_loss"], default=None)

    @property
    def result(self) -> Event | None:
        """`step`, `held_out_loss` and `bits_per_byte` of the weights in `model/`.

        A run scores them once more at its end; before it they are those of the best evaluation.
        """
        for event in (self.end, self.summary):
            if event and human.is_number(event.get("held_out_loss")):
                return {**event, "step": event.get("best_step")}
        return self.best

    @property
    def objective(self) -> str:
        return str((self.recipe.get("objective") or {}).get("name", "masked"))

    @property
    def tokens(self) -> int | None:
        return self._last("tokens")

    @property
    def seconds(self) -> float | None:
        return self._last("seconds")

    @property
    def evaluation_seconds(self) -> float:
        """What scoring held-out data on schedule took, as far as the log tells."""
        return sum(event["took"] for event in self.evaluations if human.is_number(event.get("took")))

    @property
    def speed(self) -> float | None:
        """Tokens a second on the clock, as a plan predicts them: the median over intervals from one step to the next.

        Left out are intervals in which something else was done: an evaluation, samples, a resumption, a way back.
        """
        interrupted = {
            event["step"]
            for events in (self.evaluations, self.samples, self.resumes, self.rewinds)
            for event in events
            if "step" in event
        }
        speeds = []
        for before, after in itertools.pairwise(self.steps):
            figures = [event.get(name) for event in (before, after) for name in ("tokens", "seconds")]
            if before.get("step") in interrupted or not all(map(human.is_number, figures)):
                continue
            seconds = after["seconds"] - before["seconds"]
            if seconds > 0:
                speeds.append((after["tokens"] - before["tokens"]) / seconds)
        return statistics.median(speeds) if speeds else None

    @property
    def parameters(self) -> int | None:
        return self.start.get("parameters") or (self.summary or {}).get("parameters")

    @property
    def flops(self) -> float | None:
        """Estimated training operations so far; see `Model.flops_per_token`."""
        each = self.start.get("flops_per_token")
        return None if each is None or self.tokens is None else each * self.tokens

    def _last(self, name: str) -> Any:
        latest = [events[-1] for events in (self.steps, self.evaluations) if events]
        values = [event[name] for event in (self.end, self.summary, *latest) if event and event.get(name) is not None]
        return max(values, default=None)


def read_run(folder: Path) -> RunRecord:
    """Read a run folder; a line of the log cut short by a crash is counted, not fatal.

    Raises: TilthError when the folder has no recipe.yaml or no log.jsonl, or one of its files cannot be read.
    """
    for name in ("recipe.yaml", "log.jsonl"):
        if not (folder / name).is_file():
            raise TilthError(
                f"{folder} is not a run: it has no {name}; give the folder that tilth pretrain --out wrote"
            )
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TilthError(f"{folder / 'recipe.yaml'} is not valid YAML: {error}") from None
    record = RunRecord(
        folder=folder,
        recipe=recipe if isinstance(recipe, dict) else {},
        summary=_optional(folder / "summary.json"),
        card=_optional(folder / "corpus" / "card.json"),
        config=_optional(folder / "model" / "config.json"),
        plan=_optional(folder / "plan.json"),
    )
    with open(folder / "log.jsonl", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            _take(record, line)
    if record.card is None and record.start.get("corpus_card"):
        named = Path(record.start["corpus_card"])
        record.card = _optional(folder / named) or _optional(named)
    return record


def _take(record: RunRecord, line: str) -> None:
    try:
        event = json.loads(line)
        kind = event["event"]
    except (json.JSONDecodeError, TypeError, KeyError):
        record.unreadable_lines += bool(line.strip())
        return
    lists = {
        "step": record.steps,
        "evaluation": record.evaluations,
        "sample": record.samples,
        "warning": record.warnings,
        "checkpoint": record.checkpoints,
        "change": record.changes,
    }
    if kind in lists:
        lists[kind].append(event)
    elif kind == "start":
        record.start = {**event, "time": record.start.get("time", event.get("time"))}
    elif kind == "end":
        record.end = event
    elif kind in ("resume", "rewind"):
        for events in lists.values():
            # The steps past the checkpoint are done again; what was wrong with those of a rewind stays on record.
            if events is not record.warnings:
                events[:] = [earlier for earlier in events if earlier.get("step", 0) <= event["step"]]
        if kind == "rewind":
            record.rewinds.append(event)
        else:
            record.resumes.append(event)
            record.end = None


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else None
