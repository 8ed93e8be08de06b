"""The fine-tuning loop: one model, one set of examples, the best weights kept."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tilth.errors import TilthError
from tilth.key import Key
from tilth.model.model import Model
from tilth.model.precision import compute_dtype
from tilth.progress import Update
from tilth.tasks.inference import all_features, all_logits
from tilth.tasks.settings import FinetuneSettings
from tilth.tasks.task import Task
from tilth.tasks.used_tokens import UsedTokens
from tilth.train.adamw import AdamW
from tilth.train.clipping import clip_gradients


@dataclass(frozen=True)
class Encoded:
    """Examples as a model reads them: token ids (N lists) and the index of each one's label, (N,) int64 on the CPU."""

    pieces: list[list[int]]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.pieces)

    def take(self, indexes: Sequence[int]) -> "Encoded":
        """The examples at `indexes`, in that order."""
        return Encoded([self.pieces[index] for index in indexes], self.targets[list(indexes)])


@dataclass(frozen=True)
class Fit:
    """What a fit did.

    history: an entry per evaluation; its valid_ figures are None without held-out examples. best_epoch: that of the
    weights kept. flops: an estimate of what learning took, evaluations not counted.
    """

    history: list[dict[str, float | None]]
    best_epoch: float
    steps: int
    stopped_early: bool
    seconds: float
    flops: float


def fit(
    task: Task,
    model: Model,
    train: Encoded,
    valid: Encoded | None,
    settings: FinetuneSettings,
    pad: int,
    update: Update = lambda done, **figures: None,
) -> Fit:
    """Train `model` in place and leave it in evaluation mode with the weights that did best on `valid`.

    Best is the highest held-out macro-F1, then the lowest loss; without `valid` the last weights stay. The examples and
    the dropout of a step depend on (seed, step) alone. Rows of the token table that no example uses stay as they are.
    pad: the token id that fills rows. update: gets the share done.
    Raises: TilthError when a gradient is not finite.
    """
    if settings.freeze:
        return _fit(task, model, train, valid, settings, pad, update)
    used = UsedTokens([*train.pieces, *(valid.pieces if valid else ())], pad, model.config.vocab_size)
    train = Encoded(used.renumbered(train.pieces), train.targets)
    valid = None if valid is None else Encoded(used.renumbered(valid.pieces), valid.targets)
    with used.alone_in(model):
        return _fit(task, model, train, valid, settings, int(used.places[pad]), update)


def _fit(
    task: Task,
    model: Model,
    train: Encoded,
    valid: Encoded | None,
    settings: FinetuneSettings,
    pad: int,
    update: Update,
) -> Fit:
    began = time.monotonic()
    device = model.trunk.embeddings.tokens.weight.device
    dtype = compute_dtype(settings.precision, device)
    batch_size = min(settings.batch_size, len(train))
    steps = max(math.ceil(settings.epochs * len(train) / batch_size), settings.min_steps)
    steps = min(steps, settings.max_steps or steps)
    evaluate_at = {math.ceil(steps * (number + 1) / settings.evaluations) for number in range(settings.evaluations)}

    model.set_dropout(settings.dropout)
    model.trunk.requires_grad_(not settings.freeze)
    optimizer = AdamW(parameter_groups(model, settings), betas=(0.9, 0.999))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    train_logits, valid_logits = _forward(task, model, train, valid, settings.freeze, pad, dtype)
    targets = train.targets.to(device)
    history: list[dict[str, float | None]] = []
    best = _Best(parameters, settings.patience)
    losses: list[Tensor] = []
    step = num_tokens = 0
    best_epoch = 0.0

    while step < steps and not (best.is_stale() and step >= steps / 2):
        indexes = batch_indexes(step, batch_size, len(train), settings.seed)
        torch.manual_seed(Key(settings.seed, step, "dropout").torch_seed())
        model.train()
        loss = task.loss_sum(train_logits(indexes), targets[indexes]) / len(indexes)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _rate((step + 0.5) / steps, settings.warmup)
        if not math.isfinite(clip_gradients(parameters, settings.clip)):
            raise TilthError(f"the gradient is not finite at update {step + 1}; lower lr or use precision=float32")
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        num_tokens += sum(len(train.pieces[index]) for index in indexes)
        losses.append(loss.detach())
        update(step / steps)
        if step not in evaluate_at:
            continue

        model.eval()
        epoch = round(step * batch_size / len(train), 3)
        entry: dict[str, float | None] = {"epoch": epoch, "train_loss": float(torch.stack(losses).mean())}
        entry |= dict.fromkeys(("valid_loss", "valid_accuracy", "valid_macro_f1"))
        history.append(entry)
        losses.clear()
        is_best = True
        if valid is not None:
            logits = valid_logits()
            valid_loss = float(task.loss_sum(logits, valid.targets)) / len(valid)
            scores = task.scores(logits, valid.targets)
            entry |= {"valid_loss": valid_loss} | {f"valid_{name}": value for name, value in scores.items()}
            is_best = best.offer((scores["macro_f1"], -valid_loss))
            update(step / steps, held_out=f"{scores['macro_f1']:.3f}")
        if is_best:
            best_epoch = epoch

    best.restore()
    model.trunk.requires_grad_(True)
    mean_length = sum(map(len, train.pieces)) / len(train)
    flops = model.flops_per_token(int(mean_length)) * (mean_length * len(train) / 3 if settings.freeze else num_tokens)
    return Fit(history, best_epoch, step, step < steps, time.monotonic() - began, flops)


