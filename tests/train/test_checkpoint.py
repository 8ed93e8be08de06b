import json

import pytest
import torch

from tilth.errors import TilthError
from tilth.train.checkpoint import Checkpoint, load_latest, save_checkpoint, verify_checkpoint

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
        if chr(byte).isspace():
            continue
        file.write_bytes(content[:place] + bytes([byte ^ 1]) + content[place + 1 :])
        again, problems = load_latest(tmp_path)
        assert again.state["loss"] == 1.0, content[place - 5 : place + 5]
        assert len(problems) == 1 and "step-00000002" in problems[0], problems


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
    with pytest.raises(TilthError, match="has format 99; this version of Tilth reads 2"):
        load_latest(tmp_path)
