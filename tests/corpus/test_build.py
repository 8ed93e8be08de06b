"""A built corpus: de-duplicated, complete, the same bytes every time, and read back as written."""

import gzip
import hashlib
import json
import random
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import tilth
from tilth.corpus import writer
from tilth.corpus.card import card_markdown
from tilth.corpus.card_text import render_card
from tilth.corpus.formats import text as text_format
from tilth.corpus.output import PLACES, places_hash
from tilth.corpus.reader import is_corpus, open_corpus
from tilth.errors import TilthError, UsageError


def prose(seed, words=80):
    return " ".join(random.Random(seed).choices([f"word{number}" for number in range(900)], k=words))


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    (folder / "sub").mkdir(parents=True)
    for number in range(1200):
        (folder / "sub" / f"{number:04}.txt").write_text(prose(number))
    rows = [{"text": prose(number).upper() + "\n"} for number in range(0, 1200, 100)] + [{"text": prose(5000)}]
    (folder / "z.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return folder


def test_card_counts_and_duplicates(raw, build, documents):
    corpus = build(raw)
    card = corpus.card
    assert (card["in"], card["kept"], card["dropped"], card["rejected"]) == (1213, 1201, {"duplicate": 12}, {})
    splits = card["splits"]
    assert splits["train"]["documents"] + splits["validation"]["documents"] == 1201
    assert card["leak_check"] == {"passed": True, "groups_on_both_sides": 0, "texts_on_both_sides": 0}
    found = documents(corpus)
    assert found["raw/sub/0100.txt"].text == prose(100)  # the first of equal documents stays
    assert found["raw/z.jsonl.gz:13"].text == prose(5000)
    source = card["sources"][0]
    assert (source["source"], source["files"], source["kept"]) == ("raw", 1201, 1201)
    assert source["words"] == 1201 * 80 == splits["train"]["words"] + splits["validation"]["words"]
    assert source["characters"] == sum(len(document.text) for document in found.values())
    lengths = sorted(len(document.text) for document in corpus.documents("train"))
    assert splits["train"]["characters_per_document"]["p0"] == lengths[0]
    assert splits["train"]["characters_per_document"]["p50"] == lengths[(len(lengths) - 1) // 2]
    assert splits["train"]["characters_per_document"]["p100"] == lengths[-1]


def test_identical_input_gives_identical_bytes_anywhere(raw, tmp_path, build):
    """But for a hash of where it lay."""

    def files(corpus):
        found = {path.relative_to(corpus.path): path.read_bytes() for path in corpus.path.rglob("*") if path.is_file()}
        assert len(found.pop(Path(PLACES))) > 16
        return found

    corpus = build(raw)
    first = files(corpus)
    moved = tmp_path / "elsewhere" / "raw"
    moved.parent.mkdir()
    raw.rename(moved)
    corpus = build(moved)
    assert files(corpus) == first
    assert str(tmp_path) not in (corpus.path / "card.json").read_text() + (corpus.path / "card.md").read_text()


def test_sides_do_not_depend_on_the_order_of_sources(tmp_path, build):
    for number in range(3000):
        folder = tmp_path / ("a" if number % 2 else "b")
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(prose(number, 30))
    one = {document.text for document in build(tmp_path / "a", tmp_path / "b").documents("validation")}
    other = {document.text for document in build(tmp_path / "b", tmp_path / "a").documents("validation")}
    assert one == other
    assert 100 < len(one) < 200


def test_near_copies_fall_on_one_side(tmp_path, build):
    rows = [{"id": f"{n}/{copy}", "text": f"{prose(n)} ending {copy}"} for n in range(400) for copy in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = build(tmp_path / "a.jsonl", validation=0.2)
    sides = {
        side: {document.id.partition("/")[0] for document in corpus.documents(side)} for side in ("train", "validation")
    }
    assert not sides["train"] & sides["validation"]
    assert sides["validation"]


def test_a_single_document_is_cut_and_the_card_says_so(tmp_path, build):
    text = "".join(f"This is line {number} of the play.\n" for number in range(1000))
    (tmp_path / "play.txt").write_text(text)
    corpus = build(tmp_path / "play.txt", validation=0.1)
    (train,), (validation,) = corpus.documents("train"), corpus.documents("validation")
    assert train.text + validation.text == text
    assert train.text.endswith("\n")
    assert 0.09 < len(validation.text) / len(text) < 0.11
    assert (train.id, validation.id) == ("play.txt", "play.txt#end")
    assert (corpus.card["in"], corpus.card["kept"]) == (1, 1)
    assert any("cut in two" in note for note in corpus.card["notes"])


def test_whole_novels_hold_out_the_ends_of_several(tmp_path, build, documents):
    (tmp_path / "novels").mkdir()
    texts = {
        f"novels/{number:02}.txt": "\n".join(prose(100 * number + line) for line in range(100)) for number in range(12)
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    corpus = build(tmp_path / "novels")
    card = corpus.card
    first = {path.relative_to(corpus.path): path.read_bytes() for path in corpus.path.rglob("*") if path.is_file()}
    assert (card["in"], card["kept"]) == (12, 12)
    assert {name: split["documents"] for name, split in card["splits"].items()} == {"train": 12, "validation": 8}
    held, total = (sum(card["splits"][name]["bytes"] for name in names) for names in (["validation"], card["splits"]))
    assert 0.04 < held / total < 0.06
    assert card["split_rule"] == "the ends of the 8 largest documents"
    assert card["leak_check"] == {"passed": True, "groups_on_both_sides": 0, "texts_on_both_sides": 0}
    assert any(note.startswith("8 documents were cut in two, the ends are in validation") for note in card["notes"])
    found = documents(corpus)
    for name, text in texts.items():
        end = found.get(f"{name}#end")
        assert found[name].text + (end.text if end else "") == text
    build(tmp_path / "novels")
    again = {path.relative_to(corpus.path): path.read_bytes() for path in corpus.path.rglob("*") if path.is_file()}
    assert again == first


def test_parts_and_row_groups_keep_the_order(tmp_path, build, monkeypatch):
    monkeypatch.setattr(writer, "PART_BYTES", 20_000)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 5_000)
    rows = [{"id": f"{number:04}", "text": prose(number)} for number in range(300)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("tilth.corpus.records.BATCH_RECORDS", 7)
    corpus = build(tmp_path / "a.jsonl")
    parts = sorted((corpus.path / "train").iterdir())
    assert len(parts) > 5
    ids = [document.id for document in corpus.documents("train")]
    assert ids == sorted(ids) and len(ids) == corpus.card["splits"]["train"]["documents"]
    monkeypatch.undo()
    assert build(tmp_path / "a.jsonl").fingerprint == corpus.fingerprint


def test_the_fingerprint_of_a_split_is_a_hash_of_its_ids_and_texts(tmp_path, build):
    rows = [{"id": f"{'ä' * number}-{number}", "text": prose(number) + "é" * number} for number in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = build(tmp_path / "a.jsonl", validation=0.2)
    for split in ("train", "validation"):
        expected = hashlib.sha256()
        for document in corpus.documents(split):
            for part in (document.id.encode(), document.text.encode()):
                expected.update(len(part).to_bytes(8, "little") + part)
        assert corpus.card["splits"][split]["fingerprint"] == expected.hexdigest()[:16]


def test_fingerprint_follows_content(tmp_path, build):
    rows = [{"id": str(number), "text": prose(number)} for number in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = build(tmp_path / "a.jsonl").fingerprint
    assert build(tmp_path / "a.jsonl").fingerprint == before
    rows[7]["text"] += "."
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert build(tmp_path / "a.jsonl").fingerprint != before


def test_a_corpus_is_replaced_by_a_newer_build_of_the_same_only(tmp_path, build):
    for name in ("a", "b"):
        rows = [{"text": prose(number)} for number in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first = build(a, overwrite=False).fingerprint
    a.write_text(a.read_text() + "\n" + json.dumps({"text": prose(99)}))
    second = build(a, overwrite=False, max_rejected=0.5).fingerprint
    assert second != first
    choose = "choose another --out, or pass --overwrite"
    with pytest.raises(UsageError, match=rf"out holds a corpus of other sources \(a.jsonl\); {choose}"):
        build(b, overwrite=False)
    with pytest.raises(UsageError, match=rf"holds a corpus of other settings \(validation was 0.05\); {choose}"):
        build(a, overwrite=False, validation=0.2)
    assert open_corpus(tmp_path / "out").fingerprint == second
    assert [source["source"] for source in build(b, a, overwrite=True).card["sources"]] == ["b.jsonl", "a.jsonl"]
    build(a, b, overwrite=False)
    (tmp_path / "other").mkdir()
    b.rename(tmp_path / "other" / "b.jsonl")
    with pytest.raises(UsageError, match=rf"holds a corpus of sources of the same names in other places; {choose}"):
        build(a, tmp_path / "other" / "b.jsonl", overwrite=False)
    build(a, tmp_path / "other" / "b.jsonl", overwrite=True)
    (tmp_path / "out" / PLACES).unlink()  # an older version's
    build(tmp_path / "other" / "b.jsonl", a, overwrite=False)


def test_the_api_does_not_overwrite_unless_asked(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(prose(1, 2000))
    out = tmp_path / "out"
    tilth.corpus_build([str(tmp_path / "a.txt")], out, progress=False)
    with pytest.raises(UsageError, match="other sources"):
        tilth.corpus_build([str(tmp_path / "b.txt")], out, progress=False)
    card = tilth.corpus_build([str(tmp_path / "b.txt")], out, overwrite=True, progress=False)
    assert card["sources"][0]["source"] == "b.txt"


def test_globs_overlaps_and_the_output_inside_the_source(tmp_path, build, documents, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(prose(number))
    corpus = build("[0-3].txt", ".")
    assert corpus.card["in"] == 6
    assert any("4 files that an earlier source names too" in note for note in corpus.card["notes"])
    assert build("[0-3].txt", ".").card == corpus.card  # the corpus in ./out is not read into itself
    with pytest.raises(UsageError, match="output folder"):
        build("out/train")


def test_what_a_killed_build_leaves_beside_its_corpus_is_not_counted(tmp_path, build, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(prose(0))
    for name in (".out.parts", ".out.partial", ".mine"):
        (tmp_path / name).mkdir()
    assert [note for note in build(".").card["notes"] if "hidden" in note][0].endswith(
        "1 hidden files or folders (names that start with a dot) were not read"
    )


def test_a_link_that_leads_to_itself_is_a_broken_link(tmp_path, build, set_aside):
    (tmp_path / "raw").mkdir()
    for number in range(20):
        (tmp_path / "raw" / f"{number}.txt").write_text(prose(number))
    (tmp_path / "raw" / "self.txt").symlink_to("self.txt")
    corpus = build(tmp_path / "raw")
    assert corpus.card["kept"] == 20
    assert [(record["source"], record["reason"]) for record in set_aside(corpus.path)] == [
        ("raw/self.txt", "unreadable")
    ]


def test_files_of_a_pattern_are_named_from_where_it_begins_to_vary(tmp_path, build, documents, monkeypatch):
    for folder in ("x", "y"):
        (tmp_path / "g" / folder).mkdir(parents=True)
        (tmp_path / "g" / folder / "text.txt").write_text(f"{folder} " + prose(ord(folder)))
        (tmp_path / "g" / folder / "more.jsonl").write_text(f'{{"text": "{folder} more"}}\n')

    def whole(found) -> list[str]:
        return sorted(name for name in found if not name.endswith("#end"))

    found = documents(build(tmp_path / "g" / "*" / "*"))
    assert whole(found) == ["x/more.jsonl:1", "x/text.txt", "y/more.jsonl:1", "y/text.txt"]
    assert {document.source for document in found.values()} == {
        f"{folder}/{name}" for folder in "xy" for name in ("text.txt", "more.jsonl")
    }
    monkeypatch.chdir(tmp_path)
    assert whole(documents(build("g/**/*.txt", validation=0.4))) == ["x/text.txt", "y/text.txt"]
    assert whole(documents(build("*/x/*", validation=0.4))) == ["g/x/more.jsonl:1", "g/x/text.txt"]


def test_a_text_that_repeats_itself_is_not_held_out_from_itself(tmp_path, build):
    (tmp_path / "a.txt").write_text("the same line\nthe same line\n")
    with pytest.raises(TilthError, match="the text repeats itself; add more text"):
        build(tmp_path / "a.txt", validation=0.49)


def test_large_texts_of_one_name_are_counted_apart(tmp_path, build, monkeypatch):
    monkeypatch.setattr(text_format, "LARGE", 300_000)
    for folder, seed in (("x", 1), ("y", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "big.txt").write_text("\n".join(prose(1000 * seed + number) for number in range(900)))
    one = build(tmp_path / "x" / "big.txt").card["notes"]
    both = build(tmp_path / "x" / "big.txt", tmp_path / "y" / "big.txt").card["notes"]
    (alone,) = [int(re.search(r"cut into (\d+) documents", note)[1]) for note in one if "1 large text was cut" in note]
    (number,) = [int(re.search(r"cut into (\d+)", note)[1]) for note in both if "2 large texts were cut" in note]
    assert number > 1.5 * alone > 2


def test_odd_file_names_and_metadata(tmp_path, build, documents):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "b\udcff.txt").write_text("name that is not UTF-8")
    (tmp_path / "raw" / "c.txt").write_text("another text of that length")
    (tmp_path / "raw" / "a.jsonl").write_text('{"text": "x y", "score": NaN, "mark": "\\udc00", "id": ""}')
    found = documents(build(tmp_path / "raw", validation=0.3))
    assert found["raw/b\\xff.txt"].text == "name that is not UTF-8"
    assert found["raw/a.jsonl:1"].metadata == {"score": None, "mark": "\udc00", "id": ""}


def test_open_corpus_refuses_what_is_incomplete(tmp_path, build):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": prose(number)}) for number in range(9)))
    corpus = build(tmp_path / "a.jsonl")
    assert is_corpus(corpus.path) and open_corpus(corpus.path) == corpus
    with pytest.raises(TilthError, match="does not exist"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(TilthError, match="not a corpus"):
        open_corpus(tmp_path)
    part = corpus.path / "train" / "part-00000.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(TilthError, match="part-00000.parquet has"):
        open_corpus(corpus.path)
    part.write_bytes(content[:100] + bytes(len(content) - 100))
    with pytest.raises(TilthError, match="does not match its SHA-256"):
        list(open_corpus(corpus.path).documents("train"))
    part.write_bytes(content)
    card = corpus.path / "card.json"
    whole = json.loads(card.read_text())
    assert whole["files"].pop(0)["path"] == "train/part-00000.parquet"
    card.write_text(json.dumps(whole))
    with pytest.raises(TilthError, match="card.json does not match its checksum"):
        open_corpus(corpus.path)
    card.write_text(json.dumps(corpus.card))
    part.unlink()
    with pytest.raises(TilthError, match="missing"):
        open_corpus(corpus.path)
    with pytest.raises(ValueError, match="test"):
        list(corpus.documents("test"))  # type: ignore[arg-type]


def test_readable_card(tmp_path, build):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": prose(n % 8)}) for n in range(9)) + "\nbroken")
    corpus = build(tmp_path / "a.jsonl")
    text = (corpus.path / "card.md").read_text()
    assert text == card_markdown(corpus.card)
    assert "8 documents kept of 10 records read" in text
    assert "| a.jsonl | 1 | 10 | 8 |" in text and "1 duplicate" in text and "1 invalid_json" in text


def test_the_card_fits_a_terminal(tmp_path, build):
    for number in range(14):
        rows = [json.dumps({"text": prose(50 * number + n)}) for n in range(40)] + [json.dumps({"text": prose(1)})]
        name = (
            "a-very-long-name-of-a-source-that-would-break-every-table.jsonl" if number == 3 else f"{number:02}.jsonl"
        )
        (tmp_path / name).write_text("\n".join(rows) + ("\nbroken" if number == 13 else ""))
    corpus = build(*sorted(tmp_path.glob("*.jsonl")))
    console = Console(file=StringIO(), width=80, markup=False, highlight=False)
    console.print(render_card(corpus.card, corpus.path))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= 80
    assert len(lines) <= 30
    assert lines[0] == "560 documents kept of 575 records read"
    assert lines[2] == "split documents bytes share words groups median length"
    train = corpus.card["splits"]["train"]
    assert lines[3].startswith(f"train {train['documents']} {train['bytes']:,} 9")
    assert "source files records kept bytes dropped broken" in lines
    assert any(line.startswith("00.jsonl 1 41 40 ") and line.endswith(" 1 0") for line in lines)
    assert any(line.startswith("4 more 4 165 160 ") and line.endswith(" 4 1") for line in lines)
    said = " ".join(lines)
    assert "dropped 14 duplicate: the same text as an earlier document" in said
    assert "leak check passed: 0 groups and 0 texts are on both sides" in said
    assert "broken 1 invalid_json; see " in said


def test_where_sources_lie_does_not_depend_on_where_a_build_was_started(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    hashes = []
    for folder, name in ((tmp_path, "a"), (tmp_path / "a", "../a"), (tmp_path, str(tmp_path / "a"))):
        monkeypatch.chdir(folder)
        hashes.append(places_hash([name, "installed-docs", "s3://bucket/texts"]))
    assert len(set(hashes)) == 1 and hashes[0] == places_hash(["s3://bucket/texts", "a", "installed-docs"])
    assert places_hash(["b", "installed-docs", "s3://bucket/texts"]) != hashes[0]
