"""The settings of a pre-training run: typed, complete, and checked before anything is spent.

A recipe is a built-in name (`bert-mini`) or a YAML file, changed by dotted overrides (`train.lr=3e-4`). An unknown key
or a bad value is an error that names the nearest valid one, and all problems are reported at once.
"""

import math
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from tilth.errors import UsageError
from tilth.settings import Settings, load_settings, nearest, read_yaml
from tilth.urls import is_url

_BUDGET = re.compile(
    r"\s*([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)(e[+-]?[0-9]+)?\s*([KMB]?)\s*(token|step|epoch|second|minute|hour)s?\s*"
)
SMALLEST_VOCABULARY = 16
_MULTIPLIERS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}
_MINUTES = {"second": 1 / 60, "hour": 60.0}


class Budget(BaseModel):
    """How much to train: an amount and its unit (`20 minutes`, `1000 steps`, `3 epochs`, `10M tokens`)."""

    model_config = ConfigDict(frozen=True)
    amount: float = Field(gt=0)
    unit: Literal["tokens", "steps", "epochs", "minutes"]

    @classmethod
    def parse(cls, text: object) -> "Budget":
        """Read `<amount>[K|M|B] <unit>`; seconds and hours become minutes.

        Raises: ValueError that says what a budget looks like.
        """
        if isinstance(text, Budget):
            return text
        if isinstance(text, str) and (match := _BUDGET.fullmatch(text)):
            number, exponent, multiplier, unit = match.groups(default="")
            amount = float(number.replace("_", "") + exponent) * _MULTIPLIERS[multiplier]
            if unit in _MINUTES:
                amount, unit = amount * _MINUTES[unit], "minute"
            if 0 < amount < math.inf:
                return cls.model_validate({"amount": amount, "unit": f"{unit}s"})
        raise ValueError(
            f"{text!r} is not a budget; write an amount above 0 (K, M and B multiply it) and a unit "
            "(tokens, steps, epochs, seconds, minutes, hours), such as '20 minutes' or '10M tokens'"
        )

    def __str__(self) -> str:
        """As it can be read back: minutes with many decimals are written as the seconds that they come from."""
        amount, unit = f"{self.amount:.15g}", self.unit
        seconds = f"{self.amount * 60:.12g}"
        if unit == "minutes" and len(amount) > 6 > len(seconds) and float(seconds) * _MINUTES["second"] == self.amount:
            amount, unit = seconds, "seconds"
        return f"{amount} {unit.removesuffix('s') if amount == '1' else unit}"


BudgetSetting = Annotated[Budget, BeforeValidator(Budget.parse), PlainSerializer(str, return_type=str)]


class ModelSettings(Settings):
    """Changes to the family's size, and how the weights start."""

    layers: int | None = Field(default=None, ge=1, description="number of blocks; default: the size's")
    width: int | None = Field(default=None, ge=1, description="hidden width; default: the size's")
    heads: int | None = Field(default=None, ge=1, description="attention heads; default: the size's")
    max_length: int | None = Field(default=None, ge=8, description="longest input in tokens; default: data.length")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout while pre-training")
    start: Literal["random", "corpus"] = Field(
        default="corpus",
        description="random: every weight. corpus: the token table from the corpus's co-occurrence and a masked head's "
        "bias from its word frequencies; in bidirectional trunks that normalise after each sum (bert, roberta, "
        "electra) also a sinusoidal position table, in dimensions that the token and segment tables then leave free, "
        "and a first block whose heads read neighbours and the whole document",
    )


class TokenizerSettings(Settings):
    """The tokenizer to train on the corpus, or the file of one to use."""

    kind: Literal["wordpiece", "byte_bpe", "characters"] = "wordpiece"
    vocab_size: int = Field(default=8192, ge=SMALLEST_VOCABULARY, description="entries, special tokens included")
    lowercase: bool = Field(default=True, description="fold case and accents (wordpiece only)")
    sample_bytes: int = Field(default=50_000_000, ge=1000, description="bytes of the seeded training sample")
    path: str | None = Field(default=None, description="an existing tokenizer.json, or a model folder that holds one")

    def idle(self) -> dict[str, str]:
        if self.path is not None:
            return dict.fromkeys(("kind", "vocab_size", "lowercase", "sample_bytes"), "path")
        return {} if self.kind == "wordpiece" else {"lowercase": "kind"}


