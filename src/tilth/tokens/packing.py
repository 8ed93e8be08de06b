"""Packing: documents become pieces, and pieces are laid end to end in rows of one length with little waste."""

from dataclasses import dataclass

import numpy as np

from tilth.errors import UsageError
from tilth.key import Key, permute
from tilth.tokens.shards import ShardSplit, ranges

_CHUNK_PIECES = 1 << 20  # pieces measured at once, so that the plan's memory is little more than the plan


@dataclass(frozen=True)
class Framing:
    """The special tokens around documents and pieces, and how pieces of one document overlap.

    A document is framed once (`document_prefix` tokens `document_suffix`), then cut into pieces of which consecutive
    ones share `overlap` tokens, and each piece is framed again. reserve: places left free for each piece, for tokens
    that an objective adds itself.

    masked:         Framing(piece_prefix=(cls,), piece_suffix=(sep,))
    next sentence:  Framing(piece_prefix=(cls,), piece_suffix=(sep,), reserve=1)
    causal:         Framing(document_prefix=(eot,), document_suffix=(eot,), overlap=1): every transition occurs once
    """

    piece_prefix: tuple[int, ...] = ()
    piece_suffix: tuple[int, ...] = ()
    document_prefix: tuple[int, ...] = ()
    document_suffix: tuple[int, ...] = ()
    overlap: int = 0
    reserve: int = 0


