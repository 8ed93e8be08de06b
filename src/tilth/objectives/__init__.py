"""The table of objectives: a new one is a file here and an entry below."""

from tilth.objectives.causal import Causal
from tilth.objectives.masked import Masked
from tilth.objectives.next_sentence import NextSentence
from tilth.objectives.objective import Objective
from tilth.objectives.replaced_token import ReplacedToken
from tilth.recipe import Recipe
from tilth.tokens.tokenizer import TextTokenizer

OBJECTIVES: dict[str, type[Objective]] = {
    "masked": Masked,
    "next_sentence": NextSentence,
    "replaced_token": ReplacedToken,
    "causal": Causal,
}


def build_objective(recipe: Recipe, tokenizer: TextTokenizer) -> Objective:
    """The objective that a recipe names. Raises: UsageError when the tokenizer lacks a token it needs."""
    return OBJECTIVES[recipe.objective.name](recipe, tokenizer)
