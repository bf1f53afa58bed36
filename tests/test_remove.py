"""What -r removes, what it keeps and why, and that -n only says it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from rtorrent import Rtorrent
from steps import SHORT, Bed, Options, below, pattern, remaining, tree, wait_held
from torrents import Torrent, craft, make, multi, single

import rtwatch

ONE, PACK = single("one"), multi("pack")
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
NO_FILE = r"kept +a\.bin: not a regular file"


class Case(NamedTuple):
    """What somebody does in the download directory, what is left there after the erase, and what is said.

    It is done beside rtwatch, or `early`: before it starts. `other` lies in a directory of its own, without data.
    """

    shell: str
    left: str
    line: str = r"remove\w* +pack, 2 of 2 files"
    torrent: Torrent = PACK
    base: str | None = None
    early: bool = False
    other: tuple[Torrent, str] | None = None


CASES = {
    "nothing": Case("", ""),
    "another file beside a single file": Case("touch mine", "mine", r"remove\w* +one\.bin, 1 of 1 file", ONE),
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
    "a file has another name too": Case("ln pack/a.bin mine", "mine"),
    "a file became a symlink": Case(
        "mv pack/a.bin mine; ln -s ../mine pack/a.bin", "mine", r"kept .*/mine: the symlink a\.bin led to it"
    ),
    # kept with a reason
    **{
        f"a {kind} in place of a file": Case(f"rm pack/a.bin; {make_it}", "pack pack/a.bin", NO_FILE)
        for kind, make_it in {"directory": "mkdir pack/a.bin", "pipe": "mkfifo pack/a.bin", "socket": BIND}.items()
    },
    "a tagger made a file longer": Case(
        "echo tags >>pack/a.bin", "pack pack/a.bin", r"kept +a\.bin: longer than the \w+ says"
    ),
    "a file of an empty last element is longer": Case(
        "echo more >>pack/x", "pack pack/x", r"kept +x: longer than the \w+ says", EMPTY_ELEMENT
    ),
    # directories
    "somebody's file in a subdirectory": Case("touch pack/sub/mine", "pack pack/sub pack/sub/mine"),
    "somebody's empty directory": Case("mkdir pack/mine", "pack pack/mine"),
    **{
        f"an empty {base} that {other.name.decode()} uses": Case("", "pack pack/sub", other=(other, base))
        for other, base in ((OTHER, "pack"), (OTHER, "pack/sub"), (single("other"), "pack/sub"))
    },
    "the root has another name": Case("", "common", base="common"),
    "a single file in a directory": Case("", "common", r"remove\w* +one\.bin, 1 of 1 file", ONE, "common"),
    "a single file in a directory of its name": Case("", "one.bin", r"remove\w* .*1 of 1", ONE, "one.bin"),
    "the root became a symlink": Case(
        "mv pack moved; ln -s moved pack",
        "moved moved/a.bin moved/sub moved/sub/b.bin pack",
        r"kept +a\.bin: its directory is a symlink now",
    ),
    "a directory became a symlink": Case(
        "mv pack/sub moved; ln -s ../moved pack/sub",
        "moved moved/b.bin pack pack/sub",
        r"kept +sub/b\.bin: its directory is a symlink now",
    ),
    # links that were there before
    "a link out of the root": Case(
        "mv pack/sub real; ln -s ../real pack/sub",
        "real real/b.bin",
        r"kept +\S*b\.bin: outside the torrent's directory",
        early=True,
    ),
    "a link inside the root": Case(
        "mv pack/sub pack/real; ln -s real pack/sub",
        "pack pack/real pack/real/b.bin",
        r"kept +\S*b\.bin: reached",
        early=True,
    ),
    "a link to a person's link to a library": Case(
        "mv pack/sub library; ln -s library way; ln -s ../way pack/sub",
        "library library/b.bin way",
        r"remove\w* +pack, 2 of 3 files",
        early=True,
    ),
    "the root is the home directory and has its name": Case(
        "", "", r"remove\w* +downloads, 2 of 2 files", multi("downloads"), "."
    ),
    **{
        f"the root is the download directory, {kind}": Case(
            "mkdir empty; touch mine sub/mine",
            "empty mine sub sub/mine",
            r"remove\w* .*2 of 2 files",
            make(name, PACK.content),
            ".",
        )
        for kind, name in {"its name": b"downloads", "another name": b"pack", "no name": b""}.items()
    },
}


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_erased_torrents_own_files_go_and_nothing_else(case: Case, options: Options, bed: Bed) -> None:
    bed.session.download(case.torrent, bed.downloads, bed.downloads / case.base if case.base else None)
    if case.other:
        bed.add(case.other[0], base=bed.downloads / case.other[1])
    if case.early:
        bed.shell(case.shell)
    program = bed.start(*SHORT, *options, env={"HOME": str(bed.downloads)})
    if not case.early:
        bed.shell(case.shell)
    if not options:
        bed.settle()  # else nobody knows whether that came before the erase
    before = tree(bed.downloads)
    bed.session.erase(case.torrent)
    program.wait_line(case.line)
    if options:
        assert tree(bed.downloads) == before
    else:
        assert bed.downloads.is_dir()
        assert below(bed.downloads) == case.left.split()
    assert case.early or ("kept" in program.output) == ("kept" in case.line)


def test_only_files_below_a_path_go_and_never_itself(bed: Bed) -> None:
    """It may be relative, and a symlink."""
    place = bed.downloads / "in" / "one"
    place.mkdir(parents=True)
    (bed.downloads / "link").symlink_to(place)
    program = bed.start(*SHORT, paths=[Path("link")], cwd=bed.downloads)
    gone = bed.download(multi("one"), to="in")
    kept = bed.download(multi("one2"), to="in") + bed.download(multi("three"), to="out")
    bed.erase(*map(multi, ("one", "one2", "three")))
    program.wait_line("erased +one2, none of 2 files")
    assert (remaining(gone), remaining(kept), below(place)) == ([], kept, [])


def test_the_lock_of_another_host_needs_a_path(bed: Bed) -> None:
    bed.session.kill()
    bed.session.lock.unlink()
    bed.session.write_lock("elsewhere.example", 123)
    one, two, three = map(multi, ("one", "two", "three"))
    paths, others = bed.seed(one, two, to="in"), bed.seed(three)
    program = bed.start(*SHORT)
    bed.session.erase(one)
    wait_held(program, one, "host")
    assert remaining(paths) == paths
    program.stop()
    program = bed.start(*SHORT, paths=[bed.downloads / "in"])
    bed.session.erase(two, three)
    bed.let_save("waiting .*three")
    program.wait_gone(two.hash)
    program.wait_gone(three.hash)
    assert (remaining(paths[2:]), remaining(others)) == ([], others)


def test_a_dry_run_finishes_vanished_torrents_in_words(bed: Bed) -> None:
    bed.seed(*map(single, ("one", "two", "three")))
    bed.leave_vanished(PACK)
    bed.session.erase(ONE)
    places = bed.state, bed.downloads, bed.session.path
    before = tree(*places)
    dry = bed.once(*SHORT, "-n", "--catch-up")
    assert (dry.returncode, dry.stdout) == (0, "")
    for torrent in PACK, ONE:
        assert re.search(f"would remove +{pattern(torrent)}", dry.stderr)
    assert tree(*places) == before


def test_twenty_thousand_missing_files_are_said_at_once(bed: Bed) -> None:
    """300,000 took hours of processor time: a list was searched for each of them."""
    large = craft({"name": b"large", "files": [{"length": 1, "path": [b"%d" % number]} for number in range(20_000)]})
    program = bed.start(*SHORT)
    bed.add(large)
    program.wait_known(large.hash)
    bed.erase(large)
    program.wait_line("missing +none of its 20000 files is at")


def test_an_empty_directory_to_which_a_link_leads_now_stays(tmp_path: Path) -> None:
    empty = tmp_path / "real" / "empty"
    empty.mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="was replaced meanwhile"):
        rtwatch.remove_directory(os.fsencode(tmp_path / "link" / "empty"))
    assert empty.is_dir()


def test_a_torrent_without_files_misses_none() -> None:
    assert not rtwatch.Result().take_missing({})


@pytest.mark.parametrize("error", ["MemoryError()", "UnicodeEncodeError('ascii', 'x', 0, 1, 'as in a locale')"])
@pytest.mark.parametrize("where", ["os.unlink", "os.stat", "os.rmdir"])
def test_a_removal_that_fails_in_an_unforeseen_way_is_said_and_made_again(where: str, error: str, bed: Bed) -> None:
    """Within a second, and with growing pauses; no file of it is left out the next time."""
    bed.hooks_fail = True
    body = f"""
    before, failures = {where}, [1]

    def fail(path, *args, **options):
        if failures and path in (b"a.bin", b"sub"):
            failures.pop()
            raise {error}
        return before(path, *args, **options)

    {where} = fail
