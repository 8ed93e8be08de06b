"""Gopher's, repetition and FineWeb's rules, each at both sides of its limit, and on real text."""

from collections import Counter

import pytest

from tilth.corpus.filters.gopher import STOP_WORDS
from tilth.corpus.filters.quality import REASONS, quality
from tilth.corpus.filters.repetition import ngram_shares
from tilth.corpus.filters.segments import Segments
from tilth.errors import UsageError

LONG_LINE = "x" * 30 + "\n"
STOPPED = " ".join(STOP_WORDS)


def reason_alone(run, rules, text, **limits):
    """The reason of one set of rules in which all limits but the given ones are off."""
    names = {
        "gopher": "min_words max_words min_word_length max_word_length max_hashes max_ellipses max_bullet_lines "
        "max_cut_lines min_with_letter min_stop_words",
        "fineweb": "min_lines_punctuated max_short_lines max_duplicate_line_characters",
        "repetition": "max_lines max_line_characters max_paragraphs max_paragraph_characters",
    }[rules].split()
    extra = {"max_top": 1000, "max_duplicated": 1000} if rules == "repetition" else {}
    return run(quality(**{rules: {**dict.fromkeys(names), **extra, **limits}}), text).dropped[0]


@pytest.mark.parametrize(
    ("limits", "kept", "left", "reason"),
    [
        ({"min_words": 50}, "word " * 50, "word " * 49, "gopher_few_words"),
        ({"max_words": 60}, "word " * 60, "word " * 61, "gopher_many_words"),
        ({"min_word_length": 3}, "abc " * 9, "abc " * 8 + "ab", "gopher_word_length"),
        ({"max_word_length": 10}, "a123456789 " * 9, "a123456789 " * 8 + "a1234567890", "gopher_word_length"),
        ({"max_hashes": 0.1}, "word " * 20 + "# #", "word " * 20 + "# # #", "gopher_hashes"),
        ({"max_ellipses": 0.1}, "word " * 20 + "... …", "word " * 20 + "... … ...", "gopher_ellipses"),
        ({"max_bullet_lines": 0.9}, "• a\n" * 9 + "b", "- a\n" * 19 + "b", "gopher_bullets"),
        ({"max_cut_lines": 0.3}, "a...\n" * 3 + "b.\n" * 7, "a …\n" * 4 + "b.\n" * 6, "gopher_cut_lines"),
        ({"min_with_letter": 0.8}, "a " * 6 + "1x é 2 _3", "a " * 7 + "1 2 3", "gopher_no_letters"),
        ({"min_stop_words": 2}, "The bread OF life", "the the other bread", "gopher_stop_words"),
    ],
)
def test_gopher_at_both_sides_of_each_limit(run, limits, kept, left, reason):
    assert reason_alone(run, "gopher", kept, **limits) is None
    assert reason_alone(run, "gopher", left, **limits) == reason


@pytest.mark.parametrize(
    ("limits", "kept", "left", "reason"),
    [
        ({"min_lines_punctuated": 0.12}, "a.\n" * 4 + "b\n" * 29, "a.\n" * 3 + "b\n" * 22, "fineweb_line_punctuation"),
        ({"max_short_lines": 0.67}, LONG_LINE * 34 + "a\n" * 66, "a\n" * 67 + LONG_LINE * 33, "fineweb_short_lines"),
        (
            {"max_duplicate_line_characters": 0.1},
            "aaaa\naaaa\n" + "b" * 33,
            "aaaa\naaaa\n" + "b" * 32,
            "fineweb_duplicate_lines",
        ),
    ],
)
def test_fineweb_at_both_sides_of_each_limit(run, limits, kept, left, reason):
    assert reason_alone(run, "fineweb", kept, **limits) is None
    assert reason_alone(run, "fineweb", left, **limits) == reason


@pytest.mark.parametrize(
    ("limits", "kept", "left", "reason"),
    [
        ({"max_lines": 0.3}, "a\n" * 4 + "b\nc\nd\ne\nf\ng", "a\n" * 5 + "b\nc\nd\ne\nf", "repeated_lines"),
        ({"max_line_characters": 0.2}, "aa\naa\nbbbbbb", "aa\naa\nbbbbb", "repeated_line_characters"),
        (
            {"max_paragraphs": 0.3},
            "a\n\n" * 4 + "b\n\nc\n\nd\n\ne\n\nf\n\ng",
            "a\n\n" * 5 + "b\n\nc\n\nd\n\ne\n\nf",
            "repeated_paragraphs",
        ),
        (
            {"max_paragraph_characters": 0.2},
            "a\nb\n\na\nb\n\n" + "c" * 9,
            "a\nb\n\na\nb\n\n" + "c" * 8,
            "repeated_paragraph_characters",
        ),
    ],
)
def test_repeated_lines_and_paragraphs_at_both_sides_of_each_limit(run, limits, kept, left, reason):
    assert reason_alone(run, "repetition", kept, **limits) is None
    assert reason_alone(run, "repetition", left, **limits) == reason


def different(count):
    return " ".join(f"w{number:03}" for number in range(count))


def test_the_most_frequent_ngrams_by_hand():
    segments = Segments([f"red hat red hat red hat {different(5)}", "a b c", ""])
    top, _ = ngram_shares(segments)
    assert top[2].tolist() == [18 / 38, 0, 0]  # red hat, three times
    assert top[3].tolist() == [18 / 38, 0, 0]  # red hat red, twice, is 18 characters too
    assert top[4].tolist() == [24 / 38, 0, 0]  # red hat red hat, twice: overlapping ones count each


