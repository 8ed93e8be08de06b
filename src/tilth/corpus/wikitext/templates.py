"""What the templates of wikitext leave in the prose: the few that carry words of the sentence they stand in.

A template is known by its name in lower case. All others are dropped; those that stand for something the reader would
have seen leave a `HOLE`, so that what surrounded them can be mended.
"""

import re
from collections.abc import Callable

from tilth.corpus.wikitext.words import names

HOLE = "\0"
"""Stands where something was taken out of a sentence. No XML, and so no dump, can hold this character."""

BREAK = "\n "
"""The end of a line within a paragraph. Lines that start with a space are not joined."""

Arguments = tuple[list[str], dict[str, str]]
"""The positional arguments, and the named ones."""

_START = re.compile(r"\w+[-/]")
_NAME = re.compile(r"[\w\- ]{1,30}")
_NUMBER = re.compile(r"[-−+]?[\d.,/⁄+]+(?:e[-−+]?\d+)?")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def look_up(head: str) -> str | Callable[[list[str]], str]:
    """What a template leaves, or the function that makes it of the arguments.

    head: what stands before the first pipe: the name, or `function: value`. The function takes the arguments as they
    stand, with whatever is nested in them resolved.
    """
    name = head.strip().lower().replace("_", " ")
    if ":" in name:
        function, _, value = head.strip().partition(":")
        if (known := _FUNCTIONS.get(function.lower())) is not None:
            return known(([value.strip()], {}))
    known = _PROSE.get(name)
    if known is None and (match := _START.match(name)):
        known = _PROSE_STARTS.get(match[0])
    if known is not None:
        return lambda parts: known(arguments(parts))
    return "" if name in _SILENT or name.startswith(_SILENT_STARTS) or name.endswith(" icon") else HOLE


def arguments(parts: list[str]) -> Arguments:
    """Positional and named arguments; `1=x` is a positional one."""
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not _NAME.fullmatch(name):
            positional.append(part.strip())
        elif name.isdecimal():
            positional.append(value)
        else:
            named[name.lower()] = value
    return positional, named


def _argument(number: int) -> Callable[[Arguments], str]:
    """The positional argument with this number (from 0; -1 is the last)."""

    def pick(given: Arguments) -> str:
        try:
            return given[0][number]
        except IndexError:
            return HOLE

    return pick


def _constant(text: str) -> Callable[[Arguments], str]:
    return lambda given: text


def _joined(separator: str) -> Callable[[Arguments], str]:
    return lambda given: separator.join(given[0])


def _quote(given: Arguments) -> str:
    positional, named = given
    text = named.get("text") or named.get("quote") or (positional[0] if positional else "")
    return f"\n\n{text}\n\n"


def _poem(given: Arguments) -> str:
    return _quote(given).replace("\n", BREAK)


def _list(given: Arguments) -> str:
    return "".join(f"\n* {item}" for item in given[0] if item) + "\n\n"


def _columns(given: Arguments) -> str:
    """`2|list` or `col1=list|col2=list`, each a list of wikitext."""
    positional, named = given
    columns = [text for name, text in named.items() if _COLUMN.fullmatch(name)] or positional[-1:]
    return "".join(f"\n{text}\n" for text in columns)


_COLUMN = re.compile(r"col[1-9]")


def _pronunciation(given: Arguments) -> str:
    """`/x/` or `fr|x` -> `/x/`, `[x]`."""
    words = given[0]
    if len(words) > 1 and words[0].isascii() and words[0].islower():
        return f"[{words[1]}]"
    return words[0] if words else HOLE


def _pronunciation_in(given: Arguments) -> str:
    return f"[{given[0][0]}]" if given[0] else HOLE


def _pronunciation_of_keys(given: Arguments) -> str:
    """`UK|ə|ˈ|r|uː|b|ə` -> `/əˈruːbə/`."""
    keys = "".join(key for key in given[0] if key.lower() not in _PRONUNCIATION_LABELS).replace("_", " ")
    return f"/{keys}/" if keys else HOLE


def _respelling(given: Arguments) -> str:
    """`AY|n|_|RAND` -> `AY-n RAND`."""
    return "-".join(word for word in given[0] if word != "'").replace("-_-", " ")


