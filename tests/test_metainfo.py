"""The pure parts of rtwatch: what it reads from a torrent, where its files are, what is removed and why not."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import bencodepy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import rtwatch
from rtwatch import Facts, Limits, ListedFile, Metainfo, Resume, Trouble, Unreadable

HASH = "A" * 40
OTHER = "B" * 40
NAMES = [b"a", b"a", b"b", b"", b".", b"..", b"../b", b"/", b"\0", b"\xff", b"c d", b"pack", b"a" * 300]
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Fail instead of hanging when a function does not end: a minute of processor time is more than any test needs."""

    def bark(number: int, frame: object) -> None:
        raise AssertionError("this does not end")

    before = signal.signal(signal.SIGVTALRM, bark)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def encode(value: Any) -> bytes:
    """Return a bencoded value."""
    data: bytes = bencodepy.encode(value)
    return data


def parse(info: dict[str, Any], **outer: Any) -> Metainfo:
    """Return the metainfo of a torrent that is no stub."""
    metainfo = rtwatch.parse_metainfo(encode({**outer, "info": info}))
    assert metainfo is not None
    return metainfo


def multi(*paths: list[bytes], name: bytes = b"pack", **info: Any) -> Metainfo:
    """Return the metainfo of a multi-file torrent."""
    return parse({"name": name, "files": [{"length": 1, "path": path} for path in paths], **info})


def locate(metainfo: Metainfo, directory: str | Path | bytes, session: Path = Path("/nowhere")) -> list[Path]:
    """Return the files of a torrent whose R has `directory`."""
    text = os.fsencode(directory)
    root = rtwatch.resolve_root(text, 0)
    assert root is not None
    files = rtwatch.locate_files(metainfo, text, root, os.fsencode(session))
    return [Path(os.fsdecode(file)) for file in files]


def write(*paths: Path) -> list[Path]:
    """Write files, with the directories that they need."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"data")
    return list(paths)


# decoding


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"d1:ai1e-6:e", id="negative length"),
        pytest.param(b"d1:a-1:e", id="negative length of a value"),
        pytest.param(b"d1:al1:b-3:ee", id="negative length in a list"),
        pytest.param(b"d+1:ai1ee", id="signed length"),
        pytest.param(b"d01:ai1ee", id="length with a zero first"),
        pytest.param(b"d1 :ai1ee", id="length with a blank"),
        pytest.param(b"d1:a999999999:be", id="length beyond the end"),
        pytest.param(b"d1:a" + b"9" * 30 + b":be", id="length of 30 digits"),
        pytest.param(b"d1:a" + b"9" * 5000 + b":be", id="length of 5000 digits"),
        pytest.param(b"d1:a5:helloX", id="no end"),
        pytest.param(b"d1:ai1e", id="cut short"),
        pytest.param(b"d1:a", id="key only"),
        pytest.param(b"d1:a5:he", id="string cut short"),
        pytest.param(b"di1ei2ee", id="number as key"),
        pytest.param(b"d1:aiee", id="number without digits"),
        pytest.param(b"d1:ai" + b"9" * 5000, id="number without end"),
        pytest.param(b"d1:ai1ee1:b", id="trailing string"),
        pytest.param(b"de\n", id="trailing newline"),
        pytest.param(b"le", id="list"),
        pytest.param(b"i1e", id="number"),
        pytest.param(b"1:a", id="string"),
        pytest.param(b"\0" * 1000, id="zeros"),
        pytest.param(b"<html>", id="web page"),
        pytest.param(b"l" * 5000 + b"e" * 5000, id="lists 5000 deep"),
        pytest.param(b"d1:a" + b"l" * 5000 + b"e" * 5001, id="lists 5000 deep in a dictionary"),
        pytest.param(b"d1:a" * 5000 + b"i1e" + b"e" * 5000, id="dictionaries 5000 deep"),
        pytest.param(b"d1:a" * 5000, id="dictionaries 5000 deep without end"),
    ],
)
def test_what_is_no_bencoded_dictionary_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        rtwatch.decode(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"de", {}),
        (b"d1:a0:e", {b"a": b""}),
        (b"d3:\xff\0:li-1ei0eee", {b"\xff\0:": [-1, 0]}),
        (b"d1:ad1:bleee", {b"a": {b"b": []}}),
        (b"d1:a12:3:abcd1:ai1ee", {b"a": b"3:abcd1:ai1e"}),
    ],
)
def test_a_dictionary_is_decoded_to_bytes(data: bytes, value: dict[bytes, Any]) -> None:
    assert rtwatch.decode(data) == value


def test_depth_is_taken_as_rtorrent_takes_it() -> None:
    assert list(rtwatch.decode(b"d1:a" + b"l" * 500 + b"e" * 501)) == [b"a"]


FRAGMENTS = [b"d", b"l", b"e", b"i", b"i1e", b"1:a", b"0:", b"-6:", b":", b"9", b"-", b"4:info", b"99999999:", b"\xff"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Make a bencoded dictionary with a part replaced."""
    data = encode(draw(st.dictionaries(st.binary(max_size=5), VALUES, max_size=5)))
    start = draw(st.integers(0, len(data)))
    return data[:start] + draw(st.sampled_from(FRAGMENTS)) + data[start + draw(st.integers(0, 3)) :]


@PATIENT
@given(st.binary() | st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(lambda x: b"d" + b"".join(x)) | damaged())
@example(b"d1:ai1e-6:e")
def test_any_bytes_are_a_dictionary_or_refused(data: bytes) -> None:
    try:
        value = rtwatch.decode(data)
    except Unreadable:
        return
    assert isinstance(value, dict)
    assert all(isinstance(key, bytes) for key in value)


@PATIENT
@given(st.dictionaries(st.binary(max_size=9), VALUES, max_size=5))
def test_what_was_encoded_is_decoded(value: dict[bytes, Any]) -> None:
    assert rtwatch.decode(encode(value)) == value


# R


