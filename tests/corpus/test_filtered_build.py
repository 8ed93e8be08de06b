"""Filters inside a build: by a recipe or by settings, counted and shown on the card."""

import json
import random

import pytest

import tilth
from tilth.corpus.card import card_markdown, drop_reasons
from tilth.corpus.filters import FILTERS
from tilth.corpus.settings import load_corpus_settings
from tilth.errors import UsageError
from tilth.recipe import builtin_recipes

GERMAN = (
    "Der Ausschuss trat am ersten Tag des Monats zusammen und hörte, was mit dem Geld der Stadt geschehen war. "
    "Es hieß, die Brücke werde noch vor dem Winter fertig, und auch die Straße zur Mühle sei wieder in Ordnung. "
)
PEOPLE = [
    "teacher",
    "miller",
    "doctor",
    "captain",
    "sister",
    "lawyer",
    "farmer",
    "painter",
    "clerk",
    "widow",
    "baker",
    "judge",
    "soldier",
    "guest",
]
ACTS = [
    "heard",
    "found",
    "wanted",
    "carried",
    "forgot",
    "sold",
    "mended",
    "praised",
    "lost",
    "painted",
    "described",
    "counted",
    "opened",
]
THINGS = [
    "letters",
    "bridge",
    "money",
    "garden",
    "horse",
    "window",
    "story",
    "lamp",
    "cloth",
    "kettle",
    "table",
    "song",
    "stone",
    "boat",
]
PLACES = [
    "village",
    "harbour",
    "school",
    "market",
    "church",
    "kitchen",
    "forest",
    "station",
    "valley",
    "tower",
    "island",
    "court",
]
TIMES = [
    "winter",
    "evening",
    "summer",
    "morning",
    "holiday",
    "storm",
    "harvest",
    "wedding",
    "journey",
    "council",
    "dinner",
    "war",
]
SENTENCES = (
    "Before the {time} a {person} {act} some {thing} that had been left in the old {place}.",
    "It was the {person} of our {place} who {act} that {thing}, and nobody spoke until the {time}.",
    "They have to be told how my {person} {act} every {thing} with care after such a long {time}.",
    "Of all that this {person} {act}, only one {thing} came to the {place} whole.",
    "Nobody in that {place} knew why her {person} {act} another {thing} at such a {time}.",
    "With little to be gained, each {person} {act} his {thing} and walked home through the {place}.",
    "Perhaps your {person} {act} those of the {time}, but I have seen no {thing} since.",
    "The {place} and its {person} were both silent, for someone had {act} the {thing} by {time}.",
)


def prose(number: int) -> str:
    """Sound English of eight sentences."""
    rng = random.Random(number)
    words = {"person": PEOPLE, "act": ACTS, "thing": THINGS, "place": PLACES, "time": TIMES}
    order = rng.sample(SENTENCES, len(SENTENCES))
    return " ".join(each.format(**{kind: rng.choice(some) for kind, some in words.items()}) for each in order)


@pytest.fixture
def raw(tmp_path):
    texts = {f"good-{number}": prose(number) for number in range(40)}
    texts |= {"german": GERMAN * 3, "noise": "buy now !!! " * 60, "braces": prose(70) + " function() { return {}; }"}
    texts["near"] = prose(3) + " Indeed."
    texts["mail"] = prose(77) + " Write to jane.miller@mailbox.org about it."
    path = tmp_path / "pages.jsonl"
    path.write_text("\n".join(json.dumps({"id": name, "text": text}) for name, text in texts.items()))
    return path


def test_the_recipe_for_the_web(raw, tmp_path, documents):
    for module in ("fasttext", "phonenumbers"):
        pytest.importorskip(module)
    card = tilth.corpus_build([str(raw)], tmp_path / "out", recipe="web", progress=False)
    assert card["kept"] == 41 and card["in"] == 45
    assert card["dropped"]["language"] == 1 and card["dropped"]["near_duplicate"] == 1
    assert sum(card["dropped"].values()) == 4
    assert [stage["name"] for stage in card["stages"]] == [
        "clean", "language", "lines", "c4", "quality", "personal", "normalise", "measure", "deduplicate", "units",
        "sketch",
    ]  # fmt: skip
    assert card["dropped_samples"]["language"] == [["german", (GERMAN * 3)[:300]]]
    assert "Der Ausschuss trat am ersten Tag" in card_markdown(card)
    found = documents(tilth.corpus.reader.open_corpus(tmp_path / "out"))
    assert "email@example.com" in found["mail"].text and "jane" not in found["mail"].text
    assert found["mail"].metadata["personal"] == {"email": 1}
    assert {document.metadata["language"] for document in found.values()} == {"en"}
    assert "near" not in found and "good-3" in found


def test_samples_on_the_card_hold_no_personal_data(tmp_path, build):
    for module in ("fasttext", "phonenumbers"):
        pytest.importorskip(module)
    texts = [prose(number) for number in range(9)] + [GERMAN + "Schreiben Sie an jane.miller@mailbox.org. " + GERMAN]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    card = build(tmp_path / "a.jsonl", filters={"language": {"keep": ["en"]}, "personal": {}}).card
    ((_, sample),) = card["dropped_samples"]["language"]
    assert "email@example.com" in sample and "jane" not in json.dumps(card)


