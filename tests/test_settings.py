from typing import Literal

import pytest
from pydantic import Field

from tilth.corpus.settings import load_corpus_settings
from tilth.errors import UsageError
from tilth.recipe import load_recipe
from tilth.settings import Settings, load_settings, nearest, read_yaml


class Inner(Settings):
    lr: float = Field(default=1e-3, gt=0)
    prompts: tuple[str, ...] = ()


class Outer(Settings):
    seed: int = 0
    length: int | None = Field(default=None, ge=8)
    optimizer: Literal["adamw", "muon"] = "muon"
    train: Inner = Inner()


def problems_of(*overrides: str) -> list[str]:
    with pytest.raises(UsageError) as raised:
        load_settings(Outer, overrides)
    return [line.removeprefix("  - ") for line in str(raised.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.lr=3e-4", lambda outer: outer.train.lr == 3e-4),
        ("train.lr=.5", lambda outer: outer.train.lr == 0.5),
        ("seed=1e4", lambda outer: outer.seed == 10_000),
        ("length=", lambda outer: outer.length is None),
        ("optimizer=adamw", lambda outer: outer.optimizer == "adamw"),
        ("train.prompts=[Once upon, a time]", lambda outer: outer.train.prompts == ("Once upon", "a time")),
        ("train.prompts=['a=b']", lambda outer: outer.train.prompts == ("a=b",)),
    ],
)
def test_override_sets_one_key(override, read):
    assert read(load_settings(Outer, [override]))


def test_override_changes_given_values_and_leaves_them_alone():
    values = {"seed": 3, "train": {"lr": 0.5}}
    assert load_settings(Outer, ["train.prompts=[x]"], values) == Outer(seed=3, train=Inner(lr=0.5, prompts=("x",)))
    assert values == {"seed": 3, "train": {"lr": 0.5}}


def test_last_override_wins():
    assert load_settings(Outer, ["seed=1", "seed=2"]).seed == 2


def test_empty_group_takes_overrides():
    assert load_settings(Outer, ["train.lr=0.5"], {"train": None}).train.lr == 0.5


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seeed=1", "unknown key seeed; did you mean seed?"),
        ("trian.lr=1", "unknown key trian; did you mean train?"),
        ("train.lrr=1", "unknown key train.lrr; did you mean train.lr?"),
        ("lr=1", "unknown key lr; did you mean train.lr?"),
        ("train.zzz=1", "unknown key train.zzz; valid: train.lr, train.prompts"),
        ("zzz=1", "unknown key zzz; valid: seed, length, optimizer, train"),
        ("train.lr=0", "train.lr: must be greater than 0 (got '0')"),
        ("train.lr=.inf", "train.lr: must be a finite number (got 'inf')"),
        ("length=3", "length: must be greater than or equal to 8 (got '3')"),
        ("seed=1.5", "seed: must be a valid integer, got a number with a fractional part (got '1.5')"),
        ("optimizer=sgd", "optimizer: must be 'adamw' or 'muon' (got 'sgd')"),
        ("train=3", "train: must be a group of settings (got '3')"),
        ("seed.x=3", "seed.x: seed is a value, not a group of settings"),
        ("seed", "'seed' is not key=value"),
        ("=3", "'=3' is not key=value"),
    ],
)
def test_a_problem_says_where_and_what(override, problem):
    assert problems_of("seed=1", override) == [problem]


def test_all_problems_are_reported_at_once():
    with pytest.raises(UsageError) as raised:
        load_settings(Outer, ["nonsense", "seeed=1", "train.lr=-1", "length=x"], where="my.yaml")
    assert str(raised.value).splitlines()[0] == "4 problems in my.yaml:"
    for part in ("'nonsense'", "seeed", "train.lr", "length"):
        assert part in str(raised.value)


def test_settings_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        Outer().seed = 1  # type: ignore[misc]


def test_nearest_prefers_the_whole_name():
    assert nearest("train.muon_lr", ["train.lr", "train.muon_lr"]) == "; did you mean train.muon_lr?"


def test_yaml_reads_exponents_as_numbers():
    assert read_yaml("a: 3e-4\nb: 1e4\nc: e4\nd: 1_0e2", "x") == {"a": 3e-4, "b": 1e4, "c": "e4", "d": 1000.0}


def test_numbers_are_decimal_and_times_are_none():
    values = read_yaml("a: 010\nb: 1:30\nc: -12\nd: 1_000\ne: 0\nf: 0x10\n", "x")
    assert values == {"a": "010", "b": "1:30", "c": -12, "d": 1000, "e": 0, "f": "0x10"}
    assert load_recipe("gpt2-mini", ["seed=010"]).seed == 10
    with pytest.raises(UsageError, match=r"train\.evaluate_tokens: must be a valid integer.*'1:30'"):
        load_recipe("gpt2-mini", ["train.evaluate_tokens=1:30"])


@pytest.mark.parametrize("text", ["0", "col #1", "yes", "on", "~x", "2024-01-01", "a: b", "[a]", "a=b"])
def test_a_setting_that_is_text_is_taken_as_it_stands(text):
    assert load_corpus_settings(None, [f"text_column={text}"]).text_column == text
    assert load_recipe("gpt2-mini", [f"data.shards={text}"]).data.shards == text


def test_a_setting_of_text_may_be_quoted_or_emptied():
    assert load_recipe("gpt2-mini", ["data.shards='a b'"]).data.shards == "a b"
    assert load_recipe("gpt2-mini", ["data.shards=x", "data.shards="]).data.shards is None


def test_yaml_key_given_twice_is_an_error_with_its_line():
    with pytest.raises(UsageError, match=r"my\.yaml is not valid YAML: lr is given twice\n.*line 3"):
        read_yaml("train:\n  lr: 1\n  lr: 2\n", "my.yaml")


@pytest.mark.parametrize("text", ["", "- a", "text"])
def test_yaml_without_settings_is_an_error(text):
    with pytest.raises(UsageError, match="holds no settings"):
        read_yaml(text, "my.yaml")


def test_yaml_cannot_make_objects():
    with pytest.raises(UsageError, match="not valid YAML"):
        read_yaml("a: !!python/object/apply:os.getcwd []", "my.yaml")