@pytest.mark.parametrize(
    ("resume", "expected"),
    [
        pytest.param({"directory": b"/x", "complete": 0, "chunks_done": 0}, Resume(b"/x", False), id="new"),
        pytest.param({"directory": b"/x", "complete": 1, "chunks_done": 9}, Resume(b"/x", True), id="complete"),
        pytest.param({"directory": b"/x", "complete": 0, "chunks_done": 9}, Resume(b"/x", True), id="in part"),
        pytest.param({"directory": b"/x"}, Resume(b"/x", False), id="nothing else"),
        pytest.param({"directory": b""}, Resume(b"", False), id="empty directory"),
        pytest.param({"directory": b"~/a//b/../c/"}, Resume(b"~/a//b/../c/", False), id="as it stands"),
        pytest.param({"directory": b"\xff\n "}, Resume(b"\xff\n ", False), id="no text"),
    ],
)
def test_r_tells_the_directory_and_whether_data_was_counted(resume: dict[str, Any], expected: Resume) -> None:
    assert rtwatch.parse_resume(encode(resume)) == expected


@pytest.mark.parametrize(
    "data",
    [b"", b"de", encode({"directory": 1}), encode({"directory": [b"/x"]}), encode({"directory": b"/x\0y"})],
    ids=["empty", "none", "number", "list", "NUL"],
)
def test_an_r_without_a_directory_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        rtwatch.parse_resume(data)


# T


def test_a_single_file_torrent_has_its_name_as_path() -> None:
    assert parse({"name": b"x", "length": 5}) == Metainfo(None, False, {b"": b"x"}, [(5, {b"": b"x"})])


def test_a_multi_file_torrent_has_joined_paths() -> None:
    files = [{"length": 5, "path": [b"a"]}, {"length": 0, "path": [b"s", b"\xff"]}]
    expected = Metainfo(None, True, {b"": b"x"}, [(5, {b"": b"a"}), (0, {b"": b"s/\xff"})])
    assert parse({"name": b"x", "files": files}) == expected


def test_length_beats_files() -> None:
    metainfo = parse({"name": b"x", "length": 5, "files": [{"length": 1, "path": [b"a"]}]})
    assert (metainfo.multi, metainfo.files) == (False, [(5, {b"": b"x"})])


def test_one_entry_in_files_is_a_multi_file_torrent() -> None:
    assert multi([b"a"]).multi


@pytest.mark.parametrize("extra", [{}, {"length": 1}], ids=["0.9.8 and 0.16", "with a length"])
def test_the_stub_of_a_magnet_is_no_torrent_yet(extra: dict[str, Any]) -> None:
    info = {"name": HASH + ".meta", "pieces": b"x" * 20, "meta_download": 1, **extra}
    assert rtwatch.parse_metainfo(encode({"info": info})) is None


def test_a_magnet_with_its_metadata_is_a_torrent() -> None:
    assert parse({"name": b"x", "length": 5}, rtorrent_meta_download={"start": 1}).names == {b"": b"x"}


ENTRY = {"length": 1, "path": [b"a"]}
GOOD = {"name": b"x", "files": [ENTRY]}


