"""nanoGPT's CPU anchor: Tiny Shakespeare by characters, against the same model in a plain loop on transformers' GPT-2.

Both: 4 layers, width 128, 4 heads, context 64, batch 12, 2,000 steps, no dropout, first 90 % to train and last 10 % to
validate. The peer uses nanoGPT's settings for this anchor (AdamW 1e-3 to 1e-4, cosine, 100 steps of warm-up, betas 0.9
and 0.99). Ours keeps the shape, the batches and the number of steps, and chooses its own optimizer and rate.

    python benchmarks/tiny_shakespeare.py ../shared/data/text/tinyshakespeare/input.txt --seeds 3
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers
from machine import describe

import tilth

CONTEXT, BATCH, STEPS, LAYERS, WIDTH, HEADS = 64, 12, 2000, 4, 128, 4
PUBLISHED_LOSS = 1.88
RESULTS = Path(__file__).parent / "results" / "tiny_shakespeare.md"


def ours(text: Path, seed: int) -> tuple[float, float]:
    """Held-out nats per character, and seconds with everything from raw text on."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        summary = tilth.pretrain(
            "gpt2-mini",
            text,
            Path(folder) / "run",
            overrides=[
                "tokenizer.kind=characters", "tokenizer.vocab_size=100", "data.validation=0.1",
                f"data.length={CONTEXT}",
                f"model.layers={LAYERS}", f"model.width={WIDTH}", f"model.heads={HEADS}",
                f"train.evaluate_every={STEPS} steps",
                f"train.batch_tokens={BATCH * CONTEXT}", f"train.budget={STEPS} steps", "train.save_every=2000 steps",
                "train.lr=4e-3", "train.evaluate_tokens=120000", "train.decay=0.5", f"seed={seed}",
            ],
            progress=False,
        )  # fmt: skip
        return summary["held_out_loss"], time.perf_counter() - started


def peer(text: Path, seed: int) -> tuple[float, float]:
    """The same for a plain loop."""
    started = time.perf_counter()
    raw = text.read_text(encoding="utf-8")
    ids = {character: index for index, character in enumerate(sorted(set(raw)))}
    data = torch.tensor([ids[character] for character in raw])
    cut = int(0.9 * len(data))
    train, validation = data[:cut], data[cut:]
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=len(ids), n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    model.train()
    for step in range(STEPS):
        share = min(1.0, (step + 1) / 100)
        decay = 0.5 * (1 + math.cos(math.pi * max(0, step - 100) / (STEPS - 100)))
        for group in optimizer.param_groups:
            group["lr"] = share * (1e-4 + 9e-4 * decay)
        starts = torch.randint(len(train) - CONTEXT - 1, (BATCH,))
        block = torch.stack([train[start : start + CONTEXT + 1] for start in starts])
        logits = model(block[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), block[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    model.eval()
    rows = validation[: len(validation) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    with torch.inference_mode():
        losses = [
            torch.nn.functional.cross_entropy(
                model(part[:, :-1]).logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
            )
            for part in rows.split(64)
        ]
    return float(sum(losses)) / (len(rows) * CONTEXT), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    lines = [
        "| seed | ours: nats per character | seconds | plain loop: nats per character | seconds |",
        "|---|---|---|---|---|",
    ]
    results = []
    for seed in range(arguments.seeds):
        mine, theirs = ours(arguments.text, seed), peer(arguments.text, seed)
        results.append((mine, theirs))
        lines.append(f"| {seed} | {mine[0]:.3f} | {mine[1]:.0f} | {theirs[0]:.3f} | {theirs[1]:.0f} |")
        print(lines[-1], flush=True)
    median = [statistics.median(pair[side][figure] for pair in results) for side in (0, 1) for figure in (0, 1)]
    lines.append(f"| median | {median[0]:.3f} | {median[1]:.0f} | {median[2]:.3f} | {median[3]:.0f} |")
    head = f"# Tiny Shakespeare by characters\n\n{__doc__.split(chr(10) * 2)[1]}\n\nMachine: {describe()}.\n"
    ratio = median[1] / median[3]
    foot = (
        f"nanoGPT publishes {PUBLISHED_LOSS} in about 3 minutes on a laptop CPU. Time, ours over the loop: {ratio:.2f}."
    )
    RESULTS.write_text(head + "\n" + "\n".join(lines) + "\n\n" + foot + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
