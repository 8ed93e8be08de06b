"""A small real corpus and tiny runs on it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch

from tilth.corpus.build import build_corpus
from tilth.corpus.settings import CorpusSettings
from tilth.errors import Interrupted
from tilth.recipe import Recipe, load_recipe
from tilth.train.loop import Run, Trackers, pretrain
from tilth.train.prepare import prepare
from tilth.train.trackers import read_log

TINY = (
    "model.layers=2",
    "model.width=32",
    "model.heads=2",
    "tokenizer.vocab_size=300",
    "data.length=32",
    "train.lr=1e-3",
    "train.budget=12 steps",
    "train.batch_tokens=512",
    "train.evaluate_every=3 steps",
    "train.evaluate_tokens=600",
    "train.save_every=5 steps",
    "train.device=cpu",
    "train.precision=float32",
)
TIMES = ("time", "seconds", "tokens_per_second", "took")

MakeRecipe = Callable[..., Recipe]
RunIt = Callable[..., dict[str, Any]]


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": f"text-{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Path]:
    """A function: the corpus folder built from some texts, an eighth of them held out."""

    def make(texts: list[str]) -> Path:
        folder = tmp_path_factory.mktemp("corpus")
        build_corpus(
            [str(write_texts(folder / "texts.jsonl", texts))],
            folder / "corpus",
            CorpusSettings(validation=0.125),
            progress=False,
        )
        return folder / "corpus"

    return make


@pytest.fixture(scope="session")
def corpus(make_corpus: Callable[[list[str]], Path]) -> Path:
    """The beginnings of some of Python's help topics: about 70 rows of 32 tokens."""
    return make_corpus([topics[name][:180] for name in sorted(topics)[:24]])


@pytest.fixture(scope="session")
def recipe() -> MakeRecipe:
    """A function: a built-in recipe at the smallest size, with `key=value` overrides."""
    return lambda name="gpt2-mini", *overrides: load_recipe(load_recipe(name, TINY), overrides)


@pytest.fixture(scope="session")
def opened(recipe: MakeRecipe, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A function: a `Run` that has not begun."""

    def make(*overrides: str) -> Run:
        settings, out = recipe(*overrides), tmp_path_factory.mktemp("run")
        run = Run(settings, prepare(settings, corpus, out, False, progress=False), out, torch.device("cpu"), False)
        run.trackers.close()
        return run

    return make


@pytest.fixture
def run_until(monkeypatch: pytest.MonkeyPatch) -> RunIt:
    """A function: `pretrain` stopped by a signal just after a step."""

    def run(recipe: Recipe, corpus: Path, out: Path, *, stop: int, resume: bool = False) -> None:
        log = Trackers.log

        def log_and_stop(self: Trackers, event: str, step: int, **figures: Any) -> None:
            log(self, event, step, **figures)
            if event == "step" and step == stop:
                signal.raise_signal(signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(Trackers, "log", log_and_stop)
            with pytest.raises(Interrupted) as raised:
                pretrain(recipe, corpus, out, resume=resume, progress=False)
        assert raised.value.exit_status == 128 + signal.SIGTERM

    return run


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, Any]]:
    """A function: all that a run computed."""
    return _outcome


def _outcome(run: Path) -> dict[str, Any]:
    """A run's figures without times and the size of a log that holds them; its newest checkpoint and model in bytes."""
    records = [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in read_log(run / "log.jsonl")
        if record["event"] in ("step", "evaluation", "sample", "warning", "end")
    ]
    newest = max((run / "checkpoints").glob("step-*"))
    state = json.loads((newest / "state.json").read_text())
    del state["state"]["seconds"], state["state"]["log_bytes"]
    return {
        "log": records,
        "state": state,
        "weights": (newest / "weights.safetensors").read_bytes(),
        "optimizer": (newest / "optimizer.safetensors").read_bytes(),
        "model": (run / "model" / "model.safetensors").read_bytes(),
    }
