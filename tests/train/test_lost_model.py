"""A run whose model folder has gone gets its best model back from a checkpoint, or says that it cannot."""

import json
import shutil
from pathlib import Path

import pytest

import tilth
from tilth.errors import UsageError
from tilth.files import sha256_file
from tilth.train import checkpoint as checkpoints
from tilth.train.checkpoint import checkpoint_paths
from tilth.train.loop import pretrain
from tilth.train.trackers import read_log

RUN = ("gpt2-mini", "train.save_every=3 steps", "train.keep_checkpoints=9")


@pytest.fixture(scope="module")
def finished(recipe, corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    pretrain(recipe(*RUN), corpus, out, progress=False)
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run, without its model."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    return tmp_path / "run"


def test_a_finished_run_gets_its_model_back(finished, run, recipe, corpus, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(recipe(*RUN).to_yaml())
    summary = tilth.pretrain(tmp_path / "recipe.yaml", corpus, run, resume=True, progress=False)
    before = json.loads((finished / "summary.json").read_text())
    assert {name: summary[name] for name in before} == before
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (run / "model" / name).read_bytes() == (finished / "model" / name).read_bytes(), name
    assert (run / "model" / "README.md").exists()
    assert "model had gone, and was made again from the checkpoint of step" in capsys.readouterr().err


def test_a_run_that_goes_on_keeps_its_best(finished, run, recipe, corpus, outcome):
    """A resume from the checkpoint before the last; the best model before it is the one that has gone."""
    shutil.rmtree(checkpoint_paths(run / "checkpoints")[-1])
    pretrain(recipe(*RUN), corpus, run, resume=True, progress=False)
    assert outcome(run)["model"] == outcome(finished)["model"]
    assert outcome(run)["weights"] == outcome(finished)["weights"]
    (resume,) = (record for record in read_log(run / "log.jsonl") if record["event"] == "resume")
    assert "model had gone, and was made again from the checkpoint of step 9" in resume["damaged"][-1]


def test_a_best_model_that_no_checkpoint_has_is_told_of(run, recipe, corpus):
    best = json.loads((run / "summary.json").read_text())["best_step"]
    newest = checkpoint_paths(run / "checkpoints")[-1]
    assert best == 12 and newest.name == "step-00000012"
    state = json.loads((newest / "state.json").read_text())
    assert state["held_out_loss"] == state["state"]["monitor"]["best_loss"]
    forget_best(newest)
    with pytest.raises(UsageError, match=r"model has gone, and no checkpoint is kept of step 11, whose model it was"):
        pretrain(recipe(*RUN), corpus, run, resume=True, progress=False)
    assert not (run / "model").exists()
    summary = pretrain(recipe(*RUN), corpus, run, resume=True, accept_changes=True, progress=False)
    assert summary["best_step"] == 12 and summary["reason"] == "budget"
    assert summary == json.loads((run / "summary.json").read_text())


def forget_best(checkpoint: Path) -> None:
    """As if the best model had been that of step 11, which no checkpoint is of."""
    path = checkpoint / "state.json"
    record = json.loads(path.read_text())
    record["state"]["monitor"] |= {"best_step": 11, "best_loss": 1.0}
    path.write_text(json.dumps(record))
    hashes = {name: sha256_file(checkpoint / name) for name in checkpoints._FILES}
    (checkpoint / "manifest.json").write_bytes(checkpoints._manifest(hashes))
