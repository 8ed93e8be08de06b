"""Line-level clean-up: lines that belong to the page and not to its text, and lines that recur in a document.

The text is edited, the document kept, unless nothing is left of it.
"""

from collections import Counter
from collections.abc import Callable

import pyarrow as pa

from tilth.corpus.filters.boilerplate import LONGEST, is_boilerplate, may_hold_notices
from tilth.corpus.filters.columns import mark_dropped, merge_metadata, replace_texts
from tilth.errors import UsageError

REASONS = {"only_boilerplate": "nothing but lines of the page around a text: menus, banners, notices"}


def lines(
    boilerplate: bool = True, repeats: int | None = 3, repeated_from: int = 20
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A stage that takes lines out of the texts.

    boilerplate: lines such as `Share on Facebook`, cookie banners, `Please enable JavaScript`, rights and menus
    (English). repeats: a line of at least `repeated_from` characters that a document has so often stays only where it
    is first: running heads, calls to subscribe. Shorter lines (`"Yes," he said.`) are left.
    The metadata say how many characters went, as `removed_boilerplate` and `removed_repeated`.
    Raises: UsageError when `repeats` is below 2.
    """
    if repeats is not None and repeats < 2:
        raise UsageError(f"lines: repeats is {repeats}; choose 2 or more, or null to leave repeated lines")

    def cleaned(text: str) -> tuple[str, dict[str, int]]:
        found = text.split("\n")
        sizes = {"removed_boilerplate": 0, "removed_repeated": 0}
        often = _often(found, repeats, repeated_from) if repeats else {}
        notices = boilerplate and may_hold_notices(text)
        kept = []
        for line in found:
            stripped = line.strip()
            if boilerplate and 0 < len(stripped) <= LONGEST and is_boilerplate(stripped, notices):
                sizes["removed_boilerplate"] += len(line) + 1
            elif often.get(stripped):
                sizes["removed_repeated"] += len(line) + 1
            else:
                kept.append(line)
                if stripped in often:
                    often[stripped] = True
        facts = {name: size for name, size in sizes.items() if size}
        return ("\n".join(kept), facts) if facts else (text, facts)

    def filter_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        results = [cleaned(text) for text in batch["text"].to_pylist()]
        batch = replace_texts(batch, [text for text, _ in results])
        batch = merge_metadata(batch, [facts for _, facts in results])
        return mark_dropped(
            batch, ["only_boilerplate" if facts and not text.strip() else None for text, facts in results]
        )

    return filter_batch


def _often(lines: list[str], repeats: int, least: int) -> dict[str, bool]:
    """The lines, stripped, that occur so often; the value tells whether one has been kept."""
    if len(set(lines)) == len(lines):
        return {}
    counted = Counter(stripped for line in lines if len(stripped := line.strip()) >= least)
    return {line: False for line, count in counted.items() if count >= repeats}