def test_workers_filter_alike(raw, build, tmp_path):
    settings = {"filters": {"quality": {}, "words": {"path": str(tmp_path / "list.txt")}}}
    (tmp_path / "list.txt").write_text("widow\n")
    alone = build(raw, **settings).card
    assert alone["dropped"]["gopher_stop_words"] == 2
    assert build(raw, workers=2, **settings).card == alone


def test_documents_with_test_items_are_dropped_and_reported(raw, build, tmp_path):
    held = [
        " ".join(prose(5).split()[20:60]),
        "a question that is nowhere in the corpus but has more than eight words",
        "too short",
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps({"question": text}) for text in held))
    card = build(raw, filters={"contamination": {"paths": [str(tmp_path / "test.jsonl")]}}).card
    assert card["contamination"] == {"items": 3, "found": 1, "too_short": 1}
    assert card["dropped"]["contaminated"] >= 1


def test_what_resembles_the_examples_is_kept(tmp_path, build, documents):
    rng = random.Random(0)
    garden, engine = (
        ["rose", "soil", "seed", "leaf", "rain", "bee"],
        ["gear", "piston", "valve", "torque", "oil", "rpm"],
    )
    lines = [
        json.dumps({"id": f"{kind}-{number}", "text": " ".join(rng.choices(words, k=60))})
        for number in range(60)
        for kind, words in (("garden", garden), ("engine", engine))
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    (tmp_path / "like.jsonl").write_text(
        "\n".join(json.dumps({"text": " ".join(rng.choices(garden, k=60))}) for _ in range(60))
    )
    settings = {"filters": {"like": {"paths": [str(tmp_path / "like.jsonl")], "keep": 0.5}}}
    corpus = build(tmp_path / "all.jsonl", **settings)
    assert corpus.card["dropped"] == {"unlike": pytest.approx(60, abs=3)}
    kept = [name.partition("-")[0] for name in documents(corpus)]
    assert kept.count("garden") >= 57 and kept.count("engine") <= 3
    assert corpus.card["likeness"]["auc"] > 0.7
    assert corpus.card["settings"]["filters"] == settings["filters"]
    assert build(tmp_path / "all.jsonl", workers=2, **settings).card["fingerprint"] == corpus.fingerprint
    with pytest.raises(UsageError, match=r"missing: no such file"):
        build(tmp_path / "all.jsonl", filters={"like": {"paths": [str(tmp_path / "missing")]}})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["filters.langage={}"], "no filter 'langage'; did you mean language"),
        (["filters.language.kep=[en]"], r"filters\.language: got an unexpected keyword argument 'kep'"),
        (["filters.lines.repeated_from=x"], r"filters\.lines: repeated_from is 'x': Input should be a valid integer"),
        (["filters.personal.regions=US"], r"filters\.personal: regions is 'US': .*Sequence"),
        (["filters.quality.gopher.stop_words=[]"], r"gopher: 0 stop words are given, of which no text can have"),
        (["filters.quality=3"], r"filters\.quality: must be a valid dictionary"),
        (["filters.like.keep=0.5"], r"filters\.like: paths is a list"),
        (["filters.contamination.paths=[nowhere.jsonl]"], r"nowhere\.jsonl cannot be read"),
        (["validaton=0.1", "filters.c5=true"], r"(?s)2 problems.*no filter 'c5'.*validaton; did you mean validation"),
    ],
)
def test_wrong_settings_start_nothing(raw, tmp_path, overrides, words):
    with pytest.raises(UsageError, match=words):
        tilth.corpus_build([str(raw)], tmp_path / "out", overrides=overrides, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["pages.jsonl"]


def test_a_filter_is_taken_out_of_a_recipe_or_added_without_parameters():
    settings = load_corpus_settings("web", ["filters.c4=false", "filters.words.path=list.txt", "filters.lines=true"])
    assert settings.filters["words"] == {"path": "list.txt"} and settings.filters["lines"] == {}
    assert "c4" not in settings.filters and settings.near_duplicates == "drop"
    with pytest.raises(UsageError, match="no recipe 'wep'.*did you mean web"):
        load_corpus_settings("wep")
    assert builtin_recipes("tilth.recipes.corpus") == ["web"]


def test_every_reason_of_a_filter_has_a_meaning_and_one_filter():
    reasons = [reason for each in FILTERS.values() for reason in each.reasons]
    assert len(reasons) == len(set(reasons)) and set(reasons) < drop_reasons().keys()
    assert all(meaning and not meaning.endswith(".") for meaning in drop_reasons().values())


def test_a_large_text_that_is_cut_is_told(tmp_path, build, capsys):
    (tmp_path / "long.txt").write_text("\n".join(prose(number) for number in range(9_000)))
    card = build(tmp_path / "long.txt").card
    parts = card["kept"]
    assert parts > 12
    told = f"1 large text was cut into {parts} documents of up to 256 KB; parts of one text may be on both sides"
    assert any(told in note for note in card["notes"])
    assert told in capsys.readouterr().err
