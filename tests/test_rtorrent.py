"""The real rtorrents, beside rtwatch: it indexes what they use and removes what they erased. The fake is like them."""

import os
import re
import socket
import struct
import xmlrpc.client
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rtorrent import DEADLINE, Rtorrent, call, wait_until
from session import VERSIONS, Session, decode
from steps import SHORT, Bed, Client, remaining
from torrents import Torrent, make, multi, single


def test_a_torrent_that_is_erased_and_loaded_again_loses_nothing(rtorrent: Rtorrent, real_launcher: Bed) -> None:
    bed, torrents = real_launcher, [multi(f"again {number}") for number in range(6)]
    same, elsewhere, written, written_elsewhere, at_once, later = torrents
    edited_at_once, edited_later = (make(t.name, t.content, b"http://localhost:1/announce") for t in (at_once, later))
    (new := bed.downloads / "new").mkdir()
    files = bed.seed(*torrents)
    program = bed.start("-r", "--grace", "2", *bed.hooks)  # what comes back does so in time
    rtorrent.erase(later)
    program.wait_line("vanished +again 5")
    rtorrent.add(edited_later, bed.downloads, start=True)
    rtorrent.readd(same, bed.downloads)
    rtorrent.readd(elsewhere, new)
    rtorrent.readd_in_place(written, bed.downloads)
    rtorrent.readd_in_place(written_elsewhere, new)
    rtorrent.readd(edited_at_once, bed.downloads)
    for torrent in edited_at_once, edited_later:
        tracker = f"SELECT tracker, torrent FROM torrent_data WHERE hash = '{torrent.hash}'"
        program.wait_rows(tracker, [("localhost", rtorrent.file(torrent).read_bytes())].__eq__)
    bed.erase_another()
    for torrent in torrents:
        paths = torrent.places(new if torrent in (elsewhere, written_elsewhere) else bed.downloads)
        assert rtorrent.used(torrent) == paths
        program.wait_files(torrent.hash, paths)
        assert bed.hooks_called(torrent.hash) == []
    assert remaining(files) == files


def test_a_magnet_link_is_no_torrent_until_its_metadata_arrives(
    rtorrent: Rtorrent, real_launcher: Bed, tmp_path: Path
) -> None:
    bed, torrent, again = real_launcher, multi("by magnet"), multi("by magnet again")
    kept = bed.seed(again)
    program = bed.start(*SHORT, *bed.hooks)
    # 0.16 gives 0.16 no metadata, so the data come from a 0.9.8.
    with Rtorrent(tmp_path / "seeder", version=VERSIONS[0]) as seeder:
        rtorrent.magnet(again, bed.downloads, again=True)
        rtorrent.wait(1, "d.is_meta", again.hash)
        rtorrent.magnet(torrent, bed.downloads)
        bed.erase_another()
        assert program.select(f"SELECT 1 FROM torrent_data WHERE hash = '{torrent.hash}'") == []
        assert not bed.hooks_called(torrent.hash) + bed.hooks_called(again.hash)
        assert remaining(kept) == kept
        for each in torrent, again:
            seeder.download(each, seeder.downloads)
            rtorrent.fetch(each, seeder, "d.is_meta", 0)
            rtorrent.fetch(each, seeder)
            rtorrent.wait_complete(each)
            program.wait_files(each.hash, each.places(bed.downloads))
            assert rtorrent.used(each) == each.places(bed.downloads)
    bed.wait_called("complete", torrent)
    bed.erase_another()
    assert bed.hooks_called(torrent.hash) == ["pre_add", "post_add", "complete"]
    assert (bed.hooks_called(again.hash), remaining(kept)) == ([], kept)
    bed.erase(torrent)
    assert not remaining(torrent.places(bed.downloads))


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


