"""Each format gives the documents that were written, however it is compressed and whatever its file is called."""

import bz2
import gzip
import json
import lzma
import random

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest
import zstandard

from tilth.corpus.formats import tell_format

TEXTS = [f"Document {number}: rain fell on field {number * 7} all day." for number in range(12)]
COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def write_format(folder, kind):
    """Write TEXTS as one file of `kind` (or one each for txt, md, html) and return the files' bytes by name."""
    folder.mkdir()
    table = pa.table({"id": [f"d{n}" for n in range(len(TEXTS))], "text": TEXTS, "year": list(range(1990, 2002))})
    rows = table.to_pylist()
    if kind in ("txt", "md"):
        return {f"{number:02}.{kind}": text.encode() for number, text in enumerate(TEXTS)}
    if kind == "html":
        page = "<html><head><title>t</title></head><body><main><p>{}</p></main></body></html>"
        return {f"{number:02}.html": page.format(text).encode() for number, text in enumerate(TEXTS)}
    if kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        lines = [separator.join(map(str, row)) for row in [("id", "text", "year"), *(row.values() for row in rows)]]
        return {f"data.{kind}": "\r\n".join(lines).encode()}
    if kind == "jsonl":
        return {"data.jsonl": "\n".join(json.dumps(row) for row in rows).encode()}
    if kind == "json":
        return {"data.json": json.dumps(rows, indent=1).encode()}
    sink = pa.BufferOutputStream()
    if kind == "parquet":
        parquet.write_table(table, sink)
    elif kind == "feather":
        feather.write_feather(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return {f"data.{kind}": sink.getvalue().to_pybytes()}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", ["txt", "md", "html", "csv", "tsv", "jsonl", "json", "parquet", "feather", "arrow"])
def test_format_and_compression(kind, suffix, tmp_path, build, documents):
    for name, data in write_format(tmp_path / "raw", kind).items():
        (tmp_path / "raw" / (name + suffix)).write_bytes(COMPRESS[suffix](data))
    corpus = build(tmp_path / "raw", validation=0.2)
    found = documents(corpus)
    assert sorted(document.text for document in found.values()) == sorted(TEXTS)
    assert corpus.card["in"] == corpus.card["kept"] == 12
    if kind not in ("txt", "md", "html"):
        assert found["d3"].text == TEXTS[3]
        assert str(found["d3"].metadata["year"]) == "1993"
        assert found["d3"].source == f"raw/data.{kind}{suffix}"
    else:
        assert found[f"raw/03.{kind}{suffix}"].text == TEXTS[3]


def test_zstd_frames_that_are_to_be_skipped_are(tmp_path, build, documents):
    """As pzstd writes them: the size of each frame before it."""
    frames = [zstandard.ZstdCompressor().compress(json.dumps({"text": text}).encode() + b"\n") for text in TEXTS]
    sizes = [b"\x50\x2a\x4d\x18\x04\0\0\0" + len(frame).to_bytes(4, "little") for frame in frames]
    packed = b"".join(size + frame for size, frame in zip(sizes, frames, strict=True))
    (tmp_path / "data.jsonl.zst").write_bytes(packed)
    found = documents(build(tmp_path / "data.jsonl.zst", validation=0.2))
    assert sorted(document.text for document in found.values()) == sorted(TEXTS)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "feather", "html"])
