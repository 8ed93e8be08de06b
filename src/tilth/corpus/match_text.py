"""How near a corpus is to a task's text, as a terminal shows it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tilth.corpus.card_text import new_table, shortened

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_DOCUMENTS = 3
_HOSTS = 10


def render_match(found: Mapping[str, Any]) -> "Group":
    """The result of `match_corpus` as something `rich` prints, its verdict last."""
    from rich.console import Group

    parts: list[Any] = [_facts(found), ""]
    for title, name, most in (("source", "sources", _HOSTS), ("host", "hosts", _HOSTS)):
        if found[name]:
            parts += [_groups(title, found[name][:most]), ""]
    for title in ("nearest", "farthest"):
        parts += [f"{title.capitalize()} documents", *_documents(found[title]), ""]
    return Group(*parts, found["verdict"])


def _facts(found: Mapping[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in _said(found):
        table.add_row(name, said)
    return table


def _said(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sampled, vocabulary, divergence = found["sampled"], found["vocabulary"], found["divergence"]
    yield "sample", f"{sampled['documents']:,} documents, {sampled['texts']:,} texts of the task"
    yield (
        "vocabulary",
        f"the {vocabulary['size']:,} commonest words of the corpus are {vocabulary['tokens']:.1%} of the task's text "
        f"and {vocabulary['types']:.1%} of its vocabulary",
    )
    halves = found["task_halves"]
    yield (
        "divergence",
        f"{_interval(divergence, 3)} bits of 1"
        + (f"; of two halves of the task's own text {halves:.3f}" if halves is not None else ""),
    )
    two = found["two_sample"]
    yield (
        "told apart",
        f"AUC {_interval(two['auc'], 3)}, accuracy {_interval(two['accuracy'], 3)} on held-out texts of equal lengths "
        f"({two['tested'][0]:,} and {two['tested'][1]:,}); 0.5 is chance",
    )
    if selected := found.get("selected"):
        yield "selected", f"{selected['kept']:,} documents, {selected['share']:.1%}, in {selected['out']}"


def _interval(figure: Mapping[str, Any], places: int) -> str:
    value = f"{figure['value']:.{places}f}"
    return value if figure["low"] is None else f"{value} ({figure['low']:.{places}f} to {figure['high']:.{places}f})"


def _groups(title: str, rows: list[Mapping[str, Any]]) -> "Table":
    table = new_table(title, "documents sampled", "mean nearness", "in the nearest 20 %")
    for row in rows:
        table.add_row(
            shortened(row["name"]), f"{row['documents']:,}", f"{row['nearness']:.4f}", f"{row['in_nearest_fifth']:.1%}"
        )
    return table


def _documents(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows[:_DOCUMENTS]:
        yield f"  {row['nearness']:.3f}  {row['id']}: {row['text'][:200]}"