@pytest.mark.parametrize(
    "torrent",
    [
        pytest.param({}, id="no info"),
        pytest.param({"info": b"x"}, id="info is a string"),
        pytest.param({"info": {}}, id="empty info"),
        pytest.param({"info": {"name": b"x"}}, id="no files"),
        pytest.param({"info": {"length": 1}}, id="no name"),
        pytest.param({"info": {"name": 1, "length": 1}}, id="name is a number"),
        pytest.param({"info": {"name": [b"x"], "length": 1}}, id="name is a list"),
        *(pytest.param({"info": {"name": n, "length": 1}}, id=f"single {n!r}") for n in (b".", b"..", b"a/b", b"\0")),
        *(pytest.param({"info": {**GOOD, "name": n}}, id=f"multi {n!r}") for n in (b".", b"..", b"a/b", b"a\0")),
        pytest.param({"info": {"name": b"x", "length": -1}}, id="negative length"),
        pytest.param({"info": {"name": b"x", "length": b"1"}}, id="length is a string"),
        pytest.param({"info": {"name": b"x", "files": []}}, id="files are empty"),
        pytest.param({"info": {"name": b"x", "files": b"a"}}, id="files are a string"),
        pytest.param({"info": {"name": b"x", "files": {"a": ENTRY}}}, id="files are a dictionary"),
        pytest.param({"info": {"name": b"x", "files": [ENTRY, b"a"]}}, id="a file is a string"),
        pytest.param({"info": {"name": b"x", "files": [ENTRY, {"path": [b"b"]}]}}, id="a file has no length"),
        pytest.param({"info": {"name": b"x", "files": [{"length": 1}]}}, id="a file has no path"),
        pytest.param({"info": {"name": b"x", "files": [{"length": 1, "path": []}]}}, id="a path is empty"),
        pytest.param({"info": {"name": b"x", "files": [{"length": 1, "path": b"a"}]}}, id="a path is a string"),
    ],
)
def test_a_malformed_torrent_is_refused(torrent: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        rtwatch.parse_metainfo(encode(torrent))


@pytest.mark.parametrize(
    ("elements", "path"),
    [
        ([b"a"], b"a"),
        ([b"a", b"b", b"c"], b"a/b/c"),
        ([b"", b"etc", b"passwd"], b"etc/passwd"),
        ([b"a", b"", b"b"], b"a/b"),
        ([b"a", b""], b"a/"),
        ([b"a", b"", b""], b"a/"),
        ([b""], b""),
        ([b"", b""], b""),
        ([b"...", b" ", b"~", b"a\\b", b"\n"], b".../ /~/a\\b/\n"),
        ([b"\xff\xfe"], b"\xff\xfe"),
    ],
)
def test_path_elements_are_joined_without_empty_ones(elements: list[bytes], path: bytes) -> None:
    assert rtwatch.join_path(elements) == path


@pytest.mark.parametrize(
    "elements",
    [
        *([], None, b"a", 1, {b"a": b"b"}, ["a"], [b"a", 1], [[b"a"]], [b"a", [b"b"]], [None]),
        *([b".."], [b"a", b".."], [b"..", b"a"], [b"a", b"..", b"b"], [b"."], [b"a", b".", b"b"]),
        *([b"/"], [b"a/b"], [b"/etc"], [b"a/../b"], [b"a\0"], [b"\0"]),
    ],
    ids=repr,
)
def test_path_elements_that_rtorrent_refuses_are_refused(elements: object) -> None:
    with pytest.raises(Unreadable):
        rtwatch.join_path(elements)


# names in other encodings


def entry(path: object = None, utf8: object = None, cp1251: object = None) -> dict[str, Any]:
    """Return an entry of `files` with its path in up to three encodings."""
    paths = {"path": path, "path.utf-8": utf8, "path.cp1251": cp1251}
    return {"length": 1, **{key: value for key, value in paths.items() if value is not None}}


@pytest.mark.parametrize(
    ("info", "names", "files"),
    [
        pytest.param({"name.utf-8": b"x", "length": 1}, {"utf-8": "x"}, [{"": "x", "utf-8": "x"}], id="the same name"),
        pytest.param({"name.UTF-8": b"u", "length": 1}, {"utf-8": "u"}, [{"": "x", "utf-8": "u"}], id="another name"),
        *(
            pytest.param({"name.utf-8": name, "length": 1}, {}, [{"": "x"}], id=f"refused name {name!r}")
            for name in (b"../evil", b"a/b", b"..", b".", b"\0", 1, [b"u"])
        ),
        pytest.param(
            {"files": [entry(path=[b"a"], utf8=[b"s", b"u"])]}, {}, [{"": "a", "utf-8": "s/u"}], id="another path"
        ),
        pytest.param({"name.utf-8": b"u", "files": [entry(path=[b"a"])]}, {"utf-8": "u"}, [{"": "a"}], id="only name"),
        *(
            pytest.param({"files": [entry(path=[b"a"], utf8=path)]}, {}, [{"": "a"}], id=f"refused path {path!r}")
            for path in ([b".."], [b"a/b"], [], [b"a", b"\0"], b"a", [1])
        ),
        pytest.param({"files": [entry(utf8=[b"u"])]}, {}, [{"": "u", "utf-8": "u"}], id="path.utf-8 without path"),
        pytest.param(
            {"files": [entry(path=b"a", utf8=[b"u"])]}, {}, [{"": "u", "utf-8": "u"}], id="path.utf-8, path is no list"
        ),
        pytest.param(
            {"files": [entry(path=[b"a"], utf8=[b"u"]), entry(path=[b"b"])]},
            *({}, [{"": "a", "utf-8": "u"}, {"": "b"}]),
            id="not for every file",
        ),
        pytest.param(
            {
                **{"name.utf-8": b"u", "name.cp1251": b"c"},
                "files": [entry(path=[b"a"], utf8=[b"v"], cp1251=[b"d"])],
            },
            *({"utf-8": "u", "cp1251": "c"}, [{"": "a", "utf-8": "v", "cp1251": "d"}]),
            id="two encodings",
        ),
    ],
)
def test_names_come_in_every_encoding(info: dict[str, Any], names: dict[str, str], files: list[dict[str, str]]) -> None:
    def encoded(known: dict[str, str]) -> dict[bytes, bytes]:
        return {key.encode(): value.encode() for key, value in known.items()}

    metainfo = parse({"name": b"x", **info})
    assert metainfo.names == {b"": b"x", **encoded(names)}
    assert [paths for _, paths in metainfo.files] == list(map(encoded, files))


def test_path_in_another_encoding_without_any_usable_is_refused() -> None:
    with pytest.raises(Unreadable):
        parse({"name": b"x", "files": [entry(utf8=[b".."])]})


def test_the_name_of_an_encoding_is_compared_case_insensitively(tmp_path: Path) -> None:
    metainfo = parse({"name": b"x", "name.UTF-8": b"y", "files": [entry(path=[b"a"], utf8=[b"u"])]})
    assert locate(metainfo, tmp_path / "y") == [tmp_path / "y" / "u"]  # 0.9.8 with encoding.add = utf-8


def test_name_and_path_may_be_of_different_encodings(tmp_path: Path) -> None:
    metainfo = parse({"name": b"x", "name.utf-8": b"y", "files": [entry(path=[b"a"], cp1251=[b"u"])]})
    assert locate(metainfo, tmp_path / "y")[:1] == [tmp_path / "y" / "a"]
    files = write(tmp_path / "y" / "u")  # 0.9.8 with encoding.add = utf-8, encoding.add = cp1251
    assert locate(metainfo, tmp_path / "y") == files


# where the files are


def test_the_file_of_a_single_file_torrent_is_in_its_directory(tmp_path: Path) -> None:
    assert locate(parse({"name": b"x", "length": 1}), tmp_path) == [tmp_path / "x"]


@pytest.mark.parametrize("last", ["pack", "else"], ids=["its name", "another name"])
def test_the_files_of_a_multi_file_torrent_are_below_its_directory(last: str, tmp_path: Path) -> None:
    root = tmp_path / last
    assert locate(multi([b"a"], [b"s", b"b"]), root) == [root / "a", root / "s" / "b"]


def test_length_beats_files_on_disk_too(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert locate(parse({"name": b"x", "length": 1, "files": [ENTRY]}), tmp_path) == [tmp_path / "x"]


@pytest.mark.parametrize("tail", ["/", "//", "/.", "//./", "/s/..", "/../root", "/../link", "/../link/"])
def test_the_directory_may_be_written_in_many_ways(tail: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "s").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    assert locate(multi([b"a"], [b"s", b"b"]), f"{root}{tail}") == [root / "a", root / "s" / "b"]
    assert locate(parse({"name": b"x", "length": 1}), f"/{root}{tail}") == [root / "x"]


def test_two_dots_behind_a_link_lead_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/deep")
    assert locate(multi([b"a"]), f"{tmp_path}/link/../x") == [tmp_path / "far" / "x" / "a"]


def test_a_link_on_the_way_is_resolved_and_a_link_in_its_place_is_not(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "s").symlink_to(tmp_path / "far")
    (root / "file").symlink_to(tmp_path / "far" / "data")
    (root / "dangling").symlink_to("nothing")
    metainfo = multi([b"s", b"a"], [b"file"], [b"dangling"])
    assert locate(metainfo, root) == [tmp_path / "far" / "a", root / "file", root / "dangling"]


def test_a_file_that_is_reached_in_two_ways_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "root" / "s").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to("s")
    assert locate(multi([b"s", b"a"], [b"link", b"a"]), tmp_path / "root") == [tmp_path / "root" / "s" / "a"]


def test_names_need_not_be_text(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(root)
    found = locate(multi([b"\xfe"], [b"\xfd", b"a\nb"]), root)
    assert [os.fsencode(path) for path in found] == [root + b"/\xfe", root + b"/\xfd/a\nb"]


@pytest.mark.parametrize("name", ["", "a"], ids=["empty first", "empty in the middle"])
def test_empty_elements_do_not_lead_outside(name: str, tmp_path: Path) -> None:
    assert locate(multi([name.encode(), b"", b"etc"]), tmp_path) == [tmp_path / name / "etc"]


def test_an_empty_last_element_is_a_file_only_where_one_is(tmp_path: Path) -> None:
    write(tmp_path / "file")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    metainfo = multi([b"file", b""], [b"directory", b""], [b"link", b""], [b"missing", b""], [b""], [b"a"])
    assert locate(metainfo, tmp_path) == [tmp_path / "file", tmp_path / "a"]


def test_an_empty_name_is_no_file_and_no_directory(tmp_path: Path) -> None:
    assert locate(parse({"name": b"", "length": 1}), tmp_path) == []
    assert locate(multi([b"a"], name=b""), tmp_path) == [tmp_path / "a"]


@pytest.mark.parametrize("extra", [{"attr": b"p"}, {"attr": b"l", "symlink path": [b"a"]}], ids=["padding", "symlink"])
def test_files_with_attributes_are_listed_like_others(extra: dict[str, Any], tmp_path: Path) -> None:
    metainfo = parse({"name": b"pack", "files": [ENTRY, {"length": 1, "path": [b".pad", b"1"], **extra}]})
    assert locate(metainfo, tmp_path) == [tmp_path / "a", tmp_path / ".pad" / "1"]


def test_nothing_in_the_session_directory_is_listed(tmp_path: Path) -> None:
    session = tmp_path / "session"
    session.mkdir()
    (tmp_path / "link").symlink_to(session)
    assert locate(parse({"name": b"x", "length": 1}), f"{session}/", session) == []
    assert locate(multi([b"link", b"a"], [b"session", b"b"], [b"c"]), tmp_path, session) == [tmp_path / "c"]
    assert locate(multi([b"a"]), tmp_path / "session2", session) == [tmp_path / "session2" / "a"]


U_TORRENT = {"name": b"x", "name.utf-8": b"u", "files": [entry(path=[b"a"], utf8=[b"v"]), entry(path=[b"b"])]}


@pytest.mark.parametrize("tail", ["", "/", "//"])
@pytest.mark.parametrize(("last", "files"), [("x", ["a", "b"]), ("u", ["v", "b"])], ids=["name", "name.utf-8"])
def test_the_root_tells_the_encoding(last: str, files: list[str], tail: str, tmp_path: Path) -> None:
    write(tmp_path / last / "a", tmp_path / last / "v")
    assert locate(parse(U_TORRENT), f"{tmp_path}/{last}{tail}") == [tmp_path / last / file for file in files]


@pytest.mark.parametrize("there", [["a"], ["v"], ["a", "v"]], ids=" and ".join)
def test_what_is_there_tells_the_encoding(there: list[str], tmp_path: Path) -> None:
    root = tmp_path / "else"
    files = write(*(root / name for name in there))
    assert sorted(locate(parse(U_TORRENT), root)) == sorted([*files, root / "b"])


def test_a_link_that_leads_nowhere_is_there(tmp_path: Path) -> None:
    (tmp_path / "v").symlink_to("nothing")
    assert locate(parse(U_TORRENT), tmp_path) == [tmp_path / "v", tmp_path / "b"]


def test_where_nothing_tells_the_encoding_all_are_listed(tmp_path: Path) -> None:
    assert sorted(locate(parse(U_TORRENT), tmp_path)) == [tmp_path / "a", tmp_path / "b", tmp_path / "v"]


@pytest.mark.parametrize("there", [["x"], ["u"], ["u", "x"], []], ids=["name", "name.utf-8", "both", "none"])
def test_a_single_file_is_told_by_what_is_there(there: list[str], tmp_path: Path) -> None:
    root = tmp_path / "u"  # says nothing here: it is not the torrent's own directory
    root.mkdir()
    write(*(root / name for name in there))
    found = locate(parse({"name": b"x", "name.utf-8": b"u", "length": 1}), root)
    assert sorted(found) == [root / name for name in there or ["u", "x"]]


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make values of a kind, and now and then another value."""
    return good | good | good | VALUES


PATHS = mostly(st.lists(mostly(st.sampled_from(NAMES)), max_size=4))
LENGTHS = mostly(st.integers(-1, 9))
FILES = st.fixed_dictionaries(
    {}, optional={"length": LENGTHS, "path": PATHS, "path.utf-8": PATHS, "path.x": PATHS, "attr": VALUES}
)
INFOS = st.fixed_dictionaries(
    {"name": mostly(st.sampled_from(NAMES))},
    optional={
        **{"length": LENGTHS, "files": mostly(st.lists(mostly(FILES), max_size=4))},
        **{"name.utf-8": mostly(st.sampled_from(NAMES)), "name.x": VALUES, "meta_download": LENGTHS},
    },
)
SOUND = st.fixed_dictionaries(
    {
        "name": st.sampled_from([b"pack", b"a", b""]),
        "files": st.lists(
            st.fixed_dictionaries(
                {"length": st.integers(0, 9), "path": st.lists(st.sampled_from([b"a", b"b", b""]), min_size=1)},
                optional={"path.utf-8": PATHS, "path.x": PATHS},
            ),
            min_size=1,
        ),
    },
    optional={"name.utf-8": mostly(st.sampled_from(NAMES))},
)


def parse_or_refuse(info: dict[str, Any]) -> Optional[Metainfo]:
    """Return what is parsed, None also for what is refused."""
    try:
        return rtwatch.parse_metainfo(encode({"info": info, "announce": b"http://[", "announce-list": [[b"x"], 1]}))
    except Unreadable:
        return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with some of the names that torrents are made of, all of them real files and directories."""
    path = tmp_path_factory.mktemp("place")
    write(path / "pack" / "a" / "b", path / "pack" / "b", path / "b", path / "a" / "a")
    return path


@PATIENT
@given(info=INFOS | SOUND, tail=st.sampled_from([b"", b"/", b"/pack", b"/a/", b"//pack/../a", b"/missing", b"/b"]))
def test_every_file_of_any_torrent_is_below_its_root(place: Path, info: dict[str, Any], tail: bytes) -> None:
    metainfo = parse_or_refuse(info)
    if metainfo is None:
        return
    directory = os.fsencode(place) + tail
    root = rtwatch.resolve_root(directory, 0)
    assert root is not None
    files = rtwatch.locate_files(metainfo, directory, root, b"/nowhere")
    for file in files:
        assert file == os.path.normpath(file)
        assert file.startswith(root + b"/") or (file == root and root.endswith(b"/b"))  # a file as root, an empty path
    assert len(set(files)) == len(files)


@PATIENT
@given(SOUND)
def test_a_sound_torrent_is_never_refused(info: dict[str, Any]) -> None:
    assert rtwatch.parse_metainfo(encode({"info": info}))


# trackers


@pytest.mark.parametrize(
    ("torrent", "host"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"announce": b"http://example.org/announce"}, "example.org", id="http"),
        pytest.param({"announce": b"udp://example.org:80"}, "example.org", id="udp with port"),
        pytest.param({"announce": b"https://me:secret@example.org/key"}, "example.org", id="no password"),
        pytest.param({"announce": b"http://[2001:db8::1]:80/a"}, "2001:db8::1", id="IPv6"),
        pytest.param({"announce": b""}, None, id="empty"),
        pytest.param({"announce": b"nonsense"}, None, id="no URL"),
        pytest.param({"announce": b"http://[nonsense/"}, None, id="broken URL"),
        pytest.param({"announce": b"http:///path"}, None, id="no host"),
        pytest.param({"announce": 1}, None, id="number"),
        pytest.param({"announce": b"http://a/", "announce-list": [[b"http://b/"]]}, "a", id="announce comes first"),
        pytest.param({"announce-list": [[b"http://b/", b"http://c/"], [b"http://d/"]]}, "b", id="first tier"),
        pytest.param({"announce": b"", "announce-list": [[], [b""], [b"http://d/"]]}, "d", id="first usable tier"),
        pytest.param({"announce-list": [b"http://b/", 1, {}, [1, [b"x"]], [b"http://d/"]]}, "d", id="no lists"),
        pytest.param({"announce-list": b"http://b/"}, None, id="tiers are a string"),
        pytest.param({"announce-list": []}, None, id="no tiers"),
    ],
)
def test_the_tracker_is_the_host_of_the_first_usable_announce(torrent: dict[str, Any], host: Optional[str]) -> None:
    assert parse({"name": b"x", "length": 1}, **torrent).tracker == host


