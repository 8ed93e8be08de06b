"""Tilth: pre-training from raw data to a model in use. Every verb of the command line is a function here.

Importing this package loads nothing heavy; a verb brings in what it needs when it is first used.
"""

from typing import TYPE_CHECKING, Any

from tilth.version import __version__

__all__ = [
    "__version__",
    "compare",
    "corpus_build",
    "corpus_card",
    "corpus_diff",
    "corpus_match",
    "demo",
    "evaluate",
    "finetune",
    "generate",
    "plan",
    "predict",
    "pretrain",
    "tokenizer_train",
]

if TYPE_CHECKING:
    from tilth.api import (
        compare,
        corpus_build,
        corpus_card,
        corpus_diff,
        corpus_match,
        demo,
        evaluate,
        finetune,
        generate,
        plan,
        predict,
        pretrain,
        tokenizer_train,
    )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tilth import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
