"""Torrents of every shape in the real rtorrents: the index lists what rtorrent uses, and an erase takes no more."""

from __future__ import annotations

import os
import re
from contextlib import closing
from itertools import filterfalse
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from program import Launcher, Program
from rtorrent import Rtorrent, set_directory
from steps import SHORT, erase, pack, settle
from torrents import Torrent, make, single


class Shape(NamedTuple):
    """A torrent of a kind, where it is told to be, and what is there before it is loaded.

    In `directory` DL stands for rtorrent's downloads; `before` names files below them. Only a started torrent is
    created on disk; a stopped one is, where `before` says so.
    """

    torrent: Torrent
    directory: bytes = b"DL"
    base: bool = False
    start: bool = True
    before: tuple[bytes, ...] = ()
    encoding: bool = False  # rtorrent is told `encoding.add = utf-8`
    old: bool = False  # 0.16 refuses it, or ends


DATA = b"data" * 5000
EVIL = b" \\ \"quoted\" 'single' $d.hash= $(x) `x` {1,2} ;,=%41%s\t\x01\x1b[31m\x7f "
HYBRID: dict[str, Any] = {"meta version": 2, "file tree": {"v1": {"": {"length": len(DATA), "pieces root": bytes(32)}}}}
PAD = {(b"data",): b"x" * 100, (b".pad", b"16284"): bytes(16284), (b"more",): b"y"}


def odd(name: bytes, *files: dict[str, Any], **info: Any) -> Torrent:
    """Make a multi-file torrent with these entries of `files`, and each keyword in the info dictionary."""
    info["files"] = [{"length": len(DATA), **file} for file in files]
    return make(name, {(b"%d" % number,): DATA for number in range(len(files))}, **info)


NINE = {key: {f"{key}.{n}": [b"%d" % n] if key == "path" else b"%d" % n for n in range(9)} for key in ("path", "name")}


def nested(name: str, depth: int) -> Torrent:
    """Make a single-file torrent with lists so deep in a key that nobody reads."""
    torrent = single(name)
    return torrent._replace(metainfo=b"d1:a" + b"l" * depth + b"e" * depth + torrent.metainfo[1:])


