"""Fixtures: a session directory with its rtorrent, a place for downloads, and rtwatch watching it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Launcher
from session import VERSIONS, Session
from steps import Hooks


@pytest.fixture
def version() -> str:
    """Return the version whose order of system calls the session has; a module may ask for all of them."""
    return VERSIONS[-1]


@pytest.fixture
def session(tmp_path: Path, version: str) -> Iterator[Session]:
    """Give the session directory of a running rtorrent."""
    with Session(tmp_path / "session", version) as session:
        session.start()
        yield session


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """Give the directory of the torrents' data."""
    path = tmp_path / "downloads"
    path.mkdir()
    return path


@pytest.fixture
def launcher(tmp_path: Path, session: Session) -> Iterator[Launcher]:
    """Give what starts rtwatch for the session."""
    launcher = Launcher(session.path, tmp_path / "state", tmp_path / "calls")
    yield launcher
    launcher.close()


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    """Give a hooks file to be written."""
    return Hooks(tmp_path / "hooks.py")
