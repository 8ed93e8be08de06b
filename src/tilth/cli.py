"""The `tilth` command: one verb per need, each a thin layer over the Python function of the same name.

Standard output carries the result (with `--json`, one JSON object and nothing else there); progress and messages go to
standard error. Exit status: 0 done, 1 failed, 2 wrong use, 128 + n stopped by signal n.
"""

import contextlib
import gc
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperCommand

import tilth
from tilth import render
from tilth.errors import Terminated, TilthError, UsageError
from tilth.progress import progress_events
from tilth.shell import Verbs

if TYPE_CHECKING:
    from tilth.settings import Settings

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
corpus_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
tokenizer_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(corpus_app, name="corpus", help="Make a corpus of clean documents, or show what is in one.")
app.add_typer(tokenizer_app, name="tokenizer", help="Train a tokenizer.")


class WithSettings(TyperCommand):
    """A verb whose --help ends with the settings that KEY=VALUE changes; they are loaded for it only."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        rows = []
        for name, field in _settings_of(ctx.command.name).model_fields.items():
            default = str(field.default).lower()  # as an override gives it: false, not False
            plain = field.default is None or isinstance(field.default, dict)
            rows.append((name if plain else f"{name}={default}", field.description or ""))
        with formatter.section("Settings (KEY=VALUE)"):
            formatter.write_dl(rows)


def _settings_of(verb: str) -> "type[Settings]":
    if verb == "finetune":
        from tilth.tasks.settings import FinetuneSettings

        return FinetuneSettings
    from tilth.corpus.settings import CorpusSettings

    return CorpusSettings


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="tilth")
    finally:
        # Or the exit would search all that torch has made for cycles, which takes longer than most answers do. What is
        # in a cycle by now is not cleaned up; temporary files and processes are closed at the exit by themselves.
        gc.freeze()
    raise AssertionError("typer exits")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind on SIGTERM, so that temporary files go; a training run puts its own handler in place of this one."""
    raise Terminated("stopped by SIGTERM", number)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tilth {tilth.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
) -> None:
    """From raw data to a pre-trained, fine-tuned, proven and usable model."""


Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A built-in name such as bert-mini, or a YAML file.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", show_default=False)]
TextColumn = Annotated[
    str | None, typer.Option(help="The column of the text, where it has no usual name.", show_default=False)
]
LabelColumn = Annotated[
    str | None, typer.Option(help="The column of the label, where it has no usual name.", show_default=False)
]
Precision = Literal["auto", "float32", "bfloat16"]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model folder, ours or from the Hugging Face hub.", show_default=False)
]


@contextlib.contextmanager
def _working() -> Iterator[None]:
    """Send what libraries print to standard error: standard output is for the result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@corpus_app.command("build", cls=WithSettings)
def corpus_build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folders, globs, files or URLs of text, lists of them (warc.paths.gz#0-99), datasets of the "
            "Hugging Face hub (hf://datasets/OWNER/NAME#CONFIGURATION/SPLIT), or installed-docs. "
            "Then key=value settings.",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option(help="The corpus folder to make.", show_default=False)],
    recipe: Annotated[
        str | None, typer.Option(help="Settings by name (web) or in a YAML file.", show_default=False)
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the text to hold out. [default: 0.05]", show_default=False)
    ] = None,
    max_rejected: Annotated[
        float | None,
        typer.Option(
            help="Share of broken records past which to stop; of few, a tenth. [default: 0.01]", show_default=False
        ),
    ] = None,
    text_column: TextColumn = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read. [default: one for each processor]", show_default=False)
    ] = None,
    on: Annotated[
        str, typer.Option(help="processes of this machine, or a Ray cluster: ray, auto or ray://HOST:PORT.")
    ] = "processes",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a corpus of other sources or other settings in --out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read, clean, de-duplicate and split documents into a corpus.

    KEY=VALUE after the sources changes a setting: validation=0.1 near_duplicates=drop
    """
    flags = {"validation": validation, "max_rejected": max_rejected, "text_column": text_column}
    given = [f"{name}={value}" for name, value in flags.items() if value is not None]
    overrides = [text for text in sources if _is_override(text)]
    with _working(), progress_events() if as_json else contextlib.nullcontext():
        card = tilth.corpus_build(
            [text for text in sources if text not in overrides],
            out,
            recipe=recipe,
            overrides=[*overrides, *given],
            workers=workers,
            on=on,
            overwrite=overwrite,
        )
    _show_card(card, out, as_json)


