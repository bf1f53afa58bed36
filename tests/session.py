"""A session directory written as rtorrent writes it: the same system calls in the order of its version.

Measured with 0.9.8 and 0.16.20; L, R and T are HASH.torrent.libtorrent_resume, HASH.torrent.rtorrent and HASH.torrent.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, NamedTuple, TypeVar, Union, cast

import bencodepy
from scgi import Scgi
from torrents import ANNOUNCE, PIECE_LENGTH, Torrent

VERSIONS = ("0.9.8", "0.16")
SUFFIXES = {"T": ".torrent", "R": ".torrent.rtorrent", "L": ".torrent.libtorrent_resume"}
WRITERS = 16  # torrents that 0.16 saves at once

# The process of the fake rtorrent: it listens, for clients are told the process that did, and holds files open.
PROCESS = """
import _socket, os, sys
open("/proc/self/comm", "w").write(sys.argv[1])
fds = [int(fd) for fd in sys.argv[2:]]
sockets = [_socket.socket(fileno=fd) for fd in fds]
for listener in sockets:
    listener.listen(128)
files = []
while True:
    os.write(1, b"+")
    line = sys.stdin.readline()
    if not line:
        break
    for fd in files:
        os.close(fd)
    files = [os.open(bytes.fromhex(path), os.O_RDONLY) for path in line.split()]
"""
NAMES = {"0.9.8": "rtorrent main", "0.16": "rtorrent-main"}

Directory = Union[str, Path]
Steps = Iterator[None]


class Loaded(NamedTuple):
    """A torrent in rtorrent's memory: what its next save writes."""

    metainfo: bytes
    rtorrent: dict[str, Any]
    resume: dict[str, Any]


Verb = TypeVar("Verb", bound=Callable[..., Any])


def undivided(verb: Verb) -> Verb:
    """Let a method be done without an answer on the SCGI socket in between: rtorrent's main thread does both."""

    @functools.wraps(verb)
    def run(self: Session, *args: Any, **keys: Any) -> Any:
        with self.busy:
            return verb(self, *args, **keys)

    return cast(Verb, run)


