"""Whose file it is: what was there before the torrent, what somebody changed after it, what rtwatch itself needs."""

import os
from pathlib import Path
from typing import Any

import bencodepy
import pytest
from steps import PACK, SHORT, Bed, each_row, play, remaining
from torrents import make, single

import rtwatch

DOCUMENTS = make(b"docs", {(b"a",): b"a" * 16384, (b"b",): b"b" * 40000, (b"z",): b"z" * 100})
PIECES = 4  # of 16 KiB each

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
    assert rtwatch.parse_finished(metainfo, data) == finished
    assert rtwatch.parse_finished(metainfo, None) == [False] * 3


MANY: dict[tuple[bytes, ...], bytes] = {(b"%03d" % number,): b"d" * 100 for number in range(rtwatch.BATCH)}
TORRENTS = {
    **{"D": DOCUMENTS, "ANOTHER": single("another"), "MANY": make(b"many", MANY), "LAST": make(b"last", MANY)},
    **{name: make(b"film", name.encode() * 3000) for name in ("FILM", "OTHER", "LINK")},
}
# What happens, the files of D that stay, and why.
STORIES = """
another piece: old-data D; start; load D; settle; save-a-piece D; echo mine >docs/b; settle; erase D -> b z
    (here before)
another piece, restarted: old-data D; start; load D; settle; save-a-piece D; settle; stop; start; erase D -> b z
    (here before)
no piece: old-data D; start; load D; settle; save-no-piece D; settle; erase D -> a b z (here before)
never checked: old-data D; start; load D; settle; echo mine >docs/b; settle; erase D -> a b z (here before)
never checked, restarted: old-data D; start; load D; settle; stop; start; erase D -> a b z (here before)
never started: start; load-stopped D; settle; data D; erase D -> a b z (ever started)
never started, edited: start; load-stopped D; settle; data D; reload D; says returned; erase D -> a b z (here before)
never started, a link: data D; mv docs/a own; ln -s ../own docs/a; load-stopped D; start; erase D -> a b z
    (ever started|here before)
never started, its root a link: data D; mv docs library; ln -s library docs; load-stopped D; start; erase D;
    erase-another; test -L docs -> a b z (here before)
in the place of a stopped one: seed D; rm docs/a; start --grace=3; vanish D; load-stopped D; says returned;
    echo mine >docs/a; stop; start; erase D -> a (here before)
in the place of an incomplete one: seed D; change D complete=0; rm docs/a; start --grace=3; vanish D; load-stopped D;
    says returned; echo mine >docs/a; stop; start; erase D -> a (here before)
back and stopped: old-data D; start --grace=3; add D complete=1; settle; vanish D; load-stopped D; says returned;
    erase D ->
back, one written: old-data D; start --grace=3; add D complete=1; settle; vanish D; touch docs/a; load D; says returned;
    erase D -> a (here before)
back and complete, all written: old-data D; start --grace=3; add D complete=1; settle; vanish D; touch docs/*;
    add D complete=1; says returned; erase D ->
back unread, one written: start --grace=3; seed D; settle; vanish D; echo mine >docs/a; pause; load D; erase-unwaited D;
    resume; gone D -> a (after the torrent vanished)
loaded again, written by rtorrent: start; load D; settle; data D; mv docs/z .; ln -s ../z docs; settle; reload D;
    says returned; erase-another; erase D ->
loaded again while rtwatch was down: start; seed D; settle; stop; erase-unwaited D; data D; tick; load D; start; erase D
    -> a b z (here before)
complete while rtwatch was down, T written anew: old-data D; start; load D; settle; stop; finish D; save-full D; start;
    erase D ->
dated ahead: data D; touch -d '5 seconds' docs/*; tick; load D; start; sleep 5; erase D -> a b z (here before)
a clock set back: start; seed D; settle; stop; change-db UPDATE rtwatch_session SET present = strftime('%s') + 3600;
    erase-unwaited D; data D; start --catch-up; gone D -> a b z (after the torrent vanished)
other modes, times and names: seed D; ln docs/a link; start --grace=3; vanish D; chmod 600 docs/a; chown 12345 docs/b;
    touch -a docs/z; rm link; gone D ->
moved, saved and labelled: start; seed D; settle; mkdir films; mv docs films; repoint D films; settle;
    change D custom1=label; settle; erase D; left ->
moved, incomplete: start; seed D; settle; change D complete=0; mkdir films; mv docs films; repoint D films; settle;
    erase D; left ->
beside the former ones: start; seed D; settle; mkdir films; cp -r docs films; repoint D films; settle;
    change D custom1=label; settle; erase D; says kept .*{FOREIGN}; cat films/docs/a films/docs/b films/docs/z -> a b z
others in a new place: start; seed D; settle; rm -r docs; mkdir -p films/docs; echo|tee films/docs/a films/docs/b;
    repoint D films; settle; erase D; says kept .*{FOREIGN}; cat films/docs/a films/docs/b ->
beside the former ones, incomplete: start; seed D; settle; change D complete=0; mkdir films; cp -r docs films;
    repoint D films; settle; change D custom1=label; settle; erase D; says kept .*{FOREIGN}; cat films/docs/* -> a b z
returned elsewhere: start --grace=5; seed D old; settle; vanish D; load D new; cat old/docs/*;
    says returned +docs, 3 files, nobody uses 3 files at its former place, .*/old/docs$; erase D ->
hard links whose other names went just before: start; seed MANY; settle; cp -rl many last; load-complete LAST; settle;
    erase-unwaited MANY; while test -e many/000;do sleep 0.01;done; erase LAST; gone MANY; left ->
never a torrent's own, so not left to others: old-data FILM; mkdir links; ln -s ../film links/film;
    load-complete LINK links; load FILM; load OTHER; start; erase FILM; erase OTHER; erase LINK; left film ->
""".replace("{FOREIGN}", rtwatch.FOREIGN.words)


