"""Data that is moved, torrents that are re-pointed, edited, replaced or get links later: each keeps what it uses."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from session import VERSIONS
from steps import (
    SHORT,
    Bed,
    link_files,
    names,
    paused,
    remaining,
)
from torrents import Torrent, make, multi, single, twin_of

PARTS = {"0.9.8": ("LR", "T"), "0.16": ("T", "LR")}  # of a full save, between which it may be looked at
PACK, TWIN, RENAMED_ROOT = multi("pack"), twin_of(multi("pack")), twin_of(multi("pack"), b"another name")
EDITED = make(PACK.name, PACK.content, b"http://tracker.example/announce")
RENAMED = make(b"two", {(b"x.bin",): b"pack" * 100, (b"y.bin",): b"pack" * 200})  # the data of PACK


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("new", [EDITED, TWIN], ids=["edited", "replaced"])
def test_a_torrent_that_follows_an_erased_one_keeps_its_files_while_its_save_is_late(new: Torrent, bed: Bed) -> None:
    paths = bed.seed(PACK)
    program = bed.start(*SHORT, *bed.hooks)
    early, late = PARTS[bed.session.version]
    with paused(program):
        bed.session.erase(PACK)
        bed.session.load(new, bed.downloads)
        for kind in early:
            bed.session.write(new, kind)
    program.wait_line(rf"((held|returned) +pack|(held|kept) .*{TWIN.hash[:8]})")
    assert remaining(paths) == paths
    for kind in late:
        bed.session.write(new, kind)
    host = "tracker.example" if new is EDITED else "127.0.0.1"
    expected = (host, *(bed.session.file(new, kind).read_bytes() for kind in "TLR"))
    sql = f"SELECT tracker, torrent, libtorrent, rtorrent FROM torrent_data WHERE hash = '{new.hash}'"
    program.wait_rows(sql, lambda rows: rows == [expected])
    bed.erase_another()
    program.wait_files(new.hash, paths)
    assert remaining(paths) == paths
    assert bed.hooks_called(PACK.hash) == ([] if new is EDITED else ["pre_remove", "post_remove"])
    bed.session.finish(new)
    bed.session.save(new)
    bed.settle()
    bed.erase(new)
    assert remaining(paths) == []


def test_a_move_that_cannot_be_written_to_the_database_keeps_the_files(bed: Bed, tmp_path: Path) -> None:
    paths = bed.seed(PACK, single("stays"))
    bed.session.download(RENAMED_ROOT, tmp_path / "other")
    asked, answer, hooks = tmp_path / "asked", tmp_path / "answer", tmp_path / "slow.py"
    os.mkfifo(answer)
    hooks.write_text(f"""
def pre_remove(con, file, args):
    open({str(asked)!r}, "w").close()
    open({str(answer)!r}).read()
""")
    program = bed.start(*SHORT, "--hooks", hooks)
    bed.session.erase(PACK)
    program.wait_for(asked.exists, "pre_remove is not called")
    bed.session.set_directory_base(RENAMED_ROOT, bed.downloads / "pack")
    bed.session.save(RENAMED_ROOT)
    with closing(sqlite3.connect(bed.db, isolation_level=None)) as con:
        con.execute("BEGIN IMMEDIATE")
        answer.write_text("go on")
        program.wait_line("failed .*database is locked")
        con.execute("ROLLBACK")
    answer.unlink()
    answer.write_text("pre_remove is called again, with the next try")
    program.wait_gone(PACK.hash)
    assert remaining(paths) == paths


def test_a_directory_replaced_by_a_link_keeps_the_target(bed: Bed) -> None:
    paths = bed.seed(PACK, to="real")
    bed.seed(TWIN, to="copy")
    program = bed.start(*SHORT)
    shutil.rmtree(bed.downloads / "copy")
    (bed.downloads / "copy").symlink_to("real")
    bed.erase(PACK)
    program.wait_line("kept .*" + names(TWIN, "in"))
    assert remaining(paths) == paths
    bed.session.save(TWIN)
    program.wait_files(TWIN.hash, paths)
    bed.erase(TWIN)
    assert remaining(paths) == []


@pytest.mark.parametrize("since", ["saved", "not saved", "rtwatch started", "complete"])
def test_a_link_made_after_loading_keeps_its_target(since: str, bed: Bed) -> None:
    other = TWIN if since == "complete" else RENAMED
    paths = bed.seed(PACK, to="real")
    root = other.root(bed.downloads / "links")
    program = bed.start(*SHORT)
    bed.add(other, to="links")
    program.wait_known(other.hash)
    if since == "complete":
        other.write_root(root)
        bed.session.finish(other)
        bed.session.save(other)
        bed.settle()
        shutil.rmtree(root)
    link_files(paths, other.paths(root))
    if since == "saved":
        bed.session.finish(other)
        bed.session.save(other)
    elif since == "rtwatch started":
        program.stop()
        program = bed.start(*SHORT)
    bed.settle()
    bed.erase(PACK)
    program.wait_line(f"kept .* in {other.hash[:8]}")
    assert remaining(paths) == paths


@pytest.mark.parametrize("again", [False, True], ids=["not complete again", "complete again"])
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
def test_a_link_made_while_a_torrent_has_no_data_any_more_keeps_its_target(moved: bool, again: bool, bed: Bed) -> None:
    paths = bed.seed(PACK, to="real")
    bed.seed(RENAMED, to="real")
    program = bed.start(*SHORT)
    shutil.rmtree(RENAMED.root(bed.downloads / "real"))
    place = bed.downloads / ("links" if moved else "real")
    bed.session.set_directory(RENAMED, place)
    bed.session.loaded[RENAMED.hash].rtorrent.update({"complete": 0, "chunks_done": 0})
    bed.session.save(RENAMED)
    bed.settle()
    link_files(paths, RENAMED.paths(RENAMED.root(place)))
    if again:
        bed.session.finish(RENAMED)
        bed.session.save(RENAMED)
    bed.erase(PACK)
    program.wait_line(f"kept .*used by a symlink in {RENAMED.hash[:8]}")
    assert remaining(paths) == paths
