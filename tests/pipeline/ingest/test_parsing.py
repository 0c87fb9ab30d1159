"""How deep a line of JSON is nested is told in little memory, whatever is in its strings."""

import re
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.parsing import _NO_SIGNS, _depth

PLAIN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[^][{}"]+', re.DOTALL)

MEASURE = """
import resource
from pipeline.ingest.parsing import _depth
line = b'{"text": "' + b"[x " * 1_000_000 + b'"}'
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert _depth(line) == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@settings(max_examples=500)
@given(st.lists(st.sampled_from([b'"', b"\\", b"[", b"]", b"{", b"}", b"a", b"\n", b"\xff"])).map(b"".join))
def test_what_stands_in_strings_is_left_out(line: bytes) -> None:
    assert _NO_SIGNS.sub(b"", line) == PLAIN.sub(b"", line)


def test_a_long_string_with_brackets_takes_little_memory() -> None:
    """3 MB of it: below ten times its size, where a frame for each character took 120 times."""
    more = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout
    assert int(more) * 1024 < 10 * 3_000_000


def test_a_string_that_does_not_end_takes_one_pass() -> None:
    """Of 2 MB: with a pass for each of its quotes this would not end today."""
    assert _depth(b"[" * 401 + b'"' + b'\\"' * 1_000_000) == 401
