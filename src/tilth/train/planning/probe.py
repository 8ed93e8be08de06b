"""How fast a recipe trains here: a short run of it, on the real data, timed from its own log."""

from dataclasses import dataclass
from pathlib import Path

from tilth.recipe import Budget, DataSettings, Recipe
from tilth.train.loop import pretrain
from tilth.train.position import TIMES
from tilth.train.prepare import Prepared
from tilth.train.trackers import read_log

STEPS, WARM_UP = 20, 5
"""Steps of a probe, and how many of the first do not count."""


@dataclass(frozen=True)
class Probe:
    """What a short run took.

    tokens_per_second: of training steps, on the clock. seconds_per_evaluation: scoring the held-out text, with samples
    and saving. start_seconds: making the model.
    """

    tokens_per_second: float
    seconds_per_evaluation: float
    start_seconds: float

    def seconds(self, tokens: float, evaluations: float = TIMES["evaluate_every"]) -> float:
        """How long a run on so many tokens takes."""
        return self.start_seconds + tokens / self.tokens_per_second + evaluations * self.seconds_per_evaluation

    def tokens(self, seconds: float, evaluations: float = TIMES["evaluate_every"]) -> float:
        """How many tokens a run of so many seconds trains on."""
        training = seconds - self.start_seconds - evaluations * self.seconds_per_evaluation
        return max(0.0, training) * self.tokens_per_second


def short_run(recipe: Recipe, prepared: Prepared, folder: Path, budget: Budget) -> Recipe:
    """The recipe for another budget, evaluated and saved at its end only and tracked nowhere, on what `prepare` left in
    `folder`."""
    train = {"budget": budget, "evaluate_every": budget, "save_every": budget, "trackers": ()}
    data = {"shards": recipe.data.shards or str(prepared.shards.path), "validation": DataSettings().validation}
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=train),
            "data": recipe.data.model_copy(update=data),
            "tokenizer": recipe.tokenizer.model_copy(update={"path": str(folder / "tokenizer.json")}),
        }
    )


def probe(recipe: Recipe, prepared: Prepared, folder: Path) -> Probe:
    """Train for 20 steps in `folder/probe`, and time them. folder: where `prepare` left its files.

    Raises: TilthError as a run does.
    """
    settings = short_run(recipe, prepared, folder, Budget(amount=STEPS, unit="steps"))
    pretrain(settings, prepared.corpus.path, folder / "probe", progress=False)
    records = read_log(folder / "probe" / "log.jsonl")
    steps = [record for record in records if record["event"] == "step"]
    (evaluation,) = (record for record in records if record["event"] == "evaluation")
    trained = steps[-1]["tokens"] - steps[WARM_UP - 1]["tokens"]
    seconds = steps[-1]["seconds"] - steps[WARM_UP - 1]["seconds"]
    speed = trained / max(seconds, 1e-3)
    return Probe(
        tokens_per_second=speed,
        # What follows the evaluation is samples, saving, and the same evaluation of what was saved.
        seconds_per_evaluation=max(0.0, records[-1]["seconds"] - evaluation["seconds"]),
        start_seconds=max(0.0, steps[0]["seconds"] - steps[0]["tokens"] / speed),
    )
