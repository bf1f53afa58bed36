"""The command line: how rtwatch is refused, and what it says."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import the_line
from program import Launcher, run
from session import Session
from steps import SHORT, download, erase, settle
from torrents import multi, single


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the directory of the state, which does not exist yet."""
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        *((["{}", "--no-such-option"], "--no-such-option"), (["{}", "--grace"], "--grace")),
        *((["{}", "--grace", "soon"], "--grace"), (["{}", "--grace", "-1"], "--grace")),
        *((["{}/missing"], "{}/missing"), (["{}/file"], "{}/file"), ([], "{}/.session")),
        *((["{}", "-r", "{}", "{}/missing"], "{}/missing"), (["{}", "-r", "{}", "{}/file"], "{}/file")),
        *((["{}", "--hooks", "{}/missing"], "{}/missing"), (["{}", "--hooks", "{}"], "{}")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_refused_in_one_line(words: list[str], named: str, tmp_path: Path, state: Path) -> None:
    place = tmp_path / "session"
    place.mkdir()
    (place / "file").write_bytes(b"")
    words = [word.replace("{}", str(place)) for word in words]
    result = run("--once", *words, state=state, env={"HOME": str(place)})
    assert result.returncode == 2
    assert named.replace("{}", str(place)) in the_line(result.stderr)
    assert not state.exists()


def test_the_help_names_every_option(state: Path) -> None:
    result = run("--help", state=state)
    assert (result.returncode, result.stderr) == (0, "")
    options = "remove no-action hooks db grace trash keep catch-up force once orphans what-if verbose quiet version"
    assert all(f"--{option}" in result.stdout for option in options.split())


def test_the_version_is_that_of_everything(state: Path) -> None:
    result = run("--version", state=state)
    assert result.returncode == 0
    python = ".".join(map(str, sys.version_info[:3]))
    for version in f"python {python}", f"sqlite {sqlite3.sqlite_version}", r"inotify.simple \d", r"bencode\.?py \d":
        assert re.search(rf"^rtwatch \d.*{version}", result.stdout, re.I | re.S)
    assert not state.exists()


def test_session_and_state_have_default_places(tmp_path: Path) -> None:
    (tmp_path / ".session").mkdir()
    assert run("--once", state=tmp_path, env={"XDG_STATE_HOME": "", "HOME": str(tmp_path)}).returncode == 0
    assert (tmp_path / ".local" / "state" / "rtwatch" / "rtwatch.db").exists()


def test_options_may_stand_anywhere(session: Session, downloads: Path, state: Path) -> None:
    result = run("-r", session.path, "--once", downloads, "--grace", "0.1", state=state)
    assert (result.returncode, result.stdout) == (0, "")
    assert (state / "rtwatch" / "rtwatch.db").exists()


def test_quiet_says_nothing_and_verbose_every_file(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(single("one"), downloads)
    quiet = launcher.once("-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    program = launcher.start("-v", *SHORT)
    download(program, session, downloads, multi("pack"))
    erase(program, session, multi("pack"))
    program.wait_line(r"a\.bin")
    program.wait_line(r"b\.bin")


def make_dangling_link(path: Path) -> None:
    """Make a symlink that leads nowhere."""
    path.symlink_to("nothing")


def make_huge_file(path: Path) -> None:
    """Make a file larger than any torrent."""
    path.touch()
    os.truncate(path, 1 << 30)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, make_dangling_link, make_huge_file])
def test_directories_pipes_and_huge_files_are_no_torrents(
    make: Callable[[Path], None], session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.add(single("one"), downloads)
    session.file("A" * 40, "R").write_bytes(session.file(single("one"), "R").read_bytes())
    make(session.file("A" * 40))
    program = launcher.start()
    settle(program, session, downloads)
    assert program.select(f"SELECT 1 FROM torrent_data WHERE hash = '{'A' * 40}'") == []
    assert program.stop() == 0


def test_a_link_to_a_torrent_is_one(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(single("one"), downloads)
    moved = downloads / "moved.torrent"
    session.file(single("one")).rename(moved)
    session.file(single("one")).symlink_to(moved)
    program = launcher.start()
    program.wait_files(single("one").hash, single("one").paths(downloads))
