"""Figures of small corpora that can be counted by hand."""

import json

import numpy as np
import pytest

from tilth.corpus.languages import languages_of, shares
from tilth.corpus.portrait import heaps, portrait
from tilth.corpus.readability import reading_ease, syllables
from tilth.corpus.sample import Sampled
from tilth.corpus.unigrams import count_words

SENTENCE = "The old miller of our village had been to the market, and he heard that the bridge was closed."


def test_a_portrait(tmp_path, build):
    pytest.importorskip("fasttext", reason="needs the extra language")
    mail = {"id": "mail", "text": "Write to jane.miller@mailbox.org " * 3 + SENTENCE, "url": "https://a.example/1"}
    texts = [{"id": f"d{n}", "text": f"{n} " + SENTENCE * (n + 1), "url": "https://b.example"} for n in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [mail, *texts])))
    (tmp_path / "b.txt").write_text("Der Ausschuss trat am ersten Tag des Monats zusammen und hörte alles. " * 6)
    found = portrait(build(tmp_path / "a.jsonl", tmp_path / "b.txt", filters={"personal": {"kinds": ["email"]}}))
    assert (found["sampled"], found["of"]) == (11, 11)
    assert found["languages"] == {"en": pytest.approx(10 / 11), "de": pytest.approx(1 / 11)}
    assert found["hosts"] == [["b.example", 9], ["a.example", 1]]
    assert (found["hosts_in_all"], found["with_host"]) == (2, 10)
    assert found["personal"] == {"email": 3}
    assert found["lengths"] == [[30, 100, 1], [100, 300, 3], [300, 1000, 7]]
    assert found["readability"]["documents"] == 4
    assert found["words"][0][0] == "the" and found["words"][0][1] == 46 * 3
    assert "der" in found["characteristic_words"]["b.txt"]
    assert {row["id"] for row in found["examples"]} <= {"mail", "b.txt", *(f"d{n}" for n in range(9))}


def test_the_growth_of_a_vocabulary_follows_its_law():
    """Documents in which word n is new when sqrt(n) says so: the exponent is a half."""
    tokens = np.floor(np.sqrt(np.arange(40_000))).astype(int)
    texts = [" ".join(f"w{word}" for word in tokens[start : start + 100]) for start in range(0, 40_000, 100)]
    found = heaps(count_words(texts))
    assert (found["tokens"], found["types"], found["points"][-1]) == (40_000, 200, [40_000, 200])
    assert found["exponent"] == pytest.approx(0.5, abs=0.01) and found["factor"] == pytest.approx(1, abs=0.1)


def test_the_growth_of_little_text():
    assert heaps(count_words(["a b a"])) == {
        "tokens": 3, "types": 2, "points": [[3, 2]], "exponent": None, "factor": None,
    }  # fmt: skip
    assert heaps(count_words(["", ""]))["points"] == []


@pytest.mark.parametrize(
    ("word", "count"),
    [("take", 1), ("table", 2), ("whole", 1), ("walked", 1), ("wanted", 2), ("takes", 1), ("boxes", 2), ("the", 1),
     ("readability", 5), ("tables", 2), ("horses", 2), ("be", 1), ("market", 2), ("hmm", 1)],
)  # fmt: skip
def test_syllables(word, count):
    assert syllables(word) == count


def test_reading_ease():
    # 20 sentences of 6 words, all of one syllable: 206.835 - 1.015 * 6 - 84.6.
    assert reading_ease("The cat sat on the mat. " * 20) == pytest.approx(116.145)
    assert reading_ease("The cat sat on the mat. ") is None
    assert reading_ease("Comprehensibility characterises organisational documentation. " * 30) < 0


def test_languages_that_documents_say():
    said = [Sampled("a", "text", 4, "s", {"language": name}) for name in ("en-US", "DE", "pt_BR", "fil")]
    assert languages_of(said) == ["en", "de", "pt", "fil"]
    assert shares(["en", "de", "en", "fr"]) == {"en": 0.5, "de": 0.25, "fr": 0.25}


def test_languages_without_the_extra(monkeypatch):
    from tilth.corpus import languages
    from tilth.errors import TilthError

    def absent(text):
        raise TilthError("fasttext is not installed")

    monkeypatch.setattr(languages, "identify", absent)
    assert languages_of([Sampled("a", "text", 4, "s", {})]) is None