SHAPES = {
    "single": Shape(single("single")),
    "single, stopped": Shape(single("single, stopped"), start=False),
    "multi": Shape(pack("multi")),
    "multi, stopped": Shape(pack("multi, stopped"), start=False),
    "nested": Shape(make(b"nested", {(b"a", b"b", b"c", b"nest"): DATA, (b"a", b"b", b"e"): b"1", (b"a", b"f"): b"2"})),
    "many files": Shape(make(b"many", {(b"%d" % (n % 7), b"%d" % n): b"%d" % n for n in range(300)})),
    "one file in files": Shape(make(b"one", {(b"one",): DATA})),
    "name and file alike": Shape(make(b"alike", {(b"alike", b"alike"): DATA, (b"alike", b"other"): DATA})),
    "empty file": Shape(make(b"empty", {(b"empty",): b"", (b"full",): DATA, (b"last",): b""})),
    "non-UTF-8 single": Shape(make(b"\xff\xfe\x80 latin \xe9", DATA)),
    "non-UTF-8 multi": Shape(make(b"\xe9t\xe9", {(b"\xff", b"\xc3"): DATA, (b"\xc3\xa9", b"e\xcc\x81"): b"1"})),
    "NFC and NFD": Shape(make(b"forms", {(b"\xc3\xa9",): DATA, (b"e\xcc\x81",): DATA})),
    "case": Shape(make(b"case", {(b"A", b"b"): DATA, (b"a", b"B"): DATA})),
    "newline single": Shape(make(b"new\nline\r\n", DATA)),
    "newline multi": Shape(make(b"\nnew", {(b"\n", b"line\n"): DATA, (b"\r",): DATA})),
    "tilde single": Shape(make(b"~", DATA), b"DL/real"),
    "tilde multi": Shape(make(b"~root", {(b"~", b"~root"): DATA, (b"~",) * 3: DATA})),
    "blanks single": Shape(make(b"  blanks  ", DATA)),
    "blanks multi": Shape(make(b" blanks ", {(b" ", b" a "): DATA, (b"\t",): DATA})),
    "dots": Shape(make(b"...", {(b"...", b"..a"): DATA, (b".hidden",): DATA, (b"a..",): DATA})),
    "evil characters single": Shape(make(EVIL, DATA)),
    "evil characters multi": Shape(make(b"evil" + EVIL, {(EVIL, EVIL): DATA, (b"-r", b"*"): DATA})),
    "longest names": Shape(make(b"n" * 255, {(b"d" * 255, b"f" * 255): DATA})),
    "absolute-looking": Shape(odd(b"slash", {"path": [b"", b"etc", b"passwd"]}, {"path": [b"slashed"]})),
    "empty elements": Shape(odd(b"gaps", {"path": [b"a", b"", b"", b"gap"]}, {"path": [b"", b"gapped"]})),
    "padding": Shape(make(b"padding", PAD)),
    "padding with attr": Shape(odd(b"attr p", {"path": [b"padded"]}, {"path": [b".pad", b"1"], "attr": b"p"})),
    "attr x and l": Shape(
        odd(b"attr x", {"path": [b"run"], "attr": b"x"}, {"path": [b"sym"], "attr": b"l", "symlink path": [b"run"]})
    ),
    "length and files": Shape(make(b"double", DATA, files=[{"length": len(DATA), "path": [b"other"]}])),
    "hybrid": Shape(make(b"hybrid", {(b"v1",): DATA}, **HYBRID)),
    "name and path in UTF-8 not used": Shape(
        odd(b"plain", {"path": [b"named"], "path.utf-8": [b"unnamed"]}, **{"name.utf-8": b"unused"})
    ),
    "path in UTF-8 not used": Shape(
        odd(b"path plain", {"path": [b"p"], "path.utf-8": [b"u"]}), start=False, before=(b"path plain/p",)
    ),
    "name in UTF-8 not used": Shape(
        make(b"name plain", DATA, **{"name.utf-8": b"name unused"}), start=False, before=(b"name plain",)
    ),
    "name in UTF-8 outside": Shape(make(b"name inside", DATA, **{"name.utf-8": b"../evil"})),
    "path in UTF-8 alone": Shape(odd(b"alone", {"path.utf-8": [b"\xc3\xa9", b"u"]}), old=True),
    "name and path in UTF-8 used": Shape(
        odd(b"plain 8", {"path": [b"p"], "path.utf-8": [b"u"]}, **{"name.utf-8": b"used"}), encoding=True
    ),
    "path in UTF-8 used": Shape(
        odd(b"path 8", {"path": [b"p"], "path.utf-8": [b"u"]}), start=False, before=(b"path 8/u",), encoding=True
    ),
    "name in UTF-8 used": Shape(
        make(b"name 8", DATA, **{"name.utf-8": b"name used"}), start=False, before=(b"name used",), encoding=True
    ),
    "some paths in UTF-8": Shape(
        odd(b"some 8", {"path": [b"p"], "path.utf-8": [b"u"]}, {"path": [b"q"]}, **{"name.utf-8": b"some used"}),
        encoding=True,
    ),
    "nine encodings": Shape(odd(b"nine", {"path": [b"in nine"], **NINE["path"]}, **NINE["name"])),
    "a path of 300 elements": Shape(make(b"deep", {(b"d",) * 299 + (b"deep file",): DATA})),
    "lists 1,000 deep": Shape(nested("in lists", 1000)),
    "negative length": Shape(make(b"negative", DATA, length=-1), start=False, before=(b"negative",)),
    "relative single": Shape(single("relative single"), b"rel/sub"),
    "relative multi": Shape(pack("relative multi"), b"rel/sub"),
    "dot-slash single": Shape(single("dot-slash single"), b"./"),
    "dot-slash multi": Shape(pack("dot-slash multi"), b"./"),
    "dot": Shape(pack("dot"), b"."),
    "no directory single": Shape(single("no directory single"), b""),
    "no directory multi": Shape(pack("no directory multi"), b""),
    "relative with dots": Shape(pack("relative with dots"), b"rel/../../downloads/real"),
    "home single": Shape(single("home single"), b"~/x"),
    "home multi": Shape(pack("home multi"), b"~/x"),
    "home itself": Shape(pack("home itself"), b"~"),
    "home with a name": Shape(pack("home with a name"), b"~root/x", old=True),
    "home inside": Shape(pack("home inside"), b"DL/~/x"),
    "trailing slash single": Shape(single("trailing slash single"), b"DL/real/"),
    "trailing slash multi": Shape(pack("trailing slash multi"), b"DL/real/"),
    "trailing slashes": Shape(single("trailing slashes"), b"DL/real///"),
    "symlink single": Shape(single("symlink single"), b"DL/link"),
    "symlink multi": Shape(pack("symlink multi"), b"DL/link/"),
    "symlink inside": Shape(make(b"linked", {(b"sub", b"deep", b"in"): DATA, (b"out",): DATA})),
    "symlink file": Shape(make(b"link file", {(b"no file",): DATA, (b"file",): DATA}), start=False),
    "dots in directory": Shape(pack("dots in directory"), b"DL/real/../real/sub/.."),
    "dots behind a symlink": Shape(pack("dots behind a symlink"), b"DL/link/../up"),
    "dots behind nothing": Shape(pack("dots behind nothing"), b"DL/missing/../real", start=False),
    "double slashes": Shape(pack("double slashes"), b"DL//real/.//sub"),
    "base": Shape(pack("base"), b"DL/base", base=True),
    "base shared": Shape(make(b"base shared", {(b"below", b"third"): DATA}), b"DL/base//", base=True),
    "base single": Shape(single("base single"), b"DL/base", base=True),
    "base with dots": Shape(make(b"base with dots", {(b"fourth",): DATA}), b"DL/real/../base/", base=True),
    "base relative": Shape(make(b"base relative", {(b"fifth",): DATA}), b"rel", base=True),
    "non-UTF-8 directory": Shape(pack("non-UTF-8 directory"), b"DL/\xff\xe9"),
    "blanks and newline directory": Shape(single("odd directory"), b"DL/ new\nline "),
    "shared file, first": Shape(make(b"shared", {(b"both",): DATA, (b"own one",): b"1"})),
    "shared file, second": Shape(make(b"shared", {(b"both",): DATA, (b"own two",): b"2"})),
}
DIRECTORIES = (
    *(b"downloads/" + name for name in (b"real/sub", b"up", b"far/up", b"far/target", b"base", b"~/x", b" new\nline ")),
    *(b"downloads/" + name for name in (b"\xff\xe9", b"linked", b"link file", b"outside", b"path plain", b"path 8")),
    *(b"cwd/rel/sub", b"home/x", b"homeroot/x"),
)
LINKS = {b"link": b"far/target", b"linked/sub": b"../outside", b"link file/file": b"../outside/target"}  # in downloads


