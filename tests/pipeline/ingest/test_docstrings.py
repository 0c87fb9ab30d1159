"""Pairs are cut exactly, by rules that do not change with the Python version."""

import ast
from textwrap import dedent

import pytest

from pipeline.ingest.docstrings import Limits, defines_something, extract_pairs, parse_module, summarize

LIMITS = Limits(min_docstring_chars=10, min_summary_words=3, max_summary_chars=80, max_code_chars=200)

MODULE = dedent(
    '''
    import os


    class Point:
        """A point has a docstring of its own."""

        @property
        def naïve(self, x=("é", 1)):  # a comment
            r"""Return the \\widehat{x} of the point.

            More words
            on two lines.

            Parameters
            ----------
            x : int
            """

            # kept
            text = """
    as it is"""
            return text

        async def wait(self):
            'Wait for the point.'
            def inner():
                """Inner functions count as well."""
                return 1
            return inner

    '''
).encode()


def test_code_and_summary_of_each_function() -> None:
    pairs, left_out = extract_pairs(MODULE, parse_module(MODULE), LIMITS)
    assert [(pair.line, pair.code, pair.summary) for pair in pairs] == [
        (
            9,
            'def naïve(self, x=("é", 1)):  # a comment\n    # kept\n    text = """\nas it is"""\n    return text',
            "Return the \\widehat{x} of the point.\nMore words on two lines.",
        ),
        (
            25,
            "async def wait(self):\n    def inner():\n"
            '        """Inner functions count as well."""\n        return 1\n    return inner',
            "Wait for the point.",
        ),
        (27, "def inner():\n    return 1", "Inner functions count as well."),
    ]
    assert not left_out
    for pair in pairs:
        ast.parse(pair.code)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ('def f():\n    """Short."""\n    return 1\n', "short_docstring"),
        ('def f():\n    """Words without a body."""\n', "no_body"),
        ('def f(): "Words beside the code."; return 1\n', "no_body"),
        ('def f():\n    "Words beside the code."; return 1\n', "no_body"),
        ('def f():\n    """Words and more code."""\n    return """' + "x" * 200 + '"""\n', "long_code"),
        ('def f():\n    """Words, "' + "words " * 20 + '"""\n    return 1\n', "no_summary"),
        ('def f():\n    """Two wooooords."""\n    return 1\n', "no_summary"),
        ('def f():\n    """\n    >>> f() + f() + f()\n    """\n    return 1\n', "no_summary"),
        ('def f():\n    """It is \\d as follows:\n\n    3."""\n    return 1\n', "no_summary"),
    ],
)
def test_what_makes_no_pair_is_counted(function: str, reason: str) -> None:
    source = function.encode()
    assert extract_pairs(source, parse_module(source), LIMITS) == ([], {reason: 1})


def test_a_function_without_a_docstring_is_passed_over() -> None:
    source = b"def f():\n    return 1\n\ndef g():\n    b'bytes are no docstring'\n    return 1\n"
    assert extract_pairs(source, parse_module(source), LIMITS) == ([], {})


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("One line.", "One line."),
        ("\n    One\n    line.\n    ", "One line."),
        ("First.\n\n    Second.\n\n    Third one that does not fit.", "First.\nSecond."),
        ("First.\n\n    Examples\n    ========\n\n    Second.", "First."),
        ("First.\n\n    A Header\n    ~~~~~~~~\n", "First."),
        ("First.\n\n    Returns:\n        x", "First."),
        ("First.\n\n    * item\n    * item", "First."),
        ("First.\n\n    1. item", "First."),
        ("First.\n\n        indented\n\n    Second.", "First."),
        ("First.\n\n    .. math:: x", "First."),
        ("First.\n\n    :param x: y", "First."),
        ("First::\n\n        code", ""),
        ("Header\n======\n\nText.", ""),
        ("x" * 31, ""),
        ("", ""),
    ],
)
def test_summaries(docstring: str, summary: str) -> None:
    assert summarize(docstring, 30) == summary


def test_modules_that_define_nothing() -> None:
    assert not defines_something(parse_module(b"from a import b\n__all__ = ['b']\n"))
    assert defines_something(parse_module(b"if True:\n    def f(): ...\n"))
