import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.errors import UsageError
from tilth.recipe import TokenizerSettings
from tilth.tokens import packing as packing_module
from tilth.tokens.packing import Framing, Packing, Rows
from tilth.tokens.shards import ShardSplit, write_shards
from tilth.tokens.tokenizer import train_tokenizer

CLS, SEP, EOT, PAD = 9001, 9002, 9003, 9004
MASKED = Framing(piece_prefix=(CLS,), piece_suffix=(SEP,))
CAUSAL = Framing(document_prefix=(EOT,), document_suffix=(EOT,), overlap=1)


def make_split(make_corpus, folder, lengths) -> ShardSplit:
    """A split whose documents have the given numbers of tokens (characters drawn at random)."""
    generator = np.random.default_rng(0)
    texts = ["".join(map(chr, generator.integers(0x4E00, 0x4E00 + 500, length))) for length in lengths]
    corpus = make_corpus(texts)
    tokenizer = train_tokenizer(TokenizerSettings(kind="characters", vocab_size=1000), corpus, 0, progress=False)
    return write_shards(corpus, tokenizer, folder / "shards", progress=False, shard_tokens=997).split("train")


@pytest.fixture(scope="module")
def split(make_corpus, tmp_path_factory) -> ShardSplit:
    lengths = [*range(1, 80), 300, 1, 1, 127, 126, 125, 61, 200]
    return make_split(make_corpus, tmp_path_factory.mktemp("packing"), lengths)


def document_tokens(split: ShardSplit) -> list[list[int]]:
    starts = np.asarray(split.document_starts)
    return [split.tokens(starts[i : i + 1], np.diff(starts[i : i + 2])).tolist() for i in range(split.num_documents)]


def pieces_of(rows: Rows) -> list[list[int]]:
    return [piece.tolist() for piece in np.split(rows.tokens, np.cumsum(rows.lengths)[:-1])]


def all_rows(packing: Packing) -> Rows:
    return packing.rows(np.arange(packing.num_rows))


@settings(deadline=None, max_examples=40)
@given(length=st.integers(3, 140), reserve=st.integers(0, 2), prefix=st.integers(0, 2), suffix=st.integers(0, 2))
def test_masked_pieces_hold_every_token_once_in_its_frame(split, length, reserve, prefix, suffix):
    framing = Framing((CLS,) * prefix, (SEP,) * suffix, reserve=reserve)
    if length <= prefix + suffix + reserve:
        with pytest.raises(UsageError):
            Packing(split, length, framing)
        return
    packing = Packing(split, length, framing)
    rows = all_rows(packing)
    texts = document_tokens(split)
    seen = {document: [None] * len(text) for document, text in enumerate(texts)}
    for piece, document, start, real in zip(
        pieces_of(rows), rows.documents, rows.starts, rows.real_lengths, strict=True
    ):
        assert len(piece) + reserve <= length
        assert piece[:prefix] == [CLS] * prefix and piece[len(piece) - suffix :] == [SEP] * suffix
        inner = piece[prefix : len(piece) - suffix]
        assert len(inner) == real > 0
        offset = start - split.document_starts[document]
        for place, token in enumerate(inner, offset):
            assert seen[document][place] is None
            seen[document][place] = token
    assert list(seen.values()) == texts
    used = np.bincount(rows.row, weights=rows.lengths + reserve, minlength=packing.num_rows)
    assert used.max() <= length and used.min() > 0


@settings(deadline=None, max_examples=40)
@given(length=st.integers(2, 140))
def test_causal_pieces_hold_every_transition_once(split, length):
    packing = Packing(split, length + 1, CAUSAL)
    expected = Counter(
        (document, *pair)
        for document, text in enumerate(document_tokens(split))
        for pair in pairwise([EOT, *text, EOT])
    )
    rows = all_rows(packing)
    pieces = pieces_of(rows)
    found = Counter(
        (document, *pair)
        for document, piece in zip(rows.documents.tolist(), pieces, strict=True)
        for pair in pairwise(piece)
    )
    assert found == expected
    assert max(map(len, pieces)) <= length + 1
    for piece, start, real in zip(pieces, rows.starts, rows.real_lengths, strict=True):
        text = [token for token in piece if token != EOT]
        assert text == split.tokens(np.array([start]), np.array([real])).tolist()


def test_piece_numbers_follow_the_corpus(split):
    packing = Packing(split, 50, MASKED)
    pieces = [packing.piece(number) for number in range(packing.num_pieces)]
    rows = all_rows(packing)
    gathered = zip(rows.documents.tolist(), rows.starts.tolist(), rows.real_lengths.tolist(), strict=True)
    assert pieces == sorted(gathered)
    assert pieces[0] == (0, 0, 1)


