"""What may be broken before a build stops, and what a person is told of what was set aside."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tilth.corpus.card import reasons
from tilth.corpus.records import Rejected

MOST_ALWAYS_ALLOWED = 10
"""Of a small corpus a tenth may be broken, up to so many records, whatever the share (but for a share of 0)."""

MOST_NAMED = 5
"""Files that are named on standard error; the rest are counted."""

WHOLE_FILE = "whole file"
"""What `Rejected.record` says of a file of which nothing can be read."""

FROM_THE_BREAK_ON = "from the break on"
"""What `Rejected.record` says of a file that could be read up to some place."""


def allowed_rejections(records: int, share: float) -> int:
    """How many of `records` may be broken: `share` of them, or a tenth of them up to ten where that is more."""
    return max(int(share * records), min(MOST_ALWAYS_ALLOWED, records // 10)) if share else 0


def too_many(rejected: int, records: int, share: float) -> str:
    """The problem of a build with more broken records than are allowed, in words."""
    limit = f"the larger of {100 * share:.3g} % of the records (--max-rejected) and a tenth of them, up to ten"
    return f"{rejected:,} of {records:,} records are broken, {allowed_rejections(records, share):,} are allowed" + (
        f"; the limit is {limit}" if share else " (--max-rejected 0)"
    )


def missing_after(item: Rejected) -> str | None:
    """A sentence for a file that is missing, or the rest of it; None where a record alone is broken."""
    if item.reason == "truncated":
        return f"{item.source} is cut short: what followed the cut is missing."
    if item.record == WHOLE_FILE:
        return f"{item.source} was not read: {item.detail}."
    if item.record == FROM_THE_BREAK_ON:
        return f"{item.source} could not be read to its end ({item.detail}): what followed is missing."
    return None


def told_of_rejections(found: dict[str, int], records: int, missing: Sequence[str], folder: Path) -> Iterator[str]:
    """Lines that say what was set aside, and which files are not whole.

    found: counts by reason. missing: sentences of `missing_after`. folder: where the details are.
    """
    if not found:
        return
    total = sum(found.values())
    noun = "record" if records == 1 else "records"
    yield f"Set aside as broken: {total:,} of {records:,} {noun} ({reasons(found)}); details in {folder}."
    yield from (f"  {sentence}" for sentence in missing[:MOST_NAMED])
    if (more := len(missing) - MOST_NAMED) > 0:
        yield f"  {more:,} more {'file is' if more == 1 else 'files are'} not whole."
