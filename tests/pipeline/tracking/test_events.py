"""The event log: nothing of it is lost or spoilt by crashes, threads or a full disk."""

from __future__ import annotations

import errno
import math
import subprocess
import sys
import threading
from pathlib import Path

from pipeline.tracking.events import EventLog, first_event, last_event, read_events, read_from

ROOT = Path(__file__).parents[3]


def test_a_line_that_a_crash_cut_off_is_left_out_and_spoils_nothing(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("metrics", values={"loss": 1.0}, tokens=3)
    log.close()
    with log.path.open("a") as file:
        file.write('{"kind": "met')
    assert [event["kind"] for event in read_events(log.path)] == ["metrics"]
    again = EventLog(log.path)
    again.append("end", status="FINISHED")
    again.close()
    assert [event["kind"] for event in read_events(log.path)] == ["metrics", "end"]


def test_a_reader_goes_on_where_it_ended_and_waits_for_the_rest_of_a_line(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("a")
    ((_, offset),) = read_from(log.path, 0)
    log.append("b")
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-5])
    assert list(read_from(log.path, offset)) == []
    log.path.write_bytes(whole)
    ((event, end),) = read_from(log.path, offset)
    assert event["kind"] == "b"
    assert end == len(whole)


def test_the_first_and_the_last_event_are_found_without_reading_all(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    assert first_event(log.path) is last_event(log.path) is None
    log.append("start", text="x" * 100_000)
    assert last_event(log.path)["kind"] == "start"
    for tokens in range(100):
        log.append("metrics", values={"loss": math.nan}, tokens=tokens)
    assert first_event(log.path)["kind"] == "start"
    assert last_event(log.path)["tokens"] == 99


def test_events_of_many_threads_stay_whole(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    threads = [
        threading.Thread(target=lambda: [log.append("metrics", values={"a": 1.0}, tokens=n) for n in range(200)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    tokens = [event["tokens"] for event in read_events(log.path)]
    assert sorted(tokens) == sorted(list(range(200)) * 8)


FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
from pipeline.tracking.events import EventLog

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log = EventLog(Path(sys.argv[1]))
whole = 0
try:
    while True:
        log.append("metrics", values={"loss": 1.0}, tokens=whole)
        whole += 1
except OSError as error:
    print(whole, error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append("end", status="FINISHED")
"""


def test_a_write_that_the_disk_cuts_off_is_an_error_and_the_log_goes_on_with_room_made(tmp_path):
    """A limit on the file's size stands in for the disk: it cuts a write in the middle just the same."""
    path = tmp_path / "log.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    whole, number = map(int, done.stdout.split())
    assert number == errno.ENOSPC
    events = list(read_events(path))
    assert [event.get("tokens") for event in events] == [*range(whole), None]
    assert events[-1]["kind"] == "end"
