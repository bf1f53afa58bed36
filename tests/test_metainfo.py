"""Reading T and R: a malformed torrent is refused in one line and gets no rows, a sound one gets its tracker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import bencodepy
import pytest
from steps import Bed, bed_in
from torrents import Torrent, craft, single

import rtwatch

GOOD = single("good").metainfo
ENTRY = {"length": 1, "path": [b"a"]}
DEEP = 5000


def crafted(**info: Any) -> bytes:
    return craft(info).metainfo


def one_path(path: Any, **more: Any) -> bytes:
    return crafted(name=b"x", files=[ENTRY, {"length": 1, "path": path, **more}])


BROKEN: dict[str, bytes] = {  # the bencoding
    **{"empty": b"", "garbage": b"\0garbage", "zeros": b"\0" * 1000, "web page": b"<html>"},
    **{"list": b"le", "number": b"i7e", "string": b"1:a", "cut short": GOOD[:-30], "without its end": GOOD[:-1]},
    **{"trailing garbage": GOOD + b"garbage", "trailing string": GOOD + b"1:b", "trailing newline": GOOD + b"\n"},
    **{"cut short in a list": b"d1:al", "in a number": b"d1:ai1", "in a string": b"d1:a5:b", "in a digit": b"d1:a1"},
    **{"cut short in a length": b"d1:a12", "in a long length": b"d1:a" + b"9" * 5000 + b":"},
    "deep list": b"l" * DEEP + b"e" * DEEP,
    "dictionaries without end": b"d1:a" * DEEP,
    **{  # bencode.py 4.1.0 accepts the negative length `-6:` and loops forever
        kind: b"d" + item + GOOD[1:]
        for kind, item in {
            "negative length": b"1:ai1e-6:",
            "negative length of a value": b"1:a-1:",
            "negative length in a list": b"1:al1:b-3:e",
            "signed length": b"+1:ai1e",
            "length with a leading zero": b"01:ai1e",
            "length with a blank": b"1 :ai1e",
            "length beyond the end": b"1:a999999999:b",
            "length of 30 digits": b"1:a" + b"9" * 30 + b":b",
            "length of 5000 digits": b"1:a" + b"9" * 5000 + b":b",
            "number as a key": b"i1ei2e",
            "number without digits": b"1:aie",
            "end for a value": b"1:ae",
            "end for a value in a list": b"1:ald1:aee",
            "list as a key": b"lei1e",
            "number as a key in a list": b"1:aldi1ei2eee",
        }.items()
    },
}
MALFORMED: dict[str, bytes] = {  # the metainfo, as it is to rtorrent
    **{"no info": b"d8:announce3:url4:abcdi1ee", "info is a list": b"d4:infolee", "info is a string": b"d4:info1:xe"},
    **{"info is empty": b"d4:infodee", "no files": crafted(name=b"x"), "no name": crafted(length=1)},
    "length is a string": crafted(name=b"x", length=b"1"),
    "a file's length is negative": crafted(name=b"x", files=[ENTRY, {"length": -1, "path": [b"b"]}]),
    "a file has no length": crafted(name=b"x", files=[ENTRY, {"path": [b"b"]}]),
    "a file has no path": crafted(name=b"x", files=[ENTRY, {"length": 1}]),
    "path.utf-8 leads outside and is alone": crafted(name=b"x", files=[{"length": 1, "path.utf-8": [b"..", b"a"]}]),
    **{f"files are {files!r}": crafted(name=b"x", files=files) for files in ([], b"a", 7, {"a": ENTRY}, [ENTRY, b"a"])},
    **{
        f"{key}, named {name!r}": crafted(**{"name": name, key: content})
        for key, content in (("length", 1), ("files", [ENTRY]))
        for name in (b".", b"..", b"a/b", b"../x", b"/etc/passwd", b"\0", b"a\0b", 7, [b"x"])
    },
    **{
        f"path {path!r}": one_path(path)
        for path in (
            *([], b"a", 1, {"a": b"b"}, [b"a", 1], [1], [[b"a"]], [b"a", [b"b"]]),
            *([b".."], [b"a", b".."], [b"..", b"a"], [b"a", b"..", b"..", b"b"], [b"."], [b".", b"a"], [b"a", b"."]),
            *([b"/"], [b"a/b"], [b"../a"], [b"/etc/passwd"], [b"a/../../b"], [b"a\0"], [b"\0"], [b"a\0/../b"]),
        )
    },
}
RESUMES: dict[str, bytes] = {  # R beside a T that is good
    **{"R is empty": b"", "R is garbage": b"garbage", "R has no directory": b"de"},
    **{f"R has the directory {d!r}": bencodepy.encode({"directory": d}) for d in (1, [b"/x"], b"/x\0y")},
}
REFUSED = {**BROKEN, **MALFORMED}
STUBS = [
    craft({"name": b"x.meta", "meta_download": number, **more})
    for number, more in ((1, {}), (1, {"length": 1}), (2, {}), (-1, {"length": 2}))
]
HASHES = {kind: f"{number:039X}" for number, kind in enumerate([*REFUSED, *RESUMES])}


class Seen(NamedTuple):
    """What a run of rtwatch said and knows."""

    lines: list[str]
    hashes: set[str]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Let rtwatch meet refused torrents: all were there before it started, those of T come again while it runs."""
    with bed_in(tmp_path_factory.mktemp("refused")) as bed:
        session = bed.session
        bed.add(single("before"))
        resume = session.file(single("before"), "R").read_bytes()
        files = {kind: {"R": resume, "T": content} for kind, content in REFUSED.items()}
        resumes = {kind: {"R": content, "T": GOOD} for kind, content in RESUMES.items()}
        for kind, contents in {**files, **resumes}.items():
            for letter, content in contents.items():
                session.file(HASHES[kind] + "0", letter).write_bytes(content)
        bed.add(STUBS[0])
        program = bed.start()
        for stub in STUBS[1:]:
            bed.add(stub)
        for kind, contents in files.items():
            for letter, content in contents.items():
                session.file("new", letter).write_bytes(content)
                session.file("new", letter).rename(session.file(HASHES[kind] + "F", letter))
        bed.add(single("after"))
        program.wait_known(single("after").hash)
        hashes = {hash for (hash,) in program.select("SELECT hash FROM torrent_data")}
        assert program.stop() == 0
        yield Seen(program.lines, hashes)