@PATIENT
@given(st.fixed_dictionaries({}, optional={"announce": VALUES, "announce-list": VALUES}))
def test_any_announce_gives_a_host_or_none(torrent: dict[str, Any]) -> None:
    tracker = parse({"name": b"x", "length": 1}, **torrent).tracker
    assert tracker is None or tracker


# the root


@contextmanager
def process(cwd: Path, home: Optional[str]) -> Iterator[int]:
    """Run a process with its own home and working directory, as rtorrent has them; give its number."""
    env = {"PATH": os.environ["PATH"], "XHOME": "/x", **({} if home is None else {"HOME": home})}
    with subprocess.Popen(["cat"], cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"!")
        assert cat.stdout.read(1) == b"!"  # it runs: for a moment before, it has no environment
        yield cat.pid


@pytest.mark.parametrize(
    ("directory", "place"),
    [
        *(("~", "home"), ("~/", "home"), ("~/x", "home/x"), ("~//x/../y/", "home/y"), ("~root/x", "homeroot/x")),
        *(("", "cwd"), (".", "cwd"), ("./", "cwd"), ("rel/sub", "cwd/rel/sub"), ("../x", "x"), ("./link/x", "real/x")),
        *(("pack", "cwd/pack"), (" ~", "cwd/ ~"), ("\udcff", "cwd/\udcff")),
    ],
)
def test_a_directory_means_what_it_means_to_rtorrent(directory: str, place: str, tmp_path: Path) -> None:
    for name in ("home", "cwd", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "cwd" / "link").symlink_to("../real")
    with process(tmp_path / "cwd", str(tmp_path / "home")) as pid:
        assert rtwatch.resolve_root(os.fsencode(directory), pid) == os.fsencode(tmp_path / place)


