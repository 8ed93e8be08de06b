"""Lines of wikitext to paragraphs and headings, with what the passes before left of a sentence mended."""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.entities import html5

from tilth.corpus.wikitext.templates import HOLE
from tilth.corpus.wikitext.words import BACK_MATTER


@dataclass(frozen=True)
class Prose:
    """text: paragraphs and headings, a line each. sections: (level 1-6, heading, offset of the heading in `text`)."""

    text: str
    sections: list[tuple[int, str, int]] = field(default_factory=list)


_URL = r"\[(?:(?:https?|ftps?|mailto|news|irc|gopher|telnet):|//)[^\s\[\]]*+"
_LABELLED_URL = re.compile(_URL + r"[ \t]*+((?:[^\[\]\n]++|\[[^\[\]\n]*+\])*+)\]")
_MAGIC_WORD = re.compile(r"__[A-Z]{3,30}__")
_HEADING = re.compile(r"(={1,6})(.+?)(={1,6})")
_QUOTES = re.compile(r"('{2,})")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
_COORDINATES = re.compile(r"[\d.]+°[\d.°′″]* ?[NS] [\d.°′″]+ ?[EW]")
_PARENTHESES = re.compile(r" ?[(（][^()（）]*+[)）]")
_HOLE_LIST = re.compile(rf"{HOLE}(?:[ ,;]*+(?:and |or )?{HOLE})+")
_HOLES = re.compile(rf" ?{HOLE}[ {HOLE}]*+")
_HOLES_BEFORE_STOP = re.compile(rf"[,;]? ?{HOLE}[ {HOLE}]*+(?=[,;])| ?{HOLE}[ {HOLE}]*+(?=[.:!?)\]»”]|$)")
_SEGMENT = re.compile(r"([,;，；、] ?)")
_MOST_WORDS = 3
"""Words beside a hole in a part of a parenthesis that are taken out with it: `from Greek`, `pronounced`."""


def read_lines(text: str, language: str) -> Prose:
    """The last pass. text: without tags, tables, internal links and templates."""
    text = _MAGIC_WORD.sub("", _LABELLED_URL.sub(lambda match: match[1] or HOLE, text))
    kept = _without_empty_sections(_without_back_matter(map(_read_line, _paragraphs(text)), language))
    out: list[str] = []
    sections: list[tuple[int, str, int]] = []
    size = 0
    before: tuple[int, str] = (0, "")
    for level, line in kept:
        if line:
            if out:
                # A list and what leads to it stay together; a heading and a paragraph stand apart.
                out.append("\n\n" if level or before[0] or not before[1] else "\n")
                size += len(out[-1])
            if level:
                sections.append((level, line, size))
            out.append(line)
            size += len(line)
        before = (level, line)
    return Prose("".join(out), sections)


_STARTS_ALONE = frozenset(" \t*#:;=|!{-–—•")
"""What a line starts with that is no part of a paragraph: lists, headings, tables, text with its own line breaks."""


def _paragraphs(text: str) -> Iterator[str]:
    """The lines of a text, with those of a paragraph as one: it ends at a blank line and where another kind starts."""
    paragraph: list[str] = []
    for line in text.split("\n"):
        if line and line[0] not in _STARTS_ALONE and line != HOLE:
            paragraph.append(line)
            continue
        if paragraph:
            yield " ".join(paragraph)
            paragraph.clear()
        yield line
    if paragraph:
        yield " ".join(paragraph)


def _read_line(line: str) -> tuple[int, str]:
    """(level, heading) or (0, prose); the prose is empty for a blank line and for what is left of a table."""
    line = line.strip()
    if not line:
        return 0, ""
    level = 0
    first = line[0]
    if first == "=" and len(line) > 2 and (match := _HEADING.fullmatch(line)):
        level, line = min(len(match[1]), len(match[3])), match[2]
    elif first in "*#:;":
        line = line.lstrip("*#:; ")
    elif first == "|" or line.startswith(("{|", "----")) or (first == "!" and ("|" in line or "!!" in line)):
        return 0, ""
    line = _clean(line)
    alone = not any(map(str.isalnum, line)) or ("°" in line and _COORDINATES.fullmatch(line))
    return (0, "") if alone else (level, line)