def everything(top: bytes) -> set[bytes]:
    """Return all that is below the directories where rtorrent is told to keep data."""
    walks = (entry for name in (b"downloads", b"cwd", b"home", b"homeroot") for entry in os.walk(top + b"/" + name))
    return {os.path.join(path, name) for path, directories, files in walks for name in directories + files}


def prepare(top: bytes, shapes: dict[str, Shape]) -> set[bytes]:
    """Make the directories, symlinks and files that the shapes need; return all that is there."""
    for directory in DIRECTORIES:
        os.makedirs(os.path.join(top, directory))
    for link, target in LINKS.items():
        os.symlink(target, os.path.join(top, b"downloads", link))
    for file in (b"outside/target", *(file for shape in shapes.values() for file in shape.before)):
        Path(os.fsdecode(os.path.join(top, b"downloads", file))).write_bytes(b"a person's own")
    return everything(top)


def load(rtorrent: Rtorrent, shapes: dict[str, Shape]) -> None:
    """Load the torrents, each told its directory by the first command, as a front-end does; then start them.

    0.16 may write T after the files that it makes for a torrent that is loaded and started at once.
    """
    for shape in shapes.values():
        directory = re.sub(b"^DL", lambda _: os.fsencode(rtorrent.downloads), shape.directory)
        command = set_directory(directory, "d.directory_base.set" if shape.base else "d.directory.set")
        rtorrent.load(shape.torrent, command, start=False)
    rtorrent.multicall(*(("d.start", shape.torrent.hash) for shape in shapes.values() if shape.start))


def used(rtorrent: Rtorrent, torrent: Torrent) -> set[bytes]:
    """Return the files that rtorrent uses for a torrent, each the realpath of its directory, plus its name."""
    parts = (os.path.split(os.fsencode(path)) for path in rtorrent.used(torrent))
    return {os.path.join(os.path.realpath(parent), name) for parent, name in parts}


def listed(program: Program, torrent: Torrent) -> set[bytes]:
    """Return the files that the index has for a torrent."""
    sql = f"SELECT CAST(file AS BLOB) FROM session_file WHERE hash = '{torrent.hash}'"
    return {file for (file,) in program.select(sql)}


@pytest.mark.parametrize(("version", "encoding"), [("0.9.8", False), ("0.9.8", True), ("0.16", False)])
def test_the_index_lists_what_rtorrent_uses_and_an_erase_takes_no_more(
    version: str, encoding: bool, tmp_path: Path
) -> None:
    """An index made beside rtorrent, and one made from nothing."""
    shapes = {name: shape for name, shape in SHAPES.items() if shape.encoding == encoding}
    shapes = {name: shape for name, shape in shapes.items() if version == "0.9.8" or not shape.old}
    torrents = {name: shape.torrent for name, shape in shapes.items()}
    lines = ["encoding.add = utf-8"] if encoding else []
    with (
        Rtorrent(tmp_path / "rtorrent", *lines, version=version) as rtorrent,
        closing(Launcher(rtorrent.path, tmp_path / "state", tmp_path / "calls")) as launcher,
        closing(Launcher(rtorrent.path, tmp_path / "new state", tmp_path / "calls")) as new,
    ):
        top = os.fsencode(rtorrent.downloads.parent)
        before = prepare(top, shapes)
        program = launcher.start(*SHORT)
        load(rtorrent, shapes)
        settle(program, rtorrent, rtorrent.downloads)
        files = {name: used(rtorrent, torrent) for name, torrent in torrents.items()}
        assert all(files.values())
        for start in launcher.start, new.start, launcher.start:  # one after the other: a session has one writer
            assert {name: listed(program, torrent) for name, torrent in torrents.items()} == files
            assert program.stop() == 0
            program = start(*SHORT)
        started = {name: files[name] for name, shape in shapes.items() if shape.start}
        missing = {name: [*filterfalse(os.path.lexists, started[name])] for name in started}
        assert {name for name in missing if missing[name]} == ({"padding with attr"} if version == "0.16" else set())
        erase(program, rtorrent, *torrents.values())
        after = everything(top)
        assert before - after == set()
        # what is behind a link out of the root, and roots that bear another name than `name`
        left = {b"used", b"some used"} if encoding else {b"outside/deep", b"outside/deep/in"}
        assert after - before == {os.path.join(top, b"downloads", name) for name in left}