@pytest.mark.parametrize("directory", [b"~", b"~/x", b"", b".", b"rel"])
def test_without_a_process_only_an_absolute_directory_is_known(directory: bytes, tmp_path: Path) -> None:
    with process(tmp_path, str(tmp_path)) as pid:
        pass
    assert [rtwatch.resolve_root(directory, number) for number in (0, pid)] == [None, None]
    assert rtwatch.resolve_root(os.fsencode(tmp_path) + b"/", pid) == os.fsencode(tmp_path)


@pytest.mark.parametrize("home", [None, "", "relative"], ids=["unset", "empty", "relative"])
def test_without_a_home_a_tilde_is_not_known(home: Optional[str], tmp_path: Path) -> None:
    with process(tmp_path, home) as pid:
        assert rtwatch.resolve_root(b"~/x", pid) is None
        assert rtwatch.resolve_root(b"x", pid) == os.fsencode(tmp_path / "x")


def test_a_working_directory_that_was_removed_is_not_known(tmp_path: Path) -> None:
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    with process(cwd, str(tmp_path)) as pid:
        cwd.rmdir()
        assert rtwatch.resolve_root(b"x", pid) is None
        (tmp_path / "cwd (deleted)").mkdir()
        assert rtwatch.resolve_root(b"x", pid) is None


# what people see


@pytest.mark.parametrize("text", ["", "a b", "Grüße 雪 🎬", "a\\b", '"%s"', "é"])
def test_what_can_be_printed_stays(text: str) -> None:
    assert rtwatch.printable(text) == text


