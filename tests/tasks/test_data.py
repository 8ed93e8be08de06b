import bz2
import csv
import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tilth.corpus.build import build_corpus
from tilth.corpus.formats.columns import TEXT_COLUMNS
from tilth.errors import TilthError
from tilth.tasks.data import Examples, hold_out, normal_text, read_examples, rejected_message, stratified_sample
from tilth.tasks.formats import is_quoted

ROWS = [('a "quoted film', "good"), ("naïve, twice", "bad"), ("third", "good")]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(rows: list[tuple[str, str]], text: str = "text", label: str = "label") -> str:
    return "".join(json.dumps({text: a, label: b}) + "\n" for a, b in rows)


def pairs(examples: Examples) -> list[tuple[str, str]]:
    return list(zip(examples.texts, examples.labels, strict=True))


def test_every_format_gives_the_same_examples(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(
        pa.table({"text": [a for a, _ in ROWS], "label": [b for _, b in ROWS]}), tmp_path / "file.parquet"
    )
    tsv = "".join(f"{a}\t{b}\n" for a, b in ROWS)
    contents = {
        "a.jsonl": jsonl(ROWS).encode(),
        "b.txt": ("text\tlabel\n" + tsv).encode(),
        "headerless.tsv": tsv.encode(),
        "windows.tsv": b"\xef\xbb\xbf" + ("text\tlabel\n" + tsv).replace("\n", "\r\n").encode(),
        "array.json": json.dumps([{"text": a, "label": b} for a, b in ROWS], indent=2).encode(),
        "array": json.dumps([{"label": b, "text": a} for a, b in ROWS]).encode(),
        "c.csv": 'label,text\ngood,"a ""quoted film"\nbad,"naïve, twice"\ngood,third\n'.encode(),
        "d.bin": (tmp_path / "file.parquet").read_bytes(),
        "e.gz": gzip.compress(jsonl(ROWS).encode()),
        "f": bz2.compress(jsonl(ROWS).encode()),
        "g": lzma.compress(tsv.encode()),
        "h": zstandard.compress(jsonl(ROWS).encode()),
        "i.parquet.gz": gzip.compress((tmp_path / "file.parquet").read_bytes()),
    }
    for name, content in contents.items():
        examples = read_examples(write(tmp_path / name, content))
        assert pairs(examples) == ROWS, name
        assert examples.rejected == []


def test_unbalanced_quotes_of_a_tsv_are_text_and_quoted_newlines_of_a_csv_are_one_row(tmp_path: Path):
    examples = read_examples(write(tmp_path / "a.tsv", 'sentence\tlabel\n"half\t0\nother" half\t1\n'))
    assert pairs(examples) == [('"half', "0"), ('other" half', "1")]
    examples = read_examples(write(tmp_path / "a.csv", 'text,label\n"two\nlines",1\nthree,0\n'))
    assert pairs(examples) == [("two\nlines", "1"), ("three", "0")]


@pytest.mark.parametrize("name", TEXT_COLUMNS)
def test_one_file_serves_as_corpus_and_as_examples(name: str, tmp_path: Path):
    texts = [f"This is text number {number} of twenty." for number in range(20)]
    data = write(tmp_path / "rows.jsonl", jsonl([(text, text[20]) for text in texts], name))
    assert read_examples(data).texts == texts
    corpus = build_corpus([str(data)], tmp_path / "corpus", progress=False)
    found = [document.text for split in ("train", "validation") for document in corpus.documents(split)]
    assert sorted(found) == sorted(texts)


def test_columns_are_found_by_their_usual_names_or_as_told(tmp_path: Path):
    assert pairs(read_examples(write(tmp_path / "a", jsonl(ROWS, "sentence", "intent")))) == ROWS
    told = read_examples(write(tmp_path / "b", jsonl(ROWS, "review", "stars")), "review", "stars")
    assert pairs(told) == ROWS
    both = write(tmp_path / "c", json.dumps({"text": "x", "content": "y", "label": "1", "class": "2"}) + "\n")
    assert pairs(read_examples(both)) == [("x", "1")]
    with pytest.raises(TilthError, match=r"no label column .*its columns are 'text', 'stars'.*--label-column"):
        read_examples(write(tmp_path / "d", jsonl(ROWS, "text", "stars")))
    with pytest.raises(TilthError, match="no text column .*'review', 'stars'"):
        read_examples(write(tmp_path / "e.csv", "review,stars\nfine,1\n"))
    with pytest.raises(TilthError, match="label may be column intent or category; say which"):
        read_examples(write(tmp_path / "f", json.dumps({"text": "x", "intent": "1", "category": "2"}) + "\n"))


def test_a_named_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path):
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(20))
    files = {"a.jsonl": jsonl(ROWS), "b.tsv": "text\tlabel\n" + rows, "c.csv": "text,label\na,1\n"}
    for name, content in files.items():
        path = write(tmp_path / name, content)
        with pytest.raises(TilthError, match=f"{name}: no column 'foo'; the columns are text, label$"):
            read_examples(path, text_column="foo")
        with pytest.raises(TilthError, match="no column 'stars'; the columns are text, label$"):
            read_examples(path, label_column="stars")


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("header", [True, False])
def test_a_tsv_of_the_csv_module_gives_back_what_was_written(tmp_path: Path, quoting, header: bool):
    rows = [("first", "good"), ("two\nlines", "bad"), ('he said "no"\tand left', "good"), ("plain", "bad")] * 3
    with open(tmp_path / "a.tsv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", quoting=quoting)
        writer.writerows([("text", "label"), *rows] if header else rows)
    examples = read_examples(tmp_path / "a.tsv")
    assert pairs(examples) == rows and examples.rejected == []


