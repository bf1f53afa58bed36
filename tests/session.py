"""A session directory written as rtorrent writes it, with the same system calls in the order of its version, and an
SCGI socket that answers as rtorrent does.

Measured with 0.9.8 and 0.16.20; L, R and T are HASH.torrent.libtorrent_resume, HASH.torrent.rtorrent and HASH.torrent.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, TypeVar, Union, cast
from xmlrpc.server import SimpleXMLRPCDispatcher

import bencodepy
from torrents import ANNOUNCE, PIECE_LENGTH, Torrent

VERSIONS = ("0.9.8", "0.16")
SUFFIXES = {"T": ".torrent", "R": ".torrent.rtorrent", "L": ".torrent.libtorrent_resume"}
META_DOWNLOAD = {"commands": [], "print_log": 0, "start": 1}  # beside the info of a magnet link
FULL = {"0.9.8": ("LR", "T"), "0.16": ("TLR",)}  # what a full save moves at once
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
    files = []
    for path in line.split():
        try:
            files.append(os.open(bytes.fromhex(path), os.O_RDONLY))
        except FileNotFoundError:  # removed this very moment
            pass
"""
NAMES = {"0.9.8": "rtorrent main", "0.16": "rtorrent-main"}

Directory = Union[str, Path]
Place = Optional[Path]
Change = Callable[[bytes], Optional[bytes]]
Steps = Iterator[None]


class Loaded(NamedTuple):
    """A torrent in rtorrent's memory: what its next save writes."""

    metainfo: bytes
    rtorrent: dict[str, Any]
    resume: dict[str, Any]


Verb = TypeVar("Verb", bound=Callable[..., Any])
Self = TypeVar("Self", bound="SessionDirectory")


def undivided(verb: Verb) -> Verb:
    """Let a method be done without an answer on the SCGI socket in between: rtorrent's main thread does both."""

    @functools.wraps(verb)
    def run(self: Session, *args: Any, **keys: Any) -> Any:
        with self.busy:
            return verb(self, *args, **keys)

    return cast(Verb, run)


class SessionDirectory:
    """The session directory `path` of an rtorrent, which runs within the context of the object."""

    path: Path
    start: Callable[..., None]
    kill: Callable[..., None]

    def __enter__(self: Self) -> Self:
        """Start rtorrent."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def lock(self) -> Path:
        return self.path / "rtorrent.lock"

    def file(self, torrent: Torrent | str, kind: str = "T") -> Path:
        return self.path / (hash_of(torrent) + SUFFIXES[kind])

    def files(self, torrent: Torrent | str) -> list[Path]:
        """Return the paths of a torrent's three session files, in the order of an erase."""
        return [self.file(torrent, kind) for kind in "LRT"]


