"""transformers' Trainer as its users run it: once at its defaults, once tuned."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tilth.model.precision import compute_dtype
from tilth.tokens.shards import open_shards


def tuned(device: str = "cpu") -> dict[str, Any]:
    """Of TrainingArguments: what who tunes it chooses there. bfloat16 only where the device has units for it: on a
    processor without them it is several times as slow as float32.
    """
    in_bfloat16 = compute_dtype("auto", torch.device(device)) == torch.bfloat16
    return {"bf16": in_bfloat16, "optim": "adamw_torch_fused", "logging_strategy": "no", "disable_tqdm": True}


@dataclass(frozen=True)
class Shape:
    """A model's size, and whether it is BERT (else GPT-2)."""

    is_masked: bool
    vocab_size: int
    layers: int
    width: int
    heads: int


def make_model(
    shape: Shape, length: int, tokenizer: transformers.PreTrainedTokenizerFast, dropout: float
) -> transformers.PreTrainedModel:
    """A fresh BERT or GPT-2 for rows of `length` tokens. dropout: everywhere the model has one."""
    if shape.is_masked:
        return transformers.BertForMaskedLM(
            transformers.BertConfig(
                vocab_size=shape.vocab_size, hidden_size=shape.width, num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads, intermediate_size=4 * shape.width, max_position_embeddings=length,
                hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            )
        )  # fmt: skip
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=shape.vocab_size, n_positions=length, n_embd=shape.width, n_layer=shape.layers,
            n_head=shape.heads, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
            bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id, use_cache=False,
        )
    )  # fmt: skip


def read_tokenizer(path: Path, is_masked: bool) -> transformers.PreTrainedTokenizerFast:
    """A `tokenizer.json` with its special tokens named."""
    names = (
        {"mask_token": "[MASK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        if is_masked
        else {"pad_token": "<pad>", "eos_token": "<|endoftext|>"}
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), **names)


def full_blocks(shards: Path, length: int, tokenizer: transformers.PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """The training documents end to end, cut into blocks without padding.

    For a masked model each block stands between the start and separator tokens; for a causal one the end-of-text token
    stands before each document.
    """
    split = open_shards(shards).split("train")
    starts = split.document_starts
    ids = np.concatenate([split.tokens(starts[:-1], np.diff(starts))])
    if tokenizer.mask_token is None:
        ids = np.insert(ids, starts[:-1], tokenizer.eos_token_id)
        return [{"input_ids": ids[at : at + length]} for at in range(0, len(ids) - length + 1, length)]
    inner = length - 2
    cls, sep = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    blocks = (ids[at : at + inner] for at in range(0, len(ids) - inner + 1, inner))
    return [{"input_ids": np.concatenate([cls, block, sep])} for block in blocks]


def train(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    blocks: list[dict[str, Any]],
    out: Path,
    rows: int,
    on_step: Callable[[], bool] = lambda: False,
    use_cpu: bool = True,
    **chosen: Any,
) -> None:
    """Train by 15 % masks or the next token, `rows` blocks a step. chosen: of TrainingArguments.

    on_step: called after each step; True ends the training.
    """

    class AfterStep(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = on_step() or control.should_training_stop

    arguments = transformers.TrainingArguments(
        str(out), per_device_train_batch_size=rows, save_strategy="no", report_to="none", use_cpu=use_cpu, **chosen
    )
    is_masked = tokenizer.mask_token is not None
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=is_masked, mlm_probability=0.15)
    transformers.Trainer(
        model=model, args=arguments, train_dataset=blocks, data_collator=collator, callbacks=[AfterStep()]
    ).train()
