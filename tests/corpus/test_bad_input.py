"""Broken input costs itself, is named, and is counted; too much of it stops the build and keeps what is known."""

import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.corpus import assemble as assemble_module
from tilth.corpus.build import build_corpus
from tilth.corpus.reader import is_corpus
from tilth.corpus.rejections import allowed_rejections
from tilth.corpus.settings import CorpusSettings
from tilth.errors import TilthError, UsageError

GOOD = "\n".join(json.dumps({"text": f"a good record number {number}"}) for number in range(30)) + "\n"


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def rejected_by_source(records):
    return {record["source"]: (record["reason"], record["record"]) for record in records}


def test_broken_files_are_set_aside_by_reason(tmp_path, build, documents, set_aside):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "good.jsonl").write_text(GOOD)
    (raw / "binary.txt").write_bytes(noise(5000))
    (raw / "latin.txt").write_bytes("naïve".encode("latin-1"))
    (raw / "wide.txt").write_bytes("wide".encode("utf-16"))
    (raw / "empty.txt").write_bytes(b"")
    (raw / "blank.md").write_bytes(b" \n\t\n")
    (raw / "cut.txt.gz").write_bytes(gzip.compress(noise(3000).hex().encode())[:-900])
    (raw / "twice.txt.gz").write_bytes(gzip.compress(gzip.compress(b"text")))
    (raw / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + noise(500))
    (raw / "letter.rtf").write_bytes(b"{\\rtf1 text}")
    (raw / "letter.docx").write_bytes(b"PK\x03\x04" + noise(500))
    (raw / "letters").write_bytes(b"PK\x03\x04" + noise(500))
    (raw / "link.txt").symlink_to(raw / "nowhere.txt")
    (raw / ".hidden.txt").write_text("hidden")
    corpus = build(raw, max_rejected=0.2)
    assert {record["source"]: record["reason"] for record in set_aside(corpus.path)} == {
        "raw/binary.txt": "binary",
        "raw/latin.txt": "invalid_utf8",
        "raw/wide.txt": "invalid_utf8",
        "raw/cut.txt.gz": "truncated",
        "raw/twice.txt.gz": "wrong_format",
        "raw/link.txt": "unreadable",
    }
    assert corpus.card["in"] == 42
    assert corpus.card["kept"] == 30
    assert corpus.card["dropped"] == {"empty": 2, "unsupported": 4}
    assert corpus.card["rejected"] == {
        "binary": 1,
        "invalid_utf8": 2,
        "truncated": 1,
        "unreadable": 1,
        "wrong_format": 1,
    }
    assert "files of formats that are not read: 1 .docx, 1 .png, 1 rtf, 1 zip" in corpus.card["notes"]
    assert any("1 hidden" in note for note in corpus.card["notes"])


