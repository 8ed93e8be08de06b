"""The parts reports are made of."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stat:
    """A figure of the headline: what it is called, its value and unit, and what it means in plain words."""

    label: str
    value: str
    caption: str
    unit: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure with its title and caption. `narrow` is another drawing of it, shown in place of `svg` on a phone."""

    title: str
    caption: str
    svg: str
    narrow: str = ""


def capitalized(text: str) -> str:
    """The text with a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def settings_groups(values: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings as (group, rows of name and value); those outside any group come first, as the group `run`."""
    outside = [(name, _setting(value)) for name, value in values.items() if not isinstance(value, dict)]
    groups = [
        (name, [(key, _setting(value)) for key, value in members.items()])
        for name, members in values.items()
        if isinstance(members, dict)
    ]
    return ([("run", outside)] if outside else []) + groups


def _setting(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)
