"""A run that was stopped and resumed is, bit for bit, the run that was never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

import tilth
from tilth.errors import TilthError, UsageError
from tilth.key import Key
from tilth.model.threads import threads_restored
from tilth.train.batches import Batches
from tilth.train.checkpoint import load_latest, save_checkpoint
from tilth.train.loop import Run, pretrain
from tilth.train.prepare import prepare
from tilth.train.trackers import read_log

# Small micro-batches, so that a step accumulates four of them; 12 steps are about three epochs.
ACCUMULATED = ("model.dropout=0.1", "train.micro_batch_tokens=128")
RECIPES = {
    "next sentence": ("bert-mini", *ACCUMULATED, "objective.duplicates=2"),
    "masked in bfloat16": ("roberta-mini", *ACCUMULATED, "train.precision=bfloat16", "train.optimizer=adamw"),
    "causal in bfloat16": ("gpt3-mini", *ACCUMULATED, "train.precision=bfloat16"),
    "replaced tokens": ("electra-mini", *ACCUMULATED),
    "rotary": ("qwen3-mini", *ACCUMULATED),
}


FINISHED = ("gpt2-mini", "train.save_every=4 steps")


@pytest.fixture(scope="module")
def straight(recipe, corpus, tmp_path_factory, outcome):
    """A function: what a named run computes without interruption, run once."""
    outcomes = {}

    def run(name: str) -> dict:
        if name not in outcomes:
            out = tmp_path_factory.mktemp("straight") / "run"
            pretrain(recipe(*RECIPES[name]), corpus, out, progress=False)
            outcomes[name] = outcome(out)
        return outcomes[name]

    return run


def assert_equal(resumed: dict, straight: dict) -> None:
    assert resumed["log"] == straight["log"]
    for part in straight:
        assert resumed[part] == straight[part], part


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("next sentence", [2]),
        ("next sentence", [9]),
        ("masked in bfloat16", [7]),
        ("causal in bfloat16", [1, 6, 11]),
        ("replaced tokens", [7]),
        ("rotary", [4]),
    ],
    ids=str,
)
def test_a_resumed_run_is_bitwise_the_run_that_never_stopped(
    name, stops, recipe, corpus, straight, run_until, outcome, tmp_path
):
    settings = recipe(*RECIPES[name])
    for number, stop in enumerate(stops):
        run_until(settings, corpus, tmp_path / "run", stop=stop, resume=number > 0)
    summary = pretrain(settings, corpus, tmp_path / "run", resume=True, progress=False)
    assert summary["step"] == 12
    assert summary["reason"] == "budget"
    resumes = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["event"] == "resume"]
    assert [(record["step"], record["damaged"]) for record in resumes] == [(stop, []) for stop in stops]
    assert_equal(outcome(tmp_path / "run"), straight(name))


def test_a_resumed_run_computes_with_the_threads_of_before(recipe, corpus, run_until, outcome, tmp_path, monkeypatch):
    """Another number of threads gives other last bits."""
    settings = recipe(*RECIPES["next sentence"])
    with threads_restored():
        for number in (2, 3):
            torch.set_num_threads(number)
            monkeypatch.setenv("OMP_NUM_THREADS", str(number))
            pretrain(settings, corpus, tmp_path / f"straight-{number}", progress=False)
            run_until(settings, corpus, tmp_path / f"run-{number}", stop=5)
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        for number in (2, 3):
            torch.set_num_threads(len(os.sched_getaffinity(0)))
            pretrain(settings, corpus, tmp_path / f"run-{number}", resume=True, progress=False)
            assert_equal(outcome(tmp_path / f"run-{number}"), outcome(tmp_path / f"straight-{number}"))
            assert outcome(tmp_path / f"run-{number}")["state"]["identity"]["threads"] == number
            (resumed,) = [r for r in read_log(tmp_path / f"run-{number}" / "log.jsonl") if r["event"] == "resume"]
            assert resumed["threads"] == number


def test_the_straight_run_covers_what_it_should(straight):
    epochs = [record["epoch"] for record in straight("next sentence")["log"] if record["event"] == "step"]
    assert epochs[1] < 1 < epochs[8] - 1
    assert len({record["loss"] for record in straight("next sentence")["log"] if record["event"] == "step"}) == 12


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage, recipe, corpus, straight, run_until, outcome, tmp_path
):
    settings = recipe(*RECIPES["next sentence"])
    run_until(settings, corpus, tmp_path / "run", stop=8)
    newest = tmp_path / "run" / "checkpoints" / "step-00000008"
    file = newest / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    file.write_bytes(content[:-1] if damage == "truncate" else content)
    if damage == "remove":
        file.unlink()
    pretrain(settings, corpus, tmp_path / "run", resume=True, progress=False)
    (resume,) = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["event"] == "resume"]
    assert resume["step"] == 5
    (problem,) = resume["damaged"]
    assert "step-00000008" in problem and "optimizer.safetensors" in problem
    assert_equal(outcome(tmp_path / "run"), straight("next sentence"))


@pytest.fixture(scope="module")
def finished(recipe, corpus, tmp_path_factory):
    """A run that is done, not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    pretrain(recipe(*FINISHED), corpus, out, progress=False)
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run."""
    subprocess.run(["cp", "-r", finished, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def test_resuming_a_finished_run_changes_nothing(recipe, corpus, finished, copied, capfd):
    summary = pretrain(recipe(*FINISHED), corpus, copied, resume=True, progress=True)
    assert summary == json.loads((finished / "summary.json").read_text())
    assert f"The run in {copied} has ended (budget, step 12)" in capfd.readouterr().err
    for path in finished.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (copied / path.relative_to(finished)).read_bytes(), path


def test_a_run_that_died_before_its_summary_gets_it(recipe, corpus, finished, copied, outcome):
    (copied / "summary.json").unlink()
    summary = pretrain(recipe(*FINISHED), corpus, copied, resume=True, progress=False)
    before = json.loads((finished / "summary.json").read_text())
    assert summary | {"seconds": 0} == before | {"seconds": 0}
    assert_equal(outcome(copied), outcome(finished))


def test_an_ended_run_that_goes_on_is_not_taken_for_ended(recipe, corpus, copied, monkeypatch):
    """Killed before its figures at the end, it still lacks its result; the old one is another run's."""

    def killed(*_):
        raise KeyboardInterrupt

    longer = recipe(*FINISHED, "train.budget=15 steps")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tilth.train.account.saved_step", killed)
        pretrain(longer, corpus, copied, resume=True, accept_changes=True, progress=False)
    assert not (copied / "summary.json").exists()
    assert pretrain(longer, corpus, copied, resume=True, progress=False)["step"] == 15


