"""Placeholders of the same form as what they stand for."""

import re
from collections.abc import Callable

Masker = Callable[[str], tuple[str, int]]
"""text -> the text with placeholders, and how many were put in."""

NUMBER = re.compile(r"\d(?:[^\d\n]{0,3}\d){3}")
"""A hint of a number of any kind: four digits near each other."""

_DIGIT = re.compile(r"\d")
_UPPER = re.compile(r"[A-Z]")
_LETTER = re.compile(r"[a-zA-Z]")


def substitute(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str | None], text: str) -> tuple[str, int]:
    """The text with each match replaced, and how many; a match for which `replace` gives None stays."""
    count = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal count
        new = replace(match)
        if new is None or new == match[0]:
            return match[0]
        count += 1
        return new

    return pattern.sub(replaced, text), count


def on_lines(hint: re.Pattern[str], mask: Masker, text: str) -> tuple[str, int]:
    """`mask` applied to the lines that have a match of `hint`: most of a text has none, and costs one quick search."""
    parts, end, total = [], 0, 0
    while found := hint.search(text, end):
        start = max(end, text.rfind("\n", end, found.start()) + 1)
        stop = text.find("\n", found.end())
        stop = len(text) if stop < 0 else stop
        line, count = mask(text[start:stop])
        parts += [text[end:start], line]
        end, total = stop, total + count
    return ("".join([*parts, text[end:]]), total) if total else (text, 0)


def mask_digits(text: str) -> str:
    """Each digit as 0."""
    return _DIGIT.sub("0", text)


def mask_letters_and_digits(text: str) -> str:
    """Each ASCII letter as x, each digit as 0."""
    return _LETTER.sub("x", mask_digits(text))


def mask_capitals_and_digits(text: str) -> str:
    """Each ASCII capital as X, each digit as 0."""
    return _UPPER.sub("X", mask_digits(text))
