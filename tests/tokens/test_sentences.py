import numpy as np
import pytest

from tilth.tokens.sentences import sentence_starts


def cut(text: str) -> list[str]:
    """The sentences of a text that is tokenized by characters."""
    starts = sentence_starts(text, np.arange(1, len(text) + 1))
    return [text[begin:end] for begin, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def test_sentences_end_at_marks_before_a_space_and_no_small_letter():
    assert cut('It froze! "Why?" 7 geese.') == ["It froze! ", '"Why?" ', "7 geese."]
    assert cut("Use e.g. this, or 3.5 of it... maybe") == ["Use e.g. this, or 3.5 of it... maybe"]


def test_empty_lines_end_a_sentence():
    assert cut("A heading\n \nthe text\non two lines") == ["A heading\n \n", "the text\non two lines"]


@pytest.mark.parametrize("text", ["A document.", "in small letters.", "日本の朝。"])
def test_blank_lines_that_lead_to_nothing_start_no_sentence(text):
    """So many that a time which grows with their square would be hours."""
    assert cut(text + "\n \n" * 200_000) == [text + "\n \n" * 200_000]
    assert cut("One." + "\n \n" * 200_000 + "Two.") == ["One." + "\n \n" * 200_000, "Two."]


def test_ideographic_marks_need_no_space():
    assert cut("日本の朝。静かな海。") == ["日本の朝。", "静かな海。"]


def test_the_token_that_reaches_past_the_boundary_starts_the_sentence():
    text, ends = "It froze. Then it thawed. ", [2, 8, 9, 14, 17, 24, 25, 26]
    assert sentence_starts(text, np.array(ends)).tolist() == [0, 3]


def test_a_text_without_tokens_has_no_sentences():
    assert sentence_starts("", np.zeros(0, dtype=np.int64)).tolist() == []


def test_a_text_in_small_letters_alone_has_sentences_too():
    assert cut('it was late. "was it?" no.\n\nok.') == ["it was late. ", '"was it?" ', "no.\n\n", "ok."]
    assert cut("see e.g. this. And that") == ["see e.g. this. ", "And that"]
