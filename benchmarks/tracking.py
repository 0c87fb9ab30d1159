"""What tracking costs training: the step time with events off and on, and with each state that MLflow can be in.

    python -m benchmarks.tracking [--rounds 8] [--steps 50]

One process trains all the while; a block of steps with tracking in one state stands between two blocks without any, and
is compared with their mean, so that a machine whose speed drifts slows both alike. A state's feeder is stopped outside
of its own blocks, which are about as long as the time between two deliveries. Every step logs three metrics, ten times
what the trainer does by default. The figure is the median over the rounds, with its error as the rounds' median
deviation tells it; on a machine with other guests that is some per cent. Beside it stands the share of one core that
the feeder took, at a lower priority than training, and so what training can have lost to it of the machine's cores.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import torch

from benchmarks.machine import machine
from model import HybridLM
from pipeline.params import Params, load_params
from pipeline.process import stop_on_signals
from pipeline.tracking import Run, open_execution, track
from pipeline.tracking.events import EventLog
from pipeline.tracking.feeding import STARTING, FeederStatus
from pipeline.tracking.store import check, make_database

ROOT = Path(__file__).parents[1]
BATCH, SEQLEN, VOCABULARY = 4, 512, 2048
SECONDS_TO_START = 120


class Trainer:
    """The default model of params.yaml on random tokens."""

    def __init__(self, params: Params) -> None:
        torch.manual_seed(0)
        self._model = HybridLM(params.model.hybrid_config(VOCABULARY))
        self._optimizer = torch.optim.AdamW(self._model.parameters())
        self._ids = torch.randint(0, VOCABULARY, (BATCH, SEQLEN))
        self._tokens = 0

    def block(self, steps: int, run: Run) -> float:
        """Train `steps` steps, telling `run` of each; the seconds that they took."""
        start = time.perf_counter()
        for _ in range(steps):
            self._step(run)
        return time.perf_counter() - start

    def _step(self, run: Run) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._model(self._ids, labels=self._ids).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._tokens += BATCH * SEQLEN
        run.log_metrics({"loss": loss.item(), "grad_norm": norm.item(), "lr": 1e-3}, self._tokens)


class State:
    """A run, the feeder of its execution where it has one, and the server that dies in the middle of each block."""

    def __init__(
        self, name: str, run: Run, feeder: psutil.Process | None = None, dies: MlflowServer | None = None
    ) -> None:
        self.name, self.run, self._dies = name, run, dies
        self.ratios: list[float] = []
        self._feeder = feeder
        self._seconds = self._feeder_seconds = 0.0
        if feeder is not None:
            feeder.suspend()

    def block(self, trainer: Trainer, steps: int) -> float:
        """Train with the feeder at work; the seconds that it took."""
        if self._feeder is None:
            return trainer.block(steps, self.run)
        if self._dies:
            self._dies.start()
        before = self._feeder.cpu_times()
        self._feeder.resume()
        seconds = trainer.block(steps // 2, self.run)
        if self._dies:
            self._dies.kill()
        seconds += trainer.block(steps - steps // 2, self.run)
        self._feeder.suspend()
        after = self._feeder.cpu_times()
        self._seconds += seconds
        self._feeder_seconds += after.user + after.system - before.user - before.system
        return seconds

    @property
    def feeder_share(self) -> float:
        """Of one core."""
        return self._feeder_seconds / self._seconds if self._feeder else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50, help="of a block")
    arguments = parser.parse_args()
    stop_on_signals()  # no server and no feeder that is suspended stays behind
    print(machine())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.chdir(folder)
        shutil.copy(ROOT / "params.yaml", folder)
        params = load_params()
        states = [State("events alone", Run(EventLog(Path("events.jsonl"))))]
        print(f"one event: {append_seconds(Path('more.jsonl')) * 1e6:.0f} us", flush=True)
        server, mortal = MlflowServer(Path("server.db")), MlflowServer(Path("mortal.db"))
        for each in (server, mortal):
            stack.callback(each.kill)
            each.start()
        stores = {
            "and a database": f"sqlite:///{folder}/work/mlflow.db",
            "and a server": server.uri,
            "and a server that is down": f"http://127.0.0.1:{free_port()}",
            "and a server that hangs": stack.enter_context(hanging_server()),
            "and one that answers 500": stack.enter_context(broken_server()),
        }
        states += [stack.enter_context(tracked(name, uri, params)) for name, uri in stores.items()]
        states.append(stack.enter_context(tracked("and one that dies midway", mortal.uri, params, mortal)))
        mortal.kill()
        measure(Trainer(params), states, arguments.rounds, arguments.steps)


def measure(trainer: Trainer, states: list[State], rounds: int, steps: int) -> None:
    """Let the states take turns, and print what each costs."""
    off = Run(None)
    trainer.block(steps, off)
    before = trainer.block(steps, off)
    without = [before]
    for _ in range(rounds):
        for state in states:
            seconds = state.block(trainer, steps)
            after = trainer.block(steps, off)
            state.ratios.append(seconds / ((before + after) / 2))
            without.append(after)
            before = after
    print(f"events off: {statistics.median(without) / steps * 1e3:.1f} ms per step; with")
    cores = os.cpu_count() or 1
    for state in states:
        cost = statistics.median(state.ratios)
        deviation = statistics.median(abs(ratio - cost) for ratio in state.ratios)
        error = 1.25 * 1.48 * deviation / math.sqrt(rounds)  # as of a normal distribution
        share = state.feeder_share
        taken = f"feeder {share:.1%} of a core, {share / cores:.2%} of all"
        print(f"  {state.name:28}{cost - 1:+.2%} (+- {error:.2%}); {taken}")


def append_seconds(path: Path, count: int = 5000) -> float:
    """Of one event."""
    log = EventLog(path)
    start = time.perf_counter()
    for tokens in range(count):
        log.append("metrics", values={"loss": 1.0, "grad_norm": 1.0, "lr": 1e-3}, tokens=tokens)
    return (time.perf_counter() - start) / count


@contextmanager
def tracked(name: str, uri: str, params: Params, dies: MlflowServer | None = None) -> Iterator[State]:
    """An execution of its own whose feeder has found out how MLflow is."""
    os.environ["MLFLOW_TRACKING_URI"] = uri
    execution = open_execution(name)
    os.environ |= execution.environment()
    folder = execution.folder.resolve()
    (feeder,) = (p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or []))
    try:
        with track("base", params) as run:
            deadline = time.monotonic() + SECONDS_TO_START
            while FeederStatus.read(folder).state == STARTING and time.monotonic() < deadline:
                time.sleep(0.1)
            yield State(name, run, feeder, dies)
    finally:
        feeder.kill()
        feeder.wait()


class MlflowServer:
    """`mlflow server` on a database of its own; it can be killed and started again."""

    def __init__(self, database: Path) -> None:
        self._store = f"sqlite:///{database.resolve()}"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"
        make_database(self._store)

    def start(self) -> None:
        """Return when it answers."""
        if self._process is not None:
            return
        options = ["--port", str(self._port), "--workers", "1", "--backend-store-uri", self._store]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        psutil.Process(self._process.pid).nice(19)  # it would have a machine of its own
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                return check(self.uri, seconds=5)
            except ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def hanging_server() -> Iterator[str]:
    """Takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def broken_server() -> Iterator[str]:
    """Answers 500 to whatever it is asked, from a process of its own."""
    code = (
        "import http.server as h, sys\n"
        "class B(h.BaseHTTPRequestHandler):\n"
        "    do_GET = do_POST = lambda self: self.send_error(500)\n"
        "    log_message = lambda *a: None\n"
        "h.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), B).serve_forever()"
    )
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", code, str(port)]) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
