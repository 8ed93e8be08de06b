"""The page of a corpus says what the card and a sample of the documents say, and loads nothing."""

import json
import re
import subprocess
import sys

import pytest

import tilth
from tilth.errors import TilthError, UsageError

SENTENCE = "The old miller of our village had been to the market, and he heard that the bridge was closed. "


@pytest.fixture
def corpus(tmp_path):
    rows = [
        {"id": f"page <{n}>", "text": f"<b>{n}</b> {SENTENCE * (n + 6)}", "url": f"https://h{n % 3}.example/{n}"}
        for n in range(30)
    ]
    rows += [rows[3] | {"id": "copy"}, {"id": "spam", "text": "buy <script>now</script> " * 30}]
    (tmp_path / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "list.txt").write_text("buy\n")
    given = [f"filters.words.path={tmp_path / 'list.txt'}"]
    tilth.corpus_build([str(tmp_path / "pages.jsonl")], tmp_path / "corpus", overrides=given, progress=False)
    return tmp_path / "corpus"


def test_a_build_leaves_the_page(corpus):
    page = (corpus / "card.html").read_text(encoding="utf-8")
    for said in ("30 documents of pages.jsonl, kept of 32 records read; 2 were left out", "h1.example", "Heaps",
                 "dropped: listed words", "more words of the given list than allowed", "206.835", "miller",
                 "Told from all 31 documents", "fingerprint"):  # fmt: skip
        assert said.lower() in page.lower(), said
    assert "buy &lt;script&gt;now" in page and "&lt;b&gt;" in page and "page &lt;" in page
    assert "<script" not in page and "<b>" not in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page) and "@import" not in page


def test_a_build_with_its_page_needs_no_torch(corpus, tmp_path):
    code = (
        "import sys, tilth\n"
        "tilth.corpus_build([sys.argv[1]], sys.argv[2], progress=False)\n"
        "print((tilth.__file__, sorted({'torch', 'transformers'} & set(sys.modules))))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pages.jsonl"), str(tmp_path / "other")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == str((tilth.__file__, [])), done.stderr
    assert (tmp_path / "other" / "card.html").is_file()


def test_equal_corpora_give_equal_pages(corpus, tmp_path):
    first = (corpus / "card.html").read_bytes()
    tilth.corpus_card(corpus, html=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == first


def test_a_page_without_languages_and_readability(corpus, tmp_path, monkeypatch):
    from tilth.corpus import portrait

    monkeypatch.setattr(portrait, "languages_of", lambda documents: None)
    tilth.corpus_card(corpus, html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "that needs the extra <code>tilth[language]</code>" in page and "206.835" not in page


def test_the_smallest_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("one two three")
    tilth.corpus_build([str(tmp_path / "a.txt")], tmp_path / "corpus", progress=False)
    page = (tmp_path / "corpus" / "card.html").read_text(encoding="utf-8")
    assert "1 documents of a.txt, kept of 1 records read; nothing was left out." in page


def test_a_page_that_cannot_be_written(corpus, tmp_path):
    with pytest.raises(UsageError, match="is a folder; name the file to write"):
        tilth.corpus_card(corpus, html=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TilthError, match="cannot write to"):
        tilth.corpus_card(corpus, html=tmp_path / "file" / "page.html")
