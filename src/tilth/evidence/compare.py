"""What pre-training bought: learning curves of several systems over label budgets and seeds."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tilth.errors import TilthError, UsageError
from tilth.evidence.earlier import check_earlier
from tilth.evidence.report import write_comparison_report
from tilth.evidence.report_comparison import truncation_notes
from tilth.evidence.systems import NeuralSystem, System, TfidfSystem, pretraining_cost, weights_fingerprint
from tilth.evidence.verdict import TestNoise, differences, summarise, verdicts
from tilth.files import fingerprint, new_folder, write_json, write_text
from tilth.model.folder import load_model
from tilth.model.precision import keep_freed_memory, pick_device
from tilth.model.threads import choose_threads, threads_restored
from tilth.progress import announce, progress_bar
from tilth.settings import load_settings
from tilth.tasks import metrics
from tilth.tasks.data import Examples, hold_out, stratified_sample, tell_rejected, without
from tilth.tasks.settings import FinetuneSettings
from tilth.tasks.task import Task, find_task
from tilth.version import RESULT_VERSION, __version__

METRIC = "macro_f1"
TEST_SHARE = 0.2
"""Of the data, for testing, when no test data is given."""

Budget = int | str
"""Labelled examples per class, or "all"."""


@threads_restored()
def compare(
    task: str,
    data: str | Path,
    out: str | Path,
    *,
    test: str | Path | None = None,
    models: Sequence[str | Path] = (),
    budgets: Sequence[Budget] = (8, 32, 128, "all"),
    seeds: int = 5,
    text_column: str | None = None,
    label_column: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train every system at every budget with every seed, and say what pre-training bought.

    Systems: each of `models`, fine-tuned; each of them from scratch (fresh weights, same shape and tokenizer), once
    where several share both; TF-IDF with logistic regression. With one seed and budget, all learn from the same
    stratified sample; a larger one holds the smaller ones. A neural system takes its examples for early stopping out of
    that sample, where there are 32 per class; the test examples choose nothing.
    test: by default a fifth of `data`. Training texts that are also test texts are left out, and counted.
    budgets: examples per class; "all" or 0 for all. overrides: `key=value` changes to `FinetuneSettings`, for all.
    overwrite: replace a comparison of other data, models or settings that is in `out`; trainings the two share are
    not repeated.
    An interrupted comparison goes on where it was: each finished training is a line of OUT/points.jsonl.
    Of several models, each but the first is also compared with the first.
    Returns the content of OUT/compare.json; OUT/report.html shows it.
    Raises: UsageError for wrong settings and when `out` holds another comparison, TilthError for data or models that
    cannot be used.
    """
    work = find_task(task)
    settings = load_settings(FinetuneSettings, overrides, where="the settings of compare")
    if not models:
        raise UsageError("nothing to compare: name at least one pre-trained model with --from")
    if seeds < 1:
        raise UsageError(f"seeds must be at least 1, not {seeds}")
    with new_folder(Path(out)) as folder:
        examples = work.read(data, text_column, label_column)
        tell_rejected(examples, progress)
        num_rejected = len(examples.rejected)
        if test is not None:
            held_out = work.read(test, text_column, label_column)
            tell_rejected(held_out, progress)
            num_rejected += len(held_out.rejected)
        else:
            examples, held_out = hold_out(examples, TEST_SHARE, settings.seed)
            if not len(held_out):
                raise TilthError(f"no label of {data} has two texts, of which one could be held out: give --test")
        pool, num_leaked = without(examples, held_out)
        labels = pool.label_names()
        if len(labels) < 2:
            raise TilthError(f"{data} has only one label ({labels[0]!r}); a comparison needs examples of at least two")
        true = np.array(held_out.label_indexes(labels))
        chosen_budgets, left_out_budgets = _checked(budgets, pool)
        keep_freed_memory()
        threads = choose_threads(pick_device(settings.device), shown=progress)
        neural, scratch_of = _neural_systems(models, work, labels, held_out.texts, settings)
        baseline = TfidfSystem(labels, held_out.texts)
        systems: list[System] = [*neural, baseline]
        trial_seeds = [settings.seed + number for number in range(seeds)]
        plan = {
            "task": task,
            "data": str(data),
            "test": str(test) if test is not None else f"{TEST_SHARE:.0%} of the data",
            "examples": {"train": len(pool), "test": len(held_out), "left_out_as_also_in_test": num_leaked},
            "rejected": num_rejected,
            "labels": labels,
            "systems": [
                {"name": system.name, "kind": system.kind, "source": system.source, "parameters": system.parameters}
                for system in systems
            ],
            "settings": settings.model_dump(mode="json"),
            "threads": threads,
            "budgets": chosen_budgets,
            "budgets_left_out": left_out_budgets,
            "seeds": trial_seeds,
            "metric": METRIC,
            "texts_fingerprint": fingerprint([pool.texts, pool.labels, held_out.texts, held_out.labels]),
            "weights_fingerprint": fingerprint(
                [weights_fingerprint(system.model) for system in neural if system.kind == "pretrained"]
            ),
        }
        check_earlier(folder, plan, overwrite)
        truncated = {
            system.name: {"train": system.num_cut(pool.texts), "test": system.num_cut(held_out.texts)}
            for system in neural
            if system.kind == "pretrained"
        }
        for note in truncation_notes(truncated, plan["examples"]):
            announce(note, progress)
        points = _run_all(systems, chosen_budgets, trial_seeds, pool, held_out, true, folder / "points.jsonl", progress)
        noise = TestNoise(true, len(labels))
        first, *others = scratch_of
        pairs = [(name, other) for name, scratch in scratch_of.items() for other in (scratch, baseline.name)]
        pairs += [(name, first) for name in others]
        difference_rows = differences(points, pairs, noise, METRIC)
        costs = {name: pretraining_cost(model) for name, model in zip(scratch_of, models, strict=True)}
        result = plan | {
            "truncated": truncated,
            "points": [
                {name: value for name, value in point.items() if name not in ("key", "predictions")} for point in points
            ],
            "summary": summarise(points, noise, METRIC),
            "verdict": verdicts(difference_rows, scratch_of, baseline.name),
            "differences": difference_rows,
            "pretraining_cost": costs[next(iter(scratch_of))],
            "pretraining_costs": costs,
        }
        write_json(folder / "compare.json", result)
        write_comparison_report(result, folder)
    return result


