"""Texts from a causal model, one token of each at a time, with a key/value cache."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tilth.errors import TilthError, UsageError
from tilth.key import Key
from tilth.model.decoding import Decoder
from tilth.model.inputs import Inputs
from tilth.model.layers import Cache
from tilth.model.model import Model
from tilth.tokens.tokenizer import TextTokenizer

Reason = Literal["end_of_text", "stop", "length"]


@dataclass(frozen=True)
class Completion:
    """What follows a prompt, and why it ends there.

    end_of_text: at the end-of-text token. stop: before a stop text. length: after max_tokens, or where the model's
    context is full.
    """

    text: str
    reason: Reason


def generate(model: Model, tokenizer: TextTokenizer, prompts: Sequence[str], **settings: Any) -> list[str]:
    """The texts of `complete`, which says what the settings and errors are."""
    return [completion.text for completion in complete(model, tokenizer, prompts, **settings)]


@torch.inference_mode()
def complete(
    model: Model,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    *,
    max_tokens: int = 128,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    dtype: torch.dtype | None = None,
) -> list[Completion]:
    """Continue prompts, all together; returns the new text of each, and why it ends.

    The model reads the end-of-text token and then the prompt. A text ends at the end-of-text token, at a stop text
    (left out of the result), after max_tokens, or when the model's context is full.
    temperature: 0 takes the likeliest token; otherwise logits are divided by it. top_k and top_p keep the k likeliest
    tokens, and the fewest whose probability reaches p (Holtzman et al. 2020). Draw i of prompt r depends on
    (seed, i, r) alone, so that a prompt given twice is continued in two ways. dtype: the type to compute in; None takes
    that of the weights.
    Raises: TilthError when the model is not causal, puts out NaN or infinity, or a prompt fills its context; UsageError
    for settings out of range and for no prompts.
    """
    _check(model, temperature, top_k, top_p, max_tokens, prompts, stop)
    texts = [_Text(tokenizer, prompt, model.config.max_length, max_tokens, stop) for prompt in prompts]
    was_training = model.training
    model.eval()
    try:
        steps = max(text.most_new for text in texts)
        dtype = dtype or model.trunk.embeddings.tokens.weight.dtype
        logits_BV, make_decoder = _read_prompts(model, [text.prompt for text in texts], steps, dtype)
        draws = _draws(seed, len(texts), steps)
        decoder = None
        for step in range(steps):
            tokens = _choose(logits_BV, temperature, top_k, top_p, next(draws))
            for text, token in zip(texts, tokens, strict=True):
                text.add(token)
            if step == steps - 1 or all(text.is_done for text in texts):
                break
            decoder = decoder or make_decoder()  # not for one token: it copies the weights
            logits_BV = decoder.read(tokens)
    finally:
        model.train(was_training)
    return [Completion(text.text(), text.reason) for text in texts]


class _Text:
    """One text in the making. prompt: its token ids; most_new: how many may follow."""

    def __init__(
        self, tokenizer: TextTokenizer, prompt: str, context: int, max_tokens: int, stop: Sequence[str]
    ) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._end = tokenizer.special.eot
        self.prompt = ([self._end] if self._end is not None else []) + tokenizer.encode(prompt)
        if not self.prompt:
            raise UsageError("the prompt is empty and this tokenizer has no end-of-text token to start from")
        if len(self.prompt) >= context:
            raise TilthError(
                f"the prompt has {len(self.prompt)} tokens and the model reads at most {context}; shorten the prompt"
            )
        self.most_new = min(max_tokens, context - len(self.prompt))
        self._new_ids: list[int] = []
        self.is_done = False
        self.reason: Reason = "length"

    def add(self, token: int) -> None:
        """Take the next token, unless the text is done."""
        if self.is_done:
            return
        if token == self._end:
            self.is_done, self.reason = True, "end_of_text"
            return
        self._new_ids.append(token)
        if self._stop and self._stops() is not None:
            self.is_done, self.reason = True, "stop"
        elif len(self._new_ids) >= self.most_new:
            self.is_done = True

    def text(self) -> str:
        """What is new, up to a stop text."""
        text = self._tokenizer.decode(self._new_ids)
        return text[: self._stops()] if self._stop else text

    def _stops(self) -> int | None:
        """Where the first stop text begins, if one does."""
        text = self._tokenizer.decode(self._new_ids)
        return min((place for place in map(text.find, self._stop) if place >= 0), default=None)


def _read_prompts(
    model: Model, prompts: list[list[int]], steps: int, dtype: torch.dtype
) -> tuple[Tensor, Callable[[], Decoder]]:
    """The logits (B, V) of what follows the prompts, and what makes a decoder that reads on, `steps` tokens at most."""
    # Prompts end in one column: shorter ones are padded on the left, where nothing looks.
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    tokens_BS = torch.tensor([[0] * before + prompt for before, prompt in zip(padding, prompts, strict=True)])
    positions_BS = torch.arange(longest) - torch.tensor(padding)[:, None]
    inputs = Inputs(tokens_BS, positions_BS.clamp(min=0), torch.where(positions_BS < 0, -1, 0))
    cache = Cache(longest + steps)
    hidden_BSD = model.trunk(inputs.to(model.trunk.embeddings.tokens.weight.device), dtype, cache)
    return model.heads["causal"](hidden_BSD[:, -1]), partial(Decoder, model, cache, padding, longest, dtype)


def _draws(seed: int, rows: int, steps: int) -> Iterator[np.ndarray]:
    """A uniform number from [0, 1) for each row, for each of `steps` steps.

    Many steps ahead, because between two steps of the model the processor's caches hold the weights, not this code.
    """
    for first in range(0, steps, 64):
        keys = [Key(seed, step, "generate") for step in range(first, min(steps, first + 64))]
        yield from [key.generator().random(rows) for key in keys]


def _choose(
    logits_BV: Tensor, temperature: float, top_k: int | None, top_p: float | None, draws_B: np.ndarray
) -> list[int]:
    """A token of each row. draws_B: a uniform number from [0, 1) for each."""
    if temperature == 0:
        largest_B, tokens_B = logits_BV.max(dim=-1)
        _check_numbers(largest_B.float().cpu().numpy())
        return tokens_B.tolist()
    tokens_BK = None
    if top_k is not None or top_p is not None:
        vocab_size = logits_BV.shape[1]
        logits_BV, tokens_BK = _largest(logits_BV, min(top_k or vocab_size, vocab_size))
    # On the CPU in float64, so that the draw is the same on every device up to the logits themselves.
    logits = logits_BV.float().cpu().numpy().astype(np.float64)
    largest_B1 = logits.max(axis=1, keepdims=True)
    _check_numbers(largest_B1)
    weights = np.exp((logits - largest_B1) / temperature)
    cumulative = weights.cumsum(axis=1)
    if top_p is not None:
        cumulative = (weights * (cumulative - weights < top_p * cumulative[:, -1:])).cumsum(axis=1)
    total_B = cumulative[:, -1]
    places_B = np.minimum(draws_B * total_B, np.nextafter(total_B, 0))
    chosen_B = (cumulative <= places_B[:, None]).sum(axis=1)
    if tokens_BK is None:
        return chosen_B.tolist()
    return tokens_BK.cpu().numpy()[np.arange(len(chosen_B)), chosen_B].tolist()


def _largest(logits_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest logits of each row in falling order, and the tokens they are of; both (B, k). Which of equal ones
    are among them, and in what order, depends on the number of rows.

    For several rows on the CPU in half the time of `topk`: all of them lie in the k columns of 16 logits whose largest
    ones are the largest.
    """
    height, (rows, vocab_size) = 16, logits_BV.shape
    if logits_BV.device.type != "cpu" or rows < 4 or vocab_size < 4 * height * k:
        values_BK, tokens_BK = logits_BV.topk(k)
        return values_BK, tokens_BK
    if vocab_size % height:
        logits_BV = F.pad(logits_BV, (0, -vocab_size % height), value=-torch.inf)
    table_BHC = logits_BV.view(rows, height, -1)
    columns_BK = table_BHC.amax(1).topk(k).indices
    within_BHK = table_BHC.gather(2, columns_BK[:, None].expand(-1, height, -1))
    values_BK, places_BK = within_BHK.flatten(1).topk(k)
    return values_BK, places_BK // k * table_BHC.shape[2] + columns_BK.gather(1, places_BK % k)