def test_content_tells_the_format_not_the_name(kind, tmp_path, build, documents):
    for name, data in write_format(tmp_path / "raw", kind).items():
        (tmp_path / "raw" / (name.partition(".")[0] + "-mislabelled")).write_bytes(gzip.compress(data))
    found = documents(build(tmp_path / "raw", validation=0.2))
    assert sorted(document.text for document in found.values()) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"plain words", "README", "text"),
        (b'{"text": "a"}\n{"text": "b"}\n', "train.txt", "jsonl"),
        (b'{\n  "text": "a"\n}', "one.json", "json"),
        (b"{curly} prose, no record", "notes.txt", "text"),
        (b"a,b\n1,2\n", "table.csv.gz", "table"),
        (b"\xef\xbb\xbf<!DOCTYPE html><p>x", "page.txt", "html"),
        (b"<?xml version='1.0'?>\n<html><p>x</html>", "page", "html"),
        (b"<mediawiki xmlns='x'>", "dump.xml", "mediawiki"),
        (b"<?xml version='1.0'?>\n<feed>", "feed.xml", "xml"),
        ("\ufeff<mediawiki xml:lang='bg'>".encode("utf-16-le"), "dump.xml", "mediawiki"),
        (b"WARC/1.0\r\n", "crawl.warc", "warc"),
        (bytes(range(256)), "noise.txt", "binary"),
        (b"not a table", "broken.parquet", "binary"),
        (gzip.compress(b"x", mtime=0), "twice.txt", "gz inside a compressed file"),
    ],
)
def test_tell_format(head, name, kind):
    assert tell_format(head, name) == kind


def test_one_common_text_column_is_found(tmp_path, build, documents):
    (tmp_path / "reviews.tsv").write_text("sentence\tlabel\nfine film \t1\ndull film\t0\n")
    found = documents(build(tmp_path / "reviews.tsv"))
    assert [found[f"reviews.tsv:{line}"].text for line in (2, 3)] == ["fine film ", "dull film"]
    assert found["reviews.tsv:2"].metadata == {"label": "1"}


def test_text_column_option(tmp_path, build, documents):
    rows = [{"id": number, "title": "t", "abstract": f"abstract {number}", "text": "no"} for number in range(3)]
    (tmp_path / "papers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = documents(build(tmp_path / "papers.jsonl", text_column="abstract"))
    assert found["2"].text == "abstract 2"
    assert found["2"].metadata == {"title": "t", "text": "no"}


def test_tab_separated_text_may_use_quotes_as_characters(tmp_path, build, documents):
    (tmp_path / "a.tsv").write_text('text\tlabel\n" so it began\t1\nhe said "no" twice\t0\n')
    found = documents(build(tmp_path / "a.tsv"))
    assert [found["a.tsv:2"].text, found["a.tsv:3"].text] == ['" so it began', 'he said "no" twice']


def test_a_quotation_mark_late_in_a_tab_separated_table_swallows_no_rows(tmp_path, build, documents):
    rows = [f"plain row {number}\t{number % 2}" for number in range(4000)]
    rows += ['"Begins with a mark\t1', "second row\t0", "third row\t1", 'ends in one"\t0']
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    found = documents(build(tmp_path / "a.tsv"))
    last = [(found[f"a.tsv:{line}"].text, found[f"a.tsv:{line}"].metadata["label"]) for line in range(4002, 4006)]
    assert last == [('"Begins with a mark', "1"), ("second row", "0"), ("third row", "1"), ('ends in one"', "0")]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("text\nHello, world\nAnother; one\n", ["Hello, world", "Another; one"]),
        ("text\tnotes, other\nHello, world\t5\nAnother\t6\n", ["Hello, world", "Another"]),
        ("text,label\nHello,5\nAnother,6\n", ["Hello", "Another"]),
        ('text\tlabel\nplain\t1\n"foo" said x\t2', ["plain", '"foo" said x']),
        ('text\tlabel\n"a, b"\t1\n"c ""d"""\t2', ["a, b", 'c "d"']),
    ],
)
def test_the_delimiter_and_the_quotes_of_a_tsv(content, texts, tmp_path, build, documents):
    (tmp_path / "a.tsv").write_text(content)
    found = documents(build(tmp_path / "a.tsv", validation=0.3))
    assert [found[f"a.tsv:{line}"].text for line in (2, 3)] == texts


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_rows_that_an_open_quote_makes_one_cell_are_set_aside(delimiter, tmp_path, build, documents, set_aside):
    between = [f"Row {number} is whole.,x" for number in range(20)]
    poem = "\n".join(f"line {number}" + ", and so on" * (number % 3) for number in range(20))
    lines = ["text,label", '"5 inch screen,x', *between, '6 inch",y', f'"{poem}",x']
    lines += [f"Other {number}.,y" for number in range(30)]
    (tmp_path / "a.csv").write_text("".join(line.replace(",", delimiter) + "\n" for line in lines))
    corpus = build(tmp_path / "a.csv")
    (record,) = set_aside(corpus.path)
    assert (record["record"], record["reason"]) == ("lines 2-23", "malformed_row")
    assert record["detail"].startswith("a cell of many lines that look like rows, as when a quote is open: ")
    kept = [document.text for document in documents(corpus).values()]
    assert len(kept) == 31 and poem.replace(",", delimiter) in kept


