"""Languages are told from real sentences; wanted ones stay, others go, mixed documents are taken apart."""

import socket

import pytest

from tilth.errors import UsageError

pytest.importorskip("fasttext", reason="needs the extra language")

from tilth.corpus.filters import language as module
from tilth.corpus.filters.excerpt import excerpt
from tilth.corpus.filters.language import identify, language

SENTENCES = {
    "en": "The farmer went to the field early in the morning, because the rain had stopped during the night.",
    "de": "Der Bauer ging früh am Morgen auf das Feld, weil der Regen in der Nacht aufgehört hatte.",
    "fr": "Le paysan est allé aux champs tôt le matin, parce que la pluie s'était arrêtée pendant la nuit.",
    "es": "El agricultor fue al campo temprano por la mañana, porque la lluvia había cesado durante la noche.",
    "ru": "Крестьянин пошёл в поле рано утром, потому что ночью дождь прекратился.",
    "ar": "ذهب الفلاح إلى الحقل في الصباح الباكر لأن المطر توقف خلال الليل.",
    "zh": "因为夜里雨停了，农民一大早就去了田里。",
    "ja": "夜のうちに雨が止んだので、農夫は朝早く畑に行きました。",
    "hi": "किसान सुबह जल्दी खेत में गया क्योंकि रात में बारिश रुक गई थी।",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_languages_are_told(run, code):
    result = run(language(keep=[code]), SENTENCES[code])
    assert result.metadata[0]["language"] == code
    assert 0.5 < result.metadata[0]["language_confidence"] <= 1
    assert result.dropped == [None]


def test_unwanted_and_unsure_documents_are_told_apart(run):
    result = run(language(keep=["en", "de"]), SENTENCES["en"], SENTENCES["fr"], "xq zzt 8 brrr qqqq", "12 34", "")
    assert result.dropped == [None, "language", "language_unsure", "language_unsure", "language_unsure"]
    assert result.metadata[3] == {"language": "und", "language_confidence": 0.0}
    sure = result.metadata[0]["language_confidence"]
    assert run(language(keep=["en"], confidence=sure - 0.001), SENTENCES["en"]).dropped == [None]
    assert run(language(keep=["en"], confidence=min(1, sure + 0.001)), SENTENCES["en"]).dropped == ["language_unsure"]


def test_without_a_list_nothing_is_dropped(run):
    assert run(language(), SENTENCES["en"], "", "8").dropped == [None] * 3


def test_mixed_documents_keep_the_wanted_paragraphs(run):
    text = f"Title\n\n{SENTENCES['en']}\n\nShort.\n\n{SENTENCES['de']}\n\nKurz.\n \n{SENTENCES['en']}"
    result = run(language(keep=["en"], by_paragraph=True), text, SENTENCES["de"], SENTENCES["en"])
    kept = f"Title\n\n{SENTENCES['en']}\n\nShort.\n \n{SENTENCES['en']}"
    assert result.texts == [kept, "", SENTENCES["en"]]
    assert result.metadata[0].pop("language_confidence") > 0.9
    assert result.metadata[0] == {"language": "en", "removed_language": len(text) - len(kept)}
    assert result.metadata[1]["removed_language"] == len(SENTENCES["de"])
    assert result.dropped == [None, "language", None]


def test_documents_without_blank_lines_are_taken_apart_by_lines(run):
    text = "\n".join([SENTENCES["de"], "Kurz.", SENTENCES["en"], "Short.", SENTENCES["fr"]])
    assert run(language(keep=["en"], by_paragraph=True), text).texts == [f"{SENTENCES['en']}\nShort."]


def test_the_excerpt_is_from_three_places():
    text = " ".join(f"{number:05}" for number in range(10_000))
    piece = excerpt(text, 1500)
    assert 1450 < len(piece) <= 1502
    numbers = [int(number) for number in piece.split() if len(number) == 5]
    assert [min(n for n in numbers if n // 3334 == third) for third in range(3)] == [1625, 4959, 8292]
    assert excerpt("short", 1500) == "short"
    assert len(excerpt("x" * 5_000_000, 1500)) == 1502


def test_odd_texts(run, odd_text):
    for by_paragraph in (False, True):
        result = run(language(keep=["en"], by_paragraph=by_paragraph), odd_text)
        assert result.dropped[0] in (None, "language", "language_unsure")


def test_wrong_settings():
    with pytest.raises(UsageError, match="'eng' is no language of the model; do you mean 'en'"):
        language(keep=["eng"])
    with pytest.raises(UsageError, match=r"keep is a list of languages, such as \[en\]"):
        language(keep="en")
    with pytest.raises(UsageError, match="keep is empty"):
        language(keep=[])
    with pytest.raises(UsageError, match="by_paragraph needs keep"):
        language(by_paragraph=True)
    with pytest.raises(UsageError, match="confidence is 2"):
        language(confidence=2)


def test_loading_needs_no_network(monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    module._model.cache_clear()
    assert identify(SENTENCES["en"])[0] == "en"


def test_novels_are_english(run, novels):
    result = run(language(keep=["en"]), *novels)
    assert result.dropped == [None] * 73


def test_time_is_linear(run, seconds):
    stage = language(keep=["en"], by_paragraph=True)
    for text in ("\n \n" * 300_000, "\n\t" * 500_000, "a" * 5_000_000, "\n\n".join(["word " * 20] * 5_000)):
        assert seconds(run, stage, text) < 4
