"""A Slurm of its own on this machine: one node of two cores, with munged, slurmctld and slurmd below one directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pipeline.shards.jobs import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
WHERE = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,defer_batch=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"""


def missing() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    if os.geteuid() != 0:
        return "starting Slurm takes root"
    absent = [program for program in PROGRAMS if shutil.which(program, path=WHERE) is None]
    return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else ""


@contextmanager
def running(root: Path) -> Iterator[None]:
    """Start it below `root`, a short path since it holds sockets; SLURM_CONF names it to Slurm's commands."""
    for name in ("munge", "state", "spool"):
        (root / name).mkdir(mode=0o700)
    key = root / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = root / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    configuration.write_text(CONFIGURATION.format(host=host, root=root, ports=_free_ports(2)))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(configuration)
    options = ("key-file", "socket", "pid-file", "log-file", "seed-file")
    files = [f"--{name}={root}/munge/{name.removesuffix('-file')}" for name in options]
    services = [["munged", "--force", "--foreground", *files], ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for service in services:
            program = shutil.which(service[0], path=WHERE)
            assert program
            log = (root / f"{service[0]}.out").open("wb")
            started.append(subprocess.Popen([program, *service[1:]], stdout=log, stderr=log, start_new_session=True))
            if service[0] == "munged":
                wait_until((root / "munge" / "socket").exists, "munged does not start")
        wait_until(_is_idle, f"Slurm does not start; see the logs in {root}")
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def queue() -> list[str]:
    """The states of the tasks that wait or run."""
    command = ["squeue", "--noheader", "--array", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _is_idle() -> bool:
    done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
    return done.stdout.strip() == "idle"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
