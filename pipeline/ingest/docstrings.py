"""Instruction pairs out of Python source: a function without its docstring -> the summary its docstring begins with.

Text is cut by the line and column of the syntax tree and cleaned by rules of our own: `ast.unparse` and
`inspect.cleandoc` change between Python versions, and the corpus must not.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef

_NOT_PROSE = re.compile(
    r"""
      [=\-~^*]{3,} \s* $         # the line under a header
    | >>> | \.\. \s | :\w+ | @   # an example, a directive, a field
    | [*+\-] \s | \(?\w{1,2}[.)] \s  # a list
    | \|                         # a table
    | (Parameters|Returns?|Examples?|Notes?|Explanation|References|See\ Also) \s* :? \s* $
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Limits:
    """Which functions make a pair: the numbers of embedded/corpus.yaml."""

    min_docstring_chars: int
    min_summary_words: int
    max_summary_chars: int
    max_code_chars: int


@dataclass(frozen=True)
class Pair:
    """The code of the function that begins in `line`, and the summary of its docstring."""

    line: int
    code: str
    summary: str


def parse_module(source: bytes) -> ast.Module:
    """The syntax tree; what the source is warned of (an invalid escape, say) does not concern us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def defines_something(tree: ast.Module) -> bool:
    """Whether the module has a function or a class; one without only imports names or lists data."""
    return any(isinstance(node, Function | ast.ClassDef) for node in ast.walk(tree))


def extract_pairs(source: bytes, tree: ast.Module, limits: Limits) -> tuple[list[Pair], Counter[str]]:
    """The pairs of a module in the order of their lines, and how many docstrings made none, by reason."""
    lines = source.splitlines(keepends=True)
    pairs, left_out = [], Counter[str]()
    for function, docstring in _documented(tree):
        if len(_text(docstring)) < limits.min_docstring_chars:
            left_out["short_docstring"] += 1
        elif (code := _without_docstring(lines, function, docstring)) is None:
            left_out["no_body"] += 1
        elif len(code) > limits.max_code_chars:
            left_out["long_code"] += 1
        elif len((summary := summarize(_text(docstring), limits.max_summary_chars)).split()) < limits.min_summary_words:
            left_out["no_summary"] += 1
        else:
            pairs.append(Pair(function.lineno, code, summary))
    return pairs, left_out


def summarize(docstring: str, max_chars: int) -> str:
    """The paragraphs of prose that a docstring begins with, each on one line: as many as fit in `max_chars`.

    Empty if the docstring begins with something else, or its first paragraph is too long.
    """
    summary = ""
    for paragraph in _paragraphs(_dedent(docstring)):
        prose = " ".join(" ".join(paragraph).split())
        longer = f"{summary}\n{prose}" if summary else prose
        if any(_NOT_PROSE.match(line) or line[0].isspace() for line in paragraph) or prose.endswith(":"):
            break
        if len(longer) > max_chars:
            break
        summary = longer
    return summary


def _documented(tree: ast.Module) -> Iterator[tuple[Function, ast.Constant]]:
    functions = (node for node in ast.walk(tree) if isinstance(node, Function))
    for function in sorted(functions, key=lambda node: node.lineno):
        match function.body[0]:
            case ast.Expr(value=ast.Constant(value=str()) as docstring):
                yield function, docstring


def _text(docstring: ast.Constant) -> str:
    assert isinstance(docstring.value, str)
    return docstring.value


def _without_docstring(lines: list[bytes], function: Function, docstring: ast.Constant) -> str | None:
    """The function's source less its docstring and its indentation; None if nothing else is in its body.

    None as well if the docstring shares a line with code.
    """
    assert docstring.end_lineno is not None
    assert function.end_lineno is not None
    first, last = docstring.lineno - 1, docstring.end_lineno - 1
    shares_line = lines[first][: docstring.col_offset].strip() or lines[last][docstring.end_col_offset :].strip()
    if len(function.body) == 1 or shares_line:
        return None
    body = lines[last + 1 : function.end_lineno]
    while not body[0].strip():
        body.pop(0)
    indent = lines[function.lineno - 1][: function.col_offset]
    kept = [line.removeprefix(indent) for line in lines[function.lineno - 1 : first] + body]
    return b"".join(kept).decode("utf-8").rstrip()


def _dedent(docstring: str) -> list[str]:
    """The lines less their common indentation (the first line's own does not count) and trailing space."""
    first, *rest = (line.rstrip() for line in docstring.expandtabs().split("\n"))
    margin = min((len(line) - len(line.lstrip(" ")) for line in rest if line), default=0)
    return [first.lstrip(), *(line[margin:] for line in rest)]


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line:
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []
