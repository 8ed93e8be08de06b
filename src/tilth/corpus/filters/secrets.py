"""E-mail addresses, and what opens doors: passwords, keys of services, private keys.

Every expression is anchored by what cannot go before it and bounded in length, so that its time is linear.
"""

import math
import re
from collections import Counter

from tilth.corpus.filters.masking import mask_letters_and_digits, on_lines, substitute

PLACEHOLDER = "email@example.com"

_AT = re.compile("@")
_EMAIL = re.compile(
    r"(?<![\w.+%/-])[\w+%-][\w.+%-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})(?![\w@])"
)
_NOT_TOP = frozenset(["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "htm", "php", "pdf"])
"""Ends of file names such as `icon@2x.png`."""

_RESERVED = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|[\w-]+\.(?:example|invalid|test))\Z", re.IGNORECASE)

_KEYS = re.compile(
    r"""(?<![A-Za-z0-9_/+-])(?:
      (?:AKIA|ASIA)[A-Z0-9]{16}                            # AWS
    | gh[pousr]_[A-Za-z0-9]{36,255} | github_pat_\w{60,100}
    | glpat-[\w-]{20}                                      # GitLab
    | AIza[\w-]{35}                                        # Google
    | xox[abeoprs]-[A-Za-z0-9-]{10,250}                    # Slack
    | (?:sk|rk|pk)_live_[A-Za-z0-9]{16,250}                # Stripe
    | sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,250}              # OpenAI, Anthropic
    | hf_[A-Za-z0-9]{30,40}                                # Hugging Face
    | npm_[A-Za-z0-9]{36} | pypi-[\w-]{50,250}
    | SG\.[\w-]{22}\.[\w-]{43}                             # SendGrid
    | eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{20,2000} # JSON Web Token
    )(?![A-Za-z0-9_])""",
    re.VERBOSE | re.ASCII,
)
_PRIVATE_KEY = re.compile(
    r"(?<=-----BEGIN )((?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)([^-]{40,20000}+)(?=-----END )"
)
_VALUE = re.compile(r"""((?:=>|:=|[:=])\s{0,3}["']?)([^\s"'<>,;&]{8,200})""")
_NAME = re.compile(
    r"""(?<![a-z])(?:pass(?:word|wd|phrase|code)|pwd|secret|token
    | (?:api|access|auth|secret|private|client)[_\ -]?(?:key|token|secret))
    ["']?\s{0,3}\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_PROGRAM = re.compile(r"=|[\w.]+[(\[]|[$%]?[{(<]|\$\w|[a-z0-9]+(?:[_.][a-z0-9]+)+\Z")
"""A value that is a piece of a program: a comparison, a call, an index, a variable."""


def mask_emails(text: str) -> tuple[str, int]:
    """Addresses become `email@example.com`; those of domains reserved for examples (RFC 2606) stay."""
    return on_lines(_AT, lambda line: substitute(_EMAIL, _masked_email, line), text)


def _masked_email(match: re.Match[str]) -> str | None:
    address = match[0]
    if ".." in address or ".@" in address or address.rpartition(".")[2].lower() in _NOT_TOP:
        return None
    return None if _RESERVED.search(address) else PLACEHOLDER


def mask_secrets(text: str) -> tuple[str, int]:
    """Keys in the form of a service, blocks of private keys, and random values that are assigned to a password."""
    keys = blocks = 0
    if any(_KEYS.search(word) for word in text.split() if len(word) >= 20):
        text, keys = substitute(_KEYS, _masked_key, text)
    if "PRIVATE KEY" in text:
        text, blocks = substitute(_PRIVATE_KEY, lambda match: match[1] + mask_letters_and_digits(match[2]), text)
    text, assigned = substitute(_VALUE, _masked_assignment, text)
    return text, keys + blocks + assigned


def _masked_key(match: re.Match[str]) -> str | None:
    """A key keeps the sign of its service."""
    key = match[0]
    head = re.match(r"AKIA|ASIA|AIza|eyJ|SG\.|[a-z]+(?:_pat|_live)?[_-]", key)
    size = head.end() if head else 0
    return key[:size] + mask_letters_and_digits(key[size:]) if entropy(key[size:]) > 2.5 else None


def _masked_assignment(match: re.Match[str]) -> str | None:
    value = match[2]
    if not _NAME.search(match.string, max(0, match.start() - 40), match.start()):
        return None
    mixed = bool(re.search(r"\d", value)) and bool(re.search(r"[A-Za-z]", value))
    if not mixed or entropy(value) < 2.75 or _PROGRAM.match(value) or "://" in value:
        return None
    return match[1] + mask_letters_and_digits(value)


def entropy(text: str) -> float:
    """Shannon entropy of the characters in bits each: 8 different ones have 3, `password` 2.75."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
