"""What makes parts of the system fail below rtwatch: strace's faults, missing privileges, mounts, locks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import program
import pytest

NO_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")  # permissions apply to root


@contextmanager
def below(*prefix: str) -> Iterator[None]:
    """Start every rtwatch with `prefix` before its command line."""
    command = program.command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "command", lambda *args: [*prefix, *command(*args)])
        yield


def traced(*injections: str, trace: str | Path = os.devnull, only: Path | None = None) -> list[str]:
    """Return the beginning of a command line that runs a program below strace with `injections`, each as
    "unlinkat:error=EIO:when=2" or only the name of a call; calls, those with the path `only` if given, are written to
    `trace`. Skip the test where there is no strace.

    strace is no parent of the program (-D), so the process that was started is the program itself.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = ",".join(injection.partition(":")[0] for injection in injections)
    faults = [f"--inject={injection}" for injection in injections if ":" in injection]
    paths = ["-P", str(only)] if only else []
    return ["strace", "-D", "-qq", "-o", str(trace), *paths, f"--trace={calls}", *faults]


def strace(*injections: str, **options: Any) -> AbstractContextManager[None]:
    """Start every rtwatch below strace with `injections`."""
    return below(*traced(*injections, **options))


def unprivileged() -> AbstractContextManager[None]:
    """Start every rtwatch as a user to whom permissions apply."""
    return below(*(NO_OVERRIDE if os.geteuid() == 0 else ()))


@contextmanager
def mounted(place: Path, *options: str | Path) -> Iterator[None]:
    """Mount something on a directory or file, as mount(8) is told; skip the test where that is not allowed."""
    if not place.exists():
        place.mkdir(parents=True)
    result = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"may not mount here: {result.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def locked(db: Path) -> Iterator[None]:
    """Hold the write lock of a database, as a user's script that does not end its transaction."""
    with closing(sqlite3.connect(db, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        yield
        con.execute("ROLLBACK")


def the_line(result: subprocess.CompletedProcess[str], *statuses: int) -> str:
    """Return the only line of a run that ended with one of these statuses."""
    assert result.returncode in statuses, result.stderr
    (line,) = result.stderr.splitlines()
    return line


# An rtwatch to which no file was touched today: nobody can set a ctime.
NEXT_WEEK = "import rtwatch, sys; rtwatch.DAY = -60; sys.exit(rtwatch.main())"
