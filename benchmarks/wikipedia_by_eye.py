"""Wikitext to prose judged by eye: 50 articles for a reader, and of their defects those that a program can count.

The articles are those whose titles have the least SHA-256 with the seed before them, but that every language of the
dumps is among them. For each, three files are written to read beside each other: its wikitext, the text of
`tilth.corpus.wikitext.to_prose`, and that of `mwparserfromhell`'s `parse(...).strip_code()`.

    python benchmarks/wikipedia_by_eye.py ../shared/data/wikipedia --out /tmp/articles
"""

import argparse
import hashlib
import re
from pathlib import Path

import mwparserfromhell
from mwparserfromhell.nodes import Wikilink
from wikipedia import read_articles

from tilth.corpus.wikitext import Names, brackets, lines, to_prose
from tilth.corpus.wikitext.templates import HOLE, look_up

ARTICLES = 50
_PICTURE = re.compile(r"^.*\|.*$|\b\d+px\b|^(?:thumb|right|left|center|frame)\b.*$", re.MULTILINE)
_CATEGORY = re.compile(r"^(?:Category|Категория):.*$", re.MULTILINE)
_MARKS = re.compile(r"''|\[\[|\]\]|\{\{|\}\}|</?[a-z]+[^<>\n]*>|__[A-Z]+__|\{\||\|\}")
_EMPTY = re.compile(r"\(\s*[,;]?\s*\)|\( |\(,|\(;| \)| ,")


def draw(articles: list[tuple[str, str, Names]], seed: int) -> list[tuple[str, str, Names]]:
    """ARTICLES of them, the first of each language before others."""
    ordered = sorted(articles, key=lambda article: hashlib.sha256(f"{seed} {article[0]}".encode()).digest())
    languages: set[str] = set()
    first = [each for each in ordered if not (each[2].language in languages or languages.add(each[2].language))]
    return (first + [each for each in ordered if each not in first])[:ARTICLES]


def templates_in_sentences(text: str, wiki: Names) -> int:
    """Templates that show words within a sentence, and leave a hole in it when they are taken out."""
    holes = 0
    clean = lines._clean

    def count_and_clean(line: str) -> str:
        nonlocal holes
        if any(map(str.isalnum, line)):
            holes += line.count(HOLE)
        return clean(line)

    brackets.look_up = lambda head: HOLE if look_up(head) != "" else ""
    lines._clean = count_and_clean
    try:
        to_prose(text, wiki)
    finally:
        brackets.look_up, lines._clean = look_up, clean
    return holes


def in_the_wikitext(text: str, wiki: Names) -> dict[str, int]:
    """How much there is of what a reader may lose or leave."""
    code = mwparserfromhell.parse(text)
    tags = code.filter_tags()
    references = [tag for tag in tags if str(tag.tag).lower() == "ref" and tag.contents is not None]
    return {
        "templates within a sentence": templates_in_sentences(text, wiki),
        "formulas": sum(str(tag.tag).lower() == "math" for tag in tags),
        "tables": sum(str(tag.tag).lower() == "table" for tag in tags),
        "references in words": sum(bool(tag.contents.strip_code().strip()) for tag in references),
        "pictures": sum(
            wiki.hides(str(link.title).partition(":")[0].strip().lower()) for link in code.filter(forcetype=Wikilink)
        ),
    }


def in_the_text(text: str) -> dict[str, int]:
    """How much is left in a text of what is no prose."""
    return {
        "lines of pictures": len(_PICTURE.findall(text)),
        "lines of categories": len(_CATEGORY.findall(text)),
        "marks and tags": len(_MARKS.findall(text)),
        "empty parentheses, stops apart": len(_EMPTY.findall(text)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="dumps, *.xml.bz2")
    parser.add_argument("--out", type=Path, required=True, help="where the articles are written")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sums: dict[str, dict[str, int]] = {"wikitext": {}, "tilth": {}, "mwparserfromhell": {}}
    for number, (title, text, wiki) in enumerate(draw(read_articles(arguments.folder), arguments.seed)):
        read = {
            "wikitext": text,
            "tilth": to_prose(text, wiki).text,
            "mwparserfromhell": mwparserfromhell.parse(text).strip_code(),
        }
        for name, shown in read.items():
            (arguments.out / f"{number:02}.{name}.txt").write_text(f"{title}\n\n{shown}\n", encoding="utf-8")
            counts = in_the_wikitext(text, wiki) if name == "wikitext" else in_the_text(shown)
            for kind, count in counts.items():
                sums[name][kind] = sums[name].get(kind, 0) + count
    for name, counts in sums.items():
        print(name, *(f"{kind}: {count}" for kind, count in counts.items()), sep="\n    ")


if __name__ == "__main__":
    main()