def test_quoted_csv_keeps_newlines_delimiters_and_quotes(tmp_path, build, documents):
    (tmp_path / "a.csv").write_text('id;text\nx;"one; two\nthree ""four"""\ny;plain\n')
    found = documents(build(tmp_path / "a.csv"))
    assert found["x"].text == 'one; two\nthree "four"'
    assert found["y"].text == "plain"


def test_html_is_its_main_content_in_its_own_encoding(tmp_path, build, documents):
    pytest.importorskip("resiliparse", reason="needs the extra html")
    page = (
        '<html><head><meta charset="iso-8859-1"></head><body><nav><ul><li><a href="/">Home</a></li></ul></nav>'
        "<article><p>Ein langer Absatz über Felder und Böden, der im Artikel steht.</p></article></body></html>"
    )
    (tmp_path / "page.html").write_bytes(page.encode("latin-1"))
    (tmp_path / "deep.html").write_text(
        "<html><body>" + "<div>" * 20_000 + "A sentence deep inside." + "</div>" * 20_000 + "</body></html>"
    )
    found = documents(build(tmp_path / "page.html", tmp_path / "deep.html"))
    assert found["page.html"].text.strip() == "Ein langer Absatz über Felder und Böden, der im Artikel steht."
    assert found["deep.html"].text.strip() == "A sentence deep inside."


def test_cleaning(tmp_path, build, documents):
    (tmp_path / "a.txt").write_bytes("\ufeffcafe\u0301\r\nline two\rline three, long enough\0".encode())
    (tmp_path / "b.txt").write_text("another")
    assert documents(build(tmp_path / "a.txt", tmp_path / "b.txt"))["a.txt"].text == (
        "café\nline two\nline three, long enough"
    )


def test_large_text_is_cut_at_good_places(tmp_path, build, documents):
    paragraph = " ".join(f"word{number}" for number in range(400)) + "\n\n"
    text = "".join(f"Paragraph {number}. {paragraph}" for number in range(2000))
    (tmp_path / "big.txt").write_text(text)
    found = documents(build(tmp_path / "big.txt"))
    parts = [found[f"big.txt#{number}"].text for number in range(1, len(found) + 1)]
    assert "".join(parts) == text
    assert all(part.endswith("\n\n") for part in parts)
    assert max(map(len, parts)) <= 256 * 1024


def test_a_line_without_spaces_is_cut_between_characters(tmp_path, build, documents):
    text = "".join(random.Random(0).choices([chr(0x4E00 + number) for number in range(20_000)], k=1_500_000))
    (tmp_path / "line.txt").write_text(text, encoding="utf-8")
    found = documents(build(tmp_path / "line.txt"))
    assert "".join(found[f"line.txt#{number}"].text for number in range(1, len(found) + 1)) == text


def test_another_corpus_is_a_source(tmp_path, build, documents):
    lines = [{"id": f"d{n}", "text": text, "tags": ["x"], "n": n} for n, text in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("\n".join([*map(json.dumps, lines), "broken"]))
    first = build(tmp_path / "a.jsonl")
    first.path.rename(tmp_path / "first")
    second = documents(build(tmp_path / "first"))
    assert {name: document.text for name, document in second.items()} == {f"d{n}": t for n, t in enumerate(TEXTS)}
    assert second["d4"].metadata == {"tags": ["x"], "n": 4}
