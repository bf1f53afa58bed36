"""Torrents and resume files made to do harm: to lead outside, to cost much, to forge what is printed."""

from __future__ import annotations

import os
import pty
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import bencodepy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from program import Launcher, command, environment, run
from session import FIRST_R, Session
from torrents import Torrent, info_hash, make, multi, single

import rtwatch

NIGHTLY = os.environ.get("RTWATCH_PROFILE") == "nightly"
MANY = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    max_examples=40_000 if NIGHTLY else 2_000,
)
SHORT = ("-r", "--grace", "0.2")
AT_ONCE = ("--once", "-r", "--grace", "0")
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
EVIL = "evil\n01-01 00:00:00 removed      everything\r\x1b[2J\x1b]0;title\x07\x9b1A\x08\x7f\u202e\u2028\ufeff<0>end"

# made up and mutated files

NAMES = [
    *(b"a", b"b", b"pack", b"name", b"", b".", b"..", b"...", b"/", b"../b", b"a/b", b"/etc/passwd", b"\0", b"a\0b"),
    *(b"\xff\xfe", "\u00e9\u4e2d".encode(), b"a\nb", b"\x1b[2J", b" ", b"~", b"x" * 255, b"x" * 256, b"y" * 5000),
]
KEYS = [
    *(b"announce", b"announce-list", b"info", b"length", b"files", b"path", b"name", b"attr", b"symlink path"),
    *(b"path.utf-8", b"name.utf-8", b"path.x", b"name.x", b"path.", b"name.", b"piece length", b"pieces", b"private"),
    *(b"meta_download", b"meta version", b"file tree", b"directory", b"complete", b"chunks_done", b"encoding", b""),
]
NUMBERS = [
    b"0",
    b"1",
    b"-1",
    b"-0",
    b"00",
    b"+1",
    b" 1",
    b"1_0",
    b"",
    b"-",
    b"1e3",
    b"9" * 30,
    b"9" * 5000,
    b"\xc2\xb2",
]


class Maker:
    """Makes bencoded values by what the bytes of a tape say, which hypothesis writes and shortens; 0 for ever at its
    end makes the simplest."""

    def __init__(self, tape: bytes) -> None:
        """Begin at the beginning."""
        self.tape = iter(tape)

    def choose(self, number: int) -> int:
        """Return a number below `number`."""
        return next(self.tape, 0) % number

    def string(self) -> bytes:
        """Make a string, rarely one that is none."""
        name = NAMES[self.choose(len(NAMES))]
        return NUMBERS[self.choose(len(NUMBERS))] + b":abc" if self.choose(50) == 49 else text(name)

    def number(self) -> bytes:
        """Make an integer, rarely one that is none."""
        return b"i%se" % (NUMBERS[self.choose(len(NUMBERS))] if self.choose(9) == 8 else b"%d" % self.choose(10))

    def list(self, make_value: Callable[[], bytes]) -> bytes:
        """Make a list of up to three values."""
        return b"l" + b"".join(make_value() for _ in range(self.choose(4))) + b"e"

    def path(self) -> bytes:
        """Make a list of strings."""
        return self.list(self.string)

    def anything(self) -> bytes:
        """Make any value."""
        makers = self.string, self.number, lambda: self.list(self.anything), lambda: self.dictionary({}), self.path
        return makers[self.choose(5)]()

    def dictionary(self, makers: dict[bytes, Callable[[], bytes]]) -> bytes:
        """Make a dictionary with some of the given keys, rarely with another value, and rarely with other keys."""
        parts = []
        for key, make_value in makers.items():
            what = self.choose(12)
            if what < 10:
                parts += [text(key), self.anything() if what == 9 else make_value()]
        for _ in range(self.choose(3) - 1):
            parts += [text(KEYS[self.choose(len(KEYS))]), self.anything()]
        return b"d" + b"".join(parts) + b"e"

    def file(self) -> bytes:
        """Make an entry of `files`."""
        paths = dict.fromkeys((b"path", b"path.utf-8", b"path.x", b"symlink path")[: 1 + self.choose(4)], self.path)
        return self.dictionary({**paths, b"length": self.number, b"attr": self.string})

    def info(self) -> bytes:
        """Make an info dictionary."""
        kind = (b"length", self.number) if self.choose(2) else (b"files", lambda: self.list(self.file))
        names = dict.fromkeys((b"name", b"name.utf-8", b"name.x")[: 1 + self.choose(3)], self.string)
        return self.dictionary({**names, kind[0]: kind[1]})

    def metainfo(self) -> bytes:
        """Make a T."""
        return self.dictionary({b"info": self.info, b"announce": self.string, b"announce-list": self.anything})

    def resume(self) -> bytes:
        """Make an R."""
        return self.dictionary({b"directory": self.string, b"complete": self.number, b"chunks_done": self.number})


