"""The fast form of a WordPiece tokenizer against `tokenizers`: the same ids and ends, or no fast form."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from tilth.recipe import TokenizerSettings
from tilth.tokens import chunk_memory as chunk_memory_module
from tilth.tokens import text as text_module
from tilth.tokens import word_piece as word_piece_module
from tilth.tokens.chunk_memory import ChunkMemory
from tilth.tokens.text import TextTokenizer
from tilth.tokens.tokenizer import train_tokenizer
from tilth.tokens.word_piece import word_piece

# Pieces that meet in texts of hypothesis more often than by chance: words that were learnt, special tokens, blanks of
# many kinds, and characters that BERT's normaliser strips, splits or takes apart.
PIECES = [
    "the mill", "The", "naïve", "nai\u0308ve", "猫", "猫猫a", "don't", "\u0301", "e\u0301", "İ", "ς", "Σ", "ß", "ﬁ",
    "[MASK]", "[UNK]", "[CLS", " ", "  ", "\n", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u00a0", "\u2003",
    "\u2028", "\u3000", "\u200b", "\ufeff", "\u00ad", "\x00", "\ufffd", "1", "12", "#", "##", "!", "…",
    "\U0001f468\u200d\U0001f469",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=40).map("".join)


@pytest.fixture(scope="module")
def trained(stories) -> TextTokenizer:
    return train_tokenizer(TokenizerSettings(vocab_size=420), stories, 0, progress=False)


@pytest.fixture(scope="module")
def cased(stories) -> TextTokenizer:
    return train_tokenizer(TokenizerSettings(vocab_size=420, lowercase=False), stories, 0, progress=False)


def fast_form(tokenizer: TextTokenizer) -> ChunkMemory:
    fast = word_piece(tokenizer.backend, json.loads(tokenizer.backend.to_str()))
    assert fast is not None
    return fast


@settings(max_examples=700, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3))
@example([""])
@example([" \n", "x", "\u0301", " \u0301x \u0301", "a \u200b b\u200b c"])
@example(["\x00\x01\x1f\x7f\x85\x9f\ufeff\u200b\u2028", " \u00a0 \u3000\n \n  x "])
def test_ids_and_ends_are_those_of_tokenizers(assert_the_same, trained, cased, texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_piece_module, "_JOINED_CHUNKS", 2)
        for tokenizer in (trained, cased):
            assert_the_same(fast_form(tokenizer), tokenizer.backend, texts)


@pytest.mark.parametrize("unit", ["a", " ", "!", "the", "猫", "\x00", "\u0301"])
def test_a_chunk_without_end(assert_the_same, trained, unit):
    assert_the_same(fast_form(trained), trained.backend, ["x" + unit * (9000 // len(unit)) + "y z"])


def test_texts_after_more_than_is_remembered(assert_the_same, trained, monkeypatch):
    monkeypatch.setattr(chunk_memory_module, "_MOST_BYTES", 6000)
    fast = fast_form(trained)
    texts = [" ".join(f"{number * 7919:x} the" for number in range(start, start + 15)) for start in range(0, 90, 15)]
    for text in texts:
        assert_the_same(fast, trained.backend, [text, "the mill"])
        assert fast._bytes < 15_000


def test_threads_share_what_is_remembered(trained, monkeypatch):
    monkeypatch.setattr(chunk_memory_module, "_MOST_NEW", 1)
    monkeypatch.setattr(chunk_memory_module, "_FEW_CHARACTERS", 1)
    monkeypatch.setattr(chunk_memory_module, "_MOST_BYTES", 9000)  # so that some forget while others look up
    fast = fast_form(trained)
    texts = [[" ".join(f"{7919 * (number + part):x}" for number in range(40)), "the mill"] for part in range(60)]
    expected = [[encoding.ids for encoding in trained.backend.encode_batch(pair)] for pair in texts]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(fast.encode, texts * 5))
    assert [[ids.tolist() for ids in pair] for pair in got] == expected * 5


def test_an_interrupted_call_leaves_nothing_wrong(assert_the_same, trained, monkeypatch):
    monkeypatch.setattr(chunk_memory_module, "_MOST_NEW", 1)
    monkeypatch.setattr(chunk_memory_module, "_FEW_CHARACTERS", 1)
    for place in ("_tokens", "_places"):
        fast = fast_form(trained)
        fast.encode(["the mill"])
        with monkeypatch.context() as patch:
            patch.setattr(getattr(fast, place), "extend", lambda *values: [][1], raising=False)
            with pytest.raises(IndexError):
                fast.encode(["first second third"])
        assert_the_same(fast, trained.backend, ["fourth fifth sixth", "first second third the mill"])


def test_a_copy_of_a_process_encodes_alike(trained):
    fast = pickle.loads(pickle.dumps(fast_form(trained)))
    assert fast.encode(["the mill"])[0].tolist() == trained.encode("the mill")


def test_other_tokenizers_have_no_fast_form(trained):
    def changed(change) -> Tokenizer:
        backend = Tokenizer.from_str(trained.backend.to_str())
        change(backend)
        return backend

    def normalised(backend):
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer()])

    def split(backend):
        backend.pre_tokenizer = pre_tokenizers.Whitespace()

    def added(backend):
        backend.add_tokens([AddedToken("mill stream")])

    for change in (normalised, split, added):
        backend = changed(change)
        assert word_piece(backend, json.loads(backend.to_str())) is None


def test_long_texts_take_the_fast_form_and_short_ones_do_not(trained, monkeypatch):
    monkeypatch.setattr(text_module, "_WORD_PIECE_BULK", 1000)
    tokenizer = TextTokenizer(Tokenizer.from_str(trained.backend.to_str()), trained.special)
    tokenizer.encode("the mill")
    assert tokenizer._fast is None
    text = "The miller's daughter went to the mill [MASK] naïve. " * 40
    ids, ends = tokenizer.encode_with_ends([text])[0]
    assert isinstance(tokenizer._fast, ChunkMemory)
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    assert ids.tolist() == encoding.ids and ends.tolist() == [end for _, end in encoding.offsets]
