"""How well a model predicts raw text: loss per token, perplexity, and bits per byte."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from tilth.corpus.reader import is_corpus, open_corpus
from tilth.corpus.reading import Reading
from tilth.corpus.records import Record, Rejected
from tilth.corpus.rejections import allowed_rejections
from tilth.corpus.sources import find_sources, read_files
from tilth.errors import TilthError, UsageError
from tilth.model.cross_entropy import linear_cross_entropy
from tilth.model.folder import GENERATOR, load_model
from tilth.model.heads import VocabularyHead
from tilth.model.inputs import Inputs
from tilth.model.model import Model
from tilth.model.precision import pick_device
from tilth.objectives.masked import Masking
from tilth.progress import Update, progress_bar
from tilth.recipe import Recipe
from tilth.tokens.tokenizer import TextTokenizer

TOKENS_AT_ONCE = 8192
"""Tokens in one forward pass, or one window if that is longer."""
_CHARACTERS_AT_ONCE = 1_000_000
MOST_REJECTED = 0.01
"""Share of the records that may be broken; see `allowed_rejections`."""
_MASK_SEED = 0

T = TypeVar("T")


@dataclass
class _Totals:
    """Sums over the documents read so far. tokens: of the text, special tokens excluded. scored: predictions made."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    unknown: int = 0
    scored: int = 0
    loss: float = 0.0
    rejected: list[dict[str, str]] = field(default_factory=list)


