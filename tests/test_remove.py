"""What -r removes, what it keeps and why, and that -n only says it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from program import Launcher
from session import Session
from steps import (
    LONG,
    SHORT,
    Hooks,
    below,
    download,
    erase,
    pattern,
    remaining,
    removed,
    seed,
    tree,
    wait_called,
    wait_held,
    wait_vanished,
)
from torrents import Torrent, craft, make, multi, single

OLD = 1600000000
PADDED = make(
    b"pack",
    {(b"a.bin",): b"a" * 100, (b".pad", b"924"): bytes(924), (b"b.bin",): b"b" * 100},
    files=[
        {"length": 100, "path": ["a.bin"]},
        {"length": 924, "path": [".pad", "924"], "attr": "p"},
        {"length": 100, "path": ["b.bin"]},
    ],
)
OTHER = make(b"other", {(b"c.bin",): b"c" * 100, (b"sub", b"d.bin"): b"d" * 100})
DEEP = make(b"pack", {(b"a",): b"", (b"b", b"c"): b"x" * 9, (b"d", b"e", b"f"): b"y" * 9})
MANY = make(b"pack", {(b"%d" % (number % 7), b"%d" % number): b"x" for number in range(1000)})
EMPTY_ELEMENT = make(b"pack", {(b"a.bin",): b"a" * 9, (b"x", b""): b"data"})  # to rtorrent 0.16 this is pack/x
BIND = f"{sys.executable} -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"pack/a.bin\")'"


class Case(NamedTuple):
    """What somebody does in the download directory, what is left there after the erase, and what is said."""

    shell: str
    left: str
    line: str
    torrent: Torrent = multi("pack")
    base: str | None = None


CASES = {
    "nothing": Case("", "", r"remove\w* +pack, 2 of 2 files"),
    "another file beside a single file": Case("touch mine", "mine", r"remove\w* +one\.bin, 1 of 1 file", single("one")),
    "empty files and deep directories": Case("", "", r"remove\w* +pack, 3 of 3 files", DEEP),
    "a thousand files": Case("", "", r"remove\w* +pack, 1000 of 1000 files", MANY),
    "padding files, as 0.9.8 writes them": Case("", "", r"remove\w* +pack, 3 of 3 files", PADDED),
    "no padding files, as with 0.16": Case("rm -r pack/.pad", "", r"remove\w* +pack, 2 of 3 files", PADDED),
    "a file is missing": Case("rm pack/a.bin", "", r"remove\w* +pack, 1 of 2 files"),
    "all files are elsewhere": Case(
        "mv pack moved",
        "moved moved/a.bin moved/sub moved/sub/b.bin",
        r"none of its 2 files is at \S*/pack: moved, or its disk is not mounted",
    ),
    "a file has another name too": Case("ln pack/a.bin mine", "mine", r"remove\w* +pack, 2 of 2 files"),
    "a file became a symlink": Case(
        "mv pack/a.bin mine; ln -s ../mine pack/a.bin", "mine", r"remove\w* +pack, 2 of 2 files"
    ),
    # kept with a reason
    "a directory in place of a file": Case(
        "rm pack/a.bin; mkdir pack/a.bin", "pack pack/a.bin", r"kept +a\.bin: not a regular file"
    ),
    "a pipe in place of a file": Case(
        "rm pack/a.bin; mkfifo pack/a.bin", "pack pack/a.bin", r"kept +a\.bin: not a regular file"
    ),
    "a socket in place of a file": Case(
        f"rm pack/a.bin; {BIND}", "pack pack/a.bin", r"kept +a\.bin: not a regular file"
    ),
    "a tagger made a file longer": Case(
        "echo tags >>pack/a.bin", "pack pack/a.bin", r"kept +a\.bin: longer than the \w+ says"
    ),
    "a file of an empty last element is longer": Case(
        "echo more >>pack/x", "pack pack/x", r"kept +x: longer than the \w+ says", EMPTY_ELEMENT
    ),
    # directories
    "somebody's file in a subdirectory": Case(
        "touch pack/sub/mine", "pack pack/sub pack/sub/mine", r"remove\w* +pack, 2 of 2 files"
    ),
    "somebody's empty directory": Case("mkdir pack/mine", "pack pack/mine", r"remove\w* +pack, 2 of 2 files"),
    "the root has another name": Case("", "common", r"remove\w* +pack, 2 of 2 files", base="common"),
    "a single file in a directory": Case("", "common", r"remove\w* +one\.bin, 1 of 1 file", single("one"), "common"),
    "the root is the home directory and has its name": Case(
        "", "", r"remove\w* +downloads, 2 of 2 files", multi("downloads"), "."
    ),
    **{
        f"the root is the download directory, {kind}": Case(
            "mkdir empty; touch mine sub/mine",
            "empty mine sub sub/mine",
            r"remove\w* .*2 of 2 files",
            make(name, multi("pack").content),
            ".",
        )
        for kind, name in {"its name": b"downloads", "another name": b"pack", "no name": b""}.items()
    },
}


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_erased_torrents_own_files_go_and_nothing_else(
    case: Case, options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(case.torrent, downloads, downloads / case.base if case.base else None)
    program = launcher.start(*SHORT, *options, env={"HOME": str(downloads)})
    subprocess.run(["sh", "-ec", case.shell], cwd=downloads, check=True)
    before = tree(downloads)
    session.erase(case.torrent)
    program.wait_line(case.line)
    if options:
        assert tree(downloads) == before
    else:
        assert downloads.is_dir()
        assert below(downloads) == case.left.split()
    assert ("kept" in program.output) == ("kept" in case.line or "none of" in case.line)


def test_the_directory_of_a_single_file_stays_though_it_bears_its_name(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads / "one.bin")
    program = launcher.start(*SHORT)
    erase(program, session, single("one"))
    assert below(downloads) == ["one.bin"]


def test_an_incomplete_download_goes(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = multi("pack")
    program = launcher.start(*SHORT)
    session.add(torrent, downloads, chunks_done=1)
    program.wait_known(torrent.hash)
    paths = torrent.write(downloads)
    os.truncate(paths[0], 1)
    erase(program, session, torrent)
    assert below(downloads) == []


@pytest.mark.parametrize(
    ("options", "removes", "remains"),
    [(("-r",), True, False), (("-r", "-n"), True, True), ((), False, True)],
    ids=["-r", "-r -n", "without -r"],
)
def test_post_remove_is_given_the_files_that_are_removed(
    options: tuple[str, ...], removes: bool, remains: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, multi("pack"))
    program = launcher.start(*options, "--grace", "0.2", *launcher.hooks)
    session.erase(multi("pack"))
    [call] = wait_called(program, launcher, "post_remove", multi("pack"))
    assert sorted(call["removed"]["torfiles"]) == sorted(map(str, paths))
    assert removed(launcher, multi("pack")) == (sorted(paths) if removes else [])
    assert remaining(paths) == (paths if remains else [])


@pytest.mark.parametrize(
    ("base", "other", "left"),
    [
        ("pack", OTHER, "pack pack/sub"),
        ("pack/sub", OTHER, "pack pack/sub"),
        ("pack/sub", single("other"), "pack pack/sub"),
    ],
    ids=["its root", "a root in it", "the directory of a single file in it"],
)
def test_an_empty_directory_that_another_torrent_uses_stays(
    base: str, other: Torrent, left: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(multi("pack"), downloads)
    session.add(other, downloads, downloads / base)
    program = launcher.start(*SHORT)
    erase(program, session, multi("pack"))
    assert below(downloads) == left.split()


@pytest.mark.parametrize("part", ["pack", "pack/sub"])
def test_a_directory_that_became_a_symlink_is_not_followed(
    part: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(multi("pack"), downloads)
    program = launcher.start(*SHORT)
    moved = downloads / "moved"
    (downloads / part).rename(moved)
    (downloads / part).symlink_to(moved)
    before = tree(moved)
    erase(program, session, multi("pack"))
    assert tree(moved) == before


def test_a_directory_behind_a_symlink_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    for name in "real", "pack":
        (downloads / name).mkdir()
    (downloads / "pack" / "sub").symlink_to(downloads / "real")
    session.download(multi("pack"), downloads)
    program = launcher.start(*SHORT)
    erase(program, session, multi("pack"))
    assert (downloads / "real").is_dir()


# not the torrent's data


@pytest.mark.parametrize("size", [1000, 3000, 5000], ids=["smaller", "same size", "bigger"])
@pytest.mark.parametrize("saved", [True, False], ids=["saved again", "not saved"])
def test_a_persons_file_where_a_torrent_wants_to_write_is_kept(
    saved: bool, size: int, session: Session, launcher: Launcher, downloads: Path
) -> None:
    mine = downloads / "one.bin"
    mine.write_bytes(b"mine" * (size // 4))
    os.utime(mine, (OLD, OLD))
    program = launcher.start(*SHORT)
    session.add(single("one", 3000), downloads)
    program.wait_known(single("one").hash)
    if saved:
        session.save(single("one"))
    erase(program, session, single("one"))
    program.wait_line(r"kept +one\.bin: ")
    assert mine.read_bytes() == b"mine" * (size // 4)


AFTER_THE_ERASE = {
    "written anew": "printf mine >pack/a.bin",
    "made longer": "printf mine >>pack/a.bin",
    "written with its old time": "touch -r pack/a.bin mine; printf mine >pack/a.bin; touch -r mine pack/a.bin",
    "replaced": "mv mine pack/a.bin",
    "replaced by an older one": "touch -d 2020-01-01 mine; mv mine pack/a.bin",
    "replaced by a link": "ln -sf ../mine pack/a.bin",
}


@pytest.mark.parametrize("down", [True, False], ids=["rtwatch is down", "rtwatch runs"])
@pytest.mark.parametrize("shell", AFTER_THE_ERASE.values(), ids=AFTER_THE_ERASE)
def test_a_file_changed_after_the_erase_is_kept(
    shell: str, down: bool, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    paths = seed(session, downloads, multi("pack"))
    (downloads / "mine").write_bytes(b"mine")
    program = launcher.start(*LONG)
    wait_vanished(program, session, multi("pack"))
    program.stop()
    options: tuple[str, ...] = ()
    if down:
        subprocess.run(["sh", "-ec", shell], cwd=downloads, check=True)
    else:
        options = hooks.write_each(pre_remove=f"os.chdir({str(downloads)!r}); assert not os.system({shell!r})")
    assert launcher.once(*SHORT, *options).returncode == 0
    assert b"mine" in paths[0].read_bytes()
    assert remaining(paths) == paths[:1]


def test_a_torrent_that_returns_during_pre_remove_keeps_its_files(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    paths = seed(session, downloads, multi("one"))
    program = launcher.start(*SHORT, *hooks.write_each(pre_remove="file.touch()"))
    session.erase(multi("one"))
    program.wait_for(session.file(multi("one")).exists, "pre_remove is not called")
    program.stop()
    assert remaining(paths) == paths
    session.file(multi("one")).write_bytes(multi("one").metainfo)
    launcher.start(*SHORT).wait_files(multi("one").hash, paths)


# where nothing is removed


def test_only_files_below_a_path_go(session: Session, launcher: Launcher, downloads: Path) -> None:
    (downloads / "in").mkdir()
    (downloads / "link").symlink_to("in")
    program = launcher.start(*SHORT, paths=[downloads / "link"])
    gone = download(program, session, downloads / "in", multi("one"))
    kept = download(program, session, downloads / "in2", multi("two"))
    kept += download(program, session, downloads / "out", multi("three"))
    erase(program, session, *map(multi, ("one", "two", "three")))
    program.wait_line("erased +two, none of 2 files")
    assert remaining(gone) == []
    assert remaining(kept) == kept


def test_a_path_may_be_relative_and_is_never_removed(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.download(multi("pack"), downloads)
    program = launcher.start(*SHORT, paths=[Path("pack")], cwd=downloads)
    erase(program, session, multi("pack"))
    assert below(downloads) == ["pack"]


def test_the_lock_of_another_host_needs_a_path(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.kill()
    session.lock.unlink()
    session.write_lock("elsewhere.example", 123)
    paths = seed(session, downloads / "in", multi("one"), multi("two"))
    others = seed(session, downloads, multi("three"))
    program = launcher.start(*SHORT)
    session.erase(multi("one"))
    wait_held(program, multi("one"), "host")
    assert remaining(paths) == paths
    program.stop()
    program = launcher.start(*SHORT, paths=[downloads / "in"])
    session.erase(multi("two"), multi("three"))
    program.wait_line("waiting .*three")
    session.save_all()
    program.wait_gone(multi("two").hash)
    program.wait_gone(multi("three").hash)
    assert remaining(paths[2:]) == []
    assert remaining(others) == others


@pytest.mark.parametrize("link", [False, True], ids=["by its name", "through a link"])
def test_nothing_in_the_session_directory_goes(
    link: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    stays, deep = multi("stays"), make(b"pack", {(b"a",): b"a" * 9})
    session.download(stays, downloads)
    evil = make(stays.hash.encode() + b".torrent", session.file(stays).read_bytes())
    deep.write(session.path)
    place = session.path
    if link:
        place = downloads / "link"
        place.symlink_to(session.path)
    for torrent in evil, deep:
        session.add(torrent, place)
        session.finish(torrent)
        session.save(torrent)
    program = launcher.start(*SHORT)
    before = tree(session.path / "pack", session.file(stays))
    for torrent in evil, deep:
        program.wait_files(torrent.hash, [])
    erase(program, session, evil, deep)
    assert tree(session.path / "pack", session.file(stays)) == before


# -n and --once


@pytest.mark.parametrize("known", [True, False], ids=["with a database", "without one"])
def test_a_dry_run_changes_nothing(known: bool, session: Session, launcher: Launcher, downloads: Path) -> None:
    seed(session, downloads, multi("pack"), single("one"))
    if known:
        assert launcher.once("-r").returncode == 0
    before = tree(launcher.state, downloads)
    program = launcher.start(*SHORT, "-n")
    session.erase(multi("pack"))
    program.wait_line("would remove +pack")
    assert program.stop() == 0
    assert tree(launcher.state, downloads) == before
    assert launcher.db.exists() == known


def test_a_dry_run_finishes_vanished_torrents_only_in_words(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    seed(session, downloads, multi("pack"), *map(single, ("one", "two", "three")))
    program = launcher.start(*LONG)
    wait_vanished(program, session, multi("pack"))
    program.stop()
    session.erase(single("one"))
    before = tree(launcher.state, downloads, session.path)
    dry = launcher.once(*SHORT, "-n", "--catch-up")
    assert (dry.returncode, dry.stdout) == (0, "")
    for torrent in multi("pack"), single("one"):
        assert re.search(f"would remove +{pattern(torrent)}", dry.stderr)
    assert tree(launcher.state, downloads, session.path) == before


def test_once_waits_for_the_grace(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = seed(session, downloads, multi("one"))
    program = launcher.start(*LONG)
    wait_vanished(program, session, multi("one"))
    program.stop()
    assert remaining(paths) == paths
    assert launcher.once("-r", "--grace", "0.4", *launcher.hooks).returncode == 0
    assert remaining(paths) == []
    assert launcher.hooks_called() == ["pre_loop", "pre_remove", "post_remove", "post_loop"]


def test_twenty_thousand_missing_files_are_said_at_once(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    """300,000 took hours of processor time: a list was searched for each of them."""
    large = craft({"name": b"large", "files": [{"length": 1, "path": [b"%d" % number]} for number in range(20_000)]})
    program = launcher.start(*SHORT)
    session.add(large, downloads)
    program.wait_known(large.hash)
    erase(program, session, large)
    program.wait_line("kept +none of its 20000 files is at")
    fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[11]) / os.sysconf("SC_CLK_TCK") < 15
    assert program.stop() == 0


@pytest.mark.parametrize("error", ["MemoryError()", "UnicodeEncodeError('ascii', 'x', 0, 1, 'as in a locale')"])
@pytest.mark.parametrize("where", ["os.unlink", "os.lstat", "os.rmdir"])
def test_a_removal_that_fails_in_an_unforeseen_way_is_said_and_made_again(
    where: str, error: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    """Within a second, and with growing pauses; no file of it is left out the next time."""
    option = hooks.write(
        f"""
failures = [1]
before = {where}

def fail(path, *args, **options):
    if failures and os.path.basename(path) in ("a.bin", "sub"):
        failures.pop()
        raise {error}
    return before(path, *args, **options)

def pre_remove(con, file, args):
    {where} = fail
"""
    )
    program = launcher.start(*SHORT, *option)
    paths = download(program, session, downloads, multi("pack"))
    session.erase(multi("pack"))
    program.wait_line("failed +a removal")
    program.wait_line(r"removed +pack, 2 of 2 files")
    assert remaining([*paths, downloads / "pack"]) == []
    program.wait_gone(multi("pack").hash)
    assert program.stop() == 0