def _neural_systems(
    models: Sequence[str | Path], task: Task, labels: list[str], test_texts: list[str], settings: FinetuneSettings
) -> tuple[list[NeuralSystem], dict[str, str]]:
    """The pre-trained systems and those from scratch; and of each pre-trained one's name, that of its own from scratch.

    Models of one shape and tokenizer share a system from scratch, since fresh weights would be the same.
    """
    pretrained, scratch, scratch_of = [], {}, {}
    for name, source in zip(_names(models), models, strict=True):
        opened = load_model(source)
        pretrained.append(NeuralSystem(name, str(source), opened, task, labels, test_texts, settings, fresh=False))
        fresh = NeuralSystem(
            f"{name} from scratch", "fresh weights", opened, task, labels, test_texts, settings, fresh=True
        )
        scratch_of[name] = scratch.setdefault(fresh.identity, fresh).name
    return [*pretrained, *scratch.values()], scratch_of


def _run_all(
    systems: Sequence[System],
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    pool: Examples,
    held_out: Examples,
    true: np.ndarray,
    path: Path,
    progress: bool,
) -> list[dict[str, Any]]:
    """All points in the order system, budget, seed: those in the file are taken from it, the rest are run and added.

    repeats: the point is the training of an earlier one, which any seed would give.
    """
    data_key = fingerprint([pool.texts, pool.labels, held_out.texts, held_out.labels, __version__, RESULT_VERSION])
    known, used = _read_points(path), set[str]()
    points = []
    identities = {system.name: system.identity for system in systems}
    work = [(system, budget, seed) for system in systems for budget in budgets for seed in seeds]
    with (
        progress_bar("comparing", len(work), "trainings", progress) as update,
        _record(path) as file,
    ):
        for done, (system, budget, seed) in enumerate(work):
            update(done, system=system.name, labels=str(budget), seed=str(seed))
            drawn = seed if budget != "all" or system.is_random else None
            key = fingerprint([data_key, identities[system.name], budget, drawn])
            if key not in known:
                sample = pool if budget == "all" else stratified_sample(pool, int(budget), seed)
                outcome = system.run(sample, seed)
                known[key] = {
                    "key": key,
                    "system": system.name,
                    "seed": seed,
                    "budget": budget,
                    "examples": len(sample),
                    "test": metrics.scores(true, outcome.predictions),
                    "train": outcome.train_scores,
                    "seconds": outcome.seconds,
                    "flops": outcome.flops,
                    **outcome.details,
                    "predictions": outcome.predictions.tolist(),
                }
                file.write(json.dumps(known[key]) + "\n")
                file.flush()
            points.append({**known[key], "system": system.name, "seed": seed, "repeats": key in used})
            used.add(key)
        update(len(work))
    return points


@contextlib.contextmanager
def _record(path: Path) -> Iterator[TextIO]:
    """A file to add lines to, which is removed where there are none."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            yield file
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def _read_points(path: Path) -> dict[str, dict[str, Any]]:
    """The finished trainings in a file, by key; a line that a crash cut short is taken out of the file."""
    if not path.exists():
        return {}
    points: dict[str, dict[str, Any]] = {}
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("}\n")]
    for line in whole:
        try:
            point = json.loads(line)
            points[point["key"]] = point
        except (ValueError, KeyError, TypeError):
            raise TilthError(f"{path} is not a record of trainings; choose another --out, or remove it") from None
    if len(whole) < len(lines):
        write_text(path, "".join(whole))
    return points


def _checked(budgets: Sequence[Budget], pool: Examples) -> tuple[list[Budget], list[Budget]]:
    """The budgets in rising order, and those left out because they would take all labels under another name."""
    numbers = sorted({int(budget) for budget in budgets if budget not in ("all", 0)})
    if not budgets or any(number < 1 for number in numbers):
        raise UsageError(f"budgets are numbers of labels per class, or all; not {', '.join(map(str, budgets))}")
    most = max(Counter(pool.labels).values())
    has_all = len(numbers) < len(set(budgets))
    too_many: list[Budget] = [number for number in numbers if number >= most]
    kept: list[Budget] = [number for number in numbers if number < most]
    return [*kept, "all"] if has_all or too_many else kept, too_many


def _names(models: Sequence[str | Path]) -> list[str]:
    """A short name for each model: that of its run or folder, made unique."""
    names: list[str] = []
    for model in models:
        path = Path(model)
        base = name = path.resolve().parent.name if path.name == "model" else path.name
        while name in names:
            name = f"{base} ({sum(other.partition(' (')[0] == base for other in names) + 1})"
        names.append(name)
    return names