@pytest.mark.parametrize("cell", ['"half', 'other" half', '"whole"', 'a "word" of it', '"', '""', "` ` ''"])
def test_quotes_of_other_tsv_are_letters(tmp_path: Path, cell: str):
    rows = [(cell, "0"), ("between", "1"), (cell + " again", "0")]
    examples = read_examples(write(tmp_path / "a.tsv", "".join(f"{a}\t{b}\n" for a, b in [("text", "label"), *rows])))
    assert pairs(examples) == rows
    assert not is_quoted('text\tlabel\n"half\t0\nother"\t1\n')


def test_a_quoted_tsv_longer_than_the_sample(tmp_path: Path):
    rows = [(f'line one of {number}\nline "two"', str(number % 2)) for number in range(5000)]
    with open(tmp_path / "a.tsv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([("text", "label"), *rows])
    assert pairs(read_examples(tmp_path / "a.tsv")) == rows


def test_an_unknown_header_is_not_taken_for_an_example(tmp_path: Path):
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(20))
    with pytest.raises(TilthError, match="'review', 'stars'.*looks like a header"):
        read_examples(write(tmp_path / "a.tsv", "review\tstars\n" + rows))
    assert len(read_examples(tmp_path / "a.tsv", "review", "stars")) == 20
    assert len(read_examples(write(tmp_path / "b.jsonl", jsonl([("rare", "x"), *[("y", "y")] * 20])))) == 21


def test_the_columns_of_a_small_file_without_a_header_are_told(tmp_path: Path):
    rows = [("the film is fine", "p"), ("a bore", "n"), ("bad", "n"), ("good", "p"), ("loud", "n")]

    def read(rows: list[tuple[str, str]]) -> Examples:
        return read_examples(write(tmp_path / "a.tsv", "".join(f"{a}\t{b}\n" for a, b in rows)))

    with pytest.raises(TilthError, match="'review', 'stars'.*looks like a header"):
        read([("review", "stars"), *rows])
    assert len(read([("the first of a kind", "u"), *rows])) == 6
    assert len(read(rows)) == 5
    with pytest.raises(
        TilthError, match=r"of 8 rows, the first column has 2 values and the second 8: is the label first"
    ):
        read([(f"{number % 2}", f"text {number}") for number in range(8)])
    assert len(read([(f"text {number}", f"{number}") for number in range(8)])) == 8


def test_labels_of_any_plain_type_become_strings_in_order(tmp_path: Path):
    labels = [10, 9.0, "2", True, None, float("nan"), [1], "", 9]
    content = "".join(json.dumps({"text": "x", "label": label}) + "\n" for label in labels + ["2"] * 40)
    examples = read_examples(write(tmp_path / "a", content))
    assert examples.labels == ["10", "9", "2", "True", "9"] + ["2"] * 40
    assert [(row.line, row.reason) for row in examples.rejected] == [
        (5, "no label"),
        (6, "no label"),
        (7, "the label is not one value"),
        (8, "no label"),
    ]
    assert examples.label_names() == ["10", "2", "9", "True"]
    assert Examples(["x"] * 3, ["10", "9", "-1"]).label_names() == ["-1", "9", "10"]


