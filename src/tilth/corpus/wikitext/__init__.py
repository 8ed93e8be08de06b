"""Wikitext to prose.

The text goes through four passes, each linear in its length also on hostile input:

    tags      comments, references, formulas, galleries and the tags of HTML, by one scan over `<`
    tables    dropped whole, cells included: they are figures and names, seldom sentences
    brackets  links and templates, by one scan over `[[ ]] {{ }} |` with a stack of what is open
    lines     external links, bold and italics, entities, lists, headings, and what the passes before left of sentences

Where something is taken out of a sentence, a `HOLE` marks the place until the last pass has mended it:
"A (see {{audio|x}}, plural As)" becomes "A (plural As)".
"""

from tilth.corpus.wikitext.brackets import resolve
from tilth.corpus.wikitext.lines import Prose, read_lines
from tilth.corpus.wikitext.tags import drop_tables, drop_tags
from tilth.corpus.wikitext.templates import HOLE
from tilth.corpus.wikitext.words import ENGLISH, Names

__all__ = ["Names", "Prose", "to_prose"]


def to_prose(wikitext: str, wiki: Names = ENGLISH) -> Prose:
    """The prose of a page: Unicode in NFC; sections without prose, or with references or links alone, are left out."""
    text = wikitext.replace(HOLE, "").replace("\r", "")
    return read_lines(resolve(drop_tables(drop_tags("\n" + text)), wiki), wiki.language)