@dataclass(frozen=True)
class Rows:
    """Some packed rows. T tokens, special tokens included, in P pieces, in B rows of `length` places."""

    tokens: np.ndarray  # int64 (T,): the pieces' ids end to end, in the order of the rows
    lengths: np.ndarray  # int64 (P,): tokens in each piece, special tokens included
    starts: np.ndarray  # int64 (P,): the position in its split of each piece's first token that is not special
    real_lengths: np.ndarray  # int64 (P,): tokens in each piece, special tokens excluded
    row: np.ndarray  # int64 (P,): which of the B rows the piece is in, never decreasing
    documents: np.ndarray  # int64 (P,): number of the piece's document in its split
    num_rows: int  # B
    length: int

    def dense(self, pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows as (tokens, positions, documents), each int64 (B, length).

        positions restart at 0 in every piece. documents: number of the piece in its row, -1 where there is none; there
        tokens are `pad` and positions 0.
        """
        ends = np.cumsum(self.lengths)
        first_piece = np.searchsorted(self.row, self.row, side="left")
        begins = ends - self.lengths
        columns = begins - begins[first_piece]
        places = ranges(self.row * self.length + columns, self.lengths)
        shape = (self.num_rows, self.length)
        tokens, positions, documents = (np.full(shape, fill, dtype=np.int64) for fill in (pad, 0, -1))
        tokens.reshape(-1)[places] = self.tokens
        positions.reshape(-1)[places] = np.arange(len(places)) - np.repeat(begins, self.lengths)
        documents.reshape(-1)[places] = np.repeat(np.arange(len(self.row)) - first_piece, self.lengths)
        return tokens, positions, documents


class Packing:
    """A fixed plan of which pieces of a split share which row.

    Pieces are packed longest first into the fullest row that has room, on the histogram of their lengths (Krell et al.
    2021, "Efficient Sequence Packing without Cross-contamination", longest-pack-first histogram packing). The plan is a
    pure function of the document lengths and the arguments. Rows are numbered at random, so any range is a fair sample.
    It holds 8 bytes for each piece, row and document, and takes some 30 for each piece while it is made; tokens stay in
    the shards.
    """

    def __init__(self, split: ShardSplit, length: int, framing: Framing) -> None:
        """length: places in a row. Raises: UsageError when rows are too short for the framing."""
        self.split = split
        self.length = length
        self.framing = framing
        self._body = length - len(framing.piece_prefix) - len(framing.piece_suffix) - framing.reserve
        if self._body <= framing.overlap:
            raise UsageError(
                f"rows of {length} tokens leave no room for text beside the special tokens: raise data.length"
            )
        self._added = len(framing.document_prefix) + len(framing.document_suffix)
        framed = np.diff(split.document_starts) + self._added
        counts = 1 + np.maximum(0, -(-(framed - self._body) // (self._body - framing.overlap)))
        self._first_piece = np.concatenate([[0], np.cumsum(counts)])
        self.num_pieces = int(self._first_piece[-1])
        lengths = np.empty(self.num_pieces, dtype=np.int32)
        for begin in range(0, self.num_pieces, _CHUNK_PIECES):
            chunk = np.arange(begin, min(begin + _CHUNK_PIECES, self.num_pieces))
            lengths[chunk] = self._bodies(chunk)[1] + len(framing.piece_prefix) + len(framing.piece_suffix)
        self._row_starts, self._row_pieces = _plan(lengths + framing.reserve, length)
        self.num_rows = len(self._row_starts) - 1
        self._num_packed_tokens = int(lengths.sum(dtype=np.int64))

    @property
    def fill(self) -> float:
        """Tokens, special tokens included, per place of a row."""
        return self._num_packed_tokens / max(1, self.num_rows * self.length)

    def rows(self, indexes: np.ndarray) -> Rows:
        """The rows of the given numbers, int64 (B,), in that order; a number may occur more than once."""
        assert len(indexes) == 0 or (indexes.min() >= 0 and indexes.max() < self.num_rows)
        planned = permute(indexes, self.num_rows, Key(0, 0, "row numbers"))
        begins = self._row_starts[planned]
        counts = self._row_starts[planned + 1] - begins
        row = np.repeat(np.arange(len(indexes)), counts)
        pieces = self._row_pieces[ranges(begins, counts)]
        return self._gather(pieces, row, len(indexes))

    def piece(self, number: int) -> tuple[int, int, int]:
        """A piece by its number, in corpus order: (document, start, length) of its text, without special tokens."""
        assert 0 <= number < self.num_pieces
        documents, starts, lengths, _, _ = self._texts(np.array([number]))
        return int(documents[0]), int(starts[0]), int(lengths[0])

    def pieces_of(self, document: int) -> range:
        """The numbers of a document's pieces."""
        return range(int(self._first_piece[document]), int(self._first_piece[document + 1]))

    def _bodies(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(begin, length) of each piece in its framed document, and the document's number."""
        documents = np.searchsorted(self._first_piece, pieces, side="right") - 1
        begins = (pieces - self._first_piece[documents]) * (self._body - self.framing.overlap)
        starts = self.split.document_starts
        framed = starts[documents + 1] - starts[documents] + self._added
        return begins, np.minimum(self._body, framed - begins), documents

    def _texts(self, pieces: np.ndarray) -> tuple[np.ndarray, ...]:
        """(documents, starts, lengths) of the pieces' text in the split, and (begin, length) in the framed document."""
        begins, lengths, documents = self._bodies(pieces)
        prefix = len(self.framing.document_prefix)
        document_begins = self.split.document_starts[documents]
        document_ends = self.split.document_starts[documents + 1]
        starts = np.minimum(document_begins + np.maximum(begins - prefix, 0), document_ends)
        ends = np.clip(document_begins + begins + lengths - prefix, starts, document_ends)
        return documents, starts, ends - starts, begins, lengths

    def _gather(self, pieces: np.ndarray, row: np.ndarray, num_rows: int) -> Rows:
        framing = self.framing
        documents, starts, real_lengths, begins, bodies = self._texts(pieces)
        lengths = bodies + len(framing.piece_prefix) + len(framing.piece_suffix)
        ends = np.cumsum(lengths)
        body_begins = ends - lengths + len(framing.piece_prefix)
        tokens = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.int64)

        first = body_begins + np.maximum(len(framing.document_prefix) - begins, 0)
        tokens[ranges(first, real_lengths)] = self.split.tokens(starts, real_lengths)
        for offset, token in enumerate(framing.piece_prefix):
            tokens[ends - lengths + offset] = token
        for offset, token in enumerate(framing.piece_suffix):
            tokens[body_begins + bodies + offset] = token
        document_lengths = self.split.document_starts[documents + 1] - self.split.document_starts[documents]
        suffix_begins = document_lengths + len(framing.document_prefix)
        for offset, token in enumerate(framing.document_prefix):
            _place(tokens, body_begins, begins, bodies, np.full_like(begins, offset), token)
        for offset, token in enumerate(framing.document_suffix):
            _place(tokens, body_begins, begins, bodies, suffix_begins + offset, token)
        return Rows(tokens, lengths, starts, real_lengths, row, documents, num_rows, self.length)


def _place(
    tokens: np.ndarray, body_begins: np.ndarray, begins: np.ndarray, bodies: np.ndarray, at: np.ndarray, token: int
) -> None:
    """Write `token` where the framed document's index `at` lies inside a piece."""
    inside = (at >= begins) & (at < begins + bodies)
    tokens[(body_begins + at - begins)[inside]] = token


def _plan(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pieces share a row.

    lengths: int64 (pieces,), each in [1, capacity]. Returns (row_starts (rows + 1,), row_pieces (pieces,)): row r holds
    the pieces row_pieces[row_starts[r] : row_starts[r + 1]].
    """
    histogram = np.bincount(lengths, minlength=capacity + 1)
    narrow = (
        lengths.astype(np.uint16) if capacity < 1 << 16 else lengths
    )  # NumPy sorts 16 bits by radix: ten times faster
    by_length = np.argsort(narrow, kind="stable")
    taken = np.concatenate([[0], np.cumsum(histogram)])[:-1]  # where the next unused piece of each length is
    pieces, sizes = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for count, strategy in _strategies(histogram, capacity):
        block = np.empty((count, len(strategy)), dtype=np.int64)
        for column, length in enumerate(strategy):
            block[:, column] = by_length[taken[length] : taken[length] + count]
            taken[length] += count
        pieces.append(block.reshape(-1))
        sizes.append(np.full(count, len(strategy), dtype=np.int64))
    row_starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return row_starts, np.concatenate(pieces)


def _strategies(histogram: np.ndarray, capacity: int) -> list[tuple[int, tuple[int, ...]]]:
    """Ways to fill a row, and how many rows are filled so: longest piece first, into the fullest row that has room."""
    open_rows: dict[int, list[tuple[int, tuple[int, ...]]]] = {}  # room left -> [(rows, lengths so far)]
    for length in range(capacity, 0, -1):
        remaining = int(histogram[length])
        room = length
        while remaining:
            while room < capacity and not open_rows.get(room):
                room += 1
            count, strategy = open_rows[room].pop() if room < capacity else (remaining, ())
            copies = min(room // length, remaining)
            used = min(count, remaining // copies)
            if room < capacity and used < count:
                open_rows[room].append((count - used, strategy))
            remaining -= used * copies
            left = room - copies * length
            open_rows.setdefault(left, []).append((used, strategy + (length,) * copies))
    return [entry for left in sorted(open_rows) for entry in open_rows[left]]
