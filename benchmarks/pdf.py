"""Text of PDF files: Tilth's reader and the libraries pypdfium2, pypdf and pdfminer.six as they come, on known texts.

Forty abstracts of papers are set by Chromium (one column; two, hyphenated), pdfLaTeX (one column; two; with running
heads) and LibreOffice. Precision and recall are those of shingles of four words, so they fall where words are broken,
in the wrong order, or mixed with running heads. Time is processor time, the median of `--repeats` rounds.

The argument is the folder `text/acl_abstracts` of the real data; programs that are not installed are left out:

    python -m pip install pypdf pdfminer.six
    python benchmarks/pdf.py ../shared/data/text/acl_abstracts
"""

import argparse
import html
import io
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pdfminer.high_level
import pypdf
import pypdfium2
import zstandard
from extraction import overlap
from machine import add_results, describe, write_table

from tilth.corpus.compression import open_stream
from tilth.corpus.formats.pdf import read_pdf
from tilth.corpus.reading import PLAIN
from tilth.corpus.records import Record

ABSTRACTS = 40

_HEADS = (
    r"""\usepackage{fancyhdr}\pagestyle{fancy}\fancyhead[L]{A Journal}\fancyhead[R]{Volume 7}\fancyfoot[C]{\thepage}"""
)


def known_texts(folder: Path) -> list[str]:
    """Abstracts of plain words, which every program sets as they are."""
    with open(folder / "abstracts_2016plus.jsonl.zst", "rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        texts = [json.loads(line)["abstract"] for line, _ in zip(lines, range(400), strict=False)]
    plain = [text for text in texts if text and len(text) > 500 and text.isascii()]
    return [text for text in plain if not re.search(r"[\\{}$%&#_^~<>]", text)][:ABSTRACTS]


def page(texts: list[str], style: str) -> str:
    body = "".join(f"<h2>Abstract {n}</h2><p>{html.escape(text)}</p>" for n, text in enumerate(texts))
    return f"<!doctype html><html lang=en><meta charset=utf-8><style>body{{{style}}}</style><body>{body}</html>"


def article(texts: list[str], options: str) -> str:
    body = "\n\n".join(f"\\section*{{Abstract {n}}}\n{text}" for n, text in enumerate(texts))
    head = rf"\documentclass[{options}]{{article}}\usepackage[T1]{{fontenc}}{_HEADS}"
    return rf"{head}\begin{{document}}{body}\end{{document}}"


def set_by_chromium(folder: Path, texts: list[str], name: str, style: str) -> None:
    (folder / f"{name}.html").write_text(page(texts, style))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
    subprocess.run(
        [*command, f"--print-to-pdf={name}.pdf", f"{name}.html"], cwd=folder, check=True, capture_output=True
    )


def set_by_latex(folder: Path, texts: list[str], name: str, options: str) -> None:
    (folder / f"{name}.tex").write_text(article(texts, options))
    subprocess.run(["pdflatex", "-interaction=batchmode", f"{name}.tex"], cwd=folder, check=True, capture_output=True)


def set_by_libreoffice(folder: Path, texts: list[str], name: str, style: str) -> None:
    (folder / f"{name}.html").write_text(page(texts, style))
    command = ["soffice", "--headless", "--infilter=HTML (StarWriter)", "--convert-to", "pdf:writer_pdf_Export"]
    subprocess.run([*command, f"{name}.html"], cwd=folder, check=True, capture_output=True)


SETTERS = {
    "chromium, one column": ("chromium", set_by_chromium, "font:11pt serif"),
    "chromium, two columns": ("chromium", set_by_chromium, "columns:2;text-align:justify;hyphens:auto"),
    "pdflatex, one column": ("pdflatex", set_by_latex, ""),
    "pdflatex, two columns": ("pdflatex", set_by_latex, "twocolumn"),
    "libreoffice": ("soffice", set_by_libreoffice, ""),
}


def by_tilth(content: bytes) -> str:
    items = read_pdf(open_stream(iter([content]), len(content)), "a.pdf", PLAIN)
    return "".join(item.text for item in items if isinstance(item, Record))


def by_pdfium(content: bytes) -> str:
    with pypdfium2.PdfDocument(content) as document:
        return "\n".join(each.get_textpage().get_text_range() for each in document)


READERS: dict[str, Callable[[bytes], str]] = {
    "Tilth": by_tilth,
    "pypdfium2": by_pdfium,
    "pypdf": lambda content: "\n".join(each.extract_text() for each in pypdf.PdfReader(io.BytesIO(content)).pages),
    "pdfminer.six": lambda content: pdfminer.high_level.extract_text(io.BytesIO(content)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_results(parser, __file__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    texts = known_texts(arguments.data)
    gold = " ".join(f"Abstract {n} {text}" for n, text in enumerate(texts))
    lines = ["| set by | reader | precision | recall | ms a page |", "|---|---|--:|--:|--:|"]
    for setter, (program, write, option) in SETTERS.items():
        if shutil.which(program) is None:
            print(f"{program} is not installed: left out")
            continue
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), texts, "texts", option)
            content = (Path(folder) / "texts.pdf").read_bytes()
        pages = len(pypdfium2.PdfDocument(content))
        seconds: dict[str, list[float]] = {name: [] for name in READERS}
        for _ in range(arguments.repeats):
            for name, read in READERS.items():
                started = time.process_time()
                read(content)
                seconds[name].append(time.process_time() - started)
        for name, read in READERS.items():
            precision, recall = overlap(read(content), gold)
            spent = 1000 * statistics.median(seconds[name]) / pages
            lines.append(f"| {setter} | {name} | {precision or 0:.3f} | {recall:.3f} | {spent:.1f} |")
            print(lines[-1], flush=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("pypdfium2", "pypdf", "pdfminer.six"))
    about = f"Machine: {describe()}. {versions}; medians of {arguments.repeats} rounds."
    write_table(arguments.results, __doc__, about, lines)


if __name__ == "__main__":
    main()
