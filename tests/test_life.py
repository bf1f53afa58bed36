"""A torrent's life in the index, with the system calls of both orders that rtorrent has."""

from __future__ import annotations

import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import bencodepy
import pytest
from program import Launcher, Program, Rows
from session import VERSIONS, Session
from steps import (
    LONG,
    SHORT,
    download,
    erase,
    erase_another,
    overflow,
    paused,
    remaining,
    seed,
    settle,
    wait_called,
    wait_vanished,
)
from torrents import Torrent, make, multi, single

import rtwatch

ONE, PACK = single("one"), multi("pack")
EDITED = make(PACK.name, PACK.content, b"http://tracker.example:8080/announce")
ADDED = ["pre_add", "post_add"]
REMOVED = ["pre_remove", "post_remove"]
UNSEEN, SEEN, DOWN = "before rtwatch saw the erase", "after it saw that", "while it does not run"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Run every test here with both orders of system calls."""
    return str(request.param)


def rows_of(program: Program, torrent: Torrent) -> Rows:
    """Return all rows of a torrent."""
    data = program.select(f"SELECT * FROM torrent_data WHERE hash = '{torrent.hash}'")
    return data + program.select(
        f"SELECT hash, CAST(file AS BLOB) FROM session_file WHERE hash = '{torrent.hash}' ORDER BY file"
    )


def blobs_of(session: Session, torrent: Torrent) -> list[bytes]:
    """Return the contents of T, L and R."""
    return [session.file(torrent, kind).read_bytes() for kind in "TLR"]


def lines_of(program: Program, torrent: Torrent) -> list[str]:
    """Return the lines that name a torrent."""
    return [line for line in program.lines if torrent.name.decode() in line]


# unknown


@pytest.mark.parametrize(
    ("torrent", "name"),
    [(ONE, "one.bin"), (PACK, "pack"), (make(b"caf\xe9", {(b"a",): b"x"}), "caf\N{REPLACEMENT CHARACTER}")],
    ids=["single", "multi", "not UTF-8"],
)
def test_a_new_torrent_gets_its_rows(
    torrent: Torrent, name: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start()
    session.add(torrent, downloads)
    paths = sorted(torrent.paths(torrent.root(downloads)))
    program.wait_files(torrent.hash, paths)
    assert rows_of(program, torrent)[0] == (torrent.hash, name, "127.0.0.1", *blobs_of(session, torrent))
    con = rtwatch.connect(program.db)
    assert [file for (file,) in con.execute("SELECT file FROM session_file ORDER BY file")] == paths
    found = con.execute("SELECT hash FROM session_file WHERE file = ?", (paths[0],)).fetchall()
    con.close()
    assert [tuple(row) for row in found] == [(torrent.hash,)]


def test_a_torrent_needs_t_and_r_that_decode_but_no_l(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT, *launcher.hooks)
    lives: list[tuple[list[tuple[str, bytes | None]], str]] = [
        ([("T", None)], "R"),
        ([("R", None)], "T"),
        ([("T", None), ("R", b"")], "R"),
        ([("R", None), ("T", b"d4:info")], "T"),
        ([("L", b""), ("T", None)], "R"),
        ([("L", b"garbage"), ("R", None)], "T"),
    ]
    torrents = [single(f"one{number}") for number in range(len(lives))]
    paths = torrents[0].write(downloads)
    for torrent, (writes, _) in zip(torrents, lives):
        session.load(torrent, downloads)
        session.finish(torrent)
        for kind, content in writes:
            session.write(torrent, kind, content)
    settle(program, session, downloads)
    assert not any(rows_of(program, torrent) for torrent in torrents)
    for torrent, (_, last) in zip(torrents, lives):
        session.write(torrent, last)
        program.wait_files(torrent.hash, torrent.paths(downloads))
    resume = "SELECT libtorrent FROM torrent_data WHERE hash = '{}'"
    assert all(program.select(resume.format(torrent.hash)) == [(None,)] for torrent in torrents[:4])
    erase(program, session, torrents[0])
    assert remaining(paths) == []
    program.stop()
    assert launcher.hooks_called(torrents[0].hash) == ADDED + REMOVED
    assert all(launcher.hooks_called(torrent.hash) == ADDED for torrent in torrents[1:])


def test_only_the_names_of_torrents_count(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    saved = bencodepy.encode({"directory": bytes(downloads)})
    for name in ("a" * 40, ONE.hash.lower(), ONE.hash[:-1], "0" * 41, "rtorrent"):
        for suffix, content in ((".torrent", ONE.metainfo), (".torrent.rtorrent", saved)):
            (session.path / "new").write_bytes(content)
            (session.path / "new").rename(session.path / (name + suffix))
    erase_another(program, session, downloads)
    assert program.select("SELECT * FROM torrent_data") == []


# known, saved


def test_a_save_changes_only_what_differs_without_hooks(session: Session, launcher: Launcher, downloads: Path) -> None:
    link = downloads / "link"
    (downloads / "first").mkdir()
    link.symlink_to("first")
    linked = multi("linked")
    program = launcher.start(*launcher.hooks)
    download(program, session, downloads, ONE, PACK)
    download(program, session, link, linked)
    torrents = [ONE, PACK, linked]
    before = [(rows_of(program, torrent), lines_of(program, torrent)) for torrent in torrents]
    session.loaded[PACK.hash].rtorrent["state_counter"] = 7
    session.save(PACK)
    session.save_full(PACK)
    session.save_all()
    settle(program, session, downloads)
    assert before == [(rows_of(program, torrent), lines_of(program, torrent)) for torrent in torrents]
    link.unlink()
    link.symlink_to("second")
    session.save(linked)
    program.wait_files(linked.hash, linked.paths(downloads / "second" / "linked"))
    for torrent in ONE, PACK:
        session.set_directory(torrent, downloads / "elsewhere")
        session.save(torrent)
        program.wait_files(torrent.hash, torrent.paths(torrent.root(downloads / "elsewhere")))
    settle(program, session, downloads)
    for torrent, (rows, _) in zip(torrents, before):
        assert rows_of(program, torrent)[0] == rows[0]
        assert launcher.hooks_called(torrent.hash) == ADDED


def test_a_place_once_known_outlives_rtorrent(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(ONE, "relative")
    program = launcher.start()
    session.shutdown()
    session.save(ONE)
    settle(program, session, downloads)
    program.wait_files(ONE.hash, ONE.paths(session.cwd / "relative"))
    program.stop()
    launcher.start().wait_files(ONE.hash, ONE.paths(session.cwd / "relative"))


def test_broken_session_files_change_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", "--grace", "0", *launcher.hooks)
    contents = [("R", b""), ("R", b"garbage"), ("R", b"de"), ("R", b"d9:directoryi1ee"), ("T", b""), ("T", b"d4:info")]
    broken = [multi(f"pack{number}") for number in range(len(contents))]
    full_disk = multi("full")
    torrents = [*broken, full_disk]
    paths = download(program, session, downloads, *torrents)
    before = [rows_of(program, torrent) for torrent in torrents]
    for torrent, (kind, content) in zip(broken, contents):
        session.write(torrent, kind, content)
    session.save_on_full_disk(full_disk)
    settle(program, session, downloads)
    assert [rows_of(program, torrent) for torrent in torrents] == before
    program.stop()
    program = launcher.start("-r", "--grace", "0", *launcher.hooks)
    assert [rows_of(program, torrent) for torrent in torrents] == before
    assert remaining(paths) == paths
    for torrent in torrents:
        session.set_directory(torrent, downloads / "elsewhere")
        session.save_full(torrent)
        program.wait_files(torrent.hash, torrent.paths(torrent.root(downloads / "elsewhere")))
        assert launcher.hooks_called(torrent.hash) == ADDED


# magnets


def test_a_magnet_without_its_metadata_is_no_torrent(session: Session, launcher: Launcher, downloads: Path) -> None:
    erased = multi("erased")
    session.magnet(erased, downloads)
    meta = session.path / f"{erased.hash}.meta"
    meta.write_bytes(b"")
    program = launcher.start(*SHORT, *launcher.hooks)
    session.magnet(PACK, downloads)
    session.erase(erased)
    erase_another(program, session, downloads)
    assert not rows_of(program, PACK) + rows_of(program, erased)
    session.metadata(PACK, downloads)
    program.wait_files(PACK.hash, PACK.paths(downloads / "pack"))
    erase_another(program, session, downloads, "third")
    assert launcher.hooks_called(PACK.hash) == ADDED
    assert launcher.calls(PACK.hash)[0]["known"] == []
    assert launcher.hooks_called(erased.hash) == []
    assert meta.exists()


# vanished


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_vanished_torrent_keeps_rows_and_files_for_the_grace_which_the_next_start_finishes(
    number: int, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*LONG, *launcher.hooks)
    paths = download(program, session, downloads, PACK)
    wait_vanished(program, session, PACK)
    settle(program, session, downloads)
    program.wait_files(PACK.hash, paths)
    assert len(lines_of(program, PACK)) == 2
    program.send_signal(number)
    program.wait()
    assert launcher.hooks_called(PACK.hash) == ADDED
    assert remaining(paths) == paths
    again = launcher.start(*SHORT, *launcher.hooks)
    again.wait_gone(PACK.hash)
    assert remaining(paths) == []
    wait_called(again, launcher, "post_remove", PACK)
    assert launcher.hooks_called(PACK.hash) == ADDED + REMOVED


@pytest.mark.parametrize("when", [UNSEEN, SEEN, DOWN])
@pytest.mark.parametrize("what", ["edited", "as a magnet link"])
def test_a_torrent_that_returns_is_read_anew(
    what: str, when: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    def come_back() -> None:
        if what == "edited":
            session.add(EDITED, downloads / "elsewhere")
        else:
            session.magnet(PACK, downloads)

    program = launcher.start(*(SHORT if when == UNSEEN else LONG), *launcher.hooks)
    paths = expected = download(program, session, downloads, PACK)
    with paused(program) if when == UNSEEN else nullcontext():
        if when == UNSEEN:
            session.erase(PACK)
        else:
            wait_vanished(program, session, PACK)
        if when != DOWN:
            come_back()
    if when != UNSEEN:
        settle(program, session, downloads)
        program.stop()
        if when == DOWN:
            come_back()
        program = launcher.start(*SHORT, *launcher.hooks)
    erase_another(program, session, downloads)
    if what == "edited":
        expected = PACK.paths(downloads / "elsewhere" / "pack")
        assert rows_of(program, PACK)[0] == (PACK.hash, "pack", "tracker.example", *blobs_of(session, PACK))
    else:
        program.wait_files(PACK.hash, paths)
        session.metadata(PACK, downloads)
        erase_another(program, session, downloads, "third")
    program.wait_files(PACK.hash, expected)
    assert remaining(paths) == paths
    assert launcher.hooks_called(PACK.hash) == ADDED


def test_a_torrent_may_return_and_vanish_often(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT, *launcher.hooks)
    session.download(ONE, downloads)
    session.erase(ONE)
    paths = download(program, session, downloads, PACK)
    for _ in range(20):
        session.readd(PACK, downloads)
    erase_another(program, session, downloads)
    program.wait_gone(ONE.hash)
    program.wait_files(PACK.hash, paths)
    assert remaining(paths) == paths
    session.finish(PACK)
    session.save(PACK)
    settle(program, session, downloads)
    erase(program, session, PACK)
    assert remaining(paths) == []
    wait_called(program, launcher, "post_remove", PACK)
    assert launcher.hooks_called(PACK.hash) == ADDED + REMOVED


# rtwatch started again


@pytest.mark.parametrize("catch_up", [False, True], ids=["", "--catch-up"])
def test_a_start_takes_over_what_changed(catch_up: bool, session: Session, launcher: Launcher, downloads: Path) -> None:
    stays, moves, goes, comes = (multi(name) for name in ("stays", "moves", "goes", "comes"))
    paths = seed(session, downloads, stays, moves)
    left = seed(session, downloads, goes)
    assert launcher.once("-r").returncode == 0
    moves.write(downloads / "elsewhere")
    session.set_directory(moves, downloads / "elsewhere")
    session.save(moves)
    session.erase(goes)
    paths += seed(session, downloads, comes)
    program = launcher.start(*SHORT, *launcher.hooks, *(("--catch-up",) if catch_up else ()))
    program.wait_files(stays.hash, stays.paths(downloads / "stays"))
    program.wait_files(moves.hash, moves.paths(downloads / "elsewhere" / "moves"))
    program.wait_files(comes.hash, comes.paths(downloads / "comes"))
    program.wait_gone(goes.hash)
    program.wait_line(r"goes.*\b2\b")
    erase_another(program, session, downloads)
    assert remaining(left) == ([] if catch_up else left)
    assert remaining(paths) == paths
    assert launcher.hooks_called(goes.hash) == (REMOVED if catch_up else [])
    assert not any(launcher.hooks_called(torrent.hash) for torrent in (stays, moves, comes))


def test_a_deleted_database_is_rebuilt_from_the_session(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(PACK, downloads)
    program = launcher.start()
    before = rows_of(program, PACK)
    program.stop()
    shutil.rmtree(launcher.db.parent)
    again = launcher.start(*launcher.hooks)
    assert rows_of(again, PACK) == before
    assert launcher.hooks_called(PACK.hash) == []


# lost events


def test_an_overflow_loses_no_torrent(session: Session, launcher: Launcher, downloads: Path) -> None:
    goes, moves, stays, returns, comes = (multi(name) for name in ("goes", "moves", "stays", "returns", "comes"))
    gone = seed(session, downloads, goes)
    kept = seed(session, downloads, moves, stays, returns)
    program = launcher.start(*SHORT, *launcher.hooks)
    with paused(program):
        session.erase(returns)
        overflow(session)
        session.erase(goes)
        kept += seed(session, downloads, comes)
        session.add(returns, downloads)
        moves.write(downloads / "elsewhere")
        session.set_directory(moves, downloads / "elsewhere")
        session.save(moves)
    program.wait_files(comes.hash, comes.paths(downloads / "comes"))
    program.wait_files(moves.hash, moves.paths(downloads / "elsewhere" / "moves"))
    program.wait_gone(goes.hash)
    erase_another(program, session, downloads)
    program.wait_files(returns.hash, returns.paths(downloads / "returns"))
    assert (remaining(gone), remaining(kept)) == ([], kept)
    wait_called(program, launcher, "post_remove", goes)
    assert launcher.hooks_called(comes.hash) == ADDED
    assert launcher.hooks_called(moves.hash) == []
