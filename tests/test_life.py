"""A torrent's life in the index, with the system calls of both orders that rtorrent has."""

import re
from contextlib import closing

import bencodepy
import pytest
from program import Program, Rows
from session import VERSIONS, Session
from steps import ONE, PACK, SHORT, Bed, play, remaining
from torrents import Torrent, make, multi, single

import rtwatch

EDITED = make(PACK.name, PACK.content, b"http://tracker.example:8080/announce")
ADDED = ["pre_add", "post_add"]
REMOVED = ["pre_remove", "post_remove"]

pytestmark = pytest.mark.parametrize("version", VERSIONS)  # both orders of system calls


def rows_of(program: Program, torrent: Torrent) -> Rows:
    """Return all rows of a torrent."""
    where = f"WHERE hash = '{torrent.hash}'"
    data = program.select(f"SELECT * FROM torrent_data {where}")
    return data + program.select(f"SELECT hash, CAST(file AS BLOB) FROM session_file {where} ORDER BY file")


def blobs_of(session: Session, torrent: Torrent) -> list[bytes]:
    return [session.file(torrent, kind).read_bytes() for kind in "TLR"]


def test_a_new_torrent_gets_its_rows(bed: Bed) -> None:
    torrent = make(b"caf\xe9", {(b"a",): b"x", (b"b", b"c\xff"): b"y"})
    program = bed.start()
    bed.add(torrent)
    paths = sorted(torrent.places(bed.downloads))
    program.wait_files(torrent.hash, paths)
    name = "caf\N{REPLACEMENT CHARACTER}"
    assert rows_of(program, torrent)[0] == (torrent.hash, name, "127.0.0.1", *blobs_of(bed.session, torrent))
    with closing(rtwatch.connect(program.db)) as con:
        assert [file for (file,) in con.execute("SELECT file FROM session_file ORDER BY file")] == paths
        found = con.execute("SELECT hash FROM session_file WHERE file = ?", (paths[0],)).fetchall()
    assert [tuple(row) for row in found] == [(torrent.hash,)]


# Session files that are written, with their content if it is another, and the one that makes the torrent known.
WRITES = ["T | R", "R | T", "T R= | R", "R T=d4:info | T", "L= T | R", "L=garbage R | T"]


def test_a_torrent_needs_t_and_r_that_decode_but_no_l(bed: Bed) -> None:
    program = bed.start(*bed.hooks)
    torrents = {single(f"one{number}"): write.split(" | ") for number, write in enumerate(WRITES)}
    for torrent, (writes, _) in torrents.items():
        bed.session.load(torrent, bed.downloads)
        for write in writes.split():
            kind, given, content = write.partition("=")
            bed.session.write(torrent, kind, content.encode() if given else None)
    bed.settle()
    assert not any(rows_of(program, torrent) for torrent in torrents)
    for torrent, (writes, last) in torrents.items():
        bed.session.write(torrent, last)
        program.wait_files(torrent.hash, torrent.paths(bed.downloads))
        assert "L" in writes or rows_of(program, torrent)[0][4] is None
    bed.settle()
    assert all(bed.hooks_called(torrent.hash) == ADDED for torrent in torrents)


def test_only_the_names_of_torrents_count(bed: Bed) -> None:
    program = bed.start(*SHORT)
    saved = bencodepy.encode({"directory": bytes(bed.downloads)})
    for name in ("a" * 40, ONE.hash.lower(), ONE.hash[:-1], "0" * 41, "rtorrent"):
        for suffix, content in ((".torrent", ONE.metainfo), (".torrent.rtorrent", saved)):
            (bed.session.path / (name + suffix)).write_bytes(content)
    bed.erase_another()
    assert program.select("SELECT * FROM torrent_data") == []


def test_a_save_changes_only_what_differs_without_hooks(bed: Bed) -> None:
    linked = multi("linked")
    bed.shell("mkdir first; ln -s first link")
    program = bed.start(*bed.hooks)
    bed.download(ONE, PACK)
    bed.download(linked, to="link")
    before = [rows_of(program, torrent) for torrent in (ONE, PACK, linked)]
    said = len(program.lines)
    bed.change(PACK, state_counter=7)
    bed.session.save_full(PACK)
    bed.session.save_all()
    bed.settle()
    assert before == [rows_of(program, torrent) for torrent in (ONE, PACK, linked)]
    assert not re.search(r"\b(one|pack|linked)\b", "".join(program.lines[said:]))
    bed.shell("ln -sfn second link")
    bed.session.save(linked)
    program.wait_files(linked.hash, linked.paths(bed.downloads / "second" / "linked"))
    for torrent in ONE, PACK:
        program.wait_files(torrent.hash, bed.repoint(torrent, "elsewhere"))
    bed.settle()
    for torrent, rows in zip((ONE, PACK, linked), before):
        assert rows_of(program, torrent)[0] == rows[0]
        assert bed.hooks_called(torrent.hash) == ADDED


