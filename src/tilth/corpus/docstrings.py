"""A worker that reads docstrings from Python files with `ast`; it imports only the standard library, nothing it reads.

Run as a script: a JSON list of paths on standard input; for each file, in order, one line of JSON on standard output:
{"docs": [[name, text], ...], "short": how many were below the least length, "error": null or what is wrong}.
"""

import ast
import gc
import inspect
import json
import sys
import warnings

MIN_CHARACTERS = 100

_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def read_docstrings(content: bytes) -> dict:
    """Docstrings of a module (as `__doc__`), its classes and functions by qualified name, cleaned as `help` shows them.

    The texts of pydoc's topics, which are a dictionary called `topics`, are taken by topic. Never raises.
    """
    found: list[list[str]] = []
    try:
        module = ast.parse(content)
        if text := ast.get_docstring(module, clean=False):
            found.append(["__doc__", text])
        _visit(module, "", found)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"docs": [], "short": 0, "error": f"{type(error).__name__}: {error}"}
    cleaned = [[name, inspect.cleandoc(text).strip()] for name, text in found]
    docs = [doc for doc in cleaned if len(doc[1]) >= MIN_CHARACTERS]
    return {"docs": docs, "short": len(cleaned) - len(docs), "error": None}


def _visit(node: ast.AST, prefix: str, found: list[list[str]]) -> None:
    for block in _BLOCKS:
        for child in getattr(node, block, ()):
            if isinstance(child, _DEFINITIONS):
                if text := ast.get_docstring(child, clean=False):
                    found.append([prefix + child.name, text])
                inner = "." if isinstance(child, ast.ClassDef) else ".<locals>."
                _visit(child, prefix + child.name + inner, found)
            elif isinstance(child, ast.Assign) and not prefix and ast.unparse(child.targets[0]) == "topics":
                found += _topics(child.value)
            elif not isinstance(child, ast.expr):
                _visit(child, prefix, found)


def _topics(value: ast.expr) -> list[list[str]]:
    try:
        topics = ast.literal_eval(value)
    except ValueError:
        return []
    if not isinstance(topics, dict):
        return []
    return [[str(name), text] for name, text in sorted(topics.items()) if isinstance(text, str)]


def main() -> None:
    """Answer for the files named on standard input."""
    warnings.simplefilter("ignore")
    gc.disable()  # syntax trees have no cycles; collecting costs a tenth of the time
    for path in json.load(sys.stdin):
        try:
            with open(path, "rb") as file:
                answer = read_docstrings(file.read())
        except OSError as error:
            answer = {"docs": [], "short": 0, "error": str(error.strerror)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
