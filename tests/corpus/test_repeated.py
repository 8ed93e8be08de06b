"""Lines and paragraphs that many documents have: which are taken out, from where, and what is left."""

import hashlib
import json
import random

import pyarrow as pa
import pytest

from tilth.corpus import assemble, repeated, units
from tilth.corpus.card import card_markdown
from tilth.corpus.settings import load_corpus_settings
from tilth.corpus.units import KINDS, unit_hasher, units_of, without_lines
from tilth.errors import TilthError, UsageError

MENU = "Home | Forums | Donate | Contact | About us"
NOTICE = "All rights reserved by the publisher.\nNo part of it may be copied."


def prose(seed: int, words: int = 60) -> str:
    rng = random.Random(seed)
    return "\n".join(" ".join(f"w{rng.randrange(10**6)}" for _ in range(words // 3)) for _ in range(3))


def write(path, texts: dict[str, str]):
    path.write_text("\n".join(json.dumps({"id": name, "text": text}) for name, text in texts.items()))
    return path


@pytest.fixture
def raw(tmp_path):
    """Forty documents: a menu in the even ones, in two in other case; a notice in every fourth; a line in two."""
    texts = {}
    for number in range(40):
        menu = "" if number % 2 else (f"  {MENU.upper()}\n" if number in (10, 20) else f"{MENU}\n")
        notice = "" if number % 4 else f"\n\n{NOTICE}"
        twice = "\nA line that exactly two documents have." if number in (3, 5) else ""
        texts[str(number)] = f"{menu}\n{prose(number)}{twice}{notice}"
    return write(tmp_path / "raw.jsonl", texts), texts


def test_lines_stay_in_the_first_document_that_has_them(raw, build, documents):
    path, texts = raw
    corpus = build(path, repeated={"lines": 2})
    found = documents(corpus)
    assert {name for name, document in found.items() if MENU in document.text} == {"0"}
    assert {name for name, document in found.items() if "rights reserved" in document.text} == {"0"}
    assert found["0"].text == texts["0"]
    assert found["2"].text == prose(2) and found["8"].text == prose(8) and found["10"].text == prose(10)
    assert found["3"].text == texts["3"] and found["5"].text == texts["5"]
    card = corpus.card
    assert (card["in"], card["kept"], card["dropped"]) == (40, 40, {})
    told = card["repeated"]
    lost = sum(len(texts[name]) - len(document.text) for name, document in found.items())
    assert (told["documents"], told["characters"]) == (19, lost)
    first, second = NOTICE.split("\n")
    assert told["lines"] == {
        "limit": 2,
        "different": 3,
        "taken_out": 19 + 2 * 9,
        "most": [[MENU, 20], *sorted([[first, 10], [second, 10]], key=told["lines"]["most"][1:].index)],
    }
    assert found["8"].metadata["removed_shared"] == len(texts["8"]) - len(prose(8))
    assert "removed_shared" not in found["0"].metadata
    assert sum(split["characters"] for split in card["splits"].values()) == sum(map(len, texts.values())) - lost
    assert f"20 documents: {MENU.replace('|', chr(92) + '|')}" in card_markdown(card)


def test_lines_may_go_from_all_documents(raw, build, documents):
    corpus = build(raw[0], repeated={"lines": 1, "keep": "none"})
    assert not any(line in document.text for document in documents(corpus).values()
                   for line in (MENU, "rights reserved", "exactly two"))  # fmt: skip
    assert corpus.card["repeated"]["lines"]["taken_out"] == 20 + 2 * 10 + 2


def test_paragraphs_go_whole_and_their_lines_are_not_counted_again(raw, build, documents):
    path, texts = raw
    corpus = build(path, repeated={"paragraphs": 5, "lines": 9})
    told = corpus.card["repeated"]
    assert told["paragraphs"]["different"] == 2 and told["paragraphs"]["taken_out"] == 19 + 9
    assert told["paragraphs"]["most"] == [[MENU, 20], [NOTICE, 10]]
    assert told["lines"]["taken_out"] == 0 and told["lines"]["different"] == 3
    alone = build(path, repeated={"paragraphs": 5})
    assert {name: document.text for name, document in documents(alone).items()} == {
        name: document.text for name, document in documents(corpus).items()
    }


def hashes(folder) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_corpus_does_not_depend_on_workers_ranges_or_a_stop(raw, build, tmp_path, monkeypatch):
    folder = tmp_path / "many"
    folder.mkdir()
    names = list(raw[1])
    for part in range(5):
        write(folder / f"{part}.jsonl", {name: raw[1][name] for name in names[8 * part : 8 * part + 8]})
    monkeypatch.setattr("tilth.corpus.file_task.MOST_FILES", 1)
    settings = {"repeated": {"lines": 2, "paragraphs": 3}, "near_duplicates": "drop"}
    build(folder, **settings)
    expected = hashes(tmp_path / "out")
    build(folder, workers=3, **settings)
    assert hashes(tmp_path / "out") == expected
    monkeypatch.setattr(repeated, "MOST_HASHES", 10)
    with monkeypatch.context() as patched:

        def stop(*_):
            raise KeyboardInterrupt

        patched.setattr(assemble, "check_leaks", stop)
        with pytest.raises(KeyboardInterrupt):
            build(folder, workers=2, **settings)
    assert (tmp_path / ".out.parts" / "edited").is_dir()
    build(folder, workers=2, **settings)
    assert hashes(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "out", "raw.jsonl"]


def test_what_little_is_left_is_dropped_and_the_counts_add_up(build, tmp_path, documents):
    texts = {str(number): f"{MENU}\n{NOTICE}\n{prose(number)}" for number in range(6)}
    short = {f"short-{number}": f"{MENU}\n{NOTICE}\nToo short {number}" for number in range(4)}
    same = {f"same-{number}": f"{MENU}\n{prose(50)}\n{NOTICE if number else ''}" for number in range(3)}
    write(tmp_path / "a.jsonl", {**texts, **short, **same})
    corpus = build(tmp_path / "a.jsonl", repeated={"lines": 3})
    card = corpus.card
    # same-1 and same-2 are one document to begin with; without the menu and the notice, same-0 and same-1 are too.
    assert card["dropped"] == {"duplicate": 2, "only_repeated": 4}
    assert (card["in"], card["kept"]) == (13, 7)
    assert documents(corpus).keys() == {*texts, "same-0"}
    assert [name for name, _ in card["dropped_samples"]["only_repeated"]] == ["short-0", "short-1", "short-2"]
    assert card["dropped_samples"]["only_repeated"][0][1] == short["short-0"]
    assert build(tmp_path / "a.jsonl", repeated={"lines": 3, "left": 5}).card["dropped"] == {"duplicate": 2}
    with pytest.raises(TilthError, match="no document is left"):
        build(tmp_path / "a.jsonl", repeated={"lines": 3, "left": 10_000, "keep": "none"})


def test_mirrors_of_a_page_are_not_many_documents(build, tmp_path):
    page = prose(1, 300)
    mirrors = {f"mirror-{n}": page + f"\nmirrored by host number {n}" for n in range(5)}
    write(tmp_path / "a.jsonl", {**mirrors, **{str(n): prose(100 + n) for n in range(5)}})
    card = build(tmp_path / "a.jsonl", near_duplicates="drop", repeated={"lines": 1, "keep": "none"}).card
    assert card["dropped"] == {"near_duplicate": 4}
    assert card["repeated"]["documents"] == 0 and card["repeated"]["lines"]["different"] == 0


def test_what_a_known_corpus_has_without_repeated_lines_is_known(raw, build, tmp_path):
    path, texts = raw
    build(path, repeated={"lines": 2})
    (tmp_path / "out").rename(tmp_path / "old")
    again = {name: texts[name] for name in ("2", "6", "14", "18")} | {"new": prose(1000)}
    write(tmp_path / "more.jsonl", again)
    card = build(tmp_path / "more.jsonl", repeated={"lines": 2, "keep": "none"}, known=[str(tmp_path / "old")]).card
    assert (card["dropped"], card["kept"]) == ({"known": 4}, 1)


def test_settings_without_effect_are_told():
    assert load_corpus_settings("web").repeated.lines == 3
    with pytest.raises(UsageError, match=r"repeated.keep has no effect"):
        load_corpus_settings(None, ["repeated.keep=none"])
    with pytest.raises(UsageError, match=r"repeated.lines: must be greater than or equal to 1"):
        load_corpus_settings(None, ["repeated.lines=0"])


def test_units_of_a_text_are_those_that_are_hashed(monkeypatch):
    rng = random.Random(0)
    texts = ["", "\n\n", "one line", "Straße of some length\n\nSTRASSE of some length", "a\x0b\nb\u2028c\n \t\n  d "]
    texts += ["\n".join(rng.choice(["", "  ", "x" * rng.randrange(60), f"Line {n}"]) for n in range(50)) for _ in "ab"]
    texts.append("y" * 100 + "\n" + "z" * 500 + "\nend of it")
    batch = pa.RecordBatch.from_pydict({"text": texts})
    for span in (units._SPAN, 64):
        monkeypatch.setattr(units, "_SPAN", span)
        for least in (1, 15):
            hashed = unit_hasher(KINDS, least)(batch)["units"].to_pylist()
            for text, values in zip(texts, hashed, strict=True):
                found = units_of(text, KINDS, least)
                assert sorted({unit.hash for unit in found}) == values
                lines = text.split("\n")
                said = [place for place, line in enumerate(lines) if len(line.strip()) >= least]
                assert [unit.lines.start for unit in found if unit.kind == "lines"] == said
                assert all(lines[unit.lines.start].strip() and lines[unit.lines.stop - 1].strip() for unit in found)
    (one,), (other,) = unit_hasher(("lines",), 1)(pa.RecordBatch.from_pydict({"text": ["A b ", "\n\t a B"]}))[
        "units"
    ].to_pylist()
    assert one == other and one & 1 == KINDS.index("lines")


def test_blank_lines_do_not_gather_where_lines_were():
    assert without_lines("menu\n\ntext\n\nmore\n\nfoot", {0, 6}) == "text\n\nmore"
    assert without_lines("a\n\nx\n\nb\nx\nc", {2, 5}) == "a\n\nb\nc"
    assert without_lines("a\n\n\n\nb\n", set()) == "a\n\n\n\nb\n"
    assert without_lines("x", {0}) == ""