def _check_numbers(largest: np.ndarray) -> None:
    """Raise TilthError unless the largest logit of each row, which is NaN where any is, is a number."""
    if not np.isfinite(largest).all():
        raise TilthError(
            "the model puts out numbers that are none (NaN or infinite): its weights are damaged, or training diverged"
        )


def _check(
    model: Model,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    max_tokens: int,
    prompts: Sequence[str],
    stop: Sequence[str],
) -> None:
    if isinstance(prompts, str) or not prompts:
        raise UsageError(f"prompts must be one text or more in a list, not {prompts!r}")
    if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
        raise UsageError(f"stop must be texts in a list, none of them empty, not {stop!r}")
    if "causal" not in model.heads:
        raise TilthError(
            f"this {model.family.name} model cannot generate: it has no causal head; use a gpt2, gpt3 or qwen3 model"
        )
    if not temperature >= 0:  # NaN is not
        raise UsageError(f"temperature must be 0 or more, not {temperature}")
    if top_k is not None and (top_k < 1 or not isinstance(top_k, int)):
        raise UsageError(f"top_k must be a whole number of 1 or more, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p must be above 0 and at most 1, not {top_p}")
    if max_tokens < 1:
        raise UsageError(f"max_tokens must be 1 or more, not {max_tokens}")
