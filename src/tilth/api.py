"""The verbs: one function each, with the names and arguments of the command line. Results are plain JSON values."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from tilth.errors import TilthError, UsageError
from tilth.files import new_folder, not_left_empty, output_folder, read_json, write_json, write_text

StrPath = str | Path


def corpus_build(
    sources: Sequence[str],
    out: StrPath,
    *,
    recipe: StrPath | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    on: str = "processes",
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Read, clean, de-duplicate and split documents into the corpus folder `out`; returns its card.

    recipe: a built-in name (`web`) or a YAML file of settings, which `key=value` overrides change; see
    `tilth.corpus.settings.CorpusSettings`. A corpus in `out` is replaced by a newer build from sources of the same
    names with the same settings; `overwrite` replaces any other corpus too. Other arguments and errors: see
    `tilth.corpus.build.build_corpus`.
    """
    from tilth.corpus.build import build_corpus
    from tilth.corpus.settings import load_corpus_settings
    from tilth.evidence.report import write_corpus_report

    settings = load_corpus_settings(recipe, overrides)
    corpus = build_corpus(sources, Path(out), settings, workers=workers, on=on, overwrite=overwrite, progress=progress)
    write_corpus_report(corpus, corpus.path / "card.html")
    return corpus.card


def corpus_card(corpus: StrPath, *, html: StrPath | None = None) -> dict[str, Any]:
    """The card of a corpus folder. html: a file to write a page to that shows it, as a build leaves in `card.html`.

    Raises: TilthError when it is not one, or the page cannot be written.
    """
    from tilth.corpus.reader import open_corpus

    opened = open_corpus(Path(corpus))
    if html is not None:
        from tilth.evidence.report import write_corpus_report

        if Path(html).is_dir():
            raise UsageError(f"{html} is a folder; name the file to write, such as --html {Path(html) / 'card.html'}")
        write_corpus_report(opened, Path(html))
    return opened.card


