"""Personal data and secrets, replaced by placeholders of the same form.

Kinds: `email`, `phone`, `ip`, `card`, `iban`, `national_id`, `secret`. A number counts only where its check digits are
right (cards: Luhn, ISO/IEC 7812; IBAN: ISO 13616; national numbers: `python-stdnum`) or its form is strict (phones:
`phonenumbers`, grouped as their country writes them), so that years, ISBNs, decimals and versions are left alone.
Names and postal addresses are not looked for.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa

from tilth.corpus.filters import numbers, phones, secrets
from tilth.corpus.filters.columns import merge_metadata, replace_texts
from tilth.corpus.filters.masking import NUMBER, Masker, on_lines
from tilth.errors import UsageError


def personal(
    kinds: Sequence[str] = ("secret", "email", "iban", "card", "national_id", "phone", "ip"),
    regions: Sequence[str] = ("US",),
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that masks personal data in the texts and says in the metadata, as `personal`, how many of each kind.

    kinds: what to mask, in the order in which it is looked for. regions: ISO 3166 codes of the countries whose phone
    numbers are told without a leading `+` and country code.
    E-mail addresses become `email@example.com`, public IP addresses those reserved for documentation; in numbers each
    digit becomes 0, in secrets each letter x and each digit 0. A masked text is not changed by masking it again.
    Raises: UsageError for a kind or region that is not known, TilthError when the extra `personal` is missing.
    """
    known: dict[str, Callable[[], Masker]] = {
        "secret": lambda: secrets.mask_secrets,
        "email": lambda: secrets.mask_emails,
        "iban": lambda: _in_numbers(numbers.iban_masker()),
        "card": lambda: _in_numbers(numbers.card_masker()),
        "national_id": lambda: _in_numbers(numbers.national_id_masker()),
        "phone": lambda: _in_numbers(phones.phone_masker(regions)),
        "ip": lambda: _in_numbers(numbers.mask_ips),
    }
    if unknown := [kind for kind in kinds if kind not in known]:
        raise UsageError(f"personal: {', '.join(map(repr, unknown))} is not one of the kinds {', '.join(known)}")
    maskers = {kind: known[kind]() for kind in kinds}

    def filter_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts, facts = [], []
        for text in batch["text"].to_pylist():
            found: Counter[str] = Counter()
            for kind, mask in maskers.items():
                text, found[kind] = mask(text)
            texts.append(text)
            found += Counter()  # takes out the kinds that were not there
            facts.append({"personal": dict(found)} if found else {})
        return merge_metadata(replace_texts(batch, texts), facts)

    return filter_batch


def _in_numbers(mask: Masker) -> Masker:
    return functools.partial(on_lines, NUMBER, mask)
