import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tilth.errors import UsageError
from tilth.model.families import FAMILIES
from tilth.objectives import OBJECTIVES
from tilth.recipe import Budget, Recipe, builtin_recipes, load_recipe
from tilth.train.prepare import check_family


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
        ("90 seconds", 1.5, "minutes"),
        ("1.5 hours", 90, "minutes"),
    ],
)
def test_budget_reads_an_amount_and_a_unit(text, amount, unit):
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit) == (amount, unit)


@pytest.mark.parametrize(
    "text",
    ["20", "minutes", "0 steps", "-1 steps", "nan steps", "1e999 steps", "5 days", "1,000 steps", "10m tokens", ""],
)
def test_what_is_no_budget_says_what_one_looks_like(text):
    with pytest.raises(
        ValueError, match=r"is not a budget; .*tokens, steps, epochs, seconds, minutes, hours.*'20 minutes'"
    ):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("given", "printed"),
    [("40 seconds", "40 seconds"), ("90 seconds", "1.5 minutes"), ("1 second", "1 second"),
     ("7.3 seconds", "7.3 seconds"),
     ("0.7 minutes", "0.7 minutes"), ("1.5 hours", "90 minutes"), ("120 seconds", "2 minutes")],
)  # fmt: skip
def test_a_time_is_printed_in_the_unit_that_reads_well_and_read_back_exactly(given, printed):
    budget = Budget.parse(given)
    assert str(budget) == printed
    assert Budget.parse(printed) == budget


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


def test_a_recipe_that_is_like_none_lists_those_there_are():
    with pytest.raises(UsageError) as raised:
        load_recipe("x.yaml")
    there = ", ".join(builtin_recipes())
    assert str(raised.value) == (
        f"no recipe 'x.yaml': there is no such file, and no built-in recipe of that name; valid: {there}"
    )


def test_an_amount_of_one_is_singular():
    assert [str(Budget.parse(text)) for text in ("1 minutes", "1 minute", "2 steps", "0.5 epochs")] == [
        "1 minute", "1 minute", "2 steps", "0.5 epochs",
    ]  # fmt: skip