@pytest.mark.parametrize(
    ("length", "framing", "digest"),
    [
        (64, MASKED, "ab9b35ac0f9bbbe5"),
        (64, Framing((CLS,), (SEP,), reserve=1), "2f324e9abf723cf6"),
        (65, CAUSAL, "8739a3d563404736"),
    ],
)
def test_the_plan_is_the_one_of_this_result_version(split, length, framing, digest):
    """A change here changes every run's batches: it raises RESULT_VERSION."""
    rows = all_rows(Packing(split, length, framing))
    columns = np.stack([rows.row, rows.documents, rows.starts, rows.real_lengths])
    assert hashlib.sha256(columns.astype("<i8").tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize(("length", "framing"), [(64, MASKED), (65, CAUSAL), (300, MASKED)])
def test_the_plan_is_the_same_whatever_is_measured_at_once(split, length, framing, monkeypatch):
    def read() -> tuple[list, list, list]:
        packing = Packing(split, length, framing)
        rows = all_rows(packing)
        columns = [getattr(rows, name).tolist() for name in ("tokens", "row", "documents", "starts")]
        pieces = [packing.piece(number) for number in range(packing.num_pieces)]
        return columns, pieces, [list(packing.pieces_of(document)) for document in range(split.num_documents)]

    columns, pieces, by_document = read()
    assert by_document == [
        [number for number, piece in enumerate(pieces) if piece[0] == document]
        for document in range(split.num_documents)
    ]
    monkeypatch.setattr(packing_module, "_CHUNK_DOCUMENTS", 16)
    monkeypatch.setattr(packing_module, "_BLOCK_DOCUMENTS", 4)
    assert read() == (columns, pieces, by_document)


def test_a_piece_goes_into_the_fullest_row_that_has_room(make_corpus, tmp_path):
    split = make_split(make_corpus, tmp_path, [1])
    split.document_starts = np.concatenate([[0], np.cumsum(np.arange(1, 32_769))])
    packing = Packing(split, 32_768, Framing())
    assert packing.num_pieces == 32_768
    assert packing.num_rows == 16_385  # 1 beside 32,767, 2 beside 32,766, ...; 16,384 and 32,768 alone
    assert packing.fill == split.document_starts[-1] / (16_385 * 32_768)


def test_rows_come_in_the_order_asked_and_may_repeat(split):
    packing = Packing(split, 64, MASKED)
    rows = packing.rows(np.array([5, 2, 5]))
    assert rows.num_rows == 3 and sorted(set(rows.row.tolist())) == [0, 1, 2]
    single = [packing.rows(np.array([index])) for index in (5, 2, 5)]
    assert pieces_of(rows) == [piece for part in single for piece in pieces_of(part)]


def test_dense_lays_pieces_end_to_end(split):
    packing = Packing(split, 64, MASKED)
    rows = packing.rows(np.arange(packing.num_rows)[::-1])
    tokens, positions, documents = rows.dense(PAD)
    expected = [[] for _ in range(rows.num_rows)]
    for piece, row in zip(pieces_of(rows), rows.row, strict=True):
        number = expected[row][-1][2] + 1 if expected[row] else 0
        expected[row] += [(token, position, number) for position, token in enumerate(piece)]
    for row in range(rows.num_rows):
        padded = expected[row] + [(PAD, 0, -1)] * (64 - len(expected[row]))
        assert list(zip(tokens[row], positions[row], documents[row], strict=True)) == padded


@pytest.mark.parametrize("shape", ["lognormal", "uniform"])
def test_rows_are_nearly_full(make_corpus, tmp_path, shape):
    generator = np.random.default_rng(1)
    drawn = generator.lognormal(4, 1.2, 3000) if shape == "lognormal" else generator.integers(1, 200, 3000)
    split = make_split(make_corpus, tmp_path, np.maximum(1, drawn).astype(int))
    for length, framing in ((128, MASKED), (129, CAUSAL)):
        packing = Packing(split, length, framing)
        rows = all_rows(packing)
        assert packing.fill == len(rows.tokens) / (packing.num_rows * length)
        assert packing.fill >= 0.97


def test_equal_documents_share_rows(make_corpus, tmp_path):
    split = make_split(make_corpus, tmp_path, [30] * 403)
    packing = Packing(split, 130, MASKED)
    assert packing.num_rows == 101
    assert np.bincount(all_rows(packing).row).tolist().count(4) == 100


def test_any_range_of_rows_is_a_fair_sample(split):
    packing = Packing(split, 64, MASKED)
    half = packing.rows(np.arange(packing.num_rows // 2))
    whole = all_rows(packing)
    assert abs(half.lengths.mean() - whole.lengths.mean()) < 0.25 * whole.lengths.mean()
