"""The real rtorrent of both versions for tests: headless, on loopback only, everything it writes below one directory.

It has the verbs of session.Session, and each returns when what it promises is on disk: 0.9.8 saves before it answers,
0.16 behind its answer. A save is known by the number that the torrent was given before it, as a key of `custom` in R.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import subprocess
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Callable, Union
from xml.parsers.expat import ExpatError

import pytest
from session import VERSIONS, SessionDirectory, decode, hash_of, pass_tick
from torrents import ANNOUNCE, Torrent

PROGRAMS = (Path("/usr/bin/rtorrent"), Path(__file__).resolve().parents[1] / ".rtorrent/bin/rtorrent")
DEADLINE = 30.0  # seconds after which what has not happened is a failure
RETRY = 3.0  # seconds after which a save that has not come is asked for again
FORGOTTEN = 0.2  # seconds after which a peer is told again
PAUSE = 0.01  # seconds between two looks
NUMBER = "test_save"
COMPLETE_MARK = (
    "method.set_key = event.download.finished,rtwatch,"
    "((execute.nothrow,touch,((cat,((session.path)),((d.hash)),.complete))))"
)
CONFIGURATION = """\
session.path.set = "{0.path}"
directory.default.set = "{0.downloads}"
network.scgi.open_local = "{0.socket}"
system.daemon.set = true
network.bind_address.set = 127.0.0.1
dht.mode.set = disable
protocol.pex.set = no
trackers.use_udp.set = no
"""
PORTS = "49500-60000"
Name = Union[str, bytes, Path]
TELL = """\
#!/bin/sh
printf '%s\\0' "$@" >> "$0.out"
"""


@functools.cache
def find_program(version: str) -> Path:
    """Return the program of a version; skip the test when there is none, but fail it in CI, where both are promised."""
    for path in filter(Path.exists, PROGRAMS):
        if f"version {version}" in subprocess.run([path, "-h"], capture_output=True, text=True, check=False).stdout:
            return path
    problem = f"no rtorrent {version} here: tests/run installs 0.9.8, tests/get_rtorrent fetches 0.16"
    raise (pytest.fail if os.environ.get("CI") == "true" else pytest.skip).Exception(problem)


class Rtorrent(SessionDirectory):
    """One rtorrent process after another on the same session; ends only the process that it started itself."""

    def __init__(self, directory: Path, *lines: str, version: str = VERSIONS[0]) -> None:
        """Make the directories and an rtorrent.rc with further `lines`; start nothing yet."""
        self.program = find_program(version)
        self.version = version
        self.path, self.downloads, self.home, self.cwd = (
            directory / name for name in ("session", "downloads", "home", "cwd")
        )
        for path in (self.path, self.downloads, self.home, self.cwd):
            path.mkdir(parents=True)
        self.socket, self.log, self.configuration = (directory / name for name in ("rpc", "log", "rtorrent.rc"))
        self.configuration.write_text(CONFIGURATION.format(self) + "".join(f"{line}\n" for line in lines))
        self.tell = directory / "tell"
        self.tell.write_text(TELL)
        self.tell.chmod(0o755)
        self.environment: dict[str, str] = {}  # beside HOME and PATH
        self.process: Any = None  # a Popen while it runs
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start rtorrent and wait until it answers and has loaded its session; fails when it ends instead."""
        assert self.process is None, "it runs already"
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-n", "-p", PORTS, "-o", f"import={self.configuration}"],
                cwd=self.cwd,
                env={"HOME": str(self.home), "PATH": os.defpath, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        saved = {file.stem for file in self.path.glob("*.torrent")}
        self._wait(lambda: isinstance(self._try("system.pid"), int), "rtorrent does not start")
        # 0.16 answers before it has loaded the session; a broken T is loaded never
        wait_until(lambda: saved <= self.loaded, RETRY)

    def _wait(self, happened: Callable[[], Any], problem: str) -> None:
        """Wait until something has happened; fail with what rtorrent printed when it does not, or rtorrent ends."""

        def has_ended() -> bool:
            return self.process is None or self.process.poll() is not None

        # What has happened may have changed again when it is looked at once more.
        if not wait_until(lambda: happened() or has_ended(), DEADLINE) or (has_ended() and not happened()):
            self.kill()
            pytest.fail(f"{problem}: {self.log.read_text(errors='replace')}")

    def shutdown(self, *calls: tuple[Any, ...]) -> None:
        """Have rtorrent save its session and end, after `calls` in one request; returns when the process is gone."""
        with contextlib.suppress(ExpatError):  # 0.16 closes the socket at times without an answer
            self.multicall(*calls, ("system.shutdown.normal",))
        self.process.wait(DEADLINE)
        self.process = None

    def kill(self) -> None:
        """End the process as `kill -9` does, if it still runs; returns when it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE)
            self.process = None

    def call(self, method: str, *params: Any) -> Any:
        """Call an XML-RPC method and return its answer."""
        return call(self.socket, method, *params)

    def multicall(self, *calls: tuple[Any, ...]) -> None:
        """Make several calls, each a tuple of method and parameters, in one request; none may fail."""
        requests = [{"methodName": method, "params": params} for method, *params in calls]
        answers = self.call("system.multicall", requests)
        assert all(isinstance(answer, list) for answer in answers), answers

    def wait(self, value: Any, method: str, *params: Any) -> None:
        """Wait until a method answers `value`; a fault is no answer yet, as for a torrent that is not loaded."""
        self._wait(lambda: self._try(method, *params) == value, f"{method} {params} does not answer {value!r}")

    def _try(self, method: str, *params: Any) -> Any:
        """Return what a method answers, or why it does not: a fault, no socket yet, the end."""
        try:
            return self.call(method, *params)
        except (xmlrpc.client.Fault, OSError) as error:
            return error

    @property
    def loaded(self) -> set[str]:
        """The hashes of all loaded torrents."""
        return {*self.call("download_list", "")} if self.process else set()

    def used(self, torrent: Torrent | str) -> list[Path]:
        """Return the paths of a torrent's files: d.directory joined with f.path, not resolved, byte for byte.

        XML-RPC would show bytes that are not UTF-8 as others, so rtorrent hands the strings to a script (and by
        `execute.raw`, as `execute` would expand a leading `~`).
        """
        hash = hash_of(torrent)
        told = self.tell.with_suffix(".out")
        told.unlink(missing_ok=True)
        self.call("branch", hash, "d.hash=", f'execute.raw="{self.tell}",$d.directory=')
        self.call("f.multicall", hash, "", f'execute.raw="{self.tell}",$f.path=')
        directory, *paths = told.read_bytes().split(b"\0")[:-1]
        cwd = os.readlink(b"/proc/%d/cwd" % self.process.pid)
        return [Path(os.fsdecode(os.path.join(cwd, directory) + b"/" + path)) for path in paths]

    def add(
        self,
        torrent: Torrent,
        directory: Name,
        base: Name | None = None,
        start: bool = False,
        source: str = "",
        again: bool = False,
    ) -> None:
        """Load a torrent, with d.directory.set=`directory` or d.directory_base.set=`base`; it is saved on return.

        `source` is a path or link in place of the metainfo; `again`: it is erased in the same request.
        """
        # rtorrent ignores a torrent that it has, so that no save with the number would come.
        assert again == (torrent.hash in self.loaded)
        number = next(self._numbers)
        text = os.fsencode(directory if base is None else base).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        place = b'd.directory%b.set="%b"' % (b"" if base is None else b"_base", text)
        method = "load.start" if source else "load.raw_start" if start else "load.raw"
        self.multicall(
            *([("d.erase", torrent.hash)] if again else []),
            (method, "", source or torrent.metainfo, place, f"d.custom.set={NUMBER},{number}"),
        )
        self._wait_saved(torrent, number, full=True)

    def readd(self, torrent: Torrent, directory: Name, base: Name | None = None) -> None:
        """Erase and load again, both in one request, as web interfaces do to edit a torrent or to move its data."""
        self.wait_checked(torrent)
        self.add(torrent, directory, base, start=True, again=True)

    def readd_in_place(self, torrent: Torrent, directory: Name) -> None:
        """Erase, write T into the session directory and load that, as ruTorrent does with a big one."""
        self.erase(torrent)
        self.file(torrent).write_bytes(torrent.metainfo)
        self.add(torrent, directory, source=str(self.file(torrent)))

    def magnet(self, torrent: Torrent, directory: Name, again: bool = False) -> None:
        link = f"magnet:?xt=urn:btih:{torrent.hash}&tr={ANNOUNCE.decode()}"
        self.add(torrent, directory, source=link, again=again)

    def download(self, torrent: Torrent, directory: Path, base: Path | None = None) -> list[Path]:
        """Have rtorrent seed a torrent whose data is there, and say so in R; return the paths of its files."""
        paths = torrent.write_root(torrent.root(directory) if base is None else base)
        self.add(torrent, directory, base, start=True)
        self.wait_complete(torrent)
        return paths

    def wait_complete(self, torrent: Torrent | str) -> None:
        """Wait until rtorrent has all data of a torrent, and have it say so in R."""
        self.wait(1, "d.complete", hash_of(torrent))
        self.wait_checked(torrent)
        self.save(torrent)

    def wait_checked(self, *torrents: Torrent | str) -> None:
        """Wait until no hash check runs or is queued for some torrents: 0.9.8 hangs at times in d.erase then.

        A check that has failed leaves d.hashing as it was, and the torrent closed.
        """
        hashes = [*map(hash_of, torrents)]
        columns = ("d.hashing", "d.is_open")
        self._wait(
            lambda: all(any(self._try(column, hash) == 0 for column in columns) for hash in hashes),
            f"the hash check of one of {hashes} does not end",
        )

    def wait_hash_checked(self, torrent: Torrent) -> None:
        self.wait(1, "d.is_hash_checked", torrent.hash)

    def check(self, torrent: Torrent) -> None:
        """Have the data of a torrent checked; until the check begins, d.hashing is 0 as well."""
        self.call("d.check_hash", torrent.hash)
        wait_until(lambda: self._try("d.hashing", torrent.hash) != 0, FORGOTTEN)
        self.wait_checked(torrent)

    def set_directory(self, torrent: Torrent | str, directory: Name, method: str = "d.directory.set") -> None:
        """Set a directory in memory; where the files have been moved, rtorrent closes the torrent and refuses once."""
        self.wait_checked(torrent)
        if isinstance(self._try(method, hash_of(torrent), os.fsencode(directory)), xmlrpc.client.Fault):
            self.call(method, hash_of(torrent), os.fsencode(directory))

    def set_directory_base(self, torrent: Torrent | str, base: Name) -> None:
        self.set_directory(torrent, base, "d.directory_base.set")

    def erase(self, *torrents: Torrent | str) -> None:
        """Erase torrents, all in one request; their session files are gone on return."""
        self.wait_checked(*torrents)
        self.multicall(*(("d.erase", hash_of(torrent)) for torrent in torrents))
        left = [file for torrent in torrents for file in self.files(torrent)]
        self._wait(lambda: not any(map(os.path.lexists, left)), f"session files stay: {left}")

    def save(self, *torrents: Torrent | str, method: str = "d.save_resume") -> None:
        """Have torrents saved by a method."""
        for torrent in torrents:
            number = next(self._numbers)
            self.multicall(("d.custom.set", hash_of(torrent), NUMBER, str(number)), (method, hash_of(torrent)))
            self._wait_saved(torrent, number, full=method == "d.save_full_session")

    def save_full(self, *torrents: Torrent | str) -> None:
        self.save(*torrents, method="d.save_full_session")

    def save_all(self) -> None:
        """Do session.save: L and R of all torrents are written anew on return."""
        pass_tick()
        number, hashes = next(self._numbers), self.loaded
        calls = [("d.custom.set", hash, NUMBER, str(number)) for hash in hashes]
        self.multicall(*calls, ("session.save",))
        for hash in hashes:
            self._wait_saved(hash, number)

    def _wait_saved(self, torrent: Torrent | str, number: int, full: bool = False) -> None:
        """Wait until R has come from a save with the number (or a later one), with `full` also that there is a T.

        0.16 loses T for good when another save follows a load at once, and breaks R when two overlap: T.new stays, or R
        does not decode. A full save mends both.
        """
        hash = hash_of(torrent)
        for _ in range(int(DEADLINE / RETRY)):
            if wait_until(lambda: self._number(hash) >= number and (not full or self.file(hash).exists()), RETRY):
                return
            if self._try("d.hash", hash) == hash:
                self.call("d.save_full_session", hash)
        pytest.fail(f"{hash} is not saved: {self.log.read_text(errors='replace')}")

    def _number(self, hash: str) -> int:
        """Return the number of the save that R has come from; 0 when there is none, or R is broken."""
        return int(decode(self.file(hash, "R")).get(b"custom", {}).get(NUMBER.encode(), 0))

    def fetch(self, torrent: Torrent | str, other: Rtorrent, method: str = "d.complete", value: int = 1) -> None:
        """Download from another rtorrent until a method answers `value`; a peer that is told too early is forgotten."""
        for _ in range(int(DEADLINE / FORGOTTEN)):
            if wait_until(lambda: self._try(method, hash_of(torrent)) == value, FORGOTTEN):
                return
            self._try("add_peer", hash_of(torrent), f"127.0.0.1:{other.call('network.listen.port')}")
        pytest.fail(f"{method} of {hash_of(torrent)} does not answer {value!r}")


def call(path: Path | str, method: str, *params: Any) -> Any:
    """Call an XML-RPC method on a socket and return its answer; raises xmlrpc.client.Fault.

    Bytes reach rtorrent exactly (as base64); in its answers bytes that are not UTF-8 have become others.
    """
    body = xmlrpc.client.dumps(params, method, encoding="utf-8").encode()
    headers = b"CONTENT_LENGTH\0%d\0SCGI\0001\0" % len(body)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(str(path))
        connection.sendall(b"%d:%b,%b" % (len(headers), headers, body))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return xmlrpc.client.loads(answer.partition(b"\r\n\r\n")[2])[0][0]


def wait_until(happened: Callable[[], Any], seconds: float) -> bool:
    """Wait at most so long until something has happened; return whether it has."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True
