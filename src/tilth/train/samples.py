"""What the model writes, on schedule, from fixed prompts: the quickest way to see it learn."""

import numpy as np
import torch

from tilth.errors import TilthError
from tilth.model.generation import generate
from tilth.model.inputs import Inputs
from tilth.model.model import Model
from tilth.tokens.shards import ShardSplit
from tilth.tokens.tokenizer import TextTokenizer

PROMPT_TOKENS, SAMPLE_TOKENS, DEFAULT_PROMPTS = 12, 40, 2


def default_prompts(split: ShardSplit, tokenizer: TextTokenizer, objective: str) -> list[str]:
    """The beginnings of the first held-out documents; for masked models with one token masked."""
    prompts = []
    for document in range(min(DEFAULT_PROMPTS, split.num_documents)):
        start, end = (int(value) for value in split.document_starts[document : document + 2])
        ids = split.tokens(np.array([start]), np.array([min(PROMPT_TOKENS, end - start)])).tolist()
        if objective == "causal":
            prompts.append(tokenizer.decode(ids))
        else:
            middle = len(ids) // 2
            mask = _mask_text(tokenizer)
            before, after = tokenizer.decode(ids[:middle]).rstrip(), tokenizer.decode(ids[middle + 1 :]).lstrip()
            prompts.append(f"{before} {mask} {after}".strip())
    return prompts


def sample(model: Model, tokenizer: TextTokenizer, prompt: str, seed: int, dtype: torch.dtype) -> str:
    """A causal model's continuation of the prompt; a masked model's likeliest token for each mask, with its
    probability.

    Raises: TilthError when the prompt does not fit the model.
    """
    if "causal" in model.heads:
        (text,) = generate(
            model, tokenizer, [prompt], max_tokens=SAMPLE_TOKENS, temperature=0.8, top_k=40, seed=seed, dtype=dtype
        )
        return text
    return "; ".join(fill_mask(model, tokenizer, prompt, dtype))


@torch.inference_mode()
def fill_mask(model: Model, tokenizer: TextTokenizer, text: str, dtype: torch.dtype = torch.float32) -> list[str]:
    """For each mask token in the text, the likeliest entry and its probability, such as `“house” 12 %`. A model that
    detects replaced tokens fills in what its generator would.

    Raises: TilthError when the text holds no mask or does not fit the model.
    """
    special = tokenizer.special
    assert special.mask is not None and special.cls is not None and special.sep is not None
    mask = _mask_text(tokenizer)
    # [MASK] is understood whatever the tokenizer calls it.
    parts = [tokenizer.encode(part) for part in text.replace("[MASK]", mask).split(mask)]
    ids = [special.cls, *parts[0], *(token for part in parts[1:] for token in (special.mask, *part)), special.sep]
    if len(parts) < 2:
        raise TilthError(f"the prompt {text!r} has no {mask} to fill in")
    speaker = model.generator or model
    device = model.trunk.embeddings.tokens.weight.device
    places = [place for place, token in enumerate(ids) if token == special.mask]
    was_training = model.training
    model.eval()
    try:
        hidden = speaker.encode(Inputs.of_rows(torch.tensor([ids], device=device)), dtype)[0]
        probabilities = torch.softmax(speaker.heads["masked"](hidden[places]).float(), dim=-1)
    finally:
        model.train(was_training)
    best, tokens = probabilities.max(dim=-1)
    words = [
        tokenizer.decode([token]).strip() or tokenizer.backend.id_to_token(token) or "" for token in tokens.tolist()
    ]
    return [f"“{word}” {100 * share:.0f} %" for word, share in zip(words, best.tolist(), strict=True)]


def _mask_text(tokenizer: TextTokenizer) -> str:
    assert tokenizer.special.mask is not None
    return tokenizer.backend.id_to_token(tokenizer.special.mask) or ""
