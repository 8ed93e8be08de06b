import threading
import time

import pytest
import torch

from tilth.errors import TilthError
from tilth.train import saver as saver_module
from tilth.train.checkpoint import Checkpoint, load_latest, save_checkpoint
from tilth.train.saver import Saver


class Slow:
    """`save_checkpoint` that waits to be let go, and counts how many are at it."""

    def __init__(self):
        self.go, self.at_it, self.most = threading.Semaphore(0), 0, 0

    def __call__(self, *arguments):
        self.at_it += 1
        self.most = max(self.most, self.at_it)
        self.go.acquire()
        try:
            return save_checkpoint(*arguments)
        finally:
            self.at_it -= 1


@pytest.fixture
def slow(monkeypatch):
    slow = Slow()
    monkeypatch.setattr(saver_module, "save_checkpoint", slow)
    return slow


@pytest.fixture
def log():
    records = []
    return records, lambda event, step, **figures: records.append({"event": event, "step": step, **figures})


def state_of(value: float) -> Checkpoint:
    return Checkpoint(
        {"a": torch.full((64, 2), value)}, {"a/m": torch.tensor(value)}, {"step": value, "inner": {"x": value}}, {}
    )


def test_what_changes_after_save_returned_does_not_reach_the_disk(tmp_path, slow, log):
    saver = Saver(tmp_path / "checkpoints", 2, log[1])
    live = state_of(1.0)
    for step in (1, 2, 3):
        saver.save(step, live)
        live.weights["a"] += 1
        live.optimizer["a/m"].add_(1)
        live.state["inner"]["x"] += 1
        slow.go.release()
        saver.wait()
        again, _ = load_latest(tmp_path / "checkpoints")
        assert torch.equal(again.weights["a"], torch.full((64, 2), float(step)))
        assert again.optimizer["a/m"] == again.state["inner"]["x"] == step
    saver.close()
    assert [(record["event"], record["step"], record["path"]) for record in log[0]] == [
        ("checkpoint", step, f"checkpoints/step-{step:08d}") for step in (1, 2, 3)
    ]


def test_one_save_is_in_flight_and_training_goes_on_meanwhile(tmp_path, slow, log):
    saver = Saver(tmp_path, 3, log[1])
    started = time.perf_counter()
    saver.save(1, state_of(1.0))
    assert time.perf_counter() - started < 5, "save returned though nothing is written yet"
    saver.poll()
    assert log[0] == [] and not list(tmp_path.iterdir())
    threading.Timer(0.2, slow.go.release, [2]).start()
    saver.save(2, state_of(2.0))
    assert [record["step"] for record in log[0]] == [1], "the second waited for the first"
    saver.close()
    assert [record["step"] for record in log[0]] == [1, 2]
    assert slow.most == 1
    assert load_latest(tmp_path)[0].state["step"] == 2.0


def test_a_failure_in_the_thread_is_raised_by_the_next_call_and_logged(tmp_path, log):
    saver = Saver(tmp_path / "checkpoints", 2, log[1])
    saver.save(1, state_of(1.0))
    saver.wait()
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    saver.save(2, state_of(2.0))
    message = r"cannot write the checkpoint .*step-00000002: .*no longer there"
    with pytest.raises(TilthError, match=message):
        while True:
            saver.poll()
            time.sleep(0.001)
    assert (log[0][-1]["event"], log[0][-1]["kind"]) == ("warning", "checkpoint")
    assert "step-00000002" in log[0][-1]["message"]
    saver.poll()
    saver.close()
    assert load_latest(tmp_path / "elsewhere")[0].state["step"] == 1.0
