"""The edge between the verbs and the shell: failures become a message and an exit status."""

import traceback
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tilth import render
from tilth.errors import AnotherProcessFailed, TilthError, is_out_of_memory


class Verbs(TyperGroup):
    """Turns failures into a message and an exit status, and takes `--debug` before or after the verb."""

    def list_commands(self, ctx: Any) -> list[str]:
        path = (
            "demo",
            "corpus",
            "tokenizer",
            "plan",
            "pretrain",
            "finetune",
            "evaluate",
            "compare",
            "predict",
            "generate",
        )
        return sorted(self.commands, key=path.index)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        if "--debug" in options:
            args.remove("--debug")
            args.insert(0, "--debug")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (TyperException, typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            elif not isinstance(error, AnotherProcessFailed):
                render.error(_message(error))
            raise typer.Exit(error.exit_status if isinstance(error, TilthError) else 1) from None


def _message(error: Exception) -> str:
    """What to tell a person about a failure. The machine's own failures are put in words here, once for all verbs."""
    if isinstance(error, TilthError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "out of memory; lower train.micro_batch_tokens (batch_size in fine-tuning), data.length or the model's size"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}; this is a fault of Tilth's: please report it with what --debug shows"
