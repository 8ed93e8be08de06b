"""Self-contained reports: one HTML file each, which loads nothing from the network and reads well on paper."""

from pathlib import Path
from typing import Any

from tilth import files
from tilth.corpus.portrait import portrait
from tilth.corpus.reader import Corpus
from tilth.evidence import human
from tilth.evidence.report_comparison import comparison_context
from tilth.evidence.report_corpus import corpus_context
from tilth.evidence.report_finetune import finetune_context
from tilth.evidence.run_record import read_run

_FOOTER = "Made by Tilth from the files beside this page. Nothing here is loaded from the network."


def write_run_report(run: Path) -> Path:
    """Write RUN/report.html from the run folder alone: finished, still going on, resumed or broken off.

    Returns the path of the report. Equal folders give equal bytes.
    Raises: TilthError when the folder is not a run or cannot be written to.
    """
    from tilth.evidence.report_run import run_context  # it needs the trunk, and so torch; other pages do not

    return _write(run / "report.html", "run.html.j2", run_context(read_run(run)))


def write_comparison_report(result: dict[str, Any], out: Path) -> Path:
    """Write OUT/report.html for the result of `tilth compare` (the content of its compare.json)."""
    return _write(out / "report.html", "comparison.html.j2", comparison_context(result))


def write_finetune_report(folder: Path) -> Path:
    """Write FOLDER/report.html from FOLDER/finetune.json.

    Raises: TilthError when finetune.json is missing or broken.
    """
    result = files.read_json(folder / "finetune.json")
    return _write(folder / "report.html", "finetune.html.j2", finetune_context(result, folder.resolve().name))


def write_corpus_report(corpus: Corpus, path: Path) -> Path:
    """Write the page of a corpus to the file `path`: its card, and figures of a sample of its documents.

    Equal corpora in folders of one name give equal bytes. Raises: TilthError when the corpus is damaged or the file
    cannot be written.
    """
    return _write(path, "corpus.html.j2", corpus_context(corpus.card, portrait(corpus), corpus.path.resolve().name))


def _write(path: Path, template: str, context: dict[str, Any]) -> Path:
    files.output_folder(path.parent)
    files.write_text(path, render(template, {"footer": _FOOTER, **context}))
    return path


def render(template: str, context: dict[str, Any]) -> str:
    """Fill a template of `evidence/templates`. Values in HTML are escaped; a name the context lacks is an error."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tilth.evidence"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "decimal", "duration", "interval", "percent", "scientific", "significant"):
        environment.filters[name] = getattr(human, name)
    # Only our own figures are taken as they are; their texts were escaped when they were drawn.
    environment.filters["svg"] = Markup
    return environment.get_template(template).render(context)
