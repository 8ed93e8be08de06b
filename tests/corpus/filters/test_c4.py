"""C4's rules: what is taken out of a text, and what drops it."""

import pytest

from tilth.corpus.filters.c4 import REASONS, c4
from tilth.errors import UsageError

THREE = "One is here. Is two? Three!"


def test_few_sentences_at_both_sides(run):
    texts = [THREE, 'He said "no." (So be it.) "Why?"', "One. Two 3.14 and v2.0 of e.g", ""]
    assert run(c4(), *texts).dropped == [None, None, "c4_few_sentences", "c4_few_sentences"]
    assert run(c4(min_sentences=None), *texts).dropped == [None] * 4
    assert run(c4(min_sentences=4), THREE, f"{THREE} Four.").dropped == ["c4_few_sentences", None]


def test_pages_with_code_or_placeholders_are_dropped(run):
    texts = [
        f"{THREE} {{",
        f"{THREE} }}",
        f"{THREE} Lorem ipsum dolor.",
        f"{THREE} LOREM IPSUM",
        f"{THREE} Loremipsum.",
    ]
    bracket, lorem = "c4_curly_bracket", "c4_lorem_ipsum"
    assert run(c4(), *texts).dropped == [bracket, bracket, lorem, lorem, None]
    assert run(c4(curly_bracket=False, lorem_ipsum=False), *texts).dropped == [None] * 5


def test_a_book_may_have_a_bracket(run):
    book = (THREE + " ") * (20_000 // len(THREE))
    assert len(book) // 10_000 == 2
    assert run(c4(), book + "{}", book + "{}}").dropped == [None, "c4_curly_bracket"]


@pytest.mark.parametrize(
    "line",
    [
        "Please enable JavaScript to go on.",
        "See our Privacy Policy.",
        "Terms of use apply",
        "cookie policy",
        "This site uses cookies.",
        "We use cookies",
        "by the use of cookies",
    ],
)
def test_unwanted_lines_are_taken_out(run, line):
    result = run(c4(), f"One. Two.\n{line}\n\nThree.")
    assert (result.texts, result.metadata) == (["One. Two.\n\nThree."], [{"removed_c4": len(line) + 1}])
    assert run(c4(unwanted_lines=False), f"One. Two.\n{line}\n\nThree.").metadata == [{}]


def test_lines_that_only_resemble_unwanted_ones_stay(run):
    text = "She bakes cookies. He drinks Java. A script in private. The policy is new."
    assert run(c4(), text).texts == [text]


def test_citation_markers_are_taken_out(run):
    result = run(c4(), f"A claim[1] and one more.[23][citation needed] See [Fig. 1] and a[i] = [x]. {THREE}")
    assert result.texts == [f"A claim and one more. See [Fig. 1] and a[i] = [x]. {THREE}"]
    assert result.metadata == [{"removed_c4": len("[1][23][citation needed]")}]
    assert run(c4(citations=False), "A[1]. B. C.").texts == ["A[1]. B. C."]


def test_lines_that_are_sentences(run):
    kept = 'This line has five words.\n\nIs this a question, then? \n"It is so," he said."'
    text = kept.replace("\n\n", "\nOnly four words here.\n\nA heading of some five words\n")
    result = run(c4(sentence_lines=True), text)
    assert result.texts == [kept]
    assert run(c4(), text).texts == [text]
    assert run(c4(sentence_lines=True, min_line_words=6), text).dropped == ["c4_few_sentences"]


def test_odd_texts(run, odd_text):
    result = run(c4(sentence_lines=True), odd_text)
    assert set(result.dropped) <= {None, *REASONS}
    assert len(odd_text) - len(result.texts[0]) == result.metadata[0].get("removed_c4", 0)


def test_wrong_settings():
    with pytest.raises(UsageError, match="min_sentences is -1"):
        c4(min_sentences=-1)


def test_articles_and_novels_are_kept(run, novels, articles):
    result = run(c4(), *novels)
    assert result.dropped == [None] * 73
    assert sum(facts.get("removed_c4", 0) for facts in result.metadata) < 1000
    assert run(c4(), *articles).dropped.count(None) == 176  # the others are captions, or in Chinese


def test_time_is_linear_in_hostile_texts(run, seconds):
    for piece in ("[", "[1", '.")', ". ", "l", "lorem ", "javascript ", "use cookie"):
        assert seconds(run, c4(sentence_lines=True), piece * (2_000_000 // len(piece))) < 2, piece
