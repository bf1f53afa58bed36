"""rtwatch run as its own process, with the means to wait for what it says, notifies and writes to its database."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

PROJECT = Path(__file__).resolve().parent.parent
# Seconds until a wait fails; rtwatch asks again within a minute.
DEADLINE = float(os.environ.get("RTWATCH_DEADLINE", "90"))
PAUSE = 0.02  # seconds between two looks

WITHOUT = """
import sys, rtwatch
name = sys.argv.pop(1)
for table in ("RULES", "GUARDS"):
    setattr(rtwatch, table, tuple(entry for entry in getattr(rtwatch, table) if entry.__name__ != name))
sys.exit(rtwatch.main())
"""

Rows = list[tuple[Any, ...]]
Argument = Union[str, Path]
Place = Optional[Path]
Env = Optional[Mapping[str, str]]
Found = TypeVar("Found")


def environment(state: Path, extra: Env = None) -> dict[str, str]:
    """Return the environment rtwatch runs in: ours, without a journal or a service manager, and with its own state."""
    env = {key: text for key, text in os.environ.items() if key not in ("JOURNAL_STREAM", "NOTIFY_SOCKET")}
    path = os.pathsep.join(filter(None, (str(PROJECT), str(PROJECT / "tests"), env.get("PYTHONPATH"))))
    env.update(PYTHONPATH=path, XDG_STATE_HOME=str(state))
    env.update(extra or {})
    return env


def command(*args: Argument) -> list[str]:
    """Return a command line of rtwatch, without the rule or guard that RTWATCH_WITHOUT names."""
    without = os.environ.get("RTWATCH_WITHOUT")
    start = ["-c", WITHOUT, without] if without else ["-m", "rtwatch"]
    return [sys.executable, "-W", "error", *start, *map(str, args)]


def run(*args: Argument, state: Path, cwd: Place = None, env: Env = None) -> subprocess.CompletedProcess[str]:
    """Run rtwatch to its end and return its exit status and output."""
    return subprocess.run(
        command(*args),
        env=environment(state, env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=2 * DEADLINE,
        check=False,
    )


class Program:
    """A running rtwatch that watches `session`."""

    def __init__(self, session: Path, *options: Argument, state: Path, cwd: Place = None, env: Env = None) -> None:
        """Start rtwatch; its standard output and error are both `output`."""
        texts = [*map(str, options)]
        self.db = state / "rtwatch" / "rtwatch.db"
        if "--db" in texts:
            self.db = Path(cwd or ".", texts[texts.index("--db") + 1])
        self.notified: list[str] = []
        self._place = tempfile.TemporaryDirectory(prefix="rtwatch-")  # short: a socket's path has 107 bytes
        self._file = Path(self._place.name, "output")
        self._data: bytes | None = None  # all that was printed, when the process has ended
        notify_path = os.path.join(self._place.name, "notify")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(notify_path)
        with self._file.open("wb") as file:
            self.process = subprocess.Popen(
                command(session, *texts),
                env=environment(state, {"NOTIFY_SOCKET": notify_path, **(env or {})}),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def lines(self) -> list[str]:
        """All lines that were printed so far."""
        data = self._file.read_bytes() if self._data is None else self._data
        *lines, rest = data.decode("utf-8", "backslashreplace").split("\n")
        return [*lines, rest] if rest and self._data is not None else lines

    @property
    def output(self) -> str:
        """All text that was printed so far."""
        return "".join(line + "\n" for line in self.lines)

    def report(self, problem: str) -> str:
        return f"{problem}; exit status {self.process.poll()}; notified {self.notified}; output:\n{self.output}"

    def wait_ready(self) -> None:
        self.wait_for(lambda: any("READY=1" in text.split("\n") for text in self.notified), "no READY=1 was notified")

    def wait_line(self, regex: str, since: int = 0) -> re.Match[str]:
        """Wait until a line, the `since` first ones left out, matches `regex`; return the match."""
        search = re.compile(regex).search
        return self.wait_for(lambda: next(filter(None, map(search, self.lines[since:])), None), f"no line: {regex!r}")

    def wait_rows(self, sql: str, predicate: Callable[[Rows], Any]) -> Rows:
        """Wait until `predicate` is true of the rows that `sql` selects, and return them."""
        seen: list[Rows] = []

        def find() -> Any:
            with suppress(sqlite3.OperationalError):  # no database or no table yet
                seen[:] = [self.select(sql)]
            return seen and predicate(seen[0])

        self.wait_for(find, f"{sql!r} does not select what is waited for", seen)
        return seen[0]

    def wait_known(self, hash: str) -> None:
        self.wait_rows(f"SELECT 1 FROM torrent_data WHERE hash = '{hash}'", bool)

    def wait_gone(self, hash: str) -> None:
        self.wait_rows(f"SELECT 1 FROM torrent_data WHERE hash = '{hash}'", lambda rows: not rows)

    def wait_files(self, hash: str, paths: Iterable[Path]) -> None:
        """Wait until exactly `paths` are listed for a torrent."""
        wanted = sorted(os.fsencode(path) for path in paths)
        sql = f"SELECT CAST(file AS BLOB) FROM session_file WHERE hash = '{hash}'"
        self.wait_rows(sql, lambda rows: sorted(file for (file,) in rows) == wanted)

    def wait_for(self, find: Callable[[], Found | None], problem: str, facts: Sequence[object] = ()) -> Found:
        """Wait until `find` finds something; raise AssertionError when it takes too long or the process has ended."""
        deadline = time.monotonic() + DEADLINE
        while True:
            if ended := self.process.poll() is not None:
                self._close()
            if found := find():
                return found
            if ended or time.monotonic() > deadline:
                raise AssertionError(self.report(f"{problem}; last seen {facts}" if facts else problem))
            time.sleep(PAUSE)

    def select(self, sql: str) -> Rows:
        """Return what `sql` selects from the database now."""
        with closing(sqlite3.connect(f"{self.db.absolute().as_uri()}?mode=ro", uri=True)) as con:
            return con.execute(sql).fetchall()

    def stop(self) -> int:
        """End rtwatch as a service manager does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End the process without letting it know."""
        self.process.kill()
        self.process.wait(DEADLINE)
        self._close()

    def wait(self) -> int:
        """Wait until rtwatch has ended and return its exit status."""
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.report("rtwatch does not end")) from None
        self._close()
        return status

    def _read(self) -> None:
        """Collect notify messages until an empty one comes."""
        while data := self._notify.recv(65536):
            self.notified.append(data.decode("utf-8", "backslashreplace"))

    def _close(self) -> None:
        """Read what is left and remove what was made for the process, which has ended."""
        if self._data is None:
            self._notify.sendto(b"", self._notify.getsockname())
            self._reader.join(DEADLINE)
            self._data = self._file.read_bytes()
            self._notify.close()
            self._place.cleanup()
