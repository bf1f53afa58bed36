"""Files that several torrents use, whatever way leads there: they stay until the last of these torrents goes."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Mount
from program import Launcher
from session import Session
from steps import SHORT, Hooks, add_complete, below, erase, link_files, names, remaining, seed, wait_held
from torrents import Torrent, make, multi, single, twin_of

FIRST = make(b"pack", {(b"both.bin",): b"both" * 100, (b"sub", b"first.bin"): b"first" * 100})
SECOND = make(b"pack", {(b"both.bin",): b"both" * 100, (b"second.bin",): b"second" * 100})
PACK, TWIN = multi("pack"), twin_of(multi("pack"))
RENAMED = make(b"two", {(b"x.bin",): b"pack" * 100, (b"y.bin",): b"pack" * 200})  # the data of PACK


class Way(NamedTuple):
    """How another torrent gets to the files of PACK in real/pack: its root, and what is made before it is loaded."""

    torrent: Torrent
    base: str
    shell: str = ""
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
    "a bind mount": Way(TWIN, "bound/pack", bound="real"),
    "a bind mount of another name": Way(twin_of(PACK, b"another name"), "bound", bound="real/pack"),
}


@pytest.mark.parametrize("first", [0, 1], ids=["the owner first", "the other first"])
@pytest.mark.parametrize("way_name", WAYS)
def test_a_shared_file_goes_with_its_last_torrent(
    way_name: str, first: int, session: Session, launcher: Launcher, downloads: Path, mount: Mount
) -> None:
    way = WAYS[way_name]
    paths = seed(session, downloads / "real", PACK)
    subprocess.run(["sh", "-ec", way.shell], cwd=downloads, check=True)
    if way.bound:
        mount(downloads / "bound", "--bind", downloads / way.bound)
    add_complete(session, way.torrent, downloads, way.base if way.base[0] == "~" else f"{downloads}/{way.base}")
    program = launcher.start(*SHORT)
    erased, stays = [(PACK, way.torrent), (way.torrent, PACK)][first]
    erase(program, session, erased)
    program.wait_line("removed .*2 of 2 files" if first and "symlinks" in way_name else "kept .*" + names(stays, "in"))
    assert remaining(paths) == paths
    erase(program, session, stays)
    assert [name for name in below(downloads) if name.endswith(".bin")] == []


@pytest.mark.parametrize("first", [0, 1])
def test_a_shared_file_on_a_file_system_that_folds_case_goes_with_its_last_torrent(
    first: int, folding: Path, session: Session, launcher: Launcher
) -> None:
    torrent = make(b"Pack", {(b"A.bin",): b"pack" * 100, (b"sub", b"b.bin"): b"pack" * 200})
    twin = make(b"pack", {(b"a.BIN",): b"pack" * 100, (b"Sub", b"b.bin"): b"pack" * 200})
    paths = seed(session, folding, torrent)
    add_complete(session, twin, folding)
    program = launcher.start(*SHORT)
    erased, stays = [(torrent, twin), (twin, torrent)][first]
    erase(program, session, erased)
    program.wait_line("kept .*" + names(stays, "in"))
    assert remaining(paths) == paths
    erase(program, session, stays)
    assert remaining(paths) == []


@pytest.mark.parametrize("name", ["One.bin", "caf\u00e9"])
def test_the_same_file_under_a_name_in_another_case_or_normal_form_is_anothers(
    name: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    other = name.swapcase() if name.isascii() else unicodedata.normalize("NFD", name)
    torrent, twin = make(name.encode(), b"one" * 100), make(other.encode(), b"one" * 100)
    [path] = seed(session, downloads, torrent)
    os.link(path, downloads / other)  # as a file system that folds names shows one file
    session.add(twin, downloads)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line("kept .*also in " + twin.hash[:8])
    assert path.exists()


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_only_the_shared_part_of_a_torrent_is_kept_and_only_until_its_last_torrent_goes(
    together: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    seed(session, downloads, FIRST, SECOND)
    program = launcher.start(*SHORT)
    if not together:
        erase(program, session, FIRST)
        program.wait_line("kept +both.bin: " + names(SECOND))
        assert below(downloads) == ["pack", "pack/both.bin", "pack/second.bin"]
    erase(program, session, *([FIRST, SECOND] if together else [SECOND]))
    assert below(downloads) == []


def test_a_torrent_that_has_all_its_data_elsewhere_protects_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, others = seed(session, downloads / "one", PACK), seed(session, downloads / "two", TWIN)
    program = launcher.start(*SHORT)
    erase(program, session, PACK)
    assert remaining(paths) == []
    assert remaining(others) == others


def test_a_file_and_a_directory_of_the_same_name_leave_each_other_alone(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    file = make(b"pack", b"one file")
    paths = seed(session, downloads, PACK)
    session.add(file, downloads, chunks_done=1)
    program = launcher.start(*SHORT)
    erase(program, session, file)
    program.wait_line("pack: not a regular file")
    assert remaining(paths) == paths
    session.add(file, downloads, chunks_done=1)
    shutil.rmtree(downloads / "pack")
    (downloads / "pack").write_bytes(b"one file")
    program.wait_known(file.hash)
    erase(program, session, PACK)
    assert (downloads / "pack").read_bytes() == b"one file"


# other names of the same bytes


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_hard_links_of_two_torrents_are_names_of_their_own(
    together: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, links = seed(session, downloads / "real", PACK), TWIN.paths(downloads / "links" / "pack")
    for path, link in zip(paths, links):
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
    add_complete(session, TWIN, downloads / "links")
    program = launcher.start(*SHORT)
    if not together:
        erase(program, session, PACK)
        assert (remaining(paths), remaining(links)) == ([], links)
    erase(program, session, *([PACK, TWIN] if together else [TWIN]))
    program.wait_line("removed .*2 of 2 files, 0 B")
    program.wait_line("removed .*2 of 2 files, 8 KiB")
    assert remaining(paths + links) == []


def test_more_hard_links_than_one_pass_removes_all_go(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [single(f"one{number:02}") for number in range(25)]
    others = [make(b"other%02d" % number, torrent.data()) for number, torrent in enumerate(torrents)]
    paths = seed(session, downloads, *torrents)
    for path, other in zip(paths, others):
        os.link(path, downloads / os.fsdecode(other.name))
        add_complete(session, other, downloads)
    session.download(single("stays"), downloads)
    program = launcher.start(*SHORT)
    erase(program, session, *torrents, *others)
    assert below(downloads) == ["stays.bin"]


def test_a_file_renamed_for_another_torrent_is_that_ones(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent, twin = single("one"), make(b"renamed.bin", single("one").content)
    [path] = seed(session, downloads, torrent)
    path.rename(downloads / "renamed.bin")
    add_complete(session, twin, downloads)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line("missing +its file is not at")
    assert below(downloads) == ["renamed.bin"]
    erase(program, session, twin)
    assert below(downloads) == []


# files that are inherited from their owner through a symlink


def test_a_target_goes_with_the_last_of_several_torrents_that_link_to_it(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent, twin, third = single("one"), make(b"two", single("one").content), make(b"three", single("one").content)
    paths = seed(session, downloads, torrent)
    links = [downloads / "two", downloads / "three"]
    links[0].symlink_to("one.bin")
    links[1].symlink_to("two")
    for other in twin, third:
        add_complete(session, other, downloads)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.stop()
    program = launcher.start(*SHORT)
    erase(program, session, twin)
    assert remaining(links + paths) == links + paths
    erase(program, session, third)
    assert remaining(links + paths) == []


@pytest.mark.parametrize("own", ["gone", "a directory", "not known"])
@pytest.mark.parametrize("inherited", ["untouched", "changed", "gone"])
def test_own_and_inherited_files_are_accounted_for_each_by_itself(
    own: str, inherited: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent, twin = single("one"), make(b"two", {(b"a.bin",): single("one").data()})
    [path], [link] = seed(session, downloads, torrent), twin.paths(downloads / "two")
    link_files([path], [link])
    add_complete(session, twin, downloads)
    program = launcher.start(*SHORT)
    erase(program, session, torrent)
    program.wait_line("used by a symlink in")
    if own == "not known":
        session.kill()
        session.lock.unlink()  # nobody can tell where "elsewhere" is
        session.set_directory(twin, "elsewhere")
        session.save(twin)
        program.wait_files(twin.hash, [])
    else:
        link.unlink()
    if own == "a directory":
        link.mkdir()
    if inherited == "gone":
        path.unlink()
    elif inherited == "changed":
        path.write_bytes(b"mine")
        os.utime(path, (4e9, 4e9))
    since = len(program.lines)
    session.erase(twin)
    if own == "not known":
        program.wait_line("waiting .*two", since)
        session.save_all()
    program.wait_gone(twin.hash)
    program.wait_line("removed +two, 1 of" if inherited == "untouched" else "erased +two, ", since)
    program.stop()
    said = "\n".join(program.lines[since:])
    assert re.search(r"kept +\S*one\.bin: ", said) if inherited == "changed" else "one.bin" not in said
    assert ("kept       a.bin: not a regular file" in said) == (own == "a directory")
    assert ("its file is not at" in said) == (own == "gone")
    assert remaining([path]) == ([path] if inherited == "changed" else [])


# torrents that are not known well


@pytest.mark.parametrize("link", [False, True], ids=["a file", "a link"])
def test_a_torrent_whose_place_is_not_known_may_use_whatever_bears_its_name(
    link: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent = make(b"b.bin", b"b" * 100)
    stays = PACK if link else twin_of(torrent)
    paths, others = seed(session, downloads, torrent), seed(session, downloads, single("other"))
    session.kill()
    session.lock.unlink()  # nobody can tell where "elsewhere" is
    session.add(stays, "elsewhere")
    if link:
        link_files(paths, [session.cwd / "elsewhere" / "pack" / "sub" / "b.bin"])
    program = launcher.start(*SHORT)
    program.wait_line("unknown ")
    session.erase(torrent, single("other"))
    program.wait_line("waiting .*other")
    session.save_all()
    program.wait_gone(torrent.hash)
    program.wait_gone(single("other").hash)
    program.wait_line("kept .*" + names(stays, "perhaps in"))
    assert remaining(paths) == paths
    assert remaining(others) == []


def test_a_held_torrent_keeps_the_files_it_shares(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    paths = seed(session, downloads, PACK, TWIN)
    program = launcher.start(*SHORT, *hooks.write_each(pre_remove=f"assert file.stem != {PACK.hash!r}"))
    session.erase(PACK)
    wait_held(program, PACK, "its pre_remove hook failed")
    erase(program, session, TWIN)
    program.wait_line("kept .*" + names(PACK))
    assert remaining(paths[:2]) == paths[:2]


def test_a_torrent_that_comes_during_pre_remove_keeps_its_files(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    prepared = Session(tmp_path / "prepared")
    prepared.add(SECOND, downloads)
    seed(session, downloads, FIRST)
    body = f"[p.rename(args.session / p.name) for p in Path({str(prepared.path)!r}).iterdir()]"
    program = launcher.start(*SHORT, *hooks.write_each(pre_remove=body))
    erase(program, session, FIRST)
    program.wait_line("kept +both.bin: " + names(SECOND))
    assert below(downloads) == ["pack", "pack/both.bin"]
    program.wait_files(SECOND.hash, SECOND.paths(downloads / "pack"))


def test_a_torrent_whose_row_somebody_deleted_keeps_its_files_and_is_known_again_at_its_next_save(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    other = make(b"other", SECOND.content)
    session.download(FIRST, downloads)
    session.download(other, downloads, downloads / "pack")
    program = launcher.start(*SHORT)
    with closing(sqlite3.connect(program.db)) as con:  # as in the sqlite shell, where foreign keys are off
        con.execute("DELETE FROM torrent_data WHERE hash = ?", (other.hash,))
        con.commit()
    erase(program, session, FIRST)
    program.wait_line(rf'both.bin: also in {other.hash[:8]}\S* "\?"')
    assert below(downloads) == ["pack", "pack/both.bin", "pack/second.bin"]
    session.save(other)
    program.wait_known(other.hash)