ODD_NAMES = {
    **{"usual": b"usual", "non-UTF-8": b"\xff\xfe\x80 latin \xe9", "newline": b"\nnew\nline\r\n", "tilde": b"~root"},
    **{"blanks": b"  blanks  ", "dots": b"...", "evil characters": EVIL, "longest": b"n" * 255},
}
# with names in UTF-8, which rtorrent uses when it is told `encoding.add`
NAME_8 = make(b"name 8", DATA, **{"name.utf-8": b"name used"})
PATH_8 = odd(b"path 8", {"path": [b"p"], "path.utf-8": [b"u"]})
BOTH_8 = odd(b"8", {"path": [b"p"], "path.utf-8": [b"u"]}, **{"name.utf-8": b"used"})
SHAPES = {
    **{f"{kind} single": Shape(make(name, DATA)) for kind, name in ODD_NAMES.items()},
    **{
        f"{kind} multi": Shape(make(name[:-1] + b"2", {(name, name): DATA, (b"-r", name): DATA}))
        for kind, name in ODD_NAMES.items()
    },
    **{f"{kind.__name__}, stopped": Shape(kind("stopped"), start=False) for kind in (single, multi)},
    "empty file": Shape(make(b"empty", {(b"empty",): b"", (b"full",): DATA, (b"last",): b""})),
    "NFC and NFD": Shape(make(b"forms", {(b"\xc3\xa9",): DATA, (b"e\xcc\x81",): DATA})),
    "case": Shape(make(b"case", {(b"A", b"b"): DATA, (b"a", b"B"): DATA})),
    "absolute-looking": Shape(odd(b"slash", {"path": [b"", b"etc", b"passwd"]}, {"path": [b"slashed"]})),
    "empty elements": Shape(odd(b"gaps", {"path": [b"a", b"", b"", b"gap"]}, {"path": [b"", b"gapped"]})),
    "padding": Shape(make(b"padding", PAD)),
    "padding with attr": Shape(odd(b"attr p", {"path": [b"padded"]}, {"path": [b".pad", b"1"], "attr": b"p"})),
    "attr x and l": Shape(
        odd(b"attr x", {"path": [b"run"], "attr": b"x"}, {"path": [b"sym"], "attr": b"l", "symlink path": [b"run"]})
    ),
    "length and files": Shape(make(b"double", DATA, files=[{"length": len(DATA), "path": [b"other"]}])),
    "hybrid": Shape(make(b"hybrid", {(b"v1",): DATA}, **HYBRID)),
    "name in UTF-8 outside": Shape(make(b"name inside", DATA, **{"name.utf-8": b"../evil"})),
    "path in UTF-8 alone": Shape(odd(b"alone", {"path.utf-8": [b"\xc3\xa9", b"u"]}), old=True),
    "name and path in UTF-8": Shape(BOTH_8),
    "name and path in UTF-8, used": Shape(BOTH_8, encoding=True),
    "name in UTF-8": Shape(NAME_8, start=False, before=(b"name 8",)),
    "name in UTF-8, used": Shape(NAME_8, start=False, before=(b"name used",), encoding=True),
    "path in UTF-8": Shape(PATH_8, start=False, before=(b"path 8/p",)),
    "path in UTF-8, used": Shape(PATH_8, start=False, before=(b"path 8/u",), encoding=True),
    **{
        f"{way} {kind.__name__}": Shape(kind(f"{way} {kind.__name__}"), directory)
        for way, directory in (
            *(("relative", b"rel/sub"), ("dot", b"."), ("dot-slash", b"./"), ("no directory", b""), ("home", b"~/x")),
            *(("home itself", b"~"), ("home inside", b"DL/~/x"), ("odd directory", b"DL/ new\nline ")),
            *(("trailing slash", b"DL/real/"), ("symlink", b"DL/link//"), ("non-UTF-8 directory", b"DL/\xff\xe9")),
            ("dots behind a symlink", b"DL/link/../up"),
        )
        for kind in (single, multi)
    },
    "home with a name": Shape(multi("home with a name"), b"~root/x", old=True),
    "symlink inside": Shape(make(b"linked", {(b"sub", b"deep", b"in"): DATA, (b"out",): DATA})),
    "symlink file": Shape(make(b"link file", {(b"no file",): DATA, (b"file",): DATA}), start=False),
    "dots behind nothing": Shape(multi("dots behind nothing"), b"DL/missing/../real", start=False),
    "base": Shape(multi("base"), b"DL/base", base=True),
    "base single": Shape(single("base single"), b"DL/base", base=True),
    "base relative": Shape(make(b"base relative", {(b"fifth",): DATA}), b"rel", base=True),
}
DIRECTORIES = (  # in downloads, but for the last ones
    *(b"real/sub", b"up", b"far/up", b"far/target", b"base", b"~/x", b" new\nline ", b"\xff\xe9", b"linked"),
    *(b"link file", b"outside", b"path 8", b"../cwd/rel/sub", b"../home/x", b"../homeroot/x"),
)
LINKS = {"link": "far/target", "linked/sub": "../outside", "link file/file": "../outside/target"}  # in downloads


def everything(top: Path) -> set[Path]:
    """Return all that is below the directories where rtorrent is told to keep data."""
    return {path for name in ("downloads", "cwd", "home", "homeroot") for path in (top / name).rglob("*")}


def prepare(downloads: Path, shapes: dict[str, Shape]) -> None:
    """Make the directories, symlinks and files that the shapes need."""
    for directory in DIRECTORIES:
        (downloads / os.fsdecode(directory)).mkdir(parents=True, exist_ok=True)
    for link, target in LINKS.items():
        (downloads / link).symlink_to(target)
    for file in (b"outside/target", *(file for shape in shapes.values() for file in shape.before)):
        (downloads / os.fsdecode(file)).write_bytes(b"a person's own")


