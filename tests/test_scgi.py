"""The SCGI socket of the fake rtorrent answers as the real ones do."""

from __future__ import annotations

import os
import socket
import struct
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest
from rtorrent import DEADLINE, Rtorrent, call, wait_until
from session import Session, decode
from steps import Client
from torrents import multi, single

COLUMNS = ("d.hash=", "d.directory=", "d.complete=", "d.state_changed=", "d.state_counter=")


def ask(client: Client, method: str, *params: Any) -> Any:
    """Ask the client, whose process must be the one that listens; return the answer, or what a fault says."""
    path = client.socket if isinstance(client, Rtorrent) else client.scgi.socket.getsockname()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("3i", credentials)[0] == client.process.pid
    try:
        return call(path, method, *params)
    except xmlrpc.client.Fault as fault:
        return fault.faultCode, fault.faultString


@pytest.fixture(params=["fake-0.9.8", "fake-0.16", "real-0.9.8", "real-0.16"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Give a running rtorrent, the fake or the real one."""
    kind, version = request.param.split("-")
    if kind == "real":
        with Rtorrent(tmp_path / "rtorrent", version=version) as rtorrent:
            yield rtorrent
    else:
        with Session(tmp_path / "session", version) as session:
            yield session


def test_it_says_what_is_loaded_and_where(client: Client, tmp_path: Path) -> None:
    assert ask(client, "session.path", "") == f"{client.path}/"
    assert ask(client, "system.pid", "") == client.process.pid
    assert ask(client, "system.cwd", "") == str(client.cwd)
    assert ask(client, "system.env", "", "HOME") == str(client.home)
    assert Path(f"/proc/{client.process.pid}/comm").read_text().startswith("rtorrent")
    first, second, absent = single("first"), multi("second"), single("absent")
    client.download(first, tmp_path / "data")
    client.add(second, "~/data")
    saved = [decode(client.file(torrent, "R")) for torrent in (first, second)]
    states = [[r[b"state_changed"], r[b"state_counter"]] for r in saved]
    expected = [
        [first.hash, str(tmp_path / "data"), 1, *states[0]],
        [second.hash, f"{client.home}/data/second", 0, *states[1]],
    ]
    for view in ("default", "main", ""):
        assert sorted(ask(client, "d.multicall2", "", view, *COLUMNS)) == sorted(expected)
    assert ask(client, "d.directory", first.hash) == str(tmp_path / "data")
    assert ask(client, "d.hash", second.hash) == second.hash
    unknown = {"0.9.8": (-501, "Could not find info-hash."), "0.16": (-503, "invalid parameters: info-hash not found")}
    assert ask(client, "d.directory", absent.hash) == unknown[client.version]
    assert ask(client, "d.save_resume", absent.hash) == unknown[client.version]
    client.erase(first)
    assert ask(client, "d.directory", first.hash) == unknown[client.version]
    client.set_directory(second, tmp_path / "new")
    for file in client.files(second):
        file.unlink()
    assert ask(client, "d.save_full_session", second.hash) == int(client.version == "0.9.8")
    assert wait_until(lambda: all(file.exists() for file in client.files(second)), DEADLINE)
    assert decode(client.file(second, "R"))[b"directory"] == os.fsencode(second.root(tmp_path / "new"))
