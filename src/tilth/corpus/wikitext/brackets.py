"""Links and templates of wikitext, by one scan over `[[ ]] {{ }} |` with a stack of what is open."""

import re
from operator import itemgetter

from tilth.corpus.wikitext.templates import look_up
from tilth.corpus.wikitext.words import NO_LANGUAGES, Names

MAX_DEPTH = 64
"""Links and templates open at once; what opens deeper is taken for plain text. MediaWiki stops at 40 templates."""

_LINK_AS = re.compile(r"\[\[[^\[\]{}|\n:]++\|([^\[\]{}|\n]++)\]\]")
_LINK = re.compile(r"\[\[([^\[\]{}|\n:#/][^\[\]{}|\n:]*+)\]\]")
_FIRST = itemgetter(1)
_BRACKETS = re.compile(r"(\[\[|\]\]|\{\{+|\}\}+|\||\n[ \t]*+\n)")
_BLANK = re.compile(r"\n[ \t]*+\n")
_LANGUAGE_LINK = re.compile(r"(?:[a-z]{2,3}(?:-[a-z]{2,10})*|simple):(?! )")


class _Open:
    """A link or template whose end has not been seen. start: its first piece; bars: the pieces that are its pipes."""

    __slots__ = ("bars", "is_link", "start")

    def __init__(self, is_link: bool, start: int) -> None:
        self.is_link = is_link
        self.start = start
        self.bars: list[int] = []


def resolve(text: str, wiki: Names) -> str:
    """The text with links and templates replaced by what they show.

    All pieces of text are in one list; what is closed is cut off its end and replaced by one piece, and what turns out
    never to be closed stays there as it is, so that nothing is moved twice at one depth.
    """
    # Plain links are most of all, and one substitution each.
    text = _LINK.sub(_FIRST, _LINK_AS.sub(_FIRST, text))
    out: list[str] = []
    stack: list[_Open] = []
    templates = 0
    parts = _BRACKETS.split(text)
    parts.append("")
    for plain, token in zip(parts[::2], parts[1::2], strict=True):
        if plain:
            out.append(plain)
        if token == "|":
            if stack:
                stack[-1].bars.append(len(out))
            out.append(token)
        elif token == "[[":
            if len(stack) < MAX_DEPTH:
                stack.append(_Open(True, len(out)))
        elif token == "]]":
            if stack and stack[-1].is_link:
                _close(out, stack.pop(), wiki)
        elif token.startswith("{"):
            for _ in range(min(len(token) // 2, MAX_DEPTH - len(stack))):
                stack.append(_Open(False, len(out)))
                templates += 1
        elif token.startswith("}"):
            for _ in range(min(len(token) // 2, templates)):
                while stack[-1].is_link:
                    _abandon(out, stack.pop(), wiki)
                _close(out, stack.pop(), wiki)
                templates -= 1
        elif token:
            while stack and stack[-1].is_link:
                _abandon(out, stack.pop(), wiki)
            out.append(token)
    while stack:
        _abandon(out, stack.pop(), wiki)
    return "".join(out)


def _close(out: list[str], opened: _Open, wiki: Names) -> None:
    """Replace the pieces of a link or template by what it shows."""
    start, bars = opened.start, opened.bars
    if opened.is_link and wiki.hides(_namespace(out, start)):
        del out[start:]
        return
    head = "".join(out[start : bars[0] if bars else len(out)])
    if opened.is_link:
        shown = "".join(out[bars[0] + 1 :]) if bars else head.strip().strip("/:")
        if _LANGUAGE_LINK.match(head) and head.partition(":")[0] not in NO_LANGUAGES:
            shown = ""
    elif isinstance(carried := look_up(head), str):
        shown = carried
    else:
        ends = [*bars[1:], len(out)]
        shown = carried(["".join(out[bar + 1 : end]) for bar, end in zip(bars, ends, strict=False)])
    del out[start:]
    if shown:
        out.append(shown)


def _namespace(out: list[str], start: int) -> str:
    """The namespace of the link that starts with this piece; empty where there is none."""
    return out[start].partition(":")[0].strip().lower() if start < len(out) and ":" in out[start] else ""


def _abandon(out: list[str], opened: _Open, wiki: Names) -> None:
    """Of what is never closed, a template or picture reaches to the next blank line; the words of a link stay."""
    start = opened.start
    if opened.is_link and not wiki.hides(_namespace(out, start)):
        return
    end = start
    while end < len(out) and not _BLANK.fullmatch(out[end]):
        end += 1
    del out[start:end]