def test_unknown_keys_of_a_file_and_of_overrides_are_reported_together(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("family: bert\ntrain: {learning_rate: 1, batch_token: 3}\n", encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        load_recipe(path, ["data.lenght=128"])
    message = str(raised.value)
    assert "4 problems in " in message and "mine.yaml:" in message
    assert "size is required" in message
    assert "unknown key train.batch_token; did you mean train.batch_tokens?" in message
    assert "unknown key data.lenght; did you mean data.length?" in message
    assert "unknown key train.learning_rate" in message


def test_unreadable_recipe_is_a_usage_error(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read the recipe"):
        load_recipe(path)


def test_a_step_holds_at_least_one_row():
    with pytest.raises(UsageError, match=r"train\.batch_tokens=100 is less than one row of data\.length=128"):
        load_recipe("bert-mini", ["train.batch_tokens=100", "data.length=128"])


def test_warmup_and_decay_must_fit_in_the_budget():
    with pytest.raises(UsageError, match=r"train: warmup \(0\.5\) and decay \(0\.6\) together exceed"):
        load_recipe("gpt2-mini", ["train.warmup=0.5", "train.decay=0.6"])
    assert load_recipe("gpt2-mini", ["train.warmup=0.7", "train.schedule=cosine"]).train.decay == 0.4


@pytest.mark.parametrize(
    ("recipe", "overrides", "problem"),
    [
        ("gpt2-mini", ["tokenizer.path=t", "tokenizer.kind=wordpiece"], "tokenizer.kind .* beside tokenizer.path=t"),
        ("bert-mini", ["tokenizer.path=t", "tokenizer.vocab_size=99"], "tokenizer.vocab_size .* tokenizer.path=t"),
        ("bert-mini", ["tokenizer.path=t", "tokenizer.lowercase=no"], "tokenizer.lowercase .* tokenizer.path=t"),
        ("bert-mini", ["tokenizer.path=t", "tokenizer.sample_bytes=2e3"], "tokenizer.sample_bytes .*tokenizer.path=t"),
        ("roberta-mini", ["tokenizer.lowercase=true"], "tokenizer.lowercase .* beside tokenizer.kind=byte_bpe"),
        ("gpt2-mini", ["objective.rate=0.15"], "objective.rate .* beside objective.name=causal"),
        ("gpt2-mini", ["objective.masks=fixed"], "objective.masks .* beside objective.name=causal"),
        ("gpt2-mini", ["objective.duplicates=3"], "objective.duplicates .* beside objective.name=causal"),
        ("electra-mini", ["objective.vocabulary_share=0.5"], "objective.vocabulary_share .*name=replaced_token"),
        ("gpt2-mini", ["data.shards=made", "data.cache=kept"], "data.cache .* beside data.shards=made"),
        ("roberta-mini", ["objective.duplicates=3"], "objective.duplicates .* beside objective.masks=fresh"),
        ("gpt2-mini", ["train.decay=0.4", "train.schedule=cosine"], "train.decay .* beside train.schedule=cosine"),
        ("gpt2-mini", ["train.schedule=linear", "train.decay=0.1"], "train.decay .* beside train.schedule=linear"),
        ("gpt2-mini", ["train.decay=0", "train.final_lr=0.1"], "train.final_lr .* beside train.decay=0.0"),
    ],
)
def test_an_override_that_another_setting_makes_idle_is_refused(recipe, overrides, problem):
    with pytest.raises(UsageError, match=rf"^a problem in [^\n]*:\n  - {problem}; leave one of them out$"):
        load_recipe(recipe, overrides)


def test_idle_values_of_a_file_are_refused_unless_they_are_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("family: gpt2\nsize: mini\nobjective: {name: causal, rate: 0.15, duplicates: 2}\n")
    with pytest.raises(
        UsageError, match=r"a problem in .*:\n  - objective\.duplicates has no effect beside .*name=causal"
    ):
        load_recipe(path)


@pytest.mark.parametrize(
    ("recipe", "override", "group", "names"),
    [
        ("gpt2-mini", "tokenizer.path=t", "tokenizer", ["kind", "vocab_size"]),
        ("bert-mini", "tokenizer.path=t", "tokenizer", ["kind", "vocab_size"]),
        ("own", "train.schedule=cosine", "train", ["decay"]),
        ("own", "objective.masks=fresh", "objective", ["duplicates"]),
        ("own", "tokenizer.kind=byte_bpe", "tokenizer", ["lowercase"]),
    ],
)
def test_what_an_override_makes_idle_goes_back_to_its_default(recipe, override, group, names, tmp_path):
    if recipe == "own":
        own = ["train.decay=0.1", "objective.duplicates=3", "tokenizer.lowercase=false"]
        recipe = load_recipe("bert-mini", own)
    changed = load_recipe(recipe, [override])
    for name in names:
        value = getattr(changed, group)
        assert getattr(value, name) == type(value).model_fields[name].default
    (tmp_path / "recipe.yaml").write_text(changed.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml") == changed


def test_idle_settings_are_reported_with_all_other_problems():
    overrides = ["train.lr=-1", "sed=1", "train.schedule=cosine", "train.decay=0.3", "objective.rate=0.2", "nonsense"]
    with pytest.raises(UsageError) as raised:
        load_recipe("gpt2-mini", overrides)
    message = str(raised.value)
    assert "5 problems in" in message
    for part in ("train.lr: must be", "unknown key sed", "'nonsense'", "train.decay has no", "objective.rate has no"):
        assert part in message


def test_the_recipe_is_immutable():
    recipe = load_recipe("bert-mini")
    assert isinstance(recipe, Recipe)
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.lr = 1.0  # type: ignore[misc]


def test_the_readme_names_every_recipe_size_and_architecture():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(" `"): row for row in readme.splitlines() if row.startswith("| `")}
    for name in builtin_recipes():
        recipe = load_recipe(name)
        family = FAMILIES[recipe.family]
        _, _, _, sizes, architectures, _ = rows[name].split("|")
        assert sizes.strip().split(", ") == [size for size in family.sizes if size != "mini"]
        assert f"`{family.architectures[OBJECTIVES[recipe.objective.name].heads]}`" in architectures


def test_the_recipes_in_the_documentation_can_be_run():
    text = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    recipes = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "family:" in block]
    assert len(recipes) == 2
    for block in recipes:
        recipe = Recipe.model_validate(yaml.safe_load(block))
        check_family(recipe)
        assert recipe.train.budget.unit == "tokens" and recipe.train.batch_tokens // recipe.data.length >= 512


def test_an_objective_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(UsageError, match=r"objective\.name: there is no objective 'casual'; did you mean causal\?"):
        check_family(load_recipe("gpt2-mini", ["objective.name=casual"]))