class Session:
    """The session directory `path`, and a process that bears rtorrent's name, for the lock; a context manager."""

    def __init__(
        self,
        path: Path,
        version: str = VERSIONS[0],
        cwd: Path | None = None,
        home: Path | None = None,
        scgi: bool = True,
        tcp: bool = False,
    ) -> None:
        """Make the directory; rtorrent is not running yet, and without `scgi` it will have no socket."""
        self.path = path
        self.version = version
        self.cwd = cwd or path.parent
        self.home = home or path.parent
        self.loaded: dict[str, Loaded] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.busy = threading.RLock()
        self.scgi = Scgi(self, tcp)
        self._listens = scgi
        path.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process."""
        self.kill()

    @property
    def lock(self) -> Path:
        """Path of the lock file."""
        return self.path / "rtorrent.lock"

    @property
    def asked(self) -> list[str]:
        """The methods that were called on the SCGI socket, in order."""
        return [method for method, *_ in self.scgi.asked]

    def file(self, torrent: Torrent | str, kind: str = "T") -> Path:
        """Return the path of a torrent's session file, `kind` being T, R or L."""
        return self.path / (hash_of(torrent) + SUFFIXES[kind])

    def files(self, torrent: Torrent | str) -> list[Path]:
        """Return the paths of a torrent's three session files, in the order of an erase."""
        return [self.file(torrent, kind) for kind in "LRT"]

    # rtorrent's own life

    def start(self) -> None:
        """Start rtorrent: replace a stale lock, and load what the directory holds (which writes nothing)."""
        assert self.process is None, "rtorrent is running"
        self._sockets = tempfile.TemporaryDirectory(prefix="rtorrent-")  # short: a socket's path has 107 bytes
        fds = [self.scgi.bind(self._sockets.name)] if self._listens else []
        self.process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "-c", PROCESS, NAMES[self.version], *map(str, fds)],
            cwd=self.cwd,
            env={"HOME": str(self.home)},
            pass_fds=fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._wait_process()
        self.lock.unlink(missing_ok=True)
        self.write_lock(socket.gethostname(), self.process.pid)
        hashes = [file.stem for file in sorted(self.path.glob("*.torrent")) if decode(file)]
        self.loaded = {hash: self._load(hash) for hash in hashes}
        if self._listens:
            self.scgi.start()

    def _wait_process(self) -> None:
        """Wait until the process has done what it was told."""
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.read(1) == b"+", "the process of the fake rtorrent ended"

    def open_files(self, paths: Iterable[Path]) -> None:
        """Let the process have these files open, and no others."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(os.fsencode(path).hex() for path in paths).encode() + b"\n")
        self.process.stdin.flush()
        self._wait_process()

    def close_files(self) -> None:
        """Let the process close the files that it has open."""
        self.open_files(())

    def write_lock(self, host: str, pid: int) -> None:
        """Write the lock as the process `pid` on `host` does."""
        fd = os.open(self.lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
        os.write(fd, f"{host}:+{pid}\n".encode())
        os.close(fd)

    def shutdown(self) -> None:
        """End rtorrent in order: everything is saved, the lock goes last, then the process."""
        with self.busy:  # and not any more when the process is waited for, which may be answering
            self.save_all()
            self.lock.unlink()
        self.kill()

    def kill(self) -> None:
        """End the process as kill -9 does: the lock stays, what was not saved is lost."""
        if self.process is not None:
            self.scgi.stop()
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.process = None
            self._sockets.cleanup()

    # a torrent's life

    @undivided
    def add(self, torrent: Torrent, directory: Directory, base: Directory | None = None, **keys: Any) -> None:
        """Load a torrent with d.directory.set=`directory`, or d.directory_base.set=`base`; `keys` go into R."""
        self.load(torrent, directory, base, **keys)
        self.save_full(torrent)

    def load(self, torrent: Torrent, directory: Directory, base: Directory | None = None, **keys: Any) -> None:
        """Take a torrent into memory only, as it is before its first save."""
        self._insert(torrent.hash, torrent.metainfo, keys)
        self.set_directory(torrent, directory)
        if base is not None:
            self.set_directory_base(torrent, base)

    @undivided
    def download(self, torrent: Torrent, directory: Path, base: Path | None = None) -> list[Path]:
        """Load a torrent and download all its data; return the paths of its files."""
        self.add(torrent, directory, base)
        root = torrent.root(directory) if base is None else base
        paths = torrent.write_root(root)
        self.finish(torrent)
        self.save(torrent)
        return paths

    def finish(self, torrent: Torrent) -> None:
        """Let a torrent's data be complete, in memory: R tells it at the next save."""
        loaded = self.loaded[torrent.hash]
        chunks = -(-len(torrent.data()) // PIECE_LENGTH)
        loaded.rtorrent.update({"complete": 1, "chunks_done": chunks, "timestamp.finished": 1700000000})
        loaded.resume["bitfield"] = chunks

    @undivided
    def mark_complete(self, torrent: Torrent) -> Path:
        """Finish a torrent: the save and the touch of HASH.complete in the version's order; return that path."""
        mark = self.path / f"{torrent.hash}.complete"
        self.finish(torrent)
        if self.version != "0.9.8":
            touch(mark)
        self.save(torrent)
        if self.version == "0.9.8":
            touch(mark)
        return mark

    def set_directory(self, torrent: Torrent, directory: Directory) -> None:
        """Do d.directory.set, which is in memory only until the next save."""
        text = os.fsencode(directory)
        if not isinstance(torrent.content, bytes):
            text += (b"" if text == b"" or text.endswith(b"/") else b"/") + torrent.name
        self.loaded[torrent.hash].rtorrent["directory"] = text

    def set_directory_base(self, torrent: Torrent | str, base: Directory) -> None:
        """Do d.directory_base.set, which is in memory only until the next save."""
        self.loaded[hash_of(torrent)].rtorrent["directory"] = os.fsencode(base)

    @undivided
    def save(self, *torrents: Torrent | str) -> None:
        """Do d.save_resume of each: L and R are written anew."""
        for torrent in torrents:
            _work([self._save_resume(hash_of(torrent))])

    @undivided
    def save_full(self, *torrents: Torrent | str) -> None:
        """Do d.save_full_session of each: L, R and T are written anew."""
        for torrent in torrents:
            _work([self._save_full(hash_of(torrent))])

    @undivided
    def write(self, torrent: Torrent, kind: str, content: bytes | None = None) -> None:
        """Write only one of T, R and L, as a save that is cut short; `content` instead of what is in memory."""
        file = self.file(torrent, kind)
        _work([self._write(file, self._content(torrent.hash, kind) if content is None else content)])
        _work([_move(file)])

    @undivided
    def save_all(self) -> None:
        """Do session.save: torrent after torrent in 0.9.8, interleaved in 0.16."""
        pass_tick()
        history = self._save_history()
        hashes = list(self.loaded)
        if self.version == "0.9.8":
            for steps in (*map(self._save_resume, hashes), history):
                _work([steps])
        else:
            _work([history])
            for first in range(0, len(hashes), WRITERS):
                _work(map(self._save_resume, hashes[first : first + WRITERS]))

    @undivided
    def save_on_full_disk(self, torrent: Torrent) -> None:
        """Do d.save_resume without space: 0.16 moves empty files into place, 0.9.8 leaves an empty L.new."""
        kinds = "LR"
        for kind in kinds if self.version != "0.9.8" else "L":
            _work([self._write(self.file(torrent, kind), b"")])
        for kind in kinds if self.version != "0.9.8" else "":
            _work([_move(self.file(torrent, kind))])

    @undivided
    def erase(self, *torrents: Torrent | str) -> None:
        """Do d.erase of each: L, R and T are unlinked in this order."""
        for torrent in torrents:
            for file in self.files(torrent):
                file.unlink(missing_ok=True)
            self.loaded.pop(hash_of(torrent), None)

    @undivided
    def readd(self, torrent: Torrent, directory: Directory, base: Directory | None = None) -> None:
        """Erase and load again, as ruTorrent does to edit a torrent or to move its data."""
        self.erase(torrent)
        self.add(torrent, directory, base)

    @undivided
    def readd_in_place(self, torrent: Torrent, directory: Directory) -> None:
        """Erase, write T without .new and load that, as ruTorrent does with a torrent of more than 1.5 MB."""
        self.erase(torrent)
        self.file(torrent).write_bytes(torrent.metainfo)
        self.add(torrent, directory)

    @undivided
    def magnet(self, torrent: Torrent, directory: Path) -> None:
        """Load the magnet link of a torrent: a stub is saved under its hash."""
        info = {"name": torrent.hash + ".meta", "pieces": bytes.fromhex(torrent.hash), "meta_download": 1}
        stub = {
            "announce": ANNOUNCE,
            "announce-list": [[ANNOUNCE]],
            "magnet-uri": f"magnet:?xt=urn:btih:{torrent.hash}",
            "rtorrent_meta_download": {"commands": [], "print_log": 0, "start": 1},
            "info": info,
        }
        place = os.fsencode(directory) if self.version == "0.9.8" else os.fsencode(self.path) + b"/"
        self._insert(torrent.hash, bencodepy.encode(stub), {"directory": place})
        self.save_full(torrent)

    @undivided
    def metadata(self, torrent: Torrent, directory: Directory) -> None:
        """Let the metadata of a magnet arrive: the stub is erased, the torrent loaded."""
        self.erase(torrent)
        metainfo = bencodepy.decode(torrent.metainfo)
        metainfo[b"rtorrent_meta_download"] = {b"commands": [], b"print_log": 0, b"start": 1}
        self._insert(torrent.hash, bencodepy.encode(metainfo), {})
        self.set_directory(torrent, directory)
        self.save_full(torrent)

    def _insert(self, hash: str, metainfo: bytes, keys: dict[str, Any]) -> None:
        """Take a torrent into memory with what rtorrent has in its first R and L."""
        resume: dict[str, Any] = {"files": [], "peers": [], "trackers": {ANNOUNCE.decode(): {"enabled": 1}}}
        if self.version == "0.9.8":
            resume["uncertain_pieces.timestamp"] = 0
        self.loaded[hash] = Loaded(metainfo, {**FIRST_R, **keys}, resume)

    def _load(self, hash: str) -> Loaded:
        """Read a torrent as rtorrent does at its start; what is missing in R is as in a first one; R may be broken."""
        self._insert(hash, self.file(hash).read_bytes(), {"directory": os.fsencode(self.home)})
        loaded = self.loaded.pop(hash)
        loaded.rtorrent.update({key.decode(): value for key, value in decode(self.file(hash, "R")).items()})
        return loaded

    # what is written, as steps, for 0.16 takes many torrents' steps in turn

    def _save_full(self, hash: str) -> Steps:
        """Write all three: T is moved last by 0.9.8 and first by 0.16."""
        if self.version == "0.9.8":
            yield from self._save_resume(hash)
            yield from self._write(self.file(hash), self.loaded[hash].metainfo)
            yield from _move(self.file(hash))
        else:
            for kind in "TLR":
                yield from self._write(self.file(hash, kind), self._content(hash, kind))
            for kind in "TLR":
                yield from _move(self.file(hash, kind))

    def _save_resume(self, hash: str) -> Steps:
        """Write L and R, then move both."""
        for kind in "LR":
            yield from self._write(self.file(hash, kind), self._content(hash, kind))
        for kind in "LR":
            yield from _move(self.file(hash, kind))

    def _save_history(self) -> Steps:
        """Write the file that every session.save writes."""
        history = self.path / "rtorrent.input_history"
        yield from self._write(history, b"")
        yield from _move(history)

    def _content(self, hash: str, kind: str) -> bytes:
        """Return what is written to T, R or L."""
        loaded = self.loaded[hash]
        if kind == "T":
            return loaded.metainfo
        content: bytes = bencodepy.encode(loaded.rtorrent if kind == "R" else loaded.resume)
        return content

    def _write(self, file: Path, content: bytes) -> Steps:
        """Write `file`.new; 0.9.8 reads it back, 0.16 opens it again for fdatasync."""
        new = file.with_name(file.name + ".new")
        fd = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        os.write(fd, content)
        os.close(fd)
        yield
        if self.version == "0.9.8":
            new.read_bytes()
        else:
            os.close(os.open(new, os.O_WRONLY))
        yield


# of a torrent that is loaded and not started
STOPPED: dict[str, Any] = {"state": 0, "state_counter": 0, "timestamp.started": 0}
FIRST_R: dict[str, Any] = {
    **{f"custom{number}": "" for number in range(1, 6)},
    "chunks_done": 0,
    "chunks_wanted": 1,
    "choke_heuristics.down.leech": "download_leech",
    "choke_heuristics.down.seed": "download_leech",
    "choke_heuristics.up.leech": "upload_leech",
    "choke_heuristics.up.seed": "upload_seed",
    "complete": 0,
    "connection_leech": "leech",
    "connection_seed": "seed",
    "directory": "",
    "hashing": 0,
    "ignore_commands": 0,
    "key": 12345,
    "loaded_file": "",
    "priority": 2,
    "state": 1,
    "state_changed": 1700000000,
    "state_counter": 1,
    "throttle_name": "",
    "tied_to_file": "",
    "timestamp.finished": 0,
    "timestamp.started": 1700000000,
    "total_downloaded": 0,
    "total_uploaded": 0,
    "views": [],
}


def decode(file: Path) -> dict[bytes, Any]:
    """Return what a session file holds, nothing when it is missing or broken."""
    try:
        value = bencodepy.decode(file.read_bytes())
    except (OSError, ValueError, bencodepy.BencodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def hash_of(torrent: Torrent | str) -> str:
    """Return the hash of a torrent that is given as itself or by its hash."""
    return torrent if isinstance(torrent, str) else torrent.hash


def pass_tick() -> None:
    """Wait until the times of files are later than now: the kernel's clock for them is some milliseconds behind."""
    begun = time.time()
    with tempfile.NamedTemporaryFile() as file:
        while os.stat(file.name).st_mtime <= begun:
            time.sleep(0.001)
            os.utime(file.name)


def touch(path: Path) -> None:
    """Do what touch(1) does: open for writing, set the times, close (Path.touch opens no file that is there)."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    os.utime(fd)
    os.close(fd)


def _move(file: Path) -> Steps:
    """Rename `file`.new to `file`."""
    os.rename(file.with_name(file.name + ".new"), file)
    yield


def _work(steps: Iterable[Steps]) -> None:
    """Take one step of each in turn until all are done."""
    left = list(steps)
    while left:
        left = [step for step in left if next(step, StopIteration) is None]
