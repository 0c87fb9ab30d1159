"""Compile the operators' kernels for GPUs that are not here; an error where one takes more than it may.

    python -m tests.model.ops.ahead [OPERATOR ...]

Not for the process of the other tests: an interpreted kernel cannot be compiled. Each operator is a module beside this
one, with a list KERNELS.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from tests.model.ops.ahead.compiling import within_limits

OPERATORS = sorted({file.stem for file in Path(__file__).parent.glob("*.py")} - {"__main__", "compiling"})


def main(operators: list[str]) -> None:
    """Print a table; exit with an error where a limit is passed."""
    kernels = [kernel for name in operators for kernel in import_module(f"tests.model.ops.ahead.{name}").KERNELS]
    passed = [within_limits(kernel, architecture) for kernel in kernels for architecture in kernel.architectures]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main(sys.argv[1:] or OPERATORS)