@pytest.mark.parametrize(
    "char",
    [*"\0\a\b\t\n\v\f\r\x1b\x7f", "\x85", "\x9b", "\u200b", "\u200e", "\u2028", "\u202e", "\u2066", "\ufeff", "\udcff"],
    ids=ascii,
)
def test_what_moves_the_cursor_or_turns_the_text_is_escaped(char: str) -> None:
    shown = rtwatch.printable(f"a{char}b")
    assert shown.isprintable()
    assert char not in shown
    assert (shown[0], shown[-1]) == ("a", "b")


@PATIENT
@given(st.text(st.characters()))
def test_whatever_is_printed_is_printable(text: str) -> None:
    shown = rtwatch.printable(text)
    assert shown.isprintable()
    shown.encode()  # no surrogates are left
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 B"), (1, "1 B"), (999, "999 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (123456, "121 KiB")),
        *((5 << 20, "5 MiB"), (3 << 30, "3 GiB"), (7 << 40, "7 TiB")),
    ],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert rtwatch.human_size(size) == text


@PATIENT
@given(st.integers(0, 900 << 40))
@example(999 * 1024 + 1000)
def test_sizes_are_short_and_true(size: int) -> None:
    number, unit = rtwatch.human_size(size).split()
    factor = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert len(number) <= 5
    assert "e" not in number
    assert float(number) * factor == pytest.approx(size, rel=0.006)


# who erased it

L, R, T = (f"{HASH}.torrent{suffix}" for suffix in (".libtorrent_resume", ".rtorrent", ""))


@pytest.mark.parametrize(
    ("names", "had_resume", "erased"),
    [
        pytest.param([L, R, T], True, True, id="L R T"),
        pytest.param([L, R, T], False, True, id="L came later"),
        pytest.param([R, T], False, True, id="R T without L"),
        pytest.param(["x", R, T], False, True, id="R T without L, after another"),
        pytest.param(["x", R, T], True, False, id="L is missing"),
        pytest.param(["x", L, T], True, False, id="R is missing"),
        pytest.param(["x", "y", T], True, False, id="only T"),
        pytest.param(["x", "y", T], False, False, id="only T, without L"),
        pytest.param([R, L, T], True, False, id="R L T"),
        pytest.param([R, T, L], True, False, id="R T L"),
        pytest.param([T, L, R], True, False, id="T L R"),
        pytest.param([L, R, "x"], True, False, id="another T"),
        pytest.param([f"{OTHER}.torrent.libtorrent_resume", R, T], True, False, id="another L"),
        pytest.param([rtwatch.UNSEEN, R, T], False, True, id="R T without L, events lost before"),
        pytest.param([rtwatch.UNSEEN, R, T], True, None, id="L may be lost"),
        pytest.param([rtwatch.UNSEEN, T], True, None, id="R may be lost"),
        pytest.param([rtwatch.UNSEEN], True, None, id="all may be lost"),
    ],
)
def test_rtorrent_unlinks_l_r_t_and_nothing_between(names: list[str], had_resume: bool, erased: Optional[bool]) -> None:
    assert rtwatch.was_erased(names, HASH, had_resume) is erased


# guards

TORRENT = rtwatch.Torrent(HASH, "pack", Path("/dl/pack"), 500.0, True, 1000.0, True, None)
FACTS = Facts(listed=frozenset([OTHER]), troubles={}, lock="running", paths=False, loaded=1, vanished=[1000.0])


def guarded(seen: Optional[bool] = True, **facts: Any) -> Optional[str]:
    """Return the first reason not to finish a torrent that rtorrent was seen to erase or not."""
    torrent = TORRENT._replace(seen=seen)
    return rtwatch.guard(torrent, FACTS._replace(**facts), False)


@pytest.mark.parametrize("lock", ["running", "stale", "missing"])
def test_what_rtorrent_was_seen_to_erase_is_finished(lock: str) -> None:
    assert guarded(lock=lock) is None


def test_what_has_a_session_file_is_held() -> None:
    assert guarded(listed=frozenset([HASH, OTHER]))


@pytest.mark.parametrize("harmless", [True, False])
def test_what_cannot_be_read_holds_everything_unless_harmless(harmless: bool) -> None:
    troubles = {"C" * 40: Trouble("fine", "", True), OTHER: Trouble(f"{OTHER}.torrent", "it is empty", harmless)}
    reason = guarded(troubles=troubles)
    assert reason is None if harmless else f"{OTHER}.torrent, it is empty" in str(reason)


@pytest.mark.parametrize("seen", [False, 0])  # sqlite knows numbers only
def test_what_others_deleted_is_held(seen: bool) -> None:
    assert guarded(seen)


@pytest.mark.parametrize(("lock", "held"), [("running", False), ("stale", True), ("missing", True)])
def test_what_nobody_saw_needs_a_running_rtorrent(lock: str, held: bool) -> None:
    assert bool(guarded(None, lock=lock)) is held


@pytest.mark.parametrize(
    ("seen", "group", "loaded", "held"),
    [
        pytest.param(True, 1, 0, False, id="seen, the last one"),
        pytest.param(True, 10, 0, False, id="seen, ten of ten"),
        pytest.param(True, 11, 0, True, id="seen, eleven of eleven"),
        pytest.param(True, 1000, 1, False, id="seen, all but one"),
        pytest.param(None, 1, 0, True, id="unknown, the last one"),
        pytest.param(None, 1, 1, False, id="unknown, one of two"),
        pytest.param(None, 50, 50, False, id="unknown, half"),
        pytest.param(None, 51, 50, True, id="unknown, more than half"),
        pytest.param(None, 1, 50, False, id="unknown, one of many"),
    ],
)
def test_a_wipe_is_held(seen: Optional[bool], group: int, loaded: int, held: bool) -> None:
    assert bool(guarded(seen, loaded=loaded, vanished=sorted(1000.0 + number % 60 for number in range(group)))) is held


def test_only_what_vanished_within_a_minute_counts_as_a_wipe() -> None:
    assert guarded(None, loaded=2, vanished=[940.0, 1000.0, 1060.0])
    assert guarded(None, loaded=2, vanished=[0.0, 939.0, 1000.0, 1061.0]) is None


