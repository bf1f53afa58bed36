"""What fails around rtwatch: disks, permissions, limits, the database, session files and the user's hooks."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Callable

import pytest
from faults import NEEDS_ROOT, NEEDS_STRACE, below, fill, mounted, strace, the_line, unprivileged
from program import Launcher, Program, run
from session import Session
from steps import Hooks, overflow
from test_hooks import wait_called
from torrents import Torrent, make, multi, single, twin_of

import rtwatch

SHORT = ("-r", "--grace", "0.2")
LONG = ("-r", "--grace", "600")
AT_ONCE = ("-r", "--grace", "0")
HASH = "A" * 40
PACK = make(b"pack", {(b"a.bin",): b"a" * 100, (b"sub", b"b.bin"): b"b" * 100, (b"sub", b"c.bin"): b"c" * 100})


def download(session: Session, launcher: Launcher, downloads: Path, *torrents: Torrent) -> list[Path]:
    """Download torrents, let rtwatch see them being erased among others, and end it; return all their paths."""
    paths = [path for torrent in torrents for path in session.download(torrent, downloads)]
    for number in range(len(torrents) + 1):
        session.add(single(f"other{number}"), downloads)
    program = launcher.start(*LONG)
    for torrent in torrents:
        session.erase(torrent)
    vanished = "SELECT 1 FROM rtwatch_torrent WHERE seen = 1"
    program.wait_rows(vanished, lambda rows: len(rows) == len(torrents))
    assert program.stop() == 0
    return paths


def settle(program: Program, session: Session, downloads: Path, name: str) -> None:
    """Wait until rtwatch has worked what happened so far: a torrent of this name is known."""
    session.add(single(name), downloads)
    program.wait_known(single(name).hash)


def removed(launcher: Launcher, torrent: Torrent) -> list[str]:
    """Return the files that post_remove was told to be removed, in the one call that there was."""
    (call,) = [call for call in launcher.calls(torrent.hash) if call["hook"] == "post_remove"]
    return sorted(call["removed"]["rmfiles"])


# files that cannot be removed


def check_kept(session: Session, launcher: Launcher, kept: Path, reason: str, others: list[Path]) -> None:
    """Check that one file of PACK is kept with a reason, the others are gone, and the torrent is finished."""
    result = launcher.once(*AT_ONCE, *launcher.hooks)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "kept" in line]
    assert len([line for line in lines if kept.name in line and reason in line]) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert os.path.lexists(kept)
    assert not any(os.path.lexists(path) for path in others)
    assert removed(launcher, PACK) == sorted(map(str, others))


def test_a_file_in_a_directory_without_permission_is_kept(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    first, *others = download(session, launcher, downloads, PACK)
    first.parent.chmod(0o555)
    (first.parent / "sub").chmod(0o755)
    with unprivileged():
        check_kept(session, launcher, first, "Permission denied", others)
    assert (first.parent / "sub").is_dir()


def test_files_in_a_directory_that_may_not_be_searched_are_kept(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    first, *others = download(session, launcher, downloads, PACK)
    others[0].parent.chmod(0)
    with unprivileged():
        result = launcher.once("-v", *AT_ONCE, *launcher.hooks)
    others[0].parent.chmod(0o755)
    assert result.returncode == 0
    assert all(path.exists() for path in others)
    assert "Permission denied" in result.stderr
    assert removed(launcher, PACK) == [str(first)]


@NEEDS_ROOT
def test_a_mounted_file_is_kept(session: Session, launcher: Launcher, downloads: Path) -> None:
    first, *others = download(session, launcher, downloads, PACK)
    with mounted(first, "--bind", str(first)):
        check_kept(session, launcher, first, "busy", others)


@NEEDS_ROOT
def test_a_mount_point_that_is_empty_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    place = downloads / "pack" / "sub"
    place.mkdir(parents=True)
    with mounted(place, "-t", "tmpfs", "rtwatch-test"):
        paths = download(session, launcher, downloads, PACK)
        result = launcher.once(*AT_ONCE)
        assert not any(path.exists() for path in paths)
        assert os.path.ismount(place)
    assert result.returncode == 0
    assert place.is_dir()


@NEEDS_ROOT
def test_files_on_a_disk_that_may_only_be_read_are_kept(session: Session, launcher: Launcher, downloads: Path) -> None:
    with mounted(downloads, "-t", "tmpfs", "rtwatch-test"):
        paths = download(session, launcher, downloads, PACK, single("one"))
        with mounted(downloads, "--bind", "-o", "ro", str(downloads)):
            result = launcher.once(*AT_ONCE, *launcher.hooks)
        assert result.returncode == 0
        assert all(path.exists() for path in paths)
        assert "Read-only file system" in result.stderr
        assert "Traceback" not in result.stderr
        assert removed(launcher, PACK) == removed(launcher, single("one")) == []


@NEEDS_STRACE
@pytest.mark.parametrize(("error", "reason"), [("EIO", "Input/output error"), ("EPERM", "Operation not permitted")])
def test_a_file_that_cannot_be_unlinked_is_kept(
    error: str, reason: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    first, *others = download(session, launcher, downloads, PACK)
    with strace(f"unlinkat:error={error}:when=1"):
        check_kept(session, launcher, first, reason, others)


@NEEDS_STRACE
def test_a_file_that_vanishes_while_it_is_removed_is_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    _, *others = download(session, launcher, downloads, PACK)
    with strace("unlinkat:error=ENOENT:when=1"):
        result = launcher.once(*AT_ONCE, *launcher.hooks)
    assert result.returncode == 0
    assert removed(launcher, PACK) == sorted(map(str, others))
    assert "Traceback" not in result.stderr
    assert "No such file" not in result.stderr


@NEEDS_STRACE
def test_a_directory_that_gets_a_file_while_it_is_pruned_stays(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = download(session, launcher, downloads, PACK)
    with strace("unlinkat:error=ENOTEMPTY:when=4"):
        result = launcher.once(*AT_ONCE, *launcher.hooks)
    assert result.returncode == 0
    assert (downloads / "pack" / "sub").is_dir()
    assert removed(launcher, PACK) == sorted(map(str, paths))
    assert len([line for line in result.stderr.splitlines() if "not empty" in line]) == 1
    assert "Traceback" not in result.stderr


def swap_for_link(place: Path) -> Path:
    """Move a directory away and put a symlink to it in its place; return where it is."""
    moved = place.with_name("moved")
    place.rename(moved)
    place.symlink_to(moved)
    return moved


def swap_for_other(place: Path) -> Path:
    """Move a directory away and put another with files of the same names in its place; return where those are."""
    place.rename(place.with_name("moved"))
    PACK.write(place.parent)
    return place


def take_away(place: Path) -> Path:
    """Move a directory away; return where it is."""
    moved = place.with_name("moved")
    place.rename(moved)
    return moved


@NEEDS_STRACE
@pytest.mark.parametrize("swap", [swap_for_link, swap_for_other, take_away])
@pytest.mark.parametrize("call", ["%%stat", "openat"])
def test_a_directory_that_is_swapped_after_the_decision_loses_nothing(
    call: str, swap: Callable[[Path], Path], session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = download(session, launcher, downloads, PACK)
    place = paths[0].parent
    looked_at = paths[0] if call == "%%stat" else place
    trace = launcher.state / "trace"
    stop = f"--inject={call}:signal=STOP:when=1"
    with below("strace", "-D", "-qq", "-o", str(trace), "-P", str(looked_at), stop):
        program = launcher.start("--once", *AT_ONCE, ready=False)
    program.wait_for(lambda: trace.exists() and "stopped by SIGSTOP" in trace.read_text(), "rtwatch does not stop")
    kept = swap(place)
    program.send_signal(signal.SIGCONT)
    assert program.wait() == 0
    assert (kept / "a.bin").read_bytes() == b"a" * 100
    assert "Traceback" not in program.output


@pytest.mark.parametrize("swap", [swap_for_link, swap_for_other, take_away])
def test_a_file_is_only_unlinked_where_it_was_looked_at(swap: Callable[[Path], Path], downloads: Path) -> None:
    paths = PACK.write(downloads)
    info = os.lstat(paths[0])
    file = rtwatch.ListedFile(paths[0], info, None, str(paths[0].parent), 100, False, (), None, ())
    kept = swap(paths[0].parent)
    with pytest.raises(OSError, match=r"replaced meanwhile|changed meanwhile|No such file"):
        rtwatch.remove_file(file, None)
    assert (kept / "a.bin").read_bytes() == b"a" * 100


# the trash


@NEEDS_ROOT
def test_a_trash_without_space_keeps_the_files(session: Session, launcher: Launcher, downloads: Path) -> None:
    with mounted(downloads, "-t", "tmpfs", "-o", "size=1m", "rtwatch-test"):
        paths = download(session, launcher, downloads, PACK)
        trash = downloads / "trash"
        trash.mkdir()
        fill(downloads)
        result = launcher.once(*AT_ONCE, "--trash", str(trash), *launcher.hooks)
        assert result.returncode == 0
        assert "Traceback" not in result.stderr
        assert "No space left" in result.stderr
        assert all(path.exists() for path in paths)
        assert removed(launcher, PACK) == []
        assert len(list(trash.iterdir())) <= 1


def test_a_trash_without_permission_keeps_the_files(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = download(session, launcher, downloads, PACK)
    trash = downloads / "trash"
    trash.mkdir(0o555)
    with unprivileged():
        result = launcher.once(*AT_ONCE, "--trash", str(trash), *launcher.hooks)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert "Permission denied" in result.stderr
    assert all(path.exists() for path in paths)


def test_a_trash_that_goes_keeps_the_files(session: Session, launcher: Launcher, downloads: Path) -> None:
    trash = downloads / "trash"
    trash.mkdir()
    paths = session.download(PACK, downloads)
    program = launcher.start(*SHORT, "--trash", trash)
    settle(program, session, downloads, "before")
    trash.rmdir()
    session.erase(PACK)
    program.wait_line(r"(kept|failed).*trash")
    settle(program, session, downloads, "after")
    assert program.stop() == 0
    assert "Traceback" not in program.output
    assert all(path.exists() for path in paths)


# the database


@contextmanager
def locked(db: Path) -> Iterator[None]:
    """Hold the write lock of a database, as a user's script that does not end its transaction."""
    with closing(sqlite3.connect(db, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        yield
        con.execute("ROLLBACK")


def test_what_happens_while_the_database_is_locked_is_not_lost(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    goes, comes, moves, also = multi("goes"), multi("comes"), multi("moves"), single("also")
    paths = [path for torrent in (goes, moves, also) for path in session.download(torrent, downloads)]
    program = launcher.start(*SHORT, *launcher.hooks)
    settle(program, session, downloads, "before")
    with locked(launcher.db):
        session.erase(goes)
        session.download(comes, downloads)
        moves.write(downloads / "elsewhere")
        session.set_directory(moves, downloads / "elsewhere")
        session.save(moves)
        session.erase(also)
        program.wait_line(r"failed.*locked")
    program.wait_files(comes.hash, comes.paths(downloads / "comes"))
    program.wait_files(moves.hash, moves.paths(downloads / "elsewhere" / "moves"))
    for torrent in goes, also:
        program.wait_gone(torrent.hash)
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(also.hash), "post_remove is not called")
    assert not (downloads / "goes").exists()
    assert not paths[-1].exists()
    assert launcher.hooks_called(goes.hash) == ["pre_remove", "post_remove"]
    assert removed(launcher, goes) == sorted(map(str, goes.paths(downloads / "goes")))
    assert program.stop() == 0
    assert "Traceback" not in program.output


def test_a_removal_while_the_database_is_locked_is_finished_and_told(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = download(session, launcher, downloads, PACK)
    with locked(launcher.db):
        program = launcher.start("--once", *AT_ONCE, *launcher.hooks, ready=False)
        program.wait_line("locked")
    if program.wait() == 1:  # it may also end, in order, and do it at the next start
        assert all(path.exists() for path in paths)
        assert launcher.once(*AT_ONCE, *launcher.hooks).returncode == 0
    assert launcher.db.exists()
    assert program.select(f"SELECT 1 FROM torrent_data WHERE hash = '{PACK.hash}'") == []
    assert not (downloads / "pack").exists()
    assert removed(launcher, PACK) == sorted(map(str, paths))
    assert "Traceback" not in program.output


@NEEDS_ROOT
def test_what_happens_while_the_disk_of_the_database_is_full_is_not_lost(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    launcher.state.mkdir()
    with mounted(launcher.state, "-t", "tmpfs", "-o", "size=1m", "rtwatch-test"):
        paths = session.download(PACK, downloads)
        program = launcher.start(*SHORT, *launcher.hooks)
        settle(program, session, downloads, "before")
        filler = fill(launcher.state)
        session.download(multi("comes"), downloads)
        session.erase(PACK)
        program.wait_line(r"failed.*full")
        filler.unlink()
        program.wait_known(multi("comes").hash)
        program.wait_gone(PACK.hash)
        program.wait_for(lambda: "post_remove" in launcher.hooks_called(PACK.hash), "post_remove is not called")
        assert not (downloads / "pack").exists()
        assert removed(launcher, PACK) == sorted(map(str, paths))
        assert program.stop() == 0
        assert "Traceback" not in program.output
        assert program.select("PRAGMA integrity_check") == [("ok",)]


@NEEDS_ROOT
def test_a_removal_is_told_when_the_disk_of_the_database_fills_up_meanwhile(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    launcher.state.mkdir()
    option = hooks.write(
        """
def pre_remove(con, file, args):
    if not calls:
        calls.append(file)
        with open(args.db.parent / "filler", "wb", 0) as out:
            for size in 65536, 4096, 1:
                try:
                    while True:
                        out.write(bytes(size))
                except OSError:
                    pass
        note("filled")

def post_remove(con, file, args, RmTuple):
    note("post_remove", hash=RmTuple.hash, removed={"rmfiles": [str(path) for path in RmTuple.rmfiles]})

calls = []
"""
    )
    with mounted(launcher.state, "-t", "tmpfs", "-o", "size=1m", "rtwatch-test"):
        paths = session.download(PACK, downloads)
        program = launcher.start(*SHORT, *option)
        settle(program, session, downloads, "before")
        with closing(sqlite3.connect(launcher.db)) as con:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        session.erase(PACK)
        wait_called(program, launcher, "filled")
        program.wait_line("full")
        (launcher.db.parent / "filler").unlink()
        wait_called(program, launcher, "post_remove")
        assert removed(launcher, PACK) == sorted(map(str, paths))
        assert not (downloads / "pack").exists()
        assert program.stop() == 0
        assert "Traceback" not in program.output


@NEEDS_ROOT
@pytest.mark.parametrize("present", [False, True], ids=["new", "present"])
def test_a_full_disk_at_the_start_ends_rtwatch(
    present: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    launcher.state.mkdir()
    with mounted(launcher.state, "-t", "tmpfs", "-o", "size=1m", "rtwatch-test"):
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


@NEEDS_ROOT
def test_a_database_on_a_disk_that_may_only_be_read_ends_rtwatch(session: Session, launcher: Launcher) -> None:
    assert launcher.once().returncode == 0
    with mounted(launcher.state, "--bind", "-o", "ro", str(launcher.state)):
        result = launcher.once()
        assert result.returncode == 1
        assert str(launcher.state) in the_line(result.stderr)
        assert launcher.once("-n").returncode == 0


def test_a_database_without_permission_ends_rtwatch(session: Session, launcher: Launcher) -> None:
    assert launcher.once().returncode == 0
    launcher.db.chmod(0o400)
    with unprivileged():
        result = launcher.once()
    assert result.returncode == 1
    assert str(launcher.db) in the_line(result.stderr)


def damage_pages(db: Path) -> None:
    """Overwrite all but the first page of a database."""
    with open(db, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def forget_session(db: Path) -> None:
    """Delete the row that says which session a database is of."""
    with closing(sqlite3.connect(db)) as con, con:
        con.execute("DELETE FROM rtwatch_session")


def drop_tables(db: Path) -> None:
    """Drop the tables of a database."""
    with closing(sqlite3.connect(db)) as con, con:
        for table in "session_file", "rtwatch_link", "rtwatch_torrent", "torrent_data":
            con.execute(f"DROP TABLE {table}")


@pytest.mark.parametrize("damage", [damage_pages, forget_session, drop_tables])
@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_a_damaged_database_ends_rtwatch_and_can_be_moved_away(
    options: tuple[str, ...], damage: Callable[[Path], None], session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(multi("pack"), downloads)
    assert launcher.once().returncode == 0
    damage(launcher.db)
    result = launcher.once("-q", *AT_ONCE, *options)
    assert result.returncode == 1
    assert str(launcher.db) in the_line(result.stderr)
    launcher.db.rename(f"{launcher.db}.bad")
    for rest in launcher.db.parent.glob("rtwatch.db-*"):
        rest.unlink()
    assert launcher.once(*options).returncode == 0


def test_a_database_that_is_damaged_meanwhile_ends_rtwatch(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = session.download(PACK, downloads)
    program = launcher.start(*SHORT)
    settle(program, session, downloads, "before")
    with closing(sqlite3.connect(launcher.db)) as con:
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        con.execute("PRAGMA writable_schema = ON")
        con.execute("UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'rtwatch_torrent'")
        con.execute("PRAGMA schema_version = 4711")
        con.commit()
    session.erase(PACK)
    assert program.wait() == 1
    assert str(launcher.db) in program.lines[-1]
    assert "Traceback" not in program.output
    assert all(path.exists() for path in paths)


def test_a_database_may_have_any_name(session: Session, launcher: Launcher, downloads: Path, tmp_path: Path) -> None:
    session.add(single("one"), downloads)
    db = tmp_path / os.fsdecode(b"a\xff b?c#d%e&f=\n.db")
    for options in (), (), ("-n",), ("-r",):
        result = launcher.once("--db", db, *options)
        assert result.returncode == 0, result.stderr
    assert db.exists()


def test_the_end_of_the_session_directory_is_told_while_the_database_is_locked(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = session.download(PACK, downloads)
    program = launcher.start(*SHORT, *launcher.hooks)
    settle(program, session, downloads, "before")
    with locked(launcher.db):
        session.path.rename(session.path.with_name("moved"))
        assert program.wait() == 1
    assert "Traceback" not in program.output
    assert str(session.path) in program.lines[-1]
    assert launcher.hooks_called()[-1] == "post_loop"
    assert all(path.exists() for path in paths)


# session files


def loop(file: Path) -> None:
    """Make a symlink to itself."""
    file.symlink_to(file.name)


def bind(file: Path) -> None:
    """Make a socket."""
    before = Path.cwd()
    os.chdir(file.parent)  # for a socket's path has 107 bytes
    try:
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.bind(file.name)
    finally:
        os.chdir(before)


def lock_up(file: Path) -> None:
    """Make a file that nobody may read."""
    file.write_bytes(single("unreadable").metainfo)
    file.chmod(0)


UNREADABLE = pytest.mark.parametrize("make_file", [loop, bind, lock_up, os.mkfifo, Path.mkdir])


@UNREADABLE
@pytest.mark.parametrize("kind", ["T", "R"])
def test_a_session_file_that_cannot_be_read_holds_removals_until_it_is_gone(
    kind: str, make_file: Callable[[Path], None], session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = session.download(PACK, downloads)
    with unprivileged():
        program = launcher.start(*SHORT, *launcher.hooks)
    settle(program, session, downloads, "before")
    broken = session.file(HASH, kind)
    make_file(broken)
    if kind == "R":
        session.file(HASH).write_bytes(single("unreadable").metainfo)
    else:
        session.file(HASH, "R").write_bytes(session.file(PACK, "R").read_bytes())
    session.erase(PACK)
    program.wait_line(rf"held.*pack.*{HASH}")
    assert all(path.exists() for path in paths)
    settle(program, session, downloads, "between")
    assert "Traceback" not in program.output
    assert "tried again" not in program.output
    (broken.rmdir if make_file is Path.mkdir else broken.unlink)()
    session.erase(HASH)
    session.file(HASH).touch()  # so that there is an event
    session.erase(HASH)
    session.download(single("more"), downloads)
    program.wait_known(single("more").hash)
    session.erase(single("more"))
    program.wait_gone(PACK.hash)
    assert not any(path.exists() for path in paths)
    assert program.stop() == 0


@UNREADABLE
def test_a_session_file_that_cannot_be_read_at_the_start_is_told_in_one_line(
    make_file: Callable[[Path], None], session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads)
    make_file(session.file(HASH))
    session.file(HASH, "R").write_bytes(session.file(single("one"), "R").read_bytes())
    with unprivileged():
        result = launcher.once(*AT_ONCE)
    assert result.returncode == 0
    assert len([line for line in result.stderr.splitlines() if HASH in line]) == 1


def test_a_torrent_of_unknown_place_whose_r_cannot_be_read_disturbs_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.add(single("one"), "~/somewhere")
    session.kill()
    assert launcher.once().returncode == 0
    file = session.file(single("one"), "R")
    file.unlink()
    loop(file)
    result = launcher.once()
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert file.name in result.stderr


@NEEDS_STRACE
def test_a_session_file_with_a_bad_block_is_tried_again(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = single("one")
    with below(
        "strace", "-D", "-qqq", "-o", os.devnull, "-P", str(session.file(torrent)), "--inject=read:error=EIO:when=1"
    ):
        program = launcher.start()
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    assert "Traceback" not in program.output
    assert program.stop() == 0


@pytest.mark.parametrize("mode", [0, 0o300])
def test_a_session_directory_without_permission_ends_rtwatch(mode: int, session: Session, launcher: Launcher) -> None:
    session.path.chmod(mode)
    with unprivileged():
        result = launcher.once()
    session.path.chmod(0o755)
    assert result.returncode in (1, 2)
    assert str(session.path) in the_line(result.stderr)


def test_a_session_directory_that_loses_its_permission_ends_rtwatch(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = session.download(PACK, downloads)
    with unprivileged():
        program = launcher.start(*SHORT)
    settle(program, session, downloads, "before")
    session.path.chmod(0o300)
    session.erase(PACK)
    assert program.wait() == 1
    session.path.chmod(0o755)
    assert str(session.path) in program.lines[-1]
    assert "Traceback" not in program.output
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("option", ["{}/x", "{} --hooks {}/x", "-r --trash {}/x {}", "-r {} {}/x", "--db {}/x {}"])
def test_a_path_that_may_not_be_searched_is_one_line(
    option: str, session: Session, launcher: Launcher, tmp_path: Path
) -> None:
    place = tmp_path / "closed"
    (place / "x").mkdir(parents=True)
    place.chmod(0)
    words = [word.format(place if "/x" in word else session.path) for word in option.split()]
    with unprivileged():
        result = run("--once", "-q", *words, state=launcher.state)
    place.chmod(0o755)
    assert result.returncode in (1, 2)
    assert str(place) in the_line(result.stderr)


@pytest.mark.parametrize("session", ["loop", "~nobody-has-this-name/session"])
def test_a_session_directory_that_cannot_be_resolved_is_one_line(session: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    result = run("--once", session, state=tmp_path / "state", cwd=tmp_path)
    assert result.returncode == 2
    assert session in the_line(result.stderr)


# limits of the system


@NEEDS_STRACE
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("inotify_init1:error=EMFILE", "fs.inotify.max_user_instances"),
        ("inotify_add_watch:error=ENOSPC", "fs.inotify.max_user_watches"),
        ("flock:error=ENOLCK", ".lock"),
        ("flock:error=EOPNOTSUPP", ".lock"),
        ("ftruncate:error=ENOSPC:when=1", ".lock"),
    ],
)
def test_what_the_system_refuses_is_one_line(fault: str, words: str, session: Session, launcher: Launcher) -> None:
    with strace(fault):
        result = launcher.once("-q")
    assert result.returncode == 1
    assert words in the_line(result.stderr)


@NEEDS_STRACE
def test_a_watch_that_is_refused_to_a_hook_is_its_own(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        "def post_add(con, file, args):\n    watch(args.db.parent, flags.CREATE)\n\n"
        "def pre_loop(con, inot, *others):\n    global watch\n    watch = inot.add_watch\n"
    )
    with strace("inotify_add_watch:error=ENOSPC:when=3+"):
        program = launcher.start(*option)
    settle(program, session, downloads, "one")
    program.wait_line("No space left")
    settle(program, session, downloads, "two")
    assert program.stop() == 0


# privilege


def test_the_database_is_private(session: Session, launcher: Launcher, downloads: Path) -> None:
    before = os.umask(0)
    try:
        program = launcher.start()
    finally:
        os.umask(before)
    session.add(single("one"), downloads)
    program.wait_known(single("one").hash)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in launcher.db.parent.iterdir()}
    assert len(modes) == 4  # the database with its -wal and -shm, and the lock
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(launcher.db.parent.stat().st_mode) == 0o700


def test_a_database_elsewhere_is_private(session: Session, launcher: Launcher, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert launcher.once("--db", tmp_path / "new" / "my.db").returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "my.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o646, 0o777, 0o602])
def test_hooks_that_everybody_may_write_are_refused(
    mode: int, session: Session, launcher: Launcher, hooks: Hooks
) -> None:
    option = hooks.write_each()
    hooks.path.chmod(mode)
    result = launcher.once(*option)
    assert result.returncode == 2
    assert str(hooks.path) in the_line(result.stderr)
    assert launcher.calls() == []


@NEEDS_ROOT
def test_hooks_of_another_user_are_refused(session: Session, launcher: Launcher, hooks: Hooks) -> None:
    option = hooks.write_each()
    os.chown(hooks.path, 65534, 65534)
    result = launcher.once(*option)
    assert result.returncode == 2
    assert str(hooks.path) in the_line(result.stderr)
    assert launcher.calls() == []


def test_hooks_that_only_their_owner_may_write_are_taken(session: Session, launcher: Launcher, hooks: Hooks) -> None:
    option = hooks.write_each()
    for mode in 0o400, 0o644, 0o755:
        hooks.path.chmod(mode)
        assert launcher.once(*option).returncode == 0


def test_a_trash_is_private(session: Session, launcher: Launcher, downloads: Path) -> None:
    download(session, launcher, downloads, PACK)
    trash = downloads / "trash"
    trash.mkdir()
    assert launcher.once(*AT_ONCE, "--trash", str(trash)).returncode == 0
    assert stat.S_IMODE((trash / PACK.hash).stat().st_mode) == 0o700


# hooks that misbehave


HANG = "while True: time.sleep(0.01)"


@pytest.mark.parametrize("hook", ["pre_loop", "pre_add", "pre_remove", "post_remove", "complete", "post_loop"])
def test_a_second_signal_ends_a_hook_that_hangs(
    hook: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    paths = session.download(PACK, downloads)
    program = launcher.start(*SHORT, *hooks.write_each(**{hook: HANG}), ready=hook != "pre_loop")
    if hook == "pre_add":
        session.add(single("one"), downloads)
    elif hook == "complete":
        session.mark_complete(PACK)
    elif hook in ("pre_remove", "post_remove"):
        settle(program, session, downloads, "other")
        session.erase(PACK)
    elif hook == "post_loop":
        program.send_signal(signal.SIGTERM)
    wait_called(program, launcher, hook)
    program.send_signal(signal.SIGTERM)
    if hook != "post_loop":
        program.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert "Traceback" not in program.output
    assert launcher.hooks_called()[-1] == "post_loop"
    assert paths[0].exists() == (hook != "post_remove")


def test_a_hook_may_set_a_row_factory(session: Session, launcher: Launcher, downloads: Path, hooks: Hooks) -> None:
    option = hooks.write(
        """
def pre_loop(con, *others):
    con.row_factory = lambda cursor, row: {"hash": row[0]}

def post_remove(con, file, args, RmTuple):
    con.row_factory = sqlite3.Row
    note("post_remove", hash=file.stem)
"""
    )
    program = launcher.start(*SHORT, *option)
    for name in "one", "two":
        session.download(multi(name), downloads)
        settle(program, session, downloads, f"other {name}")
        session.erase(multi(name))
        program.wait_gone(multi(name).hash)
        assert not (downloads / name).exists()
    wait_called(program, launcher, "post_remove", 2)
    assert program.stop() == 0
    assert "Traceback" not in program.output


@pytest.mark.parametrize(
    ("hook", "table"),
    [
        *((hook, "torrent_data") for hook in ("pre_add", "post_add", "pre_remove", "post_remove", "complete")),
        *((hook, table) for hook in ("post_add", "pre_remove") for table in ("session_file", "rtwatch_torrent")),
    ],
)
def test_a_hook_that_deletes_all_rows_ends_nothing_and_removes_nothing_of_others(
    hook: str, table: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write_each(**{hook: f"con.execute('DELETE FROM {table}')"})
    program = launcher.start(*SHORT, *option)
    stay = session.download(multi("stays"), downloads)
    session.download(PACK, downloads)
    session.mark_complete(PACK)
    wait_called(program, launcher, "complete")
    session.erase(PACK)
    session.add(single("other"), downloads)
    wait_called(program, launcher, "pre_add", 3)
    session.save_all()
    session.add(single("more"), downloads)
    wait_called(program, launcher, "pre_add", 4)
    assert program.stop() == 0
    assert all(path.exists() for path in stay)
    assert "Traceback" not in program.output


def test_a_hook_that_puts_paths_back_for_ever_disturbs_nothing(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    body = "queues['complete'].extend([path] * 3); queues['saved'].append(path); queues['erased'].append(path)"
    program = launcher.start(*SHORT, *hooks.write_each(complete=body))
    session.download(PACK, downloads)
    session.mark_complete(PACK)
    wait_called(program, launcher, "complete", 4)
    session.download(multi("goes"), downloads)
    settle(program, session, downloads, "other")
    session.erase(multi("goes"))
    program.wait_gone(multi("goes").hash)
    program.wait_for(lambda: not (downloads / "goes").exists(), "the files are not removed")
    assert (downloads / "pack" / "a.bin").exists()
    assert program.stop() == 0
    assert "Traceback" not in program.output


@pytest.mark.parametrize("item", ["['a', 1]", "{'a': 1}", "None", "object()"])
def test_a_hook_may_put_anything_into_its_queue(
    item: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    queues["mine"] = collections.deque([{item}, {item}])
    qfuncs["mine"] = mine

def mine(con, item, args, queues):
    note("mine")
    if len(calls) < 2:
        calls.append(item)
        raise OSError("not yet")

calls = []
"""
    )
    program = launcher.start(*option)
    wait_called(program, launcher, "mine", 4)
    settle(program, session, downloads, "one")
    assert program.stop() == 0
    assert "Traceback" not in program.output


@pytest.mark.parametrize(
    "deed",
    [
        "del queues['mine']",
        "queues['nobody'] = collections.deque([1])",
        "del qfuncs['mine']",
        "inot_funcs.clear()",
        "raise MemoryError",
        "raise RecursionError",
        "con.close()",
    ],
)
def test_a_hook_that_takes_things_apart_costs_no_file(
    deed: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    paths = session.download(PACK, downloads)
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    def mine(con, item, args, queues):
        note("mine")
        {deed}

    queues["mine"] = collections.deque([1, 2, 3])
    qfuncs["mine"] = mine
"""
    )
    program = launcher.start(*SHORT, *option)
    wait_called(program, launcher, "mine")
    program.send_signal(signal.SIGTERM)
    assert program.wait() in (0, 1)
    assert not any(line.startswith("Traceback") for line in program.lines), program.output
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("spelling", "mask"),
    [
        ("args.session", "flags.CLOSE_WRITE | flags.MODIFY"),
        ("args.session", "0xfff"),
        ("args.session", "flags.DELETE_SELF"),
        ("str(args.session) + '/'", "flags.CREATE"),
        ("os.fsencode(args.session)", "flags.CREATE"),
        ("link", "flags.CREATE"),
        ("os.path.relpath(args.session)", "flags.CREATE"),
    ],
)
def test_a_hook_may_watch_the_session_directory_in_any_way(
    spelling: str, mask: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    link = str(args.db) + ".link"
    os.symlink(args.session, link)
    inot.add_watch({spelling}, {mask})
    inot_funcs["other", flags.MOVED_TO] = lambda path: note("other", file=str(path))
"""
    )
    program = launcher.start(*SHORT, *option)
    paths = session.download(PACK, downloads)
    settle(program, session, downloads, "one")
    session.erase(PACK)
    program.wait_gone(PACK.hash)
    assert not any(path.exists() for path in paths)
    (downloads / "some.other").touch()
    (downloads / "some.other").rename(session.path / "some.other")
    (call,) = wait_called(program, launcher, "other")
    assert call["file"] == str(session.path / "some.other")
    assert program.stop() == 0
    assert "Traceback" not in program.output


def test_a_hook_may_change_the_working_directory(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    option = hooks.write("def pre_loop(con, *others):\n    os.chdir('/')\n")
    program = launcher.start(*SHORT, *option, "--db", "relative.db", cwd=tmp_path)
    session.download(PACK, downloads)
    settle(program, session, downloads, "one")
    session.erase(PACK)
    program.wait_gone(PACK.hash)
    assert not (downloads / "pack").exists()


def test_an_erase_is_seen_although_rtwatch_works_for_seconds_in_the_middle_of_it(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    """Then its first deletion was read long before the others; how long those lay there nobody knows."""
    option = hooks.write(f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    key = "libtorrent_resume", flags.DELETE
    handler = inot_funcs[key]

    def slow(path):
        handler(path)
        note("slow")
        time.sleep({1.1 * rtwatch.ERASE})

    inot_funcs[key] = slow
""")
    paths = session.download(PACK, downloads)
    program = launcher.start(*AT_ONCE, *option)
    session.file(PACK, "L").unlink()
    wait_called(program, launcher, "slow")
    session.file(PACK, "R").unlink()
    session.file(PACK).unlink()
    program.wait_gone(PACK.hash)
    assert not any(path.exists() for path in paths)


# an overflow of inotify's queue


def test_an_overflow_during_a_hook_loses_nothing_and_invents_nothing(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    stay = [single(f"stay{number}") for number in range(40)]
    goes, moves, returns, comes = (multi(name) for name in ("goes", "moves", "returns", "comes"))
    for torrent in *stay, goes, moves, returns:
        session.download(torrent, downloads)
    body = "while file.stem == os.environ['SLEEPS'] and not (args.db.parent / 'go on').exists(): time.sleep(0.01)"
    sleeps = single("sleeps")
    env = {"SLEEPS": sleeps.hash}
    program = launcher.start(*SHORT, *hooks.write_each(post_add=f"note('in', hash=file.stem)\n    {body}"), env=env)
    session.add(sleeps, downloads)
    wait_called(program, launcher, "in")
    before = [call["hook"] for call in launcher.calls()]
    session.save_all()
    session.erase(goes)
    session.readd(returns, downloads)
    overflow(session)
    session.save_all()
    session.download(comes, downloads)
    moves.write(downloads / "elsewhere")
    session.set_directory(moves, downloads / "elsewhere")
    session.save(moves)
    (launcher.db.parent / "go on").touch()
    program.wait_line("overflow")
    program.wait_gone(goes.hash)
    program.wait_files(comes.hash, comes.paths(downloads / "comes"))
    program.wait_files(moves.hash, moves.paths(downloads / "elsewhere" / "moves"))
    wait_called(program, launcher, "post_remove")
    settle(program, session, downloads, "last")
    assert program.stop() == 0
    assert not (downloads / "goes").exists()
    assert all(path.exists() for torrent in (*stay, returns) for path in torrent.paths(torrent.root(downloads)))
    after = [call["hook"] for call in launcher.calls()][len(before) :]
    assert sorted(after) == sorted([*["pre_add", "post_add", "in"] * 2, "pre_remove", "post_remove", "post_loop"])
    known = {hash for (hash,) in program.select("SELECT hash FROM torrent_data WHERE hash NOT NULL")}
    assert known == set(session.loaded)
    assert "Traceback" not in program.output


@pytest.mark.parametrize(
    ("what", "again"),
    [("inot_funcs['rtorrent', inotify_simple.flags.MOVED_TO]", True), ("qfuncs['saved']", False)],
    ids=["handler", "queue"],
)
def test_a_move_that_a_hook_hides_costs_no_file(
    what: str, again: bool, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """The hook's function fails instead of calling the one it stands for: the move is met in another way, or waits."""
    torrent, twin = PACK, make(b"another name", PACK.content, source=b"another tracker")
    paths = session.download(torrent, downloads)
    session.download(single("stays"), downloads)
    session.download(twin, tmp_path / "other")
    hooks = tmp_path / "failing.py"
    hooks.write_text(f"""
import inotify_simple

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    def fail(*args):
        raise KeyError("mine")
    {what} = fail
""")
    program = launcher.start(*AT_ONCE, "--hooks", hooks)
    session.set_directory_base(twin, downloads / "pack")
    session.save(twin)
    program.wait_line("KeyError: 'mine'")
    session.erase(torrent)
    if again:
        program.wait_gone(torrent.hash)
    else:
        program.wait_line("could not be worked yet")
    assert [path for path in paths if path.exists()] == paths


def test_a_torrent_that_comes_while_others_are_removed_keeps_its_files_although_a_hook_hides_it(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    """No event tells of it, but each pass lists the session directory anew."""
    torrents = [single(f"one{number}") for number in range(rtwatch.PASS + 1)]
    twin = twin_of(torrents[-1])
    paths = [path for torrent in torrents for path in session.download(torrent, downloads)]
    session.add(twin, downloads)
    aside = [shutil.copy(session.file(twin, kind), tmp_path) for kind in "TR"]
    session.erase(twin)
    session.add(single("stays"), downloads)
    option = hooks.write(f"""
import shutil

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    for ext in "torrent", "rtorrent":
        inot_funcs[ext, flags.MOVED_TO] = lambda path: None

def post_remove(con, file, args, RmTuple):
    for path in {aside}:
        shutil.copy(path, args.session / "hidden")
        os.rename(args.session / "hidden", args.session / os.path.basename(path))
""")
    program = launcher.start("-r", "--grace", "1", *option)
    for torrent in torrents:
        session.erase(torrent)
    program.wait_line(rf"kept\s.*one{rtwatch.PASS}.*also in {twin.hash[:8]}")
    assert [path for path in paths if path.exists()] == [paths[-1]]


def test_a_handler_that_fails_for_what_reading_causes_does_not_feed_itself(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    hooks = tmp_path / "failing.py"
    hooks.write_text("""
import inotify_simple

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    inot_funcs["rtorrent", inotify_simple.flags.CLOSE_NOWRITE] = lambda path: 1 / 0
""")
    program = launcher.start(*AT_ONCE, "--hooks", hooks)
    session.add(single("one"), downloads)
    program.wait_line("ZeroDivisionError")
    session.add(single("two"), downloads)
    program.wait_known(single("two").hash)
    assert program.stop() == 0
    assert program.output.count("ZeroDivisionError") < 50
