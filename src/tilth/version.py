"""The version of Tilth, where every module may read it."""

__version__ = "0.1.0"

RESULT_VERSION = 13
"""Raised whenever the same recipe, corpus and seed would give a run other bits than before: by a change of batches,
masks, initial weights, model arithmetic, optimizers, schedules, evaluation or fine-tuning. A run that another number
started goes on only with --accept-changes, and a comparison trains its models anew."""