@pytest.mark.parametrize(("paths", "held"), [(False, True), (True, False)], ids=["no PATH", "PATH"])
def test_a_lock_of_another_host_needs_a_path(paths: bool, held: bool) -> None:
    for seen in (True, None):
        assert bool(guarded(seen, lock="elsewhere", paths=paths)) is held


@pytest.mark.parametrize(
    "facts",
    [
        {"troubles": {OTHER: Trouble(f"{OTHER}.torrent", "it is empty", False)}},
        {"lock": "elsewhere"},
        {"loaded": 0, "vanished": [1000.0] * 20},
    ],
    ids=["unreadable", "another host", "wipe"],
)
def test_only_its_own_session_files_withstand_force(facts: dict[str, Any]) -> None:
    for seen in (True, False, None):
        assert rtwatch.guard(TORRENT._replace(seen=seen), FACTS._replace(**facts), False)
        assert rtwatch.guard(TORRENT._replace(seen=seen), FACTS._replace(**facts), True) is None
        assert rtwatch.guard(TORRENT._replace(seen=seen), FACTS._replace(listed=[HASH], **facts), True)


# the plan

LATER = 4e9  # Unix time at which the tests' torrents vanish


def listed(path: Path, **more: Any) -> ListedFile:
    """Return the facts about a file as the disk has them, of which some may be others."""
    info, problem = rtwatch.look_at(path)
    facts = {"length": 4, "inherited": False, "owners": (), "perhaps": None, "users": (), **more}
    return ListedFile(path, info, problem, os.path.realpath(path.parent), **facts)


def limits(root: Path, *paths: Path, **more: Any) -> Limits:
    """Return limits with a session beside the root."""
    where: dict[str, Any] = {"session": root.parent / "session", "vanished": LATER, "unlinked": set()}
    where.update({"arrived": None, "device": None, **more})
    return Limits(root=root, paths=paths, **where)


