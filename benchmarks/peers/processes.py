"""A server's process and all that it started: how busy they are, and how they end."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

END_LIMIT_S = 20.0


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a server with all that it started: some leave its group, and Ray's daemons outlive it."""
    family = _family(process.pid)
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_LIMIT_S)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    now = _processes()
    for pid, before in family.items():
        if pid in now and now[pid].started == before.started:  # the same process, not a new one of that number
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def seconds_spent(pid: int) -> float:
    """Return the processor time that a process and its family have had."""
    return sum(member.ticks for member in _family(pid).values()) / os.sysconf("SC_CLK_TCK")


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    session: int
    started: str
    ticks: int


def _family(pid: int) -> dict[int, _Process]:
    """Return the processes that descend from `pid` or are of its session, with it."""
    everyone = _processes()
    found = {pid}
    while True:
        more = {other for other, facts in everyone.items() if facts.parent in found or facts.session == pid} - found
        if not more:
            return {member: everyone[member] for member in found if member in everyone}
        found |= more


def _processes() -> dict[int, _Process]:
    """Return the machine's processes, from /proc; none where there is no /proc."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # the name before it may hold anything
        except OSError:
            continue  # it has ended
        found[int(path.parent.name)] = _Process(
            parent=int(fields[1]), session=int(fields[3]), started=fields[19], ticks=int(fields[11]) + int(fields[12])
        )
    return found