class DataSettings(Settings):
    """How documents become rows of tokens."""

    length: int = Field(default=128, ge=8, description="tokens in a row")
    cross_documents: bool = Field(default=False, description="let attention cross the documents packed into one row")
    validation: float = Field(
        default=0.05, gt=0, lt=0.5, description="held-out share when --corpus is raw data, not a corpus"
    )
    shards: str | None = Field(
        default=None,
        description="the shards of an earlier run on the same corpus and tokenizer, to use again: a folder or a URL",
    )
    cache: str | None = Field(
        default=None, description="where shards from a URL are kept; default: the user's cache folder"
    )

    def idle(self) -> dict[str, str]:
        return {} if self.shards is not None and is_url(self.shards) else {"cache": "shards"}


class ObjectiveSettings(Settings):
    """What the trunk learns from."""

    name: str = Field(default="masked", description="masked, next_sentence, replaced_token or causal")
    rate: float = Field(default=0.15, gt=0, lt=1, description="share of tokens to predict (masked objectives)")
    masks: Literal["fresh", "fixed"] = Field(
        default="fresh", description="new masks every epoch (RoBERTa), or fixed when the data is made (BERT)"
    )
    duplicates: int = Field(default=10, ge=1, description="how many times fixed masks are drawn for each row")
    vocabulary_share: float = Field(
        default=1.0,
        ge=0.2,  # by fewer words the training loss would be estimated too low to be held against the held-out loss
        le=1,
        description="share of a vocabulary above 4,096 words in the softmax of most training steps: the most frequent "
        "words, and others drawn anew at each (sampled softmax); evaluations take all of it",
    )

    def idle(self) -> dict[str, str]:
        if self.name == "causal":
            return dict.fromkeys(("rate", "masks", "duplicates"), "name")
        idle = {"vocabulary_share": "name"} if self.name == "replaced_token" else {}
        return idle if self.masks == "fixed" else idle | {"duplicates": "masks"}


class TrainSettings(Settings):
    """The loop: how long, how fast, and what to watch."""

    budget: BudgetSetting = Field(
        default=Budget(amount=20, unit="minutes"), description="how much to train, with its unit"
    )
    batch_tokens: int = Field(default=8192, ge=1, description="tokens in an optimizer step")
    micro_batch_tokens: int | None = Field(
        default=None, ge=1, description="tokens in one forward pass; default: by device"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="muon", description="muon: hidden matrices by Muon, the rest by AdamW"
    )
    lr: float = Field(
        default=1e-3, gt=0, description="peak learning rate; decoders' token and position tables learn twice as fast"
    )
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["linear", "cosine", "warmup_stable_decay"] = "warmup_stable_decay"
    warmup: float = Field(default=0.02, ge=0, lt=1, description="share of the budget in which the rate rises")
    decay: float = Field(default=0.4, ge=0, le=1, description="share of the budget in which warmup_stable_decay falls")
    final_lr: float = Field(default=0.0, ge=0, le=1, description="rate at the end, as a share of the peak")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 where it is fast"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or mps")
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp", description="with several processes: a whole model in each, or a shard of it (FSDP2)"
    )
    compile: bool | Literal["auto"] = Field(
        default="auto",
        description="fuse small operations (torch.compile): faster, but a start later; auto: on a GPU, not with fsdp",
    )
    activation_checkpointing: bool = Field(
        default=False, description="less memory, a third more work: blocks are computed again for their gradient"
    )
    evaluate_every: BudgetSetting | None = Field(default=None, description="default: a twelfth of the budget")
    evaluate_tokens: int = Field(default=200_000, ge=1, description="held-out tokens scored on schedule and at the end")
    save_every: BudgetSetting | None = Field(default=None, description="default: a sixth of the budget")
    keep_checkpoints: int = Field(
        default=2,
        ge=1,
        description="how many of the newest checkpoints stay; the one of the best held-out loss does too",
    )
    keep_every: BudgetSetting | None = Field(
        default=None, description="a checkpoint that stays, each time this much was done; default: none"
    )
    patience: int = Field(
        default=3, ge=1, description="held-out evaluations without a better loss before overfitting is named"
    )
    on_overfitting: Literal["continue", "stop", "lower_rate"] = Field(
        default="continue", description="the best model is kept in any case; lower_rate halves the peak rate"
    )
    on_stall: Literal["continue", "stop", "lower_rate"] = "continue"
    on_spike: Literal["continue", "skip", "rewind", "lower_rate"] = Field(
        default="continue",
        description="skip: no update by this step; rewind: go back to the last checkpoint and leave out the batches "
        "since",
    )
    on_divergence: Literal["continue", "stop", "rewind", "lower_rate"] = "continue"
    on_nonfinite: Literal["stop", "skip", "rewind"] = "stop"
    on_layers: Literal["continue", "stop", "rewind", "lower_rate"] = Field(
        default="continue",
        description="what to do about dead or exploding layers; none is looked at with parallel=fsdp, nor in "
        "electra's generator",
    )
    on_corruption: Literal["continue", "stop"] = "continue"
    recompute_every: int = Field(
        default=100, ge=0, description="steps between two computations of a small batch, compared bit by bit; 0: never"
    )
    trackers: tuple[Literal["trackio", "wandb", "mlflow"], ...] = Field(
        default=(), description="where figures go besides log.jsonl and TensorBoard; on this machine unless set up else"
    )
    prompts: tuple[str, ...] = Field(
        default=(), description="texts to continue (causal) or fill in (masked, [MASK]) on schedule"
    )

    def idle(self) -> dict[str, str]:
        idle = {} if self.parallel == "ddp" else {"on_layers": "parallel", "compile": "parallel"}
        if not self.recompute_every:
            idle["on_corruption"] = "recompute_every"
        if self.schedule != "warmup_stable_decay":
            return idle | {"decay": "schedule"}
        return idle if self.decay else idle | {"final_lr": "decay"}

    @model_validator(mode="after")
    def _phases_fit(self) -> "TrainSettings":
        if self.schedule == "warmup_stable_decay" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup ({self.warmup}) and decay ({self.decay}) together exceed the whole budget")
        return self


