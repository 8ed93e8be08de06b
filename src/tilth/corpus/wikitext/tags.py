"""Wikitext without comments, tags and tables. Each scan is linear in the text, also where nothing is ever closed."""

import re
from html.entities import html5

from tilth.corpus.wikitext.templates import BREAK, HOLE
from tilth.corpus.wikitext.words import names

_TAG = re.compile(r"<(?:!--|(/?)([a-zA-Z][a-zA-Z0-9]{0,19})(?![a-zA-Z0-9])([^<>]*+)>)")
_DROPPED = names(
    "ref|gallery|timeline|score|graph|mapframe|maplink|imagemap|templatedata|templatestyles|references|hiero|"
    "inputbox|categorytree|chem|ce|source|syntaxhighlight|style|script|includeonly|indicator"
)
_LITERAL = names("nowiki|pre")
_BREAKS = names("br|p|div|li|ul|ol|dl|dd|dt|blockquote|poem|hr|table|tr|td|th|h1|h2|h3|h4|h5|h6|center|caption")
_INLINE = names(
    "abbr|b|bdi|bdo|big|cite|code|data|del|dfn|em|font|i|ins|kbd|mark|noinclude|onlyinclude|q|rb|rp|rt|ruby|s|samp|"
    "small|span|strike|strong|sub|sup|time|tt|u|var|wbr|nowiki|pre|ref|references|math|section"
)
_CLOSES = {
    name: re.compile(rf"</{name}\s*+>", re.IGNORECASE) for name in (*_DROPPED, *_LITERAL, "math", "table", "sup")
}
_REF = re.compile(r"</ref\s*+>|<ref(?![a-zA-Z])[^<>]*+(?<!/)>", re.IGNORECASE)
_ESCAPES = str.maketrans({character: f"&#{ord(character)};" for character in "[]{}|'=*#:;<>_"})
_SUPERSCRIPTS = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
_SUPERSCRIPT = re.compile(r"[0-9+\-−n]{1,8}")


def drop_tags(text: str) -> str:
    """Tags and comments taken out, with their content where it is no prose.

    A tag that is never closed loses only itself; that it is not is looked up once for each name, so the scan is linear.
    """
    out: list[str] = []
    unclosed: set[str] = set()
    position = 0
    in_poem = False
    for match in _TAG.finditer(text):
        start = match.start()
        if start < position:
            continue
        plain = text[position:start]
        out.append(plain.replace("\n", BREAK) if in_poem else plain)
        position = match.end()
        if match[2] is None:
            end = text.find("-->", position)
            position = len(text) if end < 0 else end + 3
            # A comment alone on its line goes with the line.
            if text[start - 1] == "\n" and text.startswith("\n", position):
                position += 1
            continue
        name = match[2].lower()
        if name in _CLOSES and not match[1] and not match[3].endswith("/") and name not in unclosed:
            close = (_REF if name == "ref" else _CLOSES[name]).search(text, position)
            if close is None:
                unclosed.add(name)
            elif name == "ref" and not text.startswith("</", close.start()):
                line = text.find("\n", position, close.start())
                position = close.start() if line < 0 else line
                continue
            elif name == "sup":
                content = text[position : close.start()]
                if _SUPERSCRIPT.fullmatch(content):
                    out.append(content.translate(_SUPERSCRIPTS))
                    position = close.end()
                continue
            else:
                out.append(_content(name, text[position : close.start()]))
                position = close.end()
                continue
        if name in _BREAKS:
            out.append(BREAK)
            in_poem = (in_poem or name == "poem") and not (name == "poem" and match[1])
        elif name not in _INLINE and name not in _DROPPED:
            out.append(match[0])
    out.append(text[position:])
    return "".join(out)


def _content(name: str, content: str) -> str:
    if name in _LITERAL:
        return content.translate(_ESCAPES).replace("\n", BREAK)
    if name in ("math", "ce", "chem"):
        return _formula(content)
    return ""


_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_FONT = re.compile(r"\\(?:text|mbox|math(?:bf|rm|it|cal|bb|sf)|operatorname|displaystyle|left|right)(?![a-zA-Z])")
_SPACING = re.compile(r"\\[,;:! ]|\\q?quad(?![a-zA-Z])|~")
_GROUP = re.compile(r"\{([+\-−]?\w{1,20})\}")
_SYMBOLS = {"cdot": "·", "cdots": "⋯", "dots": "…", "infty": "∞", "ldots": "…", "neq": "≠", "to": "→"}
_LONGEST_PLAIN = 80


def _formula(latex: str) -> str:
    """A formula as plain text where it is short and nothing of it is lost, or else as it stands, on one line."""
    latex = " ".join(latex.split())
    if len(latex) > _LONGEST_PLAIN:
        return latex.translate(_ESCAPES)
    plain = _SPACING.sub(" ", _FONT.sub("", latex))
    plain = _COMMAND.sub(lambda match: _SYMBOLS.get(match[1]) or html5.get(match[1] + ";", match[0]), plain)
    plain = _GROUP.sub(r"\1", plain).strip()
    return (latex if any(character in plain for character in "\\{}&") else plain).translate(_ESCAPES) or HOLE


_TABLE = re.compile(r"\n[ \t:*#;]*+(?:(\{\|)|\|\}(?!\}(?!\})))")


def drop_tables(text: str) -> str:
    """Everything from `{|` to its `|}`, tables inside tables with it. One that is not closed is left."""
    opened: list[int] = []
    spans: list[tuple[int, int]] = []
    for match in _TABLE.finditer(text):
        if match[1]:
            opened.append(match.start())
        elif opened:
            start = opened.pop()
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, match.end()))
    out: list[str] = []
    position = 0
    for start, end in spans:
        out += (text[position:start], "\n\n")
        position = end
    out.append(text[position:])
    return "".join(out)
