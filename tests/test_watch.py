"""A torrent's life in rtwatch, with the system calls of both orders that rtorrent has."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import bencodepy
import pytest
from inotify_simple import flags, masks
from program import Launcher, Program, Rows, run
from session import VERSIONS, Session
from steps import overflow
from torrents import Torrent, make, multi, single

TORRENTS = pytest.mark.parametrize("torrent", [single("one"), multi("pack")], ids=["single", "multi"])
LONG = ("--grace", "600")
SHORT = ("--grace", "0.2")
ELSEWHERE = b"http://tracker.example:8080/announce"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Run every test here with both orders of system calls."""
    return str(request.param)


def rows_of(program: Program, torrent: Torrent) -> Rows:
    """Return everything the database says of a torrent."""
    data = program.select(f"SELECT * FROM torrent_data WHERE hash = '{torrent.hash}'")
    return data + program.select(
        f"SELECT hash, CAST(file AS BLOB) FROM session_file WHERE hash = '{torrent.hash}' ORDER BY file"
    )


def named(program: Program, torrent: Torrent) -> list[str]:
    """Return the lines that name a torrent."""
    return [line for line in program.lines if torrent.name.decode() in line]


def pass_by(program: Program, session: Session, downloads: Path, name: str = "later") -> None:
    """Let another torrent be added: whatever happened before has been worked then."""
    session.add(single(name), downloads)
    program.wait_known(single(name).hash)


def pass_away(program: Program, session: Session, downloads: Path, name: str = "last") -> None:
    """Let another torrent be added and erased: every grace that began before is over then."""
    pass_by(program, session, downloads, name)
    session.erase(single(name))
    program.wait_gone(single(name).hash)


def erase_and(program: Program, session: Session, torrent: Torrent, seen: bool, then: Callable[[], None]) -> None:
    """Erase a torrent and do something else before rtwatch saw it, or after that."""
    program.wait_line(torrent.name.decode())
    since = len(program.lines)
    if not seen:
        program.send_signal(signal.SIGSTOP)
    session.erase(torrent)
    if seen:
        program.wait_line(torrent.name.decode(), since)
    then()
    program.send_signal(signal.SIGCONT)


# unknown