def test_the_summary_names_the_step_of_the_model_that_is_kept(recipe, corpus, run_until, tmp_path):
    """A crash leaves a model newer than the checkpoint; with other settings it may stay the best."""
    settings = recipe("gpt2-mini", "train.save_every=5 steps", "train.keep_checkpoints=9")
    run_until(settings, corpus, tmp_path / "run", stop=11)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000011")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000010")
    (tmp_path / "run" / "checkpoints" / "latest").write_text("step-00000005\n")
    worse = recipe("gpt2-mini", "train.save_every=5 steps", "train.keep_checkpoints=9", "train.lr=3")
    summary = pretrain(worse, corpus, tmp_path / "run", resume=True, accept_changes=True, progress=False)
    assert summary["best_step"] == 9


def test_checkpoints_are_written_once_and_the_newest_kept(finished):
    steps = [record["step"] for record in read_log(finished / "log.jsonl") if record["event"] == "checkpoint"]
    assert steps == [4, 8, 12]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "latest", "step-00000008", "step-00000012",
    ]  # fmt: skip
    assert (finished / "checkpoints" / "latest").read_text() == "step-00000012\n"


def test_no_whole_checkpoint_is_an_error_that_names_each_damage(recipe, corpus, copied):
    for folder in (copied / "checkpoints").glob("step-*"):
        (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(
        TilthError, match=r"no checkpoint.*step-00000012.*weights\.safetensors.*step-00000008"
    ) as raised:
        pretrain(recipe(*FINISHED), corpus, copied, resume=True, progress=False)
    assert "--out" in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["train.lr=0.5", "seed=3"], r"seed \(was 0, is 3\), train\.lr \(was 0\.001, is 0\.5\)"),
        (["train.precision=bfloat16"], r"compute_type \(was float32, is bfloat16\)"),
        (["train.budget=20 steps"], r"train\.budget \(was 12 steps, is 20 steps\)"),
    ],
)
def test_a_changed_recipe_is_named(overrides, named, recipe, corpus, finished, copied):
    before = (finished / "log.jsonl").read_bytes()
    with pytest.raises(UsageError, match=named):
        pretrain(recipe(*FINISHED, *overrides), corpus, copied, resume=True, progress=False)
    assert (copied / "log.jsonl").read_bytes() == before
    assert (copied / "recipe.yaml").read_bytes() == (finished / "recipe.yaml").read_bytes()