def _clean(line: str) -> str:
    """One line without the marks of bold and italics, with its entities as characters, and its holes mended."""
    if "''" in line:
        line = _drop_quotes(line)
    if "&" in line:
        line = _ENTITY.sub(_character, line)
    if line.isascii() and "  " not in line and "\t" not in line:
        line = line.strip()
    else:
        line = " ".join(_INVISIBLE.sub("", line).split())
    if HOLE in line:
        if not any(map(str.isalnum, _PARENTHESES.sub("", line))):
            return ""  # an item whose words were in a template, with a remark on it
        line = _HOLE_LIST.sub(HOLE, line)
    if "(" in line or "（" in line:
        line = _PARENTHESES.sub(_mend_parentheses, line)
    if HOLE in line:
        line = _HOLES.sub(" ", _HOLES_BEFORE_STOP.sub("", line)).strip()
    line = line.replace(" , ", ", ").replace(" . ", ". ")
    line = line[:-2] + "." if line.endswith(" .") else line
    return line if line.isascii() else unicodedata.normalize("NFC", line)


def _character(match: re.Match[str]) -> str:
    entity = match[0]
    return html.unescape(entity) if entity[1] == "#" else html5.get(entity[1:], entity)


def _drop_quotes(line: str) -> str:
    """Without the marks of bold and italics, by MediaWiki's rule for an apostrophe beside them (`Parser::doQuotes`).

    Of four quotes the first is an apostrophe, of more than five all but five; where bold and italics are both
    unbalanced, one of three quotes is: one after a word of one letter if there is such, else after a word.
    """
    parts = _QUOTES.split(line)
    sizes = [min(5, len(mark)) if len(mark) != 4 else 3 for mark in parts[1::2]]
    kept = ["'" * (len(mark) - size) for mark, size in zip(parts[1::2], sizes, strict=True)]
    bold = sum(size in (3, 5) for size in sizes)
    italics = sum(size in (2, 5) for size in sizes)
    if bold % 2 and italics % 2:
        threes = [index for index, size in enumerate(sizes) if size == 3]
        after_letter = [index for index in threes if parts[2 * index][-2:-1] == " " and parts[2 * index][-1:] != " "]
        after_word = [index for index in threes if parts[2 * index][-1:] not in ("", " ")]
        for index in (after_letter or after_word or threes)[:1]:
            kept[index] += "'"
    parts[1::2] = kept
    return "".join(parts)


def _mend_parentheses(match: re.Match[str]) -> str:
    """Parentheses without their holes and the few words that led to one; nothing, where nothing is left."""
    whole = match[0]
    opened = 1 if whole[0] == " " else 0
    content = whole[opened + 1 : -1]
    if HOLE in content:
        pieces = _SEGMENT.split(content)
        content = ""
        for index in range(0, len(pieces), 2):
            words = pieces[index]
            if HOLE in words and len(words.replace(HOLE, " ").split()) <= _MOST_WORDS:
                continue
            content += (pieces[index - 1] if content else "") + words
    elif content and content[0] not in " ,;:" and content[-1] not in " ,;:":
        return whole
    content = content.strip(" ,;:" + HOLE)
    return f"{whole[: opened + 1]}{content}{whole[-1]}" if content else ""


def _without_back_matter(lines: Iterable[tuple[int, str]], language: str) -> Iterator[tuple[int, str]]:
    """Without the sections that hold references and links, and what is under them."""
    unwanted = BACK_MATTER.get(language, BACK_MATTER["en"])
    hidden = 0
    for level, line in lines:
        if level and (not hidden or level <= hidden):
            hidden = level if line.lower() in unwanted else 0
        if not hidden:
            yield level, line


def _without_empty_sections(lines: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Without the headings that have no prose under them."""
    kept: list[tuple[int, str]] = []
    following = -1  # the level of the next heading, 0 for prose, -1 for the end
    for level, line in reversed(list(lines)):
        if level and (following < 0 or 0 < following <= level):
            continue
        if line:
            following = level
        kept.append((level, line))
    return kept[::-1]
