"""The command line: how rtwatch is refused, what it says then, and torrents that it cannot read."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import bencodepy
import pytest
from program import Launcher, run
from session import Session
from torrents import make, multi, single

HASH = "AB" * 20



def the_line(text: str) -> str:
    """Return the only line of `text`."""
    (line,) = text.splitlines()
    return line


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the directory of the state, which does not exist yet."""
    return tmp_path / "state"


# usage


@pytest.mark.parametrize("options", [["--no-such-option"], ["--grace", "soon"], ["--grace"], ["--grace", "-1"]])
def test_wrong_options_are_refused(options: list[str], tmp_path: Path, state: Path) -> None:
    result = run(tmp_path, *options, state=state)
    assert result.returncode == 2
    assert options[0] in the_line(result.stderr)
    assert not state.exists()


def test_the_help_names_every_option(state: Path) -> None:
    result = run("--help", state=state)
    assert result.returncode == 0
    assert result.stderr == ""
    options = (
        "remove",
        "no-action",
        "hooks",
        "db",
        "grace",
        "trash",
        "catch-up",
        "force",
        "once",
        "orphans",
        "version",
    )
    assert all(f"--{option}" in result.stdout for option in options)


def test_the_version_is_that_of_everything(state: Path) -> None:
    result = run("--version", state=state)
    assert result.returncode == 0
    python = ".".join(map(str, sys.version_info[:3]))
    for pattern in (r"rtwatch \d", rf"(?i)python {python}", rf"(?i)sqlite {sqlite3.sqlite_version}"):
        assert re.search(pattern, result.stdout)
    for library in (r"inotify.simple", r"bencode\.?py"):
        assert re.search(rf"{library} \d", result.stdout)
    assert not state.exists()


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_session_directory_that_is_none_is_refused(kind: str, tmp_path: Path, state: Path) -> None:
    session = tmp_path / "session"
    if kind == "file":
        session.write_bytes(b"")
    result = run(session, state=state)
    assert result.returncode == 2
    assert str(session) in the_line(result.stderr)
    assert not state.exists()