def text(value: bytes) -> bytes:
    """Return a bencoded string."""
    return b"%d:%s" % (len(value), value)


TAPES = st.binary(max_size=300)

SEEDS = [
    single("one").metainfo,
    multi("pack").metainfo,
    make(b"pack", {(b"a", b"", b"b"): b"x" * 9}, private=1).metainfo,
    bencodepy.encode(
        {
            "announce-list": [["udp://tracker.example:80"], []],
            "info": {
                "name": b"n",
                "files": [
                    {"length": 3, "path": [b"x"], "path.utf-8": [b"u", b"v"], "attr": "l", "symlink path": [b".."]},
                    {"length": 0, "path": [b".pad", b"3"], "attr": "p"},
                ],
            },
        }
    ),
    bencodepy.encode({"info": {"name": "A" * 40 + ".meta", "pieces": b"x" * 20, "meta_download": 1}}),
    bencodepy.encode({**FIRST_R, "directory": "/somewhere/pack", "complete": 1}),
]
PIECES = [
    *(b"d", b"l", b"e", b"i", b":", b"0:", b"i1e", b"le", b"de", b"-", b"2:..", b"1:/", b"3:a/b", b"4:info", b"4:path"),
    *(b"6:length", b"5:files", b"10:path.utf-8", b"10:name.utf-8", b"1:\0", b"i-1e", b"99999999999:", b"-6:", b"\xff"),
]


def mutate(data: bytes, changes: Sequence[tuple[int, int, int]]) -> bytes:
    """Change `data` at several places: replace, insert, remove or double a part."""
    for kind, place, what in changes:
        at = place % (len(data) + 1)
        piece = PIECES[what % len(PIECES)]
        data = (
            data[:at] + piece + data[at:],
            data[:at] + piece + data[at + len(piece) :],
            data[:at] + data[at + what % 9 :],
            data[:at] + data[at - what % 50 if at > 50 else 0 :],
            data[:at] + bytes([what % 256]) + data[at + 1 :],
            data[:at],
        )[kind % 6]
    return data


