"""Trackers that other projects make. Nothing leaves this machine unless their own settings say so.

Each gives a run the name of its folder, and gets the figures of `scalars`. A resumed run goes on in the same record:
figures carry their step, so those of steps done again are there twice.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tilth.errors import check_extra, import_extra
from tilth.files import fingerprint

PROJECT = "tilth"


class Tracker(Protocol):
    """Takes one record of a run at a time."""

    def log(self, step: int, record: dict[str, Any]) -> None: ...

    def close(self, failed: bool) -> None:
        """failed: the run ended by an error or a signal, and has no result."""
        ...


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The figures of a step or an evaluation, as `event/name`; of other events none."""
    if record["event"] not in ("step", "evaluation"):
        return {}
    return {
        f"{record['event']}/{name}": value
        for name, value in record.items()
        if isinstance(value, int | float) and name not in ("step", "best")
    }


class Wandb:
    """Weights & Biases: offline in RUN/wandb, for `wandb sync`, unless WANDB_MODE says otherwise."""

    def __init__(self, run: Path, settings: dict[str, Any]) -> None:
        # Set before the import, which reads it: errors inside wandb are not reported to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = import_extra("wandb", "wandb")
        self._run = wandb.init(
            project=PROJECT, name=run.resolve().name, id=_identity(run), resume="allow", dir=str(run), config=settings,
            mode=os.environ.get("WANDB_MODE", "offline"), settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        # Their own count of steps cannot go back, as a resumed run does.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, record: dict[str, Any]) -> None:
        if figures := scalars(record):
            self._run.log({"step": step, **figures})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """MLflow: files in RUN/mlflow, unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, run: Path, settings: dict[str, Any]) -> None:
        # Set before the import, which reads them. Files are what needs no server and no database.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow = import_extra("mlflow", "mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.resolve() / "mlflow").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        found = self._client.search_runs([number], f"tags.tilth_run = '{_identity(run)}'")
        if found:
            self._id = found[0].info.run_id
            self._client.set_terminated(self._id, "RUNNING")
            return
        created = self._client.create_run(number, tags={"tilth_run": _identity(run)}, run_name=run.resolve().name)
        self._id = created.info.run_id
        for name, value in _flat(settings).items():
            self._client.log_param(self._id, name, value)

    def log(self, step: int, record: dict[str, Any]) -> None:
        for name, value in scalars(record).items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


class Trackio:
    """Trackio: in its own folder on this machine (`trackio show`), unless TRACKIO_SPACE_ID names a Space."""

    def __init__(self, run: Path, settings: dict[str, Any]) -> None:
        trackio = import_extra("trackio", "trackio")
        self._run = trackio.init(
            project=PROJECT, name=f"{run.resolve().name} {_identity(run)}", config=_flat(settings), resume="allow",
            space_id=os.environ.get("TRACKIO_SPACE_ID"), embed=False,
        )  # fmt: skip

    def log(self, step: int, record: dict[str, Any]) -> None:
        if figures := scalars(record):
            self._run.log(figures, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish()  # it knows no other end


EXTERNAL: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {"wandb": Wandb, "mlflow": MLflow, "trackio": Trackio}


def check_installed(names: Sequence[str]) -> None:
    """Raises: TilthError naming the extra of the first of these trackers that is not installed."""
    for name in names:
        check_extra(name, name)


def _identity(run: Path) -> str:
    """The same for a run that goes on."""
    return fingerprint(str(run.resolve()))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