def _is_override(text: str) -> bool:
    """Whether an argument among sources is a setting: it looks like one, and no file has that name."""
    return re.match(r"[a-z_]\w*(\.[\w-]+)*=", text) is not None and not os.path.lexists(text)


def _show_card(card: dict[str, Any], corpus: str, as_json: bool) -> None:
    if as_json:
        render.result(card, as_json)
    else:
        render.card(card, corpus)


Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus folder.", show_default=False)]


@corpus_app.command("card")
def corpus_card(
    corpus: Corpus,
    html: Annotated[
        str | None, typer.Option(help="A page to write, as a build leaves in card.html.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is in a corpus, what was dropped and why."""
    with _working():
        card = tilth.corpus_card(corpus, html=html)
    _show_card(card, corpus, as_json)


@corpus_app.command("match")
def corpus_match(
    corpus: Corpus,
    to: Annotated[str, typer.Option(help="The task's text: a file, folder or glob.", show_default=False)],
    text_column: TextColumn = None,
    nearest: Annotated[
        str | None,
        typer.Option(help="The share of the corpus to select, such as 20%; needs --out.", show_default=False),
    ] = None,
    out: Annotated[str | None, typer.Option(help="The corpus folder to make of it.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another corpus in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Say how near a corpus is to the text of a task, and which part of it is nearest."""
    with _working():
        found = tilth.corpus_match(
            corpus, to, text_column=text_column, nearest=_share(nearest), out=out, overwrite=overwrite
        )
    if as_json:
        render.result(found, as_json)
    else:
        render.corpus_match(found)


def _share(text: str | None) -> float | None:
    """`20%` or `0.2`. Raises: UsageError."""
    if text is None:
        return None
    number = text.strip().removesuffix("%")
    try:
        return float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        raise UsageError(f"--nearest {text!r} is not a share; give one such as 20% or 0.2") from None


@corpus_app.command("diff")
def corpus_diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A corpus folder.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what differs between two corpora."""
    with _working():
        found = tilth.corpus_diff(first, second)
    if as_json:
        render.result(found, as_json)
    else:
        render.corpus_diff(found)


@tokenizer_app.command("train")
def tokenizer_train(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus folder.", show_default=False)],
    out: Annotated[str, typer.Option(help="The tokenizer.json to write.", show_default=False)],
    kind: Annotated[str, typer.Option(help="wordpiece, byte_bpe or characters.")] = "wordpiece",
    vocab_size: Annotated[int, typer.Option(help="Entries, special tokens included.")] = 8192,
    lowercase: Annotated[bool, typer.Option(help="Fold case and accents (wordpiece only).")] = True,
    sample_bytes: Annotated[int, typer.Option(help="Bytes of the seeded training sample.")] = 50_000_000,
    seed: Annotated[int, typer.Option(help="Chooses the sample.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Train a tokenizer on a sample of a corpus."""
    with _working():
        summary = tilth.tokenizer_train(
            corpus,
            out,
            kind=kind,
            vocab_size=vocab_size,
            lowercase=lowercase,
            sample_bytes=sample_bytes,
            seed=seed,
            overwrite=overwrite,
        )
    render.result(summary, as_json)


@app.command()
def plan(
    recipe: Recipe,
    corpus: Annotated[str, typer.Option(help="A corpus folder, or plain files of text.", show_default=False)],
    overrides: Overrides = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; default: the recipe's.")] = None,
    price: Annotated[float | None, typer.Option(help="What the machine costs an hour.", show_default=False)] = None,
    ladder: Annotated[
        float | None, typer.Option(help="Minutes for short runs to expect the loss from.", show_default=False)
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run folder to come, to leave plan.json in.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a run will take and bring, before anything is spent.

    KEY=VALUE changes a setting of the recipe, as in pretrain.
    """
    with _working():
        planned = tilth.plan(
            recipe, corpus, overrides=overrides or (), device=device, price=price, ladder=ladder, out=out
        )
    if as_json:
        render.result(planned, as_json)
    else:
        render.plan(planned)


@app.command()
def pretrain(
    recipe: Recipe,
    corpus: Annotated[str, typer.Option(help="A corpus folder, or plain files of text.", show_default=False)],
    out: Annotated[str, typer.Option(help="The run folder.", show_default=False)],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="With --resume: go on though changes lead to another result.")
    ] = False,
    processes: Annotated[int, typer.Option(help="Processes on this machine, started by torchrun.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Pre-train a model as a recipe says.

    KEY=VALUE changes a setting of the recipe: train.budget='20 minutes' train.lr=3e-4 data.length=256
    """
    with _working():
        summary = tilth.pretrain(
            recipe,
            corpus,
            out,
            overrides=overrides or (),
            resume=resume,
            accept_changes=accept_changes,
            processes=processes,
        )
    if int(os.environ.get("RANK", "0")) == 0:  # one result, however many processes torchrun has started
        render.result(summary, as_json)


@app.command(cls=WithSettings)
def finetune(
    model: Model,
    data: Annotated[str, typer.Option(help="Labelled examples to learn from.", show_default=False)],
    out: Annotated[str, typer.Option(help="The folder of the fine-tuned model.", show_default=False)],
    overrides: Overrides = None,
    valid: Annotated[str | None, typer.Option(help="Labelled examples to choose the best model on.")] = None,
    task: Annotated[str, typer.Option(help="What to learn: classify.")] = "classify",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the fine-tuned model in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on labelled examples.

    KEY=VALUE changes a setting: epochs=5 lr=2e-5 seed=1
    """
    with _working():
        summary = tilth.finetune(
            model,
            data,
            out,
            valid=valid,
            task=task,
            text_column=text_column,
            label_column=label_column,
            overrides=overrides or (),
            overwrite=overwrite,
        )
    render.result(summary if as_json else _without_tables(summary), as_json)


def _without_tables(summary: dict[str, Any]) -> dict[str, Any]:
    """What finetune found, less what only its report shows well."""
    return {name: item for name, item in summary.items() if name not in ("history", "confusion", "rejected")}


@app.command()
def evaluate(
    model: Model,
    data: Annotated[str, typer.Option(help="Labelled examples; with --lm, raw text.", show_default=False)],
    lm: Annotated[bool, typer.Option("--lm", help="Perplexity and bits per byte instead of a task's metrics.")] = False,
    stride: Annotated[int | None, typer.Option(help="With --lm, new tokens in a window; default: half of it.")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="A folder for evaluation.json and, but with --lm, confusion.svg.", show_default=False),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    as_json: Json = False,
) -> None:
    """Measure a model on data it has not seen."""
    with _working():
        metrics = tilth.evaluate(
            model, data, lm=lm, out=out, stride=stride, text_column=text_column, label_column=label_column
        )
    if as_json or lm:
        render.result(metrics, as_json)
    else:
        render.evaluation(metrics)


@app.command()
def compare(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task to compare on: classify.", show_default=False)],
    data: Annotated[str, typer.Option(help="Labelled examples to learn from.", show_default=False)],
    out: Annotated[str, typer.Option(help="The folder of the comparison and its report.", show_default=False)],
    overrides: Overrides = None,
    test: Annotated[
        str | None, typer.Option(help="Labelled examples to score on; default: held out of --data.")
    ] = None,
    models: Annotated[list[str] | None, typer.Option("--from", help="A pre-trained model; may be given again.")] = None,
    labels: Annotated[str, typer.Option(help="Labelled examples per class, in steps.")] = "8,32,128,all",
    seeds: Annotated[int, typer.Option(help="Trials of each, with other examples and other random draws.")] = 5,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another comparison in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Show with numbers what pre-training bought.

    Learning curves of each --from model, of the same model from scratch (one where several share shape and tokenizer),
    and of TF-IDF with logistic regression. A comparison that was stopped goes on with the same command.

    KEY=VALUE changes a setting of all fine-tunings; tilth finetune --help lists them.
    """
    budgets = _budgets(labels)
    with _working():
        comparison = tilth.compare(
            task,
            data,
            out,
            test=test,
            models=models or (),
            budgets=budgets,
            seeds=seeds,
            text_column=text_column,
            label_column=label_column,
            overrides=overrides or (),
            overwrite=overwrite,
        )
    if as_json:
        render.result(comparison, as_json)
    else:
        render.comparison(comparison, Path(out) / "report.html")


def _budgets(labels: str) -> tuple[int, ...]:
    """`8,32,all` as (8, 32, 0), where 0 stands for all."""
    words = [word.strip() for word in labels.split(",")]
    if not all(word == "all" or (word.isdecimal() and int(word) > 0) for word in words):
        raise UsageError(f"--labels {labels!r} is not a list of numbers of examples, such as 8,32,128,all")
    return tuple(0 if word == "all" else int(word) for word in words)


@app.command()
def predict(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A table (csv, tsv, jsonl, parquet) or a file with one text a line; default: standard input, as lines."
        ),
    ] = None,
    text_column: TextColumn = None,
    as_json: Json = False,
) -> None:
    """Label texts with a fine-tuned model."""
    lines = [] if texts or data is not None else _lines_of_standard_input()
    with _working():
        given = texts or ([text for _, text in lines] if data is None else None)
        predictions = tilth.predict(model, given, data=data, text_column=text_column)
    if lines:
        predictions = [{"line": line, **each} for (line, _), each in zip(lines, predictions, strict=True)]
    if as_json:
        render.result({"predictions": predictions}, as_json)
    else:
        render.predictions(predictions)


def _lines_of_standard_input() -> list[tuple[int, str]]:
    from tilth.use.texts import texts_of_lines

    if sys.stdin.isatty():
        raise UsageError("nothing to label: give texts, --data FILE, or lines on standard input")
    try:
        content = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise TilthError(f"standard input is not UTF-8 text ({error})") from None
    return texts_of_lines("standard input", content.removesuffix("\n").split("\n"))


@app.command()
def generate(
    model: Model,
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT", help="The text to continue; several go together.", show_default=False),
    ],
    max_tokens: Annotated[int, typer.Option(help="Most tokens to add.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token every time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest tokens that hold p together.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal texts.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="A text to stop before; may be given again.")] = None,
    precision: Annotated[Precision, typer.Option(help="auto: bfloat16 where the device has units for it.")] = "float32",
    as_json: Json = False,
) -> None:
    """Continue a text, or several, with a causal model."""
    if "" in (stop or ()):
        raise UsageError("--stop '' would stop before the first character; give a text to stop before, or leave it out")
    with _working():
        generated = tilth.generate(
            model,
            prompts if len(prompts) > 1 else prompts[0],
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=stop or (),
            precision=precision,
        )
    if as_json:
        render.result(generated, as_json)
    else:
        render.texts([made["prompt"] + made["text"] for made in generated.get("texts", [generated])])


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="The folder to work in.")] = "tilth-demo",
    minutes: Annotated[float | None, typer.Option(help="About how long it may take.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Walk the whole path in minutes, on this machine's own text.

    The text is the documentation of the installed Python packages.
    """
    with _working():
        summary = tilth.demo(out) if minutes is None else tilth.demo(out, minutes=minutes)
    render.result(summary, as_json)
