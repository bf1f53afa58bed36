"""The command line: how rtwatch is refused, and what it says."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from faults import NEXT_WEEK, the_line
from program import command, environment, run
from steps import SHORT, Bed
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
    assert named.replace("{}", str(place)) in the_line(result, 2)
    assert not state.exists()


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


def test_options_may_stand_anywhere(bed: Bed, state: Path) -> None:
    result = run("-r", bed.session.path, "--once", bed.downloads, "--grace", "0.1", state=state)
    assert (result.returncode, result.stdout) == (0, "")
    assert (state / "rtwatch" / "rtwatch.db").exists()


def test_quiet_says_nothing_and_verbose_every_file(bed: Bed) -> None:
    bed.add(single("one"))
    quiet = bed.once("-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    program = bed.start("-v", *SHORT)
    bed.download(multi("pack"))
    bed.erase(multi("pack"))
    program.wait_line(r"a\.bin")
    program.wait_line(r"b\.bin")


def test_a_link_to_a_torrent_is_one(bed: Bed) -> None:
    bed.add(single("one"))
    moved = bed.downloads / "moved.torrent"
    bed.session.file(single("one")).rename(moved)
    bed.session.file(single("one")).symlink_to(moved)
    program = bed.start()
    program.wait_files(single("one").hash, single("one").paths(bed.downloads))


ASKED = {"help": ["--help"], "version": ["--version"], "orphans": ["--orphans", "{session}", "{downloads}"]}


@pytest.mark.parametrize("words", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("output", ["full", "closed", "closed pipe"])
def test_what_standard_output_does_not_take_is_said_in_one_line(
    output: str, words: list[str], bed: Bed, state: Path
) -> None:
    bed.session.download(single("one"), bed.downloads)
    for number in range(300):
        (bed.downloads / f"{number:0250}").touch()
    options = [word.format(session=bed.session.path, downloads=bed.downloads) for word in words]
    argv = [sys.executable, "-c", NEXT_WEEK, *options]
    redirection = {"full": ">/dev/full", "closed": ">&-", "closed pipe": "| :"}[output]
    script = f"set -o pipefail; sleep 0.2; {shlex.join(argv)} {redirection}"
    env = {**environment(state), "PYTHONUNBUFFERED": ""}
    result = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if " orphans  " not in line]
    assert line.startswith("rtwatch: standard output: ")


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-", "0<&- >&- 2>&-"])
def test_a_standard_error_that_takes_nothing_changes_nothing(closed: str, bed: Bed) -> None:
    """Above all, the database does not get the number of standard error, and what is said."""
    bed.session.download(single("one"), bed.downloads)
    script = f"{shlex.join(command('--once', '-v', bed.session.path))} {closed}"
    result = subprocess.run(["bash", "-c", script], env=environment(bed.state), capture_output=True, check=False)
    assert result.returncode == 0
    with closing(sqlite3.connect(bed.db)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert con.execute("SELECT name FROM torrent_data").fetchall() == [("one.bin",)]
