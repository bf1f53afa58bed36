"""The command line: how rtwatch is refused, and what it says."""

from __future__ import annotations

import re
import sqlite3
import sys
from pathlib import Path

import pytest
from faults import the_line
from program import run
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