def test_broken_rows_are_set_aside_with_their_line(tmp_path: Path):
    good = jsonl([(f"text {number}", str(number % 2)) for number in range(60)])
    bad = '{"text": "cut\n' + '{"text": 5, "label": "1"}\n[1]\n{"text": " ", "label": "1"}\n{"label": "1"}\n'
    examples = read_examples(write(tmp_path / "a", good + bad))
    assert len(examples) == 60
    assert [(row.line, row.reason) for row in examples.rejected] == [
        (61, "not a JSON object"),
        (62, "the text is not a string"),
        (63, "not a JSON object"),
        (64, "no text"),
        (65, "no text"),
    ]
    assert rejected_message("a.jsonl", 60, examples.rejected) == (
        "a.jsonl: 5 of 65 rows were left out: not a JSON object (lines 61, 63), the text is not a string (line 62), "
        "no text (lines 64, 65)"
    )
    assert rejected_message("a.jsonl", 60, []) == ""
    ragged = "text\tlabel\n" + "".join(f"x{number}\t1\n" for number in range(19)) + "a\tb\tc\n\nlone\n"
    examples = read_examples(write(tmp_path / "b", ragged))
    assert len(examples) == 19
    assert [(row.line, row.reason) for row in examples.rejected] == [
        (21, "3 cells in 2 columns"),
        (23, "1 cells in 2 columns"),
    ]
    encoded = b"text\tlabel\nfine\t1\ncaf\xe9\t0\n" + b"fine too\t0\n" * 8
    examples = read_examples(write(tmp_path / "c", encoded))
    assert examples.texts == ["fine"] + ["fine too"] * 8
    assert [(row.line, row.reason) for row in examples.rejected] == [(3, "not valid UTF-8")]


@pytest.mark.parametrize("lacks", ["text", "label"])
def test_the_columns_of_json_are_those_of_all_rows(tmp_path: Path, lacks: str):
    first = json.dumps({"id": 1, "text": "x", "label": "1"} | {lacks: None}) + "\n"
    bare = json.dumps({"id": 1, "text" if lacks == "label" else "label": "1"}) + "\n"
    good = jsonl([(f"text {number}", "1") for number in range(30)])
    for row in (first, bare):
        for content, line in ((row + good, 1), (good[: good.index("\n") + 1] + row + good, 2)):
            examples = read_examples(write(tmp_path / "a.jsonl", content))
            assert len(examples) == 29 + line
            assert [(row.line, row.reason) for row in examples.rejected] == [(line, f"no {lacks}")]


def test_the_usual_name_of_a_column_is_taken_from_any_row(tmp_path: Path):
    rows = '{"body": "no", "label": "1"}\n' + jsonl([(f"text {number}", "1") for number in range(30)])
    examples = read_examples(write(tmp_path / "a.jsonl", rows))
    assert examples.texts == [f"text {number}" for number in range(30)]
    assert [(row.line, row.reason) for row in examples.rejected] == [(1, "no text")]


def test_lines_of_a_json_array_are_told(tmp_path: Path):
    rows = [*[{"text": f"text {number}", "label": "1"} for number in range(20)], {"text": "x"}, 5]
    examples = read_examples(write(tmp_path / "a.json", "\n" + json.dumps(rows, indent=1)))
    assert examples.texts == [f"text {number}" for number in range(20)]
    assert [(row.line, row.reason) for row in examples.rejected] == [(83, "no label"), (86, "not a JSON object")]


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("blank", [0, 3])
def test_blank_lines_before_a_header_count_as_lines(tmp_path: Path, delimiter: str, blank: int):
    rows = [("text", "label"), ("two\nlines", "1"), *[("x", '"1"')] * 18, ("", "1")]
    path = tmp_path / "a"
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write("\n" * blank)
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert path.read_text().split("\n").index(f"{delimiter}1") + 1 == 22 + blank
    examples = read_examples(path)
    assert [(row.line, row.reason) for row in examples.rejected] == [(22 + blank, "no text")]