_PRONUNCIATION_LABELS = names("us|uk|gb|au|nz|ca|ie|za|gam|lang|pron|local|icon|also|alsolocal|or|audio")


def _coordinates(given: Arguments) -> str:
    """`12|19|N|70|1|W` -> `12°19′N 70°1′W`; `40.3|47.7` -> `40.3, 47.7`. Those in the page's title show no place."""
    positional, named = given
    if named.get("display") in ("title", "t"):
        return ""
    text, marks = "", iter("°′″")
    for word in positional[:8]:
        if word in ("N", "S", "E", "W"):
            text, marks = f"{text}{word} ", iter("°′″")
        elif _NUMBER.fullmatch(word):
            text += word + next(marks, "")
    if "N" not in text and "S" not in text:
        text = ", ".join(positional[:2])
    return text.strip() or HOLE


_SUPERSCRIPTS = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_CHARGE = re.compile(r"\d*[+\-−]")


def _chemical(given: Arguments) -> str:
    """`SO|4|2-` -> `SO4²⁻`."""
    return "".join(word.translate(_SUPERSCRIPTS) if _CHARGE.fullmatch(word) else word for word in given[0])


def _old_style_date(given: Arguments) -> str:
    """`February 2|1905|January 20` -> `February 2 [O.S. January 20] 1905`."""
    date, year, old = ([*given[0], "", "", ""])[:3]
    return " ".join(filter(None, (date, f"[O.S. {old}]" if old else "", year))) or HOLE


_UNITS = {
    "km2": "km²", "m2": "m²", "cm2": "cm²", "mm2": "mm²", "km3": "km³", "m3": "m³", "cm3": "cm³", "sqmi": "sq mi",
    "sqft": "sq ft", "sqkm": "km²", "acre": "acres", "mile": "miles", "foot": "feet", "c": "°C", "f": "°F", "C": "°C",
    "F": "°F", "K": "K", "impgal": "imp gal", "usgal": "US gal", "USgal": "US gal", "U.S.gal": "US gal",
    "kmh": "km/h", "km/h": "km/h",
    "lbs": "lb", "st": "st", "ST": "short tons", "LT": "long tons", "ha": "ha", "cuft": "cu ft", "cumi": "cu mi",
    "/sqmi": "per square mile", "/km2": "per square kilometre", "PD/sqmi": "per square mile",
    "PD/km2": "per square kilometre", "oilbbl": "barrels", "oilbbl/d": "barrels per day",
}  # fmt: skip
_POWERS = {
    "e3": "thousand", "k": "thousand", "e6": "million", "M": "million", "e9": "billion", "G": "billion",
    "e12": "trillion", "T": "trillion",
}  # fmt: skip
_POWER = re.compile(r"(e[369]|e12)(?=[A-Za-z])|([kMGT])(?=oilbbl|USgal|impgal|cuft)")
_RANGES = {
    "-": "–", "–": "–", "to": " to ", "to(-)": " to ", "and": " and ", "or": " or ", "x": " × ", "by": " by ",
    "*": " × ", "+/-": " ± ", "±": " ± ",
}  # fmt: skip


def _convert(given: Arguments) -> str:
    """`5|km|mi` -> `5 km`; `5|to|10|km` -> `5 to 10 km`; `6|ft|2|in|m` -> `6 ft 2 in`."""
    words = given[0]
    if not words or not _NUMBER.fullmatch(words[0]):
        return HOLE
    text, index = _grouped(words[0]), 1
    while index + 1 < len(words) and words[index] in _RANGES and _NUMBER.fullmatch(words[index + 1]):
        text += _RANGES[words[index]] + _grouped(words[index + 1])
        index += 2
    if index >= len(words):
        return text
    text += " " + _unit(words[index])
    if index + 2 < len(words) and _NUMBER.fullmatch(words[index + 1]) and words[index + 2].isalpha():
        text += f" {words[index + 1]} {_unit(words[index + 2])}"
    return text


_UNGROUPED = re.compile(r"([-−+]?)([1-9][0-9]{3,19})((?:\.\d*)?)")


def _grouped(number: str) -> str:
    """`-12345.6` -> `-12,345.6`, as the template shows it."""
    match = _UNGROUPED.fullmatch(number)
    return f"{match[1]}{int(match[2]):,}{match[3]}" if match else number