MUTATED = st.binary(min_size=5, max_size=21).map(
    lambda tape: mutate(
        SEEDS[tape[0] % len(SEEDS)],
        [(tape[at], 2 * tape[at + 1] + tape[at + 3] % 2, tape[at + 2]) for at in range(1, len(tape) - 3, 4)],
    )
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with a link to the outside and some of the names that torrents are made of."""
    path = tmp_path_factory.mktemp("place")
    for file in path / "pack" / "a" / "b", path / "pack" / "b", path / "a" / "a", path / "victim":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return path


def check_metainfo(data: bytes, place: Path) -> None:
    """Check that a T is refused in words or lists only files below its root, for any root."""
    try:
        metainfo = rtwatch.parse_metainfo(data)
    except rtwatch.Unreadable:
        return
    if metainfo is None:
        return
    for name in metainfo.names.values():
        name.decode("utf-8", "replace")
    for tail in "", "/pack", "/pack/", "/missing", "/pack/../a", "/victim":
        root = rtwatch.resolve_root(os.fsencode(place) + tail.encode(), 0)
        assert root is not None
        for file in rtwatch.locate_files(metainfo, root, root, b"/nowhere"):
            assert os.path.normpath(file) == file
            assert b"\0" not in file
            assert file.startswith(root + b"/") or (file == root and os.path.isfile(root))


@MANY
@given(TAPES)
def test_any_made_up_torrent_is_refused_or_stays_below_its_root(place: Path, tape: bytes) -> None:
    check_metainfo(Maker(tape).metainfo(), place)


@MANY
@given(MUTATED)
@example(b"d1:ai1e-6:e")
def test_any_changed_torrent_is_refused_or_stays_below_its_root(place: Path, data: bytes) -> None:
    check_metainfo(data, place)


@MANY
@given(TAPES.map(lambda tape: Maker(tape).resume()) | MUTATED)
def test_any_resume_file_is_refused_or_names_a_directory(data: bytes) -> None:
    try:
        resume = rtwatch.parse_resume(data)
    except rtwatch.Unreadable:
        return
    root = rtwatch.resolve_root(resume.directory, 0)
    assert root is None or (os.path.normpath(root) == root and resume.directory.startswith(b"/"))


def test_a_session_full_of_hostile_files_harms_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    """Whatever they say: rtwatch goes on, and when they are erased nothing goes but files below their roots."""
    victims = [downloads / name for name in ("a", "b", "victim", "pack.bin")]
    victims += [session.path / "a", downloads.parent / "a", downloads.parent / "victim"]
    for victim in victims:
        victim.write_bytes(b"v")
    inside = downloads / "root" / "pack"
    keeper = session.download(multi("keeper"), downloads)
    random_ = random.Random(4)
    directories = [
        *(
            str(inside),
            f"{inside}/",
            f"{inside}/../pack",
            f"{inside}//.",
            "",
            "..",
            "pack",
            "~",
            "~/x",
            "a\0b",
            "\udcff",
        ),
        *(
            f"{inside}/missing/../..",
            str(session.path),
            f"{session.path}/",
            f"{downloads}/victim",
            "/nowhere/" + "x" * 5000,
        ),
    ]
    program = launcher.start("-v", *SHORT)
    hashes = []
    for number in range(900 if NIGHTLY else 300):
        changes = [(random_.randrange(6), random_.randrange(400), random_.randrange(256)) for _ in range(number % 4)]
        hashes.append(f"{number:040X}")
        session.file("new", "R").write_bytes(
            mutate(
                bencodepy.encode({**FIRST_R, "complete": 1, "directory": os.fsencode(random_.choice(directories))}),
                changes[2:],
            )
        )
        session.file("new").write_bytes(mutate(SEEDS[number % 5], changes))
        for kind in "TR":
            session.file("new", kind).rename(session.file(hashes[-1], kind))
    session.add(single("after"), downloads)
    program.wait_known(single("after").hash)
    rows = program.select("SELECT hash, CAST(file AS BLOB) FROM session_file")
    assert len({hash for hash, _ in rows}) > 50
    for _, file in rows:
        assert os.path.normpath(file) == file
        assert not file.startswith(os.fsencode(session.path) + b"/")
    for hash in hashes:
        session.erase(hash)
    session.add(single("last"), downloads)
    program.wait_known(single("last").hash)
    program.wait_rows(
        "SELECT 1 FROM rtwatch_torrent WHERE vanished IS NOT NULL AND held IS NULL", lambda rows: not rows
    )
    assert program.stop() == 0
    assert "Traceback" not in program.output
    assert not CONTROL.search(program.output)
    assert all(path.exists() for path in keeper)
    assert all(victim.exists() for victim in victims if victim != downloads / "victim")


# torrents made to reach outside


def files(*paths: Sequence[bytes], **more: Any) -> dict[str, Any]:
    """Return an info dictionary with files of one byte at these paths."""
    return {"name": b"pack", "files": [{"length": 1, "path": list(path), **more} for path in paths]}


LONG_NAMES = [b"n" * 255, "\u00e9".encode() * 127, b"\xff" * 255]
CRAFTED: dict[str, tuple[dict[str, Any], Optional[list[str]]]] = {
    "dots": (files([b"..", b"victim"]), None),
    "dots inside": (files([b"a", b"..", b"..", b"victim"]), None),
    "dot": (files([b".", b"a"]), None),
    "slash": (files([b"../victim"]), None),
    "absolute": (files([b"/etc/passwd"]), None),
    "null": (files([b"a\0/../victim"]), None),
    "name of dots": ({"name": b"..", "length": 1}, None),
    "name with slash": ({"name": b"../victim", "length": 1}, None),
    "name of many files with slash": ({**files([b"a"]), "name": b"../x"}, None),
    "absolute name": ({"name": b"/etc/passwd", "length": 1}, None),
    "empty elements": (files([b"", b"etc", b"passwd"], [b"a", b"", b"", b"b"]), ["pack/a/b", "pack/etc/passwd"]),
    "only empty elements": (files([b"", b""], [b"a"]), ["pack/a"]),
    "name in another encoding": ({"name": b"good", "name.utf-8": b"../victim", "length": 1}, ["good"]),
    "absolute name in another encoding": ({"name": b"good", "name.x": b"/victim", "length": 1}, ["good"]),
    "path in another encoding": (files([b"a"], **{"path.utf-8": [b"..", b"victim"]}), ["pack/a"]),
    "path in another encoding with slash": (files([b"a"], **{"path.utf-8": [b"../victim"]}), ["pack/a"]),
    "only path in another encoding": (
        {"name": b"pack", "files": [{"length": 1, "path.utf-8": [b"..", b"victim"]}]},
        None,
    ),
    "symlink": (files([b"a"], **{"attr": b"l", "symlink path": [b"..", b"victim"]}), ["pack/a"]),
    "pad": (files([b".pad", b"7"], attr=b"p"), ["pack/.pad/7"]),
    "newline": (files([b"a\nb", b"\x1b[2J"]), ["pack/a\nb/\x1b[2J"]),
    "not UTF-8": (files([b"\xff\xfe"], [b"\x80", b"b"]), ["pack/\udc80/b", "pack/\udcff\udcfe"]),
    "tilde": (files([b"~", b"$HOME"], [b"-rf"], [b"*"]), ["pack/*", "pack/-rf", "pack/~/$HOME"]),
    "backslash": (files([b"..\\victim"]), ["pack/..\\victim"]),
    "three dots": (files([b"...", b" "]), ["pack/.../ "]),
    "long names": (files(*([name] for name in LONG_NAMES)), sorted(f"pack/{os.fsdecode(name)}" for name in LONG_NAMES)),
    "many files": (files(*([b"%04d" % number] for number in range(5000))), [f"pack/{n:04}" for n in range(5000)]),
    "many directories": (
        files(*([b"%04d" % number, b"x"] for number in range(1000))),
        [f"pack/{number:04}/x" for number in range(1000)],
    ),
    "depth": (files([b"d"] * 200), ["pack/" + "/".join("d" * 200)]),
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_a_torrent_made_to_reach_outside_does_not(
    kind: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    info, expected = CRAFTED[kind]
    info = {**info, "piece length": 16384, "pieces": b"x" * 20}
    content: Any = b"x" if "length" in info else {(b"x",): b"x"}
    torrent = Torrent(
        info_hash(info), bencodepy.encode({"announce": b"http://a.example/", "info": info}), b"pack", content
    )
    for victim in "victim", "etc", "passwd":
        (downloads / victim).write_bytes(b"v")
    for number in range(2):
        session.add(single(f"other{number}"), downloads)
    program = launcher.start("-v", *SHORT)
    session.add(torrent, downloads, complete=1)
    session.add(single("after"), downloads)
    program.wait_known(single("after").hash)
    sql = f"SELECT CAST(file AS BLOB) FROM session_file WHERE hash = '{torrent.hash}' ORDER BY file"
    found = [os.path.relpath(os.fsdecode(file), downloads) for (file,) in program.select(sql)]
    if expected is None:
        program.wait_line(torrent.hash)
        lines = [line for line in program.lines if torrent.hash in line]
        assert found == []
        assert len(lines) == 1
        assert len(lines[0]) < 1000
        assert program.select(f"SELECT 1 FROM torrent_data WHERE hash = '{torrent.hash}'") == []
    else:
        assert sorted(found) == expected
        for name in expected:
            path = downloads / name
            if len(os.fsencode(path)) < 4000:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
    session.erase(torrent)
    program.wait_gone(torrent.hash)
    session.add(single("last"), downloads)
    program.wait_known(single("last").hash)
    assert program.stop() == 0
    assert not (downloads / "pack").exists()
    assert sorted(path.name for path in downloads.iterdir()) == ["etc", "passwd", "victim"]
    assert "Traceback" not in program.output
    assert not CONTROL.search(program.output)
    assert all(len(line) < 6000 for line in program.lines)


# what one file may cost

SIZE = 10 << 20
MEMORY = 300 << 10  # KiB
UNITS = 65  # of processor time, one being two million turns of an empty loop; 45 were 2 s where this was written
SINGLE = b"4:infod6:lengthi1e4:name1:aee"


def repeat(head: bytes, piece: Callable[[int], bytes], tail: bytes, most: bool) -> bytes:
    """Return head, pieces made from their number, and tail: as many as fit into the size, or, with `most`, as many
    values as rtwatch reads at all, and padding."""
    parts, size, values, number = [head], len(head) + len(tail), 0, 0
    while size < SIZE and not (most and values > rtwatch.MAX_VALUES - 2000):
        parts.append(piece(number))
        size += len(parts[-1])
        values += parts[-1].count(b"e") + parts[-1].count(b":")
        number += 1
    padding = b"7:padding" + text(b"\0" * (SIZE - size)) if size < SIZE else b""
    start, end = tail.split(b"|")
    return b"".join([*parts, start, padding, end])


def an_entry(path: bytes, more: bytes = b"") -> bytes:
    """Return an entry of `files` with a bencoded path."""
    return b"d6:lengthi1e4:path" + path + more + b"e"


LIST = b"d1:al", b"e|" + SINGLE
FILES = b"d4:infod5:filesl", b"e|4:name1:aee"
ONE_FILE = FILES[0] + b"d6:lengthi1e4:pathl1:ae", b"e" + FILES[1]
REPEATED: dict[str, tuple[bytes, Callable[[int], bytes], bytes]] = {
    "lists": (LIST[0], lambda n: b"le", LIST[1]),
    "dictionaries": (LIST[0], lambda n: b"de", LIST[1]),
    "empty strings": (LIST[0], lambda n: b"0:", LIST[1]),
    "numbers": (LIST[0], lambda n: b"i1e", LIST[1]),
    "lists of some depth": (LIST[0], lambda n: b"l" * 900 + b"e" * 900, LIST[1]),
    "keys": (b"d", lambda n: text(b"%x" % n) + b"0:", b"|" + SINGLE),
    "trackers": (b"d13:announce-listll", lambda n: text(b"%x" % n), b"ee|" + SINGLE),
    "tiers": (b"d13:announce-listl", lambda n: b"l" + text(b"%x" % n) + b"e", b"e|" + SINGLE),
    "files": (FILES[0], lambda n: an_entry(b"l" + text(b"%x" % n) + b"e"), FILES[1]),
    "directories": (FILES[0], lambda n: an_entry(b"l" + text(b"%x" % n) + b"1:ae"), FILES[1]),
    "depth": (FILES[0], lambda n: an_entry(b"l" + text(b"%x" % n) + b"1:a" * 40 + b"e"), FILES[1]),
    "long paths": (FILES[0], lambda n: an_entry(b"l" + text(b"%x" % n) + b"1:a" * 1900 + b"e"), FILES[1]),
    "long names": (FILES[0], lambda n: an_entry(b"l" + text(b"%x" % n) + text(b"a" * 255) * 9 + b"e"), FILES[1]),
    "one path": (FILES[0] + b"d6:lengthi1e4:pathl", lambda n: b"1:a", b"ee" + FILES[1]),
    "encodings": (FILES[0], lambda n: an_entry(b"l1:ae", text(b"path.%x" % n) + b"l1:be"), FILES[1]),
    "some encodings": (FILES[0], lambda n: an_entry(b"l1:ae", text(b"path.%x" % (n % 7)) + b"l1:be"), FILES[1]),
    "encodings of a path": (ONE_FILE[0], lambda n: text(b"path.%x" % n) + b"l" + text(b"%x" % n) + b"e", ONE_FILE[1]),
    "encodings of the name": (
        b"d4:infod6:lengthi1e4:name1:a",
        lambda n: text(b"name.%x" % n) + text(b"%x" % n),
        b"|ee",
    ),
}
COSTLY: dict[str, Callable[[], bytes]] = {
    **{kind: partial(repeat, *parts, False) for kind, parts in REPEATED.items()},
    **{f"{kind} just read": partial(repeat, *parts, True) for kind, parts in REPEATED.items()},
    "name": lambda: b"d4:infod6:lengthi1e4:name" + text(b"x" * SIZE) + b"ee",
    "refused name": lambda: b"d4:infod6:lengthi1e4:name" + text(b"\0\n" * (SIZE // 2)) + b"ee",
    "digits": lambda: b"d1:a" + b"9" * SIZE + b":",
    "a number": lambda: b"d1:ai" + b"9" * SIZE + b"ee",
    "host name": lambda: b"d8:announce" + text(b"http://" + b"\xff" * SIZE) + SINGLE,
    "depth of lists": lambda: b"d1:a" + b"l" * (SIZE // 2) + b"e" * (SIZE // 2) + SINGLE,
}
WORST = (
    *("lists just read", "empty strings just read", "directories just read", "some encodings just read"),
    *("encodings", "one path", "name", "refused name", "host name"),
)
MEASURE = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))

def work():
    begin = time.process_time()
    for number in range(2_000_000):
        number & 3
    return time.process_time() - begin

import rtwatch
unit = work()
begin = time.process_time()
status = rtwatch.main(sys.argv[2:])
seconds = time.process_time() - begin
unit = (unit + work()) / 2
with open("/proc/self/status") as file:  # ru_maxrss begins with that of the parent
    (peak,) = [line.split()[1] for line in file if line.startswith("VmHWM:")]
with open(sys.argv[1], "w") as file:
    file.write(f"{status} {seconds} {unit} {peak}")
"""


@pytest.mark.parametrize("kind", COSTLY if NIGHTLY else WORST)
def test_one_file_costs_little(kind: str, session: Session, tmp_path: Path) -> None:
    """However it is made: read by the whole program, which then lists its files or refuses it."""
    session.add(single("other"), tmp_path)
    session.file("A" * 40).write_bytes(COSTLY[kind]())
    session.file("A" * 40, "R").write_bytes(b"d9:directory" + text(os.fsencode(tmp_path)) + b"e")
    for turn in "123":  # what else runs on the machine may spoil one
        result = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path / "cost"), *AT_ONCE, str(session.path)],
            env=environment(tmp_path / turn),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-1000:]
        assert not CONTROL.search(result.stderr)
        assert all(len(line) < 1000 for line in result.stderr.splitlines())
        status, seconds, unit, memory = map(float, (tmp_path / "cost").read_text().split())
        print(f"{kind}: {seconds:.2f} s, {seconds / unit:.1f} units, {memory / 1024:.0f} MiB")
        assert status == 0
        assert memory < MEMORY
        if seconds / unit < UNITS:
            break
    assert seconds / unit < UNITS