def test_a_budget_below_what_was_done_is_refused(recipe, corpus, copied):
    with pytest.raises(UsageError, match=r"has done 12 steps already, more than train\.budget=7 steps: give"):
        pretrain(recipe(*FINISHED, "train.budget=7 steps"), corpus, copied, resume=True, accept_changes=True)
    pretrain(recipe(*FINISHED, "train.budget=13 steps"), corpus, copied, resume=True, accept_changes=True)


def test_another_corpus_is_named(recipe, make_corpus, copied):
    other = make_corpus([text[:200] for text in list(topics.values())[30:50]])
    with pytest.raises(TilthError, match="made from another corpus"):
        pretrain(recipe(*FINISHED), other, copied, resume=True, progress=False)


def test_another_tokenizer_is_named(recipe, corpus, copied):
    path = copied / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(TilthError, match="made from another tokenizer"):
        pretrain(recipe(*FINISHED), corpus, copied, resume=True, progress=False)


@pytest.mark.parametrize("content", [b"5", b"\xff", b"{"])
def test_a_damaged_summary_is_made_again(content, recipe, corpus, copied):
    summary = json.loads((copied / "summary.json").read_text())
    (copied / "summary.json").write_bytes(content)
    again = pretrain(recipe(*FINISHED), corpus, copied, resume=True, progress=False)
    assert again == json.loads((copied / "summary.json").read_text())
    assert again | {"seconds": 0} == summary | {"seconds": 0}


def test_there_must_be_a_run_to_resume(recipe, corpus, tmp_path):
    with pytest.raises(UsageError, match="holds no run to resume"):
        tilth.pretrain("gpt2-mini", corpus, tmp_path / "run", resume=True, progress=False)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="holds no run to resume"):
        pretrain(recipe(), corpus, tmp_path / "run", resume=True, progress=False)