@pytest.mark.parametrize("kind", [*REFUSED, *RESUMES])
def test_a_malformed_torrent_is_refused_in_one_line_at_the_start_and_when_it_comes(kind: str, seen: Seen) -> None:
    for digit in "0F" if kind in REFUSED else "0":
        (line,) = [line for line in seen.lines if HASHES[kind] + digit in line]
        assert len(line) < 1000


def test_malformed_torrents_disturb_no_other(seen: Seen) -> None:
    assert seen.hashes == {single("before").hash, single("after").hash}
    assert not any("Traceback" in line for line in seen.lines)


@pytest.mark.parametrize("stub", STUBS)
def test_the_stub_of_a_magnet_is_neither_a_torrent_nor_a_problem(stub: Torrent, seen: Seen) -> None:
    assert stub.hash not in seen.hashes
    assert not any(stub.hash in line for line in seen.lines)


TRACKERS: dict[str, tuple[dict[str, Any], Any]] = {
    "none": ({}, None),
    "http": ({"announce": b"http://example.org/announce"}, "example.org"),
    "udp with port": ({"announce": b"udp://example.org:80"}, "example.org"),
    "no password": ({"announce": b"https://me:secret@example.org/key"}, "example.org"),
    "IPv6": ({"announce": b"http://[2001:db8::1]:80/a"}, "2001:db8::1"),
    "empty": ({"announce": b""}, None),
    "no URL": ({"announce": b"nonsense"}, None),
    "broken URL": ({"announce": b"http://[nonsense/"}, None),
    "no host": ({"announce": b"http:///path"}, None),
    "number": ({"announce": 1}, None),
    "announce comes first": ({"announce": b"http://a/", "announce-list": [[b"http://b/"]]}, "a"),
    "first tier": ({"announce-list": [[b"http://b/", b"http://c/"], [b"http://d/"]]}, "b"),
    "first usable tier": ({"announce": b"", "announce-list": [[], [b""], [b"http://d/"]]}, "d"),
    "tiers that are no lists": ({"announce-list": [b"http://b/", 1, {}, [1, [b"x"]], [b"http://d/"]]}, "d"),
    "tiers are a string": ({"announce-list": b"http://b/"}, None),
    "no tiers": ({"announce-list": []}, None),
}


def test_the_tracker_is_the_first_usable_announce_host(bed: Bed) -> None:
    for kind, (metainfo, _) in TRACKERS.items():
        bed.add(craft({"name": kind.encode(), "length": 1}, **metainfo))
    program = bed.start()
    expected = {kind: host for kind, (_, host) in TRACKERS.items()}
    assert dict(program.select("SELECT name, tracker FROM torrent_data")) == expected


