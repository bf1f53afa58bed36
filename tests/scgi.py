"""The SCGI socket of the fake rtorrent: what rtorrent answers to XML-RPC, from what a session.Session has loaded."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import xmlrpc.client
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

if TYPE_CHECKING:
    from session import Session

UNKNOWN = {
    "0.9.8": xmlrpc.client.Fault(-501, "Could not find info-hash."),
    "0.16": xmlrpc.client.Fault(-503, "invalid parameters: info-hash not found"),
}
HEAD = "Status: 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n"
VIEWS = ("", "default", "main")
SAVES = ("d.save_resume", "d.save_full_session")

Change = Callable[[bytes], Optional[bytes]]


class Scgi:
    """Answers for a session, whose process must listen on `socket`; a test may change what is answered and how."""

    def __init__(self, session: Session, tcp: bool) -> None:
        """Answer as rtorrent does; nothing is bound yet."""
        self.session = session
        self.tcp = tcp
        self.asked: list[tuple[Any, ...]] = []  # each method with its parameters
        self.answers: dict[str, Any] = {}  # by method, instead of the true answer: a value, or a function
        self.change: Change = lambda reply: reply  # of the reply's bytes; None keeps the connection open and silent
        self.socket: Optional[socket.socket] = None
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def bind(self, directory: Union[str, Path]) -> int:
        """Bind a new socket, in `directory` or to a port of 127.0.0.1; return its descriptor."""
        self.socket = socket.socket(socket.AF_INET if self.tcp else socket.AF_UNIX)
        self.socket.bind(("127.0.0.1", 0) if self.tcp else os.path.join(directory, "rpc.sock"))
        return self.socket.fileno()

    def start(self) -> None:
        """Answer from now on; the process listens."""
        assert self.socket is not None
        self._run(self._accept, self.socket)

    def stop(self) -> None:
        """Close the socket and all connections."""
        if self.socket is None:
            return
        for connection in (self.socket, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self.socket.close()
        self.socket = None
        self._threads.clear()

    def _run(self, target: Callable[[socket.socket], None], connection: socket.socket) -> None:
        """Run a function in a thread of its own."""
        thread = threading.Thread(target=target, args=(connection,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        """Take connections until the socket is shut down."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._connections.add(connection)
                self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        """Answer the one request of a connection."""
        with connection, contextlib.suppress(OSError, EOFError):
            method, params = read_request(connection)
            answer, later = self._answer(method, params)
            reply = xmlrpc.client.dumps(answer, methodresponse=True, allow_none=True).encode()
            changed = self.change(HEAD.format(len(reply)).encode() + reply)
            if changed is None:
                connection.recv(1)
            else:
                connection.sendall(changed)
                connection.shutdown(socket.SHUT_WR)
            if later:
                self._save(method, params)
        self._connections.discard(connection)

    def _answer(self, method: str, params: tuple[Any, ...]) -> tuple[Any, bool]:
        """Return the answer to a request, and whether it is followed by a save, as in 0.16."""
        self.asked.append((method, *params))
        later = False
        try:
            with self.session.busy:
                answer = self.answers[method] if method in self.answers else self._tell(method, *params)
                value = answer(*params) if callable(answer) else answer
                if method in SAVES and method not in self.answers:
                    later = self.session.version != "0.9.8"
                    if not later:
                        self._save(method, params)
        except xmlrpc.client.Fault as fault:
            return fault, False
        return (value,), later

    def _save(self, method: str, params: tuple[Any, ...]) -> None:
        """Do d.save_resume or d.save_full_session."""
        with self.session.busy:
            if params[0] in self.session.loaded:
                (self.session.save if method == "d.save_resume" else self.session.save_full)(params[0])

    def _tell(self, method: str, *params: Any) -> Any:
        """Return the true answer of a method."""
        session, process = self.session, self.session.process
        if method == "d.multicall2":
            _, view, *columns = params
            if view not in VIEWS:
                raise xmlrpc.client.Fault(-503, "Could not find view.")
            return [[self.column(hash, column.rstrip("=")) for column in columns] for hash in session.loaded]
        if method in SAVES:
            self.column(params[0], "d.hash")
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
        if saved.endswith(b"/") and saved != b"/":
            saved = saved[:-1]
        return "".join(map(self._character, os.fsdecode(saved))) or "."

    def _character(self, character: str) -> str:
        """Return a character as an answer carries it."""
        if character <= "\uffff" and not "\udc80" <= character <= "\udcff":
            return character
        return "?" if self.session.version == "0.9.8" else "".join(f"%{byte:02X}" for byte in os.fsencode(character))


def read_request(connection: socket.socket) -> tuple[str, tuple[Any, ...]]:
    """Read an SCGI request: a netstring of headers, then XML-RPC; raises EOFError when it is cut short."""
    size = b"".join(iter(lambda: read(connection, 1), b":"))
    headers = read(connection, int(size) + 1).split(b"\0")
    body = read(connection, int(headers[headers.index(b"CONTENT_LENGTH") + 1]))
    params, method = xmlrpc.client.loads(body)
    return str(method), params


def read(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
