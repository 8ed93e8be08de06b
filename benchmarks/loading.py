"""Loading: batches a second without the model, what a run waits for them, and the start from 10 GB of shards.

Batches are made by one thread ahead of the device; with two processes each makes its half of the step, side by side.
What a run waits is read from a run of the recipe on this CPU. For the GPU, whose step of 524,288 tokens of GPT-2 124M
takes 1.1 s (results/gpu_throughput.md), the time to make one is set beside that. The start is the time from
`open_shards` to the first batch of 4,096 tokens, in a process of its own, with the files out of the page cache (cold)
and in it (warm); the shards are the real ones, repeated.

    python benchmarks/loading.py ../shared/data [--gigabytes 10]
"""

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import add_results, describe, write_table

from tilth.corpus.build import build_corpus
from tilth.corpus.settings import CorpusSettings
from tilth.files import read_json, write_json
from tilth.objectives import build_objective
from tilth.recipe import Recipe, TokenizerSettings, load_recipe
from tilth.tokens.packing import Packing
from tilth.tokens.shards import open_shards, write_shards
from tilth.tokens.tokenizer import load_tokenizer, train_tokenizer
from tilth.train.batches import Batches
from tilth.train.loop import pretrain
from tilth.train.monitor import Starvation

NOVELS = "text/english_novels/corpus.tar.zst"
STARTS = {
    "web pages": ("web/pages/*.warc.gz", "text"),
    "abstracts": ("text/acl_abstracts/abstracts_2016plus.jsonl.zst", "abstract"),
}
MASKED = ("objective.name=masked", "objective.masks=fresh")
CPU = {"bert-mini, 128": ("bert-mini", *MASKED), "gpt2-mini, 256": ("gpt2-mini",)}
GPU = {"gpt2 124M, 1024": ("gpt2-mini", "data.length=1024", "train.batch_tokens=524288")}
GPU_STEP_SECONDS, TARGET = 1.1, 0.02


def make(sources: str, column: str, kind: str, folder: Path) -> None:
    """Leave corpus, tokenizer.json and shards in the folder."""
    corpus = build_corpus([sources], folder / "corpus", CorpusSettings(text_column=column), progress=False)
    tokenizer = train_tokenizer(TokenizerSettings(kind=kind, vocab_size=8192), corpus, 0, progress=False)
    tokenizer.save(folder / "tokenizer.json")
    write_shards(corpus, load_tokenizer(folder / "tokenizer.json"), folder / "shards", progress=False)


