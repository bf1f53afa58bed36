"""Whose file it is: what was there before the torrent, what somebody changed after it, what rtwatch itself needs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import bencodepy
import pytest
from rtorrent import Rtorrent, wait_until
from session import STOPPED, decode, pass_tick
from steps import LONG, PACK, SHORT, Bed, link_files, parse_rows, remaining, wait_stopped
from torrents import Torrent, make, single

import rtwatch

OLD = 1_000_000_000  # Unix time long before any torrent here
DOCUMENTS = make(b"Documents", {(b"a",): b"a" * 16384, (b"b",): b"b" * 40000, (b"z",): b"z" * 100})
PIECES = 4  # of 16 KiB each
STOP = "os.kill(os.getpid(), 19)"


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


def load(bed: Bed, **keys: Any) -> None:
    """Load DOCUMENTS, later than what was written to its files."""
    pass_tick()
    bed.add(DOCUMENTS, **keys)


def lose(bed: Bed) -> None:
    """Erase DOCUMENTS, and wait until rtwatch knows what its files were."""
    bed.wait_vanished(DOCUMENTS)
    bed.wait_recorded(DOCUMENTS)


STEPS: dict[str, Callable[[Bed], object]] = {  # any other one is a shell command
    "start": lambda bed: bed.start(*SHORT),
    "start --catch-up": lambda bed: bed.start(*SHORT, "--catch-up"),
    "start --grace=3": lambda bed: bed.start("-r", "--grace=3"),
    "start --grace=600": lambda bed: bed.start(*LONG),
    "start with a slow hook": lambda bed: bed.start(*SHORT, *bed.write_each(post_add="time.sleep(2)")),
    "start with a pre_remove that stops": lambda bed: bed.start(*SHORT, *bed.write_each(pre_remove=STOP)),
    "stops": lambda bed: wait_stopped(bed.program),
    "stop": lambda bed: bed.program.stop(),
    "pause": lambda bed: bed.program.send_signal(signal.SIGSTOP),
    "resume": lambda bed: bed.program.send_signal(signal.SIGCONT),
    "data": lambda bed: DOCUMENTS.write(bed.downloads),
    "old data": lambda bed: place_old(DOCUMENTS, bed.downloads),
    "load": load,
    "load stopped": lambda bed: load(bed, **STOPPED),
    "load complete": lambda bed: load(bed, complete=1),
    "load again": lambda bed: bed.session.readd(DOCUMENTS, bed.downloads),
    "download": lambda bed: bed.seed(DOCUMENTS),
    "save a piece": lambda bed: bed.save_changed(DOCUMENTS, {"bitfield": b"\x80"}),
    "save no piece": lambda bed: bed.save_changed(DOCUMENTS, {"bitfield": b"\0"}),
    "save incomplete": lambda bed: bed.save_changed(DOCUMENTS, complete=0),
    "finish": lambda bed: bed.session.finish(DOCUMENTS),
    "save T": lambda bed: bed.session.save_full(DOCUMENTS),
    "settle": lambda bed: bed.settle_saves(),
    "erase": lambda bed: bed.session.erase(DOCUMENTS),
    "vanishes": lose,
    "returns": lambda bed: bed.program.wait_line("returned +Documents"),
    "load another": lambda bed: bed.add(single("another")),
    "another is known": lambda bed: bed.program.wait_known(single("another").hash),
    "another goes": lambda bed: bed.erase_another(),
    "set the clock back": lambda bed: bed.change_db("UPDATE rtwatch_session SET present = ?", time.time() + 3600),
}
# A name, what happens, the files that stay, and why.
STORIES = """
another piece: old data; start; load; settle; save a piece; echo mine >b; settle; erase -> b z (here before)
another piece, restarted: old data; start; load; settle; save a piece; settle; stop; start; erase -> b z (here before)
no piece: old data; start; load; settle; save no piece; settle; erase -> a b z (here before)
never checked: old data; start; load; settle; echo mine >b; settle; erase -> a b z (here before)
never checked, restarted: old data; start; load; settle; stop; start; erase -> a b z (here before)
never started: start; load stopped; settle; data; erase -> a b z (ever started)
never started, edited: start; load stopped; settle; data; load again; returns; erase -> a b z (here before)
never started, a link: data; mv a ../own; ln -s ../own a; load stopped; start; erase -> a b z (ever started|here before)
never started, its root a link: data; mv $PWD ../library && ln -s library $PWD; load stopped; start; erase;
    another goes; test -L $PWD -> a b z (here before)
