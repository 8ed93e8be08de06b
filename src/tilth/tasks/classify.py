"""Text classification: one label for each text."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tilth.errors import TilthError
from tilth.model.inputs import Inputs
from tilth.model.mean_pooling import start_mean_pooling
from tilth.model.model import Model
from tilth.tasks import metrics
from tilth.tasks.data import Examples, read_examples
from tilth.tasks.settings import FinetuneSettings
from tilth.tokens.tokenizer import TextTokenizer

ROW_TOKENS = 64
"""Texts are packed into rows of this many tokens, or of as many as the longest text of the batch has."""


class Classify:
    """The task of giving each text one of a set of labels."""

    name = "classify"

    def read(self, path: str | Path, text_column: str | None = None, label_column: str | None = None) -> Examples:
        """Labelled examples of a file: see `tilth.tasks.data.read_examples`."""
        return read_examples(path, text_column, label_column)

    def add_head(self, model: Model, labels: list[str], settings: FinetuneSettings) -> None:
        """Give the model a fresh head for `labels`, and by `settings.summary` a top block that starts as a mean.

        Raises: TilthError when there are fewer than two.
        """
        if len(labels) < 2:
            raise TilthError(
                f"the data has only one label ({labels[0]!r}); a classifier needs examples of at least two"
            )
        model.add_head("classify", labels=labels, seed=settings.seed)
        if settings.summary == "mean":
            start_mean_pooling(model, settings.seed)

    def encode(
        self, model: Model, tokenizer: TextTokenizer, texts: Sequence[str], max_length: int | None = None
    ) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text as the model reads it, and whether it was cut to `max_length` (default:
        what the model reads).

        An encoder reads [CLS] text [SEP]; a decoder reads the text alone, and an empty text as one end-of-text token.
        """
        special, room = tokenizer.special, max_length or model.reads
        before: list[int] = []
        after: list[int] = []
        if model.family.summary == "first":
            if special.cls is None or special.sep is None:
                raise TilthError(
                    f"a {model.family.name} model reads a text between [CLS] and [SEP] (or <s>, </s>), and its "
                    "tokenizer has no such tokens; use the tokenizer the model was trained with"
                )
            before, after, room = [special.cls], [special.sep], room - 2
        ids = tokenizer.encode_batch(texts)
        pieces = [before + tokens[:room] + after or [special.eot or 0] for tokens in ids]
        return pieces, [len(tokens) > room for tokens in ids]

    def features(self, model: Model, pieces: Sequence[list[int]], pad: int, dtype: torch.dtype) -> Tensor:
        """What the head reads of each text: the vector of its first or last token, by family. (N, D) of `dtype`."""
        device = model.trunk.embeddings.tokens.weight.device
        longest = max(map(len, pieces))
        inputs, row, first, last = Inputs.from_pieces(pieces, max(longest, ROW_TOKENS), pad)
        place = first if model.family.summary == "first" else last
        return model.encode(inputs.to(device), dtype, (row * inputs.tokens.shape[1] + place).to(device))

    def logits(self, model: Model, features_ND: Tensor) -> Tensor:
        """Scores of the labels (N, C), float32."""
        return model.heads["classify"](features_ND).float()

    def loss_sum(self, logits_NC: Tensor, targets_N: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over the texts."""
        return F.cross_entropy(logits_NC, targets_N, reduction="sum")

    def scores(self, logits_NC: Tensor, targets_N: Tensor) -> dict[str, float]:
        """`accuracy` and `macro_f1`."""
        return metrics.scores(targets_N.numpy(), logits_NC.argmax(-1).numpy())

    def scores_with_intervals(self, logits_NC: Tensor, targets_N: Tensor, seed: int = 0) -> dict[str, dict[str, float]]:
        """`scores`, each as {"value", "low", "high"}."""
        return metrics.scores_with_intervals(targets_N.numpy(), logits_NC.argmax(-1).numpy(), seed)
