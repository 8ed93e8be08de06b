"""Disks that fill up, turn read-only or vanish under a run: it ends with a clear message and goes on exactly later."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tilth.errors import TilthError
from tilth.train.checkpoint import load_latest
from tilth.train.loop import pretrain
from tilth.train.trackers import Trackers, read_log

SETTINGS = ("bert-mini", "model.dropout=0.1", "objective.duplicates=2", "train.micro_batch_tokens=128")


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB of its own."""
    if sys.platform != "linux":
        pytest.skip("needs Linux, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tilth-test", str(folder))
    try:
        yield folder
    finally:
        while subprocess.run(["umount", "--lazy", str(folder)], capture_output=True).returncode == 0:
            pass


@pytest.fixture(scope="module")
def straight(recipe, corpus, tmp_path_factory, outcome):
    out = tmp_path_factory.mktemp("straight") / "run"
    pretrain(recipe(*SETTINGS), corpus, out, progress=False)
    return outcome(out)


def fill(disk: Path) -> Callable[[], None]:
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return (disk / "filler").unlink


def make_read_only(disk: Path) -> Callable[[], None]:
    mount("--bind", str(disk), str(disk))
    mount("-o", "remount,bind,ro", str(disk))
    return lambda: subprocess.run(["umount", str(disk)], check=True) and None


def take_away(disk: Path) -> Callable[[], None]:
    (disk / "run").rename(disk / "elsewhere")
    return lambda: (disk / "elsewhere").rename(disk / "run") and None


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (fill, "No space left on device"),
        (make_read_only, "Read-only file system"),
        (take_away, "(is no longer there|No such file)"),
    ],
)
def test_the_last_good_checkpoint_stays_and_the_run_goes_on_exactly(
    fault, said, disk, recipe, corpus, straight, outcome, monkeypatch
):
    """The fault comes after step 7, between the saves of steps 5 and 10."""
    run, mend = disk / "run", []
    log = Trackers.log

    def log_and_break(self: Trackers, event: str, step: int, **figures) -> None:
        log(self, event, step, **figures)
        if (event, step) == ("step", 7):
            mend.append(fault(disk))

    with monkeypatch.context() as patch:
        patch.setattr(Trackers, "log", log_and_break)
        with pytest.raises(TilthError, match=rf"cannot write .*{said}") as raised:
            pretrain(recipe(*SETTINGS), corpus, run, progress=False)
    assert raised.value.exit_status == 1
    assert "--resume" in str(raised.value) or "cannot write the model" in str(raised.value)
    assert "Errno" not in str(raised.value) and "-> None" not in str(raised.value)
    if fault is take_away:
        assert str(raised.value).endswith(
            f"{run} is no longer there; put it back and go on with --resume, or start the run again"
        )
        assert not (run / "checkpoints").exists(), "no second beginning of the run in its place"
        if run.exists():
            subprocess.run(["rm", "-r", run], check=True)
    mend[0]()
    checkpoint, problems = load_latest(run / "checkpoints")
    assert (checkpoint.state["step"], problems) == (5, [])
    pretrain(recipe(*SETTINGS), corpus, run, resume=True, progress=False)
    result = outcome(run)
    for part in straight:
        assert result[part] == straight[part], part
    assert not list((run / "checkpoints").glob(".step-*"))


def test_a_full_disk_is_told_by_the_command(disk, recipe, corpus, tmp_path):
    """`tilth pretrain` on a disk that fills up: status 1, one message, no traceback; mended, it goes on."""
    recipe_file, run = tmp_path / "recipe.yaml", disk / "run"
    recipe_file.write_text(recipe(*SETTINGS, "train.budget=3000 steps", "train.save_every=10 steps").to_yaml())
    command = [sys.executable, "-m", "tilth", "pretrain", str(recipe_file), "--corpus", str(corpus), "--out", str(run)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    while not (run / "checkpoints" / "latest").exists() and process.poll() is None:
        time.sleep(0.002)
    mend = fill(disk)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (1, "")
    assert "No space left on device" in errors and "--resume" in errors and "Traceback" not in errors, errors
    good = load_latest(run / "checkpoints")[0].state["step"]
    assert good % 10 == 0 and good > 0
    mend()
    process = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not _has(run, good + 15) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert load_latest(run / "checkpoints")[0].state["step"] >= good + 15


def _has(run: Path, step: int) -> bool:
    return any(record["event"] == "step" and record["step"] >= step for record in read_log(run / "log.jsonl"))


def test_a_read_only_folder_is_named_at_the_start_and_on_resume(disk, recipe, corpus, run_until):
    run = disk / "run"
    run_until(recipe(), corpus, run, stop=6)
    (run / ".torchrun").write_text("another launch")
    mend = make_read_only(disk)
    try:
        for resume in (True, False):
            with pytest.raises(TilthError, match=rf"cannot write to {run}: Read-only file system"):
                pretrain(recipe(), corpus, run, resume=resume, progress=False)
    finally:
        mend()
