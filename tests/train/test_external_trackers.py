"""Each test needs the tracker it is about (`pip install 'tilth[wandb,mlflow,trackio]'`), and no network."""

import importlib.util
import json
import socket
import struct
import time

import pytest

from tilth.errors import TilthError, UsageError
from tilth.train.trackers import Trackers

NAMES = ["wandb", "mlflow", "trackio"]
SETTINGS = {"seed": 3, "train": {"lr": 0.5}}
pytestmark = pytest.mark.filterwarnings("default")  # those of other projects are not ours to mend


@pytest.fixture
def no_network(monkeypatch):
    """Connections to anything but this machine fail; returns the addresses that were tried."""
    connect, tried = socket.socket.connect, []

    def refuse(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            tried.append(address)
            raise OSError("no network in this test")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def logged(run, name, resumed=None, steps=(1, 2)):
    trackers = Trackers(run, resumed, None, [name], SETTINGS)
    for step in steps:
        trackers.log("step", step, loss=1 / step, lr=0.5)
    trackers.log("evaluation", steps[-1], held_out_loss=2.5, best=True, parts={"causal": 2.5})
    trackers.log("warning", steps[-1], kind="spike", message="words", documents=[])
    trackers.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_is_not_installed_is_an_error_that_names_its_extra(name, tmp_path):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(TilthError, match=rf"pip install 'tilth\[{name}\]'"):
        logged(tmp_path, name)


def test_a_tracker_that_is_not_known_is_wrong_use(recipe):
    with pytest.raises(UsageError, match=r"train\.trackers.*'trackio', 'wandb' or 'mlflow'"):
        recipe("gpt2-mini", "train.trackers=[tensorbord]")


def wandb_records(content):
    """The protocol buffers of a wandb file: after 7 bytes a LevelDB log, whose records have 7 bytes of header."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert len(content) < 1 << 15, "records may then be split"
    place = 7
    while place + 7 <= len(content):
        size, kind = struct.unpack_from("<HB", content, place + 4)
        assert kind == 1
        if place + 7 + size > len(content):  # still being written
            return
        yield Record.FromString(content[place + 7 : place + 7 + size])
        place += 7 + size


def test_wandb_writes_offline(tmp_path, monkeypatch, no_network):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logged(tmp_path, "wandb")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    records, until = [], time.monotonic() + 60
    while not any(record.WhichOneof("record_type") == "exit" for record in records):  # its own process writes the file
        assert time.monotonic() < until, "wandb did not finish its file"
        time.sleep(0.05)
        records = list(wandb_records(file.read_bytes()))
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["step"], row["step/loss"], row["step/lr"]) for row in rows[:2]] == [(1, 1.0, 0.5), (2, 0.5, 0.5)]
    assert rows[2]["evaluation/held_out_loss"] == 2.5 and rows[2]["step"] == 2
    assert len(rows) == 3 and wandb.run is None and no_network == []


def test_mlflow_writes_files_and_goes_on_in_the_same_run(tmp_path, monkeypatch, no_network):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logged(tmp_path, "mlflow")
    logged(tmp_path, "mlflow", resumed=2, steps=(3,))
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("tilth")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"seed": "3", "train.lr": "0.5"}
    history = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "step/loss")]
    assert history == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert run.data.metrics["evaluation/held_out_loss"] == 2.5
    assert run.info.status == "FINISHED" and no_network == []


def test_trackio_writes_on_this_machine(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)
    (tmp_path / "run").mkdir()
    logged(tmp_path / "run", "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("tilth")
    assert name.startswith("run ")
    rows = SQLiteStorage.get_logs("tilth", name)
    assert [(row["step"], row["step/loss"]) for row in rows if "step/loss" in row] == [(1, 1.0), (2, 0.5)]
    assert [row["evaluation/held_out_loss"] for row in rows if "evaluation/held_out_loss" in row] == [2.5]
    assert no_network == []
