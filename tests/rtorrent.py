"""The real rtorrent 0.9.8 for tests: headless, on loopback only, everything it writes below one directory."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Optional, Union

import pytest
from torrents import Torrent

PROGRAM = Path("/usr/bin/rtorrent")
DEADLINE = 30.0  # seconds after which what has not happened is a failure
COMPLETE_MARK = (
    "method.set_key = event.download.finished,rtwatch,"
    "((execute.nothrow,touch,((cat,((session.path)),((d.hash)),.complete))))"
)
CONFIGURATION = """\
session.path.set = "{0.session}"
directory.default.set = "{0.downloads}"
network.scgi.open_local = "{0.socket}"
system.daemon.set = true
network.bind_address.set = 127.0.0.1
network.port_range.set = 49500-60000
network.port_random.set = yes
dht.mode.set = disable
protocol.pex.set = no
trackers.use_udp.set = no
"""
TELL = """\
#!/bin/sh
printf '%s\\0' "$@" >> "$0.out"
"""


def require_rtorrent() -> None:
    """Skip the test when there is no rtorrent here; fail it when this is the CI, where one is promised."""
    if not PROGRAM.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{PROGRAM} is missing")


class Rtorrent:
    """One rtorrent process after another on the same session; ends only the process that it started itself."""

    def __init__(self, directory: Path, *lines: str) -> None:
        """Make the directories and an rtorrent.rc with further `lines`; start nothing yet."""
        require_rtorrent()
        self.session, self.downloads, self.home, self.cwd = (
            directory / name for name in ("session", "downloads", "home", "cwd")
        )
        for path in (self.session, self.downloads, self.home, self.cwd):
            path.mkdir(parents=True)
        self.socket, self.log, self.configuration = (directory / name for name in ("rpc", "log", "rtorrent.rc"))
        self.configuration.write_text(CONFIGURATION.format(self) + "".join(f"{line}\n" for line in lines))
        self.tell = directory / "tell"
        self.tell.write_text(TELL)
        self.tell.chmod(0o755)
        self.process: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> Rtorrent:
        """Start rtorrent."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End the process, if it still runs."""
        self.kill()

    def start(self) -> None:
        """Start rtorrent and wait until it answers; fails with what it printed when it ends instead."""
        assert self.process is None, "it runs already"
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), "-n", "-o", f"import={self.configuration}"],
                cwd=self.cwd,
                env={"HOME": str(self.home), "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + DEADLINE
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"rtorrent did not start: {self.log.read_text(errors='replace')}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Return whether the socket is there and rtorrent answers on it."""
        try:
            return bool(self.call("system.pid"))
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def shutdown(self) -> None:
        """Have rtorrent save its session and end; returns when the process is gone."""
        assert self.process is not None, "it does not run"
        self.call("system.shutdown.normal")
        self.process.wait(DEADLINE)
        self.process = None

    def kill(self) -> None:
        """End the process as `kill -9` does, if it still runs; returns when it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE)
            self.process = None

    def call(self, method: str, *params: Any) -> Any:
        """Call an XML-RPC method and return its answer; raises xmlrpc.client.Fault.

        Bytes reach rtorrent exactly (as base64); in its answers bytes that are not UTF-8 have become `?`.
        """
        body = xmlrpc.client.dumps(tuple(params), method, encoding="utf-8").encode()
        headers = b"CONTENT_LENGTH\0%d\0SCGI\0001\0" % len(body)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(str(self.socket))
            connection.sendall(b"%d:%b,%b" % (len(headers), headers, body))
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return xmlrpc.client.loads(answer.partition(b"\r\n\r\n")[2])[0][0]

    def multicall(self, *calls: tuple[Any, ...]) -> None:
        """Make several calls, each a tuple of method and parameters, in one request; none may fail."""
        requests = [{"methodName": method, "params": params} for method, *params in calls]
        answers = self.call("system.multicall", requests)
        assert all(isinstance(answer, list) for answer in answers), answers

    def wait(self, value: Any, method: str, *params: Any) -> None:
        """Wait until a method answers `value`; a fault is no answer yet, as for a torrent that is not loaded."""
        deadline = time.monotonic() + DEADLINE
        while (answer := self._try(method, *params)) != value:
            assert time.monotonic() < deadline, f"{method} {params} is still {answer!r}, not {value!r}"
            time.sleep(0.01)

    def _try(self, method: str, *params: Any) -> Any:
        """Return what a method answers, or its fault."""
        try:
            return self.call(method, *params)
        except xmlrpc.client.Fault as fault:
            return fault

    def load(
        self,
        torrent: Torrent,
        *commands: Union[str, bytes],
        start: bool = True,
        directory: Union[Path, bytes, None] = None,
    ) -> None:
        """Load a torrent, told to use `directory` (d.directory.set, of any bytes); it is in the session on return."""
        if directory is not None:
            commands = (set_directory(directory), *commands)
        method = "load.raw_start" if start else "load.raw"
        self.call(method, "", torrent.metainfo, *commands)
        self.wait_loaded(torrent.hash)

    def wait_loaded(self, hash: str) -> None:
        """Wait until rtorrent knows a torrent: it answers `load.*` before that, and saves the session files then."""
        self.wait(hash, "d.hash", hash)

    def erase(self, *hashes: str) -> None:
        """Erase torrents, all in one request."""
        self.multicall(*(("d.erase", hash) for hash in hashes))

    def save(self, hash: str) -> None:
        """Have rtorrent save what it knows of one torrent, its `directory` for one (d.save_resume)."""
        self.call("d.save_resume", hash)

    def files(self, hash: str) -> list[bytes]:
        """Return the absolute paths of a torrent's files: d.directory joined with f.path, not resolved, byte for byte.

        XML-RPC would show bytes that are not UTF-8 as `?`, so rtorrent hands the strings to a script (and by
        `execute.raw`, as `execute` would expand a leading `~`).
        """
        assert self.process is not None, "it does not run"
        told = self.tell.with_suffix(".out")
        told.unlink(missing_ok=True)
        self.call("branch", hash, "d.hash=", f'execute.raw="{self.tell}",$d.directory=')
        self.call("f.multicall", hash, "", f'execute.raw="{self.tell}",$f.path=')
        directory, *paths = told.read_bytes().split(b"\0")[:-1]
        cwd = os.readlink(b"/proc/%d/cwd" % self.process.pid)
        return [os.path.join(cwd, directory) + b"/" + path for path in paths]

    def add_peer(self, hash: str, other: Rtorrent) -> None:
        """Tell this rtorrent that another one has the torrent."""
        self.call("add_peer", hash, f"127.0.0.1:{other.call('network.listen.port')}")


def set_directory(directory: Union[Path, bytes], method: str = "d.directory.set") -> bytes:
    """Return the command that sets a directory of any bytes, as an argument of `load.*`."""
    return b'%b="%b"' % (method.encode(), os.fsencode(directory).replace(b"\\", b"\\\\").replace(b'"', b'\\"'))


def seed(rtorrent: Rtorrent, torrent: Torrent, directory: Path | None = None) -> list[Path]:
    """Have rtorrent seed a torrent whose data is there, and count it in its session; return the paths."""
    paths = torrent.write(directory or rtorrent.downloads)
    rtorrent.load(torrent, directory=directory)
    rtorrent.wait(1, "d.complete", torrent.hash)
    rtorrent.save(torrent.hash)
    return paths


def places(torrent: Torrent, directory: Path) -> list[Path]:
    """Return the paths of a torrent's files when rtorrent is told to use `directory`."""
    return torrent.paths(torrent.root(directory))
