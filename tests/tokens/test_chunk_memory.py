"""A memory of chunks with a vocabulary that is easy to foretell: a token a character, its code point for its id."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilth.tokens import chunk_memory
from tilth.tokens.chunk_memory import ChunkMemory

TEXTS = st.lists(st.text("ab é猫\U0001f600", max_size=12), max_size=12)


class Recorded:
    """What a memory has asked for."""

    def __init__(self) -> None:
        self.learnt: list[str] = []
        self.texts: list[str] = []
        self.memory = ChunkMemory(lambda content: content == ord(" "), self._chunks, self._whole)

    def _chunks(self, chunks: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.learnt += chunks
        encoded = [tokens(chunk) for chunk in chunks]
        counts = np.array([len(ids) for ids, _ in encoded], dtype=np.int64)
        return counts, np.concatenate([ids for ids, _ in encoded]), np.concatenate([ends for _, ends in encoded])

    def _whole(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        self.texts += texts
        return [tokens(text) for text in texts]


def tokens(text: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array([ord(each) for each in text], dtype=np.int64), np.arange(1, len(text) + 1)


def assert_right(memory: ChunkMemory, texts: list[str]) -> None:
    for (ids, ends), only, text in zip(memory.encode_with_ends(texts), memory.encode(texts), texts, strict=True):
        assert ids.tolist() == only.tolist() == tokens(text)[0].tolist()
        assert ends.tolist() == tokens(text)[1].tolist()


@pytest.fixture(autouse=True, scope="module")
def bulk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_memory, "_FEW_CHARACTERS", 1)
        patch.setattr(chunk_memory, "_SHARE_CHARACTERS", 8)
        yield


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from([1, 2, 5]), st.sampled_from([0.5, 1.0]), st.sampled_from([3, 200]))
@example(["", "a b", "", "", "é é a", ""], 5, 1.0, 200)
@example([], 2, 1.0, 200)
def test_texts_are_what_their_chunks_are_in_any_number_of_threads(texts, threads, most_new, longest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_memory, "usable_processors", lambda: threads)
        patch.setattr(chunk_memory, "_MOST_NEW", most_new)
        patch.setattr(chunk_memory, "LONGEST_CHUNK", longest)
        assert_right(Recorded().memory, texts)


def test_each_different_chunk_is_encoded_once(monkeypatch):
    monkeypatch.setattr(chunk_memory, "_MOST_NEW", 1)
    recorded = Recorded()
    assert_right(recorded.memory, ["one two one", " two", "one two"])
    assert_right(recorded.memory, ["one two one three", " two three"])
    assert sorted(recorded.learnt) == [" one", " three", " two", "one"]
    assert recorded.texts == []


def test_what_most_likely_never_comes_again_is_not_remembered():
    recorded = Recorded()
    assert_right(recorded.memory, ["one two three", "four five one"])
    assert recorded.learnt == [] and recorded.texts == 2 * ["one two three", "four five one"]
    recorded.memory.learn("one two three")
    assert recorded.learnt == ["one", " two", " three"]
    assert_right(recorded.memory, ["one two three two four"])
    assert recorded.learnt[3:] == [" four"]


def test_a_text_with_a_chunk_that_is_too_long_is_encoded_whole(monkeypatch):
    monkeypatch.setattr(chunk_memory, "_MOST_NEW", 1)
    long = "x " + 201 * "a"
    recorded = Recorded()
    assert_right(recorded.memory, ["one two", long, " two"])
    assert recorded.texts == [long, long]
    assert sorted(recorded.learnt) == [" two", "one"]


def test_few_characters_are_encoded_at_once(monkeypatch):
    monkeypatch.setattr(chunk_memory, "_FEW_CHARACTERS", 8)
    recorded = Recorded()
    assert_right(recorded.memory, ["one two"])
    assert recorded.texts == ["one two", "one two"] and recorded.learnt == []