def _unit(code: str) -> str:
    """`sqmi` -> `sq mi`; `e6carat` -> `million carat`."""
    power = _POWER.match(code)
    name = code[power.end() :] if power else code
    return (_POWERS[power[0]] + " " if power else "") + _UNITS.get(name, name)


def _date(given: Arguments) -> str:
    """`1950|5|3` -> `May 3, 1950`, or `3 May 1950` with `df=y`; what is no number is kept as it is written."""
    positional, named = given
    year, month, day = ([*positional, "", "", ""])[:3]
    if not year:
        return HOLE
    if not (year.isdecimal() and month.isdecimal() and 1 <= int(month) <= 12):
        return year
    name = _MONTHS[int(month) - 1]
    if not day.isdecimal():
        return f"{name} {year}"
    return f"{int(day)} {name} {year}" if named.get("df") else f"{name} {int(day)}, {year}"


def _fraction(given: Arguments) -> str:
    words = given[0]
    if len(words) == 3:
        return f"{words[0]} {words[1]}/{words[2]}"
    return "/".join(words) if len(words) == 2 else f"1/{words[0]}" if words else HOLE


def _value(given: Arguments) -> str:
    """`5|u=km` -> `5 km`; `1.2|e=6` -> `1.2 × 10^6`."""
    positional, named = given
    if not positional:
        return HOLE
    unit = named.get("u") or named.get("ul") or ""
    exponent = f" × 10^{named['e']}" if "e" in named else ""
    return f"{positional[0]}{exponent} {unit}".rstrip()


def _nihongo(given: Arguments) -> str:
    """`English|kanji|romaji` -> `English (kanji, romaji)`."""
    words = [word for word in given[0][:3] if word]
    return f"{words[0]} ({', '.join(words[1:])})" if len(words) > 1 else "".join(words)


def _chinese(given: Arguments) -> str:
    positional, named = given
    found = [named[key] for key in ("t", "s", "c", "p") if key in named] or positional[:1]
    return ", ".join(found) or HOLE


def _ship(given: Arguments) -> str:
    """`HMS|Victory|1765` -> `HMS Victory`."""
    return " ".join(word for word in given[0][:2] if word)


def _ship_of(prefix: str) -> Callable[[Arguments], str]:
    """`Enterprise|CV-6` -> `USS Enterprise (CV-6)`."""

    def name(given: Arguments) -> str:
        words = [word for word in given[0][:2] if word]
        return f"{prefix} {words[0]}" + (f" ({words[1]})" if len(words) > 1 else "") if words else HOLE

    return name


def _interwiki(given: Arguments) -> str:
    """`title|de|Titel` -> `title`, and in the order of older pages `de|title|Titel` -> `title`."""
    positional, named = given
    language_first = len(positional) > 1 and positional[0].islower() and len(positional[0]) <= 3
    return named.get("lt") or _argument(1 if language_first else 0)(given)


def _as_of(given: Arguments) -> str:
    positional, named = given
    if "alt" in named:
        return named["alt"]
    words = positional[:3]
    if len(words) > 1 and words[1].isdecimal() and 1 <= int(words[1]) <= 12:
        words[1] = _MONTHS[int(words[1]) - 1]
    start = "as of" if named.get("lc", "").lower() in ("y", "yes", "on") else "As of"
    return f"{start} {' '.join(reversed(words))}" if words else HOLE


def _money(sign: str) -> Callable[[Arguments], str]:
    return lambda given: sign + (given[0][0] if given[0] else "")


def _after(base: str) -> Callable[[Arguments], str]:
    return lambda given: (base + given[0][0]) if given[0] else HOLE


def _ordinal(given: Arguments) -> str:
    """A century of the French Wikipedia: `XIX|e` -> `XIXe siècle`."""
    return f"{given[0][0]}{given[0][1] if len(given[0]) > 1 else ''} siècle" if given[0] else HOLE


def _named_all(names: str, function: Callable[[Arguments], str]) -> dict[str, Callable[[Arguments], str]]:
    return dict.fromkeys(names.split("|"), function)