# what is printed


def check_printed(output: str) -> None:
    """Check that no line is forged and the cursor is not moved."""
    assert not CONTROL.search(output)
    lines = output.splitlines()
    assert not [line for line in lines if re.match(r"01-01 00:00:00|<0>", line)]


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[tuple[Session, Launcher, Path]]:
    """Give a session, a launcher and a place for downloads, with names that would move the cursor."""
    place = tmp_path / EVIL
    downloads = place / "downloads"
    with Session(place / "session") as session:
        downloads.mkdir()
        session.start()
        launcher = Launcher(session.path, place / "state", tmp_path / "calls")
        yield session, launcher, downloads
        launcher.close()


def test_whatever_happens_to_a_torrent_forges_nothing(evil: tuple[Session, Launcher, Path]) -> None:
    session, launcher, downloads = evil
    name = EVIL.encode()
    torrent = make(name, {(name,): b"x" * 100, (b"sub " + name, b"b"): b"y" * 50, (b"longer",): b"z"})
    sharing = make(name, {(name,): b"x" * 100, (b"c",): b"c"})
    for number in range(3):
        session.add(single(f"other{number}"), downloads)
    program = launcher.start("-v", *SHORT, "--trash", downloads)
    paths = session.download(torrent, downloads)
    session.download(sharing, downloads)
    program.wait_known(torrent.hash)
    program.wait_known(sharing.hash)
    paths[2].write_bytes(b"longer than it was")
    session.file("B" * 40, "R").write_bytes(b"garbage" + name)
    session.file("B" * 40).write_bytes(make(name + b"/", b"x").metainfo)
    session.erase(torrent)
    program.wait_line("held.*evil")
    session.set_directory(sharing, downloads / "elsewhere")
    session.save(sharing)
    program.wait_line("moved.*evil")
    session.add(torrent, downloads, complete=1)
    program.wait_line("returned.*evil")
    for kind in "TR":
        session.file("B" * 40, kind).unlink()
    session.erase(torrent)
    program.wait_gone(torrent.hash)
    session.add(single("last"), downloads)
    program.wait_known(single("last").hash)
    assert program.stop() == 0
    program.wait_line("kept.*evil")
    check_printed(program.output)
    assert "Traceback" not in program.output
    for message in program.notified:
        assert re.fullmatch(r"(READY|STOPPING)=1|STATUS=[^\n]*", message)
        check_printed(message)


