"""A sample is of documents from all over a corpus, the same every time."""

import json

import pytest

from tilth.corpus import sample
from tilth.corpus.sample import origin, sample_corpus
from tilth.errors import TilthError
from tilth.key import Key, draw


@pytest.fixture
def corpus(tmp_path, build):
    (tmp_path / "long.txt").write_text("begin " + "middle " * 20_000 + "end")
    rows = [
        {"id": f"page-{number}", "text": f"page {number} of the site", "url": f"https://www.example.org/{number}"}
        for number in range(40)
    ]
    (tmp_path / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return build(tmp_path / "pages.jsonl", tmp_path / "long.txt")


def test_all_of_a_small_corpus(corpus):
    documents = {document.id: document for document in sample_corpus(corpus)}
    page = documents["page-7"]
    assert (page.text, page.source, page.host, page.characters) == (
        "page 7 of the site", "pages.jsonl", "example.org", 18,
    )  # fmt: skip
    long = next(document for document in documents.values() if document.source == "long.txt")
    assert 5_000 < len(long.text) < 6_100 and long.host is None
    assert len(documents) == sum(split["documents"] for split in corpus.card["splits"].values())


def test_some_of_a_large_one(corpus):
    some = [document.id for document in sample_corpus(corpus, 10)]
    assert len(set(some)) == 10
    assert some == [document.id for document in sample_corpus(corpus, 10)]
    assert some != [document.id for document in sample_corpus(corpus, 10, seed=1)]


def test_few_row_groups_are_read(corpus, monkeypatch):
    monkeypatch.setattr(sample, "ROW_GROUPS", 1)
    assert len(sample_corpus(corpus)) in (split["documents"] for split in corpus.card["splits"].values())


def test_each_is_as_likely():
    drawn = [place for seed in range(400) for place in draw(range(20), 5, Key(seed, 0, "test"))]
    counts = [drawn.count(place) for place in range(20)]
    assert sum(counts) == 2000 and min(counts) > 65 and max(counts) < 140
    assert draw(range(3), 5, Key(0, 0, "test")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("path", "names", "source"),
    [
        ("books/a/b.txt", ["pages", "books"], "books"),
        ("x.txt", ["*.txt", "books"], "*.txt"),
        ("anything", ["installed-docs"], "installed-docs"),
        ("installed-docs", ["books", "installed-docs"], "installed-docs"),
        ("elsewhere/a", ["books", "pages"], "elsewhere"),
    ],
)
def test_the_source_of_a_path(path, names, source):
    assert origin(path, names) == source


def test_a_damaged_corpus(corpus):
    part = corpus.path / corpus.card["files"][0]["path"]
    part.write_bytes(b"nothing" * 20)
    with pytest.raises(TilthError, match="the corpus is damaged"):
        sample_corpus(corpus)


@pytest.mark.parametrize("url", ["http://[broken", "mailto:nobody", 3, None])
def test_an_address_without_a_host(url):
    assert sample.Sampled("a", "text", 4, "b", {"url": url}).host is None
