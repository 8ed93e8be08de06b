"""Training speed on the CPU: tokens a second, ours and transformers' Trainer.

Both train a model of one shape on the same tokens, with the same vocabulary and the same number of tokens a step, each
in a process of its own, in turn. Masked models learn 15 % of the tokens, masked anew each time. The Trainer runs as its
users run it: once at its defaults (float32, dropout of 0.1, AdamW), once tuned (bfloat16, no dropout, fused AdamW, no
logging). Ours runs the recipe: its loop, log and monitor. Rows are packed documents for ours, and full blocks for the
Trainer; only real tokens count.

    python benchmarks/throughput.py ../shared/data/text/english_novels/corpus.tar.zst [--seconds 20] [--repeats 3]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import describe, write_table

RESULTS = Path(__file__).parent / "results" / "throughput.md"
BATCH_TOKENS, WARM_UP_STEPS, LEAST_STEPS = 4096, 3, 3


@dataclass(frozen=True)
class Shape:
    """A row of the table but for its length. targets: what to reach over the Trainer's defaults, and over it tuned."""

    recipe: str
    settings: tuple[str, ...]
    vocab_size: int
    layers: int
    width: int
    heads: int
    targets: tuple[float, float]


_MASKED = ("objective.name=masked", "objective.masks=fresh")
SHAPES = {
    "bert-mini": Shape("bert-mini", _MASKED, 30_522, 4, 256, 4, (8, 5)),
    "bert-small": Shape("bert-mini", ("size=small", *_MASKED), 30_522, 4, 512, 8, (8, 5)),
    "gpt2-mini": Shape("gpt2-mini", (), 8192, 4, 256, 4, (5, 3)),
}
ROWS = [(name, length) for name in ("bert-mini", "bert-small") for length in (128, 512)]
ROWS += [("gpt2-mini", 256), ("gpt2-mini", 1024)]
SYSTEMS = ("ours", "defaults", "tuned")


def ours(shape: Shape, length: int, made: Path, seconds: float) -> float:
    """Tokens a second of `tilth pretrain` between its evaluations."""
    import tilth
    from tilth.train.trackers import read_log

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        tilth.pretrain(
            shape.recipe, made / "corpus", run,
            overrides=[
                *shape.settings, f"data.length={length}", f"train.batch_tokens={BATCH_TOKENS}",
                f"tokenizer.path={made / 'tokenizer.json'}", f"data.shards={made / 'shards'}",
                f"train.budget={seconds / 60} minutes", "train.evaluate_every=1 minutes", "train.evaluate_tokens=1000",
                "train.device=cpu", "model.start=random",
            ],
            progress=False,
        )  # fmt: skip
        steps = [record for record in read_log(run / "log.jsonl") if record["event"] == "step"]
    first, last = steps[WARM_UP_STEPS - 1], steps[-1]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])


def trainer(shape: Shape, length: int, made: Path, seconds: float, tuned: bool) -> float:
    """Tokens a second of `Trainer.train()` after the first steps."""
    import transformers

    ids = np.memmap(next(made.glob("shards/train-*.ids")), dtype="<u2", mode="r")
    blocks = [{"input_ids": ids[at : at + length].astype(np.int64)} for at in range(0, len(ids) - length, length)]
    is_masked = shape.recipe == "bert-mini"
    special = {"mask_token": "[MASK]", "pad_token": "[PAD]"} if is_masked else {"pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(made / "tokenizer.json"), **special)
    vocab_size = tokenizer.vocab_size
    dropout = 0.0 if tuned else 0.1
    if is_masked:
        model = transformers.BertForMaskedLM(
            transformers.BertConfig(
                vocab_size=vocab_size, hidden_size=shape.width, num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads, intermediate_size=4 * shape.width, max_position_embeddings=length,
                hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            )
        )  # fmt: skip
    else:
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=vocab_size, n_positions=length, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads,
                resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
    times: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            times.append(time.perf_counter())
            measured = times[WARM_UP_STEPS - 1 :]
            control.should_training_stop = len(measured) > LEAST_STEPS and measured[-1] - measured[0] > seconds

    chosen = {"bf16": True, "optim": "adamw_torch_fused", "logging_strategy": "no"} if tuned else {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder, per_device_train_batch_size=BATCH_TOKENS // length, max_steps=10**6, use_cpu=True,
            save_strategy="no", report_to="none", disable_tqdm=tuned, **chosen,
        )  # fmt: skip
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=is_masked, mlm_probability=0.15)
        transformers.Trainer(
            model=model, args=arguments, train_dataset=blocks, data_collator=collator, callbacks=[Clock()]
        ).train()
    first = WARM_UP_STEPS - 1
    return BATCH_TOKENS * (len(times) - 1 - first) / (times[-1] - times[first])


def make(shape: Shape, text: Path, corpus: Path, folder: Path) -> None:
    """Leave the corpus, a tokenizer and shards of it in the folder."""
    import tilth

    if not corpus.exists():
        tilth.corpus_build([str(text)], corpus, progress=False)
    run = folder / "run"
    settings = [
        *shape.settings,
        f"tokenizer.vocab_size={shape.vocab_size}",
        "train.budget=1 steps",
        "train.evaluate_tokens=1000",
    ]
    tilth.pretrain(shape.recipe, corpus, run, overrides=settings, progress=False)
    (folder / "corpus").symlink_to(corpus)
    for name in ("tokenizer.json", "shards"):
        (run / name).rename(folder / name)


def measure(system: str, name: str, length: int, made: Path, seconds: float) -> float:
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, str(made), "--measure", system, name, str(length), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="raw text to train on")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=3, metavar=("SYSTEM", "SHAPE", "LENGTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        system, name, length = arguments.measure
        shape, made = SHAPES[name], arguments.text
        if system == "ours":
            print(ours(shape, int(length), made, arguments.seconds))
        else:
            print(trainer(shape, int(length), made, arguments.seconds, system == "tuned"))
        return
    lines = [
        "| shape | length | ours, tokens/s | Trainer | Trainer, tuned | over Trainer (target) | over tuned (target) |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in SHAPES:
            (Path(folder) / name).mkdir()
            make(SHAPES[name], arguments.text, Path(folder) / "corpus", Path(folder) / name)
        for name, length in ROWS:
            figures: dict[str, list[float]] = {system: [] for system in SYSTEMS}
            for _ in range(arguments.repeats):
                for system in SYSTEMS:
                    found = measure(system, name, length, Path(folder) / name, arguments.seconds)
                    figures[system].append(found)
            ratios = []
            for peer, target in zip(SYSTEMS[1:], SHAPES[name].targets, strict=True):
                ratio = statistics.median(a / b for a, b in zip(figures["ours"], figures[peer], strict=True))
                ratios.append(f"{ratio:.1f} ({target:g})")
            cells = [name, str(length), *map(spread, figures.values()), *ratios]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    import transformers

    machine = f"Machine: {describe()}; transformers {transformers.__version__}; {torch.get_num_threads()} threads."
    seen = f"Medians (lowest-highest) of {arguments.repeats} runs of {arguments.seconds:g} seconds."
    write_table(RESULTS, __doc__, f"{machine} {seen}", lines)


if __name__ == "__main__":
    main()
