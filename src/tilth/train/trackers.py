"""Where a run's figures go: `log.jsonl` always, TensorBoard when it is installed, others when the recipe names them."""

import contextlib
import errno
import importlib.util
import json
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilth.errors import TilthError
from tilth.files import write_text
from tilth.train.external_trackers import EXTERNAL, Tracker, scalars
from tilth.train.mending import unwritable


class JsonLines:
    """One JSON object a line, written as it comes."""

    def __init__(self, path: Path) -> None:
        # Without a buffer, nothing is left over to fail once more when a full disk ends the run.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open for as long as the run

    def log(self, step: int, record: dict[str, Any]) -> None:
        line = json.dumps(_finite(record), ensure_ascii=False).encode(errors="replace") + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def synced_bytes(self) -> int:
        """Make what was written outlast a power cut; returns how many bytes there are."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self, failed: bool) -> None:
        self._file.close()


class TensorBoard:
    """Scalars and samples of a run as TensorBoard reads them."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """purge_step: records from this step on, from before an interruption, are no longer shown."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        # When its thread cannot write, the next call raises what happened; a traceback beside that helps nobody.
        self._hook_before = threading.excepthook
        threading.excepthook = self._hook

    def _hook(self, failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__name__ != "_AsyncWriterThread":
            self._hook_before(failure)

    def log(self, step: int, record: dict[str, Any]) -> None:
        event = record["event"]
        if event == "sample":
            self._writer.add_text(record["prompt"] or "(start)", record["text"], step)
        else:
            for name, value in scalars(record).items():
                self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        if threading.excepthook == self._hook:
            threading.excepthook = self._hook_before
        self._writer.close()


class Trackers:
    """All trackers of a run."""

    def __init__(
        self,
        run: Path,
        resumed_step: int | None,
        log_bytes: int | None = None,
        external: Sequence[str] = (),
        settings: dict[str, Any] | None = None,
        writes: bool = True,
    ) -> None:
        """resumed_step: the step of the checkpoint that the run goes on from, if it does. log_bytes: what
        `synced_bytes` was then; records from after it, but for those of other resumes, are dropped. external: names in
        `EXTERNAL`. settings: the run's, for trackers that show them. writes: False for the processes of a run that
        leave it to the first.

        Raises: TilthError naming the extra of a tracker that is not installed.
        """
        self._path = run / "log.jsonl"
        self._lines: JsonLines | None = None
        self._trackers: list[Tracker] = []
        if not writes:
            return
        chosen: list[Tracker] = [EXTERNAL[name](run, settings or {}) for name in external]
        if resumed_step is None:
            self._path.unlink(missing_ok=True)
        else:
            _cut(self._path, log_bytes, resumed_step)
        self._lines = JsonLines(self._path)
        self._trackers.append(self._lines)
        if importlib.util.find_spec("tensorboard") is not None:
            purge_step = None if resumed_step is None else resumed_step + 1
            self._trackers.append(TensorBoard(run / "tensorboard", purge_step))
        self._trackers += chosen

    def log(self, event: str, step: int, **figures: Any) -> None:
        """Give one record to every tracker. Raises: TilthError when one cannot be written."""
        try:
            for tracker in self._trackers:
                tracker.log(step, {"event": event, "step": step, **figures})
        except OSError as error:
            raise self._unwritable(error) from None

    def synced_bytes(self) -> int:
        """How long `log.jsonl` is, all of it safe on the disk. Raises: TilthError when it cannot be made so."""
        try:
            return self._lines.synced_bytes() if self._lines is not None else 0
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self, failed: bool = False) -> None:
        """Flush and close every tracker, as far as the disk lets them. failed: the run has no result."""
        for tracker in self._trackers:
            with contextlib.suppress(OSError):
                tracker.close(failed)

    def _unwritable(self, error: OSError) -> TilthError:
        return unwritable("the log in", self._path.parent, self._path.parent, error)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, but for lines that are none: the last one may have been cut short by a crash."""
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("event"), str) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def has_saved(run: Path) -> bool:
    """Whether a run's log tells of a checkpoint."""
    path = run / "log.jsonl"
    return path.exists() and any(record["event"] == "checkpoint" for record in read_log(path))


def _cut(path: Path, size: int | None, step: int) -> None:
    """Leave the first `size` bytes, and later records of resumes up to `step`: they did happen, whatever came of them.

    Where that is not how the log was (someone edited it, or `size` is None), leave the records up to `step`.
    """
    if not path.exists():
        return
    with open(path, "r+b") as file:
        if size is not None:
            file.seek(max(0, size - 1))
        if size is None or (size and file.read(1) != b"\n"):
            return _drop_after(path, step)
        file.seek(size)
        resumes = []
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                if record["event"] == "resume" and record["step"] <= step and line.endswith(b"\n"):
                    resumes.append(line)
        file.truncate(size)
        file.seek(size)
        file.writelines(resumes)


def _drop_after(path: Path, step: int) -> None:
    if path.exists():
        kept = [record for record in read_log(path) if record["step"] <= step and record["event"] != "end"]
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


def _finite(value: Any) -> Any:
    """JSON has no NaN: such figures become null."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