def test_unusual_torrents_are_read(bed: Bed) -> None:
    """rtorrent takes them, too: lists to a depth of 1,022 (0.16.17), a negative length of a single file (both)."""
    contents = {
        "depth": b"d1:a" + b"l" * DEEP + b"e" * DEEP + GOOD[1:],
        "depth of dictionaries": b"d1:a" + b"d1:a" * DEEP + b"i1e" + b"e" * DEEP + GOOD[1:],
        "depth of trackers": b"d13:announce-list" + b"l" * 1000 + b"e" * 1000 + GOOD[1:],
        "number of 5000 digits": b"d1:ai" + b"9" * 5000 + b"e" + GOOD[1:],
        "negative length": crafted(name=b"good.bin", length=-1),
        "length beside files": crafted(name=b"good.bin", length=1, files=[{"path": [b".."]}]),
        "meta_download is a string": crafted(name=b"good.bin", length=1, meta_download=b"1"),
        "meta_download is 0": crafted(name=b"good.bin", length=1, meta_download=0),
        "nine encodings": crafted(name=b"good.bin", length=1, **{f"name.{n}": b"good.bin" for n in range(9)}),
        "too large announce-list": b"d13:announce-listll" + b"1:a" * 400_000 + b"ee" + GOOD[1:],
        "a name in odd encodings": crafted(name=b"good.bin", length=1, **{"name.x": [b"l"], "name.y": b"../good"}),
        "keys that are no text": b"d3:\xff\0:li-1ei0ee" + GOOD[1:],
        "bencoding in a string": b"d1:a12:3:abcd1:ai1e" + GOOD[1:],
        "a magnet that has its metadata": b"d22:rtorrent_meta_downloadd5:starti1ee" + GOOD[1:],
    }
    for kind, content in contents.items():
        bed.add(single(kind))
        bed.session.write(single(kind), "T", content)
    program = bed.start()
    for kind in contents:
        program.wait_files(single(kind).hash, single("good").paths(bed.downloads))


FITTING = [b"n" * 255, "\u96ea".encode() * 255, b"/".join([b"d"] * 2048), b"/".join([b"x" * 255] * 15)]
UNFITTING = [b"n" * 256, "\u96ea".encode() * 256, b"/".join([b"d"] * 2049), b"d/" * 2000 + b"n" * 256]


def test_only_names_and_paths_that_can_exist_are_listed() -> None:
    """255 bytes are the longest name, or 255 characters on exFAT and NTFS; 4,095 bytes the longest path."""
    files = [{"length": 1, "path": path.split(b"/")} for path in [*FITTING, *UNFITTING]]
    metainfo = rtwatch.parse_metainfo(crafted(name=b"pack", files=files))
    assert metainfo is not None
    assert metainfo.files == [*((1, path) for path in FITTING), (len(UNFITTING), None)]
    assert rtwatch.locate_files(metainfo, b"/root/" + b"n" * 256, b"/session") == ([], [])
    assert rtwatch.locate_files(metainfo, b"/root/" * 700, b"/session") == ([], [])
    for name, number in ((b"n" * 255, True), (b"n" * 256, False)):
        single_file = rtwatch.parse_metainfo(crafted(name=name, length=1))
        assert single_file is not None
        assert (single_file.files[0][1] is not None) == number


def test_an_alternative_that_can_exist_is_listed_for_a_name_that_cannot() -> None:
    entry = {"length": 1, "path": [b"n" * 256], "path.utf-8": [b"short"]}
    metainfo = rtwatch.parse_metainfo(crafted(name=b"pack", files=[entry]))
    assert metainfo is not None
    assert rtwatch.locate_files(metainfo, b"/nowhere", b"/session")[0] == [b"/nowhere/short"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "0.977 KiB"), (1024, "1 KiB"), (1536, "1.5 KiB")),
        *((123456, "121 KiB"), (999 * 1024 + 1000, "0.977 MiB"), (5 << 20, "5 MiB"), (3 << 30, "3 GiB")),
        *((7 << 40, "7 TiB"), (900 << 40, "900 TiB"), (5000 << 40, "5000 TiB")),
    ],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert rtwatch.human_size(size) == text


@pytest.mark.parametrize("text", ["", "a b", "Grüße 雪 🎬", "a\\b", '"%s"', "é"])
def test_printable_text_is_printed_as_it_is(text: str) -> None:
    assert rtwatch.printable(text) == text


CURSOR = [*"\0\a\b\t\n\v\f\r\x1b\x7f\x85\x9b\u200b\u200e\u2028\u202e\u2066\ufeff\udcff"]


@pytest.mark.parametrize("char", CURSOR, ids=ascii)
def test_characters_that_move_the_cursor_or_turn_the_text_are_escaped(char: str) -> None:
    assert rtwatch.printable(f"a{char}b") == f"a{ascii(char)[1:-1]}b"