def test_the_default_session_directory_is_in_the_home(tmp_path: Path, state: Path) -> None:
    result = run("--once", state=state, env={"HOME": str(tmp_path)})
    assert result.returncode == 2
    assert str(tmp_path / ".session") in the_line(result.stderr)
    (tmp_path / ".session").mkdir()
    assert run("--once", state=state, env={"HOME": str(tmp_path)}).returncode == 0


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_path_that_is_no_directory_is_refused(
    kind: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    path = downloads / "path"
    if kind == "file":
        path.write_bytes(b"")
    result = launcher.run("-r", paths=[downloads, path])
    assert result.returncode == 2
    assert str(path) in the_line(result.stderr)
    assert not launcher.db.exists()


def test_options_may_stand_anywhere(session: Session, downloads: Path, state: Path) -> None:
    session.add(single("one"), downloads)
    result = run("-r", session.path, "--once", downloads, "--grace", "0.1", state=state)
    assert (result.returncode, result.stdout) == (0, "")
    assert (state / "rtwatch" / "rtwatch.db").exists()


def test_the_state_has_a_default_place(session: Session, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": "", "HOME": str(tmp_path / "home")}
    assert run("--once", session.path, state=tmp_path, env=env).returncode == 0
    assert (tmp_path / "home" / ".local" / "state" / "rtwatch" / "rtwatch.db").exists()


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_hooks_file_that_is_none_is_refused(kind: str, session: Session, launcher: Launcher, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    if kind == "directory":
        hooks.mkdir()
    result = launcher.run("--hooks", hooks)
    assert result.returncode == 2
    assert str(hooks) in the_line(result.stderr)


# the database


def in_a_file(place: Path) -> Path:
    """Return a path below a file."""
    place.write_bytes(b"")
    return place / "rtwatch.db"


def a_directory(place: Path) -> Path:
    """Make a directory where the database should be."""
    place.mkdir()
    return place


def garbage(place: Path) -> Path:
    """Make a file that is no database."""
    place.write_bytes(b"this is no database " * 1000)
    return place


def truncated(place: Path) -> Path:
    """Make a database that was cut off."""
    con = sqlite3.connect(place)
    con.execute("PRAGMA journal_mode = DELETE")
    con.executescript("CREATE TABLE a (b); INSERT INTO a VALUES (zeroblob(100000));")
    con.close()
    os.truncate(place, 5000)
    return place


def another_schema(place: Path) -> Path:
    """Make a database of a later rtwatch."""
    con = sqlite3.connect(place)
    con.executescript("CREATE TABLE torrent_data (hash, more); PRAGMA user_version = 1234567")
    con.close()
    return place


@pytest.mark.parametrize("make_db", [in_a_file, a_directory, garbage, truncated, another_schema])
@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_an_unusable_database_is_refused(
    make_db: Callable[[Path], Path], options: tuple[str, ...], session: Session, launcher: Launcher, tmp_path: Path
) -> None:
    if options and make_db is in_a_file:
        pytest.skip("a dry run needs no place for a database")
    db = make_db(tmp_path / "database")
    before = db.read_bytes() if db.is_file() else b""
    result = launcher.once(*options, "--db", db)
    assert result.returncode == 1
    assert str(db) in the_line(result.stderr)
    assert before == (db.read_bytes() if db.is_file() else b"")
    assert sorted(tmp_path.glob("database?*")) == []


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_the_database_of_another_session_is_refused(
    options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    session.download(multi("pack"), downloads)
    assert launcher.once().returncode == 0
    before = launcher.db.read_bytes()
    other = tmp_path / "other session"
    other.mkdir()
    result = run("--once", "-r", *options, other, state=launcher.state)
    assert result.returncode == 1
    line = the_line(result.stderr)
    assert str(launcher.db) in line
    option = re.search(r"--db[ =](.+?)(?=$|[`)]|\s-)", line)
    assert option
    assert launcher.db.read_bytes() == before
    db = shlex.split(option[1])[0]
    assert run("--once", "--db", db, other, state=launcher.state).returncode == 0


def test_a_moved_session_is_another_one_and_its_link_is_not(
    session: Session, launcher: Launcher, tmp_path: Path
) -> None:
    assert launcher.once().returncode == 0
    (tmp_path / "link").symlink_to(session.path)
    assert run("--once", tmp_path / "link", state=launcher.state).returncode == 0


# what is said


def test_quiet_says_nothing_and_verbose_more(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(multi("pack"), downloads)
    quiet = launcher.once("-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    program = launcher.start("-r", "-v", "--grace", "0.1")
    session.download(multi("other"), downloads)
    program.wait_known(multi("other").hash)
    session.erase(multi("other"))
    program.wait_line(r"a\.bin")
    program.wait_line(r"b\.bin")


def test_a_name_can_neither_forge_a_line_nor_move_the_cursor(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    name = "evil\n12:00 removed everything\x1b[2J\x9b2J\r\u202e\u2028end".encode()
    torrent = make(name, {(b"a\x1b[1m\nb",): b"x" * 100})
    program = launcher.start("-r", "-v", "--grace", "0.2")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    session.erase(torrent)
    program.wait_gone(torrent.hash)
    assert not paths[0].exists()
    program.stop()
    assert "evil" in program.output
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]", program.output)
    assert not any(line.startswith("12:00 removed") for line in program.lines)


def test_the_journal_gets_priorities_and_no_times(session: Session, launcher: Launcher, downloads: Path) -> None:
    broken = session.path / f"{HASH}.torrent"
    broken.write_bytes(b"garbage")
    status = os.fstat(2)
    program = launcher.start(env={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    session.add(multi("pack"), downloads)
    program.wait_known(multi("pack").hash)
    program.stop()
    assert program.lines
    assert all(re.match(r"<[3-7]>(?!\d\d:\d\d)", line) for line in program.lines)


# torrents that cannot be read


GOOD = single("good").metainfo
UNREADABLE = {
    "garbage": b"\0garbage",
    "empty": b"",
    "truncated": GOOD[:-30],
    "trailing": GOOD + b"garbage",
    "no dictionary": b"i7e",
    "no info": b"d8:announce3:url4:abcdi1ee",
    "info is a list": b"d4:infolee",
    "no name": bencodepy.encode({"info": {"length": 1, "piece length": 1, "pieces": b"x" * 20}}),
    "name is a number": bencodepy.encode({"info": {"length": 1, "name": 7, "pieces": b"x" * 20}}),
    "length is a text": bencodepy.encode({"info": {"length": b"1", "name": b"x", "pieces": b"x" * 20}}),
    "length is negative": bencodepy.encode({"info": {"length": -1, "name": b"x", "pieces": b"x" * 20}}),
    "files is a number": bencodepy.encode({"info": {"files": 7, "name": b"x"}}),
    "file is a number": bencodepy.encode({"info": {"files": [7], "name": b"x"}}),
    "path is a text": bencodepy.encode({"info": {"files": [{"length": 1, "path": b"abc"}], "name": b"x"}}),
    "path of numbers": bencodepy.encode({"info": {"files": [{"length": 1, "path": [1]}], "name": b"x"}}),
    "no path": bencodepy.encode({"info": {"files": [{"length": 1}], "name": b"x"}}),
    "empty path": bencodepy.encode({"info": {"files": [{"length": 1, "path": []}], "name": b"x"}}),
    "name is ..": make(b"..", b"x").metainfo,
    "name is .": make(b".", {(b"a",): b"x"}).metainfo,
    "name with slash": make(b"../x", b"x").metainfo,
    "name with null": make(b"x\0y", b"x").metainfo,
    "path with ..": make(b"x", {(b"..", b"a"): b"x"}).metainfo,
    "path with .": make(b"x", {(b"a", b"."): b"x"}).metainfo,
    "path with slash": make(b"x", {(b"a/../../b",): b"x"}).metainfo,
    "path with null": make(b"x", {(b"a\0",): b"x"}).metainfo,
    "deep list": GOOD[:-1] + b"1:x" + b"l" * 5000 + b"e" * 5000 + b"e",
    "deep dictionary": GOOD[:-1] + b"1:x" + b"d1:a" * 5000 + b"i1e" + b"e" * 5000 + b"e",
    "negative string length": b"d1:ai1e-6:e",
    "huge string length": b"d1:a99999999999999999999:e",
    "huge integer": b"d1:ai" + b"9" * 5000 + b"e" + GOOD[1:],
}
UNREADABLES = pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)


@UNREADABLES
def test_an_unreadable_torrent_disturbs_nothing(
    content: bytes, session: Session, launcher: Launcher, downloads: Path
) -> None:
    broken = session.path / f"{HASH}.torrent"
    session.add(single("before"), downloads)
    broken.write_bytes(content)
    session.file(HASH, "R").write_bytes(session.file(single("before"), "R").read_bytes())
    program = launcher.start()
    program.wait_line(broken.name)
    session.add(single("after"), downloads)
    program.wait_known(single("after").hash)
    hashes = {hash for (hash,) in program.select("SELECT hash FROM torrent_data")}
    assert hashes == {single("before").hash, single("after").hash}
    assert len([line for line in program.lines if HASH in line]) == 1
    assert "Traceback" not in program.output
    assert program.stop() == 0


def test_unreadable_torrents_that_come_disturb_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start()
    for number, content in enumerate(UNREADABLE.values()):
        hash = f"{number:040X}"
        session.file("new", "R").write_bytes(b"d9:directory1:/e")
        session.file("new", "R").rename(session.file(hash, "R"))
        session.file("new").write_bytes(content)
        session.file("new").rename(session.file(hash))
    session.add(single("after"), downloads)
    program.wait_known(single("after").hash)
    assert program.select("SELECT hash FROM torrent_data") == [(single("after").hash,)]
    for number in range(len(UNREADABLE)):
        assert len([line for line in program.lines if f"{number:040X}" in line]) == 1
    assert program.stop() == 0


@pytest.mark.parametrize("kind", ["directory", "dangling link", "fifo"])
def test_what_is_no_file_is_no_torrent(kind: str, session: Session, launcher: Launcher, downloads: Path) -> None:
    broken = session.path / f"{HASH}.torrent"
    if kind == "directory":
        broken.mkdir()
    elif kind == "fifo":
        os.mkfifo(broken)
    else:
        broken.symlink_to("nothing")
    program = launcher.start()
    session.add(single("after"), downloads)
    program.wait_known(single("after").hash)
    assert program.select("SELECT hash FROM torrent_data") == [(single("after").hash,)]
    assert program.stop() == 0


def test_a_link_to_a_torrent_is_one(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = single("one")
    session.add(torrent, downloads)
    moved = downloads / "moved.torrent"
    session.file(torrent).rename(moved)
    session.file(torrent).symlink_to(moved)
    program = launcher.start()
    program.wait_files(torrent.hash, torrent.paths(downloads))
