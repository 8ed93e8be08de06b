"""Card, bank account, national and IP numbers."""

import ipaddress
import re
from typing import Any

from tilth.corpus.filters.masking import Masker, mask_capitals_and_digits, mask_digits, substitute
from tilth.errors import import_extra

_CARD = re.compile(
    r"(?<![\w.,/+=-])[2-6]\d{3}([ -]?)(?:\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{6}\1\d{4,5})(?![\w/=-]|[.,]\d)"
)
_ISSUERS = re.compile(
    r"""4(?:\d{12}|\d{15}|\d{18})                                                           # Visa
    | (?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}                      # Mastercard
    | 3[47]\d{13}                                                                           # American Express
    | (?:6011|64[4-9]\d|65\d\d)\d{12} | 62\d{14,17}                                         # Discover, UnionPay
    | 3(?:0[0-5]|[68]\d)\d{11} | 35(?:2[89]|[3-8]\d)\d{12}                                  # Diners Club, JCB
    """,
    re.VERBOSE,
)

_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9_])")

_NATIONAL = (
    # Form, and the module of stdnum that checks it. A form that other numbers have too would need more than one check
    # digit, so the bare 9 to 11 digits of many countries are left out.
    (r"\d{3}-\d{2}-\d{4}", "stdnum.us.ssn"),
    (r"\d{3}\.\d{3}\.\d{3}-\d{2}", "stdnum.br.cpf"),
    (r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", "stdnum.fr.nir"),
    (r"[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]", "stdnum.it.codicefiscale"),
    (r"[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])[0-3]\d{4}[\dX]", "stdnum.cn.ric"),
    (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "stdnum.be.nn"),
    (r"[0-3]\d[01]\d{3}[-+A]\d{3}[0-9A-FHJ-NPR-Y]", "stdnum.fi.hetu"),
    (r"(?:19|20)?\d{6}[-+]\d{4}", "stdnum.se.personnummer"),
    (r"\d{8}-?[A-HJ-NP-TV-Z]|[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]", "stdnum.es.nif"),
)
_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?:\d{6}[A-D]|(?: \d{2}){3} [A-D])")
"""The British national insurance number has no check digit; its form is strict."""

_IPV4 = re.compile(r"(?<![\w.,+-])(?<![^/]/)\d{1,3}(?:\.\d{1,3}){3}(?!\.?[\w+-])")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{1,3}(?::{1,2}[0-9a-fA-F]{1,4}){2,7}(?![\w:])")
_VERSION_WORD = re.compile(
    r"(?:\bv(?:ersion|er\.?)?|\brelease|\bbuild|\bsection|\bchapter|§|\bfirmware|\bdriver)[\s:]*\Z", re.I
)
_ADDRESS_WORD = re.compile(r"\b(?:ip|ips|ipv4|address|addresses|host|server|gateway|dns|ping)\b[\s\w:=(]{0,12}\Z", re.I)


def _stdnum(module: str) -> Any:
    return import_extra(module, "personal")


def card_masker() -> Masker:
    """Payment cards: an issuer's prefix and length, grouped in fours (or 4-6-5, 4-6-4), and Luhn's check digit."""
    valid = _stdnum("stdnum.luhn").is_valid

    def mask(match: re.Match[str]) -> str | None:
        digits = re.sub(r"\D", "", match[0])
        return mask_digits(match[0]) if _ISSUERS.fullmatch(digits) and valid(digits) else None

    return lambda text: substitute(_CARD, mask, text)


def iban_masker() -> Masker:
    """International bank account numbers, with the length and the check digits of their country; it stays readable."""
    valid = _stdnum("stdnum.iban").is_valid

    def mask(match: re.Match[str]) -> str | None:
        found = match[0]
        while len(found) > 14:  # a word in capitals may follow the number
            if valid(found):
                return found[:2] + mask_capitals_and_digits(found[2:]) + match[0][len(found) :]
            found = found.rpartition(" ")[0]
        return None

    return lambda text: substitute(_IBAN, mask, text)


def national_id_masker() -> Masker:
    """Numbers that a state gives a person: US, BR, FR, IT, CN, BE, FI, SE, ES, GB."""
    forms = [(re.compile(form), _stdnum(module).is_valid) for form, module in _NATIONAL]
    any_form = "|".join([form for form, _ in _NATIONAL] + [_NINO.pattern])
    pattern = re.compile(rf"(?<![\w.,/+-])(?<!\d )(?:{any_form})(?![\w/-]|[.,]\d)")

    def mask(match: re.Match[str]) -> str | None:
        found = match[0]
        valid = _NINO.fullmatch(found) or any(form.fullmatch(found) and is_valid(found) for form, is_valid in forms)
        return mask_capitals_and_digits(found) if valid else None

    return lambda text: substitute(pattern, mask, text)


def mask_ips(text: str) -> tuple[str, int]:
    """Public addresses become those for documentation: 192.0.2.1 (RFC 5737) and 2001:db8::1 (RFC 3849).

    Four numbers with points may be a version or a section: they are an address when one of them has three digits or a
    word such as `IP` or `server` stands before, and no word such as `version` does. Private, local and reserved
    addresses stay.
    """
    text, four = substitute(_IPV4, _masked_ipv4, text)
    text, six = substitute(_IPV6, _masked_ipv6, text) if text.count(":") > 2 else (text, 0)
    return text, four + six


def _masked_ipv4(match: re.Match[str]) -> str | None:
    before = match.string[max(0, match.start() - 24) : match.start()]
    if _VERSION_WORD.search(before) or not _is_public(match[0]):
        return None
    long = any(len(number) == 3 for number in match[0].split("."))
    return "192.0.2.1" if long or _ADDRESS_WORD.search(before) else None


def _masked_ipv6(match: re.Match[str]) -> str | None:
    return "2001:db8::1" if _is_public(match[0]) else None


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False
