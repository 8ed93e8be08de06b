"""Wikitext in, prose out, exactly; and hostile text ends."""

import random
import unicodedata

import pytest

from tilth.corpus.wikitext import Names, to_prose

PAIRS = {
    # links
    "[[Dog]]s bark at [[cat (animal)|cats]].": "Dogs bark at cats.",
    "See [[2001: A Space Odyssey]] and [[:Category:Films]].": "See 2001: A Space Odyssey and Category:Films.",
    "A [[Category:X]][[fr:Chien]][[zh-min-nan:Káu]]dog[[Category:Y|*]]": "A dog",
    "In [[wikt:dog|dog]] and [[s:Dog]] and [[voy:Rome|Rome]].": "In dog and s:Dog and Rome.",
    "[[File:a.jpg|thumb|200px|A [[dog|big]] one, {{lang|fr|[[mot]]}}]]After.": "After.",
    "[[Image:a.jpg]] [[image : b.png|thumb]]x": "x",
    "[http://a.b A site] and [https://c.d] and [//e.f g].": "A site and and g.",
    "[http://a.b The [sic] one]": "The [sic] one",
    "He said [it] was http://a.b/c": "He said [it] was http://a.b/c",
    "[[a|b|c]]": "b|c",
    "At [[#Top]] of it": "At #Top of it",
    # templates
    "{{Infobox\n| a = {{b|[[c|d]]}}\n| e = f\n}}\n'''Text''' here.": "Text here.",
    "'''A''' (named {{IPAc-en|eɪ}}, plural ''As'')": "A (named /eɪ/, plural As)",
    "'''A''' (named {{audio|x}}, plural ''As'')": "A (plural As)",
    "'''Rome''' ({{IPA-it|x}}; {{audio|R}}) is": "Rome ([x]) is",
    "'''Rome''' ({{audio|x}}; {{audio|R}}) is": "Rome is",
    "the vowel {{IPA|/æ/}} or ⟨{{IPA|[[a (letter)|a]]}}⟩ or {{IPA|fr|alɛ̃}}": "the vowel /æ/ or ⟨a⟩ or [alɛ̃]",
    "({{IPAc-en|UK|audio=a.ogg|ə|ˈ|r|uː|b|ə|,_|x}} {{respell|ə|ROO|_|bə|'}})": "(/əˈruːbə, x/ ə-ROO bə)",
    "X (born {{unknown|1}}; 5 May 1950 in Y) said": "X (5 May 1950 in Y) said",
    "It has (a long remark that stays {{unknown}}) end": "It has (a long remark that stays) end",
    "sounds, {{x|a}}, {{x|b}} and {{x|c}}, are": "sounds, are",
    "It lies at {{Coord|12|19|N|70|1|W|type:isle}}.{{coord|1|N|2|E|display=title}}": "It lies at 12°19′N 70°1′W.",
    "{{coord|40.3|-47.7}} and {{coord|33|55|7.5|S|18|25|26|E|}}": "40.3, -47.7 and 33°55′7.5″S 18°25′26″E",
    "a\n\n{{coord|51.5|N|0|7|W|display=inline,title}}\n\nb": "a\n\nb",
    "It is {{convert|5|km|mi|abbr=on}} long{{sfn|Smith|2001}}.": "It is 5 km long.",
    "{{convert|5|to|10|sqmi|km2}}, {{cvt|6|ft|2|in|m}}": "5 to 10 sq mi, 6 ft 2 in",
    "{{convert|3|e6acre|ha}} {{convert|11|MUSgal|L}} {{convert|85.4|Tcuft}}": (
        "3 million acres 11 million US gal 85.4 trillion cu ft"
    ),
    "{{convert|-12345.5|ft|m}} {{convert|1200|-|1800|mm}} {{convert|1,500|km}} {{convert|1/2|mi}} {{cvt|0070|m}}": (
        "-12,345.5 ft 1,200–1,800 mm 1,500 km 1/2 mi 0070 m"
    ),
    "{{convert|much|km}} x": "x",
    "{{lang|fr|mot}} {{lang-de|Wort}} {{nowrap|a b}} {{small|c}}": "mot Wort a b c",
    "{{birth date|1950|5|3}}, {{death date and age|df=yes|1999|12|31|1950|5|3}}": "May 3, 1950, 31 December 1999",
    "{{birth date|?|5}} a, {{start date|2001|2}}": "? a, February 2001",
    "{{frac|1|2}} {{frac|3|1|2}} {{frac|7}}": "1/2 3 1/2 1/7",
    "{{val|5|u=km}} {{val|1.2|e=6}}": "5 km 1.2 × 10^6",
    "{{nihongo|Aikido|合気道|Aikidō}}": "Aikido (合気道, Aikidō)",
    "{{chem|SO|4|2-}} {{chem|NH|4|+}} {{chem|S|''x''|2−}}": "SO4²⁻ NH4⁺ Sx²⁻",
    "born {{OldStyleDate|February 2|1905|January 20}}": "born February 2 [O.S. January 20] 1905",
    "{{ill|de|Old order|Alt}} {{ill|New order|de|Neu}} {{ill|A|fr|B|lt=C}}": "Old order New order C",
    "{{langx|ru|слово}}": "слово",
    "a:\n{{ordered list|start=4\n| b [[c]]\n| d\n}}\ne": "a:\n\nb c\nd\n\ne",
    "{{columns-list|2|\n* a\n* b}}c\n{{columns|width=9em|col1=\n* d\n|col2=* e}}": "a\nb\nc\n\nd\n\ne",
    "a {{hlist|b|c}}": "a b, c",
    "{{chem|H|2|O}} {{USS|Enterprise|CV-6}}": "H2O USS Enterprise (CV-6)",
    "{{formatnum:1234}} {{lc:ABC}} {{DEFAULTSORT:x}}": "1234 abc",
    "{{as of|2001|3}} it {{As of|2001|lc=y}}": "As of March 2001 it as of 2001",
    "a{{snd}}b{{nbsp}}c{{'s}}": "a – b c's",
    "{{quote|Be\nbrief.|Somebody}}": "Be brief.",
    "He wrote {{poem quote|a\nb}} once": "He wrote\n\na\nb\n\nonce",
    "{{lang|1=fr|2=mot}}": "mot",
    "{{ {{nested}} | {{{1|x}}} }}y": "y",
    "a {{b}} c": "a c",
    "* ''{{GBR}}'' (UK)\n* x": "x",
    # tables and tags
    "a\n{| class=x\n|-\n| a || b\n{|\n| c\n|}\n|}\nb": "a\n\nb",
    "a\n:{|\n|x\n|}b": "a\n\nb",
    "a\n{|\n| not closed\n! x !! y\n\nb": "a\n\nb",
    "{{x|\n{|\n|y\n|}}}z": "z",
    "a<ref>b {{c}}</ref>, d<ref name=e/>; f<ref name='g' />": "a, d; f",
    "a<ref>open\nb<ref>c</ref> d": "a b d",
    "a<ref>never closed b": "anever closed b",
    "<!-- a -->\nb<!-- c\n\n-->d<!-- open": "bd",
    "<nowiki>[[a]] ''b'' {{c}}</nowiki>": "[[a]] ''b'' {{c}}",
    "<nowiki>* a": "a",
    "10<sup>6</sup> H<sub>2</sub>O x<sup>''a''</sup>": "10⁶ H2O xa",
    "a<br/>b<BR>c <span style='x'>d</span>": "a\nb\nc d",
    "1 < 2 <b>and</b> <foo> 3 > 2": "1 < 2 and <foo> 3 > 2",
    "<gallery>\nFile:a.jpg|b\n</gallery>c<references/>": "c",
    "<math>\\alpha + x^{2} \\le \\mathbf{R}</math>.": "α + x^2 ≤ R.",
    "where <math>\\frac{a}{b}</math>, with <math>x|y</math>": "where \\frac{a}{b}, with x|y",
    "<math>Z_{k,1}</math> <math>10^{-7}\\text{ m}</math> <math> </math>.": "Z_{k,1} 10^{-7}\\text{ m}.",
    "as\n:<math>\n\\begin{cases} 1 & a \\\\\n 0 & b \\end{cases}\n</math>\nor": (
        "as\n\\begin{cases} 1 & a \\\\ 0 & b \\end{cases}\nor"
    ),
    "<div><blockquote>a</blockquote></div>": "a",
    "<table><tr><td>x</td></tr></table>y": "y",
    # lines
    "L'''Avenir'' et l''''eau'': '''b''' ''i'' '''''c'''''": "LAvenir et l'eau: b i c",
    "un l'''homme'' et b": "un l'homme et b",
    "* a\n** b\n# c\n: d\n; e : f": "a\nb\nc\nd\ne : f",
    "a\nb\n\n\n\nc\n----\nd": "a b\n\nc\n\nd",
    "a\n* b\nc\nd\n e\n f\n– g\n– h": "a\nb\nc d\ne\nf\n– g\n– h",
    "a\n{{x}}\nb\n{{x}} c": "a\n\nb c",
    "a<br />\nb<br>c\nd": "a\n\nb\nc\nd",
    "a\n<poem>b\nc\n\nd</poem>\ne\nf": "a\n\nb\nc\n\nd\n\ne f",
    "<pre>a\n b</pre>": "a\nb",
    "a (see video at [http://b.c]) d": "a d",
    "&lt;b&gt; &amp;lt; a&nbsp;b &#65; &#x42; &bogus; &#99999999999; &#xD800;": (
        "<b> &lt; a b A B &bogus; &#99999999999; \ufffd"
    ),
    "__NOTOC__a __FOO_BAR__": "a __FOO_BAR__",
    "a ( ) b (, c) d (;) e , f ,< g": "a b (c) d e, f ,< g",
    "東京（{{x}}、{{読み}}）は": "東京は",
    "e\u0301\u00ad": "é",
    "\0a\r\n": "a",
    "": "",
    " \n{{x}}\n": "",
    # what is never closed
    "{{unclosed |a=b\n|c=d\n\nText [[goes on.\n\nAnd on.": "Text goes on.\n\nAnd on.",
    "a [[File:x.jpg|thumb|b\n\nc": "a\n\nc",
    "a [[b]] c]] d}} e {{x|[[y}} z": "a b c d e z",
    "}} a ]] | b": "a | b",
}