def test_repeated_ngrams_count_all_but_the_first_and_each_character_once():
    five = "aa bb cc dd ee"
    segments = Segments([f"{five} x1 {five} x2 {five} ff {different(3)}", f"{five} {five}", five])
    _, repeated = ngram_shares(segments)
    assert repeated[5].tolist() == [20 / 48, 10 / 20, 0]
    assert repeated[6].tolist() == [0, 0, 0]
    twice = different(8)
    _, repeated = ngram_shares(Segments([f"{twice} {twice}"]))
    assert [repeated[length].tolist() for length in (5, 8, 9)] == [[0.5], [0.5], [0]]


@pytest.mark.parametrize("length", [2, 3, 4])
def test_top_ngrams_at_both_sides_of_their_limit(run, length):
    ngram = " ".join(f"r{number:03}" for number in range(length))
    words = round(2 * length / {2: 0.20, 3: 0.18, 4: 0.16}[length] - 0.5)
    shared = f"{ngram} {{}} {ngram}"
    kept = run(quality(repetition={}), shared.format(different(words + 1 - 2 * length)))
    left = run(quality(repetition={}), shared.format(different(words - 1 - 2 * length)))
    assert kept.dropped == [None]
    assert left.dropped == [f"top_{length}gram"]
    assert run(quality(repetition={"max_top": 2}), left.texts[0]).dropped == [None]


@pytest.mark.parametrize("length", [5, 6, 7, 8, 9, 10])
def test_repeated_ngrams_at_both_sides_of_their_limit(run, length):
    limit = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}[length]
    ngram = " ".join(f"r{number:03}" for number in range(length))
    total = int(length / limit)  # the repeated words are this share of so many
    kept = f"{ngram} {different(total + 1 - 2 * length)} {ngram}"
    left = f"{ngram} {different(total - 1 - 2 * length)} {ngram}"
    rules = quality(repetition={"max_top": 1000})
    assert run(rules, kept).dropped == [None]
    assert run(rules, left).dropped == [f"repeated_{length}grams"]
    assert run(quality(repetition={"max_top": 1000, "max_duplicated": 1.2}), left).dropped == [None]


def test_the_first_reason_counts_and_sets_that_are_not_named_are_left_out(run):
    menu = "• home\n" * 30
    assert run(quality(), menu).dropped == ["gopher_few_words"]
    assert run(quality(gopher={"min_words": None}, fineweb={}), menu).dropped == ["gopher_bullets"]
    assert run(quality(fineweb={}), menu).dropped == ["fineweb_line_punctuation"]
    assert run(quality(repetition={}, fineweb={}), menu).dropped == ["repeated_lines"]
    repeated = quality(fineweb={"min_lines_punctuated": None, "short_line": 3})
    assert run(repeated, menu).dropped == ["fineweb_duplicate_lines"]


def test_a_document_is_judged_alone(run):
    prose = f"{STOPPED}. " + " ".join(f"some{number:02}" for number in range(60)) + "."
    texts = [prose, "x", prose, "• a\n" * 50, "", prose * 40]
    together = run(quality(), *texts).dropped
    assert together == [run(quality(), text).dropped[0] for text in texts]
    assert together[:3] == [None, "gopher_few_words", None]


def test_every_reason_is_described(run, odd_text):
    reasons = set(run(quality(), odd_text, odd_text[::-1]).dropped) - {None}
    assert reasons <= set(REASONS)


def test_wrong_settings():
    with pytest.raises(UsageError, match="min_word "):
        quality(gopher={"min_word ": 3})
    with pytest.raises(UsageError, match="max_hashes is -1"):
        quality(gopher={"max_hashes": -1})
    with pytest.raises(UsageError, match="'two words' is not one word"):
        quality(gopher={"stop_words": ["two words"]})


def test_stop_words_of_another_language(run):
    german = {"gopher": {"min_words": 1, "stop_words": ["der", "und", "über"]}}
    assert run(quality(**german), "Der Hund und die Katze", "Das ist ein Haus").dropped == [None, "gopher_stop_words"]


def test_novels_are_kept(run, novels):
    assert Counter(run(quality(), *novels).dropped) == {None: 72, "repeated_paragraphs": 1}


def test_abstracts_that_are_dropped_are_french_or_short(run, abstracts):
    dropped = Counter(run(quality(), *abstracts).dropped)
    assert dropped.pop(None) > 0.94 * len(abstracts)
    assert dropped.pop("gopher_stop_words") + dropped.pop("gopher_few_words") == 740  # 501 French ones, 239 short
    assert sum(dropped.values()) < 0.02 * len(abstracts)


def test_articles_that_are_dropped_are_few(run, articles):
    dropped = Counter(run(quality(), *articles).dropped)
    assert dropped[None] > 0.82 * len(articles)
    assert dropped["gopher_stop_words"] == 13  # in other languages


def test_time_is_linear_in_hostile_texts(run, seconds):
    stage = quality()
    for piece in ("a ", "a\n", "ab", " ", "...", "# ", "x y x y\n\n"):
        assert seconds(run, stage, piece * (1_000_000 // len(piece))) < 3, piece
    assert seconds(run, stage, "a b " * 1_300_000) < 3
