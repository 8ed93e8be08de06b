"""Checkpoints: written aside, flushed, hashed, renamed, read back, and only then made the latest."""

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tilth.errors import TilthError
from tilth.files import read_json, sha256_file, whole_folder, write_json, write_text

FORMAT_VERSION = 1
_TENSOR_FILES = ("weights.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    weights and optimizer: tensors by name. state: the step, and what the loop and the monitor remember. identity:
    what must not differ when the run goes on (recipe, corpus, tokenizer, compute type).
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    identity: dict[str, Any]


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder/step-<step>`, verify it, point `folder/latest` at it, then remove all but the newest `keep`.

    Checkpoints of later steps, which only a resume that found them damaged leaves behind, go too.

    Raises: TilthError when it cannot be written; older checkpoints are then untouched.
    """
    path = folder / f"step-{step:08d}"
    try:
        with whole_folder(path) as aside:
            for name, tensors in zip(_TENSOR_FILES, (checkpoint.weights, checkpoint.optimizer), strict=True):
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, aside / name)
            write_json(aside / "state.json", {"state": checkpoint.state, "identity": checkpoint.identity})
            files = {name: sha256_file(aside / name) for name in (*_TENSOR_FILES, "state.json")}
            write_json(aside / "manifest.json", {"format_version": FORMAT_VERSION, "sha256": files})
        verify_checkpoint(path)
        write_text(folder / "latest", path.name + "\n")
    except (OSError, SafetensorError) as error:
        raise TilthError(
            f"cannot write the checkpoint {path}: {error}; free some space or mend the folder, then go on with --resume"
        ) from None
    kept = sorted(other for other in folder.glob("step-*") if other.name <= path.name)[-keep:]
    for other in folder.glob("step-*"):
        if other not in kept:
            shutil.rmtree(other, ignore_errors=True)
    return path


def verify_checkpoint(path: Path) -> None:
    """Compare every file with the manifest. Raises: TilthError that names the first that is missing or differs."""
    manifest = read_json(path / "manifest.json")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise TilthError(
            f"{path} has format {manifest.get('format_version')}; this version of Tilth reads {FORMAT_VERSION}"
        )
    for name, expected in manifest["sha256"].items():
        file = path / name
        if not file.is_file():
            raise TilthError(f"the checkpoint {path} lacks {name}")
        if sha256_file(file) != expected:
            raise TilthError(f"the checkpoint {path} is damaged: {name} does not match its hash")


def recorded_threads(folder: Path) -> int | None:
    """The number of threads that the newest readable checkpoint was computed with; None where none says."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads((path / "state.json").read_text(encoding="utf-8"))["state"]["threads"])
    return None


def load_latest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint that is whole, and what was wrong with newer ones.

    Raises: TilthError when none is whole.
    """
    problems: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify_checkpoint(path)
            record = json.loads((path / "state.json").read_text(encoding="utf-8"))
            weights, optimizer = (load_file(path / name) for name in _TENSOR_FILES)
        except (TilthError, SafetensorError, OSError, ValueError, KeyError) as error:
            problems.append(str(error) if isinstance(error, TilthError) else f"{path} is damaged: {error!r}")
            continue
        return Checkpoint(weights, optimizer, record["state"], record["identity"]), problems
    detail = "; ".join(problems) or "there is none"
    raise TilthError(f"no checkpoint to resume from in {folder}: {detail}; start another run in another --out")
