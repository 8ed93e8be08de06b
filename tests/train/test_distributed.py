"""Runs in several processes compute what one process does, whatever becomes of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tilth.tokens.order import row_indexes
from tilth.train.batches import Batches, micro_batches
from tilth.train.loop import pretrain
from tilth.train.trackers import read_log

WORKER = Path(__file__).with_name("distributed_worker.py")
# Two micro-batches in each of two processes, one in each of four, so that dropout is that of one process too.
SHORT = ("train.micro_batch_tokens=128", "train.budget=3 steps", "train.lr=1e-4", "train.clip=0.5")
CASES = {
    "bert ddp": ("bert-mini", *SHORT, "model.dropout=0.1"),
    "bert fsdp": ("bert-mini", *SHORT, "train.parallel=fsdp", "train.activation_checkpointing=true"),
    "gpt2 ddp": ("gpt2-mini", *SHORT, "train.activation_checkpointing=true"),
    "gpt2 fsdp": ("gpt2-mini", *SHORT, "train.parallel=fsdp", "train.optimizer=adamw"),
    "electra ddp": ("electra-mini", *SHORT),
    "electra fsdp": ("electra-mini", *SHORT, "train.parallel=fsdp"),
    "modernbert fsdp": ("modernbert-mini", *SHORT, "train.parallel=fsdp"),
    "qwen3 ddp": ("qwen3-mini", *SHORT),
}
RESUMED = (
    "bert-mini",
    "train.keep_checkpoints=9",
    "train.lr=1e-4",
    "train.micro_batch_tokens=128",
    "model.dropout=0.1",
)
REWOUND = (
    "gpt2-mini",
    "train.lr=1e-4",
    "train.micro_batch_tokens=128",
    "train.budget=9 steps",
    "train.save_every=2 steps",
    "train.recompute_every=2",
    "train.on_nonfinite=rewind",
)
LOSS, NORM, WEIGHT = 1e-5, 1e-4, 3e-5
"""Rounding, in float32: relative in losses and gradient norms, absolute in weights after a few steps at rate 1e-4."""


def torchrun(processes: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *arguments]


def run_cases(processes: int, cases: list[dict], folder: Path) -> None:
    """Run the cases in processes of torchrun."""
    cases = [{**case, "recipe": case["recipe"].model_dump(mode="json")} for case in cases]
    file = folder / "cases.json"
    file.write_text(
        json.dumps(
            [{"resume": False, "stop": None, "poison": None, "drift": None, **case} for case in cases], default=str
        )
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        torchrun(processes, str(WORKER), str(file)), env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def events(run: Path, event: str) -> list[dict]:
    return [record for record in read_log(run / "log.jsonl") if record["event"] == event]


def assert_agree(run: Path, reference: Path, weight: float = WEIGHT) -> None:
    """The runs saw the same rows and computed the same but for rounding."""
    for ours, theirs in zip(events(run, "step"), events(reference, "step"), strict=True):
        assert (ours["step"], ours["tokens"], ours["lr"]) == (theirs["step"], theirs["tokens"], theirs["lr"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=LOSS)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=NORM)
    for ours, theirs in zip(events(run, "evaluation"), events(reference, "evaluation"), strict=True):
        assert ours["parts"] == pytest.approx(theirs["parts"], rel=LOSS)
    newest = max((reference / "checkpoints").glob("step-*")).name
    for name in ("weights", "optimizer"):
        expected = load_file(reference / "checkpoints" / newest / f"{name}.safetensors")
        found = load_file(run / "checkpoints" / newest / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        if name == "weights":
            for key, value in found.items():
                torch.testing.assert_close(value, expected[key], rtol=0, atol=weight)
        else:
            for key, value in found.items():
                scale = float(expected[key].abs().max()) + 1e-12
                torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-3 * scale)


@pytest.fixture(scope="module")
def alone(recipe, corpus, tmp_path_factory):
    """A folder of what one process computes, by case; `resumed` without a break."""
    folder = tmp_path_factory.mktemp("alone")
    for name, overrides in (*CASES.items(), ("resumed", RESUMED)):
        pretrain(recipe(*overrides), corpus, folder / name, progress=False)
    return folder


@pytest.fixture(scope="module")
def by_two(recipe, corpus, alone, tmp_path_factory):
    """A folder of what two processes compute: the cases, the middle of a run begun by one, and that run from the start.

    All are run by one launch, because starting processes takes longer than what they do.
    """
    folder = tmp_path_factory.mktemp("two")
    cases = [{"recipe": recipe(*CASES[case]), "corpus": corpus, "out": folder / case} for case in CASES]
    begun = folder / "resumed"
    subprocess.run(["cp", "-r", alone / "resumed", begun], check=True)
    for later in (begun / "checkpoints").glob("step-*"):
        if later.name > "step-00000005":
            shutil.rmtree(later)
    (begun / "checkpoints" / "latest").write_text("step-00000005\n")
    resumed = {"recipe": recipe(*RESUMED), "corpus": corpus}
    cases += [{**resumed, "out": begun, "resume": True, "stop": 8}, {**resumed, "out": folder / "straight"}]
    rewound = {"recipe": recipe(*REWOUND), "corpus": corpus, "out": folder / "rewound", "poison": 6}
    ask_for_a_lower_rate(folder / "rewound")
    cases += [rewound, {**rewound, "out": folder / "drifted", "poison": None, "drift": 3}]
    run_cases(2, cases, folder)
    return folder


def ask_for_a_lower_rate(run: Path) -> None:
    run.mkdir()
    (run / "control.yaml").write_text("lr: 5e-5\n")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_compute_what_one_does(case, alone, by_two):
    assert_agree(by_two / case, alone / case)
    assert events(by_two / case, "start")[0]["processes"] == 2


def test_processes_rewind_and_change_the_rate_together(recipe, corpus, by_two, tmp_path):
    """The loss of one of two becomes NaN, and both go back; one process alone does the same."""
    ask_for_a_lower_rate(tmp_path / "rewound")
    case = {"recipe": recipe(*REWOUND), "corpus": corpus, "out": tmp_path / "rewound", "poison": 6}
    run_cases(1, [case], tmp_path)
    assert_agree(by_two / "rewound", tmp_path / "rewound")
    (rewind,) = events(by_two / "rewound", "rewind")
    assert (rewind["step"], rewind["from_step"], rewind["batches_left_out"]) == (6, 7, 1)
    (warning,) = events(by_two / "rewound", "warning")
    assert (warning["kind"], warning["action"]) == ("nonfinite", "rewind")
    (change,) = events(by_two / "rewound", "change")
    assert change["lr"] == 5e-5


def test_copies_of_the_model_that_part_are_found(by_two):
    first, *_ = warnings = events(by_two / "drifted", "warning")
    assert {warning["kind"] for warning in warnings} == {"corruption"}
    assert first["step"] in (4, 5) and "copies of the parameters differ" in first["message"]


@pytest.mark.slow
def test_four_processes_compute_what_one_does(recipe, corpus, alone, tmp_path):
    cases = {"bert ddp", "gpt2 fsdp"}
    run_cases(
        4, [{"recipe": recipe(*CASES[case]), "corpus": corpus, "out": tmp_path / case} for case in cases], tmp_path
    )
    for case in cases:
        assert_agree(tmp_path / case, alone / case)


def test_a_run_goes_from_one_process_to_two_and_back(recipe, corpus, alone, by_two, tmp_path):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", by_two / "resumed", run], check=True)
    assert events(run, "end")[0]["reason"] == "interrupted"
    assert events(run, "end")[0]["step"] == 8
    pretrain(recipe(*RESUMED), corpus, run, resume=True, progress=False)
    assert [record["step"] for record in events(run, "resume")] == [5, 8]
    assert_agree(run, alone / "resumed")


def test_the_processes_batches_are_bitwise_those_of_one(opened):
    """Rows, masks, pairs and targets, also where the rows do not divide evenly."""
    run = opened("bert-mini")
    batches = run.batches.at(2)
    tokens = torch.cat([batch.inputs.tokens for batch in batches])
    for processes in (2, 3, 5, 17):
        parts = []
        for rank in range(processes):
            share = Batches(run.prepared.objective, run.prepared.train, 0, run.rows_per_step, 2, rank, processes)
            parts.append(share.at(2))
        assert len({len(part) for part in parts}) == 1
        made = [batch for part in parts for batch in part if len(batch.documents)]
        assert torch.equal(torch.cat([batch.inputs.tokens for batch in made]), tokens)
        for head in ("masked", "next_sentence"):
            together = torch.cat([batch.predictions[head].targets for batch in made])
            assert torch.equal(together, torch.cat([batch.predictions[head].targets for batch in batches]))
        assert sum(batch.tokens for part in parts for batch in part) == sum(batch.tokens for batch in batches)


@given(
    rows=st.integers(1, 150), step_rows=st.integers(1, 70), micro=st.integers(1, 9), processes=st.integers(1, 9),
    seed=st.integers(0, 3),
)  # fmt: skip
def test_every_row_comes_once_an_epoch_for_any_number_of_processes(rows, step_rows, micro, processes, seed):
    """And so does every document: the rows hold each once (test_packing)."""
    seen = []
    for step in range(-(-2 * rows // step_rows)):
        indexes, epochs = row_indexes(step, step_rows, rows, seed)
        parts = [micro_batches(step_rows, micro, rank, processes) for rank in range(processes)]
        assert len({len(part) for part in parts}) == 1
        sizes = [len(rows) for part in parts for rows in part]
        assert max(sizes) <= micro and max(sizes) - min(sizes) <= 1
        for chosen in np.concatenate([rows for part in parts for rows in part]):
            seen.append((epochs[chosen], indexes[chosen]))
    for epoch in (0, 1):
        assert sorted(row for when, row in seen if when == epoch) == list(range(rows))


@pytest.mark.slow
def test_a_killed_worker_is_restarted_with_the_same_result(recipe, corpus, by_two, outcome, tmp_path):
    """kill -9 of one of two processes, without --resume: torchrun starts them again, and they go on."""
    (tmp_path / "recipe.yaml").write_text(recipe(*RESUMED).to_yaml())
    run = tmp_path / "run"
    command = torchrun(2, "--max-restarts=1", "-m", "tilth", "pretrain", str(tmp_path / "recipe.yaml"))
    process = subprocess.Popen(
        [*command, "--corpus", str(corpus), "--out", str(run), "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not reached(run, 7) and process.poll() is None:
        time.sleep(0.002)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert json.loads(output)["step"] == 12
    (resume,) = events(run, "resume")
    assert 5 <= resume["step"] < 12
    ours, straight = outcome(run), outcome(by_two / "straight")
    for part in straight:
        assert ours[part] == straight[part], part


def pretrain_by_two(recipe, corpus: Path, folder: Path) -> subprocess.Popen:
    """`tilth pretrain --processes 2`, begun."""
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return subprocess.Popen(
        [sys.executable, "-m", "tilth", "pretrain", str(folder / "recipe.yaml"), "--corpus", str(corpus), "--out",
         str(folder / "run"), "--processes", "2"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_an_error_is_told_once(recipe, corpus, alone, tmp_path):
    """The first process refuses the folder while the second waits for it."""
    subprocess.run(["cp", "-r", alone / "resumed", tmp_path / "run"], check=True)
    process = pretrain_by_two(recipe(*RESUMED), corpus, tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and output == ""
    assert errors.count("already holds a run; go on with --resume") == 1
    assert errors.count("Error:") == 1 and "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_torchrun_saves_first(number, status, recipe, corpus, tmp_path):
    process = pretrain_by_two(recipe("bert-mini", "train.budget=4000 steps", "train.save_every=4000 steps"), corpus,
                              tmp_path)  # fmt: skip
    run = tmp_path / "run"
    while not reached(run, 5) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == status and output == ""
    assert errors.count("Error:") == 1 and "--resume" in errors
    (end,) = events(run, "end")
    assert end["reason"] == "interrupted"
    assert (run / "checkpoints" / "latest").read_text() == f"step-{end['step']:08d}\n"


def reached(run: Path, step: int) -> bool:
    return (run / "log.jsonl").exists() and any(record["step"] >= step for record in events(run, "step"))


def children(pid: int) -> list[int]:
    """The processes that a process has started, the newest last."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
