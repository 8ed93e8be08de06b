import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from tilth.errors import TilthError
from tilth.use.texts import read_texts

TEXTS = ["one, two", 'three "quoted"', "naïve"]


def table(delimiter: str, header: list[str]) -> bytes:
    rows = [header, *([text, "x"][: len(header)] for text in TEXTS)]
    if delimiter == "\t":
        return "".join("\t".join(row) + "\n" for row in rows).encode()
    return "".join(",".join(f'"{cell}"'.replace('three "quoted"', 'three ""quoted""') for cell in row) + "\n"
                   for row in rows).encode()  # fmt: skip


JSONL = "".join(json.dumps({"label": "x", "text": text}) + "\n" for text in TEXTS).encode()
LINES = "".join(text + "\n" for text in TEXTS).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", LINES),
        ("a", LINES),
        ("a.txt.gz", gzip.compress(LINES, mtime=0)),
        ("a.tsv", table("\t", ["text", "label"])),
        ("b.tsv", table("\t", ["sentence"])),
        ("c.tsv", LINES),
        ("headerless.tsv", table("\t", ["text", "label"]).partition(b"\n")[2]),
        ("a.csv", table(",", ["text", "label"])),
        ("b.csv", table(",", ["text"])),
        ("a.csv.xz", lzma.compress(table(",", ["text", "label"]))),
        ("a.jsonl", JSONL),
        ("a.jsonl.zst", zstandard.compress(JSONL)),
        ("a.txt", JSONL),
        ("b.txt", table("\t", ["text", "label"])),
        ("c.txt.bz2", bz2.compress(table(",", ["text", "label"]))),
    ],
)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str, content: bytes, capsys):
    (tmp_path / name).write_bytes(content)
    assert read_texts(tmp_path / name) == TEXTS
    assert capsys.readouterr().err == ""


def test_parquet_and_a_named_column(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"review": TEXTS, "label": ["x"] * 3}), tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet", "review") == TEXTS
    with pytest.raises(TilthError, match="has no text column .*columns are 'review', 'label'"):
        read_texts(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_bytes(table("\t", ["review", "label"]))
    assert read_texts(tmp_path / "a.txt", "review") == TEXTS
    with pytest.raises(TilthError, match="no column 'foo'; the columns are review, label"):
        read_texts(tmp_path / "a.txt", "foo")


def test_an_unknown_header_is_not_taken_for_a_text(tmp_path: Path):
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(20))
    (tmp_path / "a.tsv").write_text("review\tstars\n" + rows)
    with pytest.raises(TilthError, match="'review', 'stars'.*looks like a header"):
        read_texts(tmp_path / "a.tsv")
    assert len(read_texts(tmp_path / "a.tsv", "review")) == 20
    (tmp_path / "a.tsv").write_text(rows)
    assert len(read_texts(tmp_path / "a.tsv")) == 20


def test_what_is_left_out_is_told_with_its_line(tmp_path: Path, capsys):
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *[("good", "1")] * 20, ("", "0"), ("last", "1")])
    assert read_texts(tmp_path / "a.csv") == ["good"] * 20 + ["last"]
    assert "a.csv: 1 of 22 rows was left out: no text (line 22)" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text("one\n\n \ntwo\n")
    assert read_texts(tmp_path / "a.txt") == ["one", "two"]
    assert "2 blank lines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "holds no text"),
        (b"fine\ncaf\xe9\n", r"is not UTF-8 text \(line 2\)"),
        (gzip.compress(LINES * 1000, mtime=0)[:-20], "is damaged"),
    ],
)
def test_files_without_texts(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(TilthError, match=message):
        read_texts(tmp_path / "a")
    with pytest.raises(TilthError, match="does not exist"):
        read_texts(tmp_path / "none")