class Session(SessionDirectory):
    """The session directory `path`, and a process that bears rtorrent's name, for the lock."""

    def __init__(
        self, path: Path, version: str = VERSIONS[0], cwd: Place = None, home: Place = None, scgi: str = "unix"
    ) -> None:
        """Make the directory, start nothing yet; `scgi` is the kind of socket, "unix", "tcp", or "" for none."""
        self.path = path
        self.version = version
        self.cwd = cwd or path.parent
        self.home = home or path.parent
        self.loaded: dict[str, Loaded] = {}
        self.process: Any = None  # a Popen while rtorrent runs
        self.busy = threading.RLock()
        self.scgi = Scgi(self, scgi == "tcp")
        self.asked = self.scgi.asked
        self._listens = bool(scgi)
        path.mkdir(parents=True, exist_ok=True)

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
        self.lock.write_text(f"{socket.gethostname()}:+{self.process.pid}\n")
        self.loaded.clear()
        for hash in (file.stem for file in sorted(self.path.glob("*.torrent")) if decode(file)):
            # What is missing in R is as in a first one; R may be broken.
            self._insert(hash, self.file(hash).read_bytes(), {"directory": os.fsencode(self.home)})
            saved = decode(self.file(hash, "R"))
            self.loaded[hash].rtorrent.update({key.decode(): value for key, value in saved.items()})
        if self._listens:
            self.scgi.start()

    def _wait_process(self) -> None:
        """Wait until the process has done what it was told."""
        assert self.process.stdout.read(1) == b"+", "the process of the fake rtorrent ended"

    def open_files(self, paths: Iterable[Path]) -> None:
        """Let the process have these files open, and no others."""
        self.process.stdin.write(" ".join(os.fsencode(path).hex() for path in paths).encode() + b"\n")
        self.process.stdin.flush()
        self._wait_process()

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
            self.process.kill()
            self.process.communicate()
            self.process = None
            self._sockets.cleanup()

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
        if self.version == "0.9.8":
            self.save(torrent)
        # as touch(1) does it: Path.touch opens no file that is there
        with mark.open("ab") as file:
            os.utime(file.fileno())
        if self.version != "0.9.8":
            self.save(torrent)
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
    def save(self, *torrents: Torrent | str, groups: Sequence[str] = ("LR",)) -> None:
        """Do d.save_resume of each: L and R are written anew."""
        for torrent in torrents:
            _work([self._save(torrent, *groups)])

    def save_full(self, *torrents: Torrent | str) -> None:
        """Do d.save_full_session of each: L, R and T are written anew."""
        self.save(*torrents, groups=FULL[self.version])

    @undivided
    def write(self, torrent: Torrent, kind: str, content: bytes | None = None) -> None:
        """Write only one of T, R and L, as a save that is cut short; `content` instead of what is in memory."""
        _work([self._save(torrent, kind, content=content)])

    @undivided
    def save_all(self) -> None:
        """Do session.save: torrent after torrent in 0.9.8, interleaved in 0.16."""
        pass_tick()
        file, saves = self.path / "rtorrent.input_history", [self._save(hash, "LR") for hash in self.loaded]
        history = itertools.chain(self._write(file, b""), _move(file))
        if self.version == "0.9.8":
            for steps in (*saves, history):
                _work([steps])
        else:
            _work([history])
            for first in range(0, len(saves), WRITERS):
                _work(saves[first : first + WRITERS])

    @undivided
    def save_on_full_disk(self, torrent: Torrent, kinds: str = "LR") -> None:
        """Do d.save_resume without space: 0.16 moves empty files into place, 0.9.8 leaves an empty L.new."""
        if self.version == "0.9.8":
            _work([self._write(self.file(torrent, "L"), b"")])
        else:
            _work([self._save(torrent, kinds, content=b"")])

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
            **{"announce": ANNOUNCE, "announce-list": [[ANNOUNCE]], "info": info},
            **{"magnet-uri": f"magnet:?xt=urn:btih:{torrent.hash}", "rtorrent_meta_download": META_DOWNLOAD},
        }
        place = os.fsencode(directory) if self.version == "0.9.8" else os.fsencode(self.path) + b"/"
        self._insert(torrent.hash, bencodepy.encode(stub), {"directory": place})
        self.save_full(torrent)

    @undivided
    def metadata(self, torrent: Torrent, directory: Directory) -> None:
        """Let the metadata of a magnet arrive: the stub is erased, the torrent loaded."""
        self.erase(torrent)
        metainfo = {**bencodepy.decode(torrent.metainfo), b"rtorrent_meta_download": META_DOWNLOAD}
        self._insert(torrent.hash, bencodepy.encode(metainfo), {})
        self.set_directory(torrent, directory)
        self.save_full(torrent)

    def _insert(self, hash: str, metainfo: bytes, keys: dict[str, Any]) -> None:
        """Take a torrent into memory with what rtorrent has in its first R and L."""
        resume: dict[str, Any] = {"files": [], "peers": [], "trackers": {ANNOUNCE.decode(): {"enabled": 1}}}
        if self.version == "0.9.8":
            resume["uncertain_pieces.timestamp"] = 0
        self.loaded[hash] = Loaded(metainfo, {**FIRST_R, **keys}, resume)

    def _save(self, torrent: Torrent | str, *groups: str, content: bytes | None = None) -> Steps:
        """Write T, R and L, or some of them, group by group; each group is moved when all of it is written."""
        loaded = self.loaded[hash_of(torrent)]
        encode: Callable[[object], bytes] = bencodepy.encode
        for kinds in groups:
            for kind in kinds:
                memory = loaded.metainfo if kind == "T" else encode(loaded.rtorrent if kind == "R" else loaded.resume)
                yield from self._write(self.file(torrent, kind), memory if content is None else content)
            for kind in kinds:
                yield from _move(self.file(torrent, kind))

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
    **dict.fromkeys(("directory", "custom1", "custom2", "tied_to_file"), ""),
    **dict.fromkeys(("chunks_done", "complete", "hashing", "timestamp.finished", "total_uploaded"), 0),
    **{"chunks_wanted": 1, "choke_heuristics.up.leech": "upload_leech", "priority": 2, "views": []},
    **{"state": 1, "state_counter": 1, "state_changed": 1700000000, "timestamp.started": 1700000000},
}