def corpus_match(
    corpus: StrPath,
    to: StrPath,
    *,
    text_column: str | None = None,
    nearest: float | None = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """How near a corpus is to the text of a task, and which part of it is nearest.

    nearest: the share of the documents, the nearest ones, to make the corpus folder `out` of. Other arguments, result
    and errors: see `tilth.corpus.match.match_corpus`.
    """
    from tilth.corpus.match import match_corpus
    from tilth.corpus.reader import open_corpus
    from tilth.evidence.report import write_corpus_report

    folder = None if out is None else Path(out)
    result = match_corpus(
        open_corpus(Path(corpus)),
        str(to),
        text_column=text_column,
        nearest=nearest,
        out=folder,
        overwrite=overwrite,
        progress=progress,
    )
    if folder is not None:
        write_corpus_report(open_corpus(folder), folder / "card.html")
    return result


def corpus_diff(first: StrPath, second: StrPath) -> dict[str, Any]:
    """What differs between two corpora: documents, counts, sources, settings, languages, words.

    Result and errors: see `tilth.corpus.diff.diff_corpora`.
    """
    from tilth.corpus.diff import diff_corpora
    from tilth.corpus.reader import open_corpus

    return diff_corpora(open_corpus(Path(first)), open_corpus(Path(second)))


def tokenizer_train(
    corpus: StrPath,
    out: StrPath,
    *,
    kind: str = "wordpiece",
    vocab_size: int = 8192,
    lowercase: bool = True,
    sample_bytes: int = 50_000_000,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a tokenizer on a corpus and write it to the file `out`. overwrite: replace a file that is there.

    Returns {"path", "kind", "vocab_size", "fingerprint"}.
    Raises: UsageError for wrong settings or an `out` that is not to be replaced, TilthError for a corpus that does not
    support the settings.
    """
    from tilth.corpus.reader import open_corpus
    from tilth.recipe import TokenizerSettings
    from tilth.settings import load_settings
    from tilth.tokens.tokenizer import train_tokenizer

    values = {"kind": kind, "vocab_size": vocab_size, "lowercase": lowercase, "sample_bytes": sample_bytes}
    settings = load_settings(TokenizerSettings, values=values, where="the tokenizer's settings")
    path = Path(out)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file to write, such as --out {path / 'tokenizer.json'}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a plain file; choose another --out")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already; choose another --out, or pass --overwrite")
    opened = open_corpus(Path(corpus))
    with new_folder(path.parent):
        tokenizer = train_tokenizer(settings, opened, seed, size_setting="--vocab-size", progress=progress)
        tokenizer.save(path)
    return {
        "path": str(path),
        "kind": kind,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
    }


def plan(
    recipe: StrPath,
    corpus: StrPath,
    *,
    overrides: Sequence[str] = (),
    device: str | None = None,
    price: float | None = None,
    ladder: float | None = None,
    out: StrPath | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Predict what a run takes and brings: memory, time, cost, passes over the data and, with a ladder, loss.

    device: as `train.device`. price: of the machine, an hour. ladder: minutes for the short runs that the expected loss
    rests on. out: a run folder, to leave `plan.json` in for the run's report. Result and errors: see
    `tilth.train.planning.plan.plan`.
    """
    from tilth.recipe import load_recipe
    from tilth.train.planning.plan import plan as run_plan

    checked = load_recipe(recipe, [*overrides, *([f"train.device={device}"] if device else [])])
    folder = None if out is None else Path(out)
    with contextlib.nullcontext() if folder is None else not_left_empty(folder):
        return run_plan(checked, Path(corpus), price=price, ladder=ladder, out=folder, progress=progress)


def pretrain(
    recipe: StrPath,
    corpus: StrPath,
    out: StrPath,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    accept_changes: bool = False,
    processes: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Pre-train a model as a recipe says, into the run folder `out`, and write its report and model card.

    recipe: a built-in name or a YAML file. corpus: a corpus folder, or raw data to build one from. overrides:
    `key=value`. resume: go on from the newest whole checkpoint. accept_changes: go on although the recipe, corpus,
    tokenizer, code, number format or thread count changed in a way that leads to another result. processes: how many
    to train with on this machine, started by torchrun, of which the first shows a bar whatever `progress` says; under
    torchrun leave it at 1.
    Returns the run's summary, with the path of its report.
    Raises: UsageError and TilthError as `tilth.train.loop.pretrain`; Interrupted when a signal stopped it, once it is
    saved.
    """
    from tilth.evidence.model_card import run_model_card
    from tilth.evidence.report import write_run_report
    from tilth.recipe import load_recipe
    from tilth.train.distributed import forget_start, join
    from tilth.train.launch import launch
    from tilth.train.loop import pretrain as run_pretraining
    from tilth.train.prepare import RECIPE

    run = Path(out)
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file; choose another --out")
    written = run / RECIPE
    if not resume and written.exists() and Path(recipe).exists() and written.samefile(recipe):
        raise UsageError(f"{written} is what the run would write its whole recipe to; choose another --out")
    if processes != 1:
        load_recipe(recipe, overrides)
        arguments = [str(recipe), "--corpus", str(corpus), "--out", str(out), *overrides]
        flags = {"--resume": resume, "--accept-changes": accept_changes}
        launch(["pretrain", *arguments, *(flag for flag, given in flags.items() if given)], processes)
        return {**read_json(run / "summary.json"), "report": str(run / "report.html")}
    with not_left_empty(run), join() as world:
        checked = load_recipe(recipe, overrides)
        try:
            summary = run_pretraining(
                checked,
                Path(corpus),
                run,
                resume=resume,
                accept_changes=accept_changes,
                progress=progress,
                world=world,
            )
        except UsageError:
            raise
        except TilthError:
            # Stopped by a signal or a fault: what was learnt until then is worth a look. The fault is what to tell,
            # though, also where a full disk takes no report either.
            with contextlib.suppress(TilthError, OSError):
                if world.is_first and (run / "log.jsonl").exists():
                    write_run_report(run)
            raise
        if world.is_first:
            write_text(run / "model" / "README.md", run_model_card(run))
            write_run_report(run)
    if world.is_first:
        forget_start(run)
    return {**summary, "report": str(run / "report.html")}


def finetune(
    model: StrPath,
    data: StrPath,
    out: StrPath,
    *,
    valid: StrPath | None = None,
    task: str = "classify",
    text_column: str | None = None,
    label_column: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Fine-tune a model on labelled examples into the folder `out`, and write its report and model card.

    overwrite: replace a fine-tuned model that is in `out`. Other arguments, result and errors: see
    `tilth.tasks.finetune.finetune`.
    """
    from tilth.evidence.model_card import finetuned_model_card
    from tilth.evidence.report import write_finetune_report
    from tilth.tasks.finetune import finetune as run_finetuning

    folder = Path(out)
    result = run_finetuning(
        model,
        data,
        folder,
        task=task,
        valid=valid,
        text_column=text_column,
        label_column=label_column,
        overrides=overrides,
        overwrite=overwrite,
        progress=progress,
    )
    write_text(folder / "README.md", finetuned_model_card(result, folder.name))
    report = write_finetune_report(folder)
    return {**result, "report": str(report)}


def evaluate(
    model: StrPath,
    data: StrPath,
    *,
    lm: bool = False,
    out: StrPath | None = None,
    stride: int | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a model on data it has not seen: a task's metrics with intervals, or with `lm` its loss on raw text.

    Results and errors: see `tilth.evidence.evaluate.evaluate_task` and `tilth.evidence.language.evaluate_language`.
    """
    from tilth.evidence.evaluate import evaluate_task
    from tilth.evidence.language import evaluate_language

    if lm and label_column is not None:
        raise UsageError("--label-column is for labelled examples; with --lm there are none")
    if not lm and stride is not None:
        raise UsageError("--stride is for --lm only")
    if not lm:
        return evaluate_task(model, data, out, text_column=text_column, label_column=label_column, progress=progress)
    result = evaluate_language(model, data, stride=stride, text_column=text_column, progress=progress)
    if out is not None:
        write_json(output_folder(Path(out)) / "evaluation.json", result)
    return result


def compare(
    task: str,
    data: StrPath,
    out: StrPath,
    *,
    test: StrPath | None = None,
    models: Sequence[StrPath] = (),
    budgets: Sequence[int] = (8, 32, 128, 0),
    seeds: int = 5,
    text_column: str | None = None,
    label_column: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Learning curves by number of labels and seeds: what pre-training bought. Leaves compare.json and report.html in
    `out`.

    budgets: examples per class, 0 for all. overwrite: replace another comparison that is in `out`. Other arguments,
    result and errors: see `tilth.evidence.compare.compare`.
    """
    from tilth.evidence.compare import compare as run_comparison

    return run_comparison(
        task,
        data,
        out,
        test=test,
        models=models,
        budgets=budgets,
        seeds=seeds,
        text_column=text_column,
        label_column=label_column,
        overrides=overrides,
        overwrite=overwrite,
        progress=progress,
    )


def predict(
    model: StrPath,
    texts: Iterable[str] | None = None,
    *,
    data: StrPath | None = None,
    text_column: str | None = None,
) -> list[dict[str, Any]]:
    """Label texts with a fine-tuned model, on the best device there is: for each {"text", "label", "probabilities"}.

    data: a file to take the texts from, a table or one text a line: see `tilth.use.texts.read_texts`. What is no text
    is left out, and each result has the "line" that its text is from.
    Raises: UsageError for texts beside `data` and what is no text, TilthError when the model has no head that gives a
    text one label or the file cannot be used.
    """
    from tilth.use.predict import predict as run_prediction
    from tilth.use.texts import read_texts

    if texts is not None and data is not None:
        raise UsageError("give texts or --data, not both")
    if data is None and text_column is not None:
        raise UsageError("--text-column is for --data only")
    if data is None:
        return run_prediction(model, () if texts is None else texts)
    numbered = read_texts(data, text_column)
    found = run_prediction(model, [text for _, text in numbered])
    return [{"line": line, **each} for (line, _), each in zip(numbered, found, strict=True)]


def generate(
    model: StrPath,
    prompts: str | Sequence[str],
    *,
    max_tokens: int = 128,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    precision: Literal["auto", "float32", "bfloat16"] = "float32",
) -> dict[str, Any]:
    """Continue a prompt with a causal model: {"prompt", "text", "stop_reason"}, the text being what is new.

    Several prompts are continued together, which is faster than one after the other: {"texts": [one such for each]}.
    stop_reason: `end_of_text`, `stop` (before a text of `stop`), or `length` (max_tokens, or the model's context).
    precision: the type to compute in; auto is bfloat16 where the device has units for it.
    Other arguments and errors: see `tilth.model.generation.complete`.
    """
    from tilth.model.folder import load_model
    from tilth.model.generation import complete
    from tilth.model.precision import compute_dtype, pick_device

    loaded, tokenizer = load_model(model)
    device = pick_device()
    several = not isinstance(prompts, str)
    asked = list(prompts) if several else [prompts]
    completions = complete(
        loaded.to(device, compute_dtype(precision, device)),
        tokenizer,
        asked,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=stop,
    )
    made = [
        {"prompt": prompt, "text": completion.text, "stop_reason": completion.reason}
        for prompt, completion in zip(asked, completions, strict=True)
    ]
    return {"texts": made} if several else made[0]


def demo(out: StrPath = "tilth-demo", *, minutes: float = 6.0, progress: bool = True) -> dict[str, Any]:
    """Walk the whole path on the documentation of this machine's Python packages, in about `minutes`.

    Returns its summary; see `tilth.demonstration.demonstrate`.
    """
    from tilth.demonstration import demonstrate

    return demonstrate(Path(out), minutes, progress)
