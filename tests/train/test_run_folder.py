"""One process at a time works in the folder of a run, and one that starts nothing leaves nothing there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tilth
from tilth.errors import TilthError, UsageError
from tilth.train.loop import pretrain
from tilth.train.run_folder import alone_in

HOLD = """
import sys, time
from pathlib import Path
from tilth.train.run_folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_is_refused_until_the_first_is_gone(recipe, corpus, run_until, tmp_path, outcome):
    run = tmp_path / "run"
    run_until(recipe(), corpus, run, stop=7)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        for resume in (True, False):
            with pytest.raises(UsageError, match=r"another process is working on this run, .*run; wait for it or end"):
                pretrain(recipe(), corpus, run, resume=resume, progress=False)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert first.stdout is not None
        first.stdout.close()
    pretrain(recipe(), corpus, run, resume=True, progress=False)
    assert ".lock" not in names(run)
    pretrain(recipe(), corpus, tmp_path / "straight", progress=False)
    assert outcome(run) == outcome(tmp_path / "straight")


def test_the_lock_is_held_while_the_run_lives(recipe, corpus, tmp_path, monkeypatch):
    from tilth.train.trackers import Trackers

    log, refused = Trackers.log, []

    def log_and_try(self, event, step, **figures):
        log(self, event, step, **figures)
        if event in ("start", "step", "end"):
            with pytest.raises(UsageError, match="another process is working"), alone_in(tmp_path / "run"):
                pass
            refused.append(event)

    monkeypatch.setattr(Trackers, "log", log_and_try)
    pretrain(recipe("gpt2-mini", "train.budget=2 steps"), corpus, tmp_path / "run", progress=False)
    assert refused == ["start", "step", "step", "end"]
    with alone_in(tmp_path / "run"):
        assert ".lock" in names(tmp_path / "run")


@pytest.mark.parametrize("name", ["model", "shards", "tokenizer.json", "log.jsonl"])
def test_what_is_of_no_run_is_not_replaced(name, recipe, corpus, tmp_path):
    run = tmp_path / "run"
    mine = run / name if "." in name else run / name / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(UsageError, match=rf"run holds {name}, which a run would replace, but no recipe.yaml"):
        pretrain(recipe("gpt2-mini"), corpus, run, progress=False)
    assert mine.read_text() == "precious" and names(run) == [name]


def test_the_recipe_of_a_start_is_not_replaced(recipe, corpus, tmp_path):
    written = recipe("gpt2-mini", "train.budget=1 steps").to_yaml() + "# why these settings\n"
    (tmp_path / "recipe.yaml").write_text(written)
    with pytest.raises(
        UsageError, match=r"recipe\.yaml is what the run would write its whole recipe to; choose another"
    ):
        tilth.pretrain(tmp_path / "recipe.yaml", corpus, tmp_path, progress=False)
    assert (tmp_path / "recipe.yaml").read_text() == written
    tilth.pretrain(tmp_path / "recipe.yaml", corpus, tmp_path / "run", progress=False)
    again = tilth.pretrain(tmp_path / "run" / "recipe.yaml", corpus, tmp_path / "run", resume=True, progress=False)
    assert again["step"] == 1


def test_a_run_that_was_killed_while_it_was_prepared_starts_anew(recipe, corpus, tmp_path, monkeypatch):
    run, settings = tmp_path / "run", recipe("gpt2-mini", "train.budget=1 steps")

    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("tilth.train.prepare.write_shards", kill)
        with pytest.raises(Killed):
            pretrain(settings, corpus, run, progress=False)
    assert "tokenizer.json" in names(run) and "shards" not in names(run)
    assert pretrain(settings, corpus, run, progress=False)["step"] == 1


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with alone_in(tmp_path):
        pass
    assert "Operation not supported): let no other process write there" in capsys.readouterr().err


def pretrain_by(processes: int, recipe, corpus: Path, folder: Path) -> subprocess.CompletedProcess:
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return subprocess.run(
        [sys.executable, "-m", "tilth", "pretrain", str(folder / "recipe.yaml"), "--corpus", str(corpus), "--out",
         str(folder / "run"), "--processes", str(processes)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_two_processes_that_start_nothing_leave_nothing(recipe, tmp_path):
    done = pretrain_by(2, recipe(), tmp_path / "nowhere", tmp_path)
    assert done.returncode != 0 and "nowhere" in done.stderr
    assert not (tmp_path / "run").exists()


def test_two_processes_leave_no_word_of_their_launch(recipe, corpus, tmp_path):
    done = pretrain_by(2, recipe("gpt2-mini", "train.budget=2 steps"), corpus, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [name for name in names(tmp_path / "run") if name.startswith(".")] == []


def test_a_damaged_word_of_a_launch_is_that_of_another(recipe, corpus, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".torchrun").write_bytes(b"\xff\xfe")
    pretrain(recipe("gpt2-mini", "train.budget=1 steps"), corpus, run, progress=False)
    assert ".torchrun" not in names(run)


def test_a_tracker_that_is_not_installed_is_told_first(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TilthError, match=r"wandb is not installed; run: pip install 'tilth\[wandb\]'"):
        pretrain(recipe("gpt2-mini", "train.trackers=[wandb]"), tmp_path / "nowhere", tmp_path / "run", progress=False)
    assert names(tmp_path / "run") == []


def test_a_tokenizer_that_does_not_suit_leaves_nothing(recipe, corpus, tmp_path):
    tilth.tokenizer_train(corpus, tmp_path / "tokenizer.json", vocab_size=300, progress=False)
    given = recipe("gpt2-mini", f"tokenizer.path={tmp_path / 'tokenizer.json'}")
    with pytest.raises(UsageError, match="needs an end-of-text token: use tokenizer.kind=byte_bpe"):
        pretrain(given, tmp_path / "nowhere", tmp_path / "run", progress=False)
    assert names(tmp_path / "run") == []
