"""Which field of a record holds its text: one list for a corpus and for labelled examples."""

from collections.abc import Collection

TEXT_COLUMNS = ("text", "sentence", "content", "body", "document")
"""The first of these is the text where it is there; else the only one of the others that is there."""


class NoTextColumn(Exception):
    """No field can be taken for the text; the message names those there are."""


def find_text_column(columns: Collection[str], wanted: str) -> str:
    """`wanted`, or, when it is the default (`text`) and absent, the one column with another of the usual names.

    Raises: NoTextColumn.
    """
    if list(columns).count(wanted) == 1:
        return wanted
    usual = [column for column in columns if column in TEXT_COLUMNS]
    if wanted == TEXT_COLUMNS[0] and len(usual) == 1 and wanted not in columns:
        return usual[0]
    shown = ", ".join(repr(column[:40]) for column in list(columns)[:12]) or "none"
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    count = "more than one column is named" if wanted in columns else "there is no column"
    raise NoTextColumn(
        f"{count} {wanted!r}; the columns are {shown}{more}: choose one with --text-column of tilth corpus build"
    )
