"""What a run says of itself when it starts, and when it ends."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tilth.errors import Interrupted, TilthError
from tilth.files import sha256_file, write_json
from tilth.model.folder import load_model, saved_step
from tilth.model.precision import describe_processor
from tilth.train.held_out import held_out_loss
from tilth.train.monitor import Finding
from tilth.version import __version__

UNKNOWN_SHARE, UNKNOWN_LOOKED_AT = 0.01, 1_000_000
"""Of the tokens, how many may be unknown without a word, and how many are looked at."""

if TYPE_CHECKING:
    from tilth.train.loop import Run


def describe_start(run: "Run") -> dict[str, Any]:
    """What it trains, on what, with what."""
    train, validation = run.prepared.train, run.prepared.validation
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "parameters": run.num_parameters,
        "flops_per_token": run.flops_per_token,
        "processes": run.world.size,
        "softmax_share": round(run.word_sample.mean_share, 4),
        "trunk_parameters": sum(p.numel() for p in run.model.trunk.blocks.parameters()),
        "device": run.device.type,
        "processor": describe_processor(run.device),
        "threads": torch.get_num_threads(),
        "dtype": run.identity["compute_type"],
        "tilth": __version__,
        "torch": torch.__version__,
        "corpus": run.identity["corpus"],
        "corpus_card": str((run.prepared.corpus.path / "card.json").resolve()),
        "tokenizer": run.identity["tokenizer"],
        "train_tokens": train.split.num_tokens,
        "validation_tokens": validation.split.num_tokens,
        "rows": train.num_rows,
        "fill": round(train.fill, 4),
    }


def found_at_start(run: "Run") -> Iterator[Finding]:
    """What is to be told before the first step: processes without rows, and a tokenizer that knows too little of the
    training text, by its first million tokens."""
    rows, processes = run.rows_per_step, run.world.size
    if rows < processes:
        yield Finding(
            "idle",
            f"a step has {rows} rows for {processes} processes, so that {processes - rows} wait for the others: raise "
            "train.batch_tokens, or start fewer",
        )
    split, special = run.prepared.train.split, run.prepared.tokenizer.special
    if special.unk is None:
        return
    tokens = split.tokens(np.array([0]), np.array([min(split.num_tokens, UNKNOWN_LOOKED_AT)]))
    share = float((tokens == special.unk).mean())
    if share > UNKNOWN_SHARE:
        yield Finding(
            "unknown",
            f"the tokenizer knows nothing of {100 * share:.0f} % of the tokens, which masked models are not asked for, "
            "so that losses say less than they seem to: use tokenizer.kind=byte_bpe, or a larger tokenizer.vocab_size",
        )


def sum_up(run: "Run", reason: str, signal_number: int | None) -> dict[str, Any]:
    """Score the best model, and leave the run's summary in `summary.json`; returns it.

    Raises: TilthError when there is no model to keep; Interrupted after a signal, without scoring anything.
    """
    position, best_step = run.position, run.monitor.best_step
    figures: dict[str, Any] = {
        "tokens": position.tokens, "seconds": round(position.clock.seconds, 3), "reason": reason,
    }  # fmt: skip
    # Whoever sent a signal will not wait for long: the figures of the best model can be had from the log.
    if best_step and signal_number is None:
        # After a crash between an evaluation and a checkpoint, the model may be of a later step than is remembered.
        kept_step = run.world.share(_kept_step(run.out / "model") if run.world.is_first else None)
        if run.kept is not None and run.kept[0] == kept_step:
            best = run.kept[1]
        else:
            best_model = load_model(run.out / "model")[0] if run.world.is_first else None
            run.replica.load_weights(best_model.state_dict() if best_model else None)
            best = held_out_loss(run.replica, run.held_out)
        figures |= {"best_step": kept_step or best_step, "held_out_loss": best.loss}
        figures |= {"parts": best.parts, "bits_per_byte": run.bits_per_byte(best)}
    run.trackers.log("end", position.step, **figures)
    if signal_number is not None:
        raise Interrupted(
            f"stopped at step {position.step}, {100 * position.spent:.0f} % of the budget; "
            f"saved in {run.out}: the same command with --resume goes on",
            signal_number,
        )
    if not best_step:
        raise TilthError(f"no held-out loss was finite, so there is no model to keep; see {run.out / 'log.jsonl'}")
    summary = {
        "step": position.step,
        **figures,
        "objective": run.recipe.objective.name,
        "family": run.recipe.family,
        "size": run.recipe.size,
        "parameters": run.num_parameters,
        "flops_per_token": run.flops_per_token,
        "corpus": run.prepared.corpus.fingerprint,
        "tokenizer": run.prepared.tokenizer.fingerprint,
        "weights_sha256": sha256_file(run.out / "model" / "model.safetensors"),
    }
    if run.world.is_first:
        write_json(run.out / "summary.json", summary)
    return summary


def _kept_step(folder: Path) -> int | None:
    """The step that a kept model is of; None where some of it has gone."""
    return saved_step(folder) if (folder / "model.safetensors").exists() else None