def decode(file: Path) -> dict[bytes, Any]:
    """Return what a session file holds, nothing when it is missing or broken."""
    try:
        value = bencodepy.decode(file.read_bytes())
    except (OSError, ValueError, bencodepy.BencodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def hash_of(torrent: Torrent | str) -> str:
    return torrent if isinstance(torrent, str) else torrent.hash


def pass_tick() -> None:
    """Wait until the times of files are later than now: the kernel's clock for them is some milliseconds behind."""
    begun = time.time()
    with tempfile.NamedTemporaryFile() as file:
        while os.stat(file.name).st_mtime <= begun:
            time.sleep(0.001)
            os.utime(file.name)


def _move(file: Path) -> Steps:
    """Rename `file`.new to `file`."""
    os.rename(file.with_name(file.name + ".new"), file)
    yield


def _work(steps: Iterable[Steps]) -> None:
    """Take one step of each in turn until all are done."""
    left = list(steps)
    while left:
        left = [step for step in left if next(step, StopIteration) is None]


UNKNOWN = {
    "0.9.8": xmlrpc.client.Fault(-501, "Could not find info-hash."),
    "0.16": xmlrpc.client.Fault(-503, "invalid parameters: info-hash not found"),
}
HEAD = "Status: 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n"
SAVES = ("d.save_resume", "d.save_full_session")


class Scgi(SimpleXMLRPCDispatcher):
    """Answers for a session, whose process must listen on `socket`; a test may change what is answered and how."""

    def __init__(self, session: Session, tcp: bool) -> None:
        """Answer as rtorrent does; nothing is bound yet."""
        super().__init__(allow_none=True)
        self.session = session
        self.tcp = tcp
        self.asked: list[str] = []  # methods
        self.answers: dict[str, Any] = {}  # by method, instead of the true answer: a value, or a function
        self.change: Change = lambda reply: reply  # of the reply's bytes; None keeps the connection open and silent
        self.socket: Any = None  # while it is bound
        self._connection: Any = None  # the last one
        self._later: list[Callable[[], None]] = []  # saves that have been asked for

    def bind(self, directory: Union[str, Path]) -> int:
        """Bind a new socket, in `directory` or to a port of 127.0.0.1; return its descriptor."""
        self.socket = socket.socket(socket.AF_INET if self.tcp else socket.AF_UNIX)
        self.socket.bind(("127.0.0.1", 0) if self.tcp else os.path.join(directory, "rpc.sock"))
        return int(self.socket.fileno())

    def start(self) -> None:
        """Answer from now on; the process listens."""
        self._thread = threading.Thread(target=self._serve, args=[self.socket], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the socket and the connection."""
        if self.socket is not None:
            bound, self.socket = self.socket, None
            for each in filter(None, (bound, self._connection)):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            if self._thread is not threading.current_thread():
                self._thread.join()
            bound.close()

    def _serve(self, bound: socket.socket) -> None:
        """Answer one connection after the other until the socket is shut down."""
        with contextlib.suppress(OSError):
            while True:
                self._connection, _ = bound.accept()
                with self._connection, contextlib.suppress(OSError, EOFError):
                    if self.socket:  # else `stop` may not have seen this connection
                        self._reply(self._connection)

    def _reply(self, connection: socket.socket) -> None:
        """Answer the one request of a connection; a save that it asks for comes before the reply only in 0.9.8."""
        request = read_request(connection)
        with self.session.busy:
            reply = cast(bytes, self._marshaled_dispatch(request))
        changed = self.change(HEAD.format(len(reply)).encode() + reply)
        if changed is None:
            connection.recv(1)
        else:
            connection.sendall(changed)
            connection.shutdown(socket.SHUT_WR)
        while self._later:
            with contextlib.suppress(KeyError):  # it has been erased meanwhile
                self._later.pop()()

    def _dispatch(self, method: str, params: Any) -> Any:
        """Return the answer to a call, the one that a test has set or the true one; raise a Fault in its place."""
        self.asked.append(method)
        if method == "system.multicall":
            return self.system_multicall(*params)
        answer = self.answers[method] if method in self.answers else self._tell(method, *params)
        return answer(*params) if callable(answer) else answer

    def _tell(self, method: str, *params: Any) -> Any:
        """Return the true answer of a method."""
        session, process = self.session, self.session.process
        if method == "d.multicall2":
            return [[self.column(hash, column.rstrip("=")) for column in params[2:]] for hash in session.loaded]
        if method in SAVES:
            hash = self.column(params[0], "d.hash")
            save = functools.partial(session.save if method == "d.save_resume" else session.save_full, hash)
            if session.version == "0.9.8":
                save()
            else:
                self._later.append(save)
            return int(session.version == "0.9.8")
        if method.startswith("d."):
            return self.column(params[0], method)
        facts = {"session.path": f"{session.path}/", "system.cwd": str(session.cwd), "system.env": str(session.home)}
        return process.pid if process and method == "system.pid" else facts[method]

    def column(self, hash: str, column: str) -> Any:
        """Return what rtorrent says of a torrent, from what its next R would say."""
        if hash not in self.session.loaded:
            raise UNKNOWN[self.session.version]
        known = self.session.loaded[hash].rtorrent
        if column == "d.directory":
            return self._directory(os.fsencode(known["directory"]))
        return hash if column == "d.hash" else known[column.partition(".")[2]]

    def _directory(self, saved: bytes) -> str:
        """Return d.directory: `~` is expanded, a last `/` dropped, and what XML-RPC cannot carry has become another."""
        if saved.startswith(b"~"):
            saved = os.fsencode(self.session.home) + saved[1:]
        text = os.fsdecode(saved[:-1] if saved.endswith(b"/") and saved != b"/" else saved)
        odd = re.compile("[\udc80-\udcff]|[^\0-\uffff]")
        if self.session.version == "0.9.8":
            return odd.sub("?", text) or "."
        return odd.sub(lambda match: "".join(f"%{byte:02X}" for byte in os.fsencode(match[0])), text) or "."


def read_request(connection: socket.socket) -> bytes:
    """Read an SCGI request: a netstring of headers, then the XML that is returned; raise EOFError when it is short."""
    data, headers = b"", None
    while headers is None or len(data) < headers.end() + int(headers[1]):
        more = connection.recv(65536)
        if not more:
            raise EOFError
        data += more
        headers = re.match(rb"\d+:CONTENT_LENGTH\0(\d+)\0[^,]*,", data)
    return data[headers.end() :]