def test_a_column_that_is_named_twice_is_refused(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet

    message = "its header names the column 'text' more than once; rename all but one"
    quoted = '"text"\t"text"\t"label"\n"a"\t"b"\t"1"\n'
    for content in ("text,text,label\na,b,1\n", "text\ttext \tlabel\na\tb\t1\n", quoted):
        with pytest.raises(TilthError, match=message):
            read_examples(write(tmp_path / "a", content))
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "text", "label"])
    parquet.write_table(table, tmp_path / "a")
    with pytest.raises(TilthError, match=message):
        read_examples(tmp_path / "a")
    # Spreadsheets write empty columns behind the table.
    assert pairs(read_examples(write(tmp_path / "a", "text,label,,\na,1,,\nb,2,,\n"))) == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_rows_that_an_open_quote_makes_one_cell_are_told(tmp_path: Path, delimiter: str):
    def table(*rows: str) -> Path:
        lines = ["text,label", '"he said ""no"", and left",x', *rows, *["a good one,y"] * 30]
        return write(tmp_path / "a.csv", "".join(line.replace(",", delimiter) + "\n" for line in lines))

    between = [f"good one {number},x" for number in range(20)]
    examples = read_examples(table('"5 inch screen,x', *between, '6 inch",y'))
    assert examples.texts[1:] == ["a good one"] * 30
    told = "a cell of many lines that look like rows, as when a quote is open"
    assert [(row.line, row.reason) for row in examples.rejected] == [(3, told)]
    poem = "\n".join(f"line {number}" + ", and so on" * (number % 3) for number in range(20))
    assert read_examples(table(f'"{poem}",x')).texts[1].count("\n") == 19


def test_labels_that_are_bytes_are_none(tmp_path: Path):
    table = pa.table({"text": ["x"] * 30, "label": pa.array([b"u"] + [b"v"] * 29)})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(TilthError, match="30 of 30 rows cannot be used .line 1: the label is not one value"):
        read_examples(tmp_path / "a.parquet")