"""
    program = bed.start(*SHORT, *bed.write_each(pre_remove=body))
    paths = bed.download(PACK)
    bed.session.erase(PACK)
    program.wait_line("failed +a removal")
    program.wait_line(r"removed +pack, 2 of 2 files")
    assert remaining([*paths, bed.downloads / "pack"]) == []
    program.wait_gone(PACK.hash)


@pytest.mark.parametrize(
    ("saved", "keep", "label"),
    [
        *(("tv", ["tv"], "tv"), ("TV", ["tv"], "tv"), ("tv", ["t"], None), ("", ["tv"], None), ("tv", [], None)),
        *(("100%", ["100%"], "100%"), ("a%2Cb", ["a,b"], "a,b"), ("tv%20s%C3%A9rie", ["x", "tv série"], "tv série")),
        ("films,to%20keep", ["to keep"], "to keep"),  # as Flood joins several
    ],
)
def test_a_label_is_compared_as_people_see_it(saved: str, keep: list[str], label: str | None) -> None:
    assert rtwatch.find_label(saved, keep) == label


@pytest.mark.parametrize("of_user", ["return False", "return None", "return 0"])
def test_only_false_from_pre_remove_leaves_the_files(of_user: str, bed: Bed) -> None:
    left = "note('left', left=len(RmTuple.rmfiles))"
    program = bed.start(*SHORT, *bed.write_each(pre_remove=of_user, post_remove=left))
    paths = bed.download(PACK)
    bed.erase(PACK)
    leaves = of_user == "return False"
    assert bed.wait_called("left")[0]["left"] == (0 if leaves else 2)
    assert remaining(paths) == (paths if leaves else [])
    if leaves:
        program.wait_line("erased +pack, leaves 2 files: pre_remove returned False$")


def test_what_rtorrent_has_saved_as_a_label_keeps_the_files(real_launcher: Bed, rtorrent: Rtorrent) -> None:
    paths = real_launcher.seed(PACK, ONE)
    program = real_launcher.start(*SHORT, "--keep", "for ever")
    rtorrent.call("d.custom1.set", PACK.hash, "for%20ever")
    rtorrent.save(PACK)
    program.wait_rows("SELECT label FROM rtwatch_torrent WHERE label > ''", [("for%20ever",)].__eq__)
    real_launcher.erase(PACK, ONE)
    program.wait_line('erased +pack, leaves 2 files: it has the label "for ever"$')
    assert remaining(paths) == paths[:2]
