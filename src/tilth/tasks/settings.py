"""The settings of fine-tuning, with defaults that are meant to work from 8 examples per label to tens of thousands."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tilth.errors import UsageError
from tilth.model.config import TrunkConfig
from tilth.settings import Settings


class FinetuneSettings(Settings):
    """How a model learns a task. Changed by `key=value`, as a recipe is."""

    seed: int = Field(0, ge=0, description="all randomness follows from it")
    epochs: float = Field(10, gt=0, description="most passes over the examples, within min_steps and max_steps")
    min_steps: int = Field(
        100, ge=1, description="fewest updates, so that a handful of examples is learned; 1 where epochs is given"
    )
    max_steps: int | None = Field(
        6000, ge=1, description="most updates, so that many examples end in reasonable time; none where epochs is given"
    )
    batch_size: int = Field(32, ge=1, description="examples in an update")
    lr: float | None = Field(None, gt=0, description="peak learning rate of the top block; default: 1e-4 x 768 / width")
    head_lr: float | None = Field(
        None, gt=0, description="peak learning rate of the head; default: lr (3e-3 when frozen)"
    )
    layer_decay: float = Field(0.9, gt=0, le=1, description="rate of a block as a share of that of the block above")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the updates in which the rate rises; then it falls to 0"
    )
    weight_decay: float = Field(0.01, ge=0, description="of weights, not of biases and norms")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of activations set to 0 while learning")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    summary: Literal["mean", "trained"] = Field(
        "mean",
        description="start the top block as the mean of a text's vectors, or keep what pre-training made of it, which "
        "is the default when frozen",
    )
    freeze: bool = Field(
        False,
        description="train the head only; the trunk stays as it was, save its top block where summary=mean is given",
    )
    max_length: int | None = Field(
        None, ge=3, description="tokens of a text that are read, at most and by default the model's length"
    )
    valid_share: float = Field(
        0.15,
        ge=0,
        lt=0.5,
        description="held out for early stopping when no validation data is given and that is 100 examples or more; "
        "0 for none",
    )
    evaluations: int = Field(10, ge=1, description="times that the held-out examples are scored")
    patience: int = Field(
        3, ge=1, description="evaluations in a row without a better one before it stops, from half of the updates on"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto, float32 or bfloat16; auto: bfloat16 where the device has units for it"
    )
    device: str = Field("auto", description="auto (the best there is), cpu, cuda or mps")

    @model_validator(mode="before")
    @classmethod
    def _defaults_beside_others(cls, values: Any) -> Any:
        """Epochs that were asked for are what is trained, though the default bounds in updates would overrule them; and
        a frozen trunk stays whole, though the default summary would start its top block anew.
        """
        if not isinstance(values, dict):
            return values
        bounds = {"min_steps": 1, "max_steps": None} if "epochs" in values else {}
        return bounds | ({"summary": "trained"} if values.get("freeze") else {}) | values

    @model_validator(mode="after")
    def _bounds_fit(self) -> "FinetuneSettings":
        given = self.model_fields_set
        if {"min_steps", "max_steps"} <= given and self.max_steps is not None and self.min_steps > self.max_steps:
            raise ValueError(f"min_steps ({self.min_steps}) is above max_steps ({self.max_steps})")
        return self

    def idle(self) -> dict[str, str]:
        frozen = dict.fromkeys(("lr", "layer_decay"), "freeze") if self.freeze else {}
        return frozen | ({} if self.valid_share else {"patience": "valid_share"})

    def for_model(self, config: TrunkConfig) -> "FinetuneSettings":
        """The settings with those filled in that the model decides, as they are used: `max_length` and the rates.

        `lr` stays None beside `freeze`, where it has no effect.
        Raises: UsageError when `max_length` is more than the model reads.
        """
        if (self.max_length or 0) > config.max_length:
            raise UsageError(
                f"max_length={self.max_length} is more than the {config.max_length} tokens that the model reads; "
                "give at most that, or leave it out"
            )
        lr, head_lr = self.peak_rates(config.width)
        decided = {"lr": self.lr if self.freeze else lr, "head_lr": head_lr}
        return self.model_copy(update={**decided, "max_length": self.max_length or config.max_length})

    def peak_rates(self, width: int) -> tuple[float, float]:
        """The peak learning rates of the top block and of the head.

        By width, as ELECTRA was fine-tuned: 3e-4 at 256 and 1e-4 at 768, both with falling rates towards the input
        (Clark et al. 2020, appendix B).
        """
        trunk = self.lr or float(f"{1e-4 * 768 / width:.6g}")  # 0.0003, not 0.00030000000000000003, on the record
        return trunk, self.head_lr or (3e-3 if self.freeze else trunk)
