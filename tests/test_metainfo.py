"""Reading T and R: a malformed torrent is refused in few words, a sound one has its files and its tracker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bencodepy
import pytest
from torrents import craft, single

import rtwatch

GOOD = single("good").metainfo
ENTRY = {"length": 1, "path": [b"a"]}
DEEP = 5000


def crafted(**info: Any) -> bytes:
    return craft(info).metainfo


# What begins a good torrent otherwise. bencode.py 4.1.0 accepts the negative length `-6:` and loops forever.
ITEMS = {
    "negative length": ["1:ai1e-6:", "1:a-1:", "1:al1:b-3:e"],
    "length with a sign, zero or blank before its end": ["+1:ai1e", "01:ai1e", "1 :ai1e"],
    "length beyond the end": ["1:a999999999:b", f"1:a{'9' * 30}:b", f"1:a{'9' * 5000}:b"],
    "key that is no string": ["i1ei2e", "lei1e", "1:aldi1ei2eee"],
    "missing value": ["1:aie", "1:ae", "1:ald1:aee"],
}
BROKEN: dict[str, bytes] = {  # the bencoding
    **{"empty": b"", "garbage": b"\0garbage", "zeros": b"\0" * 1000, "web page": b"<html>"},
    **{"list": b"le", "number": b"i7e", "string": b"1:a", "cut short": GOOD[:-30], "without its end": GOOD[:-1]},
    **{"trailing garbage": GOOD + b"garbage", "trailing string": GOOD + b"1:b", "trailing newline": GOOD + b"\n"},
    **{"cut short in a list": b"d1:al", "in a number": b"d1:ai1", "in a string": b"d1:a5:b", "in a digit": b"d1:a1"},
    **{"cut short in a length": b"d1:a12", "in a long length": b"d1:a" + b"9" * 5000 + b":"},
    "deep list": b"l" * DEEP + b"e" * DEEP,
    "dictionaries without end": b"d1:a" * DEEP,
    **{f"a {kind}: {item:.20}": f"d{item}".encode() + GOOD[1:] for kind, items in ITEMS.items() for item in items},
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
        f"path {path!r}": crafted(name=b"x", files=[ENTRY, {"length": 1, "path": path}])
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
REFUSED: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    **{kind: (rtwatch.parse_metainfo, content) for kind, content in {**BROKEN, **MALFORMED}.items()},
    **{kind: (rtwatch.parse_resume, content) for kind, content in RESUMES.items()},
}


def parse(data: bytes) -> rtwatch.Metainfo:
    metainfo = rtwatch.parse_metainfo(data)
    assert metainfo is not None
    return metainfo


@pytest.mark.parametrize(("parse", "content"), REFUSED.values(), ids=REFUSED)
def test_malformed_files_are_refused_in_few_words(parse: Callable[[bytes], object], content: bytes) -> None:
    with pytest.raises(rtwatch.Unreadable) as refusal:
        parse(content)
    assert 0 < len(str(refusal.value)) < 200


@pytest.mark.parametrize("meta_download", [1, 2, -1])
@pytest.mark.parametrize("more", [{}, {"length": 1}], ids=str)
def test_the_stub_of_a_magnet_is_no_torrent(meta_download: int, more: dict[str, int]) -> None:
    assert rtwatch.parse_metainfo(crafted(name=b"x.meta", meta_download=meta_download, **more)) is None


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


@pytest.mark.parametrize(("metainfo", "host"), TRACKERS.values(), ids=TRACKERS)
def test_the_tracker_is_the_first_usable_announce_host(metainfo: dict[str, Any], host: str | None) -> None:
    assert parse(craft({"name": b"x", "length": 1}, **metainfo).metainfo).tracker == host


# rtorrent takes them, too: lists to a depth of 1,022 (0.16.17), a negative length of a single file (both).
UNUSUAL = {
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
    "keys that are no text": b"d3:\xff\0:li-1ei0ee" + GOOD[1:],
    "bencoding in a string": b"d1:a12:3:abcd1:ai1e" + GOOD[1:],
    "a magnet that has its metadata": b"d22:rtorrent_meta_downloadd5:starti1ee" + GOOD[1:],
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_torrents_are_read(kind: str) -> None:
    assert rtwatch.locate_files(parse(UNUSUAL[kind]), b"/nowhere", b"/session")[0] == [b"/nowhere/good.bin"]


def test_only_names_and_paths_that_can_exist_are_listed() -> None:
    """255 bytes are the longest name, or 255 characters on exFAT and NTFS; 4,095 bytes the longest path."""
    fitting = [b"n" * 255, "\u96ea".encode() * 255, b"/".join([b"d"] * 2048), b"/".join([b"x" * 255] * 15)]
    unfitting = [b"n" * 256, "\u96ea".encode() * 256, b"/".join([b"d"] * 2049), b"d/" * 2000 + b"n" * 256]
    files = [{"length": 1, "path": path.split(b"/")} for path in [*fitting, *unfitting]]
    metainfo = parse(crafted(name=b"pack", files=files))
    assert metainfo.files == [*((1, path) for path in fitting), (len(unfitting), None)]
    assert rtwatch.locate_files(metainfo, b"/root/" + b"n" * 256, b"/session") == ([], [])
    assert rtwatch.locate_files(metainfo, b"/root/" * 700, b"/session") == ([], [])
    for name, number in ((b"n" * 255, True), (b"n" * 256, False)):
        assert (parse(crafted(name=name, length=1)).files[0][1] is not None) == number


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


@pytest.mark.parametrize(
    "char", "\0\a\b\t\n\v\f\r\x1b\x7f\x85\x9b\u200b\u200e\u2028\u202e\u2066\ufeff\udcff", ids=ascii
)
def test_only_characters_that_move_the_cursor_or_turn_the_text_are_escaped(char: str) -> None:
    text = 'a b Grüße 雪 🎬 a\\b "%s" é'
    assert rtwatch.printable(f"{text}{char}b") == f"{text}{ascii(char)[1:-1]}b"
