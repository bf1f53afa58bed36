"""What people do with the real rtorrent: no file goes that it uses, or that is not the erased torrent's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest
from program import Launcher, Program
from rtorrent import Rtorrent, places, seed, set_directory
from torrents import Torrent, make, multi, single, twin_of

SHORT = ("-r", "--grace", "0.3")
RETURN = ("-r", "--grace", "2")  # what comes back does so in time; another's removal shows the end
OLD = 1600000000
MOVE_WHEN_FINISHED = """\
method.insert = d.data_path, simple, "if=(d.is_multi_file), (cat,(d.directory),/), (cat,(d.directory),/,(d.name))"
method.insert = d.move_to, simple, "d.directory.set=$argument.1=; execute=mv,-u,$argument.0=,$argument.1=; {0}"
method.set_key = event.download.finished,move,"d.move_to=$d.data_path=,{1}"
"""


@pytest.fixture
def rtorrent(tmp_path: Path) -> Iterator[Rtorrent]:
    """Give an rtorrent with two torrents besides those of the test, whose data must be there at its end."""
    with Rtorrent(tmp_path / "rtorrent") as rtorrent:
        paths = [path for name in ("bystander", "another") for path in seed(rtorrent, several(name))]
        yield rtorrent
        assert remaining(paths) == paths


@pytest.fixture
def launcher(rtorrent: Rtorrent, tmp_path: Path) -> Iterator[Launcher]:
    """Give what starts rtwatch for it."""
    with closing(Launcher(rtorrent.session, tmp_path / "state", tmp_path / "calls")) as launcher:
        yield launcher


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory for the test's data."""
    place = tmp_path / "place"
    place.mkdir()
    return place


def several(name: str) -> Torrent:
    """Make a multi-file torrent with file names that no other torrent has, for such a file may be the other's."""
    data = name.encode()
    return make(data, {(b"first of " + data,): data * 3000, (b"below", b"second of " + data): data})


def remaining(paths: list[Path]) -> list[Path]:
    """Return those of the paths that exist."""
    return [path for path in paths if path.exists()]


def used(rtorrent: Rtorrent, torrent: Torrent) -> list[Path]:
    """Return the files that rtorrent says it uses for a torrent."""
    return [Path(os.fsdecode(path)).resolve() for path in rtorrent.files(torrent.hash)]


def pass_away(program: Program, rtorrent: Rtorrent) -> None:
    """Let another torrent be erased: every grace that began before is over then."""
    sign = single("passer-by")
    seed(rtorrent, sign)
    program.wait_known(sign.hash)
    rtorrent.erase(sign.hash)
    program.wait_gone(sign.hash)


# the tracker is edited, the torrent replaced