def batch_indexes(step: int, batch_size: int, num_examples: int, seed: int) -> list[int]:
    """The examples of a step: consecutive ones of the stream of epochs, each epoch a fresh permutation."""
    epoch, start = divmod(step * batch_size, num_examples)
    order = _permutation(epoch, num_examples, seed)[start : start + batch_size]
    if len(order) < batch_size:
        order = np.concatenate([order, _permutation(epoch + 1, num_examples, seed)[: batch_size - len(order)]])
    return order.tolist()


def _permutation(epoch: int, num_examples: int, seed: int) -> np.ndarray:
    return Key(seed, epoch, "fine-tuning order").generator().permutation(num_examples)


def _rate(progress: float, warmup: float) -> float:
    """A linear rise over `warmup` and a linear fall to 0 (Devlin et al. 2019, appendix A.2), as a share of the peak."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def parameter_groups(model: Model, settings: FinetuneSettings) -> list[dict]:
    """AdamW's groups, each with its `peak` rate: lower towards the input, no decay of biases and norms.

    A block's rate is `layer_decay` times that of the block above (Howard and Ruder 2018, section 3.2; Clark et al.
    2020, appendix B); the embeddings come below the first block.
    """
    trunk_rate, head_rate = settings.peak_rates(model.config.width)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or name.startswith("heads.") and not name.startswith("heads.classify."):
            continue
        peak = head_rate
        if name.startswith("trunk.embeddings."):
            peak = trunk_rate * settings.layer_decay**model.config.layers
        elif name.startswith("trunk.blocks."):
            peak = trunk_rate * settings.layer_decay ** (model.config.layers - 1 - int(name.split(".")[2]))
        elif name.startswith("trunk."):
            peak = trunk_rate
        decay = settings.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return [{"params": members, "peak": peak, "weight_decay": decay} for (peak, decay), members in groups.items()]


class _Best:
    """The best weights so far, and how long ago they were found."""

    def __init__(self, parameters: list[Tensor], patience: int) -> None:
        self.parameters = parameters
        self.patience = patience
        self.standing: tuple[float, float] | None = None
        self.weights: list[Tensor] = []
        self.worse_in_a_row = 0

    def offer(self, standing: tuple[float, float]) -> bool:
        """Keep the present weights if they stand higher than the best before."""
        if self.standing is not None and standing <= self.standing:
            self.worse_in_a_row += 1
            return False
        self.standing, self.worse_in_a_row = standing, 0
        self.weights = [parameter.detach().clone() for parameter in self.parameters]
        return True

    def is_stale(self) -> bool:
        return self.worse_in_a_row >= self.patience

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, weights in zip(self.parameters, self.weights, strict=False):
            parameter.copy_(weights)


def _forward(
    task: Task, model: Model, train: Encoded, valid: Encoded | None, freeze: bool, pad: int, dtype: torch.dtype
) -> tuple[Callable[[list[int]], Tensor], Callable[[], Tensor]]:
    """Functions that give the logits of some training examples, and those of all held-out ones.

    The features of a frozen trunk never change (its dropout is off), so they are computed once.
    """
    valid_pieces = valid.pieces if valid else []
    if not freeze:
        return (
            lambda indexes: task.logits(model, task.features(model, [train.pieces[i] for i in indexes], pad, dtype)),
            lambda: all_logits(task, model, valid_pieces, pad, dtype),
        )
    model.eval()
    train_features = all_features(task, model, train.pieces, pad, dtype)
    valid_features = all_features(task, model, valid_pieces, pad, dtype) if valid else train_features[:0]
    return (
        lambda indexes: task.logits(model, train_features[indexes]),
        torch.no_grad()(lambda: task.logits(model, valid_features).cpu()),
    )