def test_a_place_once_known_outlives_rtorrent(bed: Bed) -> None:
    lists = "lists ONE ../relative"
    play(bed, f"load-raw ONE relative; start; end-rtorrent; save ONE; settle; {lists}; stop; start; {lists}")


def test_broken_session_files_change_nothing(bed: Bed) -> None:
    program = bed.start("-r", "--grace", "0", *bed.hooks)
    contents = [("R", b""), ("R", b"garbage"), ("R", b"de"), ("R", b"d9:directoryi1ee"), ("T", b""), ("T", b"d4:info")]
    broken = [multi(f"pack{number}") for number in range(len(contents))]
    full_disk = multi("full")
    torrents = [*broken, full_disk]
    paths = bed.download(*torrents)
    before = [rows_of(program, torrent) for torrent in torrents]
    for torrent, (kind, content) in zip(broken, contents):
        bed.session.write(torrent, kind, content)
    bed.session.save_on_full_disk(full_disk)
    program.wait_line("unreadable .*its files are kept")
    bed.settle()
    assert [rows_of(program, torrent) for torrent in torrents] == before
    program.stop()
    program = bed.start("-r", "--grace", "0", *bed.hooks)
    assert [rows_of(program, torrent) for torrent in torrents] == before
    assert remaining(paths) == paths
    for torrent in torrents:
        program.wait_files(torrent.hash, bed.repoint(torrent, "elsewhere"))  # though T may still be broken
        assert bed.hooks_called(torrent.hash) == ADDED


def test_a_start_reads_only_session_files_that_were_written_since_the_last_run(bed: Bed) -> None:
    """A label that rtorrent never saved shows which rows a start has written."""
    play(bed, "seed PACK ONE; start; stop; change-db UPDATE rtwatch_torrent SET label = 'mine'; save PACK; start")
    labels = bed.program.select("SELECT hash, label FROM rtwatch_torrent")
    assert {*labels} == {(PACK.hash, ""), (ONE.hash, "mine")}


WHEN = {
    "before rtwatch saw the erase": "start {0}; seed PACK; settle; pause; erase-unwaited PACK; {1}; resume",
    "after it saw that": "start {0} --grace=600; seed PACK; settle; vanish PACK; {1}; settle; stop; start {0}",
    "while it does not run": "start {0} --grace=600; seed PACK; settle; vanish PACK; stop; {1}; start {0}",
}


@pytest.mark.parametrize("when", WHEN.values(), ids=WHEN)
@pytest.mark.parametrize("back", ["load EDITED elsewhere", "magnet PACK"])
def test_a_torrent_that_returns_is_read_anew(back: str, when: str, bed: Bed) -> None:
    then, to = ("", "elsewhere") if "EDITED" in back else ("; lists PACK; metadata PACK; erase-another", "")
    story = when.format(f"--hooks={bed.hooks[1]}", back)
    play(bed, f"{story}; erase-another{then}; lists PACK {to}; ls pack/a.bin pack/sub/b.bin", EDITED=EDITED)
    assert rows_of(bed.program, PACK)[0][3:] == (*blobs_of(bed.session, PACK),)
    assert bed.hooks_called(PACK.hash) == ADDED


HOW = {
    "rtwatch was down": "start {0}; stop; {1}; {2}; start {0}",
    "rtwatch was down, --catch-up": "start {0}; stop; {1}; {2}; start {0} --catch-up",
    "events were lost": "start {0}; pause; {1}; overflow; {2}; resume",
}
NAMES = ("stays", "moves", "goes", "returns", "comes")
SEEN = "gone goes; says goes.* 2 files; lists moves elsewhere; lists stays; lists comes; erase-another; lists returns"
FIRST, LATER = "erase-unwaited returns", "erase-unwaited goes; seed comes returns; repoint moves elsewhere"


@pytest.mark.parametrize("how", HOW)
def test_what_changed_unseen_is_taken_over(how: str, bed: Bed) -> None:
    stays, moves, goes, returns, comes = torrents = [multi(name) for name in NAMES]
    kept, left = bed.seed(stays, moves, returns) + moves.write(bed.downloads / "elsewhere"), bed.seed(goes)
    story = HOW[how].format(f"--hooks={bed.hooks[1]}", FIRST, LATER)
    play(bed, f"{story}; {SEEN}", **dict(zip(NAMES, torrents)))
    removes = how != "rtwatch was down"
    assert remaining(left) == ([] if removes else left)
    kept += comes.places(bed.downloads)
    assert remaining(kept) == kept
    assert bed.hooks_called(goes.hash) == (REMOVED if removes else [])
    assert bed.hooks_called(comes.hash) == (ADDED if "lost" in how else [])
    assert not any(bed.hooks_called(torrent.hash) for torrent in (stays, moves, returns))