def batches(recipe: Recipe, folder: Path, rank: int = 0, processes: int = 1) -> Batches:
    objective = build_objective(recipe, load_tokenizer(folder / "tokenizer.json"))
    packing = Packing(open_shards(folder / "shards").split("train"), objective.row_length, objective.framing)
    rows = recipe.train.batch_tokens // recipe.data.length
    at_once = min(rows, 65_536 // recipe.data.length)
    return Batches(objective, packing, recipe.seed, rows, at_once, rank, processes)


def seconds_of_batches(settings: tuple[str, ...], folder: Path, seconds: float, rank: int, processes: int) -> float:
    """Median time to make this process's share of a step."""
    made = batches(load_recipe(settings[0], settings[1:]), folder, rank, processes)
    taken: list[float] = []
    began = time.perf_counter()
    for step in itertools.count():
        started = time.perf_counter()
        made.at(step)
        taken.append(time.perf_counter() - started)
        if len(taken) > 3 and time.perf_counter() - began > seconds:
            return statistics.median(taken[1:])
    raise AssertionError


def run(settings: tuple[str, ...], folder: Path, num_steps: int, out: Path) -> tuple[float, float]:
    """(median seconds of a step, share of the time that was waiting for batches) of a run, but for its first steps."""
    steps: list[tuple[float, float]] = []
    take_step = Starvation.take_step

    def note(self: Starvation, waited: float, computed: float):
        steps.append((waited, computed))
        return take_step(self, waited, computed)

    Starvation.take_step = note
    try:
        overrides = [
            *settings[1:], f"tokenizer.path={folder / 'tokenizer.json'}", f"data.shards={folder / 'shards'}",
            f"train.budget={num_steps} steps", f"train.evaluate_every={num_steps} steps", "train.evaluate_tokens=1000",
            "model.start=random",
        ]  # fmt: skip
        pretrain(load_recipe(settings[0], overrides), folder / "corpus", out, progress=False)
    finally:
        Starvation.take_step = take_step
    waited, computed = zip(*steps[3:], strict=True)
    return statistics.median(computed), sum(waited) / (sum(waited) + sum(computed))


def repeat_shards(shards: Path, out: Path, target: float) -> None:
    """A folder of shards that holds another's training split again and again, until its token ids take `target` bytes.

    The validation split stays as it is.
    """
    manifest = read_json(shards / "manifest.json")
    split, out_split = manifest["splits"]["train"], dict(manifest["splits"]["train"], files={})
    times = int(-(-target // sum(entry["bytes"] for name, entry in split["files"].items() if name.endswith(".ids"))))
    out_split |= {name: split[name] * times for name in ("documents", "tokens", "bytes", "sentences")}
    dtype = np.dtype(manifest["dtype"])
    ids = np.concatenate([np.fromfile(shards / name, dtype) for name in sorted(split["files"]) if ".ids" in name])

    def write(name: str, parts: Iterator[bytes]) -> None:
        digest, size = hashlib.sha256(), 0
        with open(out / name, "wb") as file:
            for part in parts:
                digest.update(part)
                size += file.write(part)
            file.flush()
            os.fsync(file.fileno())
        out_split["files"][name] = {"bytes": size, "sha256": digest.hexdigest()}

    out.mkdir()
    for name, entry in manifest["splits"]["validation"]["files"].items():
        (out / name).write_bytes((shards / name).read_bytes())
        assert (out / name).stat().st_size == entry["bytes"]
    for shard, begin in enumerate(range(0, out_split["tokens"], manifest["shard_tokens"])):
        count = min(manifest["shard_tokens"], out_split["tokens"] - begin)
        places = np.arange(begin, begin + count) % len(ids)
        write(f"train-{shard:05d}.ids", iter([ids[places].tobytes()]))
    for name in ("bytes", "names"):
        write(f"train.{name}", itertools.repeat((shards / f"train.{name}").read_bytes(), times))
    sentences, starts = (np.fromfile(shards / f"train.{name}", "<i8") for name in ("sentences", "offsets"))
    write("train.sentences", ((sentences + number * len(ids)).tobytes() for number in range(times)))
    offsets = ((starts[1:] + number * len(ids)).tobytes() for number in range(times))
    write("train.offsets", itertools.chain([starts[:1].tobytes()], offsets))
    manifest["splits"]["train"] = out_split
    write_json(out / "manifest.json", manifest)


def start(settings: tuple[str, ...], folder: Path) -> dict[str, float]:
    """Seconds of a start, in this process, which has read nothing of the shards yet."""
    recipe = load_recipe(settings[0], settings[1:])
    objective = build_objective(recipe, load_tokenizer(folder / "tokenizer.json"))
    began = time.perf_counter()
    split = open_shards(folder / "shards").split("train")
    packing = Packing(split, objective.row_length, objective.framing)
    planned = time.perf_counter()
    rows = recipe.train.batch_tokens // recipe.data.length
    Batches(objective, packing, 0, rows, rows).at(0)
    return {"plan": planned - began, "all": time.perf_counter() - began, "pieces": packing.num_pieces}


def measure_start(settings: tuple[str, ...], folder: Path, cold: bool) -> dict[str, float]:
    """A start in a process of its own. cold: the shards are dropped from the page cache first."""
    if cold:
        for path in (folder / "shards").iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    command = [sys.executable, __file__, str(folder), "--start", *settings]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the corpora")
    parser.add_argument(
        "--gigabytes", type=float, default=10.0, help="of token ids, in the start; as much disk is used"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of making batches without the model")
    parser.add_argument("--steps", type=int, default=60, help="of the run in which waiting is measured")
    parser.add_argument("--repeats", type=int, default=3, help="starts of each kind")
    parser.add_argument("--start", nargs="+", metavar="SETTING", help=argparse.SUPPRESS)
    add_results(parser, __file__)
    arguments = parser.parse_args()
    if arguments.start:
        print(json.dumps(start(tuple(arguments.start), arguments.data)))
        return
    lines = [
        "| shape, length | tokens a step | batches/s, one process | steps/s, two processes | a step of the model, s "
        f"| making its batches | waited (target {TARGET:.0%}) |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    seconds = arguments.seconds
    for name, settings in (CPU | GPU).items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            kind = "wordpiece" if settings[0].startswith("bert") else "byte_bpe"
            make(str(arguments.data / NOVELS), "text", kind, folder)
            alone = seconds_of_batches(settings, folder, seconds, 0, 1)
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                shared = max(
                    pool.starmap(seconds_of_batches, [(settings, folder, seconds, rank, 2) for rank in range(2)])
                )
            if name in GPU:
                step, waited = GPU_STEP_SECONDS, "0, while that is below 100 %"
            else:
                step, share = run(settings, folder, arguments.steps, folder / "run")
                waited = f"{share:.2%}"
            tokens = load_recipe(settings[0], settings[1:]).train.batch_tokens
            cells = [
                name,
                f"{tokens:,}",
                f"{1 / alone:,.1f}",
                f"{1 / shared:,.1f}",
                f"{step:.3f}",
                f"{alone / step:.1%}",
            ]
            lines.append(f"| {' | '.join([*cells, waited])} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        "| start from | documents | shape, length | pieces | plan, cold, s | first batch, cold (target 1) | warm, s |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for name, (files, column) in STARTS.items():
        for shape, settings in CPU.items():
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)
                kind = "wordpiece" if settings[0].startswith("bert") else "byte_bpe"
                make(str(arguments.data / files), column, kind, folder)
                (folder / "shards").rename(folder / "once")
                repeat_shards(folder / "once", folder / "shards", arguments.gigabytes * 1e9)
                found = {
                    cold: [measure_start(settings, folder, cold) for _ in range(arguments.repeats)]
                    for cold in (True, False)
                }
                documents = read_json(folder / "shards" / "manifest.json")["splits"]["train"]["documents"]
            plan = statistics.median(entry["plan"] for entry in found[True])
            cold, warm = (statistics.median(entry["all"] for entry in found[key]) for key in (True, False))
            cells = [f"{arguments.gigabytes:g} GB of {name}", f"{documents:,}", shape, f"{found[True][0]['pieces']:,}"]
            lines.append(f"| {' | '.join([*cells, f'{plan:.2f}', f'{cold:.2f}', f'{warm:.2f}'])} |")
            print(lines[-1], flush=True)
    load = f"Load of the machine at the end: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores."
    write_table(arguments.results, __doc__ or "", f"Machine: {describe()}. {load}", lines)


if __name__ == "__main__":
    main()
