"""Phone numbers, by Google's libphonenumber (`phonenumbers`).

The library's own search takes seconds for a megabyte; here it only judges what has the shape of a phone number: is it
one that may be in use, grouped as its country groups it. Of the 115 found in the pages of `data/web/pages` (regions US,
GB, DE) all were phone numbers; in 73 novels and 18,594 abstracts none was found. A directory, nothing but numbers,
takes 4 seconds a megabyte.
"""

import re
from collections.abc import Callable, Sequence

from tilth.corpus.filters.masking import mask_digits, substitute
from tilth.errors import UsageError, import_extra

_CANDIDATE = re.compile(
    r"""(?<![\w.,/+=#$€£%&-])(?<![\W\d_]:)(?<!^:)(?:(?<!\d[\ \u00a0])|(?=\+))
    (?:\+\ ?\d | \(\+?\d | \d)
    (?:[\ \u00a0()./\u2010\u2011-]{0,3}\d){6,31}
    (?![\w%°$€£]|[.,/:-]\d|\ ?[\u00d7x*=]\ ?\d|\+\ ?\d|\ \+\ \d)""",
    re.VERBOSE,
)
_DATE = re.compile(r"\(?(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d\d\b|(?:19|20)\d\d[./-](?:0?[1-9]|1[0-2])[./-]\d)")
_DECIMAL = re.compile(r"\(?\d+\.{1,3}\d+")
_YEARS = re.compile(r"(?:19|20)\d\d(?:\D{1,3}(?:19|20)\d\d)+")
_PHONE_WORD = re.compile(r"\b(?:phone|telephone|tel|fax|mobile|cell)\b", re.IGNORECASE)
_BOOK_WORD = re.compile(r"\b(?:ISBN|ISSN|EAN|DOI|PMID|UPC|ASIN|No|Nr)\b[-\s\w:.#]{0,8}\Z", re.IGNORECASE)


def phone_masker(regions: Sequence[str]) -> Callable[[str], tuple[str, int]]:
    """Digits of phone numbers become 0. regions: countries of numbers that do not start with `+`.

    Raises: UsageError for a region that is not known.
    """
    phonenumbers = import_extra("phonenumbers", "personal")
    if unknown := sorted(set(regions) - phonenumbers.SUPPORTED_REGIONS):
        raise UsageError(f"personal: {', '.join(unknown)} is no region; write codes such as US, GB, DE")
    strict = phonenumbers.Leniency.STRICT_GROUPING

    def masked(candidate: str) -> str | None:
        """With the digits of the numbers in it as 0, each of which begins and ends with it or at a blank."""
        for region in [None] if "+" in candidate else regions:
            result = candidate
            for found in phonenumbers.PhoneNumberMatcher(candidate, region, leniency=strict, max_tries=20):
                around = candidate[max(0, found.start - 1) : found.start] + candidate[found.end : found.end + 1]
                if not around.strip():
                    result = result[: found.start] + mask_digits(found.raw_string) + result[found.end :]
            if result != candidate:
                return result
        return None

    def mask(match: re.Match[str]) -> str | None:
        candidate = match[0]
        digits = sum(character.isdigit() for character in candidate)
        if "+" not in candidate and len(candidate) == digits:  # a bare run of digits may be anything
            return None
        if _DATE.match(candidate) or _DECIMAL.fullmatch(candidate) or _YEARS.fullmatch(candidate):
            return None
        before = match.string[max(0, match.start() - 24) : match.start()]
        if _BOOK_WORD.search(before) and not _PHONE_WORD.search(before):
            return None
        return masked(candidate)

    return lambda text: substitute(_CANDIDATE, mask, text)
