"""Changes to a running job, asked for through its folder.

Whoever writes `lr: 1e-4` or `stop: true` into RUN/control.yaml changes the peak learning rate, or ends the run, at the
next step or the one after. The file is taken away; the change is kept in RUN/changes.jsonl with its step, so that a run
that goes on from an earlier checkpoint makes it at the same step again.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from tilth.errors import TilthError, UsageError
from tilth.settings import Settings, load_settings, read_yaml


class Change(Settings):
    """What can be changed while a run goes on."""

    lr: float | None = Field(default=None, gt=0, description="peak learning rate from now on")
    stop: bool = Field(default=False, description="evaluate, save and end")

    @model_validator(mode="after")
    def _changes_something(self) -> "Change":
        if self.lr is None and not self.stop:
            raise ValueError("nothing to change; write lr: <peak learning rate> or stop: true")
        return self


class Control:
    """The changes of a run: those asked for, and those made before an interruption."""

    def __init__(self, run: Path, resume: bool) -> None:
        """Raises: TilthError when the record of earlier changes is damaged."""
        self._file, self._record = run / "control.yaml", run / "changes.jsonl"
        self._seen: tuple[int, int] | None = None
        self._left: tuple[int, int] | None = None
        """What was not valid and could not be set aside, as it was then."""
        self._rates: dict[int, float] = {}
        self._taken: set[int] = set()
        """When the files of the record were written: one of them may still be there, if a crash came before its
        removal."""
        if not resume:
            self._record.unlink(missing_ok=True)
        elif self._record.exists():
            self._read_record()

    def _read_record(self) -> None:
        """Take up the changes made before. Raises: TilthError when one cannot be told."""
        for number, line in enumerate(self._record.read_bytes().split(b"\n"), 1):
            try:
                record = json.loads(line.decode())
                step, lr, asked = int(record["step"]), float(record["lr"]), int(record["asked"])
            except json.JSONDecodeError:
                continue  # cut short by a crash; the file it came from is still there
            except (ValueError, KeyError, TypeError, RecursionError):
                raise TilthError(
                    f"{self._record} is damaged in line {number}: restore the line, or remove it (the change of the "
                    "rate that it told of is then not made again)"
                ) from None
            self._rates[step] = lr
            self._taken.add(asked)

    def take(self, step: int) -> Change | None:
        """The change to make before a step, counted from 0.

        Raises: UsageError when what is asked for is not valid; it is set aside as control.invalid.yaml.
        """
        asked = self._asked(step)
        lr = self._rates.get(step)
        if asked is not None or lr is None:
            return asked
        return Change(lr=lr)

    def _asked(self, step: int) -> Change | None:
        try:
            status = os.stat(self._file)
        except OSError:
            self._seen = None
            self._taken.clear()  # what comes from now on is new, also where it is as old as another
            return None
        # A file that still changes is still being written.
        seen, self._seen = self._seen, (status.st_mtime_ns, status.st_size)
        if seen != self._seen or self._seen == self._left:
            return None
        if status.st_mtime_ns in self._taken:
            self._file.unlink(missing_ok=True)
            return None
        try:
            text = self._file.read_text(encoding="utf-8")
            change = load_settings(Change, values=read_yaml(text, "control.yaml"), where="control.yaml")
        except (UsageError, OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{error}; nothing was changed, and it is {self._set_aside()}") from None
        if change.lr is not None:
            self._rates[step] = change.lr
            self._append({"step": step, "lr": change.lr, "asked": status.st_mtime_ns})
        self._file.unlink(missing_ok=True)
        return change

    def _set_aside(self) -> str:
        """Take what is not valid out of the way; returns where it is now."""
        try:
            self._file.replace(self._file.with_name("control.invalid.yaml"))
        except OSError as error:
            self._left = self._seen
            return f"still there, because it cannot be set aside ({error.strerror}): remove it"
        return "now control.invalid.yaml"

    def _append(self, record: dict[str, Any]) -> None:
        with open(self._record, "a+b") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # ends a line that a crash cut short
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