_PROSE: dict[str, Callable[[Arguments], str]] = {
    **_named_all(
        "nowrap|nobr|no wrap|nowraplinks|nobold|noitalic|small|smaller|big|bigger|large|larger|sub|center|centre|"
        "underline|u|em|strong|bold|italic|abbr|abbrlink|tooltip|mvar|math|sic|visible anchor|vanchor|flag|flagu|"
        "flagcountry|keypress|code|mono|kbd|var|samp|sc|smallcaps|smallcaps2|midsize|longitem|polytonic|"
        "hebrew|unicode|grc|gr|format price|formatnum|nts|dts|date|not a typo|typo|nastaliq|nq|bold div",
        _argument(0),
    ),
    **_named_all(
        "lang|langue|rtl-lang|ltr-lang|script|transl|transliteration|translit|wikt-lang|resize|color|colour|"
        "font color|fontcolor|colored link|coloured link",
        _argument(-1),
    ),
    **_named_all("convert|cvt|conv|unité|unité/2", _convert),
    **_named_all(
        "birth date|birth-date|birth date and age|birth-date and age|death date|death-date|death date and age|"
        "death-date and age|start date|start-date|end date|end-date|start date and age|film date|dda|bda|dob|date de "
        "naissance|datum",
        _date,
    ),
    **_named_all("quote|cquote|blockquote|bquote|quotation|rquote|centered pull quote|cita|citation bloc", _quote),
    **_named_all("poemquote|poem quote", _poem),
    **_named_all("ordered list|bulleted list|bulletedlist|unbulleted list|unbulletedlist|ublist|ubl", _list),
    **_named_all("columns-list|columns list|columns|plainlist|flatlist", _columns),
    **_named_all("frac|fraction|sfrac|vulgar fraction", _fraction),
    **_named_all("chem|chem2|chemical formula", _chemical),
    "linktext": _joined(""),
    **_named_all("coord|coor|coordinates", _coordinates),
    "hlist": _joined(", "),
    "ipa": _pronunciation,
    "langx": _argument(1),
    "respell": _respelling,
    "oldstyledate": _old_style_date,
    **_named_all("ill|interlanguage link|illm|link-interwiki|interlanguage link multi|lien|нп|нп3|нп5", _interwiki),
    **_named_all("nbsp|space|spaces|thinsp|thin space|·|dot|hair space|figure space", _constant(" ")),
    **_named_all("snd|snds|spnd|spaced ndash|spaced en dash|ndash|–|en dash|dash", _constant(" – ")),
    **_named_all("mdash|mdashb|spaced mdash|em dash|—|spaced em dash", _constant(" — ")),
    **_named_all("circa|c.|c|ca|ca.", lambda given: "c. " + "–".join(given[0][:2])),
    **_named_all("floruit|fl.|fl", lambda given: "fl. " + "–".join(given[0][:2])),
    **_named_all("reign|r.", lambda given: "r. " + "–".join(given[0][:2])),
    **_named_all("us$|usd|usdcy", _money("US$")),
    **_named_all("gbp|£|poundsign|pound sign", _money("£")),
    **_named_all("eur|€|euro", _money("€")),
    **_named_all("inr|indian rupee|₹|indianrupees", _money("₹")),
    **_named_all("au$|a$|aud", _money("A$")),
    **_named_all("sup|pow", _after("^")),
    **_named_all("angbr|angle bracket|grapheme|vr", lambda given: f"⟨{_argument(0)(given)}⟩"),
    **_named_all("bracket|bracketed|sqbracket", lambda given: f"[{_argument(0)(given)}]"),
    **_named_all("vol.|volume", lambda given: f"vol. {_argument(0)(given)}"),
    **_named_all("gloss|literal translation|lit|literally", lambda given: f"lit. '{_argument(0)(given)}'"),
    "as of": _as_of,
    "val": _value,
    "nihongo": _nihongo,
    "nihongo2": _argument(0),
    "nihongo3": _nihongo,
    "korean": _argument(0),
    "zh": _chinese,
    "uss": _ship_of("USS"),
    "hms": _ship_of("HMS"),
    "hmas": _ship_of("HMAS"),
    "hmcs": _ship_of("HMCS"),
    "ship": _ship,
    "s": _ordinal,
    "siècle": _ordinal,
    "bibleverse": _joined(" "),
    "bibleref": _joined(" "),
    "railgauge": _argument(0),
    "track gauge": _argument(0),
    "e": _after(" × 10^"),
    "nuclide": lambda given: "-".join(given[0][:2]),
    "simplenuclide": lambda given: "-".join(given[0][:2]),
    "simplenuclide2": lambda given: "-".join(given[0][:2]),
    "nuclide2": lambda given: "-".join(given[0][:2]),
    "'": _constant("'"),
    "'s": _constant("'s"),
    "'\"": _constant("'\""),
    "' \"": _constant("' \""),
    "\"'": _constant("\"'"),
    "-'": _constant("'"),
    '-"': _constant('"'),
    "eqm": _constant("⇌"),
    "music": lambda given: {"flat": "♭", "sharp": "♯", "natural": "♮"}.get(_argument(0)(given), HOLE),
    "okina": _constant("ʻ"),
    "hamza": _constant("ʼ"),
    "!": _constant("|"),
    "=": _constant("="),
    "(": _constant("{"),
    ")": _constant("}"),
    "((": _constant(""),
    "))": _constant(""),
    "pi": _constant("π"),
    "bull": _constant(" • "),
    "•": _constant(" • "),
    "ad": _constant("AD"),
    "bce": _constant("BCE"),
    "usa": _constant("United States"),
    "-": _constant(""),
    "wbr": _constant(""),
    "shy": _constant(""),
    "zwj": _constant(""),
    "zwnj": _constant("\u200c"),
}  # fmt: skip