def test_broken_lines_are_named_by_line_and_byte(tmp_path, build, documents, set_aside):
    lines = [
        b'{"text": "first"}',
        b'{"text": ',
        b"",
        b"[1, 2]",
        b'{"text": 7}',
        b'{"title": "no text"}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'{"text": null}',
        b"[" * 100_000,
        b'{"text": "last"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    corpus = build(tmp_path / "a.jsonl", max_rejected=1)
    reasons = {record["record"]: record["reason"] for record in set_aside(corpus.path)}
    assert reasons.pop("a.jsonl:8") == "invalid_unicode"
    assert reasons == {
        "line 2, byte 18": "invalid_json",
        "line 4, byte 29": "not_an_object",
        "line 5, byte 36": "not_text",
        "line 6, byte 48": "no_text_column",
        "line 7, byte 69": "invalid_utf8",
        "line 10, byte 117": "invalid_json",
    }
    assert {document.text for document in documents(corpus).values()} == {"first", "last"}
    assert corpus.card["dropped"] == {"empty": 1}


def test_ragged_undecodable_and_unclosed_rows(tmp_path, build, documents, set_aside):
    rows = [b"id,text", b"a,one", b"b,two,extra", b"c", b"d,\xff", b"e,five", b'f,"six', b"g,seven", b""]
    (tmp_path / "a.csv").write_bytes(b"\n".join(rows))
    corpus = build(tmp_path / "a.csv", max_rejected=1)
    assert {record["record"]: record["reason"] for record in set_aside(corpus.path)} == {
        "line 3": "ragged_row",
        "line 4": "ragged_row",
        "line 5, byte 28": "invalid_utf8",
        "lines 7-8": "malformed_row",
    }
    assert {name: document.text for name, document in documents(corpus).items()} == {"a": "one", "e": "five"}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_no_text_column_names_the_columns(name, tmp_path, build, capsys):
    path = tmp_path / name
    if name == "a.csv":
        path.write_text("title,label\nx,1\n")
    elif name == "a.jsonl":
        path.write_text('{"title": "x", "label": 1}')
    else:
        parquet.write_table(pa.table({"title": ["x"], "label": [1]}), path)
    with pytest.raises(TilthError, match=r"no column 'text'; the columns are 'title', 'label'.*--text-column"):
        build(path)
    (tmp_path / "good.txt").write_text("A text of some length. " * 20)
    build(path, tmp_path / "good.txt", max_rejected=0.5)
    told = re.search(rf"{name} was not read: (.*)", capsys.readouterr().err)
    assert told is None if name == "a.jsonl" else "no column 'text'" in told[1], (
        "one record of JSON lines is one record"
    )


def test_two_common_columns_are_ambiguous(tmp_path, build):
    (tmp_path / "a.csv").write_text("body,content\nx,y\n")
    with pytest.raises(TilthError, match="'body', 'content'"):
        build(tmp_path / "a.csv")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_complete_lines_before_a_break_are_kept(suffix, tmp_path, build, documents, set_aside):
    lines = [json.dumps({"id": str(number), "text": noise(60 + number).hex()}) for number in range(2000)]
    data = "\n".join(lines).encode()
    whole = gzip.compress(data) if suffix == ".gz" else zstandard.ZstdCompressor().compress(data)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[: len(whole) // 2])
    corpus = build(tmp_path / f"a.jsonl{suffix}")
    assert [record["reason"] for record in set_aside(corpus.path)] == ["truncated"]
    found = documents(corpus)
    assert len(found) == corpus.card["kept"] > 500
    assert set(found) == {str(number) for number in range(len(found))}
    assert all(document.text == json.loads(lines[int(name)])["text"] for name, document in found.items())


def test_damaged_data_is_corrupt_not_truncated(tmp_path, build, set_aside):
    (tmp_path / "good.jsonl").write_text(GOOD)
    data = bytearray(gzip.compress(noise(20_000).hex().encode()))
    data[-6] ^= 0xFF
    (tmp_path / "a.txt.gz").write_bytes(data)
    table = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": ["x"] * 100}), table)
    (tmp_path / "b.parquet").write_bytes(table.getvalue().to_pybytes()[:-20])
    corpus = build(tmp_path / "good.jsonl", tmp_path / "a.txt.gz", tmp_path / "b.parquet")
    assert {record["source"]: record["reason"] for record in set_aside(corpus.path)} == {
        "a.txt.gz": "corrupt",
        "b.parquet": "corrupt",
    }


def test_compression_bomb(tmp_path, build, set_aside):
    (tmp_path / "good.jsonl").write_text(GOOD)
    (tmp_path / "bomb.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(b" a" * 100_000_000))
    corpus = build(tmp_path / "good.jsonl", tmp_path / "bomb.txt.zst")
    assert [(record["source"], record["reason"]) for record in set_aside(corpus.path)] == [("bomb.txt.zst", "bomb")]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_whose_names_would_fill_the_memory_is_corrupt_from_there_on(format, tmp_path, build, set_aside):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name in ("one.txt", "n" * 1_000_001, "two.txt"):
            member = tarfile.TarInfo(name)
            member.size = 20
            archive.addfile(member, io.BytesIO(b"twenty bytes of text"))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    corpus = build(tmp_path / "a.tar", max_rejected=0.6)
    (rejected,) = set_aside(corpus.path)
    assert rejected["reason"] == "corrupt" and "bytes of names" in rejected["detail"]
    assert corpus.card["kept"] == 1


def test_hostile_archive(tmp_path, build, documents, set_aside):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name, data=b"", **fields):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(data))

        add("books", type=tarfile.DIRTYPE)
        add("books/one.txt", b"the first book")
        add("books/more.jsonl.gz", gzip.compress(GOOD.encode()))
        add("../outside.txt", b"climbs out")
        add("/etc/motd.txt", b"absolute")
        add("books/../../up.txt", b"climbs out")
        add("link.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("hard.txt", type=tarfile.LNKTYPE, linkname="books/one.txt")
        add("pipe.txt", type=tarfile.FIFOTYPE)
        add("inner.tar.gz", gzip.compress(b"\0" * 2000))
        add("two.txt", b"the second book")
    (tmp_path / "a.tar.zst").write_bytes(zstandard.ZstdCompressor().compress(buffer.getvalue()))
    corpus = build(tmp_path / "a.tar.zst", max_rejected=0.2)
    assert {record["record"]: record["reason"] for record in set_aside(corpus.path)} == {
        "../outside.txt": "unsafe_path",
        "/etc/motd.txt": "unsafe_path",
        "books/../../up.txt": "unsafe_path",
        "link.txt": "link",
        "hard.txt": "link",
        "pipe.txt": "not_a_file",
    }
    found = documents(corpus)
    assert len(found) == 32
    assert found["a.tar.zst/books/one.txt"].text == "the first book"
    assert found["a.tar.zst/two.txt"].text == "the second book"
    assert found["a.tar.zst/books/more.jsonl.gz:5"].text == "a good record number 4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.zst", "out"]


def test_truncated_archive_keeps_its_whole_members(tmp_path, build, documents, set_aside):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(40):
            member = tarfile.TarInfo(f"{number:02}.txt")
            data = noise(10_000, number).hex().encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = gzip.compress(buffer.getvalue())
    (tmp_path / "a.tar.gz").write_bytes(data[: len(data) // 2])
    corpus = build(tmp_path / "a.tar.gz")
    assert {record["reason"] for record in set_aside(corpus.path)} == {"truncated"}
    assert 10 < corpus.card["kept"] < 30


def tar_of(names, headers=None) -> bytes:
    """An archive of a small text for each name, 1,024 bytes a member. headers: more of the pax kind, by number."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            content = f"the text of number {number}".encode()
            member.size = len(content)
            member.pax_headers = (headers or {}).get(number, {})
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize(
    ("damage", "reason", "detail"),
    [
        (lambda data: data[:10_240] + b"?" + data[10_241:], "corrupt", "bad checksum"),
        (lambda data: data[:10_440], "truncated", "without the mark of an archive's end"),
        (lambda data: data[:10_240], "truncated", "without the mark of an archive's end"),
        (lambda data: data[:10_240] + bytes(1024) + data[10_240:], "corrupt", "more follows the end of the archive"),
    ],
)
def test_what_follows_a_damaged_header_is_not_lost_in_silence(
    damage, reason, detail, suffix, tmp_path, build, documents, set_aside
):
    data = damage(tar_of([f"{number:02}.txt" for number in range(40)]))
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    corpus = build(tmp_path / f"a{suffix}")
    assert sorted(documents(corpus)) == [f"a{suffix}/{number:02}.txt" for number in range(10)]
    (found,) = set_aside(corpus.path)
    assert (found["reason"], found["record"]) == (reason, "from the break on") and detail in found["detail"]
    assert corpus.card["rejected"] == {reason: 1}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"GNU.sparse.map": "abc", "GNU.sparse.size": "9"}, "invalid literal"),
        ({"size": "-5"}, "a member of -5 bytes"),
    ],
)
def test_a_header_that_makes_no_sense_costs_what_follows_and_not_the_build(header, said, tmp_path, build, set_aside):
    (tmp_path / "a.tar").write_bytes(tar_of([f"{number}.txt" for number in range(20)], {15: header}))
    corpus = build(tmp_path / "a.tar")
    assert (corpus.card["kept"], corpus.card["rejected"]) == (15, {"corrupt": 1})
    assert said in set_aside(corpus.path)[0]["detail"]


def test_hidden_members_of_an_archive_are_counted_and_not_read(tmp_path, build, documents):
    names = [name for number in range(10) for name in (f"./{number}.txt", f"./._{number}.txt", f".git/{number}.txt")]
    (tmp_path / "a.tar").write_bytes(tar_of(names))
    corpus = build(tmp_path / "a.tar")
    assert sorted(documents(corpus)) == [f"a.tar/./{number}.txt" for number in range(10)]
    assert (corpus.card["in"], corpus.card["dropped"], corpus.card["rejected"]) == (30, {"hidden": 20}, {})


def test_odd_values_beside_a_text_cost_nothing(tmp_path, build, documents):
    (tmp_path / "raw").mkdir()
    lines = [json.dumps({"text": f"a good record number {number}"}) for number in range(20)]
    deep = '{"a":' * 900 + "NaN" + "}" * 900
    lines += ['{"id": "x\\ud83d", "text": "a broken id"}', f'{{"id": "deep", "text": "much nested", "m": {deep}}}']
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines))
    table = pa.table(
        {
            "id": ["late", "early"],
            "text": ["a time after the year 9999", "another one"],
            "time": pa.array([2**60, 0], pa.timestamp("us")),
            "day": pa.array([2**24, 0], pa.int32()).cast(pa.date32()),
            "zoned": pa.array([0, 0], pa.timestamp("us", "Foo/Bar")),
            "map": pa.array([[("k", float("nan"))], []], pa.map_(pa.string(), pa.float64())),
        }
    )
    parquet.write_table(table, tmp_path / "raw" / "b.parquet")
    found = documents(build(tmp_path / "raw"))
    assert len(found) == 24 and found["x\\ud83d"].text == "a broken id"
    value = found["deep"].metadata["m"]
    for _ in range(900):
        value = value["a"]
    assert value is None
    late, early = found["late"].metadata, found["early"].metadata
    assert (late["time"], late["day"]) == tuple(f"<value out of range: {value}>" for value in (2**60, 2**24))
    assert late["map"] == [["k", None]] and late["zoned"] == "<timestamp[us, tz=Foo/Bar]>"
    assert (early["time"], early["day"]) == ("1970-01-01 00:00:00", "1970-01-01")


def test_memory_is_bounded_on_a_200_mb_line(tmp_path):
    path = tmp_path / "line.txt"
    block = noise(500_000).hex().encode()
    with open(path, "wb") as file:
        for start in range(200):
            file.write(block[start:] + block[:start])
    # Not ru_maxrss, which starts at the size of the process that started this one.
    script = (
        "import re, sys; from pathlib import Path; from tilth.corpus.build import build_corpus\n"
        "card = build_corpus([sys.argv[1]], Path(sys.argv[2]), progress=False).card\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())\n"
        "print(card['in'], int(peak[1]) // 1024)"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    records, megabytes = map(int, run.stdout.split())
    assert records > 50
    assert megabytes < 600


def test_overlong_json_line_is_rejected(tmp_path, build, set_aside, monkeypatch):
    monkeypatch.setattr("tilth.corpus.formats.jsonl.MAX_RECORD", 1000)
    lines = [json.dumps({"text": "short one"}), json.dumps({"text": "x" * 300_000}), json.dumps({"text": "short two"})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = build(tmp_path / "a.jsonl", max_rejected=0.5)
    assert [(record["reason"], record["record"]) for record in set_aside(corpus.path)] == [
        ("too_large", "line 2, byte 22")
    ]
    assert corpus.card["kept"] == 2


def test_too_many_rejections_stop_the_build_and_leave_the_evidence(tmp_path, build, set_aside):
    (tmp_path / "a.jsonl").write_text(GOOD + "broken\n" * 4)
    with pytest.raises(TilthError, match=r"4 of 34 records are broken, 3 are allowed") as error:
        build(tmp_path / "a.jsonl")
    out = tmp_path / "out"
    assert str(out) in str(error.value) and "invalid_json" in str(error.value)
    assert not is_corpus(out)
    assert len(set_aside(out)) == 4
    failed = json.loads((out / "failed.json").read_text())
    assert (failed["in"], failed["kept"], failed["rejected"]) == (34, 30, {"invalid_json": 4})

    (tmp_path / "a.jsonl").write_text(GOOD + "broken\n" * 3)
    assert build(tmp_path / "a.jsonl").card["kept"] == 30
    assert not (out / "failed.json").exists()


@pytest.mark.parametrize(
    ("records", "share", "allowed"),
    [(3, 0.01, 0), (4, 0.01, 0), (9, 0.01, 0), (13, 0.01, 1), (99, 0.01, 9), (100, 0.01, 10), (900, 0.01, 10),
     (2500, 0.01, 25), (4, 0.5, 2), (1000, 0, 0)],
)  # fmt: skip
def test_the_share_decides_or_a_tenth_of_few_records(records, share, allowed):
    assert allowed_rejections(records, share) == allowed


@pytest.mark.parametrize(("good", "broken", "stops"), [(1, 2, True), (2, 2, True), (12, 1, False), (17, 2, True)])
def test_a_small_corpus_of_broken_lines_stops_the_build(good, broken, stops, tmp_path, build):
    lines = [json.dumps({"text": f"a good record number {number}"}) for number in range(good)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines + ["broken"] * broken))
    if not stops:
        assert build(tmp_path / "a.jsonl").card["rejected"] == {"invalid_json": broken}
        return
    words = rf"^{broken} of {good + broken} records are broken, {(good + broken) // 10} are allowed; the limit is the "
    with pytest.raises(TilthError, match=words + r"larger of 1 % of the records \(--max-rejected\) and a tenth"):
        build(tmp_path / "a.jsonl")


def test_what_was_set_aside_is_said_and_files_that_are_cut_are_named(tmp_path, build, capsys):
    lines = "\n".join(json.dumps({"text": noise(60, number).hex()}) for number in range(2000)).encode()
    data = gzip.compress(lines)
    (tmp_path / "whole.jsonl").write_bytes(lines)
    assert build(tmp_path / "whole.jsonl").card["rejected"] == {}
    assert capsys.readouterr().err == ""
    for number in range(7):
        (tmp_path / f"cut-{number}.jsonl.gz").write_bytes(data[: len(data) // 4])
    (tmp_path / "whole.jsonl").write_bytes(lines + b"\nbroken")
    build(tmp_path / "whole.jsonl", *sorted(tmp_path.glob("cut-*")))
    captured = capsys.readouterr()
    assert captured.out == ""
    told = captured.err.splitlines()
    assert told[0].startswith("Set aside as broken: 8 of ")
    assert told[0].endswith(f" records (7 truncated, 1 invalid_json); details in {tmp_path / 'out' / 'rejected'}.")
    cut = [f"  cut-{number}.jsonl.gz is cut short: what followed the cut is missing." for number in range(5)]
    assert told[1:] == [*cut, "  2 more files are not whole."]


def test_zero_tolerance(tmp_path, build):
    (tmp_path / "a.jsonl").write_text(GOOD + "broken\n")
    with pytest.raises(TilthError, match="0 are allowed"):
        build(tmp_path / "a.jsonl", max_rejected=0)


def test_hopeless_sources_stop_early(tmp_path, build, set_aside):
    (tmp_path / "a.jsonl").write_text("broken\n" * 50_000)
    with pytest.raises(TilthError, match="stopped early"):
        build(tmp_path / "a.jsonl")
    assert len(set_aside(tmp_path / "out")) == 1001


def test_a_failed_rebuild_leaves_the_corpus_as_it_was(tmp_path, build, set_aside):
    (tmp_path / "a.jsonl").write_text(GOOD)
    corpus = build(tmp_path / "a.jsonl")
    before = {path: path.read_bytes() for path in sorted(corpus.path.rglob("*")) if path.is_file()}
    (tmp_path / "a.jsonl").write_text("broken\n" * 20)
    with pytest.raises(TilthError, match="out/failed"):
        build(tmp_path / "a.jsonl")
    assert {path: path.read_bytes() for path in before} == before
    assert len(set_aside(corpus.path / "failed")) == 20


def test_no_documents(tmp_path, build):
    (tmp_path / "raw").mkdir()
    with pytest.raises(TilthError, match=r"no documents in raw \(0 files, 0 records\)"):
        build(tmp_path / "raw")
    (tmp_path / "raw" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + noise(500))
    (tmp_path / "raw" / "b.txt").write_bytes(noise(500))
    with pytest.raises(TilthError, match=r"(?s)no documents in raw.*binary.*raw/b.txt.*1 \.png"):
        build(tmp_path / "raw")


def test_wrong_arguments_start_nothing(tmp_path, build):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UsageError, match=r"(?s)missing-1.*missing-2"):
        build(tmp_path / "missing-1", tmp_path / "missing-2")
    with pytest.raises(UsageError, match="validation"):
        build(tmp_path / "a.txt", validation=0.5)
    with pytest.raises(UsageError, match="no source"):
        build()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        build(tmp_path / "a.txt")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_unwritable_output(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "file").write_text("")
    with pytest.raises(TilthError, match="another --out"):
        build_corpus([str(tmp_path / "a.txt")], tmp_path / "file" / "out", progress=False)
    with pytest.raises(UsageError, match="is a file"):
        build_corpus([str(tmp_path / "a.txt")], tmp_path / "file", progress=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can write to read-only folders")
def test_read_only_output(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(TilthError, match="another --out"):
        build_corpus([str(tmp_path / "a.txt")], tmp_path / "closed" / "out", progress=False)


def test_full_output(tmp_path):
    """A file size limit stands in for a full disk: the same kind of error, at the same places."""
    (tmp_path / "a.txt").write_text(noise(2_000_000).hex())
    script = (
        "import resource, sys; from pathlib import Path; from tilth.corpus.build import build_corpus\n"
        "from tilth.errors import TilthError\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try: build_corpus([sys.argv[1]], Path(sys.argv[2]), progress=False)\n"
        "except TilthError as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.txt"), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no space left" in run.stdout and "free some" in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_interruption_leaves_no_half_corpus(tmp_path, build, monkeypatch):
    (tmp_path / "a.jsonl").write_text(GOOD)
    first = build(tmp_path / "a.jsonl").fingerprint

    def interrupt(folder):
        assert (folder / "train").exists()
        raise KeyboardInterrupt

    (tmp_path / "a.jsonl").write_text(GOOD + json.dumps({"text": "one more"}))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(assemble_module, "check_leaks", interrupt)
        build(tmp_path / "a.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]
    assert json.loads((tmp_path / "out" / "card.json").read_text())["fingerprint"] == first
    assert build(tmp_path / "a.jsonl").fingerprint != first


LINES = st.one_of(
    st.builds(lambda text: json.dumps({"text": text}).encode(), st.text(max_size=12)),
    st.builds(lambda value: json.dumps(value).encode(), st.one_of(st.integers(), st.none(), st.just({"t": 1}))),
    st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"")),
)


@settings(max_examples=30, deadline=None)
@given(lines=st.lists(LINES, max_size=40))
def test_every_line_is_kept_dropped_or_rejected(lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    always = json.dumps({"text": "long enough that the file does not look binary " * 300}).encode() + b"\n"
    (folder / "a.jsonl").write_bytes(always + b"\n".join(lines))
    card = build_corpus([str(folder / "a.jsonl")], folder / "out", CorpusSettings(max_rejected=1), progress=False).card
    records = 1 + sum(bool(line.strip()) for line in lines)
    assert card["in"] == records
    assert card["in"] == card["kept"] + sum(card["dropped"].values()) + sum(card["rejected"].values())


def test_names_of_columns_that_are_not_text_cost_the_file_only(tmp_path, build, set_aside):
    raw = tmp_path / "raw"
    raw.mkdir()
    table = pa.table({"text": ["some text"], "zzzz": [1]})
    parquet.write_table(table, raw / "a.parquet", store_schema=False)
    with pa.ipc.new_file(raw / "b.arrow", table.schema) as writer:
        writer.write_table(table)
    for path in raw.iterdir():
        path.write_bytes(path.read_bytes().replace(b"zzzz", b"\xf4zzz"))
    (raw / "good.txt").write_text("a good text")
    card = build(raw, max_rejected=1).card
    assert (card["kept"], card["rejected"]) == (1, {"corrupt": 2})
    assert {line["source"] for line in set_aside(tmp_path / "out")} == {"raw/a.parquet", "raw/b.arrow"}


def test_a_file_of_comments_takes_no_time(tmp_path, build):
    (tmp_path / "a.html").write_text("<!-- a -- b -> c -->\n" * 3000 + "no page")
    (tmp_path / "b.html").write_text("<!-- a -- b -> c -->\n" * 30 + "<!DOCTYPE html><html><p>" + "A sentence. " * 30)
    (tmp_path / "good.txt").write_text("a good text")
    assert build(*sorted(tmp_path.glob("*.*"))).card["kept"] == 3


def test_a_table_that_unfolds_to_more_than_its_bytes_is_a_bomb(tmp_path, build):
    text = "x" * 4_000_000
    table = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), pa.array([text]))})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    (tmp_path / "good.txt").write_text("a good text")
    card = build(tmp_path / "a.parquet", tmp_path / "good.txt", max_rejected=1).card
    assert card["rejected"] == {"bomb": 1} and card["in"] < 20