@TORRENTS
def test_a_new_torrent_gets_its_rows(torrent: Torrent, session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start()
    session.add(torrent, downloads)
    program.wait_files(torrent.hash, torrent.paths(torrent.root(downloads)))
    files = (session.file(torrent, kind).read_bytes() for kind in "TLR")
    assert rows_of(program, torrent)[0] == (torrent.hash, torrent.name.decode(), "127.0.0.1", *files)
    program.wait_line(re.escape(torrent.name.decode()))
    assert program.stop() == 0


def test_connect_reads_and_takes_paths(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = multi("pack")
    session.add(torrent, downloads)
    program = launcher.start()
    con = program.connect()
    paths = torrent.paths(torrent.root(downloads))
    rows = con.execute("SELECT file FROM session_file ORDER BY file").fetchall()
    assert [file for (file,) in rows] == sorted(paths)
    found = con.execute("SELECT hash FROM session_file WHERE file = ?", (paths[0],)).fetchall()
    con.close()
    assert [tuple(row) for row in found] == [(torrent.hash,)]


def test_names_are_bytes(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = make(b"caf\xe9", {(b"\xff.bin",): b"x" * 100, (b"new\nline", b"b"): b"y"})
    program = launcher.start()
    session.add(torrent, downloads)
    program.wait_files(torrent.hash, torrent.paths(torrent.root(downloads)))
    assert program.select("SELECT name FROM torrent_data") == [("caf\N{REPLACEMENT CHARACTER}",)]


@pytest.mark.parametrize(("first", "second"), ["TR", "RT"], ids=["R missing", "T missing"])
def test_a_torrent_waits_for_the_missing_file(
    first: str, second: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*launcher.hooks)
    torrent = single("one")
    session.load(torrent, downloads)
    session.write(torrent, first)
    pass_by(program, session, downloads)
    assert not rows_of(program, torrent)
    session.write(torrent, second)
    program.wait_files(torrent.hash, torrent.paths(downloads))
    assert program.select(f"SELECT libtorrent FROM torrent_data WHERE hash = '{torrent.hash}'") == [(None,)]
    program.stop()
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


def test_a_torrent_waits_for_a_file_that_decodes(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start()
    torrent = single("one")
    session.load(torrent, downloads)
    session.write(torrent, "T")
    session.write(torrent, "R", b"")
    pass_by(program, session, downloads)
    assert not rows_of(program, torrent)
    session.write(torrent, "R")
    program.wait_files(torrent.hash, torrent.paths(downloads))


@pytest.mark.parametrize("resume", [b"", b"garbage"])
def test_a_torrent_needs_no_resume_data(resume: bytes, session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start()
    torrent = single("one")
    session.load(torrent, downloads)
    session.write(torrent, "L", resume)
    session.write(torrent, "T")
    session.write(torrent, "R")
    program.wait_files(torrent.hash, torrent.paths(downloads))


def test_a_torrent_erased_at_once_is_harmless(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *SHORT)
    torrent = single("one")
    session.download(torrent, downloads)
    session.erase(torrent)
    pass_away(program, session, downloads)
    program.wait_gone(torrent.hash)
    assert program.stop() == 0


# known, saved


def test_a_torrent_saved_again_changes_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*launcher.hooks)
    torrent = multi("pack")
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    program.wait_line(torrent.name.decode())
    before, lines = rows_of(program, torrent), named(program, torrent)
    session.loaded[torrent.hash].rtorrent["state_counter"] = 7
    session.save(torrent)
    session.save_full(torrent)
    session.save_all()
    pass_by(program, session, downloads)
    assert (rows_of(program, torrent), named(program, torrent)) == (before, lines)
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


@TORRENTS
def test_a_torrent_saved_elsewhere_is_followed(
    torrent: Torrent, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*launcher.hooks)
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    blobs = rows_of(program, torrent)[0]
    session.set_directory(torrent, downloads / "elsewhere")
    session.save(torrent)
    program.wait_files(torrent.hash, torrent.paths(torrent.root(downloads / "elsewhere")))
    assert rows_of(program, torrent)[0] == blobs
    pass_by(program, session, downloads)
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


def test_a_root_that_resolves_elsewhere_is_followed(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent, link = multi("pack"), downloads / "link"
    for name in "ab":
        torrent.write(downloads / name)
    link.symlink_to("a")
    program = launcher.start()
    session.add(torrent, link)
    program.wait_files(torrent.hash, torrent.paths(downloads / "a" / "pack"))
    link.unlink()
    link.symlink_to("b")
    session.save(torrent)
    program.wait_files(torrent.hash, torrent.paths(downloads / "b" / "pack"))


def test_directories_are_resolved_as_rtorrent_does(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(cwd=downloads)
    places = {"~/x": session.home / "x", "rel/sub": session.cwd / "rel/sub", "": session.cwd, "./": session.cwd}
    for number, (directory, place) in enumerate(places.items()):
        for torrent in single(f"file{number}"), multi(f"pack{number}"):
            session.add(torrent, directory)
            program.wait_files(torrent.hash, torrent.paths(torrent.root(place)))


def test_a_place_that_cannot_be_resolved_stays_unknown(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.kill()
    torrent = single("one")
    session.add(torrent, "relative")
    session.add(single("two"), downloads)
    program = launcher.start()
    program.wait_known(torrent.hash)
    program.wait_files(torrent.hash, [])
    program.wait_files(single("two").hash, single("two").paths(downloads))


def test_a_place_once_known_stays_when_rtorrent_has_ended(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent = single("one")
    session.add(torrent, "relative")
    program = launcher.start()
    program.wait_files(torrent.hash, torrent.paths(session.cwd / "relative"))
    session.shutdown()
    session.save(torrent)
    pass_by(program, session, downloads)
    program.wait_files(torrent.hash, torrent.paths(session.cwd / "relative"))
    program.stop()
    again = launcher.start()
    again.wait_files(torrent.hash, torrent.paths(session.cwd / "relative"))


def test_empty_sidecars_keep_the_rows(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    before = rows_of(program, torrent)
    session.save_on_full_disk(torrent)
    pass_by(program, session, downloads)
    assert rows_of(program, torrent) == before
    assert all(path.exists() for path in paths)
    session.set_directory(torrent, downloads / "elsewhere")
    session.save(torrent)
    program.wait_files(torrent.hash, torrent.paths(downloads / "elsewhere" / "pack"))
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


def test_empty_sidecars_of_a_known_torrent_hold_everything(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start("-r", *SHORT)
    full, other = multi("pack"), single("other")
    session.download(full, downloads)
    (path,) = session.download(other, downloads)
    program.wait_known(full.hash)
    program.wait_known(other.hash)
    session.save_on_full_disk(full)
    session.erase(other)
    if session.version == "0.16":  # which renames empty files into place, 0.9.8 does not
        program.wait_line(r"held\s.*other\.bin.*empty")
        assert path.exists()
        session.save(full)
    program.wait_line(r"removed\s.*other\.bin")
    assert not path.exists()


@pytest.mark.parametrize(
    ("kind", "content"), [("R", b"garbage"), ("R", b"de"), ("R", b"d9:directoryi1ee"), ("T", b""), ("T", b"d4:info")]
)
def test_undecodable_files_keep_the_rows(
    kind: str, content: bytes, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start()
    torrent = single("one")
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    before = rows_of(program, torrent)
    session.write(torrent, kind, content)
    pass_by(program, session, downloads)
    assert rows_of(program, torrent) == before


def test_undecodable_files_keep_the_rows_at_start(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = single("one"), single("two"), single("three")
    for torrent in torrents:
        session.add(torrent, downloads)
    assert launcher.once().returncode == 0
    session.write(torrents[0], "R", b"")
    session.write(torrents[1], "T", b"")
    program = launcher.start()
    for torrent in torrents:
        assert program.select(f"SELECT 1 FROM torrent_data WHERE hash = '{torrent.hash}'")
        program.wait_files(torrent.hash, torrent.paths(downloads))


# magnets


def test_a_magnet_is_no_torrent_until_its_metadata_is_there(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    torrent = multi("pack")
    session.magnet(torrent, downloads)
    pass_away(program, session, downloads)
    assert not rows_of(program, torrent)
    session.metadata(torrent, downloads)
    program.wait_files(torrent.hash, torrent.paths(downloads / "pack"))
    pass_away(program, session, downloads, "very last")
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]
    assert launcher.calls(torrent.hash)[0]["known"] == []


def test_a_magnet_erased_is_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = multi("pack")
    session.magnet(torrent, downloads)
    meta = session.path / f"{torrent.hash}.meta"
    meta.write_bytes(b"")
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    session.erase(torrent)
    pass_away(program, session, downloads)
    assert not rows_of(program, torrent)
    assert meta.exists()
    assert launcher.hooks_called(torrent.hash) == []


@pytest.mark.parametrize("seen", [True, False], ids=["after it was seen", "at once"])
def test_the_stub_of_a_vanished_torrent_keeps_it_vanished(
    seen: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    erase_and(program, session, torrent, seen, lambda: session.magnet(torrent, downloads))
    pass_away(program, session, downloads)
    program.wait_files(torrent.hash, paths)
    assert all(path.exists() for path in paths)
    session.metadata(torrent, downloads)
    pass_away(program, session, downloads, "very last")
    program.wait_files(torrent.hash, paths)
    assert all(path.exists() for path in paths)
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


# vanished


def test_a_vanished_torrent_keeps_its_rows_for_the_grace(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *LONG, *launcher.hooks)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    program.wait_line("pack")
    since = len(program.lines)
    session.erase(torrent)
    program.wait_line("pack", since)
    pass_by(program, session, downloads)
    program.wait_files(torrent.hash, paths)
    assert all(path.exists() for path in paths)
    assert len(named(program, torrent)) == 2
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


@pytest.mark.parametrize("seen", [True, False], ids=["after it was seen", "at once"])
def test_a_returned_torrent_is_read_anew(seen: bool, session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *(LONG if seen else SHORT), *launcher.hooks)
    torrent = multi("pack")
    edited = make(torrent.name, torrent.content, ELSEWHERE)
    assert edited.hash == torrent.hash
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    erase_and(program, session, torrent, seen, lambda: session.add(edited, downloads / "elsewhere"))
    program.wait_files(torrent.hash, torrent.paths(downloads / "elsewhere" / "pack"))
    tracker = f"SELECT tracker FROM torrent_data WHERE hash = '{torrent.hash}'"
    program.wait_rows(tracker, lambda rows: rows == [("tracker.example",)])
    contents = (session.file(torrent, kind).read_bytes() for kind in "TLR")
    assert rows_of(program, torrent)[0] == (torrent.hash, "pack", "tracker.example", *contents)
    if not seen:
        pass_away(program, session, downloads)
        assert rows_of(program, torrent)
    assert all(path.exists() for path in paths)
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


def test_a_torrent_may_return_and_go_often(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    for _ in range(20):
        session.readd(torrent, downloads)
    pass_away(program, session, downloads)
    program.wait_files(torrent.hash, paths)
    assert all(path.exists() for path in paths)
    session.finish(torrent)
    session.save(torrent)
    program.wait_rows(f"SELECT 1 FROM rtwatch_torrent WHERE counted AND hash = '{torrent.hash}'", bool)
    session.erase(torrent)
    program.wait_gone(torrent.hash)
    assert not any(path.exists() for path in paths)
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(torrent.hash), "post_remove is not called")
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add", "pre_remove", "post_remove"]


def test_a_torrent_written_in_place_returns(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    session.erase(torrent)
    session.file(torrent).write_bytes(torrent.metainfo)
    program.wait_line("held.*pack")
    program.wait_files(torrent.hash, paths)
    session.add(torrent, downloads / "elsewhere")
    program.wait_files(torrent.hash, torrent.paths(downloads / "elsewhere" / "pack"))
    pass_away(program, session, downloads)
    assert rows_of(program, torrent)
    assert all(path.exists() for path in paths)
    assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add"]


def test_an_erased_torrent_goes_with_its_files(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    torrents = single("one"), multi("pack")
    paths = [path for torrent in torrents for path in session.download(torrent, downloads)]
    for torrent in torrents:
        program.wait_known(torrent.hash)
    for torrent in torrents:
        session.erase(torrent)
    for torrent in torrents:
        program.wait_gone(torrent.hash)
        program.wait_files(torrent.hash, [])
    assert not any(path.exists() for path in paths)
    program.wait_for(lambda: launcher.hooks_called().count("post_remove") == 2, "post_remove is not called")
    for torrent in torrents:
        assert launcher.hooks_called(torrent.hash) == ["pre_add", "post_add", "pre_remove", "post_remove"]


def test_a_torrent_without_resume_data_is_erased(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *SHORT)
    torrent = single("one")
    session.load(torrent, downloads)
    (path,) = torrent.write(downloads)
    session.finish(torrent)
    session.write(torrent, "T")
    session.write(torrent, "R")
    program.wait_known(torrent.hash)
    session.erase(torrent)
    program.wait_gone(torrent.hash)
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_removal_cut_short_is_finished_at_the_next_start(
    number: int, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start("-r", *LONG)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    session.add(single("other"), downloads)
    program.wait_known(torrent.hash)
    program.wait_known(single("other").hash)
    program.wait_line("pack")
    since = len(program.lines)
    session.erase(torrent)
    program.wait_line("pack", since)
    pass_by(program, session, downloads)
    program.send_signal(number)
    program.wait()
    assert all(path.exists() for path in paths)
    again = launcher.start("-r", *SHORT, *launcher.hooks)
    again.wait_gone(torrent.hash)
    assert not any(path.exists() for path in paths)
    again.wait_for(lambda: "post_remove" in launcher.hooks_called(torrent.hash), "post_remove is not called")
    assert launcher.hooks_called(torrent.hash) == ["pre_remove", "post_remove"]


def test_a_torrent_that_returned_meanwhile_is_known_after_the_start(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start("-r", *LONG)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    program.wait_line("pack")
    since = len(program.lines)
    session.erase(torrent)
    program.wait_line("pack", since)
    program.stop()
    session.add(make(torrent.name, torrent.content, ELSEWHERE), downloads / "elsewhere")
    again = launcher.start("-r", *SHORT, *launcher.hooks)
    again.wait_files(torrent.hash, torrent.paths(downloads / "elsewhere" / "pack"))
    assert rows_of(again, torrent)[0][2] == "tracker.example"
    pass_away(again, session, downloads)
    assert rows_of(again, torrent)
    assert all(path.exists() for path in paths)
    assert launcher.hooks_called(torrent.hash) == []


# the comparison at start


def test_a_start_takes_over_what_changed_and_removes_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    stays, moves, goes, comes = multi("stays"), multi("moves"), multi("goes"), multi("comes")
    for torrent in stays, moves, goes:
        session.download(torrent, downloads)
    assert launcher.once("-r").returncode == 0
    session.set_directory(moves, downloads / "elsewhere")
    session.save(moves)
    session.erase(goes)
    session.download(comes, downloads)
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    program.wait_files(stays.hash, stays.paths(downloads / "stays"))
    program.wait_files(moves.hash, moves.paths(downloads / "elsewhere" / "moves"))
    program.wait_files(comes.hash, comes.paths(downloads / "comes"))
    program.wait_gone(goes.hash)
    program.wait_line(r"goes.*\b2\b")
    pass_away(program, session, downloads)
    for torrent in stays, goes, comes, moves:
        assert all(path.exists() for path in torrent.paths(torrent.root(downloads)))
        assert launcher.hooks_called(torrent.hash) == []


def test_a_session_that_looks_empty_keeps_its_rows(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [single(name) for name in ("one", "two", "three")]
    for torrent in torrents:
        session.download(torrent, downloads)
    assert launcher.once().returncode == 0
    for torrent in torrents:
        session.erase(torrent)
    program = launcher.start("-r", *SHORT)
    assert len(program.select("SELECT 1 FROM torrent_data")) == 3
    program.wait_line("(?i)empty")
    pass_by(program, session, downloads)
    assert program.stop() == 0
    assert launcher.once("-r", "--catch-up", *SHORT).returncode == 0
    again = launcher.start()
    for torrent in torrents:
        again.wait_files(torrent.hash, torrent.paths(downloads))
        assert all(path.exists() for path in torrent.paths(downloads))


def test_catch_up_takes_what_went_meanwhile_as_erased(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [multi(name) for name in ("one", "two", "three")]
    for torrent in torrents:
        session.download(torrent, downloads)
    assert launcher.once().returncode == 0
    session.erase(torrents[0])
    program = launcher.start("-r", "--catch-up", *SHORT, *launcher.hooks)
    program.wait_gone(torrents[0].hash)
    assert not (downloads / "one").exists()
    assert (downloads / "two").exists()
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(torrents[0].hash), "post_remove is not called")
    assert launcher.hooks_called(torrents[0].hash) == ["pre_remove", "post_remove"]


def test_the_database_is_only_an_index(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(multi("pack"), downloads)
    assert launcher.once().returncode == 0
    program = launcher.start()
    before = rows_of(program, multi("pack"))
    program.stop()
    shutil.rmtree(launcher.db.parent)
    again = launcher.start(*launcher.hooks)
    assert rows_of(again, multi("pack")) == before
    assert launcher.hooks_called(multi("pack").hash) == []


# the queue of the kernel


def test_an_overflow_loses_no_torrent(session: Session, launcher: Launcher, downloads: Path) -> None:
    goes, moves, stays, comes = (multi(name) for name in ("goes", "moves", "stays", "comes"))
    for torrent in goes, moves, stays:
        session.download(torrent, downloads)
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    program.send_signal(signal.SIGSTOP)
    overflow(session)
    session.erase(goes)
    session.download(comes, downloads)
    moves.write(downloads / "elsewhere")
    session.set_directory(moves, downloads / "elsewhere")
    session.save(moves)
    program.send_signal(signal.SIGCONT)
    program.wait_files(comes.hash, comes.paths(downloads / "comes"))
    program.wait_files(moves.hash, moves.paths(downloads / "elsewhere" / "moves"))
    program.wait_gone(goes.hash)
    assert not (downloads / "goes").exists()
    assert (downloads / "stays" / "a.bin").exists()
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(goes.hash), "post_remove is not called")
    assert launcher.hooks_called(comes.hash) == ["pre_add", "post_add"]
    assert launcher.hooks_called(moves.hash) == []


def test_a_torrent_added_again_during_an_overflow_keeps_its_files(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [multi(name) for name in ("one", "two", "three")]
    for torrent in torrents:
        session.download(torrent, downloads)
    program = launcher.start("-r", *SHORT)
    program.send_signal(signal.SIGSTOP)
    session.erase(torrents[0])
    overflow(session)
    session.add(torrents[0], downloads)
    program.send_signal(signal.SIGCONT)
    pass_away(program, session, downloads)
    program.wait_files(torrents[0].hash, torrents[0].paths(downloads / "one"))
    assert (downloads / "one" / "a.bin").exists()


def test_idle_costs_no_wake_up(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.download(single("one"), downloads)
    program = launcher.start(*launcher.hooks)
    system_call = Path(f"/proc/{program.pid}/syscall")
    try:
        system_call.read_text()
    except OSError as error:
        pytest.skip(f"{system_call}: {error}")
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of the system calls are those of x86_64")

    def polls_for_ever() -> bool:
        number, *arguments = system_call.read_text().split()
        return number == "7" and int(arguments[2], 16) & 0xFFFFFFFF == 0xFFFFFFFF

    program.wait_for(polls_for_ever, "rtwatch does not wait in poll without a timeout")


def watched(program: Program) -> int:
    """Return the mask of the events that a process watches for, all its watches together."""
    mask = 0
    for info in Path(f"/proc/{program.pid}/fdinfo").iterdir():
        for found in re.findall(r"^inotify .*\bmask:([0-9a-f]+)", info.read_text(), re.MULTILINE):
            mask |= int(found, 16)
    return mask


def test_only_events_with_a_handler_are_watched(session: Session, launcher: Launcher) -> None:
    needed = flags.MOVED_TO | flags.DELETE | flags.DELETE_SELF | flags.MOVE_SELF
    program = launcher.start()
    assert watched(program) & masks.ALL_EVENTS == needed
    program.stop()
    program = launcher.start(*launcher.hooks)
    assert watched(program) & masks.ALL_EVENTS == needed | flags.CLOSE_WRITE


# the end


def gone_by_removal(session: Session) -> None:
    """Remove the session directory."""
    shutil.rmtree(session.path)


def gone_by_move(session: Session) -> None:
    """Move the session directory away."""
    session.path.rename(session.path.with_name("moved"))


def gone_by_replacement(session: Session) -> None:
    """Put an empty directory in the session directory's place."""
    gone_by_move(session)
    session.path.mkdir()


@pytest.mark.parametrize("go", [gone_by_removal, gone_by_move, gone_by_replacement])
def test_a_session_directory_that_goes_ends_rtwatch(
    go: Callable[[Session], None], session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [multi(name) for name in ("one", "two", "three")]
    paths = [path for torrent in torrents for path in session.download(torrent, downloads)]
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    go(session)
    assert program.wait() == 1
    assert str(session.path) in program.lines[-1] or session.path.name in program.lines[-1]
    assert all(path.exists() for path in paths)
    assert len(program.select("SELECT 1 FROM torrent_data")) == 3
    assert launcher.hooks_called() == ["pre_loop", "post_loop"]
    assert "STOPPING=1" in program.notified


def test_a_session_directory_covered_by_a_mount_removes_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [multi(name) for name in ("one", "two", "three")]
    paths = [path for torrent in torrents for path in session.download(torrent, downloads)]
    mount = ["mount", "-t", "tmpfs", "rtwatch-test", str(session.path)]
    program = launcher.start("-r", "--grace", "2")
    program.wait_known(torrents[0].hash)
    since = len(program.lines)
    session.erase(torrents[0])
    program.wait_line("one", since)
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        assert program.wait() == 1
    finally:
        subprocess.run(["umount", str(session.path)], check=True)
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_in_order(number: int, session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(single("one"), downloads)
    program = launcher.start(*launcher.hooks)
    program.send_signal(number)
    assert program.wait() == 0
    assert launcher.hooks_called() == ["pre_loop", "post_loop"]
    assert [line for text in program.notified for line in text.split("\n")].count("READY=1") == 1
    assert "STOPPING=1" in program.notified
    assert "Traceback" not in program.output


def test_the_service_manager_gets_a_status(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start()
    assert program.stop() == 0
    assert any(line.startswith("STATUS=") for text in program.notified for line in text.split("\n"))


@pytest.mark.parametrize("db", [(), ("--db", "other.db")], ids=["same database", "other database"])
def test_a_second_rtwatch_on_a_session_is_refused(
    db: tuple[str, ...], session: Session, launcher: Launcher, tmp_path: Path
) -> None:
    program = launcher.start()
    link = tmp_path / "link"
    link.symlink_to(session.path)
    for path in session.path, link:
        second = run(*db, path, state=launcher.state, cwd=tmp_path)
        assert second.returncode == 1
        assert len(second.stderr.splitlines()) == 1
        assert session.path.name in second.stderr or path.name in second.stderr
    program.kill()
    assert launcher.start(*db, cwd=tmp_path).stop() == 0


def test_a_dry_run_may_run_beside(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*LONG)
    dry = launcher.start("-r", "-n", *SHORT)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    dry.wait_line("pack")
    session.erase(torrent)
    dry.wait_line("would.*remove|would.*pack|pack.*would")
    program.wait_files(torrent.hash, paths)
    assert dry.stop() == 0
    assert all(path.exists() for path in paths)
    program.wait_files(torrent.hash, paths)


def test_the_end_does_not_wait_for_the_grace(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *LONG)
    torrent = single("one")
    (path,) = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    session.erase(torrent)
    assert program.stop() == 0
    assert path.exists()


def test_only_the_names_of_torrents_count(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", *SHORT)
    torrent = single("one")
    saved = bencodepy.encode({"directory": bytes(downloads)})
    for name in ("a" * 40, torrent.hash.lower(), torrent.hash[:-1], "0" * 41, "rtorrent"):
        for suffix, content in ((".torrent", torrent.metainfo), (".torrent.rtorrent", saved)):
            (session.path / "new").write_bytes(content)
            (session.path / "new").rename(session.path / (name + suffix))
    pass_away(program, session, downloads)
    assert program.select("SELECT * FROM torrent_data") == []


def test_deletions_before_a_save_are_no_evidence(session: Session, launcher: Launcher, downloads: Path) -> None:
    """T taken away, then an edit by ruTorrent, which deletes L and R only, then T again: nobody has erased it."""
    program = launcher.start("-r", *SHORT)
    torrent, bystander = multi("pack"), multi("bystander")
    session.download(bystander, downloads)
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    session.file(torrent).unlink()
    program.wait_line(r"held\s.*pack")
    session.readd(torrent, downloads)
    program.wait_line(r"returned\s.*pack")
    session.file(torrent).unlink()
    session.file(torrent, "R").unlink()
    session.file(torrent, "L").unlink()
    program.wait_line(r"held\s.*pack: rtorrent was not seen to erase it")
    assert all(path.exists() for path in paths)
