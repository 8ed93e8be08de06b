"""Where a run's figures go: `log.jsonl` always, TensorBoard when it is installed."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Takes one record of a run at a time."""

    def log(self, step: int, record: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object a line, flushed as it comes."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open for as long as the run

    def log(self, step: int, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(_finite(record), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Scalars and samples of a run as TensorBoard reads them."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """purge_step: records from this step on, from before an interruption, are no longer shown."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log(self, step: int, record: dict[str, Any]) -> None:
        event = record["event"]
        if event == "sample":
            self._writer.add_text(record["prompt"] or "(start)", record["text"], step)
        elif event in ("step", "evaluation"):
            for name, value in record.items():
                if isinstance(value, int | float) and name not in ("step", "best"):
                    self._writer.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class Trackers:
    """All trackers of a run."""

    def __init__(self, run: Path, resumed_step: int | None) -> None:
        """resumed_step: records after it, from before an interruption, are dropped."""
        path = run / "log.jsonl"
        if resumed_step is None:
            path.unlink(missing_ok=True)
        else:
            _drop_after(path, resumed_step)
        self._trackers: list[Tracker] = [JsonLines(path)]
        if importlib.util.find_spec("tensorboard") is not None:
            purge_step = None if resumed_step is None else resumed_step + 1
            self._trackers.append(TensorBoard(run / "tensorboard", purge_step))

    def log(self, event: str, step: int, **figures: Any) -> None:
        """Give one record to every tracker."""
        for tracker in self._trackers:
            tracker.log(step, {"event": event, "step": step, **figures})

    def close(self) -> None:
        """Flush and close every tracker."""
        for tracker in self._trackers:
            tracker.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, but for a last line cut short by a crash."""
    records = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def _drop_after(path: Path, step: int) -> None:
    from tilth.files import write_text

    if path.exists():
        kept = [record for record in read_log(path) if record["step"] <= step and record["event"] != "end"]
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


def _finite(value: Any) -> Any:
    """JSON has no NaN: such figures become null."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
