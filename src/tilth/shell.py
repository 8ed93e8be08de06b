"""The edge between the verbs and the shell: failures become a message and an exit status."""

import errno
import os
import signal
import traceback
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tilth import render
from tilth.errors import AnotherProcessFailed, Terminated, TilthError, is_out_of_memory


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
        except KeyboardInterrupt:
            if ctx.params["debug"]:
                traceback.print_exc()
            _tell_stopped("interrupted", ctx.invoked_subcommand)
            raise typer.Exit(128 + signal.SIGINT) from None
        except Terminated as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            _tell_stopped(str(error), ctx.invoked_subcommand)
            raise typer.Exit(error.exit_status) from None
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
        return _system_message(error)
    return f"{type(error).__name__}: {error}; this is a fault of Tilth's: please report it with what --debug shows"


def _system_message(error: OSError) -> str:
    """What the operating system refused, of which file, and what to do."""
    name = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space left to write{name}: {error.strerror}; free some, or choose another place"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot use{name or ' a file'}: {error.strerror}; change its permissions, or choose another place"
    if error.errno == errno.EISDIR:
        return f"{name.strip() or 'a path'} is a folder where a file is needed; name a file in it"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"cannot use{name or ' a path'}: a file is where a folder is needed; choose another place"
    return f"{error.strerror}:{name}" if name else str(error.strerror)


_KEPT = {
    "corpus": "nothing half-written is left: the same command starts again, or goes on from the parts that are kept",
    "pretrain": "its checkpoints are kept: --resume goes on from the last; before the first, start it again",
    "compare": "the finished trainings are kept: the same command goes on from them",
    "demo": "the finished stages are kept: the same command goes on from them",
}


def _tell_stopped(what: str, verb: str | None) -> None:
    """Say that a verb was stopped and what is kept, once where there are several processes."""
    if os.environ.get("RANK", "0") == "0":
        render.error(f"{what}; {_KEPT.get(verb or '', 'nothing half-written is left: the same command starts again')}")