@each_row("story left reason", STORIES, r"(.*?): (.*) ->(.*?)(?: \((.*)\))?")
def test_only_what_is_a_torrents_own_goes_with_it(story: str, left: str, reason: str, bed: Bed) -> None:
    play(bed, story, **TORRENTS)
    assert [path.name for path in remaining(DOCUMENTS.places(bed.downloads))] == left.split()
    for name in left.split() if reason else ():
        bed.program.wait_line(rf"kept +{name}: .*({reason})")


@pytest.mark.parametrize("name", ["state/rtwatch", "hooks.py"])
def test_rtwatchs_own_files_are_kept_though_a_torrent_bears_their_names(name: str, bed: Bed, tmp_path: Path) -> None:
    program = bed.start(*SHORT, *bed.write_each())
    place = tmp_path / name
    content: Any = (
        place.read_bytes() if place.is_file() else {(file.name.encode(),): b"d" * 10**7 for file in place.iterdir()}
    )
    own = make(os.fsencode(place.name), content)
    bed.load_complete(own, place.parent)
    program.wait_known(own.hash)
    bed.erase(own)
    program.wait_line("kept .*belongs to rtwatch")
    assert remaining(own.places(place.parent)) == own.places(place.parent)


SINCE = {
    "written anew": "printf mine >docs/a",
    "written with its old time": "touch -r docs/a t; printf mine >docs/a; touch -r t docs/a",
    "replaced by an older one": "printf mine >m; touch -d 2001-01-01 m; mv m docs/a",
    "replaced by a link": "printf mine >m; ln -sf ../m docs/a",
    "made longer": "printf mine >>docs/a",
}
LATE = {
    "at once": "seed D; start --grace=600; vanish D; {}; stop; start; gone D",
    "in pre_remove": "seed D; start-stopping-in pre_remove; erase-unwaited D; stops; {}; resume; gone D",
    "while a hook runs": "seed D; start-with-a-slow-hook; load ANOTHER; known ANOTHER; erase-unwaited D; {}; gone D",
    # What is read within a second is not late.
    "while it is stopped": "seed D; start; pause; erase-unwaited D; {}; sleep 1.2; resume; gone D",
    "while it is down": "seed D ANOTHER; start; stop; erase-unwaited D; {}; start --catch-up; gone D",
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize("shell", SINCE.values(), ids=SINCE)
def test_what_somebody_put_in_place_since_the_erase_is_kept(shell: str, late: str, bed: Bed) -> None:
    play(bed, late.format(shell), **TORRENTS)
    assert (bed.downloads / "docs" / "a").read_bytes().endswith(b"mine")
    bed.program.wait_line(r"kept +a: ((changed|put there) after the torrent vanished|longer than)")


def test_a_tracker_edited_while_rtwatch_was_down_is_read_anew(files: list[Path], bed: Bed) -> None:
    bed.program.stop()
    bed.session.file(PACK).write_bytes(make(PACK.name, PACK.content, b"http://tracker.example/announce").metainfo)
    trackers = "SELECT tracker FROM torrent_data WHERE name = 'pack'"
    bed.start(*SHORT).wait_rows(trackers, lambda rows: rows == [("tracker.example",)])


COMPLETE = f"../rtorrent/session/{DOCUMENTS.hash}.torrent.rtorrent"
REAL = f"""
its data in place, and rtwatch asks for a save after the check: start; old-data D; load D; call d.start D; known D;
    timeout 90 sh -c 'until grep -aq 8:completei1e {COMPLETE};do sleep 0.1;done'; settle; erase D ->
its data later: start; load D; call d.start D; save D; known D; tick; data D; settle; erase D ->
its data later, stopped: start; load D; known D; tick; data D; settle; erase D -> a b z
no piece of one file: old-data D; yes other | head -c 17000 >docs/b; touch -d 2001-01-01 docs/b; start; load D;
    call f.multicall D * f.priority.set=0; check D; wait-hash-checked D; call d.start D; save D; known D; settle;
    erase D; grep other docs/b -> b z
"""


@each_row("story left", REAL, r"(.*?): (.*) ->(.*)")
def test_what_rtorrent_itself_has_checked_or_written_is_the_torrents(story: str, left: str, real_launcher: Bed) -> None:
    play(real_launcher, story, **TORRENTS)
    assert [path.name for path in remaining(DOCUMENTS.places(real_launcher.downloads))] == left.split()
