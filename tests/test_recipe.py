import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.errors import UsageError
from tilth.recipe import Budget, Recipe, builtin_recipes, load_recipe


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("20 minutes", 20, "minutes"),
        ("1 step", 1, "steps"),
        ("0.5 epochs", 0.5, "epochs"),
        (".5 epochs", 0.5, "epochs"),
        ("10M tokens", 10_000_000, "tokens"),
        ("1.5 B tokens", 1_500_000_000, "tokens"),
        ("2K steps", 2000, "steps"),
        ("1_000 steps", 1000, "steps"),
        ("1e6 tokens", 1_000_000, "tokens"),
        (" 90minutes ", 90, "minutes"),
    ],
)
def test_budget_reads_an_amount_and_a_unit(text, amount, unit):
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit) == (amount, unit)


@pytest.mark.parametrize(
    "text",
    ["20", "minutes", "0 steps", "-1 steps", "nan steps", "1e999 steps", "5 hours", "1,000 steps", "10m tokens", ""],
)
def test_what_is_no_budget_says_what_one_looks_like(text):
    with pytest.raises(ValueError, match=r"is not a budget; .*tokens, steps, epochs, minutes.*'20 minutes'"):
        Budget.parse(text)


@given(st.floats(min_value=1e-3, max_value=1e18), st.sampled_from(["tokens", "steps", "epochs", "minutes"]))
def test_budget_is_read_back_from_what_it_prints(amount, unit):
    budget = Budget(amount=amount, unit=unit)
    read_back = Budget.parse(str(budget))
    assert read_back.unit == unit
    assert math.isclose(read_back.amount, amount, rel_tol=1e-14)


@pytest.mark.parametrize("value", ["20", "true", "{amount: 3, unit: steps}", ""])
def test_a_bare_number_as_budget_is_explained(value):
    with pytest.raises(UsageError, match=r"train\.budget: .* is not a budget; .*such as '20 minutes'"):
        load_recipe("bert-mini", [f"train.budget={value}"])


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_are_complete_and_survive_yaml(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert recipe.family == name.removesuffix("-mini")


def test_overrides_apply_to_a_recipe_by_name_file_and_value(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("family: bert\nsize: mini\ntrain: {lr: 3e-4}\n", encoding="utf-8")
    for recipe in ("bert-mini", path, load_recipe("bert-mini")):
        changed = load_recipe(recipe, ["train.budget=100 steps", "train.lr=5e-4", "model.layers=2"])
        assert changed.train.budget == Budget(amount=100, unit="steps")
        assert changed.train.lr == 5e-4
        assert changed.model.layers == 2
    assert load_recipe(path).train.lr == 3e-4


def test_recipe_with_every_kind_of_value_survives_yaml(tmp_path):
    overrides = ["train.prompts=['Ünï: #1', '[MASK] it']", "train.evaluate_every=50 steps", "tokenizer.path=a b.json"]
    recipe = load_recipe("roberta-mini", overrides)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    read_back = load_recipe(path)
    assert read_back == recipe
    assert read_back.train.prompts == ("Ünï: #1", "[MASK] it")
    assert str(read_back.train.evaluate_every) == "50 steps"


def test_unknown_recipe_suggests_the_nearest():
    with pytest.raises(UsageError, match=r"no recipe 'brt-mini'.*did you mean bert-mini\?"):
        load_recipe("brt-mini")


def test_unknown_keys_of_a_file_and_of_overrides_are_reported_together(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("family: bert\ntrain: {learning_rate: 1, batch_token: 3}\n", encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        load_recipe(path, ["data.lenght=128"])
    message = str(raised.value)
    assert "mine.yaml has 4 problems:" in message
    assert "size is required" in message
    assert "unknown key train.batch_token; did you mean train.batch_tokens?" in message
    assert "unknown key data.lenght; did you mean data.length?" in message
    assert "unknown key train.learning_rate" in message


def test_unreadable_recipe_is_a_usage_error(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read the recipe"):
        load_recipe(path)


def test_warmup_and_decay_must_fit_in_the_budget():
    with pytest.raises(UsageError, match=r"train: warmup \(0\.5\) and decay \(0\.6\) together exceed"):
        load_recipe("gpt2-mini", ["train.warmup=0.5", "train.decay=0.6"])
    assert load_recipe("gpt2-mini", ["train.warmup=0.5", "train.decay=0.6", "train.schedule=cosine"])


def test_the_recipe_is_immutable():
    recipe = load_recipe("bert-mini")
    assert isinstance(recipe, Recipe)
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.lr = 1.0  # type: ignore[misc]
