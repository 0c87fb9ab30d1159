"""Run a peer's own tests on our operators: python -m tests.peers.run mamba_ssm ITS_CHECKOUT [pytest arguments].

The checkout is what `git clone` gives: nothing of it is installed, compiled or written to. `loading.py` says how its
modules come to have our functions in them, `plugin.py` which of its tests count. They ask for a GPU and mostly for
einops; MAMBA2_BACKEND says which of our paths they meet.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

PEERS = ("mamba_ssm", "causal_conv1d", "fla")


def main(arguments: list[str] | None = None) -> int:
    """Return pytest's exit status; 5 if not one test was applicable."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers.run", description="Run a peer's tests on our operators."
    )
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("checkout", type=Path, help="folder with the peer's sources and tests")
    parser.add_argument("pytest", nargs=argparse.REMAINDER, help="passed on to pytest, such as -x or -k NAME")
    options = parser.parse_args(arguments)

    import pytest
    import torch

    from tests.peers.loading import Finder
    from tests.peers.plugin import NotApplicableTests
    from tests.peers.shim import Peer

    peer: Peer = import_module(f"tests.peers.{options.peer}").PEER
    checkout = options.checkout.resolve()
    if not (checkout / peer.package).is_dir():
        parser.error(f"{checkout} is no checkout of {options.peer}: it has no folder {peer.package}")
    files = [str(checkout / name) for name in peer.tests if (checkout / name).is_file()]
    if not files:
        parser.error(f"{checkout} has none of the tests that this runs: {', '.join(peer.tests)}")
    if not torch.cuda.is_available():
        print("note: no GPU here, for which peers' tests ask by name", file=sys.stderr)

    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, Finder(peer, checkout))
    isolated = [
        *(
            "-c",
            os.devnull,
            "--rootdir",
            str(checkout),
            "--confcutdir",
            str(checkout),
        ),  # not our settings, nor the peer's
        "--import-mode=importlib",  # both have a folder called tests
        *("-p", "no:cacheprovider", "-p", "no:xdist"),  # what the shims note is this process's
    ]
    return int(pytest.main([*isolated, *files, *options.pytest], plugins=[NotApplicableTests(peer)]))


if __name__ == "__main__":
    sys.exit(main())
