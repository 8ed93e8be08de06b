"""Packing: documents become pieces, and pieces are laid end to end in rows of one length with little waste."""

from dataclasses import dataclass

import numpy as np

from tilth.errors import UsageError
from tilth.key import Key, permute
from tilth.tokens.ranges import ranges
from tilth.tokens.shards import ShardSplit

_CHUNK_DOCUMENTS = 1 << 16
"""Documents that are measured and sorted at once: they stay in the processor's cache, and 16 bits number them."""
_BLOCK_DOCUMENTS = 64
"""Documents that are measured again to find a piece; chunks hold whole blocks."""


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
    Only how many pieces have which length is planned; which these are is looked up when a row is asked for. So the plan
    takes little more than 2 bytes for each document, and nothing for each piece or row; tokens stay in the shards.
    """

    def __init__(self, split: ShardSplit, length: int, framing: Framing) -> None:
        """length: places in a row. Raises: UsageError when rows are too short for the framing."""
        self.split = split
        self.length = length
        self.framing = framing
        around = len(framing.piece_prefix) + len(framing.piece_suffix) + framing.reserve
        self._body = length - around
        if self._body <= framing.overlap:
            raise UsageError(
                f"rows of {length} tokens leave no room for text beside the special tokens: raise data.length"
            )
        self._step = self._body - framing.overlap
        self._added = len(framing.document_prefix) + len(framing.document_suffix)
        self._around = around
        ends = self._measure_documents()
        self.num_pieces = int(self._first_piece[-1])
        self._plan = _plan(ends, length)
        self.num_rows = int(self._plan.first_row[-1])
        self._num_packed_tokens = int(ends @ np.arange(length + 1)) - framing.reserve * self.num_pieces

    @property
    def fill(self) -> float:
        """Tokens, special tokens included, per place of a row."""
        return self._num_packed_tokens / max(1, self.num_rows * self.length)

    def rows(self, indexes: np.ndarray) -> Rows:
        """The rows of the given numbers, int64 (B,), in that order; a number may occur more than once."""
        assert len(indexes) == 0 or (indexes.min() >= 0 and indexes.max() < self.num_rows)
        planned = permute(indexes, self.num_rows, Key(0, 0, "row numbers"))
        row, lengths, ranks = self._plan.pieces(planned)
        return self._gather(*self._located(lengths, ranks), row, len(indexes))

    def piece(self, number: int) -> tuple[int, int, int]:
        """A piece by its number, in corpus order: (document, start, length) of its text, without special tokens."""
        assert 0 <= number < self.num_pieces
        document, place = self._search(self._first_piece, np.array([number]), only_full=False)
        starts, lengths, _, _ = self._texts(document, place)
        return int(document[0]), int(starts[0]), int(lengths[0])

    def pieces_of(self, document: int) -> range:
        """The numbers of a document's pieces."""
        block, place = divmod(document, _BLOCK_DOCUMENTS)
        documents = np.arange(block * _BLOCK_DOCUMENTS, document + 1)
        counts = self._cut(self._framed_lengths(documents))[0] + 1
        first = int(self._first_piece[block] + counts[:place].sum())
        return range(first, first + int(counts[place]))

    def _measure_documents(self) -> np.ndarray:
        """Count the pieces of each block of documents, and sort the documents of each chunk by their last piece.

        Returns the pieces of each length (length + 1,).
        """
        starts = self.split.document_starts
        count = len(starts) - 1
        pieces, full = (np.zeros(-(-count // _BLOCK_DOCUMENTS), dtype=np.int64) for _ in range(2))
        last = np.zeros((self.length + 1, -(-count // _CHUNK_DOCUMENTS)), dtype=np.int64)
        self._by_last_length = np.empty(count, dtype=np.uint16)
        for chunk, begin in enumerate(range(0, count, _CHUNK_DOCUMENTS)):
            end = min(begin + _CHUNK_DOCUMENTS, count)
            framed = starts[begin + 1 : end + 1] - starts[begin:end] + self._added
            # No number below exceeds the tokens of the chunk; half as wide, they take half as long.
            if int(starts[end] - starts[begin]) + self._added * (end - begin) < 1 << 31:
                framed = framed.astype(np.int32)
            before_last, last_lengths = self._cut(framed)
            blocks = slice(begin // _BLOCK_DOCUMENTS, -(-end // _BLOCK_DOCUMENTS))
            firsts = np.arange(0, end - begin, _BLOCK_DOCUMENTS)
            pieces[blocks] = np.add.reduceat(before_last + 1, firsts)
            full[blocks] = np.add.reduceat(before_last + (last_lengths == self.length), firsts)
            last[:, chunk] = np.bincount(last_lengths, minlength=self.length + 1)
            if self.length < 1 << 16:
                last_lengths = last_lengths.astype(np.uint16)  # NumPy sorts 16 bits by radix: ten times faster
            self._by_last_length[begin:end] = np.argsort(last_lengths, kind="stable")
        self._first_piece, self._first_full = _from_zero(pieces), _from_zero(full)
        # The documents by the length of their last piece, then in corpus order: the first of each length and chunk
        # among all, and among those of its chunk.
        self._first_last = _from_zero(last.ravel())
        self._first_last_in_chunk = (np.cumsum(last, axis=0) - last).ravel()
        histogram = last.sum(axis=1)
        histogram[self.length] = self._first_full[-1]
        return histogram

    def _cut(self, framed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of documents of some framed lengths: how many pieces come before the last, all of which fill a row, and how
        many places the last one takes.
        """
        before_last = np.maximum(0, -((self._body - framed) // self._step))
        return before_last, framed - before_last * self._step + self._around

    def _framed_lengths(self, documents: np.ndarray) -> np.ndarray:
        starts = self.split.document_starts
        return starts[documents + 1] - starts[documents] + self._added

    def _located(self, lengths: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pieces that are the `ranks`-th, in corpus order, of those that take `lengths` places: the document of
        each, and its place among the pieces of that.
        """
        documents, places = np.empty_like(ranks), np.empty_like(ranks)
        is_full = lengths == self.length
        documents[is_full], places[is_full] = self._search(self._first_full, ranks[is_full], only_full=True)
        lengths, ranks = lengths[~is_full], ranks[~is_full]
        num_chunks = max(1, len(self._first_last) // (self.length + 1))
        runs, within = _run_and_place(self._first_last, self._first_last[lengths * num_chunks] + ranks)
        begins = runs % num_chunks * _CHUNK_DOCUMENTS
        found = begins + self._by_last_length[begins + self._first_last_in_chunk[runs] + within]
        documents[~is_full], places[~is_full] = found, self._cut(self._framed_lengths(found))[0]
        return documents, places

    def _search(self, first: np.ndarray, numbers: np.ndarray, only_full: bool) -> tuple[np.ndarray, np.ndarray]:
        """Pieces by their number in corpus order, among all or among the full ones: the document of each, and its place
        among the pieces of that, of which full ones come first.

        first: the number of each block's first piece.
        """
        blocks, within = _run_and_place(first, numbers)
        documents = blocks[:, None] * _BLOCK_DOCUMENTS + np.arange(_BLOCK_DOCUMENTS)
        # What stands for documents beyond the last one comes after the piece.
        before_last, last_lengths = self._cut(
            self._framed_lengths(np.minimum(documents, len(self.split.document_starts) - 2))
        )
        ends = np.cumsum(before_last + (last_lengths == self.length if only_full else 1), axis=1)
        place = (ends <= within[:, None]).sum(axis=1)
        before = np.where(place > 0, ends[np.arange(len(place)), place - 1], 0)
        return documents[:, 0] + place, within - before

    def _texts(self, documents: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, ...]:
        """(starts, lengths) of the text of pieces in the split, and (begins, lengths) of them in the framed document.

        places: which piece of its document each one is.
        """
        prefix, split_starts = len(self.framing.document_prefix), self.split.document_starts
        document_begins, document_ends = split_starts[documents], split_starts[documents + 1]
        begins = places * self._step
        lengths = np.minimum(self._body, document_ends - document_begins + self._added - begins)
        starts = np.minimum(document_begins + np.maximum(begins - prefix, 0), document_ends)
        ends = np.clip(document_begins + begins + lengths - prefix, starts, document_ends)
        return starts, ends - starts, begins, lengths

    def _gather(self, documents: np.ndarray, places: np.ndarray, row: np.ndarray, num_rows: int) -> Rows:
        framing = self.framing
        starts, real_lengths, begins, bodies = self._texts(documents, places)
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


def _run_and_place(first: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the runs that start at `first` each number is in, and its place there, int64."""
    runs = np.searchsorted(first, numbers, side="right") - 1
    return runs, numbers - first[runs]


def _place(
    tokens: np.ndarray, body_begins: np.ndarray, begins: np.ndarray, bodies: np.ndarray, at: np.ndarray, token: int
) -> None:
    """Write `token` where the framed document's index `at` lies inside a piece."""
    inside = (at >= begins) & (at < begins + bodies)
    tokens[(body_begins + at - begins)[inside]] = token


@dataclass(frozen=True)
class _Plan:
    """Which pieces share a row: blocks of rows that hold pieces of the same lengths.

    Column c of a block takes the pieces of one length in corpus order: its j-th row has the one of rank ranks[c] + j.
    """

    first_row: np.ndarray  # int64 (blocks + 1,)
    first_column: np.ndarray  # int64 (blocks + 1,)
    lengths: np.ndarray  # int64 (columns,)
    ranks: np.ndarray  # int64 (columns,)

    def pieces(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each piece of B planned rows as (index in `rows`, length, rank among the pieces of that length)."""
        blocks, within = _run_and_place(self.first_row, rows)
        counts = self.first_column[blocks + 1] - self.first_column[blocks]
        columns = ranges(self.first_column[blocks], counts)
        return (
            np.repeat(np.arange(len(rows)), counts),
            self.lengths[columns],
            self.ranks[columns] + np.repeat(within, counts),
        )


def _plan(histogram: np.ndarray, capacity: int) -> _Plan:
    """histogram: int64 (capacity + 1,), the pieces of each length from 1 on."""
    strategies = _strategies(histogram, capacity)
    taken = [0] * (capacity + 1)
    ranks = []
    for count, strategy in strategies:
        for length in strategy:
            ranks.append(taken[length])
            taken[length] += count
    rows = np.array([count for count, _ in strategies], dtype=np.int64)
    columns = np.array([len(strategy) for _, strategy in strategies], dtype=np.int64)
    lengths = [length for _, strategy in strategies for length in strategy]
    return _Plan(_from_zero(rows), _from_zero(columns), *(np.array(part, dtype=np.int64) for part in (lengths, ranks)))


def _from_zero(counts: np.ndarray) -> np.ndarray:
    """Where each of several runs starts, and the last one ends."""
    first = np.zeros(len(counts) + 1, dtype=counts.dtype)
    np.cumsum(counts, out=first[1:])
    return first


def _strategies(histogram: np.ndarray, capacity: int) -> list[tuple[int, tuple[int, ...]]]:
    """Ways to fill a row, and how many rows are filled so: longest piece first, into the fullest row that has room."""
    open_rows: dict[int, list[tuple[int, tuple[int, ...]]]] = {}  # room left -> [(rows, lengths so far)]
    rooms = 0  # bit n is set where rows with room n are open: the next one up is found without a walk
    for length in range(capacity, 0, -1):
        remaining = int(histogram[length])
        while remaining:
            enough = rooms >> length
            if enough:
                room = length + (enough & -enough).bit_length() - 1
                count, strategy = open_rows[room].pop()
            else:
                room, count, strategy = capacity, remaining, ()
            copies = min(room // length, remaining)
            used = min(count, remaining // copies)
            if enough and used < count:
                open_rows[room].append((count - used, strategy))
            if enough and not open_rows[room]:
                rooms ^= 1 << room
            remaining -= used * copies
            left = room - copies * length
            open_rows.setdefault(left, []).append((used, strategy + (length,) * copies))
            rooms |= (left > 0) << left
    return [entry for left in sorted(open_rows) for entry in open_rows[left]]
