"""Data that is moved, torrents that are re-pointed, edited, replaced or get links later: each keeps what it uses."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from program import Launcher
from session import VERSIONS, Session
from steps import (
    SHORT,
    erase,
    erase_another,
    link_files,
    move,
    names,
    paused,
    remaining,
    seed,
    settle,
)
from torrents import Torrent, make, multi, single, twin_of

PARTS = {"0.9.8": ("LR", "T"), "0.16": ("T", "LR")}  # of a full save, between which it may be looked at
PACK, TWIN, RENAMED_ROOT = multi("pack"), twin_of(multi("pack")), twin_of(multi("pack"), b"another name")
EDITED = make(PACK.name, PACK.content, b"http://tracker.example/announce")
RENAMED = make(b"two", {(b"x.bin",): b"pack" * 100, (b"y.bin",): b"pack" * 200})  # the data of PACK


# the torrent is edited or replaced


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("new", [EDITED, TWIN], ids=["edited", "replaced"])
def test_a_torrent_that_follows_an_erased_one_keeps_its_files_while_its_save_is_late(
    new: Torrent, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, PACK)
    program = launcher.start(*SHORT, *launcher.hooks)
    early, late = PARTS[session.version]
    with paused(program):
        session.erase(PACK)
        session.load(new, downloads)
        for kind in early:
            session.write(new, kind)
    program.wait_line(rf"((held|returned) +pack|(held|kept) .*{TWIN.hash[:8]})")
    assert remaining(paths) == paths
    for kind in late:
        session.write(new, kind)
    host = "tracker.example" if new is EDITED else "127.0.0.1"
    expected = (host, *(session.file(new, kind).read_bytes() for kind in "TLR"))
    sql = f"SELECT tracker, torrent, libtorrent, rtorrent FROM torrent_data WHERE hash = '{new.hash}'"
    program.wait_rows(sql, lambda rows: rows == [expected])
    erase_another(program, session, downloads)
    program.wait_files(new.hash, paths)
    assert remaining(paths) == paths
    assert launcher.hooks_called(PACK.hash) == ([] if new is EDITED else ["pre_remove", "post_remove"])
    session.finish(new)
    session.save(new)
    settle(program, session, downloads)
    erase(program, session, new)
    assert remaining(paths) == []


# the database cannot be written


def test_a_move_that_cannot_be_written_to_the_database_keeps_the_files(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    paths = seed(session, downloads, PACK, single("stays"))
    session.download(RENAMED_ROOT, tmp_path / "other")
    asked, answer, hooks = tmp_path / "asked", tmp_path / "answer", tmp_path / "slow.py"
    os.mkfifo(answer)
    hooks.write_text(f"""
def pre_remove(con, file, args):
    open({str(asked)!r}, "w").close()
    open({str(answer)!r}).read()
""")
    program = launcher.start(*SHORT, "--hooks", hooks)
    session.erase(PACK)
    program.wait_for(asked.exists, "pre_remove is not called")
    session.set_directory_base(RENAMED_ROOT, downloads / "pack")
    session.save(RENAMED_ROOT)
    with closing(sqlite3.connect(launcher.db, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        answer.write_text("go on")
        program.wait_line("failed .*database is locked")
        con.execute("ROLLBACK")
    answer.unlink()
    answer.write_text("pre_remove is called again, with the next try")
    program.wait_gone(PACK.hash)
    assert remaining(paths) == paths


# directories and files become links


def test_a_directory_replaced_by_a_link_keeps_the_target(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = seed(session, downloads / "real", PACK)
    seed(session, downloads / "copy", TWIN)
    program = launcher.start(*SHORT)
    shutil.rmtree(downloads / "copy")
    (downloads / "copy").symlink_to("real")
    erase(program, session, PACK)
    program.wait_line("kept .*" + names(TWIN, "in"))
    assert remaining(paths) == paths
    session.save(TWIN)
    program.wait_files(TWIN.hash, paths)
    erase(program, session, TWIN)
    assert remaining(paths) == []


@pytest.mark.parametrize("since", ["saved", "not saved", "rtwatch started", "complete"])
def test_a_link_made_after_loading_keeps_its_target(
    since: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    other = TWIN if since == "complete" else RENAMED
    paths = seed(session, downloads / "real", PACK)
    root = other.root(downloads / "links")
    program = launcher.start(*SHORT)
    session.add(other, downloads / "links")
    program.wait_known(other.hash)
    if since == "complete":
        other.write_root(root)
        session.finish(other)
        session.save(other)
        settle(program, session, downloads)
        shutil.rmtree(root)
    link_files(paths, other.paths(root))
    if since == "saved":
        session.finish(other)
        session.save(other)
    elif since == "rtwatch started":
        program.stop()
        program = launcher.start(*SHORT)
    settle(program, session, downloads)
    erase(program, session, PACK)
    program.wait_line(f"kept .* in {other.hash[:8]}")
    assert remaining(paths) == paths


@pytest.mark.parametrize("again", [False, True], ids=["not complete again", "complete again"])
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
def test_a_link_made_while_a_torrent_has_no_data_any_more_keeps_its_target(
    moved: bool, again: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads / "real", PACK)
    session.download(RENAMED, downloads / "real")
    program = launcher.start(*SHORT)
    shutil.rmtree(RENAMED.root(downloads / "real"))
    place = downloads / ("links" if moved else "real")
    session.set_directory(RENAMED, place)
    session.loaded[RENAMED.hash].rtorrent.update({"complete": 0, "chunks_done": 0})
    session.save(RENAMED)
    settle(program, session, downloads)
    link_files(paths, RENAMED.paths(RENAMED.root(place)))
    if again:
        session.finish(RENAMED)
        session.save(RENAMED)
    erase(program, session, PACK)
    program.wait_line(f"kept .*used by a symlink in {RENAMED.hash[:8]}")
    assert remaining(paths) == paths


# the database is older than the session


@pytest.mark.parametrize("options", [(), ("--catch-up",)], ids=["", "--catch-up"])
def test_an_old_backup_of_the_database_costs_no_data(
    options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    stays, moves, goes, comes = multi("stays"), multi("moves"), multi("goes"), twin_of(multi("goes"))
    staying, *_ = seed(session, downloads, stays, moves, goes)
    assert launcher.once().returncode == 0
    backup = tmp_path / "backup.db"
    shutil.copy(launcher.db, backup)
    program = launcher.start(*SHORT)
    moved = move(session, moves, downloads, downloads / "elsewhere")
    session.save(moves)
    erase(program, session, goes)
    others = seed(session, downloads, comes)
    mine = moves.write(downloads)
    settle(program, session, downloads)
    program.stop()
    shutil.copy(backup, launcher.db)
    again = launcher.start(*SHORT, *options)
    again.wait_gone(goes.hash)
    again.wait_files(comes.hash, others)
    again.wait_files(moves.hash, moved)
    erase_another(again, session, downloads)
    kept = [staying, *moved, *others, *mine]
    assert remaining(kept) == kept