@pytest.mark.parametrize(
    "words",
    [
        ["{}"],
        ["{}", "{}/session"],
        ["--hooks", "{}/none", "{}/session"],
        ["--hooks", "{}/downloads", "{}/session"],
        ["-r", "--trash", "{}/none", "{}/session"],
        ["-r", "{}/session", "{}/none"],
        ["--db", "{}/none/x/y", "{}/session"],
        ["--db", "{}/downloads", "{}/session"],
        ["--grace", EVIL, "{}/session"],
        [f"--{EVIL}", "{}/session"],
        ["-v", "--catch-up", "{}/session"],
    ],
    ids=str,
)
def test_no_argument_forges_anything(words: list[str], evil: tuple[Session, Launcher, Path]) -> None:
    session, launcher, _ = evil
    arguments = [word.replace("{}", str(session.path.parent)) for word in words]
    result = run("--once", *arguments, state=launcher.state)
    assert "evil" in result.stderr
    check_printed(result.stdout + result.stderr)
    assert "Traceback" not in result.stderr


def test_a_failing_hook_forges_nothing(evil: tuple[Session, Launcher, Path]) -> None:
    session, launcher, downloads = evil
    hooks = downloads / "hooks.py"
    hooks.write_text(f"def pre_add(con, file, args):\n    raise ValueError({EVIL!r} + '\\n' + str(args.session))\n")
    program = launcher.start("--hooks", hooks)
    session.add(make(EVIL.encode(), b"x"), downloads)
    program.wait_line("ValueError")
    assert program.stop() == 0
    check_printed(program.output)
    hooks.write_text(f"raise ValueError({EVIL!r})\n")
    result = launcher.once("--hooks", hooks)
    assert result.returncode == 2
    check_printed(result.stderr)
    assert len(result.stderr.splitlines()) == 1


