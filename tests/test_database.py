"""The database: unusable, of another session, locked, on a full disk, damaged, private."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from faults import fill, mounted, small_disk, the_line, unprivileged
from program import PROJECT, Launcher, run
from session import Session
from steps import AT_ONCE, SHORT, Hooks, download, leave_vanished, remaining, removed, wait_called
from torrents import multi, single

PACK = multi("pack")

# refused, and left as it is


def run_sql(db: Path, *statements: str) -> None:
    """Run statements on a database, without foreign keys."""
    with closing(sqlite3.connect(db)) as con, con:
        for statement in statements:
            con.execute(statement)


def find_tables(db: Path) -> list[str]:
    """Return the names of all tables of a database."""
    with closing(sqlite3.connect(db)) as con:
        return [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def make_it_a_directory(db: Path) -> None:
    """Put a directory where a database was."""
    db.unlink()
    db.mkdir()


def put_it_in_a_file(db: Path) -> None:
    """Put a file where the directory of a database was."""
    shutil.rmtree(db.parent)
    db.parent.touch()


SPOILS: dict[str, Callable[[Path], object]] = {
    **{"a directory": make_it_a_directory, "in a file": put_it_in_a_file},
    "garbage": lambda db: db.write_bytes(b"this is no database " * 1000),
    "truncated": lambda db: os.truncate(db, 5000),
    "damaged pages": lambda db: db.write_bytes(db.read_bytes()[:4096] + b"\xff" * (db.stat().st_size - 4096)),
    "of a later rtwatch": lambda db: run_sql(db, "PRAGMA user_version = 1234567"),
    "without tables": lambda db: run_sql(db, *(f"DROP TABLE {table}" for table in find_tables(db))),
    "of no session": lambda db: run_sql(db, *(f"DELETE FROM {table}" for table in find_tables(db))),
}


@pytest.mark.parametrize("kind", SPOILS)
@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_an_unusable_database_is_refused_untouched_and_can_be_moved_away(
    options: tuple[str, ...], kind: str, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    session.download(PACK, downloads)
    place = tmp_path / "place"
    db = place / "my.db"
    assert launcher.once("--db", db).returncode == 0
    SPOILS[kind](db)
    before = {path: path.read_bytes() for path in tmp_path.rglob("place/*.db") if path.is_file()}
    if not (options and kind == "in a file"):  # a dry run needs no place for a database
        result = launcher.once("-q", *AT_ONCE, *options, "--db", db)
        assert result.returncode == 1
        assert str(db) in the_line(result.stderr)
    assert {path: path.read_bytes() for path in tmp_path.rglob("place/*.db*") if path.is_file()} == before
    place.rename(tmp_path / "bad")
    assert launcher.once(*options, "--db", db).returncode == 0


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_the_database_of_another_session_is_refused_with_the_option_that_helps(
    options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    session.download(PACK, downloads)
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
    assert run("--once", "--db", shlex.split(option[1])[0], other, state=launcher.state).returncode == 0
    link = tmp_path / "link"
    link.symlink_to(session.path)
    assert run("--once", link, state=launcher.state).returncode == 0


def test_a_database_may_have_any_name(session: Session, launcher: Launcher, downloads: Path, tmp_path: Path) -> None:
    session.add(single("one"), downloads)
    db = tmp_path / os.fsdecode(b"a\xff b?c#d%e&f=\n.db")
    for options in (), (), ("-n",), ("-r",):
        result = launcher.once("--db", db, *options)
        assert result.returncode == 0, result.stderr
    assert db.exists()


@pytest.mark.parametrize("options", [(), ("--db", "new/my.db")], ids=["", "--db"])
def test_the_database_is_private(
    options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        program = launcher.start(*options, cwd=tmp_path)
    finally:
        os.umask(before)
    download(program, session, downloads, PACK)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in program.db.parent.iterdir()}
    assert {program.db.name, f"{program.db.name}-wal", f"{program.db.name}-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(program.db.parent.stat().st_mode) == 0o700


def test_a_database_that_may_not_be_written_ends_rtwatch(session: Session, launcher: Launcher) -> None:
    assert launcher.once().returncode == 0
    launcher.db.chmod(0o400)
    with unprivileged():
        result = launcher.once()
    assert result.returncode == 1
    assert str(launcher.db) in the_line(result.stderr)
    with mounted(launcher.state, "--bind", "-o", "ro", str(launcher.state)):
        result = launcher.once()
        assert result.returncode == 1
        assert str(launcher.state) in the_line(result.stderr)
        assert launcher.once("-n").returncode == 0


@pytest.mark.parametrize("present", [False, True], ids=["new", "present"])
def test_a_full_disk_ends_the_start(present: bool, session: Session, launcher: Launcher, downloads: Path) -> None:
    launcher.state.mkdir()
    with small_disk(launcher.state):
        session.download(multi("one"), downloads)
        if present:
            assert launcher.once().returncode == 0
            session.download(multi("two"), downloads)
        filler = fill(launcher.state)
        result = launcher.once("-q", "-r")
        assert result.returncode == 1
        assert str(launcher.state) in the_line(result.stderr)
        filler.unlink()
        result = launcher.once("-q", "-r")
        assert (result.returncode, result.stderr) == (0, "")


# locked, full or damaged while rtwatch runs


@contextmanager
def locked(db: Path) -> Iterator[None]:
    """Hold the write lock of a database, as a user's script that does not end its transaction."""
    with closing(sqlite3.connect(db, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        yield
        con.execute("ROLLBACK")


@contextmanager
def full(db: Path) -> Iterator[None]:
    """Fill the disk of a database."""
    filler = fill(db.parent)
    yield
    filler.unlink()


@pytest.mark.parametrize("obstacle", [locked, full])
def test_events_that_the_database_cannot_take_are_worked_later(
    obstacle: Callable[[Path], AbstractContextManager[None]], session: Session, launcher: Launcher, downloads: Path
) -> None:
    goes, moves, comes, also = multi("goes"), multi("moves"), multi("comes"), single("also")
    launcher.state.mkdir()
    with ExitStack() as disk:
        if obstacle is full:
            disk.enter_context(small_disk(launcher.state))
        program = launcher.start(*SHORT, *launcher.hooks)
        paths = download(program, session, downloads, goes, also)
        download(program, session, downloads, moves)
        with obstacle(launcher.db):
            session.erase(goes)
            session.download(comes, downloads)
            moves.write(downloads / "elsewhere")
            session.set_directory(moves, downloads / "elsewhere")
            session.save(moves)
            session.erase(also)
            program.wait_line(rf"failed.*{obstacle.__name__}")
        program.wait_files(comes.hash, comes.paths(downloads / "comes"))
        program.wait_files(moves.hash, moves.paths(downloads / "elsewhere" / "moves"))
        for torrent in goes, also:
            program.wait_gone(torrent.hash)
            wait_called(program, launcher, "post_remove", torrent)
            assert launcher.hooks_called(torrent.hash)[2:] == ["pre_remove", "post_remove"]
        assert remaining(paths) == []
        assert sorted([*removed(launcher, goes), *removed(launcher, also)]) == sorted(paths)
        assert program.stop() == 0
        assert "Traceback" not in program.output
        for line in "added +comes", "moved +moves", "removed +goes":
            assert len(re.findall(line, program.output)) == 1
        assert program.select("PRAGMA integrity_check") == [("ok",)]


def test_a_locked_database_at_the_start_loses_no_removal(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = leave_vanished(launcher, session, downloads, PACK)
    with locked(launcher.db):
        program = launcher.start("--once", *AT_ONCE, *launcher.hooks, ready=False)
        program.wait_line("locked")
    if program.wait() == 1:  # it may also end, in order, and do it at the next start
        assert remaining(paths) == paths
        assert launcher.once(*AT_ONCE, *launcher.hooks).returncode == 0
    program.wait_gone(PACK.hash)
    assert remaining(paths) == []
    assert removed(launcher, PACK) == paths
    assert "Traceback" not in program.output


def test_post_remove_is_called_although_the_disk_of_the_database_fills_up_during_the_removal(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
import faults

def pre_remove(con, file, args):
    if not calls:
        calls.append(faults.fill(args.db.parent))
        note("filled")

def post_remove(con, file, args, RmTuple):
    note("post_remove", hash=RmTuple.hash, removed={"rmfiles": [str(path) for path in RmTuple.rmfiles]})

calls = []
"""
    )
    launcher.state.mkdir()
    with small_disk(launcher.state):
        program = launcher.start(*SHORT, *option, env={"PYTHONPATH": f"{Path(__file__).parent}:{PROJECT}"})
        paths = download(program, session, downloads, PACK)
        run_sql(launcher.db, "PRAGMA wal_checkpoint(TRUNCATE)")
        session.erase(PACK)
        wait_called(program, launcher, "filled")
        program.wait_line("full")
        (launcher.db.parent / "filler").unlink()
        wait_called(program, launcher, "post_remove")
        assert removed(launcher, PACK) == paths
        assert remaining(paths) == []
        assert program.stop() == 0
        assert "Traceback" not in program.output


def test_a_database_that_is_damaged_meanwhile_ends_rtwatch_and_costs_no_file(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, PACK)
    with closing(sqlite3.connect(launcher.db)) as con:
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        con.execute("PRAGMA writable_schema = ON")
        con.execute("UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'torrent_data'")
        con.execute("PRAGMA schema_version = 4711")
        con.commit()
    session.erase(PACK)
    assert program.wait() == 1
    assert str(launcher.db) in program.lines[-1]
    assert "Traceback" not in program.output
    assert remaining(paths) == paths


def test_the_end_of_the_session_directory_is_said_while_the_database_is_locked(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*SHORT, *launcher.hooks)
    paths = download(program, session, downloads, PACK)
    with locked(launcher.db):
        session.path.rename(session.path.with_name("moved"))
        assert program.wait() == 1
    assert "Traceback" not in program.output
    assert str(session.path) in program.lines[-1]
    assert launcher.hooks_called()[-1] == "post_loop"
    assert remaining(paths) == paths
