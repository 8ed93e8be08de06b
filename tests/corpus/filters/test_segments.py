"""Words, lines and paragraphs as arrays agree with what slow and plain code finds."""

import re
import unicodedata

import numpy as np

from tilth.corpus.filters.hashes import HashSet
from tilth.corpus.filters.segments import MAX_CHARACTERS, OVERLAP, Segments, covered, gather, pieces, word_hashes


def said(segments, part):
    return ["".join(map(chr, segments.codes[a:b])) for a, b in zip(part.starts, part.ends, strict=True)]


def plain_words(text):
    flags = "".join("w" if unicodedata.category(c)[0] in "LMN" or c == "_" else " " for c in text)
    return [text[match.start() : match.end()] for match in re.finditer("w+", flags)]


def test_words_and_lines_of_odd_texts(odd_text):
    segments = Segments([odd_text, "two words"])
    words = plain_words(odd_text)
    assert said(segments, segments.words) == [*words, "two", "words"]
    assert segments.words.document.tolist() == [0] * len(words) + [1, 1]
    lines = [line.strip() for line in odd_text.split("\n") if line.strip()]
    assert said(segments, segments.lines) == [*lines, "two words"]


def test_words_are_runs_of_letters_marks_and_numbers():
    segments = Segments(["Don't stop: naïve café_2 x-ray 3.14 हिन्दी"])
    assert said(segments, segments.words) == ["Don", "t", "stop", "naïve", "café_2", "x", "ray", "3", "14", "हिन्दी"]


def test_paragraphs_are_divided_by_blank_lines_and_documents():
    segments = Segments(["a\nb\n \t\nc\n\n\nd", "e"])
    assert said(segments, segments.paragraphs) == ["a\nb", "c", "d", "e"]
    assert segments.paragraphs.document.tolist() == [0, 0, 0, 1]


def test_equal_words_have_equal_hashes_in_any_place_and_encoding():
    ascii_only = Segments(["one two one"]).words.hashes
    wide = Segments(["𝔘 two", "é one"]).words.hashes
    assert ascii_only[0] == ascii_only[2] == wide[3]
    assert ascii_only[1] == wide[1]
    assert len({*ascii_only.tolist(), *wide.tolist()}) == 4


def test_different_words_have_different_hashes():
    words = [f"w{number}" for number in range(50_000)]
    assert len(np.unique(word_hashes(" ".join(words)))) == 50_000


def test_ngrams_end_with_their_document():
    segments = Segments(["a b c", "b c", "c"])
    pairs, whole = segments.ngrams(2), segments.whole(2)
    assert whole.tolist() == [True, True, False, True, False, False]
    assert pairs[1] == pairs[3] != pairs[0]
    assert segments.whole(4).tolist() == [False] * 6


def test_repeated_lines_leave_out_those_without_words():
    segments = Segments(["x y\n* * *\nx y\n* * *\nzz", "x y"])
    counts, characters = segments.repeated(segments.lines)
    assert counts.tolist() == [1 / 3, 0]
    assert characters.tolist() == [3 / 8, 0]


def test_covered_words():
    assert covered(np.array([1, 2, 6]), 2, 8).tolist() == [False, True, True, True, False, False, True, True]


def test_groups_hold_every_document_once():
    texts = ["word " * size for size in (1, 30_000, 60_000, 0, 5)]
    groups = list(gather(texts))
    assert sum(group.count for group in groups) == 5
    assert len(groups) == 2
    assert list(gather([])) == []


def test_a_large_document_is_read_to_the_limit_and_in_pieces_to_its_end():
    text = "".join(f"{number:09} " for number in range(MAX_CHARACTERS // 5))
    assert len(Segments([text]).words.starts) == MAX_CHARACTERS // 10
    parts = list(pieces(text))
    assert [len(part) for part in parts] == [MAX_CHARACTERS, MAX_CHARACTERS, 2 * OVERLAP]
    assert parts[1].startswith(parts[0][-OVERLAP:]) and text.endswith(parts[-1])
    assert list(pieces("short")) == ["short"] and list(pieces("")) == [""]


def test_hash_set_finds_members_only():
    values = np.arange(0, 10_000_000, 1000, dtype=np.uint64) * np.uint64(2**32 + 1)
    positions, which = HashSet(values).find(np.array([5, values[7], values[7] + 1, 0], np.uint64))
    assert (positions.tolist(), which.tolist()) == ([1, 3], [7, 0])
    assert HashSet(np.zeros(0, np.uint64)).find(values)[0].tolist() == []