_PROSE_STARTS: dict[str, Callable[[Arguments], str]] = {
    "lang-": _argument(0),
    "script/": _argument(0),
    "ipac-": _pronunciation_of_keys,
    "ipa-": _pronunciation_in,
}

_FUNCTIONS: dict[str, Callable[[Arguments], str]] = {
    "formatnum": _argument(0),
    "lc": lambda given: given[0][0].lower(),
    "uc": lambda given: given[0][0].upper(),
    "lcfirst": _argument(0),
    "ucfirst": _argument(0),
    "nowrap": _argument(0),
    "#tag": _constant(""),
    "defaultsort": _constant(""),
    "displaytitle": _constant(""),
}

_SILENT = names(
    "nowrap begin|nowrap end|div col|div col end|sfn|sfnp|sfnm|sfnmp|efn|efn-ua|efn-lr|refn|rp|r|ref|note|notetag|"
    "ref label|note label|cn|fact|citation needed|citation|better source|better source needed|dubious|"
    "disputed inline|clarify|clarification needed|who|whom|by whom|when|where|which|why|how|page needed|pn|"
    "failed verification|verify source|verification needed|vague|update after|update inline|anchor|refbegin|refend|"
    "reflist|clear|-|dn|disambiguation needed|specify|according to whom|original research inline|or|pov-statement|"
    "weasel inline|weasel-inline|peacock term|dead link|primary source inline|self-published inline|"
    "self-published source|full citation needed|full|inflation-fn|inflation/fn|qualify evidence|relevance inline|"
    "undue weight inline|medical citation needed|mcn|unreliable source?|unreliable medical source|"
    "non-primary source needed|synthesis inline|elucidate|expand acronym|examples|example needed|quantify|discuss|"
    "flagicon|flag icon|flagdeco|flagdecoration|sup ref|cite|harv|harvnb|harvtxt|harvs|harvcol|harvcolnb|oclc|issn|"
    "languageicon|link language|increase|decrease|decreasepositive|increasenegative|steady|abbr2|"
    "subscription required|registration required|closed access|open access|webarchive|wayback|sort|ntsh|hs|wikidata|"
    "dot2|main|see also|further|toc right|toc left|source|източник|факт|източник?|refnec|réf. nécessaire|"
    "référence nécessaire|источник|джерело|citazione necessaria|brak źródła"
)
"""Templates whose place in a sentence is empty: notes to sources, marks of editors, icons."""

_SILENT_STARTS = (
    "cite ",
    "vcite ",
    "sfn",
    "#tag:ref",
    "refn",
    "efn",
    "harv",
    "use ",
    "pp-",
    "icon ",
    "цитат",
    "literatur",
)
