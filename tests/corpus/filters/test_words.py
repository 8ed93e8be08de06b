"""Words of a list count as whole words, in any case, alone and as phrases."""

import unicodedata

import pytest

from tilth.corpus.filters.words import words
from tilth.errors import UsageError


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeffBad\n\nvery bad thing\nÜbel\n", encoding="utf-8")
    return str(path)


def test_whole_words_in_any_case(run, listed):
    texts = ["a bad day", "BAD", "badly, badge", "ein übel", "Very, bad - thing!", "a very good thing", ""]
    expected = ["listed_words", "listed_words", None, "listed_words", "listed_words", None, None]
    assert run(words(listed), *texts).dropped == expected


def test_a_list_in_another_form_of_unicode(run, tmp_path):
    (tmp_path / "list.txt").write_text(unicodedata.normalize("NFD", "übel\n"))
    assert run(words(str(tmp_path / "list.txt")), "ein übel").dropped == ["listed_words"]


def test_the_share_at_both_sides(run, listed):
    text = "very bad thing and seven more words that are not listed here by us at all then 20"
    assert len(text.split()) == 18
    assert run(words(listed, max_share=3 / 18), text).dropped == [None]
    assert run(words(listed, max_share=3 / 18 - 1e-6), text).dropped == ["listed_words"]


def test_phrases_do_not_cross_documents(run, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("very bad")
    assert run(words(str(path)), "very", "bad").dropped == [None, None]


def test_odd_texts(run, listed, odd_text):
    assert run(words(listed), odd_text).dropped == [None]


def test_a_list_that_cannot_be_used(tmp_path):
    with pytest.raises(UsageError, match="cannot read the list"):
        words(str(tmp_path / "absent"))
    (tmp_path / "empty").write_text("\n ,\n")
    with pytest.raises(UsageError, match="holds no word"):
        words(str(tmp_path / "empty"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read the list"):
        words(str(tmp_path / "binary"))
    with pytest.raises(UsageError, match="max_share is -1"):
        words(str(tmp_path / "empty"), max_share=-1)
