"""Text from a causal model, one token at a time, with a key/value cache."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tilth.errors import TilthError, UsageError
from tilth.key import Key
from tilth.model.inputs import Inputs
from tilth.model.layers import Cache
from tilth.model.model import Model
from tilth.tokens.tokenizer import TextTokenizer


@torch.inference_mode()
def generate(
    model: Model,
    tokenizer: TextTokenizer,
    prompt: str,
    *,
    max_tokens: int = 128,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
) -> str:
    """Continue a prompt; returns the new text only.

    The model reads the end-of-text token and then the prompt. It stops at the end-of-text token, at a stop text (left
    out of the result), after max_tokens, or when its context is full.
    temperature: 0 takes the likeliest token; otherwise logits are divided by it. top_k and top_p keep the k likeliest
    tokens, and the fewest whose probability reaches p (Holtzman et al. 2020). Draw i depends on (seed, i) alone.
    Raises: TilthError when the model is not causal or the prompt fills its context; UsageError for settings out of
    range.
    """
    _check(model, temperature, top_k, top_p, max_tokens)
    end = tokenizer.special.eot
    ids = ([end] if end is not None else []) + tokenizer.encode(prompt)
    if not ids:
        raise UsageError("the prompt is empty and this tokenizer has no end-of-text token to start from")
    context = model.config.max_length
    if len(ids) >= context:
        raise TilthError(f"the prompt has {len(ids)} tokens and the model reads at most {context}; shorten the prompt")
    device = model.trunk.embeddings.tokens.weight.device
    was_training = model.training
    model.eval()
    cache = Cache(model.config.layers)
    unread, new_ids, text = ids, [], ""
    try:
        for index in range(min(max_tokens, context - len(ids))):
            logits = _next_logits(model, unread, cache, device, dtype)
            token = _choose(logits, temperature, top_k, top_p, Key(seed, index, "generate"))
            if token == end:
                break
            new_ids.append(token)
            unread = [token]
            if stop:
                text = tokenizer.decode(new_ids)
                found = [position for position in (text.find(word) for word in stop) if position >= 0]
                if found:
                    return text[: min(found)]
    finally:
        model.train(was_training)
    return tokenizer.decode(new_ids)


def _next_logits(model: Model, unread: list[int], cache: Cache, device: torch.device, dtype: torch.dtype) -> Tensor:
    tokens = torch.tensor([unread], device=device)
    positions = torch.arange(cache.length, cache.length + len(unread), device=device)[None]
    hidden = model.trunk(Inputs(tokens, positions, torch.zeros_like(tokens)), dtype, cache)
    return model.heads["causal"](hidden[:, -1])[0].float()


def _choose(logits_V: Tensor, temperature: float, top_k: int | None, top_p: float | None, key: Key) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    # Sorted on the CPU in float64, so that the draw is the same on every device up to the logits themselves.
    logits = logits_V.double().cpu().numpy() / temperature
    order = np.argsort(-logits, kind="stable")
    if top_k is not None:
        order = order[:top_k]
    probabilities = np.exp(logits[order] - logits[order[0]])
    probabilities /= probabilities.sum()
    if top_p is not None:
        kept = int(np.searchsorted(np.cumsum(probabilities), top_p)) + 1
        order, probabilities = order[:kept], probabilities[:kept] / probabilities[:kept].sum()
    draw = key.generator().random()
    return int(order[min(int(np.searchsorted(np.cumsum(probabilities), draw)), len(order) - 1)])


def _check(model: Model, temperature: float, top_k: int | None, top_p: float | None, max_tokens: int) -> None:
    if "causal" not in model.heads:
        raise TilthError(
            f"this {model.family.name} model cannot generate: it has no causal head; use a gpt2 or gpt3 model"
        )
    if temperature < 0:
        raise UsageError(f"temperature must be 0 or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise UsageError(f"top_k must be 1 or more, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p must be above 0 and at most 1, not {top_p}")
    if max_tokens < 1:
        raise UsageError(f"max_tokens must be 1 or more, not {max_tokens}")
