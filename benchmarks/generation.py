"""Generation on the CPU: new tokens a second, ours and transformers' `generate`.

Both hold the same random weights of the gpt2-mini shape (4 layers, 256 wide, vocabulary 8,192) and continue the same
prompts by 256 tokens, in turn; at temperature 0.8 among the 40 likeliest tokens. With such weights the end-of-text
token is all but never drawn.

    python benchmarks/generation.py [--tokens 256] [--repeats 5]
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import torch
import transformers
from machine import add_results, describe, write_table

from tilth.corpus.build import build_corpus
from tilth.model.families import FAMILIES
from tilth.model.folder import save_model
from tilth.model.generation import generate
from tilth.model.model import build_model
from tilth.recipe import TokenizerSettings
from tilth.tokens.tokenizer import train_tokenizer

PROMPT = "The assignment statement is used to"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "topics.txt").write_text("\n\n".join(topics.values()))
        corpus = build_corpus([str(folder / "topics.txt")], folder / "corpus", progress=False)
        tokenizer = train_tokenizer(TokenizerSettings(kind="byte_bpe", vocab_size=8192), corpus, 0, progress=False)
        family = FAMILIES["gpt2"]
        config = replace(family.sizes["mini"], vocab_size=tokenizer.vocab_size, max_length=1024)
        ours = build_model(family, config, ("causal",), seed=0).eval()
        save_model(ours, tokenizer, folder / "model")
        theirs = transformers.GPT2LMHeadModel.from_pretrained(folder / "model").eval()
    end = tokenizer.special.eot
    ids = [end, *tokenizer.encode(PROMPT)]
    models = {"float32": ours, "bfloat16": build_model(family, config, ("causal",), seed=0).eval().bfloat16()}

    def seconds_of_ours(batch: int, dtype: str) -> float:
        started = time.perf_counter()
        generate(models[dtype], tokenizer, [PROMPT] * batch, max_tokens=arguments.tokens, temperature=0.8, top_k=40)
        return time.perf_counter() - started

    @torch.inference_mode()
    def seconds_of_theirs(batch: int) -> float:
        started = time.perf_counter()
        theirs.generate(
            torch.tensor([ids] * batch), attention_mask=torch.ones(batch, len(ids), dtype=torch.int64),
            max_new_tokens=arguments.tokens, min_new_tokens=arguments.tokens, do_sample=True, temperature=0.8,
            top_k=40, pad_token_id=end,
        )  # fmt: skip
        return time.perf_counter() - started

    lines = [
        "| batch | ours, float32 | ours, bfloat16 | transformers, float32 | over it, float32 | bfloat16 | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for batch in (1, 16):
        seconds: dict[str, list[float]] = {"float32": [], "bfloat16": [], "theirs": []}
        for _ in range(arguments.repeats):
            for dtype in models:
                seconds[dtype].append(seconds_of_ours(batch, dtype))
            seconds["theirs"].append(seconds_of_theirs(batch))
        made = batch * arguments.tokens
        cells = [
            f"{made / statistics.median(taken):,.0f} ({made / max(taken):,.0f}-{made / min(taken):,.0f})"
            for taken in seconds.values()
        ]
        for dtype in models:
            ratio = statistics.median(b / a for a, b in zip(seconds[dtype], seconds["theirs"], strict=True))
            cells.append(f"{ratio:.1f}")
        lines.append(f"| {batch} | {' | '.join(cells)} | 4 |")
        print(lines[-1], flush=True)
    machine = f"Machine: {describe()}; transformers {transformers.__version__}."
    seen = f"Tokens a second: medians (lowest-highest) of {arguments.repeats} runs."
    write_table(arguments.results, __doc__, f"{machine} {seen}", lines)


if __name__ == "__main__":
    main()
