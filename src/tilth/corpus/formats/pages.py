"""From lines on pages to running text: words and paragraphs joined, and what repeats in the margins left out."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_OUTERMOST = 2
"""Lines at the top and at the bottom of a page that may be its margins."""

_REPEATED = 3
"""Pages on which a margin says the same at the same height."""

_HEIGHT = 2.0
"""Points that are one height."""

_NEIGHBOURS = 8
"""Lines before and after one that tell how wide its column is."""

_MOST_NUMBERS = 6
"""Numbers of a line that may be the page's."""

_NUMBER = re.compile(r"[0-9]{1,6}")
_ROMAN = re.compile(r"[ivxlc]{1,12}", re.IGNORECASE)
_ROMAN_DIGITS = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_SENTENCE_END = re.compile(r"[.!?:;…。！？][\"'”’)\]]*$")
# From the start of a word on, and none of it given back: a long run of letters would take a time that grows with its
# square.
_BROKEN_WORD = re.compile(r"(?<!\w)(\w++)\ufffe(\w+)")
_HYPHENATED = re.compile(r"(?<!\w)\w++-\w+")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page. left, right: its start and end. base: its height above the page's foot. size: its font's.

    All in points. hyphen: it ends in the middle of a word, of which the hyphen is not in `text`.
    """

    text: str
    left: float
    right: float
    base: float
    size: float
    hyphen: bool = False


def without_margins(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without running heads, feet and page numbers: outermost lines that three pages have at one height.

    They say the same, but for a number that counts with the pages: `Chapter 3` at the top of a page is no running head.
    """
    outer = [{id(line): _margin_keys(line, number) for line in _outermost(page)} for number, page in enumerate(pages)]
    found = Counter(key for lines in outer for key in {key for keys in lines.values() for key in keys})
    margins = {name for lines in outer for name, keys in lines.items() if any(found[key] >= _REPEATED for key in keys)}
    return [[line for line in page if id(line) not in margins] for page in pages]


def _outermost(page: Sequence[Line]) -> list[Line]:
    heights = sorted({round(line.base / _HEIGHT) for line in page})
    outer = {*heights[:_OUTERMOST], *heights[-_OUTERMOST:]}
    return [line for line in page if round(line.base / _HEIGHT) in outer]


def _margin_keys(line: Line, page: int) -> list[tuple[str, int]]:
    """Height and text, and the text with each of its numbers as the distance to the page's."""
    height = round(line.base / _HEIGHT)
    if _ROMAN.fullmatch(line.text):
        return [(f"#{_from_roman(line.text.lower()) - page}", height)]
    keys = [(line.text, height)]
    for match in list(_NUMBER.finditer(line.text))[:_MOST_NUMBERS]:
        relative = f"{line.text[: match.start()]}#{int(match[0]) - page}{line.text[match.end() :]}"
        keys.append((relative, height))
    return keys


def _from_roman(text: str) -> int:
    values = [_ROMAN_DIGITS[digit] for digit in text]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def join_lines(pages: Sequence[Sequence[Line]]) -> str:
    """The text of the pages: paragraphs with a blank line between them, and lines that were ended on purpose.

    Words broken at the end of a line are joined; a hyphen stays where the text has the word with it elsewhere, and not
    without. A line ends on purpose where the next word would have fitted in.
    """
    text = "".join(_joined(pages))
    words = Counter(re.findall(r"\w+", text.lower()))
    hyphenated = Counter(_HYPHENATED.findall(text.lower()))

    def mend(word: re.Match[str]) -> str:
        first, second = word[1], word[2]
        with_hyphen = f"{first}-{second}"
        is_name = second[:1].isupper() or second[:1].isdigit() or first[-1:].isdigit()
        if is_name or hyphenated[with_hyphen.lower()] > words[(first + second).lower()]:
            return with_hyphen
        return first + second

    return _BROKEN_WORD.sub(mend, text).replace("\ufffe", "-")


def _joined(pages: Sequence[Sequence[Line]]) -> Iterator[str]:
    """Texts of lines and what is between them. U+FFFE stands for a hyphen at the end of a line."""
    before: Line | None = None
    for page in pages:
        usual = _usual_distance(page)
        for index, line in enumerate(page):
            if before is not None:
                near = page[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS]
                yield _between(before, line, usual, near, index > 0)
            yield line.text
            before = line


def _usual_distance(page: Sequence[Line]) -> float:
    """From one baseline to the next."""
    pairs = zip(page, page[1:], strict=False)
    found = sorted(a.base - b.base for a, b in pairs if 0.5 * b.size < a.base - b.base < 3 * b.size)
    return found[len(found) // 2] if found else 0.0


def _between(before: Line, line: Line, usual: float, near: Sequence[Line], same_page: bool) -> str:
    if before.hyphen:
        return "\ufffe"
    size = max(line.size, 1.0)
    distance = before.base - line.base
    if same_page and abs(distance) < 0.5 * size:
        return " "
    ended = _SENTENCE_END.search(before.text) is not None
    if abs(before.size - line.size) > 0.15 * size:
        return "\n\n"
    if not same_page or distance < 0 or distance > 5 * max(usual, size):  # the next column or page
        return " " if not ended and line.text[:1].islower() else "\n\n"
    if distance > 1.25 * usual or ended and line.left > before.left + 0.8 * size:
        return "\n\n"
    edge = max(each.right for each in (*near, before) if abs(each.left - before.left) < 3 * size)
    first = line.text.partition(" ")[0]
    width = (line.right - line.left) / len(line.text) * (len(first) + 1)
    return "\n" if before.right + 1.2 * width < edge else " "
