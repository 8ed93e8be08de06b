"""What a comparison compares: models that were pre-trained, the same from scratch, and the baseline."""

import copy
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tilth.corpus.languages import UNSPACED
from tilth.evidence.baselines import FOLDS, MOST_CHARACTERS, STRENGTHS, fit_tfidf
from tilth.files import fingerprint
from tilth.key import Key
from tilth.model.model import Model, build_model
from tilth.model.precision import compute_dtype, pick_device
from tilth.tasks import metrics
from tilth.tasks.data import Examples
from tilth.tasks.finetune import FEWEST_HELD_OUT, MOST_HELD_OUT, split_for_stopping
from tilth.tasks.fit import Encoded, fit
from tilth.tasks.inference import all_logits
from tilth.tasks.settings import FinetuneSettings
from tilth.tasks.task import Task
from tilth.tokens.tokenizer import TextTokenizer

MOST_TRAIN_SCORED = 2000
"""Training examples, drawn at random, that tell how well a system does on what it has seen."""


@dataclass(frozen=True)
class Outcome:
    """One training: predicted label indexes of the test texts, scores on training examples, and what it took."""

    predictions: np.ndarray
    train_scores: dict[str, float]
    seconds: float
    flops: float | None
    details: dict[str, Any]


class System(Protocol):
    """Something that learns from labelled examples and labels the test texts.

    is_random: whether equal examples with another seed may give another outcome.
    """

    name: str
    source: str
    parameters: int | None
    is_random: bool

    @property
    def kind(self) -> str:
        """pretrained, scratch or baseline."""
        ...

    @property
    def identity(self) -> str:
        """A fingerprint of all that decides the outcome, the examples and the seed aside."""
        ...

    def run(self, train: Examples, seed: int) -> Outcome:
        """Learn from the examples, and label the test texts."""
        ...


class NeuralSystem:
    """A model fine-tuned as `tilth finetune` would, from its weights or from fresh ones."""

    is_random = True

    def __init__(
        self,
        name: str,
        source: str,
        opened: tuple[Model, TextTokenizer],
        task: Task,
        labels: list[str],
        test_texts: Sequence[str],
        settings: FinetuneSettings,
        fresh: bool,
    ) -> None:
        """fresh: start every training from new random weights of the same shape.

        Raises: UsageError when the settings ask for what the model does not do.
        """
        settings.for_model(opened[0].config)
        self.name, self.source = name, source
        self.kind = "scratch" if fresh else "pretrained"
        self.model, self.tokenizer = opened
        self.model.to(pick_device(settings.device))
        self.task, self.labels, self.test_texts, self.settings, self.fresh = task, labels, test_texts, settings, fresh
        self.parameters: int | None = sum(parameter.numel() for parameter in self.model.trunk.parameters())
        self._pieces: dict[str, list[int]] = {}
        self._cut: set[str] = set()

    @property
    def identity(self) -> str:
        config = {"family": self.model.family.name, **asdict(self.model.config)}
        weights = None if self.fresh else weights_fingerprint(self.model)
        settings = self.settings.model_dump(mode="json", exclude={"seed"})
        held_out = [FEWEST_HELD_OUT, MOST_HELD_OUT]
        device = self.model.trunk.embeddings.tokens.weight.device
        computed = [self.task.name, device.type, str(compute_dtype(self.settings.precision, device)), torch.__version__]
        return fingerprint([self.kind, config, weights, self.tokenizer.fingerprint, settings, held_out, computed])

    def run(self, train: Examples, seed: int) -> Outcome:
        settings = self.settings.model_copy(update={"seed": seed})
        learned, held_out = split_for_stopping(train, settings)
        model = self._start(settings)
        pad = self.tokenizer.special.pad or 0
        encoded = self._encode(model, learned)
        fitted = fit(
            self.task, model, encoded, self._encode(model, held_out) if held_out is not None else None, settings, pad
        )
        dtype = compute_dtype(settings.precision, model.trunk.embeddings.tokens.weight.device)
        test_logits = all_logits(self.task, model, self._cached(model, self.test_texts), pad, dtype)
        order = Key(seed, 0, "scored training examples").generator().permutation(len(encoded))
        seen = encoded.take(order[:MOST_TRAIN_SCORED].tolist())
        train_logits = all_logits(self.task, model, seen.pieces, pad, dtype)
        return Outcome(
            test_logits.argmax(-1).numpy(),
            self.task.scores(train_logits, seen.targets),
            fitted.seconds,
            fitted.flops,
            {"steps": fitted.steps, "best_epoch": fitted.best_epoch, "held_out": len(held_out or ())},
        )

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the model reads, and are cut at the end."""
        self._cached(self.model, texts)
        return sum(text in self._cut for text in texts)

    def _start(self, settings: FinetuneSettings) -> Model:
        if self.fresh:
            model = build_model(self.model.family, self.model.config, (), settings.seed)
            model.to(self.model.trunk.embeddings.tokens.weight.device)
        else:
            model = copy.deepcopy(self.model)
        self.task.add_head(model, self.labels, settings)
        return model

    def _encode(self, model: Model, examples: Examples) -> Encoded:
        return Encoded(self._cached(model, examples.texts), torch.tensor(examples.label_indexes(self.labels)))

    def _cached(self, model: Model, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts; each text is tokenised once in a comparison."""
        new = [text for text in dict.fromkeys(texts) if text not in self._pieces]
        if new:
            pieces, cut = self.task.encode(model, self.tokenizer, new, self.settings.max_length)
            self._pieces.update(zip(new, pieces, strict=True))
            self._cut.update(itertools.compress(new, cut))
        return [self._pieces[text] for text in texts]


class TfidfSystem:
    """The baseline."""

    name = "TF-IDF + logistic regression"
    kind = "baseline"
    source = "scikit-learn"
    parameters: int | None = None
    is_random = False

    def __init__(self, labels: list[str], test_texts: Sequence[str]) -> None:
        import sklearn

        self.labels, self.test_texts = labels, test_texts
        self.identity = fingerprint(["tfidf", sklearn.__version__, STRENGTHS, FOLDS, UNSPACED, MOST_CHARACTERS])

    def run(self, train: Examples, seed: int) -> Outcome:
        fitted = fit_tfidf(train, self.test_texts, self.labels, seed)
        scores = metrics.scores(np.array(train.label_indexes(self.labels)), fitted.train_predictions)
        details = {"strength": fitted.strength, "features": fitted.num_features}
        return Outcome(fitted.test_predictions, scores, fitted.seconds, None, details)


def weights_fingerprint(model: Model) -> str:
    """A hash of the names and values of all weights."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def pretraining_cost(source: str | Path) -> dict[str, Any] | None:
    """What the run behind a model folder spent, from its summary.json; None where there is none."""
    for folder in (Path(source), Path(source).parent):
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            cost = {name: summary[name] for name in ("seconds", "tokens", "parameters")}
            return cost | {"flops": summary["tokens"] * summary["flops_per_token"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