@pytest.mark.parametrize(("version", "encoding"), [("0.9.8", False), ("0.9.8", True), ("0.16", False)])
def test_the_index_lists_what_rtorrent_uses(version: str, encoding: bool, tmp_path: Path) -> None:
    """An index made beside rtorrent, and one made from nothing."""
    shapes = {name: shape for name, shape in SHAPES.items() if shape.encoding == encoding}
    shapes = {name: shape for name, shape in shapes.items() if version == "0.9.8" or not shape.old}
    torrents = {name: shape.torrent for name, shape in shapes.items()}
    lines = ["encoding.add = utf-8"] if encoding else []
    with (
        Rtorrent(tmp_path / "rtorrent", *lines, version=version) as rtorrent,
        closing(Bed(rtorrent, tmp_path)) as bed,
        closing(Bed(rtorrent, tmp_path / "new")) as new,
    ):
        prepare(rtorrent.downloads, shapes)
        before = everything(rtorrent.downloads.parent)
        program = bed.start(*SHORT)
        for shape in shapes.values():
            directory = re.sub(b"^DL", lambda _: os.fsencode(rtorrent.downloads), shape.directory)
            rtorrent.add(shape.torrent, directory, directory if shape.base else None)
        # 0.16 may write T after the files that it makes for a torrent that is loaded and started at once.
        rtorrent.multicall(*(("d.start", shape.torrent.hash) for shape in shapes.values() if shape.start))
        bed.settle()
        files = {
            name: {Path(os.path.realpath(path.parent), path.name) for path in rtorrent.used(torrent)}
            for name, torrent in torrents.items()
        }
        assert all(files.values())
        for start in bed.start, new.start, bed.start:  # one after the other: a session has one writer
            for name, torrent in torrents.items():
                program.wait_files(torrent.hash, files[name])
            assert program.stop() == 0
            program = start(*SHORT)
        missing = {
            name for name, shape in shapes.items() if shape.start and len(remaining(files[name])) < len(files[name])
        }
        assert missing == ({"padding with attr"} if version == "0.16" else set())
        rtorrent.save_all()
        bed.settle()
        bed.erase(*torrents.values())
        after = everything(rtorrent.downloads.parent)
        # A link inside the directory of a torrent that was started is one of its files.
        links = set() if encoding else {"linked", "linked/sub"}
        assert before - after == {rtorrent.downloads / name for name in links}
        # what is behind a link out of the root, and roots that bear another name than `name`
        left = {"used"} if encoding else {"outside/deep", "outside/deep/in"}
        assert after - before == {rtorrent.downloads / name for name in left}


COLUMNS = ("d.hash=", "d.directory=", "d.complete=", "d.state_changed=", "d.state_counter=")


def ask(client: Client, method: str, *params: Any) -> Any:
    """Ask the client, whose process must be the one that listens; return the answer, or what a fault says."""
    path = client.socket if isinstance(client, Rtorrent) else client.scgi.socket.getsockname()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("3i", credentials)[0] == client.process.pid
    try:
        return call(path, method, *params)
    except xmlrpc.client.Fault as fault:
        return fault.faultCode, fault.faultString


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [Session, Rtorrent])
def test_the_fake_says_what_is_loaded_and_where_as_a_real_one(kind: type[Client], version: str, tmp_path: Path) -> None:
    with kind(tmp_path / "rtorrent", version=version) as client:
        assert ask(client, "session.path", "") == f"{client.path}/"
        assert ask(client, "system.pid", "") == client.process.pid
        assert ask(client, "system.cwd", "") == str(client.cwd)
        assert ask(client, "system.env", "", "HOME") == str(client.home)
        assert Path(f"/proc/{client.process.pid}/comm").read_text().startswith("rtorrent")
        first, second, absent = single("first"), multi("second"), single("absent")
        client.download(first, tmp_path / "data")
        client.add(second, "~/data")
        saved = [decode(client.file(torrent, "R")) for torrent in (first, second)]
        states = [[r[b"state_changed"], r[b"state_counter"]] for r in saved]
        expected = [
            [first.hash, str(tmp_path / "data"), 1, *states[0]],
            [second.hash, f"{client.home}/data/second", 0, *states[1]],
        ]
        for view in ("default", "main", ""):
            assert sorted(ask(client, "d.multicall2", "", view, *COLUMNS)) == sorted(expected)
        assert ask(client, "d.directory", first.hash) == str(tmp_path / "data")
        assert ask(client, "d.hash", second.hash) == second.hash
        unknown = {
            "0.9.8": (-501, "Could not find info-hash."),
            "0.16": (-503, "invalid parameters: info-hash not found"),
        }
        assert ask(client, "d.directory", absent.hash) == unknown[client.version]
        assert ask(client, "d.save_resume", absent.hash) == unknown[client.version]
        client.erase(first)
        assert ask(client, "d.directory", first.hash) == unknown[client.version]
        client.set_directory(second, tmp_path / "new")
        for file in client.files(second):
            file.unlink()
        assert ask(client, "d.save_full_session", second.hash) == int(client.version == "0.9.8")
        assert wait_until(lambda: all(file.exists() for file in client.files(second)), DEADLINE)
        assert decode(client.file(second, "R"))[b"directory"] == os.fsencode(second.root(tmp_path / "new"))
