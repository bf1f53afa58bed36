"""Where the files of a torrent are: its directory as R has it, its names as T has them, and what is on disk."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rtorrent import wait_until
from steps import each_row
from torrents import craft

import rtwatch

Info = dict[str, Any]


def pack(*paths: list[bytes], **more: Any) -> Info:
    return {"name": b"pack", "files": [{"length": 1, "path": path} for path in paths], **more}


def entry(**paths: Any) -> Info:
    """Return an entry of `files` whose paths are given by their encodings, `plain` being none."""
    return {"length": 1, **{"path" if key == "plain" else f"path.{key}": path for key, path in paths.items()}}


def named(**names: Any) -> Info:
    return {"name": b"x", "length": 1, **{f"name.{encoding}": name for encoding, name in names.items()}}


ONE = named()
PACK = pack([b"a"], [b"s", b"b"])
UTORRENT: Info = {
    **{"name": b"x", "name.utf-8": b"u"},
    "files": [{"length": 1, "path": [b"a"], "path.utf-8": [b"v"]}, {"length": 1, "path": [b"b"]}],
}
BOTH = {"name": b"x", "name.UTF-8": b"y", "files": [{"length": 1, "path": [b"a"], "path.utf-8": [b"u"]}]}
MIXED = {"name": b"x", "name.utf-8": b"y", "files": [{"length": 1, "path": [b"a"], "path.cp1251": [b"u"]}]}
LAST = pack([b"file", b""], [b"directory", b""], [b"link", b""], [b"missing", b""], [b""], [b"a"])

# What R has behind the directory of the case, `info` of T, the files that are expected there, and what is there:
# a file, a directory "NAME/" or a symlink "NAME -> TARGET".
CASES: dict[str, tuple[str, Info, list[str], list[str]]] = {
    # the root
    **{
        f"written as {tail} {kind}": (tail, info, files, ["root/s/", "link -> root"])
        for tail in ("/root/", "//root//", "/root/.", "/root//./", "/root/s/..", "/root/../root", "/link", "/link//")
        for kind, info, files in (("single", ONE, ["root/x"]), ("multi", PACK, ["root/a", "root/s/b"]))
    },
    "two dots behind a link": ("/link/../x", pack([b"a"]), ["far/x/a"], ["far/deep/", "link -> far/deep"]),
    # links
    "a link on the way is resolved": ("/r", pack([b"s", b"a"]), ["far/a"], ["far/", "r/s -> ../far"]),
    "a link in its place is not": ("", pack([b"f"], [b"lost"]), ["f", "lost"], ["to", "f -> to", "lost -> nothing"]),
    "reached in two ways": ("", pack([b"s", b"a"], [b"link", b"a"]), ["s/a"], ["s/", "link -> s"]),
    # names
    "no text": ("/\udcff", pack([b"\xfe"], [b"\xfd", b"a\nb"]), ["\udcff/\udcfd/a\nb", "\udcff/\udcfe"], ["\udcff/"]),
    "unusual": ("", pack([b"...", b" ", b"~", b"a\\b", b"\n"]), [".../ /~/a\\b/\n"], []),
    "empty elements": ("", pack([b"", b"etc", b"passwd"], [b"a", b"", b"", b"b"]), ["a/b", "etc/passwd"], []),
    "an empty last element where a file is": ("", LAST, ["a", "file"], ["file", "directory/", "link -> file"]),
    "an empty name of a file": ("", {"name": b"", "length": 1}, [], []),
    "an empty name of a pack": ("", pack([b"a"], name=b""), ["a"], []),
    # the session directory
    "in the session": ("/../session/", ONE, [], []),
    "in the session through a link": ("", pack([b"link", b"a"], [b"c"]), ["c"], ["link -> ../session"]),
    "beside the session": ("/../session2", pack([b"a"]), ["../session2/a"], []),
    # names in other encodings
    **{
        f"an unusable name {name!r}": ("", {**ONE, "name.utf-8": name}, ["x"], [])
        for name in (b"../evil", b"/evil", b"a/b", b"..", b".", b"\0", 1, [b"u"])
    },
    **{
        f"an unusable path {path!r}": ("", pack(files=[{**entry(plain=[b"a"]), "path.utf-8": path}]), ["a"], [])
        for path in ([b".."], [b"..", b"a"], [b"a/b"], [], [b"a", b"\0"], b"a", [1])
    },
    "a path that cannot exist": ("", pack(files=[entry(plain=[b"n" * 256], utf8=[b"short"])]), ["short"], []),
    "only path.utf-8": ("", pack(files=[entry(utf8=[b"u"])]), ["u"], []),
    "path.utf-8, path is no list": ("", pack(files=[entry(plain=b"a", utf8=[b"u"])]), ["u"], []),
    "another path, nothing there": ("", pack(files=[entry(plain=[b"a"], utf8=[b"s", b"u"])]), ["a", "s/u"], []),
    **{
        f"names of a file, there: {there}": ("/u", named(utf8=b"u"), [f"u/{name}" for name in files], things)
        for there, files, things in (
            *(("none", ["u", "x"], ["u/"]), ("x", ["x"], ["u/x"])),
            *(("u", ["u"], ["u/u"]), ("both", ["u", "x"], ["u/x", "u/u"])),
        )
    },
    **{
        f"the root {tail} tells": (tail, UTORRENT, files, ["x/a", "x/v", "u/a", "u/v"])
        for last, files in (("x", ["x/a", "x/b"]), ("u", ["u/b", "u/v"]))
        for tail in (f"/{last}", f"/{last}/", f"/{last}//")
    },
    **{
        f"the root does not tell, there: {there}": ("", UTORRENT, files, there)
        for there, files in (
            *((["a"], ["a", "b"]), (["v"], ["b", "v"]), (["a", "v"], ["a", "b", "v"])),
            *(([], ["a", "b", "v"]), (["v -> nothing"], ["b", "v"])),
        )
    },
    "the case of an encoding": ("/y", BOTH, ["y/u"], []),
    "name and path in different encodings": ("/y", MIXED, ["y/a", "y/u"], []),
    "name and path in different encodings, there": ("/y", MIXED, ["y/u"], ["y/u"]),
    "three encodings": ("", pack(files=[entry(plain=[b"a"], utf8=[b"v"], cp1251=[b"d"])]), ["a", "d", "v"], []),
}


def make_things(place: Path, things: list[str]) -> None:
    """Make files, directories and symlinks."""
    for thing in things:
        name, arrow, target = thing.partition(" -> ")
        path = place / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(target)
        elif not name.endswith("/"):
            path.write_bytes(b"x")


@pytest.mark.parametrize("kind", CASES)
def test_the_files_are_those_that_rtorrent_uses(kind: str, tmp_path: Path) -> None:
    tail, info, files, things = CASES[kind]
    place = tmp_path / "place"
    make_things(tmp_path, ["place/", "session/"])
    make_things(place, things)
    metainfo = rtwatch.parse_metainfo(craft(info).metainfo)
    assert metainfo is not None
    found, _ = rtwatch.locate_files(metainfo, os.fsencode(f"{place}{tail}"), os.fsencode(tmp_path / "session"))
    assert sorted(os.path.relpath(os.fsdecode(file), place) for file in found) == sorted(files)


@pytest.mark.parametrize("home", ["/home/me", "relative"])
def test_a_directory_is_known_while_rtorrents_home_and_working_directory_are(home: str, tmp_path: Path) -> None:
    cwd, tilde, relative = tmp_path / "cwd", [b"~", b"~/x"], [b"", b".", b"rel"]
    cwd.mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=cwd, env={"HOME": home}) as process:
        # The kernel shows it a moment after the start.
        wait_until(Path(f"/proc/{process.pid}/environ").read_bytes, 9)
        found = [rtwatch.expand_directory(directory, process.pid) for directory in [*tilde, *relative]]
        assert found[:2] == ([b"/home/me", b"/home/me/x"] if home == "/home/me" else [None, None])
        assert found[2:] == [os.fsencode(cwd) + b"/" + directory for directory in relative]
        cwd.rmdir()
        cwd.with_name("cwd (deleted)").mkdir()  # the name that the kernel then shows
        assert [rtwatch.expand_directory(directory, process.pid) for directory in relative] == [None] * 3
        process.kill()
    assert [rtwatch.expand_directory(directory, 0) for directory in [*tilde, *relative]] == [None] * 5


RTORRENTS = ("rtorrent", "rtorrent main", "rtorrent-main", "rtorrent) Z (")
OTHERS = ("my-rtorrent", "rtorren", ") R rtorrent", "(rtorrent")


@pytest.mark.parametrize("name", RTORRENTS + OTHERS)
def test_only_a_process_whose_name_begins_with_rtorrent_is_one(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/bin/cat")
    with subprocess.Popen([tmp_path / name], stdin=subprocess.PIPE) as process:
        # The process has its name a moment after the start.
        assert wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n", 9)
        assert (rtwatch.identify_process(process.pid) is not None) == (name in RTORRENTS)


LINKS = ("absolute", "alias", "relative", "real")
LEADS = """
absolute/sub: absolute alias relative real
relative/../real: relative real
relative/sub: relative real
real/sub: real
loop/sub:
alias/sub: absolute alias relative real
"""


@each_row("path places", LEADS, "((.*?)):(.*)")
def test_a_path_leads_through_the_links_on_it_and_through_theirs(path: str, places: str, tmp_path: Path) -> None:
    make_things(tmp_path, ["real/sub/", "relative -> real", f"absolute -> {tmp_path}/relative", "loop -> loop"])
    # As a bind mount shows one symlink under two paths.
    os.link(tmp_path / "absolute", tmp_path / "alias", follow_symlinks=False)
    leads = [rtwatch.leads_through(os.fsencode(tmp_path / path), os.fsencode(tmp_path / place)) for place in LINKS]
    assert [place for place, found in zip(LINKS, leads) if found] == places.split()


@pytest.mark.parametrize("number", [1, 10])
def test_links_are_found_among_few_files_and_among_many(number: int, tmp_path: Path) -> None:
    make_things(tmp_path, ["there/", "0 -> way/target", "way -> there", *map(str, range(1, number))])
    files = [os.fsencode(tmp_path / str(number)) for number in range(number)]
    targets, ways = rtwatch.read_links({os.fsencode(tmp_path): files})
    assert targets == {os.fsencode(tmp_path / "there" / "target")}
    assert ways == {os.fsencode(tmp_path / "way" / "target")}


def test_a_link_may_be_a_torrents_by_its_name_or_lead_to_its_files(tmp_path: Path) -> None:
    def covers(root: str, names: bytes) -> bool:
        """Tell whether a torrent with this root, of which nothing is known if it is "", may use the link."""
        ways = [os.fsencode(tmp_path / root)] if root else []
        real = os.path.realpath(ways[0]) if root else None
        return rtwatch.Doubt(rtwatch.Owner("0", "?"), real, names, ways=ways).covers(os.fsencode(tmp_path / "sub"))

    make_things(tmp_path, ["sub -> /", "link -> sub"])
    assert [covers(".", b"sub"), covers("link", b"other"), covers("", b"other")] == [True] * 3
    assert [covers(".", b"other"), covers("", b"")] == [False] * 2


def test_all_but_the_root_itself_lies_below_the_root() -> None:
    assert rtwatch.is_below(b"/a", b"/")
    assert not rtwatch.is_below(b"/", b"/")


def test_an_inode_number_of_64_bits_is_a_negative_one_to_sqlite() -> None:
    assert [rtwatch.signed(inode) for inode in (5, 1 << 63, (1 << 64) - 1)] == [5, -(1 << 63), -1]


def test_a_file_is_as_its_torrent_left_it_when_nothing_of_its_identity_differs(tmp_path: Path) -> None:
    info = tmp_path.stat()
    left = rtwatch.identify_file(info)
    assert left.is_now(info)
    assert left._replace(device=None).is_now(info)
    assert not any(left._replace(**{field: -7}).is_now(info) for field in rtwatch.Left._fields)


def test_a_time_of_whole_seconds_may_be_two_seconds_behind_others_a_tick(tmp_path: Path) -> None:
    os.utime(tmp_path, (1e10, 1e10 + 0.5))
    assert rtwatch.latest_change(tmp_path.stat(), False) == 1e10 + 0.5
    assert rtwatch.latest_change(tmp_path.stat(), True) == 1e10 + 0.5 + rtwatch.TICK
    info = os.stat_result((0, 0, 0, 0, 0, 0, 0, 0, 100, 90))
    assert [rtwatch.latest_change(info, latest) for latest in (False, True)] == [102, 102]