def test_a_run_is_not_overwritten(recipe, corpus, copied):
    before = (copied / "log.jsonl").read_bytes()
    with pytest.raises(UsageError, match="already holds a run; go on with --resume"):
        pretrain(recipe(*FINISHED), corpus, copied, progress=False)
    assert (copied / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("gone", [(), ("summary.json",), ("log.jsonl",), ("log.jsonl", "summary.json")], ids=str)
def test_a_run_whose_checkpoints_have_gone_is_not_overwritten(gone, recipe, corpus, copied):
    shutil.rmtree(copied / "checkpoints")
    for name in gone:
        (copied / name).unlink()
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"already holds a run, whose checkpoints have gone; choose another --out"):
        pretrain(recipe(*FINISHED), corpus, copied, progress=False)
    with pytest.raises(TilthError, match=r"no checkpoint to resume from"):
        pretrain(recipe(*FINISHED), corpus, copied, resume=True, progress=False)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_the_process_saves_on_a_signal_and_goes_on_exactly(recipe, corpus, straight, outcome, tmp_path):
    """`python -m tilth pretrain` stopped by SIGTERM, then resumed and stopped by Ctrl-C, then let go."""
    settings = recipe(*RECIPES["next sentence"])
    (tmp_path / "recipe.yaml").write_text(settings.to_yaml())
    run = tmp_path / "run"
    arguments = [str(tmp_path / "recipe.yaml"), "--corpus", str(corpus), "--out", str(run)]
    for number, step, status, resume in ((signal.SIGTERM, 1, 143, []), (signal.SIGINT, 6, 130, ["--resume"])):
        process = subprocess.Popen(
            [sys.executable, "-m", "tilth", "pretrain", *arguments, *resume],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        while not _reached(run / "log.jsonl", step) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == status, errors
        assert "--resume" in errors and "Traceback" not in errors
        assert output == ""
        stopped = read_log(run / "log.jsonl")[-1]
        assert stopped["reason"] == "interrupted" and step <= stopped["step"] < 12
        assert (run / "checkpoints" / f"step-{stopped['step']:08d}" / "manifest.json").is_file()
    pretrain(settings, corpus, run, resume=True, progress=False)
    assert_equal(outcome(run), straight("next sentence"))


def test_the_process_can_be_killed_anywhere(recipe, corpus, straight, outcome, tmp_path):
    """A shorter form of benchmarks/kill_anywhere.py: `kill -9` at random moments, before, amid and after saves."""
    settings = recipe(*RECIPES["next sentence"])
    (tmp_path / "recipe.yaml").write_text(settings.to_yaml())
    run = tmp_path / "run"
    arguments = [str(tmp_path / "recipe.yaml"), "--corpus", str(corpus), "--out", str(run)]
    ends = []
    for number, step in enumerate((2, 6, 10)):
        process = subprocess.Popen(
            [sys.executable, "-m", "tilth", "pretrain", *arguments, *(["--resume"] * (number > 0))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while not _reached(run / "log.jsonl", step) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(Key(0, number, "kill").generator().uniform(0, 0.02))
        process.kill()
        errors = process.communicate()[1]
        assert process.returncode in (-signal.SIGKILL, 0), errors
        ends.append(process.returncode)
    assert -signal.SIGKILL in ends
    pretrain(settings, corpus, run, resume=True, progress=False)
    assert_equal(outcome(run), straight("next sentence"))


def test_records_after_the_checkpoint_go_and_resumes_stay(recipe, corpus, copied, finished, outcome):
    """As if killed just before the save of step 12 was done: all of its steps were logged already."""
    log, settings = copied / "log.jsonl", recipe(*FINISHED)
    for _ in range(2):
        shutil.rmtree(copied / "checkpoints" / "step-00000012")
        with open(log, "a") as file:
            file.write(
                '{"event": "warning", "step": 8, "kind": "made up", "message": "later than the save of step 8"}\n'
            )
            file.write('{"event": "step", "step": 9, "lo')
        pretrain(settings, corpus, copied, resume=True, progress=False)
        assert_equal(outcome(copied), outcome(finished))
    records = read_log(log)
    assert [record["step"] for record in records if record["event"] == "resume"] == [8, 8]
    assert [record["step"] for record in records if record["event"] == "checkpoint"] == [4, 8, 12]


def test_damage_is_told_on_the_terminal_and_in_the_log(recipe, corpus, copied, capsys):
    (copied / "checkpoints" / "step-00000012" / "state.json").unlink()
    pretrain(recipe(*FINISHED), corpus, copied, resume=True, progress=False)
    told = capsys.readouterr().err
    assert "passed over: " in told and "step-00000012 lacks state.json" in told
    (resume,) = [record for record in read_log(copied / "log.jsonl") if record["event"] == "resume"]
    assert resume["step"] == 8 and "step-00000012 lacks state.json" in resume["damaged"][0]


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_killed_before_its_first_checkpoint_starts_anew(resume, recipe, corpus, copied, finished, outcome):
    """Its first evaluation has left a model, and the summary of a run goes when it starts."""
    shutil.rmtree(copied / "checkpoints")
    (copied / "summary.json").unlink()
    log = copied / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
    pretrain(recipe(*FINISHED), corpus, copied, resume=resume, progress=False)
    assert_equal(outcome(copied), outcome(finished))


def test_a_run_that_is_far_starts_again_as_fast_as_one_that_has_begun(recipe, corpus, run_until, tmp_path, monkeypatch):
    """At step 1,000,000 the first batch is made at once: nothing is skipped over or replayed."""
    settings, run, far = recipe("bert-mini", "model.dropout=0.1", "train.budget=2M steps"), tmp_path / "run", 1_000_000
    run_until(settings, corpus, run, stop=2)
    made = []
    at = Batches.at

    def noted(self, step):
        made.append((step, time.perf_counter(), at(self, step)))
        return made[-1][2]

    monkeypatch.setattr(Batches, "at", noted)
    took = {}
    for step in (2, far):
        checkpoint, _ = load_latest(run / "checkpoints")
        checkpoint.state["step"] = step
        save_checkpoint(run / "checkpoints", step, checkpoint, keep=1)
        made.clear()
        started = time.perf_counter()
        run_until(settings, corpus, run, stop=step + 1, resume=True)
        assert [number for number, *_ in made][:2] == [step, step + 1] and len(made) <= 3
        took[step] = made[0][1] - started
    fresh = Run(settings, prepare(settings, corpus, run, True, progress=False), tmp_path, torch.device("cpu"), False)
    fresh.trackers.close()
    for mine, theirs in zip(made[0][2], at(fresh.batches, far), strict=True):
        assert torch.equal(mine.inputs.tokens, theirs.inputs.tokens)
        for head in mine.predictions:
            assert torch.equal(mine.predictions[head].places, theirs.predictions[head].places)
    assert took[far] < 2 * took[2] + 2, took


def _reached(log: Path, step: int) -> bool:
    return log.exists() and any(record["event"] == "step" and record["step"] >= step for record in read_log(log))
