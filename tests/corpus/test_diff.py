"""What differs between corpora of which it is known."""

import json

import pytest

import tilth
from tilth.corpus.build import build_corpus
from tilth.corpus.diff import diff_corpora
from tilth.corpus.settings import CorpusSettings

TEXTS = {f"d{number}": f"document {number} " + f"word{number} " * 20 for number in range(30)}


@pytest.fixture
def corpus_of(tmp_path):
    """corpus_of(name, texts, **settings) builds a corpus of texts by id."""

    def make(name, texts, **settings):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"id": key, "text": text}) for key, text in texts.items()))
        return build_corpus([str(path)], tmp_path / name, CorpusSettings(**settings), progress=False)

    return make


def test_equal_corpora(corpus_of):
    one = corpus_of("one", TEXTS)
    found = diff_corpora(one, one)
    assert found["equal"]
    assert found["documents"] == {"both": 30, "only_first": 0, "only_second": 0, "changed": 0}
    assert found["divergence"]["value"] == 0 and found["characteristic_words"] == [[], []]
    assert found["counts"] == found["settings"] == found["stages"] == {}
    assert found["examples"] == {"only_first": [], "only_second": [], "changed": []}
    other = diff_corpora(one, corpus_of("two", TEXTS))
    assert other["equal"] and other["sources"] == {"only_first": ["one.jsonl"], "only_second": ["two.jsonl"]}


def test_documents_that_differ(corpus_of):
    second = {key: text for key, text in TEXTS.items() if key not in ("d1", "d2")}
    second |= {"d3": "another text under d3", "new": "only in the second", "d4": TEXTS["d4"].upper()}
    second["renamed"] = second.pop("d5")
    found = diff_corpora(corpus_of("one", TEXTS), corpus_of("two", second, validation=0.2))
    assert not found["equal"]
    assert found["documents"] == {"both": 27, "only_first": 2, "only_second": 1, "changed": 1}
    assert sorted(name for name, _ in found["examples"]["only_first"]) == ["d1", "d2"]
    assert found["examples"]["only_second"] == [["new", "only in the second"]]
    assert [name for name, _ in found["examples"]["changed"]] == ["d3"]
    assert found["examples"]["changed"][0][1].startswith("document 3 word3")
    assert found["settings"] == {"validation": [0.05, 0.2]}
    assert found["counts"] == {"in": [30, 29], "kept": [30, 29]}


def test_reasons_stages_and_words(corpus_of, tmp_path):
    more = {**TEXTS, "noise": "buy now " * 60, "again": TEXTS["d1"]}
    (tmp_path / "list.txt").write_text("buy\n")
    plain = corpus_of("plain", more)
    filtered = corpus_of("filtered", more, filters={"words": {"path": str(tmp_path / "list.txt")}})
    found = diff_corpora(plain, filtered)
    assert found["counts"] == {"kept": [31, 30], "dropped: listed_words": [0, 1]}
    assert list(found["stages"]) == ["words"] and found["stages"]["words"][0] is None
    assert found["documents"]["only_first"] == 1 and found["examples"]["only_first"][0][0] == "noise"
    assert found["sizes"]["train: documents"][0] + found["sizes"]["validation: documents"][0] == 31
    assert set(found["characteristic_words"][0]) == {"buy", "now"}


def test_disjoint_corpora_diverge_by_one_bit(corpus_of):
    foreign = {f"f{number}": f"x{number} y{number} " * 10 for number in range(20)}
    found = diff_corpora(corpus_of("one", TEXTS), corpus_of("two", foreign))
    assert found["divergence"]["value"] == 1
    assert found["documents"] == {"both": 0, "only_first": 30, "only_second": 20, "changed": 0}


def test_languages(corpus_of):
    pytest.importorskip("fasttext", reason="needs the extra language")
    english = {f"e{n}": f"The {n} of us had been to the market and heard that the bridge was closed." for n in range(9)}
    german = {"g": "Der Ausschuss trat am ersten Tag des Monats zusammen und hörte, was geschehen war."}
    found = tilth.corpus_diff(corpus_of("one", english).path, corpus_of("two", english | german).path)
    assert found["languages"] == [{"en": 1.0}, {"en": 0.9, "de": 0.1}]
