"""BERT's pre-training (Devlin et al. 2019, section 3.1 and appendix A.2): masked tokens, and whether B follows A.

A piece of a document is cut at a sentence start drawn at random into A and B; half of the time B gives way to text from
another document. Unlike BERT's script, the text so displaced is not moved to another example; other epochs see it. The
other text is as long as the one it displaces, wherever its document has that much: otherwise the length of a pair would
tell what it is.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from tilth.errors import TilthError
from tilth.key import Key
from tilth.objectives.masked import Masked
from tilth.objectives.objective import Batch, Predictions, blank_predictions, row_inputs
from tilth.recipe import Recipe
from tilth.tokens.packing import Framing, Packing, Rows
from tilth.tokens.tokenizer import TextTokenizer

_DRAWS = 8
"""Of another text, until one is long enough."""

FOLLOWS, RANDOM = 0, 1
"""The labels of `BertForPreTraining`."""


class NextSentence(Masked):
    """Sentence pairs [CLS] A [SEP] B [SEP], packed several to a row."""

    title: ClassVar[str] = "masked language modelling with next-sentence prediction"
    heads: ClassVar[tuple[str, ...]] = ("masked", "next_sentence")

    def __init__(self, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        super().__init__(recipe, tokenizer)
        special = tokenizer.special
        assert special.cls is not None and special.sep is not None
        self.framing = Framing(piece_prefix=(special.cls,), piece_suffix=(special.sep,), reserve=1)
        self.separator = special.sep

    def make_batch(self, packing: Packing, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> Batch:
        pairs = self._pair(packing, packing.rows(indexes), indexes, epochs, seed)
        tokens, positions, documents = pairs.rows.dense(self.pad)
        real = documents >= 0
        corrupted, predictions = self.masking.apply(tokens, real, indexes, epochs, seed)
        first_piece = np.searchsorted(pairs.rows.row, np.arange(pairs.rows.num_rows))
        piece = np.where(real, first_piece[:, None] + documents, 0)
        types = real & (positions >= pairs.second_starts[piece])
        inputs = replace(
            row_inputs(corrupted, positions, documents, self.cross_documents),
            token_types=torch.from_numpy(types.astype(np.int64)),
        )
        openings = Predictions(
            torch.from_numpy(np.flatnonzero(real & (positions == 0))), torch.from_numpy(pairs.labels)
        )
        return Batch(inputs, {"masked": predictions, "next_sentence": openings}, int(real.sum()), pairs.rows.documents)

    @classmethod
    def blank_batch(cls, recipe: Recipe, rows: int, device: torch.device) -> Batch:
        batch = super().blank_batch(recipe, rows, device)
        inputs = replace(batch.inputs, token_types=torch.zeros_like(batch.inputs.tokens))
        openings = {"next_sentence": blank_predictions(rows, inputs)}
        return replace(batch, inputs=inputs, predictions=batch.predictions | openings)

    def _pair(self, packing: Packing, rows: Rows, indexes: np.ndarray, epochs: np.ndarray, seed: int) -> "_Pairs":
        if packing.split.num_documents < 2:
            raise TilthError(
                f"the {packing.split.name} split has one document, and next-sentence prediction needs two; "
                "add documents, or set objective.name=masked"
            )
        tokens: list[np.ndarray] = []
        lengths, second_starts, labels = (np.zeros_like(rows.lengths) for _ in range(3))
        begins = np.cumsum(rows.lengths) - rows.lengths
        generators = {
            row: Key(seed, int(index), f"pairs {self.masking.copy(int(epoch))}").generator()
            for row, (index, epoch) in enumerate(zip(indexes, epochs, strict=True))
        }
        for piece, row in enumerate(rows.row):
            generator = generators[int(row)]
            start, real_length = int(rows.starts[piece]), int(rows.real_lengths[piece])
            first_token = begins[piece] + 1
            text = rows.tokens[first_token : first_token + real_length]
            cut = _sentence_cut(packing, start, real_length, generator)
            is_random = cut == real_length or generator.random() < 0.5
            second = text[cut:]
            if is_random:
                # A piece without an inner sentence start keeps at most half of itself as A, so that B has room.
                cut = cut if cut < real_length else max(1, real_length // 2)
                room = real_length - cut
                second = self._other_text(packing, int(rows.documents[piece]), room, generator)
            pair = np.concatenate(
                [rows.tokens[first_token - 1 : first_token + cut], [self.separator], second, [self.separator]]
            )
            tokens.append(pair)
            lengths[piece], second_starts[piece], labels[piece] = len(pair), cut + 2, RANDOM if is_random else FOLLOWS
        return _Pairs(replace(rows, tokens=np.concatenate(tokens), lengths=lengths), second_starts, labels)

    def _other_text(self, packing: Packing, document: int, room: int, generator: np.random.Generator) -> np.ndarray:
        """At most `room` tokens from the start of a sentence of another document: the most of a few draws."""
        own = packing.pieces_of(document)
        begin = most = 0
        for _ in range(_DRAWS):
            number = int(generator.integers(packing.num_pieces - len(own)))
            other, start, length = packing.piece(number if number < own.start else number + len(own))
            start += _sentence_cut(packing, start, length, generator) % max(1, length)
            there = min(room, int(packing.split.document_starts[other + 1]) - start)
            if there > most:
                begin, most = start, there
            if most == room:
                break
        return packing.split.tokens(np.array([begin]), np.array([most]))


@dataclass(frozen=True)
class _Pairs:
    """Rows of pairs; per piece: where B starts in it, and its label (both int64 (P,))."""

    rows: Rows
    second_starts: np.ndarray
    labels: np.ndarray


def _sentence_cut(packing: Packing, start: int, length: int, generator: np.random.Generator) -> int:
    """A sentence start inside a piece, drawn at random, counted from the piece's start; `length` when there is none."""
    starts = packing.split.sentence_starts(start, length)
    inner = starts[starts > 0]
    return int(inner[generator.integers(len(inner))]) if len(inner) else length
