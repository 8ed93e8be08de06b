"""Real data beside the checkout."""

from collections import Counter
from pathlib import Path

import pytest

from tilth.corpus.reading import Reading
from tilth.corpus.records import Dropped, Record, Rejected
from tilth.corpus.sources import find_sources, read_files

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


CRAWL = {"empty": 1, "http_status": 47, "not_text": 84}


@pytest.mark.parametrize(
    ("names", "kept", "dropped"),
    [
        (["samples/aut_example.arc.gz"], 129, {**CRAWL, "not_a_response": 39}),
        (["samples/aut_example.warc.gz"], 129, {**CRAWL, "not_a_response": 561}),
        (["samples/aut_issue-493.warc"], 4, {"http_status": 1, "not_a_response": 22, "not_text": 5}),
        (["samples/aut_issue-514.warc"], 1, {"http_status": 1, "not_a_response": 6}),
        (["samples/daft_example.warc"], 1, {"not_a_response": 19, "not_text": 10}),
        (["samples/daft_example.warc.gz"], 1, {"not_a_response": 19, "not_text": 10}),
        (["samples/sample-0000.warc.gz"], 22, {"not_a_response": 26}),
        (["samples/whirlwind.warc.gz"], 1, {"not_a_response": 3}),
        (["samples/whirlwind.warc.wat.gz"], 0, {"metadata_only": 1, "not_a_response": 1}),
        (["samples/whirlwind.warc.wet.gz"], 1, {"not_a_response": 1}),
        ([f"pages/cc-0000{number}.warc.gz" for number in range(3)], 456, {"not_a_response": 915}),
    ],
)
def test_real_crawls(names, kept, dropped):
    pytest.importorskip("fastwarc", reason="needs the extra web")
    items = [item for name in names for item in read_all(SHARED / "web" / name)]
    assert [item for item in items if isinstance(item, Rejected)] == []
    assert Counter(item.reason for item in items if isinstance(item, Dropped)) == dropped
    assert sum(isinstance(item, Record) for item in items) == kept


def read_all(path):
    return read_files(find_sources([str(path)], Path("nowhere"))[0].files, False, Reading())


def test_a_bad_member_of_a_real_crawl_costs_one_record(tmp_path):
    pytest.importorskip("fastwarc", reason="needs the extra web")
    data = bytearray((SHARED / "web" / "samples" / "sample-0000.warc.gz").read_bytes())
    items = read_all(SHARED / "web" / "samples" / "sample-0000.warc.gz")
    whole = {item.id: item.text for item in items if isinstance(item, Record)}
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(8)
    (tmp_path / "a.warc.gz").write_bytes(data)
    items = list(read_all(tmp_path / "a.warc.gz"))
    kept = {item.id: item.text for item in items if isinstance(item, Record)}
    assert [item.reason for item in items if isinstance(item, Rejected)] == ["corrupt"]
    assert (len(items), len(kept)) == (48, 21)
    assert kept.items() < whole.items()


def test_web_pages(build):
    pytest.importorskip("resiliparse", reason="needs the extra html")
    card = build(SHARED / "web" / "ground_truth" / "html").card
    assert (card["in"], card["kept"]) == (181, 181)
    assert card["sources"][0]["words"] > 100_000
