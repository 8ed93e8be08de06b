"""Real data beside the checkout."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data in ../shared/data")


def test_acl_abstracts(build):
    card = build(SHARED / "text" / "acl_abstracts", text_column="abstract").card
    assert (card["in"], card["kept"], card["dropped"]) == (18594, 18585, {"duplicate": 9})


def test_novels_straight_from_the_archive(build, documents, tmp_path):
    corpus = build(SHARED / "text" / "english_novels" / "corpus.tar.zst")
    assert corpus.card["rejected"] == {}
    found = documents(corpus)
    novels = [document for document in found.values() if document.source.endswith(".txt")]
    assert len(novels) == 73
    assert not any("\r" in document.text or document.text.startswith("\ufeff") for document in novels)
    share = corpus.card["splits"]["validation"]["bytes"] / corpus.card["sources"][0]["bytes"]
    assert 0.025 < share < 0.0525


def test_web_pages(build):
    pytest.importorskip("resiliparse", reason="needs the extra html")
    card = build(SHARED / "web" / "ground_truth" / "html").card
    assert (card["in"], card["kept"]) == (181, 181)
    assert card["sources"][0]["words"] > 100_000