in the place of a stopped one: download; rm a; start --grace=3; vanishes; load stopped; returns;
    echo mine >a; stop; start; erase -> a (here before)
in the place of an incomplete one: download; save incomplete; rm a; start --grace=3; vanishes; load stopped; returns;
    echo mine >a; stop; start; erase -> a (here before)
back and stopped: old data; start --grace=3; load complete; settle; vanishes; load stopped; returns; erase ->
back, one written: old data; start --grace=3; load complete; settle; vanishes; touch a; load; returns; erase
    -> a (here before)
back and complete, all written: old data; start --grace=3; load complete; settle; vanishes; touch *; load complete;
    returns; erase ->
back unread, one written: start --grace=3; download; settle; vanishes; echo mine >a; pause; load; erase; resume
    -> a (after the torrent vanished)
loaded again, written by rtorrent: start; load; settle; data; mv z ..; ln -s ../z; settle; load again; returns;
    another goes; erase ->
loaded again while rtwatch was down: start; download; settle; stop; erase; data; load; start; erase
    -> a b z (here before)
complete while rtwatch was down, T written anew: old data; start; load; settle; stop; finish; save T; start; erase ->
dated ahead: data; touch -d '5 seconds' *; load; start; sleep 5; erase -> a b z (here before)
a clock set back: start; download; settle; stop; set the clock back; erase; data; start --catch-up
    -> a b z (after the torrent vanished)
other modes, times and names: download; ln a ../link; start --grace=3; vanishes; chmod 600 a; chown 12345 b;
    touch -a z; rm ../link; erase ->
"""
CASES = parse_rows(r"(.*?): (.*) ->(.*?)(?: \((.*)\))?", STORIES)


def play(story: str, bed: Bed) -> None:
    """Do what a story tells."""
    (root := bed.downloads / "Documents").mkdir()
    for step in re.split(r";\s+", story):
        STEPS[step](bed) if step in STEPS else subprocess.run(["sh", "-ec", f"cd {root}; {step}"], check=True)
    bed.program.wait_gone(DOCUMENTS.hash)


@pytest.mark.parametrize(("story", "left", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_only_what_is_a_torrents_own_goes_with_it(story: str, left: str, reason: str, bed: Bed) -> None:
    play(story, bed)
    assert [path.name for path in remaining(DOCUMENTS.places(bed.downloads))] == left.split()
    for name in left.split():
        bed.program.wait_line(rf"kept +{name}: .*({reason})")


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
    "written anew": "printf mine >a",
    "written with its old time": "touch -r a t && printf mine >a && touch -r t a",
    "replaced by an older one": "printf mine >m && touch -d 2001-01-01 m && mv m a",
    "replaced by a link": "printf mine >m && ln -sf m a",
    "made longer": "printf mine >>a",
}
LATE = {
    "at once": "download; start --grace=600; vanishes; {}; stop; start",
    "in pre_remove": "download; start with a pre_remove that stops; erase; stops; {}; resume",
    "while a hook runs": "download; start with a slow hook; load another; another is known; erase; {}",
    "while it is stopped": "download; start; pause; erase; {}; sleep 1.2; resume",  # within a second is not late
    "while it is down": "download; load another; start; stop; erase; {}; start --catch-up",
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize("shell", SINCE.values(), ids=SINCE)
def test_what_somebody_put_in_place_since_the_erase_is_kept(shell: str, late: str, bed: Bed) -> None:
    play(late.format(shell), bed)
    assert (bed.downloads / "Documents" / "a").read_bytes().endswith(b"mine")
    bed.program.wait_line(r"kept +a: ((changed|put there) after the torrent vanished|longer than)")


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
