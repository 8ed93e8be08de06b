"""Which field of a record holds its text."""

from collections.abc import Collection

DEFAULT = "text"
COMMON = ("content", "body", "sentence", "document")


class NoTextColumn(Exception):
    """No field can be taken for the text; the message names those there are."""


def find_text_column(columns: Collection[str], wanted: str) -> str:
    """`wanted`, or, when it is the default and absent, the one column with another common name.

    Raises: NoTextColumn.
    """
    if list(columns).count(wanted) == 1:
        return wanted
    common = [column for column in columns if column in COMMON]
    if wanted == DEFAULT and len(common) == 1 and wanted not in columns:
        return common[0]
    shown = ", ".join(repr(column[:40]) for column in list(columns)[:12]) or "none"
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    count = "more than one column is named" if wanted in columns else "there is no column"
    raise NoTextColumn(
        f"{count} {wanted!r}; the columns are {shown}{more}: choose one with --text-column of tilth corpus build"
    )
