"""The command line: how rtwatch is refused, and what it says."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from faults import make_huge_file, the_line
from program import Launcher, command, environment, run
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
    options = "remove no-action hooks db grace trash catch-up force once orphans verbose quiet version"
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


# standard output and error


ASKED = {"help": ["--help"], "version": ["--version"], "orphans": ["--orphans", "{session}", "{downloads}"]}


@pytest.mark.parametrize("words", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("output", ["full", "closed", "closed pipe"])
def test_what_standard_output_does_not_take_is_said_in_one_line(
    output: str, words: list[str], session: Session, downloads: Path, state: Path
) -> None:
    session.download(single("one"), downloads)
    for number in range(300):
        (downloads / f"{number:0250}").touch()
        os.utime(downloads / f"{number:0250}", (0, 0))
    line = command(*(word.format(session=session.path, downloads=downloads) for word in words))
    redirection = {"full": ">/dev/full", "closed": ">&-", "closed pipe": "| :"}[output]
    script = f"set -o pipefail; sleep 0.2; {shlex.join(line)} {redirection}"
    env = {**environment(state), "PYTHONUNBUFFERED": ""}
    result = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    lines = [line for line in result.stderr.splitlines() if " orphans  " not in line]
    assert result.returncode == 1
    assert re.search("^rtwatch: standard output: ", the_line("\n".join(lines)))


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-", "0<&- >&- 2>&-"])
def test_a_standard_error_that_takes_nothing_changes_nothing(
    closed: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    """Above all, the database does not get the number of standard error, and what is said."""
    session.download(single("one"), downloads)
    script = f"{shlex.join(command('--once', '-v', session.path))} {closed}"
    result = subprocess.run(["bash", "-c", script], env=environment(launcher.state), capture_output=True, check=False)
    assert result.returncode == 0
    with closing(sqlite3.connect(launcher.db)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert con.execute("SELECT name FROM torrent_data").fetchall() == [("one.bin",)]