def test_a_terminal_gets_colours_and_nothing_else(evil: tuple[Session, Launcher, Path]) -> None:
    session, launcher, downloads = evil
    torrent = make(EVIL.encode(), {(EVIL.encode(),): b"x" * 100})
    session.download(torrent, downloads)
    for number in range(120):
        session.add(single(f"other{number}"), downloads)
    assert launcher.once().returncode == 0
    launcher.db.unlink()
    program = launcher.start("-r", "--grace", "600")
    session.erase(torrent)
    program.wait_rows("SELECT 1 FROM rtwatch_torrent WHERE vanished NOT NULL", bool)
    program.stop()
    session.add(torrent, downloads)
    session.erase(single("other7"))
    parent, child = pty.openpty()
    env = {**environment(launcher.state), "TERM": "xterm"}
    env.pop("NO_COLOR", None)
    line = command("-v", *AT_ONCE, session.path)
    with subprocess.Popen(line, env=env, stdin=child, stdout=child, stderr=child) as process:
        os.close(child)
        output = b""
        while True:
            try:
                data = os.read(parent, 65536)
            except OSError:  # a terminal that was closed
                break
            output += data
        os.close(parent)
    assert process.returncode == 0
    shown = re.sub(r"\x1b\[\d*m", "", output.decode())
    assert shown != output.decode()
    check_printed(re.sub(r"\r(\d+ of \d+ torrents|\x1b\[K)", "", shown).replace("\r\n", "\n"))
    assert "evil" in shown
