"""Packing: real tokens per computed token, ours and the Trainer's usual way.

On real documents of mixed length. Ours are the rows that a run computes. The usual way is one document a row, truncated
at the length and padded to the longest of a batch of 8 by DataCollatorForLanguageModeling, in a random order; what the
truncation throws away is counted too. Special tokens count as real in both: each frames texts as its models expect. At
best is what no plan could exceed that keeps pieces whole: two that take more than half a row never share one.

    python benchmarks/packing.py ../shared/data
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import transformers
from machine import add_results, describe, write_table

from tilth.corpus.build import build_corpus
from tilth.corpus.reader import Corpus
from tilth.corpus.settings import CorpusSettings
from tilth.key import Key
from tilth.objectives import build_objective
from tilth.recipe import Recipe, TokenizerSettings
from tilth.tokens.packing import Packing
from tilth.tokens.shards import write_shards
from tilth.tokens.tokenizer import TextTokenizer, train_tokenizer

CORPORA = {
    "abstracts": ("text/acl_abstracts/abstracts_2016plus.jsonl.zst", "abstract"),
    "Wikipedia": ("wikipedia/*.xml.bz2", "text"),
    "web pages": ("web/pages/*.warc.gz", "text"),
}
"""Of each its files, and what they call the text."""
OBJECTIVES = {"masked": ("bert", "wordpiece"), "causal": ("gpt2", "byte_bpe")}
LENGTHS = (128, 256, 512, 1024)
BATCH, TARGET = 8, 0.97


def ours(objective: str, tokenizer: TextTokenizer, corpus: Corpus, folder: Path) -> dict[int, tuple[float, float, int]]:
    """For each length the real tokens per computed one, over all rows of the training split, what no plan could exceed,
    and how many rows there are.
    """
    split = write_shards(corpus, tokenizer, folder / "shards", progress=False).split("train")
    found = {}
    for length in LENGTHS:
        family, _ = OBJECTIVES[objective]
        recipe = Recipe.model_validate(
            {"family": family, "size": "mini", "objective": {"name": objective}, "data": {"length": length}}
        )
        made = build_objective(recipe, tokenizer)
        packing = Packing(split, made.row_length, made.framing)
        rows = packing.rows(np.arange(packing.num_rows))
        # A causal row has a place more than are computed: its last token is only predicted.
        real = np.minimum(np.bincount(rows.row, weights=rows.lengths), length).sum()
        # Two pieces of more than half a row never share one.
        fewest = max(np.ceil(rows.lengths.sum() / made.row_length), (2 * rows.lengths > made.row_length).sum())
        best = min(1.0, real / (fewest * length))
        found[length] = (real / (packing.num_rows * length), best, packing.num_rows)
    return found


def usual(objective: str, path: Path, texts: list[str], length: int) -> tuple[float, float]:
    """(real tokens per computed one, share of the tokens thrown away) of an epoch of padded batches."""
    is_masked = objective == "masked"
    special = {"mask_token": "[MASK]", "pad_token": "[PAD]"} if is_masked else {"pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), **special)
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=is_masked, mlm_probability=0.15)
    whole = tokenizer(texts)["input_ids"]
    rows = [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=length)["input_ids"]]
    order = Key(0, 0, "order of the padded rows").generator().permutation(len(rows))
    computed = 0
    for begin in range(0, len(rows), BATCH):
        computed += collator([rows[index] for index in order[begin : begin + BATCH]])["input_ids"].numel()
    kept = sum(len(row["input_ids"]) for row in rows)
    return kept / computed, 1 - kept / sum(map(len, whole))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the corpora")
    parser.add_argument("--corpora", nargs="*", default=list(CORPORA))
    add_results(parser, __file__)
    arguments = parser.parse_args()
    lines = [
        f"| corpus | documents | tokens of one: quartiles | framing | length | rows | ours (target {TARGET}) | at best "
        "| padded | thrown away | ours over padded |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in arguments.corpora:
        with tempfile.TemporaryDirectory() as folder:
            files, column = CORPORA[name]
            settings = CorpusSettings(text_column=column)
            corpus = build_corpus([str(arguments.data / files)], Path(folder) / "corpus", settings, progress=False)
            texts = [document.text for document in corpus.documents("train")]
            for objective, (_, kind) in OBJECTIVES.items():
                made = Path(folder) / objective
                made.mkdir()
                tokenizer = train_tokenizer(TokenizerSettings(kind=kind, vocab_size=8192), corpus, 0, progress=False)
                tokenizer.save(made / "tokenizer.json")
                lengths = [len(ids) for ids in tokenizer.encode_batch(texts)]
                quartiles = "-".join(f"{value:,.0f}" for value in statistics.quantiles(lengths, n=4))
                for length, (share, best, rows) in ours(objective, tokenizer, corpus, made).items():
                    padded, lost = usual(objective, made / "tokenizer.json", texts, length)
                    cells = [name, f"{len(texts):,}", quartiles, objective, str(length), f"{rows:,}", f"{share:.4f}"]
                    cells += [f"{best:.4f}", f"{padded:.3f}", f"{lost:.1%}", f"{share / padded:.2f}"]
                    lines.append(f"| {' | '.join(cells)} |")
                    print(lines[-1], flush=True)
    about = f"Versions: {describe()}; transformers {transformers.__version__}. The figures depend on no clock."
    write_table(arguments.results, __doc__ or "", about, lines)


if __name__ == "__main__":
    main()