def reason(file: ListedFile, where: Limits) -> Optional[str]:
    """Return why the plan keeps a file."""
    ((planned, why),) = rtwatch.plan_removal([file], where)
    assert planned is file
    return why


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give the root of a torrent, with files and a link in it and files beside it."""
    root = tmp_path / "pack"
    write(root / "a", root / "s" / "b", tmp_path / "pack2" / "a", tmp_path / "a", tmp_path / "session" / "a")
    (root / "link").symlink_to("a")
    return root


@pytest.mark.parametrize("name", ["a", "s/b", "link"])
def test_a_torrents_own_file_goes(name: str, root: Path) -> None:
    file = listed(root / name)
    assert reason(file, limits(root)) is None
    assert reason(file, limits(root, root.parent)) is None
    assert reason(file, limits(root, root.parent / "pack2", root)) is None
    assert file.info is not None
    assert reason(file, limits(root, device=file.info.st_dev, arrived=file.info.st_mtime)) is None


OTHERS = (f'{OTHER} "other"', f'{"C" * 40} "third"')


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({"owners": OTHERS}, f'also in {"B" * 40} "other"', id="listed by another"),
        pytest.param({"perhaps": OTHERS[0]}, f'perhaps in {"B" * 40} "other"', id="perhaps another's"),
        pytest.param({"users": OTHERS}, f'used by a symlink in {"B" * 40} "other"', id="linked by another"),
        pytest.param({"length": 3}, "longer than the torrent says", id="longer"),
        pytest.param({"length": 0}, "longer than the torrent says", id="not empty"),
        pytest.param({"length": 5}, None, id="shorter"),
        pytest.param({"length": None}, None, id="length not known"),
    ],
)
def test_a_file_is_kept_with_its_reason(facts: dict[str, Any], expected: Optional[str], root: Path) -> None:
    assert reason(listed(root / "a", **facts), limits(root)) == expected


def test_a_link_is_not_measured(root: Path) -> None:
    assert reason(listed(root / "link", length=0), limits(root)) is None


@pytest.mark.parametrize("name", ["a", "link"])
def test_what_was_written_after_the_torrent_vanished_is_kept(name: str, root: Path) -> None:
    os.utime(root / name, (0, LATER), follow_symlinks=False)
    assert reason(listed(root / name), limits(root, vanished=LATER - 1)) == "modified after the torrent vanished"
    assert reason(listed(root / name), limits(root, vanished=LATER)) is None


def test_an_older_file_moved_into_place_after_the_torrent_vanished_is_kept(root: Path) -> None:
    """Only its ctime tells; that of a file with another hard link, now or until rtwatch removed it, tells nothing."""
    os.utime(root / "a", (0, 1000))
    before = (root / "a").stat().st_ctime - 1
    assert reason(listed(root / "a"), limits(root, vanished=before)) == "modified after the torrent vanished"
    inode = (root / "a").stat().st_dev, (root / "a").stat().st_ino
    assert reason(listed(root / "a"), limits(root, vanished=before, unlinked={inode})) is None
    os.link(root / "a", root / "other name")
    assert reason(listed(root / "a"), limits(root, vanished=before)) is None


@pytest.mark.parametrize("name", ["a", "link"])
def test_what_was_there_before_a_torrent_without_data_is_kept(name: str, root: Path) -> None:
    os.utime(root / name, (0, 1000), follow_symlinks=False)
    assert str(reason(listed(root / name), limits(root, arrived=1001.0))).startswith("older than the torrent")
    assert reason(listed(root / name), limits(root, arrived=1000.0)) is None
    assert reason(listed(root / name), limits(root, arrived=None)) is None


def test_what_cannot_be_renamed_into_the_trash_is_kept(root: Path) -> None:
    device = root.stat().st_dev
    assert reason(listed(root / "a"), limits(root, device=device + 1)) == "on another file system than the trash"
    assert reason(listed(root / "a"), limits(root, device=device)) is None


def test_a_file_outside_path_is_kept(root: Path) -> None:
    assert reason(listed(root / "a"), limits(root, root / "s")) == "outside PATH"
    assert reason(listed(root / "a"), limits(root, root.parent / "pac")) == "outside PATH"
    assert reason(listed(root / "s" / "b"), limits(root, root / "s")) is None


@pytest.mark.parametrize("name", ["pack2/a", "a"], ids=["beside", "above"])
def test_a_file_outside_its_root_is_kept_unless_inherited(name: str, root: Path) -> None:
    path = root.parent / name
    assert reason(listed(path), limits(root)) == "outside the torrent's directory"
    assert reason(listed(path, inherited=True), limits(root)) is None
    assert reason(listed(path, inherited=True), limits(root, root)) == "outside PATH"


def test_a_file_in_the_session_directory_is_kept(root: Path) -> None:
    session = root.parent / "session"
    for where in (root, root.parent, session):
        for inherited in (False, True):
            file = listed(session / "a", inherited=inherited)
            assert reason(file, limits(where, session=session)) == "in the session directory"
            assert reason(file, limits(where, root.parent, session=session)) == "in the session directory"


def test_a_missing_file_is_already_gone(root: Path) -> None:
    for name in ("c", "c/d", "a/d"):
        assert reason(listed(root / name), limits(root)) == rtwatch.GONE


def test_what_cannot_be_looked_at_is_kept_and_not_gone(root: Path) -> None:
    why = reason(listed(root / ("x" * 300)), limits(root))
    assert why not in (None, rtwatch.GONE)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_what_is_no_file_is_kept(make: Any, root: Path) -> None:
    make(root / "odd")
    assert reason(listed(root / "odd"), limits(root)) == "not a regular file"


def test_a_device_is_kept() -> None:
    file = listed(Path("/dev/null"))
    assert file.info is not None
    assert stat.S_ISCHR(file.info.st_mode)
    assert reason(file, limits(Path("/dev"))) == "not a regular file"


def test_a_file_whose_directory_is_now_a_link_is_kept(root: Path) -> None:
    (root / "s").rename(root / "t")
    (root / "s").symlink_to("t")
    assert "symlink" in str(reason(listed(root / "s" / "b"), limits(root)))


@pytest.mark.parametrize(
    "facts", [{"length": 0}, {"perhaps": OTHERS[0]}, {"owners": OTHERS}], ids=["longer", "perhaps", "shared"]
)
def test_only_what_nothing_else_keeps_is_inherited(facts: dict[str, Any], root: Path) -> None:
    linked = f"used by a symlink in {OTHERS[0]}"
    assert reason(listed(root / "a", users=OTHERS), limits(root)) == linked
    assert reason(listed(root / "a", users=OTHERS, **facts), limits(root)) not in (None, linked)


def test_every_file_is_decided_in_its_order(root: Path) -> None:
    files = [listed(root / "s" / "b"), listed(root / "a", owners=OTHERS), listed(root / "c")]
    plan = rtwatch.plan_removal(files, limits(root))
    assert [file for file, _ in plan] == files
    assert [why is None for _, why in plan] == [True, False, False]
    assert rtwatch.plan_removal([], limits(root)) == []


# symlinks


def hops(*files: Path) -> list[Path]:
    """Return what the symlinks among files lead through."""
    return sorted(Path(os.fsdecode(hop)) for hop in rtwatch.find_links(map(os.fsencode, files)))


@pytest.mark.parametrize("others", [0, 20], ids=["few files", "many files"])
def test_every_hop_of_a_link_is_found(others: int, root: Path) -> None:
    (root / "second").symlink_to(root / "link")
    (root / "s" / "third").symlink_to("../second")
    (root / "up").symlink_to("s")
    (root / "fourth").symlink_to("up/third")
    files = write(*(root / str(number) for number in range(others)))
    assert hops(root / "fourth", *files) == [root / "a", root / "link", root / "s" / "third", root / "second"]
    assert hops(root / "a", root / "missing", *files) == []
    assert hops(*files) == []


def test_a_link_that_leads_nowhere_or_round_and_round_ends(root: Path) -> None:
    (root / "lost").symlink_to("nothing")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    assert hops(root / "lost", root / "one") == [root / "nothing", root / "one", root / "two"]


# directories


@pytest.mark.parametrize(
    ("files", "root", "paths", "directories"),
    [
        pytest.param(["/d/p/a"], "/d/p", [], ["/d/p"], id="its own root"),
        pytest.param(["/d/p/s/t/a"], "/d/p", [], ["/d/p/s/t", "/d/p/s", "/d/p"], id="the deepest first"),
        pytest.param(["/d/q/s/a"], "/d/q", [], ["/d/q/s"], id="not a root of another name"),
        pytest.param(["/d/p"], "/d", [], [], id="not the directory of a single file"),
        pytest.param(["/d/p/p"], "/d/p", [], ["/d/p"], id="a single file in a root of its name"),
        pytest.param(["/d/p/s/a"], "/d/p", ["/d/p"], ["/d/p/s"], id="not a PATH"),
        pytest.param(["/d/p/s/a"], "/d/p", ["/d/p/s"], [], id="not above a PATH"),
        pytest.param(["/d/p/s/a"], "/d/p", ["/d"], ["/d/p/s", "/d/p"], id="below a PATH"),
        pytest.param(["/d/p/s/a"], "/d/p", ["/e", "/d"], ["/d/p/s", "/d/p"], id="below one of several PATHs"),
        pytest.param(["/e/s/a"], "/d/p", [], [], id="nothing outside the root"),
        pytest.param(["/d/p/session/s/a"], "/d/p", [], [], id="nothing in the session directory"),
        pytest.param([], "/d/p", [], [], id="no files"),
    ],
)
def test_directories_that_may_be_empty_now(
    files: list[str], root: str, paths: list[str], directories: list[str]
) -> None:
    where = limits(Path(root), *map(Path, paths), session=Path(root, "session"))
    found = rtwatch.plan_directories([Path(file) for file in files], "p", where)
    assert [path for path in found if path != where.session] == [Path(path) for path in directories]


def test_directories_come_once_and_below_before_above() -> None:
    files = [Path("/d/p/s/a"), Path("/d/p/s/b"), Path("/d/p/t/u/a"), Path("/d/p/a")]
    found = rtwatch.plan_directories(files, "p", limits(Path("/d/p")))
    assert sorted(map(str, found)) == ["/d/p", "/d/p/s", "/d/p/t", "/d/p/t/u"]
    assert all(found.index(path) < found.index(parent) for path in found for parent in path.parents if parent in found)
