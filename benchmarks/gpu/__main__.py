"""All that is measured on a GPU, a table after another.

    python -m benchmarks.gpu [--json FOLDER]

Each as `python -m benchmarks.gpu.NAME` has it by default, in a process of its own; with --json the figures are kept
in FOLDER/NAME.json. One that fails is named at the end, and the exit status is 1.
"""

import argparse
import subprocess
import sys
from pathlib import Path

TABLES = ("ssd", "operators", "train", "decode", "prefill", "linear")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="also write the figures there")
    folder = parser.parse_args().json
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in TABLES:
        print(f"\n{name}", flush=True)
        kept = [] if folder is None else ["--json", str(folder / f"{name}.json")]
        if subprocess.run([sys.executable, "-m", f"benchmarks.gpu.{name}", *kept], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
