"""Fixtures: a session directory with its rtorrent, a place for downloads, and rtwatch watching it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest
from faults import folding_directory, mounted
from program import Launcher
from session import VERSIONS, Session
from steps import Hooks

Mount = Callable[..., Path]


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


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    """Give a directory for --trash."""
    path = tmp_path / "trash"
    path.mkdir()
    return path


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Give what mounts something on a place, as mount(8) is told, until the end of the test; it returns the place."""
    with ExitStack() as stack:

        def mount(place: Path, *options: str | Path) -> Path:
            stack.enter_context(mounted(place, *map(str, options)))
            return place

        yield mount


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """Give a directory that takes "a" and "A" for one name."""
    with folding_directory(tmp_path / "folding") as directory:
        yield directory
