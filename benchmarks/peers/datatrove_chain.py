"""The chain of `corpus_chain.py` in datatrove, run by an interpreter of its own, as its users write it.

    python datatrove_chain.py WARCS OUT LID_MODEL

Prints how many documents are kept.
"""

import sys
from pathlib import Path

import datatrove.utils.lid
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter, LanguageFilter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

warcs, out, model = sys.argv[1:]
# Its own address of the model needs the network; the smaller file of the same model is used, as by the other side.
datatrove.utils.lid.cached_asset_path_or_download = lambda *_, **__: model
config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8)


def run(*pipeline, tasks: int = 1) -> None:
    LocalPipelineExecutor(pipeline=list(pipeline), tasks=tasks, workers=1, logging_dir=None).run()


run(
    WarcReader(warcs, glob_pattern="*.warc.gz"),
    Trafilatura(),
    LanguageFilter(languages="en"),
    GopherRepetitionFilter(),
    GopherQualityFilter(),
    JsonlWriter(f"{out}/clean"),
)
run(JsonlReader(f"{out}/clean"), MinhashDedupSignature(f"{out}/signatures", config=config))
run(MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config), tasks=config.num_buckets)
run(MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config))
run(JsonlReader(f"{out}/clean"), MinhashDedupFilter(f"{out}/remove"), JsonlWriter(f"{out}/kept", compression=None))
print(sum(len(path.read_bytes().splitlines()) for path in Path(out, "kept").glob("*.jsonl")))
