"""Shards that no longer match their hashes end a run before anything made of them is kept."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tilth.errors import TilthError
from tilth.tokens import shards, verification
from tilth.tokens.verification import Verification
from tilth.train.checkpoint import checkpoint_paths
from tilth.train.loop import pretrain


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch) -> str:
    """Whether the files are compared before they are used, or in a thread."""
    if request.param == "large":
        monkeypatch.setattr(verification, "AT_ONCE_BYTES", -1)
    return request.param


def flip(folder: Path) -> None:
    """Another token in every place, all of the vocabulary."""
    path = folder / "train-00000.ids"
    (np.fromfile(path, "<u2") ^ 1).tofile(path)


@pytest.mark.usefixtures("size")
def test_a_resume_does_not_train_on_damaged_shards(recipe, corpus, tmp_path, outcome):
    run = tmp_path / "run"
    pretrain(recipe(), corpus, run, progress=False)
    straight = outcome(run)
    shutil.rmtree(checkpoint_paths(run / "checkpoints")[-1])
    kept = checkpoint_paths(run / "checkpoints")
    model = (run / "model" / "model.safetensors").read_bytes()
    flip(run / "shards")
    with pytest.raises(TilthError, match=r"train-00000\.ids does not match its SHA-256.*remove .*shards.*--resume"):
        pretrain(recipe(), corpus, run, resume=True, progress=False)
    assert checkpoint_paths(run / "checkpoints") == kept
    assert (run / "model" / "model.safetensors").read_bytes() == model
    shutil.rmtree(run / "shards")
    pretrain(recipe(), corpus, run, resume=True, progress=False)
    assert outcome(run) == straight


@pytest.mark.usefixtures("size")
def test_a_start_does_not_train_on_damaged_shards(recipe, corpus, tmp_path):
    pretrain(recipe("gpt2-mini", "train.budget=1 steps"), corpus, tmp_path / "first", progress=False)
    flip(tmp_path / "first" / "shards")
    given = recipe("gpt2-mini", f"data.shards={tmp_path / 'first' / 'shards'}", f"tokenizer.path={tmp_path / 'first'}")
    with pytest.raises(TilthError, match=r"first/shards/train-00000\.ids does not match its SHA-256"):
        pretrain(given, corpus, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_damaged_copy_of_remote_shards_is_downloaded_again(recipe, corpus, tmp_path, size, outcome):
    pretrain(recipe(), corpus, tmp_path / "first", progress=False)
    given = recipe(
        "gpt2-mini", f"data.shards=file://{tmp_path / 'first' / 'shards'}", f"data.cache={tmp_path / 'cache'}",
        f"tokenizer.path={tmp_path / 'first'}",
    )  # fmt: skip
    pretrain(given, corpus, tmp_path / "straight", progress=False)
    (cached,) = (tmp_path / "cache").iterdir()
    whole = (cached / "train-00000.ids").read_bytes()
    flip(cached)
    if size == "large":
        said = r"train-00000\.ids, a copy of file://.*, was damaged and is removed: the same command downloads"
        with pytest.raises(TilthError, match=said):
            pretrain(given, corpus, tmp_path / "failed", progress=False)
        assert not (tmp_path / "failed" / "model").exists()
    pretrain(given, corpus, tmp_path / "run", progress=False)
    assert (cached / "train-00000.ids").read_bytes() == whole
    assert outcome(tmp_path / "run")["weights"] == outcome(tmp_path / "straight")["weights"]


def test_a_damaged_copy_may_be_removed_before_it_is_opened(recipe, corpus, tmp_path, monkeypatch):
    pretrain(recipe(), corpus, tmp_path / "first", progress=False)
    given = recipe(
        "gpt2-mini", f"data.shards=file://{tmp_path / 'first' / 'shards'}", f"data.cache={tmp_path / 'cache'}",
        f"tokenizer.path={tmp_path / 'first'}", "train.budget=1 steps",
    )  # fmt: skip
    pretrain(given, corpus, tmp_path / "straight", progress=False)
    (cached,) = (tmp_path / "cache").iterdir()
    flip(cached)
    monkeypatch.setattr(verification, "AT_ONCE_BYTES", -1)
    open_file = shards._map

    def open_late(path: Path, dtype: str) -> np.ndarray:
        while path.name == "train-00000.ids" and path.exists():
            time.sleep(0.01)
        return open_file(path, dtype)

    monkeypatch.setattr(shards, "_map", open_late)
    with pytest.raises(TilthError, match=r"train-00000\.ids, a copy of file://.*, was damaged and is removed"):
        pretrain(given, corpus, tmp_path / "run", progress=False)


def test_each_file_is_compared_once_and_a_failure_stays():
    compared = []

    def fail() -> None:
        compared.append("bad")
        raise TilthError("damaged")

    files = Verification()
    for _ in range(2):
        files.begin(Path("a"), 1, lambda: compared.append("a"))
        files.begin(Path("b"), 1 << 40, lambda: compared.append("b"))
    files.wait()
    assert compared == ["a", "b"]
    files.begin(Path("bad"), 1 << 40, fail)
    for _ in range(2):
        with pytest.raises(TilthError, match="damaged"):
            files.wait()
    with pytest.raises(TilthError, match="damaged"):
        files.poll()
    assert compared == ["a", "b", "bad"]
