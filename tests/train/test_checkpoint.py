import io
import json
import math
import os
import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from tilth.errors import TilthError
from tilth.files import sha256_file
from tilth.key import Key
from tilth.train.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    checkpoint_paths,
    held_out_losses,
    holds_checkpoints,
    load_latest,
    save_checkpoint,
    step_of,
    verify_checkpoint,
)

FILES = ("weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def checkpoint(value: float) -> Checkpoint:
    return Checkpoint(
        weights={"a": torch.full((3, 2), value)},
        optimizer={"a/momentum": torch.tensor([value]), "a/step": torch.tensor(4.0)},
        state={"step": 1, "loss": value},
        identity={"recipe": {"seed": 0}},
    )


def saved(folder, *steps, keep=10):
    for step in steps:
        save_checkpoint(folder, step, checkpoint(float(step)), keep)


def test_what_is_saved_is_read_back(tmp_path):
    path = save_checkpoint(tmp_path, 7, checkpoint(1 / 3), keep=2)
    assert path == tmp_path / "step-00000007"
    verify_checkpoint(path)
    again, problems = load_latest(tmp_path)
    assert problems == []
    assert torch.equal(again.weights["a"], torch.full((3, 2), 1 / 3))
    assert torch.equal(again.optimizer["a/momentum"], torch.tensor([1 / 3]))
    assert again.optimizer["a/step"].shape == ()
    assert again.state == {"step": 1, "loss": 1 / 3}
    assert again.identity == {"recipe": {"seed": 0}}
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip first", "flip middle", "flip last", "truncate", "empty", "remove"])
def test_every_damage_to_every_file_is_found(name, damage, tmp_path):
    saved(tmp_path, 1, 2)
    file = tmp_path / "step-00000002" / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        if damage.startswith("flip"):
            place = {"first": 0, "middle": len(content) // 2, "last": -2}[damage.partition(" ")[2]]
            content[place] ^= 4
        file.write_bytes({"truncate": content[: len(content) // 2], "empty": b""}.get(damage, content))
    again, problems = load_latest(tmp_path)
    assert again.state["loss"] == 1.0
    (problem,) = problems
    assert "step-00000002" in problem
    assert damage != "remove" or name in problem


def test_each_byte_of_a_manifest_counts(tmp_path):
    saved(tmp_path, 1, 2)
    file = tmp_path / "step-00000002" / "manifest.json"
    content = file.read_bytes()
    for place, byte in enumerate(content):
        other = {10: 32, 32: 10}.get(byte, byte ^ 1)  # white space for white space, which JSON does not mind
        file.write_bytes(content[:place] + bytes([other]) + content[place + 1 :])
        again, problems = load_latest(tmp_path)
        assert again.state["loss"] == 1.0, content[place - 5 : place + 5]
        assert len(problems) == 1 and "step-00000002" in problems[0], problems


def test_damage_at_random_is_always_found(tmp_path):
    """A shorter form of benchmarks/damage.py."""
    saved(tmp_path, 1, 2)
    newest = tmp_path / "step-00000002"
    for trial in range(200):
        random = Key(0, trial, "damage").generator()
        file = newest / FILES[random.integers(len(FILES))]
        content = file.read_bytes()
        place, kind = int(random.integers(len(content))), int(random.integers(3))
        if kind == 0:
            file.write_bytes(
                content[:place] + bytes([content[place] ^ int(random.integers(1, 256))]) + content[place + 1 :]
            )
        elif kind == 1:
            file.write_bytes(content[:place])
        else:
            file.unlink()
        again, problems = load_latest(tmp_path)
        assert again.state["loss"] == 1.0, (trial, file.name)
        assert len(problems) == 1 and "step-00000002" in problems[0], (trial, problems)
        file.write_bytes(content)
    assert load_latest(tmp_path)[0].state["loss"] == 2.0


def test_a_checkpoint_under_another_name_or_with_a_missing_entry_is_damaged(tmp_path):
    saved(tmp_path, 1, 2)
    (tmp_path / "step-00000002").rename(tmp_path / "step-00000003")
    again, problems = load_latest(tmp_path)
    assert again.state["loss"] == 1.0
    assert "latest names 'step-00000002', and there is no such checkpoint" in problems[0].replace(f"{tmp_path}/", "")
    assert "step-00000003 is that of step 2: its folder was renamed" in problems[1]


def test_a_checkpoint_that_is_gone_is_told_of(tmp_path):
    saved(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "step-00000002")
    again, problems = load_latest(tmp_path)
    assert again.state["loss"] == 1.0
    assert len(problems) == 1 and "'step-00000002', and there is no such checkpoint" in problems[0]


def test_what_a_crash_left_is_brought_back_or_removed(tmp_path):
    """A machine that stopped between the two renames that replace a checkpoint, and one that stopped amid a save."""
    saved(tmp_path, 1, 2)
    (tmp_path / "step-00000002").rename(tmp_path / ".step-00000002.replaced")
    (tmp_path / ".step-00000005.partial").mkdir()
    (tmp_path / ".step-00000005.partial" / "weights.safetensors").write_bytes(b"half")
    assert holds_checkpoints(tmp_path)
    again, problems = load_latest(tmp_path)
    assert (again.state["loss"], problems) == (2.0, [])
    saved(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest", "step-00000001", "step-00000002", "step-00000003",
    ]  # fmt: skip


def test_the_best_and_the_milestones_stay(tmp_path):
    for step, loss, milestone in [
        (1, 3.0, False), (2, 1.5, False), (3, 2.0, True), (4, math.nan, False), (5, 1.5, False), (6, 1.75, False),
        (7, None, False), (100_000_000, 1.8, False),
    ]:  # fmt: skip
        save_checkpoint(
            tmp_path, step, replace(checkpoint(float(step)), held_out_loss=loss, milestone=milestone), keep=1
        )
        if step == 2:
            (tmp_path / "step-00000002-mine").mkdir()
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-00000002-mine", "step-00000003", "step-00000005", "step-100000000"]
    assert load_latest(tmp_path)[0].state["loss"] == 1e8


def test_the_best_is_found_among_losses_that_can_be_compared(tmp_path, recipe):
    """Step 4 goes on with another held-out text, accepted; step 6 is damaged later."""

    def identity(evaluate_tokens: int) -> dict:
        return {"recipe": recipe("gpt2-mini", f"train.evaluate_tokens={evaluate_tokens}").model_dump(mode="json")}

    def save(step: int, loss: float | None, evaluate_tokens: int) -> None:
        changed = replace(checkpoint(float(step)), held_out_loss=loss, identity=identity(evaluate_tokens))
        save_checkpoint(tmp_path, step, changed, keep=1)

    def kept() -> list[int]:
        return [step_of(path) for path in checkpoint_paths(tmp_path)]

    save(1, 2.0, 1000)
    save(2, 1.0, 1000)
    save(3, 1.5, 1000)
    assert kept() == [2, 3]
    save(4, None, 2000)
    assert kept() == [2, 4], "until an evaluation the best is that of before"
    save(5, 3.0, 2000)
    assert kept() == [5]
    save(6, 4.0, 2000)
    assert held_out_losses(checkpoint_paths(tmp_path)) == {
        tmp_path / "step-00000005": 3.0, tmp_path / "step-00000006": 4.0,
    }  # fmt: skip
    for damage in ({"identity": None}, {"identity": {}}, {"held_out_loss": "low"}):
        record = json.loads((tmp_path / "step-00000006" / "state.json").read_text())
        (tmp_path / "step-00000006" / "state.json").write_text(json.dumps(record | damage))
        assert held_out_losses(checkpoint_paths(tmp_path)) == {tmp_path / "step-00000005": 3.0}


class WritesAFile:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("trusted", [False, True], ids=["foreign", "with its own hash"])
@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
@pytest.mark.parametrize("name", [*FILES, "more.pt", ".metadata"])
def test_nothing_is_unpickled(name, write, trusted, tmp_path):
    saved(tmp_path, 1, 2)
    trap, newest = tmp_path / "trap", tmp_path / "step-00000002"
    with open(newest / name, "wb") as file:
        write(WritesAFile(trap), file)
    if trusted and name in FILES[:3]:
        manifest = json.loads((newest / "manifest.json").read_text())
        manifest["sha256"][name] = sha256_file(newest / name)
        (newest / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        if name != "state.json":  # which is read to verify its step
            verify_checkpoint(newest)
    again, problems = load_latest(tmp_path)
    assert again.state["loss"] == (1.0 if name in FILES else 2.0)
    assert len(problems) == (name in FILES)
    assert not trap.exists()
    content = io.BytesIO((newest / name).read_bytes())
    pickle.load(content) if write is pickle.dump else torch.load(content, weights_only=False)
    assert trap.exists(), "the trap works"


def test_a_folder_that_has_gone_is_not_made_anew(tmp_path):
    with pytest.raises(TilthError, match=r"cannot write the checkpoint .*gone is no longer there.*--resume"):
        save_checkpoint(tmp_path / "gone", 3, checkpoint(3.0), keep=1)
    assert not (tmp_path / "gone").exists()


def test_the_newest_stay_and_latest_names_the_last(tmp_path):
    saved(tmp_path, 2, 4, 6, 10, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000006", "step-00000010"]
    assert (tmp_path / "latest").read_text().strip() == "step-00000010"


def test_damaged_ones_ahead_never_push_out_a_good_one(tmp_path):
    """A resume that fell back to step 1 and saves at step 2, with broken steps ahead."""
    saved(tmp_path, 1, 5, 9)
    for step in (5, 9):
        (tmp_path / f"step-{step:08d}" / "state.json").write_text("{}")
    saved(tmp_path, 2, keep=1)
    again, problems = load_latest(tmp_path)
    assert (again.state["loss"], problems) == (2.0, [])
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002"]


def test_saving_a_step_again_replaces_it(tmp_path):
    saved(tmp_path, 3)
    save_checkpoint(tmp_path, 3, checkpoint(9.0), keep=1)
    assert load_latest(tmp_path)[0].state["loss"] == 9.0


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(tmp_path, monkeypatch):
    saved(tmp_path, 1, 2)
    before = sorted(path.name for path in tmp_path.iterdir())
    full = OSError(28, "No space left on device")

    def no_space(*_):
        raise full

    monkeypatch.setattr("tilth.train.checkpoint.save_file", no_space)
    with pytest.raises(TilthError, match=r"cannot write the checkpoint .*step-00000003.*No space left.*--resume"):
        save_checkpoint(tmp_path, 3, checkpoint(3.0), keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "latest").read_text().strip() == "step-00000002"
    assert load_latest(tmp_path)[0].state["loss"] == 2.0


def test_no_checkpoint_and_one_of_another_format(tmp_path):
    with pytest.raises(TilthError, match="no checkpoint to resume from in .*: there is none; start another run"):
        load_latest(tmp_path)
    saved(tmp_path, 1)
    manifest = tmp_path / "step-00000001" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 99}))
    with pytest.raises(TilthError, match=f"has format 99; this version of Tilth reads {FORMAT_VERSION}"):
        load_latest(tmp_path)