@pytest.mark.parametrize("wikitext", PAIRS)
def test_exactly(wikitext):
    assert to_prose(wikitext).text == PAIRS[wikitext]


def test_sections_and_where_they_start():
    prose = to_prose(
        "Lead.\n== A ''b'' ==\n\n=== Empty ===\n{{x}}\n==Cafe\u0301==\ntext\n=== Sub <!-- c -->===\nmore\n* item\n"
        "== See also ==\n* [[x]]\n=== Under it ===\nlost\n== Last ==\nend\n== External links ==\n* [http://a b]"
    )
    assert prose.text == "Lead.\n\nCafé\n\ntext\n\nSub\n\nmore\nitem\n\nLast\n\nend"
    assert prose.sections == [(2, "Café", 7), (3, "Sub", 19), (2, "Last", 35)]
    for _, heading, offset in prose.sections:
        assert prose.text[offset : offset + len(heading)] == heading


def test_a_section_of_sections_is_kept_with_them():
    assert to_prose("== A ==\n=== B ===\ntext\n== C ==\n=== D ===\n").text == "A\n\nB\n\ntext"


def test_words_of_other_languages():
    german = Names("de", files=frozenset(["datei"]), categories=frozenset(["kategorie"]))
    text = "Der [[Hund|Hunde]][[Datei:a.jpg|mini|x]][[Kategorie:Tier]].\n== Einzelnachweise ==\n<references />\nx"
    assert to_prose(text, german).text == "Der Hunde."
    klingon = Names("tlh", files=frozenset(["nagh beq"]))
    assert to_prose("a[[nagh beQ:x|y]] b\n== References ==\nc", klingon).text == "a b"