def evaluate_language(
    model_path: str | Path,
    data: str | Path,
    *,
    stride: int | None = None,
    text_column: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Score a causal or masked model on text, in float32.

    data: a corpus (its validation split is read), or a file, folder, glob or archive in any format that `corpus build`
    reads; documents are scored as they are, without cleaning.
    text_column: the field of tables and JSON records that holds the text; default `text`.
    stride: causal models only: tokens that a window newly scores; default half of the model's context.
    Returns {"tokens", "bytes", "loss" (nats per token), "perplexity", "bits_per_byte", "protocol" (how it was measured,
    in words), "stride", "documents", "unknown_tokens", "rejected"}.
    Raises: TilthError when there is no text, more than 1 % (and ten) of its records are broken, or the model predicts
    none; UsageError for a wrong stride, and for a text column beside a corpus.
    """
    if text_column is not None and is_corpus(Path(data)):
        raise UsageError(f"{data} is a corpus, which has no other texts than its documents; leave --text-column out")
    model, tokenizer = load_model(model_path)
    model.to(pick_device(device))
    totals = _Totals()
    with progress_bar("scoring text", None, "bytes", progress) as update:
        texts = read_texts(data, totals, text_column or Reading.text_column)
        return score_language(model, tokenizer, texts, stride, totals, update)


def score_language(
    model: Model,
    tokenizer: TextTokenizer,
    texts: Iterable[str],
    stride: int | None = None,
    totals: _Totals | None = None,
    update: Update = lambda done, **figures: None,
) -> dict[str, Any]:
    """As `evaluate_language`, of an open model and texts. Memory does not grow with the number of texts."""
    totals = totals or _Totals()
    context = model.config.max_length
    documents = _encoded(tokenizer, texts, totals, update)
    model.eval()
    if "causal" in model.heads:
        start = tokenizer.special.eot
        if start is None:
            raise TilthError("the tokenizer has no end-of-text token, so the first token of a text cannot be scored")
        stride = context // 2 if stride is None else stride
        if not 1 <= stride <= context:
            raise UsageError(f"stride must be between 1 and the model's context of {context} tokens, not {stride}")
        _score_causal(model, documents, start, stride, totals)
        protocol = (
            f"causal: every document from its start, after the end-of-text token; windows of {context} tokens that "
            f"each score {stride} new ones; each token and byte of raw text counted once; the end of text is not scored"
        )
    elif "masked" in model.heads:
        if stride is not None:
            raise UsageError("stride is for causal models; a masked model reads its text in consecutive pieces")
        stride = context - 2
        _score_masked(model, tokenizer, documents, stride, totals)
        protocol = (
            f"masked: 15 % of the tokens, chosen once (seed {_MASK_SEED}): 80 % of them masked, 10 % replaced, 10 % "
            f"left; pieces of {stride} tokens. The loss is per chosen token; perplexity and bits per byte are as if "
            "every token cost as much, and compare with other masked models only"
        )
    else:
        hint = "" if model.generator is None else f"; its generator does: the folder {GENERATOR} in the model's"
        raise TilthError(
            f"this {model.family.name} model predicts no text: it has neither a causal nor a masked head{hint}"
        )
    broken = ", ".join(sorted({f"{item['reason']} ({item['source']})" for item in totals.rejected})[:5])
    if totals.tokens == 0 or totals.scored == 0:
        why = f"; rejected: {broken}" if broken else ""
        if totals.tokens and totals.unknown == totals.tokens:
            why = f": the tokenizer knows none of its {totals.tokens:,} tokens"
        raise TilthError(f"there is no text to score{why}")
    if len(totals.rejected) > allowed_rejections(totals.documents + len(totals.rejected), MOST_REJECTED):
        raise TilthError(f"{len(totals.rejected)} records are broken, too many to trust the rest: {broken}; mend them")
    loss = totals.loss / totals.scored
    return {
        "tokens": totals.tokens,
        "bytes": totals.bytes,
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": loss * totals.tokens / totals.bytes / math.log(2),
        "protocol": protocol,
        "stride": stride,
        "documents": totals.documents,
        "unknown_tokens": totals.unknown,
        "rejected": totals.rejected,
    }


def read_texts(data: str | Path, totals: _Totals, text_column: str) -> Iterator[str]:
    """The texts of a corpus's validation split, or of raw data; what cannot be read is added to `totals.rejected`."""
    if is_corpus(Path(data)):
        for document in open_corpus(Path(data)).documents("validation"):
            yield document.text
        return
    for source in find_sources([str(data)], Path(data) / ".no-output"):
        for item in read_files(source.files, source.installed, Reading(text_column)):
            if isinstance(item, Record):
                yield item.text
            elif isinstance(item, Rejected):
                totals.rejected.append({"source": item.source, "record": item.record, "reason": item.reason})


def _encoded(tokenizer: TextTokenizer, texts: Iterable[str], totals: _Totals, update: Update) -> Iterator[list[int]]:
    """Token ids of each text, some texts at a time, counted in `totals`."""
    waiting: list[str] = []
    size = 0

    def encode() -> Iterator[list[int]]:
        for text, ids in zip(waiting, tokenizer.encode_batch(waiting), strict=True):
            totals.documents += 1
            totals.bytes += len(text.encode())
            totals.tokens += len(ids)
            if tokenizer.special.unk is not None:
                totals.unknown += ids.count(tokenizer.special.unk)
            update(totals.bytes)
            yield ids

    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            yield from encode()
            waiting, size = [], 0
    yield from encode()


def windows(num_tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """How a causal model of some context scores a document of `num_tokens` tokens after a start token (position 0).

    Yields (start, stop, scored): the window reads positions [start, stop), and its last `scored` positions predict
    tokens that no earlier window has scored. Together they predict every token once.
    """
    done = 0
    while done < num_tokens:
        stop = min(num_tokens, context if done == 0 else done + stride)
        yield max(0, stop - context), stop, stop - done
        done = stop


@torch.no_grad()
def _score_causal(model: Model, documents: Iterable[list[int]], start_token: int, stride: int, totals: _Totals) -> None:
    pieces = (
        (read[start:stop], read[stop + 1 - scored : stop + 1])
        for read in ([start_token, *ids] for ids in documents)
        for start, stop, scored in windows(len(read) - 1, model.config.max_length, stride)
    )
    device = model.trunk.embeddings.tokens.weight.device
    for batch in _batches(pieces, lambda piece: len(piece[0])):
        inputs, row, _, last = Inputs.from_pieces([read for read, _ in batch], None, start_token)
        lengths = torch.tensor([len(targets) for _, targets in batch])
        targets = torch.tensor([token for _, targets in batch for token in targets])
        # The predictions of a window are made at its last `scored` positions.
        offsets = torch.cat([torch.arange(1 - int(length), 1) for length in lengths])
        rows, columns = row.repeat_interleave(lengths), last.repeat_interleave(lengths) + offsets
        places = rows * inputs.tokens.shape[1] + columns
        hidden_ND = model.encode(inputs.to(device), places_N=places.to(device))
        totals.loss += _loss_sum(model, "causal", hidden_ND, targets.to(device))
        totals.scored += len(targets)


@torch.no_grad()
def _score_masked(
    model: Model, tokenizer: TextTokenizer, documents: Iterable[list[int]], room: int, totals: _Totals
) -> None:
    masking = Masking(Recipe(family=model.family.name, size="any"), tokenizer)
    special = tokenizer.special
    assert special.cls is not None and special.sep is not None
    pieces = (
        [special.cls, *ids[start : start + room], special.sep]
        for ids in documents
        for start in range(0, len(ids), room)
    )
    device = model.trunk.embeddings.tokens.weight.device
    num_rows = 0
    for batch in _batches(pieces, len):
        inputs, *_ = Inputs.from_pieces(batch, None, special.pad or 0)
        indexes = num_rows + np.arange(len(inputs.tokens))
        num_rows += len(indexes)
        real = inputs.documents.numpy() >= 0
        corrupted, chosen = masking.apply(inputs.tokens.numpy(), real, indexes, np.zeros_like(indexes), _MASK_SEED)
        masked = replace(inputs, tokens=torch.from_numpy(corrupted)).to(device)
        hidden_ND = model.encode(masked, places_N=chosen.places.to(device))
        totals.loss += _loss_sum(model, "masked", hidden_ND, chosen.targets.to(device))
        totals.scored += len(chosen.targets)


def _loss_sum(model: Model, name: str, hidden_ND: Tensor, targets_N: Tensor) -> float:
    head = model.heads[name]
    assert isinstance(head, VocabularyHead)
    return float(linear_cross_entropy(head.features(hidden_ND), head.token_weight, head.bias, targets_N))


def _batches(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Consecutive items with up to TOKENS_AT_ONCE tokens in all."""
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and size + size_of(item) > TOKENS_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch
