"""Whose file it is: what was there before the torrent, what somebody changed after it, what rtwatch itself needs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Optional

import bencodepy
import pytest
from rtorrent import Rtorrent, wait_until
from session import STOPPED, decode, pass_tick
from steps import LONG, PACK, SHORT, Bed, Options, link_files, paused, remaining
from torrents import Torrent, make, single

import rtwatch

OLD = 1_000_000_000  # Unix time long before any torrent here
DOCUMENTS = make(b"Documents", {(b"a.nfo",): b"a" * 16384, (b"taxes.pdf",): b"t" * 40000, (b"z.bin",): b"z" * 100})
PIECES = 4  # of 16 KiB each


def place_old(torrent: Torrent, directory: Path) -> list[Path]:
    """Put a torrent's data in place, long before it comes."""
    paths = torrent.write_root(torrent.root(directory))
    for path in paths:
        os.utime(path, (OLD, OLD))
    return paths


BITFIELDS: dict[str, tuple[Any, list[bool]]] = {
    "all, as a number": (PIECES, [True, True, True]),
    "all, as bits": (b"\xf0", [True, True, True]),
    "none, as a number": (0, [False, False, False]),
    "none, as bits": (b"\0", [False, False, False]),
    "the first piece": (b"\x80", [True, False, False]),
    "all but the last": (b"\xe0", [True, False, False]),
    "the last": (b"\x10", [False, False, True]),
    "another number": (3, [False, False, False]),
    "too short": (b"", [False, False, False]),
    "too long": (b"\xf0\0", [False, False, False]),
    "of another type": ([4], [False, False, False]),
    "not there": (None, [False, False, False]),
}


@pytest.mark.parametrize(("field", "finished"), BITFIELDS.values(), ids=BITFIELDS)
def test_a_file_is_rtorrents_when_it_has_all_of_its_pieces(field: Any, finished: list[bool]) -> None:
    metainfo = rtwatch.parse_metainfo(DOCUMENTS.metainfo)
    assert metainfo is not None
    data = bencodepy.encode({} if field is None else {b"bitfield": field})
    assert rtwatch.find_finished(metainfo, data) == finished
    assert rtwatch.find_finished(metainfo, None) == [False] * 3


@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("field", [b"\x80", b"\0", None], ids=["a piece", "no piece", "never checked"])
def test_a_persons_file_that_a_torrent_merely_names_is_kept(field: Optional[bytes], restarted: bool, bed: Bed) -> None:
    paths = place_old(DOCUMENTS, bed.downloads)
    program = bed.start(*SHORT)
    bed.add(DOCUMENTS)
    program.wait_known(DOCUMENTS.hash)
    if field is not None:
        bed.session.loaded[DOCUMENTS.hash].resume["bitfield"] = field
        bed.session.save(DOCUMENTS)
    paths[1].write_bytes(b"written by its owner since")
    bed.settle_saves()
    if restarted:
        program.stop()
        program = bed.start(*SHORT)
    bed.erase(DOCUMENTS)
    program.wait_line("kept .*here before the torrent, and rtorrent has not saved that it is complete")
    assert remaining(paths) == (paths[1:] if field == b"\x80" else paths)


@pytest.mark.parametrize("edited", [False, True], ids=["", "edited"])
def test_a_torrent_that_was_never_started_has_written_nothing(edited: bool, bed: Bed) -> None:
    program = bed.start(*SHORT)
    bed.add(DOCUMENTS, **STOPPED)
    program.wait_known(DOCUMENTS.hash)
    paths = DOCUMENTS.write(bed.downloads)
    if edited:
        bed.session.readd(DOCUMENTS, bed.downloads)
        program.wait_line("returned +Documents")
    bed.erase(DOCUMENTS)
    program.wait_line(f"kept .*({rtwatch.FOUND.words if edited else rtwatch.UNSTARTED.words})")
    assert remaining(paths) == paths


@pytest.mark.parametrize("complete", [False, True], ids=["unfinished", "complete"])
def test_what_comes_in_the_place_of_a_torrent_that_is_back_and_not_started_is_a_persons(
    complete: bool, bed: Bed
) -> None:
    paths = bed.seed(DOCUMENTS)
    if not complete:
        bed.session.loaded[DOCUMENTS.hash].rtorrent["complete"] = 0
    bed.session.save(DOCUMENTS)
    paths[0].unlink()
    program = bed.start(*LONG)
    bed.wait_vanished(DOCUMENTS)
    bed.wait_recorded(DOCUMENTS)
    bed.add(DOCUMENTS, **STOPPED)
    program.wait_line("returned +Documents")
    paths[0].write_bytes(b"own")
    assert program.stop() == 0
    program = bed.start(*SHORT)
    bed.erase(DOCUMENTS)
    program.wait_line(f"kept +{paths[0].name}: {rtwatch.FOUND.words}")
    assert remaining(paths) == paths[:1]


@pytest.mark.parametrize("name", ["state/rtwatch", "hooks.py"])
def test_rtwatchs_own_files_are_kept_though_a_torrent_bears_their_names(name: str, bed: Bed, tmp_path: Path) -> None:
    program = bed.start(*SHORT, *bed.write_each())
    place = tmp_path / name
    content: Any = (
        place.read_bytes() if place.is_file() else {(file.name.encode(),): b"d" * 10**7 for file in place.iterdir()}
    )
    own = make(os.fsencode(place.name), content)
    bed.add_complete(own, place.parent)
    program.wait_known(own.hash)
    bed.erase(own)
    program.wait_line("kept .*belongs to rtwatch")
    assert remaining(own.places(place.parent)) == own.places(place.parent)


SINCE = {
    "written anew": "printf mine >one.bin",
    "written with its old time": "touch -r one.bin t; printf mine >one.bin; touch -r t one.bin",
    "replaced by an older one": "printf mine >m; touch -d 2001-01-01 m; mv m one.bin",
    "replaced by a link": "printf mine >m; ln -sf m one.bin",
    "made longer": "printf mine >>one.bin",
}
LATE = ["at once", "in pre_remove", "while a hook runs", "while it is stopped", "while it is down, with --catch-up"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("shell", SINCE.values(), ids=SINCE)
def test_what_somebody_put_in_place_since_the_erase_is_kept(shell: str, late: str, bed: Bed) -> None:
    torrent, other = single("one", 3000), single("slow")
    path, *_ = bed.seed(torrent, single("another"))
    options: Options = ()
    if late == "in pre_remove":
        options = bed.write_each(pre_remove=f"os.chdir({str(bed.downloads)!r}); assert not os.system({shell!r})")
    elif "hook" in late:
        options = bed.write_each(post_add="time.sleep(2)")
    program = bed.start(*(LONG if late == "at once" else SHORT), *options)
    if "down" in late:
        program.stop()
    if "hook" in late:
        bed.add(other)
        program.wait_known(other.hash)
    with paused(program) if "stopped" in late else nullcontext():
        if late == "at once":
            bed.wait_vanished(torrent)
        else:
            bed.session.erase(torrent)
        if late != "in pre_remove":
            subprocess.run(["sh", "-ec", shell], cwd=bed.downloads, check=True)
        if "stopped" in late:
            time.sleep(1.2)  # what is read within a second is not late
    if late == "at once":
        program.stop()
        program = bed.start(*SHORT)
    elif "down" in late:
        program = bed.start(*SHORT, "--catch-up")
    program.wait_gone(torrent.hash)
    assert path.read_bytes().endswith(b"mine")
    program.wait_line(r"kept .*(changed|put there) after the torrent vanished|longer than")


@pytest.mark.parametrize("shell", ["chmod 600 one.bin", "chown 12345 one.bin", "rm ../link", "touch -a one.bin"])
def test_what_changes_only_names_and_modes_of_a_file_does_not_keep_it(shell: str, bed: Bed) -> None:
    (path,) = bed.seed(single("one", 3000), to="at")
    os.link(path, bed.downloads / "link")
    program = bed.start(*SHORT, "--grace", "1")
    bed.wait_vanished(single("one", 3000))
    bed.wait_recorded(single("one", 3000))
    subprocess.run(["sh", "-ec", shell], cwd=path.parent, check=True)
    program.wait_gone(single("one", 3000).hash)
    assert not path.exists()


def test_what_stays_of_a_torrent_that_returned_elsewhere_is_said(bed: Bed) -> None:
    program = bed.start(*SHORT, "--grace", "5")
    paths = bed.download(PACK, to="old")
    bed.wait_vanished(PACK)
    bed.session.add(PACK, bed.downloads / "new")
    program.wait_line(r"returned +pack, 2 files, nobody uses 2 files at its former place, .*/old/pack$")
    assert remaining(paths) == paths


def test_a_tracker_edited_while_rtwatch_was_down_is_read_anew(files: list[Path], bed: Bed) -> None:
    bed.program.stop()
    bed.session.file(PACK).write_bytes(make(PACK.name, PACK.content, b"http://tracker.example/announce").metainfo)
    trackers = "SELECT tracker FROM torrent_data WHERE name = 'pack'"
    bed.start(*SHORT).wait_rows(trackers, lambda rows: rows == [("tracker.example",)])


@pytest.mark.parametrize("case", ["data in place", "data later", "data later, stopped"])
def test_a_newcomers_data_is_its_own_when_checked_or_started(case: str, rtorrent: Rtorrent, real_launcher: Bed) -> None:
    """Of one that came with its data in place, rtwatch asks until the check is over, and then for a save."""
    program = real_launcher.start("-r", "--grace", "0.5")
    paths = PACK.places(rtorrent.downloads)
    if case == "data in place":
        place_old(PACK, rtorrent.downloads)
    rtorrent.load(PACK, start="stopped" not in case, directory=rtorrent.downloads)
    program.wait_known(PACK.hash)
    if case == "data in place":
        program.wait_for(lambda: decode(rtorrent.file(PACK, "R")).get(b"complete"), "it is not saved")
    else:
        pass_tick()
        PACK.write(rtorrent.downloads)
    real_launcher.settle_saves()
    real_launcher.erase(PACK)
    assert remaining(paths) == (paths if "stopped" in case else [])


def test_a_file_that_rtorrent_never_had_a_piece_of_is_kept(rtorrent: Rtorrent, real_launcher: Bed) -> None:
    paths = place_old(DOCUMENTS, rtorrent.downloads)
    paths[1].write_bytes(b"not the torrent's" * 1000)
    os.utime(paths[1], (OLD, OLD))
    program = real_launcher.start("-r", "--grace", "0.5")
    rtorrent.load(DOCUMENTS, start=False, directory=rtorrent.downloads)
    rtorrent.call("f.multicall", DOCUMENTS.hash, "", "f.priority.set=0")
    rtorrent.check(DOCUMENTS)
    rtorrent.wait(1, "d.completed_chunks", DOCUMENTS.hash)
    rtorrent.call("d.start", DOCUMENTS.hash)
    rtorrent.save(DOCUMENTS)
    program.wait_known(DOCUMENTS.hash)
    real_launcher.settle_saves()
    real_launcher.erase(DOCUMENTS)
    assert paths[1].read_bytes() == b"not the torrent's" * 1000
    assert not paths[0].exists()


RETURNS: dict[str, tuple[int, dict[str, Any], int]] = {  # how many files somebody writes meanwhile, R, how many stay
    "stopped": (0, STOPPED, 0),
    "one was written": (1, {}, 1),
    "all were written, and rtorrent has them complete": (2, {"complete": 1}, 0),
}


@pytest.mark.parametrize(("written", "saved", "stay"), RETURNS.values(), ids=RETURNS)
def test_files_written_before_a_return_stay(written: int, saved: dict[str, Any], stay: int, bed: Bed) -> None:
    paths = place_old(PACK, bed.downloads)
    program = bed.start(*SHORT, "--grace", "2")
    bed.add_complete(PACK)
    bed.settle_saves()
    bed.wait_vanished(PACK)
    for path in paths[:written]:
        path.write_bytes(path.read_bytes())
    bed.add(PACK, **saved)
    program.wait_line("returned +pack")
    bed.erase(PACK)
    assert remaining(paths) == paths[:stay]
    assert len([line for line in program.lines if f": {rtwatch.FOUND.words}" in line]) == stay


def test_a_file_written_since_the_erase_stays_though_the_torrent_came_back_unread(bed: Bed) -> None:
    program = bed.start(*SHORT, "--grace", "2")
    paths = bed.download(PACK)
    bed.wait_vanished(PACK)
    paths[0].write_bytes(b"mine")
    with paused(program):
        bed.add(PACK)
        bed.session.erase(PACK)
    program.wait_line("kept .*after the torrent vanished")
    assert remaining(paths) == paths[:1]


def test_what_rtorrent_wrote_goes_though_it_has_loaded_the_torrent_again_since(bed: Bed) -> None:
    program = bed.start(*SHORT)
    bed.add(DOCUMENTS)
    program.wait_known(DOCUMENTS.hash)
    paths = DOCUMENTS.write(bed.downloads)
    paths[2].rename(bed.downloads / "elsewhere")
    link_files([bed.downloads / "elsewhere"], paths[2:])
    bed.settle()  # Else nobody knows whether the files were written before the erase.
    bed.session.readd(DOCUMENTS, bed.downloads)
    program.wait_line("returned +Documents")
    bed.erase_another()
    bed.erase(DOCUMENTS)
    assert not remaining(paths)


def test_a_hard_link_goes_though_its_other_name_went_just_before_its_torrent_vanished(bed: Bed) -> None:
    content: dict[tuple[bytes, ...], bytes] = {(b"%03d" % number,): b"d" * 100 for number in range(rtwatch.BATCH)}
    many, last = make(b"many", content), make(b"last", {(b"own",): b"o", **content})
    bed.start(*SHORT)
    paths = bed.download(many)
    links = last.places(bed.downloads)
    links[0].parent.mkdir()
    links[0].write_bytes(b"o")
    for path, link in zip(paths, links[1:]):
        os.link(path, link)
    bed.add_complete(last)
    bed.settle()
    bed.session.erase(many)
    wait_until(lambda: not paths[0].exists(), 10)
    bed.erase(last)
    assert not remaining([*paths, *links])


def test_what_never_was_a_torrents_own_is_not_left_to_others_as_theirs(bed: Bed) -> None:
    film, other = make(b"film", b"f" * 3000), make(b"film", b"o" * 3000)
    link = make(b"film", b"l" * 3000)
    [own] = place_old(film, bed.downloads)
    link_files([own], [bed.downloads / "links" / "film"])
    bed.add_complete(link, to="links")
    bed.add(film)
    bed.add(other)
    bed.start(*SHORT)
    for torrent in (film, other, link):
        bed.erase(torrent)
    assert own.exists()


@pytest.mark.parametrize("moved", [False, True], ids=["the former are still there", "moved"])
@pytest.mark.parametrize("complete", [1, 0])
def test_files_that_were_moved_to_a_new_place_are_a_torrents_own(moved: bool, complete: int, bed: Bed) -> None:
    program = bed.start(*SHORT)
    paths, new = bed.download(PACK), PACK.places(bed.downloads / "films")
    bed.session.loaded[PACK.hash].rtorrent["complete"] = complete
    for path, place in zip(paths, new):
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place) if moved else place.write_bytes(b"mine")
    bed.repoint(PACK, "films")
    program.wait_files(PACK.hash, new)
    bed.session.loaded[PACK.hash].rtorrent["custom1"] = "a label"
    bed.session.save(PACK)
    bed.settle_saves()
    bed.erase(PACK)
    assert remaining(new) == ([] if moved else new)
    if not moved:
        program.wait_line(f"kept .*{rtwatch.FOREIGN.words}")


def test_files_of_a_torrent_loaded_again_while_rtwatch_was_down_are_looked_at_anew(files: list[Path], bed: Bed) -> None:
    bed.program.stop()
    bed.session.erase(PACK)
    PACK.write(bed.downloads)
    pass_tick()
    bed.add(PACK)
    bed.start(*SHORT)
    bed.erase(PACK)
    assert remaining(files) == files


def test_what_became_complete_while_rtwatch_was_down_goes_although_t_was_written_anew(bed: Bed) -> None:
    paths = place_old(DOCUMENTS, bed.downloads)
    program = bed.start(*SHORT)
    bed.add(DOCUMENTS)
    program.wait_known(DOCUMENTS.hash)
    program.stop()
    bed.session.finish(DOCUMENTS)
    bed.session.save_full(DOCUMENTS)
    bed.start(*SHORT)
    bed.erase(DOCUMENTS)
    assert not remaining(paths)


def test_a_time_in_the_future_is_no_sign_that_rtorrent_wrote_a_file(bed: Bed) -> None:
    paths = DOCUMENTS.write(bed.downloads)
    for path in paths:
        os.utime(path, (time.time() + 5,) * 2)
    pass_tick()
    bed.add(DOCUMENTS)
    bed.start(*SHORT)
    while time.time() < paths[0].stat().st_mtime:
        time.sleep(0.1)
    bed.erase(DOCUMENTS)
    assert remaining(paths) == paths


def test_a_clock_that_was_ahead_in_the_last_run_proves_nothing(files: list[Path], bed: Bed) -> None:
    bed.program.stop()
    with closing(sqlite3.connect(bed.db)) as con, con:
        con.execute("UPDATE rtwatch_session SET present = ?", (time.time() + 3600,))
    bed.session.erase(PACK)
    PACK.write(bed.downloads)
    program = bed.start(*SHORT, "--catch-up")
    program.wait_gone(PACK.hash)
    assert remaining(files) == files


@pytest.mark.parametrize("directory", [False, True], ids=["a file", "the root"])
def test_a_link_in_the_place_of_a_torrent_that_was_never_started_stays(directory: bool, bed: Bed) -> None:
    torrent = PACK if directory else single("pack")
    link = torrent.root(bed.downloads) if directory else torrent.places(bed.downloads)[0]
    target = bed.downloads / "library"
    target.mkdir() if directory else target.write_bytes(b"mine")
    link.symlink_to(target)
    bed.add(torrent, **STOPPED)
    bed.start(*SHORT)
    bed.erase(torrent)
    assert link.is_symlink()