def test_too_many_broken_rows_are_an_error(tmp_path: Path):
    def file(good: int, bad: int) -> Path:
        return write(tmp_path / "a.tsv", "text\tlabel\n" + "x\ty\n" * good + "\ty\n" * bad)

    assert len(read_examples(file(100, 10)).rejected) == 10
    with pytest.raises(TilthError, match=r"11 of 111 rows cannot be used \(line 102: no text, line 103"):
        read_examples(file(100, 11))
    assert len(read_examples(file(1980, 20)).rejected) == 20
    with pytest.raises(TilthError, match="21 of 2001 rows"):
        read_examples(file(1980, 21))
    assert len(read_examples(file(18, 2)).rejected) == 2
    with pytest.raises(TilthError, match="2 of 19 rows"):
        read_examples(file(17, 2))
    with pytest.raises(TilthError, match="1 of 2 rows cannot be used .line 3: not valid UTF-8.*iconv -f WINDOWS-1252"):
        read_examples(write(tmp_path / "two.tsv", b"text\tlabel\nfine\tgood\ncaf\xe9\tbad\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"text\tlabel\n", "has no rows"),
        (b"just some prose\n", "is not jsonl, csv, tsv or parquet: it starts with 'just some prose'"),
        (b"\x7fELF\x00\x00\x01", "is binary"),
        (b"PAR1 and then nothing", "not a whole Parquet file"),
        (gzip.compress(jsonl(ROWS * 1000).encode())[:-20], "is damaged"),
        (b'text,label\n"never closed,1\n', "a quote may be open"),
        ("text,label\nfine,0\n".encode("utf-16"), "is UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8"),
        ("text,label\nfine,0\n".encode("utf-16-be"), "is binary"),
        (b"text,label\rfine,0\r", r"ends its lines by carriage returns alone; convert it first: tr '.r' '.n'"),
        (b'text,label\n"say \\"no\\" now",1\n', "a quote may be open, or one within a cell not doubled"),
        (b'{\n "data": [\n  {"text": "fine"', "one JSON object over several lines; write one on each line"),
        (b'[\n {"text": "fine",\n', r"is not a whole JSON array: .*line \d column \d.*Mend it or write jsonl"),
        (b'{"text": "' + b"x" * 16_100_000, "line 1 is longer than 16,000,000 characters"),
    ],
)
def test_files_that_are_not_examples(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(TilthError, match=message):
        read_examples(write(tmp_path / "a", content))


def test_missing_files_and_folders(tmp_path: Path):
    with pytest.raises(TilthError, match="does not exist"):
        read_examples(tmp_path / "none.tsv")
    with pytest.raises(TilthError, match="is a folder; give one file"):
        read_examples(tmp_path)


def test_unknown_labels_are_named():
    examples = Examples(["a", "b", "c"], ["good", "ugly", "ugly"], "test.tsv")
    assert Examples(["a", "b"], ["bad", "good"]).label_indexes(["good", "bad"]) == [1, 0]
    with pytest.raises(
        TilthError, match=r"test.tsv has 1 label.*'ugly' \(2 examples\).*known labels are 'good', 'bad'"
    ):
        examples.label_indexes(["good", "bad"])


def test_stratified_samples_are_balanced_nested_and_repeatable():
    examples = Examples([f"text {number}" for number in range(100)], ["a", "b", "b", "b", "c"] * 20)
    small, large = stratified_sample(examples, 8, seed=1), stratified_sample(examples, 30, seed=1)
    assert Counter(small.labels) == {"a": 8, "b": 8, "c": 8}
    assert Counter(large.labels) == {"a": 20, "b": 30, "c": 20}
    assert set(small.texts) < set(large.texts)
    assert set(small.labels[:3]) == {"a", "b", "c"}
    assert pairs(small) == pairs(stratified_sample(examples, 8, seed=1))
    assert set(small.texts) != set(stratified_sample(examples, 8, seed=2).texts)
    assert all(label == examples.labels[int(text.split()[1])] for text, label in pairs(large))


def test_held_out_share_of_every_label_without_shared_texts():
    texts = [f"text {number % 600}" if number % 2 else f"TEXT  {number % 600}" for number in range(1000)]
    examples = Examples(texts, ["a" if number % 600 < 450 else "b" for number in range(1000)])
    train, held_out = hold_out(examples, 0.2, seed=0)
    assert len(train) + len(held_out) == 1000
    assert not {normal_text(text) for text in train.texts} & {normal_text(text) for text in held_out.texts}
    for label, count in Counter(examples.labels).items():
        assert Counter(held_out.labels)[label] == pytest.approx(0.2 * count, abs=2)
    assert hold_out(examples, 0.2, seed=0)[1].texts == held_out.texts
    assert hold_out(examples, 0.2, seed=1)[1].texts != held_out.texts


def test_a_text_stays_on_its_side_when_others_are_added():
    texts = [f"text {number}" for number in range(400)]
    _, few = hold_out(Examples(texts[:200], ["a"] * 200), 0.25, seed=0)
    _, many = hold_out(Examples(texts, ["a"] * 400), 0.25, seed=0)
    both = set(few.texts) & set(many.texts)
    assert len(both) > 0.7 * len(few)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xy")), min_size=1, max_size=40), st.integers(0, 3)
)
def test_hold_out_keeps_every_example_once(rows: list[tuple[str, str]], seed: int):
    examples = Examples([text for text, _ in rows], [label for _, label in rows])
    train, held_out = hold_out(examples, 0.3, seed)
    assert Counter(pairs(train)) + Counter(pairs(held_out)) == Counter(rows)
    assert not set(train.texts) & set(held_out.texts)


def test_the_shared_data_is_read_whole(shared_data: Path):
    counts = {"sst2/train.tsv": 60_614, "sst2/test.tsv": 872, "ag_news/test.tsv": 7_600, "sci_cite/dev.txt": 916}
    for name, count in counts.items():
        examples = read_examples(shared_data / "classify" / name)
        assert len(examples) == count and examples.rejected == []
    assert examples.label_names() == ["background", "method", "result"]


def test_a_long_cell_of_a_csv_is_read(tmp_path: Path):
    long = "word " * 40_000
    path = write(tmp_path / "long.csv", f"text,label\n{long},a\nshort,b\n")
    assert pairs(read_examples(path))[0] == (long, "a")
