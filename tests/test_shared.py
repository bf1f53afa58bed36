"""Files that several torrents use, whatever way leads there, now or later: they stay until the last of them goes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Mount
from session import SAVES, VERSIONS, Session
from steps import SHORT, Bed, below, link_files, names, paused, remaining, wait_stopped
from torrents import Torrent, make, multi, single, twin_of

FIRST = make(b"pack", {(b"both.bin",): b"both" * 100, (b"sub", b"first.bin"): b"first" * 100})
SECOND = make(b"pack", {(b"both.bin",): b"both" * 100, (b"second.bin",): b"second" * 100})
PACK, TWIN = multi("pack"), twin_of(multi("pack"))
RENAMED = make(b"two", {(b"x.bin",): b"pack" * 100, (b"y.bin",): b"pack" * 200})  # the data of PACK


class Way(NamedTuple):
    """How another torrent gets to the files of PACK in real/pack: its root, and what is made before it is loaded.

    What is done `after` rtwatch has seen both makes it so only then.
    """

    torrent: Torrent
    base: str
    shell: str = ""
    after: str = ""
    bound: str | None = None  # mounted on bound


WAYS = {
    "the same path": Way(TWIN, "real/pack"),
    "another string": Way(TWIN, "x/..//link/real/pack/", "mkdir x; ln -s . link"),
    "rtorrent's home": Way(TWIN, "~/downloads/real/pack"),
    "symlinks": Way(TWIN, "links/pack", "mkdir links; cp -rs $PWD/real/pack links"),
    "symlinks of other names": Way(
        RENAMED,
        "two",
        "mkdir two; cd two; ln -s ../real/pack/a.bin hop; ln -s hop x.bin; ln -s ../real/pack/sub/b.bin y.bin",
    ),
    "a directory that became a link": Way(TWIN, "copy/pack", "cp -r real copy", "rm -r copy; ln -s real copy"),
    "symlinks through a link that was changed": Way(
        TWIN,
        "links/pack",
        "cp -r real copy; ln -s copy link; mkdir links; cp -rs $PWD/link/pack links",
        "ln -sfn real link; rm -r copy",
    ),
    "a bind mount": Way(TWIN, "bound/pack", bound="real"),
    "a bind mount of another name": Way(twin_of(PACK, b"another name"), "bound", bound="real/pack"),
}


@pytest.mark.parametrize("first", [0, 1], ids=["the owner first", "the other first"])
@pytest.mark.parametrize("way_name", WAYS)
def test_a_shared_file_goes_with_its_last_torrent(way_name: str, first: int, bed: Bed, mount: Mount) -> None:
    way = WAYS[way_name]
    paths = bed.seed(PACK, to="real")
    subprocess.run(["sh", "-ec", way.shell], cwd=bed.downloads, check=True)
    if way.bound:
        mount(bed.downloads / "bound", "--bind", bed.downloads / way.bound)
    bed.add_complete(way.torrent, base=way.base if way.base[0] == "~" else f"{bed.downloads}/{way.base}")
    program = bed.start(*SHORT)
    subprocess.run(["sh", "-ec", way.after], cwd=bed.downloads, check=True)
    erased, stays = [(PACK, way.torrent), (way.torrent, PACK)][first]
    bed.erase(erased)
    program.wait_line("removed .*2 of 2 files" if first and "symlinks" in way_name else "kept .*" + names(stays, "in"))
    assert remaining(paths) == paths
    bed.erase(stays)
    left = [name for name in below(bed.downloads) if name.endswith(".bin") or name in ("real/pack", "links/pack")]
    assert {*left} <= {way.bound}


@pytest.mark.parametrize("name", ["One.bin", "caf\u00e9"])
def test_the_same_file_under_a_name_in_another_case_or_normal_form_is_anothers(name: str, bed: Bed) -> None:
    other = name.swapcase() if name.isascii() else unicodedata.normalize("NFD", name)
    torrent, twin = make(name.encode(), b"one" * 100), make(other.encode(), b"one" * 100)
    [path] = bed.seed(torrent)
    os.link(path, bed.downloads / other)  # as a file system that folds names shows one file
    bed.add(twin)
    program = bed.start(*SHORT)
    bed.erase(torrent)
    program.wait_line("kept .*also in " + twin.hash[:8])
    assert path.exists()


def test_a_file_and_a_directory_of_one_name_stay_apart(bed: Bed) -> None:
    file = make(b"pack", b"one file")
    paths = bed.seed(PACK)
    bed.add(file, chunks_done=1)
    program = bed.start(*SHORT)
    bed.erase(file)
    program.wait_line("pack: not a regular file")
    assert remaining(paths) == paths
    bed.add(file, chunks_done=1)
    shutil.rmtree(bed.downloads / "pack")
    (bed.downloads / "pack").write_bytes(b"one file")
    program.wait_known(file.hash)
    bed.erase(PACK)
    assert (bed.downloads / "pack").read_bytes() == b"one file"


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_hard_links_are_separate_names(together: bool, bed: Bed) -> None:
    paths, links = bed.seed(PACK, to="real"), TWIN.paths(bed.downloads / "links" / "pack")
    for path, link in zip(paths, links):
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
    bed.add_complete(TWIN, to="links")
    program = bed.start(*SHORT)
    if not together:
        bed.erase(PACK)
        assert (remaining(paths), remaining(links)) == ([], links)
        bed.settle()  # the removal has changed the ctime of the links: TWIN vanishes after that
    bed.erase(*([PACK, TWIN] if together else [TWIN]))
    program.wait_line("removed .*2 of 2 files, 0 B")
    program.wait_line("removed .*2 of 2 files, 8 KiB")
    assert remaining(paths + links) == []


def test_a_target_goes_with_the_last_link_to_it(bed: Bed) -> None:
    torrent, twin, third = single("one"), make(b"two", single("one").content), make(b"three", single("one").content)
    paths = bed.seed(torrent)
    links = [bed.downloads / "two", bed.downloads / "three"]
    links[0].symlink_to("one.bin")
    links[1].symlink_to("two")
    for other in twin, third:
        bed.add_complete(other)
    program = bed.start(*SHORT)
    bed.erase(torrent)
    program.stop()
    program = bed.start(*SHORT)
    bed.erase(twin)
    assert remaining(links + paths) == links + paths
    bed.erase(third)
    assert remaining(links + paths) == []


@pytest.mark.parametrize("own", ["gone", "a directory"])
@pytest.mark.parametrize("inherited", ["untouched", "changed", "gone"])
def test_own_and_inherited_files_are_accounted_for_each_by_itself(own: str, inherited: str, bed: Bed) -> None:
    torrent, twin = single("one"), make(b"two", {(b"a.bin",): single("one").data()})
    [path], [link] = bed.seed(torrent), twin.paths(bed.downloads / "two")
    link_files([path], [link])
    bed.add_complete(twin)
    program = bed.start(*SHORT)
    bed.erase(torrent)
    program.wait_line("used by a symlink in")
    link.unlink()
    if own == "a directory":
        link.mkdir()
    if inherited == "gone":
        path.unlink()
    elif inherited == "changed":
        path.write_bytes(b"mine")
        os.utime(path, (4e9, 4e9))
    since = len(program.lines)
    bed.erase(twin)
    program.wait_line("removed +two, 1 of" if inherited == "untouched" else "erased +two, ", since)
    program.stop()
    said = "\n".join(program.lines[since:])
    assert re.search(r"kept +\S*one\.bin: ", said) if inherited == "changed" else "one.bin" not in said
    assert ("kept       a.bin: not a regular file" in said) == (own == "a directory")
    assert ("its file is not at" in said) == (own == "gone")
    assert remaining([path]) == ([path] if inherited == "changed" else [])


@pytest.mark.parametrize("link", [False, True], ids=["a file", "a link"])
def test_a_torrent_whose_place_is_not_known_may_use_whatever_bears_its_name(link: bool, bed: Bed) -> None:
    torrent = make(b"b.bin", b"b" * 100)
    stays = PACK if link else twin_of(torrent)
    paths, others = bed.seed(torrent), bed.seed(single("other"))
    bed.session.kill()
    bed.session.lock.unlink()  # nobody can tell where "~" is
    bed.session.add(stays, "~/elsewhere")
    if link:
        link_files(paths, [bed.session.home / "elsewhere" / "pack" / "sub" / "b.bin"])
    program = bed.start(*SHORT)
    program.wait_line(r"unknown +where .* are, looked at again every minute$")
    program.wait_line(r'  because +"~/elsewhere\S*" starts at the home of rtorrent, and no rtorrent is seen running$')
    bed.session.erase(torrent, single("other"))
    program.wait_line("waiting .*other")
    bed.settle()
    bed.session.save_all()
    program.wait_gone(torrent.hash)
    program.wait_gone(single("other").hash)
    program.wait_line("kept .*" + names(stays, "perhaps in"))
    assert (remaining(paths), remaining(others)) == (paths, [])


def test_a_symlink_on_the_way_to_a_torrent_whose_place_is_not_known_stays(bed: Bed) -> None:
    paths = PACK.write(bed.downloads / "real")
    bed.session.kill()
    bed.session.lock.unlink()
    link = bed.session.home / "pack"
    link.symlink_to(bed.downloads / "real" / "pack")
    bed.session.add(TWIN, "~")
    bed.add_complete(PACK, base=link)
    program = bed.start(*SHORT)
    program.wait_line("unknown +where .* are")
    bed.session.erase(PACK)
    program.wait_line("waiting .*pack")
    bed.settle()
    bed.session.save_all()
    program.wait_gone(PACK.hash)
    assert (remaining([link]), remaining(paths)) == ([link], paths)


def test_a_torrent_that_comes_during_pre_remove_keeps_its_files(bed: Bed, tmp_path: Path) -> None:
    prepared = Session(tmp_path / "prepared")
    prepared.add(SECOND, bed.downloads)
    bed.seed(FIRST)
    body = f"[p.rename(args.session / p.name) for p in Path({str(prepared.path)!r}).iterdir()]"
    program = bed.start(*SHORT, *bed.write_each(pre_remove=body))
    bed.erase(FIRST)
    program.wait_line("kept +both.bin: " + names(SECOND))
    assert below(bed.downloads) == ["pack", "pack/both.bin"]
    program.wait_files(SECOND.hash, SECOND.paths(bed.downloads / "pack"))


PARTS = {"0.9.8": ("LR", "T"), "0.16": ("T", "LR")}  # of a full save, between which it may be looked at
EDITED = make(PACK.name, PACK.content, b"http://tracker.example/announce")


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


@pytest.mark.parametrize("other", ["links", "its directory"])
def test_the_link_of_an_erased_torrents_root_stays_while_another_torrent_leads_through_it(other: str, bed: Bed) -> None:
    PACK.write_root(bed.downloads / "store")
    (bed.downloads / "pack").symlink_to("store")
    bed.add_complete(PACK)
    paths = RENAMED.paths(bed.downloads / ("pack/two" if other == "its directory" else "two"))
    if other == "links":
        link_files(PACK.paths(bed.downloads / "pack"), paths)
        bed.add_complete(RENAMED)
    else:
        RENAMED.write_root(paths[0].parent)
        bed.add_complete(RENAMED, to="pack")
    program = bed.start(*SHORT)
    bed.erase(PACK)
    program.wait_line(r"kept +pack: on the way to files in|kept .*/pack: on the way to files in")
    assert [path.exists() for path in paths] == [True, True]


def test_a_relative_link_below_a_directory_that_was_moved_keeps_what_it_leads_to_now(bed: Bed) -> None:
    torrent, other = make(b"film.bin", b"f" * 3000), make(b"set", {(b"sub", b"deep", b"film"): b"f" * 3000})
    [film] = bed.seed(torrent, to="new/pool")
    link = bed.downloads / "old/set/sub/deep/film"
    (bed.downloads / "old/pool").mkdir(parents=True)
    shutil.copy(film, bed.downloads / "old/pool/film.bin")
    link_files([Path("../../../pool/film.bin")], [link])
    bed.add_complete(other, to="old")
    program = bed.start(*SHORT)
    while time.time() - link.parent.stat().st_ctime < 1.1:  # else its ctime tells nothing
        time.sleep(0.1)
    bed.erase_another()  # which looks at all directories
    (bed.downloads / "new/set").mkdir()
    (bed.downloads / "old/set/sub").rename(bed.downloads / "new/set/sub")
    (bed.downloads / "old/set/sub").symlink_to(bed.downloads / "new/set/sub")
    bed.erase(torrent)
    program.wait_line("kept .*used by a symlink in")
    assert film.samefile(link)


@pytest.mark.parametrize("way", ["a link", "a bind mount"])
def test_what_an_unreadable_torrent_uses_by_another_way_is_kept(way: str, bed: Bed, mount: Mount) -> None:
    torrent = single("film", 3000)
    twin = twin_of(torrent)
    paths = bed.seed(torrent, to="real")
    if way == "a link":
        link_files(paths, [bed.downloads / "other" / paths[0].name])
    else:
        mount(bed.downloads / "other", "--bind", bed.downloads / "real")
    bed.add_complete(twin, to="other")
    bed.session.file(twin).write_bytes(b"")
    for method in SAVES:
        bed.session.scgi.answers[method] = 0
    program = bed.start(*SHORT)
    bed.erase(torrent)
    program.wait_line(f"kept .*perhaps in {twin.hash[:8]}")
    assert remaining(paths) == paths


def test_a_torrent_that_comes_by_another_path_while_a_removal_waits_keeps_its_files(bed: Bed, mount: Mount) -> None:
    torrent = single("film", 3000)
    view = mount(bed.downloads / "view", "--bind", bed.downloads)
    program = bed.start(*SHORT)
    [path] = bed.download(torrent)
    bed.session.open_files([path])
    bed.session.erase(torrent)
    program.wait_line("waiting .*close files")
    bed.add_complete(twin_of(torrent), to=view)
    bed.settle()
    bed.session.open_files([])
    bed.erase_another()
    program.wait_gone(torrent.hash)
    program.wait_line("kept .*also in")
    assert path.exists()


@pytest.mark.parametrize("then", ["nothing", "it is complete again", "rtwatch is started again"])
@pytest.mark.parametrize("before", ["no data yet", "complete", "no data any more", "no data where it was moved"])
def test_a_link_made_under_a_loaded_torrent_keeps_its_target(before: str, then: str, bed: Bed) -> None:
    paths = bed.seed(PACK, to="real")
    program = bed.start(*SHORT)
    place = "moved" if "moved" in before else "links"
    if before == "no data yet":
        bed.add(RENAMED, to="links")
    else:
        bed.download(RENAMED, to="links")
        shutil.rmtree(bed.downloads / "links")
    if before.startswith("no data"):
        bed.session.loaded[RENAMED.hash].rtorrent.update({"complete": 0, "chunks_done": 0})
        bed.repoint(RENAMED, place)
    bed.settle()
    link_files(paths, RENAMED.places(bed.downloads / place))
    if then == "it is complete again":
        bed.session.finish(RENAMED)
        bed.session.save(RENAMED)
    elif then == "rtwatch is started again":
        program.stop()
        program = bed.start(*SHORT)
    bed.settle()
    bed.erase(PACK)
    program.wait_line(f"kept .* in {RENAMED.hash[:8]}")
    assert remaining(paths) == paths


@pytest.mark.parametrize("case", ["many saves before it", "a locked database", "a long torrent before it"])
def test_a_removal_about_to_begin_waits_for_every_save_that_came(case: str, bed: Bed) -> None:
    others = [single(f"other{number}", 1) for number in range(200)]
    wide = make(b"wide", {(b"%05d" % number,): b"" for number in range(2500)})
    paths = bed.seed(PACK)
    bed.seed(*others, wide)
    bed.seed(TWIN, to="elsewhere")
    program = bed.start(*SHORT, *bed.write_each(pre_remove="os.kill(os.getpid(), 19)"))
    bed.rtorrent.erase(PACK)
    wait_stopped(program)
    with closing(sqlite3.connect(bed.db)) as locking:
        if case == "a long torrent before it":
            bed.repoint(wide, "moved")
        for other in others if case == "many saves before it" else ():
            bed.session.save(other)
        bed.repoint(TWIN, "")
        if case == "a locked database":
            locking.execute("BEGIN EXCLUSIVE")
        program.send_signal(signal.SIGCONT)
        if case == "a locked database":
            program.wait_line("failed .*locked")
    program.wait_line("kept .*" + names(TWIN))
    assert remaining(paths) == paths


def test_what_a_torrent_inherits_stays_its_own_when_something_else_fails(bed: Bed) -> None:
    paths = bed.seed(PACK, to="real")
    links = TWIN.paths(bed.downloads / "links" / "pack")
    link_files(paths, links)
    bed.add_complete(TWIN, to="links")
    hooks = """
def fail(con, item, args, queues):
    raise OSError(5, "of this queue")

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    queues["mine"], qfuncs["mine"] = collections.deque(), fail
    con.create_function("come", 0, lambda: queues["mine"].append(1))
    con.execute("CREATE TEMP TRIGGER t INSERT ON rtwatch_use WHEN new.why = 'inherited' BEGIN SELECT come(); END")
"""
    program = bed.start(*SHORT, *bed.write_hooks(hooks))
    bed.erase(PACK)
    program.wait_line("failed .*of this queue")
    assert remaining(paths) == paths
    bed.erase(TWIN)
    assert not remaining([*paths, *links])


def test_a_link_on_the_way_to_a_library_is_a_persons_own(bed: Bed) -> None:
    bed.seed(PACK)
    os.rename(bed.downloads / "pack" / "sub", bed.downloads / "library")
    (bed.downloads / "way").symlink_to("library")
    (bed.downloads / "pack" / "sub").symlink_to("../way")
    bed.session.save(PACK)
    program = bed.start(*SHORT)
    bed.erase(PACK)
    program.wait_line("removed +pack, 2 of 3 files")
    assert below(bed.downloads) == ["library", "library/b.bin", "way"]
