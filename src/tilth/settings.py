"""Typed settings, read from YAML and `key=value` overrides, with every problem reported at once in words.

Settings are pydantic models that are immutable and closed to unknown keys. Overrides are dotted (`train.lr=3e-4`), and
their values are YAML scalars or lists (`train.prompts='[Once upon]'`).

A setting that another one makes idle (`train.decay` beside `train.schedule=cosine`) is refused when it is an override,
or when a file gives it a value other than its default. When it is an override that makes a file's setting idle
(`tokenizer.path` on a recipe that names a kind), the setting goes back to its default. So whatever loads has its idle
settings at their defaults, and can be written in full and read back.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml.composer import ComposerError
from yaml.events import AliasEvent

from tilth.errors import TilthError, UsageError


class Settings(BaseModel):
    """Base of every group of settings: immutable, closed to unknown keys, and finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def idle(self) -> dict[str, str]:
        """Settings of this group that have no effect as others stand, each with the name of the one that decides it."""
        return {}


SettingsType = TypeVar("SettingsType", bound=Settings)


def load_settings(
    kind: type[SettingsType],
    overrides: Sequence[str] = (),
    values: dict[str, Any] | None = None,
    where: str = "the settings",
    idle: Mapping[str, str] | None = None,
) -> SettingsType:
    """Settings of any `kind`: `values` (default: none, so the defaults of `kind`) changed by `key=value` overrides.

    idle: settings that something else than a setting makes idle, each with what does so.
    Raises: UsageError that names `where` and lists every problem.
    """
    values = copy.deepcopy(values or {})
    problems = [problem for override in overrides if (problem := _apply(values, override, kind))]
    try:
        checked = kind.model_validate(values)
    except ValidationError as error:
        problems += [_describe(detail, kind, where) for detail in error.errors()]
        checked = _without(values, kind, error)
    if checked is not None:
        overridden = {override.partition("=")[0].strip() for override in overrides}
        problems += _take_out_idle(checked, values, overridden, idle or {})
    if not problems:
        return kind.model_validate(values)
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise UsageError(f"{count} in {where}:\n" + "\n".join(f"  - {problem}" for problem in problems))


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """Nested values from YAML text.

    Raises: UsageError that names `where` when the text is not YAML, gives a key twice, or is no mapping.
    """
    try:
        values = yaml.load(text, _Loader)
    except _NOT_YAML as error:
        raise UsageError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{where} holds no settings; it must hold lines of key: value")
    return values


_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What reading YAML raises: beside its own error, that of a date or number that is none, and of nesting without end."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 3e-4 is a number (YAML 1.1 reads it as text), 010 is not 8 and 1:30 not 90, and a key given
    twice is an error.

    Aliases (`*name`) are errors too: nine lines of them can stand for a billion values.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(AliasEvent):
            raise ComposerError(
                problem="aliases (*name) are not read; write the value out", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


_INTEGER = "tag:yaml.org,2002:int"
_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag != _INTEGER]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INTEGER, re.compile(r"[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def check_record(kind: type[BaseModel], value: Any, where: Path, remedy: str) -> None:
    """Check what a file of ours says of itself before anything relies on it.

    Raises: TilthError that names the file, its first problem, and the remedy.
    """
    try:
        kind.model_validate(value, strict=True)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, detail["loc"])) or "its content"
        raise TilthError(f"{where} is damaged ({place}: {detail['msg']}); {remedy}") from None


def nearest(name: str, candidates: Sequence[str]) -> str:
    """The end of a message about an unknown name: the candidate that was probably meant, or those there are.

    Dotted candidates are also found by their last part: `lr` finds `train.lr`.
    """

    last = name.rpartition(".")[2]

    def likeness(candidate: str) -> tuple[float, float]:
        parts = (candidate, candidate.rpartition(".")[2])
        closest = max(SequenceMatcher(None, last, part).ratio() for part in parts)
        return closest, SequenceMatcher(None, name, candidate).ratio()

    best = max(candidates, key=likeness)
    if likeness(best)[0] >= 0.6:
        return f"; did you mean {best}?"
    group = name.rpartition(".")[0]
    near = [candidate for candidate in candidates if candidate.rpartition(".")[0] == group]
    return f"; valid: {', '.join(near or candidates)}"


