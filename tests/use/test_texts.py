import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from tilth.errors import TilthError
from tilth.tasks.data import read_examples
from tilth.use.texts import read_texts as numbered_texts


def read_texts(*given) -> list[str]:
    return [text for _, text in numbered_texts(*given)]


TEXTS = ["one, two", 'three "quoted"', "naïve"]


def table(delimiter: str, header: list[str]) -> bytes:
    rows = [header, *([text, "x"][: len(header)] for text in TEXTS)]
    if delimiter == "\t":
        return "".join("\t".join(row) + "\n" for row in rows).encode()
    return "".join(",".join(f'"{cell}"'.replace('three "quoted"', 'three ""quoted""') for cell in row) + "\n"
                   for row in rows).encode()  # fmt: skip


JSONL = "".join(json.dumps({"label": "x", "text": text}) + "\n" for text in TEXTS).encode()
ARRAY = json.dumps([{"label": "x", "text": text} for text in TEXTS], indent=1).encode()
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
        ("b.txt", JSONL.replace(b"{", b"{ ")),
        ("a.json", JSONL),
        ("b.json", ARRAY),
        ("c.json.bz2", bz2.compress(b"\xef\xbb\xbf\n" + ARRAY)),
        ("d.txt", ARRAY.replace(b"\n", b"")),
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


@pytest.mark.parametrize("delimiter", [";", "|"])
def test_a_semicolon_table_is_read_as_by_finetune(tmp_path: Path, delimiter: str):
    path = tmp_path / "semi.csv"
    table = 'id;"text, whole";label\n1;"good; or so, film";5\n2;bad film;1\n'
    path.write_text(table.replace(";", delimiter))
    texts = [f"good{delimiter} or so, film", "bad film"]
    assert read_texts(path, "text, whole") == texts
    examples = read_examples(path, "text, whole")
    assert (examples.texts, examples.labels) == (texts, ["5", "1"])


def test_prose_with_the_name_of_a_column_in_its_first_line_is_lines(tmp_path: Path, capsys):
    lines = ["The court, body, and soul of it", "text, and more", "{braces} are letters", "[so, are, these]"]
    for name in ("prose.txt", "prose", "prose.md"):
        for given in (lines, lines[::-1]):
            (tmp_path / name).write_text("\n".join(given))
            assert read_texts(tmp_path / name) == given
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", table("\t", ["text", "label"])),
        ("a.txt.bz2", bz2.compress(table(",", ["text", "label"]))),
        ("a", b"\xef\xbb\xbf" + table("\t", ["text", "label"])),
        ("a.txt", table(",", ["text", "label"]).replace(b'","', b'";"')),
    ],
)
def test_what_may_be_a_table_by_its_first_line_is_not_guessed_at(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TilthError, match="may be a table.*'.?text.*label.?'.*--text-column text.*standard input"):
        read_texts(tmp_path / name)
    assert read_texts(tmp_path / name, "text") == TEXTS


def test_the_header_of_a_csv_of_one_column_is_not_a_text(tmp_path: Path):
    path = tmp_path / "one.csv"
    path.write_text("review\ngood film\nbad; or so\n")
    with pytest.raises(TilthError, match="one.csv: .*'review' is no usual name of a text column.*--text-column.*.txt$"):
        read_texts(path)
    assert read_texts(path, "review") == ["good film", "bad; or so"]
    path.write_text("sentence\ngood film\nbad; or so\n")
    assert read_texts(path) == ["good film", "bad; or so"]


def test_a_first_json_row_without_text_is_left_out(tmp_path: Path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"label": "x"}\n' + '{"body": "good", "label": "x"}\n' * 20)
    assert read_texts(path) == ["good"] * 20
    assert "a.jsonl: 1 of 21 rows was left out: no text (line 1)" in capsys.readouterr().err


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


def test_texts_know_their_lines(tmp_path):
    rows = ["id,text", "d0,a b", "d1,", *(f'd{number},"text\n{number}"' for number in range(2, 30))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    (tmp_path / "a.txt").write_text("one\n\nthree\n")
    assert [line for line, _ in numbered_texts(tmp_path / "a.csv")] == [2, *range(4, 60, 2)]
    assert numbered_texts(tmp_path / "a.txt") == [(1, "one"), (3, "three")]