HOSTILE = {
    "braces": "{{" * 500_000,
    "brackets": "[[a" * 330_000,
    "closed brackets": "[[ab" * 120_000 + "]]" * 120_000,
    "closed braces": "{{small|" * 80_000 + "}}" * 80_000,
    "mixed": "[[{{" * 250_000,
    "crossed": "{{[[a|b}}]]" * 90_000,
    "pipes": "{{x" + "|" * 1_000_000,
    "quotes": "'" * 1_000_000,
    "quotes apart": "'' " * 330_000,
    "tables": "\n{|" * 330_000,
    "tables closed": "\n{|" * 150_000 + "\n|}" * 150_000,
    "tags": "<ref " * 200_000,
    "references": "<ref>" * 200_000,
    "comments": "<!--" * 250_000,
    "sup": "<sup>" * 200_000,
    "nowiki": "<nowiki>" * 120_000,
    "urls": "[http://a " * 100_000,
    "urls apart": "[http://a [b] " * 70_000,
    "parentheses": "(" * 1_000_000,
    "parentheses and holes": "({{x}}, " * 120_000,
    "holes": "{{x}} , " * 120_000,
    "spaces": "a" + " " * 1_000_000 + "{{x}}",
    "newlines": "\n \t" * 330_000,
    "headings": "=" * 1_000_000,
    "heading lines": "\n=" * 100_000 + "a=" * 100_000,
    "entities": "&" * 1_000_000,
    "numeric entity": "&#" + "9" * 1_000_000 + ";",
    "underscores": "_" * 1_000_000,
    "markers": "*#:;" * 250_000,
    "digits": "{{convert|" + "9" * 1_000_000 + "|m}}",
    "blanks in an argument": "{{quote|" + " " * 1_000_000 + "!=x}}",
    "coordinates": "{{coord" + "|1|N" * 250_000 + "}}",
    "lines": "a\n" * 500_000,
    "poem": "<poem>" + "\n<br>" * 200_000,
    "letters": "{{" + "a" * 1_000_000,
    "formula": "<math>" + "\\a{" * 300_000 + "</math>",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_megabyte_of_hostile_text_ends(kind):
    """Quadratic time would take minutes; the longest of these takes about a second."""
    text = HOSTILE[kind]
    assert len(to_prose(text).text) <= len(text)


def test_any_mixture_of_marks_ends_in_clean_text():
    marks = ["[[", "]]", "{{", "}}", "|", "\n{|", "\n|}", "''", "'''", "<ref>", "</ref>", "<!--", "-->"]
    marks += [
        "</nowiki>",
        "\n\n",
        "\n==",
        "==\n",
        "(",
        ")",
        "word ",
        "é ",
        "&nbsp;",
        "[http://a ",
        "]",
        "=",
        ":",
        "\n*",
    ]
    choose = random.Random(0)
    for _ in range(2000):
        text = "".join(choose.choices(marks, k=choose.randrange(60)))
        prose = to_prose(text)
        assert not any(mark in prose.text for mark in ("{{", "}}", "\0", "\r"))
        assert unicodedata.is_normalized("NFC", prose.text)
        assert prose.text == prose.text.strip()
        assert all(prose.text.startswith(heading, offset) for _, heading, offset in prose.sections)
