"""Show what is in work/, the work in progress, and free it: finished work goes after a day, stopped work after 14."""

from __future__ import annotations

import argparse
import sys
import time

from pipeline.work.disk import disk_trouble
from pipeline.work.pruning import WorkState, list_work, prune
from pipeline.work.root import work_root
from pipeline.work.shards import ShardResults, list_shards, prune_shards


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.work", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("show", help="list it (the default)")
    pruning = commands.add_parser("prune", help="remove what is older than that; what is in use stays")
    pruning.add_argument("--all", action="store_true", help="remove all that is not in use, whatever its age")
    arguments = parser.parse_args()
    root = work_root()
    if arguments.command == "prune":
        try:
            gone = prune(root, everything=arguments.all)
            shards = prune_shards(root, everything=arguments.all)
        except OSError as error:
            if (what := disk_trouble(error)) is None:
                raise
            sys.exit(f"work: error: {what}")
        for state in gone:
            print(f"removed {state.path} ({_size(state)})")
        for results in shards:
            print(f"removed {results.count:,} results of shards in {results.path} ({_size(results)})")
        print(f"{_bytes(gone, shards) / 1e6:,.1f} MB freed")
        return
    states, shards = list_work(root), list_shards(root)
    for state in states:
        print(f"{state.path}  {_size(state):>12}  {_age(state):>12}  {_progress(state)}")
    for results in shards:
        print(f"{results.path}  {_size(results):>12}  {_age(results):>12}  {results.count:,} results of shards")
    total = _bytes(states, shards) / 1e6
    print(f"{total:,.1f} MB of work in progress in {root}/; `python -m pipeline.work prune` frees what is old")


def _bytes(folders: list[WorkState], shards: list[ShardResults]) -> int:
    return sum(state.bytes for state in folders) + sum(results.bytes for results in shards)


def _size(state: WorkState | ShardResults) -> str:
    return f"{state.bytes / 1e6:,.1f} MB"


def _age(state: WorkState | ShardResults) -> str:
    seconds = time.time() - state.used
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _progress(state: WorkState) -> str:
    at = f" at {state.unit} {state.done} of {state.total}" if state.total and state.state != "finished" else ""
    return f"running as process {state.pid}{at}" if state.state == "running" else f"{state.state}{at}"


if __name__ == "__main__":
    main()