def _apply(values: dict[str, Any], override: str, kind: type[Settings]) -> str | None:
    """Set one dotted key in `values`; returns a problem instead of raising, so that all are reported together."""
    name, separator, text = override.partition("=")
    if not separator or not name.strip():
        return f"{override!r} is not key=value"
    *parents, last = name.strip().split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            return f"{name}: {parent} is a value, not a group of settings"
    try:
        values[last] = yaml.load(text, _Loader)
    except _NOT_YAML:
        values[last] = text
    if values[last] is not None and _is_text(kind, parents, last) and text.strip()[:1] not in ("'", '"'):
        values[last] = text
    return None


def _is_text(kind: type[Settings], parents: Sequence[str], last: str) -> bool:
    """Whether a setting holds nothing but text, which YAML might take for a number, a date or a comment."""
    group: Any = kind
    for parent in parents:
        field = group.model_fields.get(parent) if _is_group(group) else None
        group = field and field.annotation
    field = group.model_fields.get(last) if _is_group(group) else None
    return field is not None and (field.annotation is str or set(get_args(field.annotation)) == {str, type(None)})


def _without(values: dict[str, Any], kind: type[SettingsType], error: ValidationError) -> SettingsType | None:
    """The settings without the values that are wrong, to look for further problems; None where that is not enough."""
    rest = copy.deepcopy(values)
    for detail in error.errors():
        names = [str(part) for part in detail["loc"]]
        if not names:  # wrong as a whole
            return None
        group = rest
        while len(names) > 1 and isinstance(inner := group.get(names[0]), dict):
            group, names = inner, names[1:]
        group.pop(names[0], None)
    try:
        return kind.model_validate(rest)
    except ValidationError:
        return None


def _take_out_idle(
    checked: Settings, values: dict[str, Any], overridden: set[str], idle: Mapping[str, str]
) -> list[str]:
    """Take idle settings of a file that an override made idle out of `values`; returns the problems of the others."""
    problems = []
    for name, reason, decider in [*((name, reason, "") for name, reason in idle.items()), *_idle(checked)]:
        *parents, last = name.split(".")
        group, inside = checked, values
        for parent in parents:
            group, inside = getattr(group, parent), inside.get(parent) or {}
        if name not in overridden and getattr(group, last) == type(group).model_fields[last].default:
            continue
        if name not in overridden and decider in overridden:
            inside.pop(last, None)
        else:
            problems.append(f"{name} has no effect beside {reason}; leave one of them out")
    return problems


def _idle(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every idle setting: its dotted name, what makes it idle in words, and the dotted name of that."""
    for name, decider in settings.idle().items():
        yield prefix + name, f"{prefix}{decider}={_shown(getattr(settings, decider))}", prefix + decider
    for name in type(settings).model_fields:
        if isinstance(group := getattr(settings, name), Settings):
            yield from _idle(group, f"{prefix}{name}.")


def _shown(value: object) -> str:
    """A value as an override gives it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _describe(detail: Any, kind: type[Settings], where: str) -> str:
    """One of pydantic's problems in the words of the person who wrote the settings."""
    key = ".".join(map(str, detail["loc"]))
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key}{nearest(key, _keys(kind))}"
        case "missing":
            return f"{key} is required"
        case "value_error":
            return f"{key or where}: {detail['ctx']['error']}"
        case "model_type":
            message = "must be a group of settings"
        case _:
            message = detail["msg"].replace("Input should", "must", 1)
    return f"{key or where}: {message} (got {str(detail['input'])[:80]!r})"


def _keys(kind: type[BaseModel], group: str = "") -> list[str]:
    """Every dotted key that `kind` knows, groups included."""
    keys = []
    for name, field in kind.model_fields.items():
        keys.append(group + name)
        if _is_group(field.annotation):
            keys += _keys(field.annotation, f"{group}{name}.")
    return keys


def _is_group(annotation: Any) -> TypeGuard[type[Settings]]:
    return isinstance(annotation, type) and issubclass(annotation, Settings)