class Recipe(Settings):
    """All settings of a run."""

    family: str
    size: str
    seed: int = Field(default=0, ge=0)
    model: ModelSettings = ModelSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings = DataSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _step_holds_a_row(self) -> "Recipe":
        if self.train.batch_tokens < self.data.length:
            raise ValueError(
                f"train.batch_tokens={self.train.batch_tokens} is less than one row of data.length={self.data.length}"
            )
        return self

    def to_yaml(self) -> str:
        """The whole recipe, defaults included, as YAML that `load_recipe` reads back to an equal value."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


_ON_RESUME = {
    # The saved weights, the optimizer's state, or the place in the data would no longer fit.
    "fixed": """
        family size model.layers model.width model.heads model.max_length model.start
        tokenizer.kind tokenizer.vocab_size tokenizer.lowercase tokenizer.sample_bytes tokenizer.path
        data.length data.validation objective.name train.batch_tokens train.optimizer
    """,
    # The run would go on, to another result.
    "alters": """
        seed model.dropout data.cross_documents objective.rate objective.masks objective.duplicates
        objective.vocabulary_share
        train.budget train.micro_batch_tokens train.lr train.weight_decay train.schedule train.warmup train.decay
        train.final_lr train.clip train.evaluate_every train.evaluate_tokens train.patience train.on_overfitting
        train.on_stall train.on_spike train.on_divergence train.on_nonfinite train.on_layers train.on_corruption
    """,
    # What is computed stays the same, but for rounding where work is shared out otherwise (a run's number of processes
    # is no setting, but is compared too). Shards are compared with the corpus and the tokenizer; the device, the
    # number format and the compiling that settings lead to are compared themselves (tilth.train.identity).
    "harmless": """
        data.shards data.cache train.parallel train.activation_checkpointing train.compile train.device
        train.precision train.save_every train.keep_checkpoints train.keep_every train.prompts train.recompute_every
        train.trackers
    """,
}
_KIND_ON_RESUME = {name: kind for kind, names in _ON_RESUME.items() for name in names.split()}


def on_resume(name: str) -> str:
    """What a change of this dotted setting means for a run that goes on: `fixed` (it cannot change), `alters` (the
    result, so it must be accepted) or `harmless`. What is not declared alters the result."""
    return _KIND_ON_RESUME.get(name, "alters")


def builtin_recipes(package: str = "tilth.recipes") -> list[str]:
    """Names of the recipes that come with Tilth in `package`: of a run, unless told."""
    return sorted(
        path.name.removesuffix(".yaml") for path in resources.files(package).iterdir() if path.name.endswith(".yaml")
    )


def load_recipe(recipe: str | Path | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by built-in name or YAML path and apply `key=value` overrides.

    Raises: UsageError that lists every problem.
    """
    if isinstance(recipe, Recipe):
        return load_settings(Recipe, overrides, recipe.model_dump(mode="json"), "the recipe")
    return load_settings(Recipe, overrides, read_values(recipe), str(recipe))


def read_values(recipe: str | Path, package: str = "tilth.recipes") -> dict[str, Any]:
    """The values that a recipe gives, by the name of one in `package` or as a YAML file.

    Raises: UsageError.
    """
    path = Path(recipe)
    if str(recipe) in builtin_recipes(package):
        text = (resources.files(package) / f"{recipe}.yaml").read_text(encoding="utf-8")
    elif path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the recipe {path}: {error}") from None
    else:
        raise UsageError(
            f"no recipe {str(recipe)!r}: there is no such file, and no built-in recipe of that name"
            + nearest(str(recipe), builtin_recipes(package))
        )
    return read_yaml(text, str(recipe))