@pytest.mark.parametrize("late", [True, False], ids=["seconds later", "in one request"])
def test_a_torrent_loaded_again_with_another_tracker_loses_nothing(
    late: bool, rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """As a web interface edits it; all columns are read anew, no hook is called."""
    torrent = several("edited")
    edited = make(torrent.name, torrent.content, b"http://localhost:1/announce")
    paths = seed(rtorrent, torrent, place)
    program = launcher.start(*RETURN, *launcher.hooks)
    load = ("load.raw_start", "", edited.metainfo, set_directory(place))
    if late:
        rtorrent.erase(torrent.hash)
        program.wait_line("vanished +edited")
        rtorrent.multicall(load)
    else:
        rtorrent.multicall(("d.erase", torrent.hash), load)
    rtorrent.wait(1, "d.complete", edited.hash)
    tracker = f"SELECT tracker FROM torrent_data WHERE hash = '{torrent.hash}'"
    program.wait_rows(tracker, lambda rows: rows == [("localhost",)])
    files = (rtorrent.session / f"{torrent.hash}.torrent{end}" for end in ("", ".libtorrent_resume", ".rtorrent"))
    columns = f"SELECT torrent, libtorrent, rtorrent FROM torrent_data WHERE hash = '{torrent.hash}'"
    assert program.select(columns) == [tuple(file.read_bytes() for file in files)]
    pass_away(program, rtorrent)
    program.wait_files(torrent.hash, paths)
    assert remaining(paths) == paths == used(rtorrent, edited)
    assert launcher.hooks_called(torrent.hash) == []


@pytest.mark.parametrize("first", ["load", "erase"])
def test_a_replaced_torrent_leaves_its_files_to_the_new_one(
    first: str, rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """Both in one request."""
    old, new = several("replaced"), twin_of(several("replaced"))
    paths = seed(rtorrent, old, place)
    program = launcher.start(*RETURN)
    calls = [("load.raw_start", "", new.metainfo, set_directory(place)), ("d.erase", old.hash)]
    rtorrent.multicall(*(calls if first == "load" else reversed(calls)))
    program.wait_gone(old.hash)
    rtorrent.wait(1, "d.complete", new.hash)
    program.wait_line(rf'also in {new.hash[:8]}\w* "replaced"')
    assert remaining(paths) == paths == used(rtorrent, new)


# a directory that was set and not saved


@pytest.mark.parametrize("name", [None, b"another name"], ids=["same name", "same largest file"])
def test_a_torrent_started_elsewhere_and_pointed_at_anothers_files_keeps_them(
    name: bytes | None, rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """rtorrent made empty files for it at the default place, and has not saved the new one."""
    torrent = several("pointed at")
    twin = twin_of(torrent, name)
    paths = seed(rtorrent, torrent, place)
    program = launcher.start(*SHORT)
    rtorrent.load(twin)
    empty = places(twin, rtorrent.downloads)
    program.wait_for(lambda: remaining(empty) == empty, "rtorrent creates no files")
    assert [path.stat().st_size for path in empty] == [0, 0]
    program.wait_files(twin.hash, empty)
    rtorrent.call("d.stop", twin.hash)
    rtorrent.call("d.close", twin.hash)
    rtorrent.call("d.directory_base.set", twin.hash, str(torrent.root(place)))
    rtorrent.call("d.check_hash", twin.hash)
    rtorrent.wait(1, "d.complete", twin.hash)
    rtorrent.erase(torrent.hash)
    program.wait_gone(torrent.hash)
    program.wait_line(rf'perhaps in {twin.hash[:8]}\w* "{twin.name.decode()}"')
    assert remaining(paths) == paths == used(rtorrent, twin)
    rtorrent.save(twin.hash)
    program.wait_files(twin.hash, paths)
    rtorrent.erase(twin.hash)
    program.wait_gone(twin.hash)
    assert remaining(paths) == []


# data that is moved


@pytest.mark.parametrize("save", ["d.save_full_session=", ""], ids=["saved at once", "saved later"])
def test_data_that_rtorrent_moves_on_completion_goes_with_its_torrent(
    save: str, rtorrent: Rtorrent, tmp_path: Path, place: Path
) -> None:
    """By the lines that everybody has in rtorrent.rc; a twin that is then downloaded to the old place keeps its own."""
    torrent, twin = several("downloaded"), twin_of(several("downloaded"))
    seed(rtorrent, torrent)
    rtorrent.load(twin, start=False)
    with (
        Rtorrent(tmp_path / "leecher", MOVE_WHEN_FINISHED.format(save or "cat=", place)) as leecher,
        closing(Launcher(leecher.session, tmp_path / "state", tmp_path / "calls")) as launcher,
    ):
        program = launcher.start(*SHORT)
        leecher.load(torrent)
        leecher.add_peer(torrent.hash, rtorrent)
        moved, old = places(torrent, place), places(torrent, leecher.downloads)
        program.wait_for(lambda: remaining(moved) == moved, "rtorrent moves nothing")
        assert remaining(old) == []
        leecher.wait(1, "d.complete", torrent.hash)
        if not save:
            leecher.call("session.save")
        program.wait_files(torrent.hash, moved)
        seed(leecher, twin)
        program.wait_files(twin.hash, old)
        leecher.erase(torrent.hash)
        program.wait_gone(torrent.hash)
        assert remaining(moved) == []
        assert remaining(old) == old == used(leecher, twin)


# rtorrent ends, its session is deleted


def test_a_torrent_erased_while_rtorrent_ends_is_removed(rtorrent: Rtorrent, launcher: Launcher, place: Path) -> None:
    """Both in one request; the others are saved, the lock goes."""
    torrent = several("erased last")
    paths = seed(rtorrent, torrent, place)
    program = launcher.start(*SHORT)
    rtorrent.multicall(("d.erase", torrent.hash), ("system.shutdown.normal",))
    program.wait_gone(torrent.hash)
    assert remaining(paths) == []
    assert rtorrent.process is not None
    rtorrent.process.wait()
    assert not (rtorrent.session / "rtorrent.lock").exists()


def delete_t(session: Path) -> None:
    """Delete all T."""
    for file in session.glob("*.torrent"):
        file.unlink()


def delete_all(session: Path) -> None:
    """Delete everything in the session directory."""
    for file in session.iterdir():
        file.unlink()


def delete_directory(session: Path) -> None:
    """Delete the session directory, and make it again."""
    shutil.rmtree(session)
    session.mkdir()


@pytest.mark.parametrize("delete", [delete_t, delete_all, delete_directory])
def test_session_files_deleted_under_a_running_rtorrent_cost_no_data(
    delete: Callable[[Path], None], rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """Its next save brings back R and L, never T; not even --force removes what it has loaded then."""
    torrents = [several("one"), single("two")]
    paths = [path for torrent in torrents for path in seed(rtorrent, torrent, place)]
    program = launcher.start(*SHORT)
    delete(rtorrent.session)
    rtorrent.call("session.save")
    if delete is delete_directory:
        assert program.wait() == 1
        program = launcher.start(*SHORT)
    program.wait_line("held ")
    program.stop()
    for options in ((), ("--catch-up",), ("--force",)):
        assert launcher.once(*SHORT, *options).returncode == 0
        assert remaining(paths) == paths
    for hash in rtorrent.call("download_list", ""):
        rtorrent.call("d.save_full_session", hash)
    program = launcher.start(*SHORT)
    program.wait_files(torrents[0].hash, paths[:2])
    rtorrent.erase(torrents[0].hash)
    program.wait_gone(torrents[0].hash)
    assert remaining(paths) == paths[2:]


# a person's own files


@pytest.mark.parametrize("start", [True, False], ids=["started", "checked"])
@pytest.mark.parametrize("size", [1000, 3000, 5000], ids=["smaller", "same size", "bigger"])
def test_a_persons_file_where_rtorrent_wants_to_write_is_kept(
    size: int, start: bool, rtorrent: Rtorrent, launcher: Launcher, place: Path
) -> None:
    """The hash check finds nothing in it, and nothing of the torrent came."""
    mine, torrent = place / "mine.bin", single("mine", 3000)
    mine.write_bytes(b"own " * (size // 4))
    os.utime(mine, (OLD, OLD))
    program = launcher.start(*SHORT)
    rtorrent.load(torrent, start=start, directory=place)
    if not start:
        rtorrent.call("d.check_hash", torrent.hash)
    rtorrent.wait(1, "d.is_hash_checked", torrent.hash)
    rtorrent.save(torrent.hash)
    pass_away(program, rtorrent)
    rtorrent.erase(torrent.hash)
    program.wait_gone(torrent.hash)
    program.wait_line("longer than the torrent says" if size > 3000 else "older than the torrent")
    assert mine.read_bytes() == b"own " * (size // 4)


# the trash


def test_what_is_moved_back_from_the_trash_is_seeded_again(
    rtorrent: Rtorrent, launcher: Launcher, place: Path, tmp_path: Path
) -> None:
    """The files go back to where they were, and the .torrent is loaded."""
    torrent, trash = multi("trashed"), tmp_path / "trash"
    trash.mkdir()
    paths = seed(rtorrent, torrent, place)
    program = launcher.start(*SHORT, "--trash", trash)
    rtorrent.erase(torrent.hash)
    program.wait_gone(torrent.hash)
    assert remaining(paths) == []
    file = place / "trashed.torrent"
    (trash / torrent.hash / file.name).rename(file)
    subprocess.run(["mv", trash / torrent.hash, torrent.root(place)], check=True)
    rtorrent.call("load.start", "", str(file), set_directory(place))
    rtorrent.wait(1, "d.complete", torrent.hash)
    program.wait_files(torrent.hash, paths)
    assert remaining(paths) == paths == used(rtorrent, torrent)
