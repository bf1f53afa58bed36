"""Torrents and resume files made to do harm: to lead outside, to cost much, to forge what is printed."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

import bencodepy
import pytest
from conftest import NIGHTLY
from faults import the_line, unprivileged
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from program import command, environment, run
from session import FIRST_R
from steps import AT_ONCE, LONG, SHORT, Bed, bed_in, play
from torrents import craft, make, multi, single

import rtwatch

MANY = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    max_examples=40_000 if NIGHTLY else 800,
)
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
EVIL = "evil\n01-01 00:00:00 removed      everything\r\x1b[2J\x1b]0;title\x07\x9b1A\x08\x7f\u202e\u2028\ufeff<0>end"


def check_printed(output: str) -> None:
    """Check that no line is forged, the cursor is not moved and nothing has failed."""
    assert not CONTROL.search(output)
    assert not [line for line in output.splitlines() if re.match(r"01-01 00:00:00|<0>", line)]
    assert "Traceback" not in output


# made up and mutated files

NAMES = st.sampled_from(
    [
        *(b"a", b"b", b"pack", b"", b".", b"..", b"...", b"/", b"../b", b"a/b", b"/etc/passwd", b"\0", b"a\0b"),
        *(b"\xff\xfe", "\u00e9\u4e2d".encode(), b"a\nb", b"\x1b[2J", b" ", b"~", b"x" * 255, b"x" * 256, b"y" * 5000),
    ]
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.integers() | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make values of a kind, and now and then another value."""
    return good | good | good | ANYTHING


PATHS = mostly(st.lists(mostly(NAMES), max_size=4))
LENGTHS = mostly(st.integers(-1, 9))
ENTRIES = st.fixed_dictionaries(
    {"length": LENGTHS},
    optional={"path": PATHS, "path.utf-8": PATHS, "path.x": PATHS, "attr": ANYTHING, "symlink path": PATHS},
)
INFOS = st.fixed_dictionaries(
    {"name": mostly(NAMES)},
    optional={
        **{"length": LENGTHS, "files": mostly(st.lists(mostly(ENTRIES), max_size=4)), "meta_download": LENGTHS},
        **{"name.utf-8": mostly(NAMES), "name.x": ANYTHING, "piece length": ANYTHING, "file tree": ANYTHING},
    },
)
TORRENTS = st.fixed_dictionaries({"info": INFOS}, optional={"announce": ANYTHING, "announce-list": ANYTHING})

SEEDS = [
    single("one").metainfo,
    multi("pack").metainfo,
    craft({"name": b"A" * 40 + b".meta", "meta_download": 1}).metainfo,
    bencodepy.encode({**FIRST_R, "directory": "/somewhere/pack", "complete": 1}),
]
PIECES = [
    *(b"", b"d", b"l", b"e", b"i", b":", b"0:", b"i1e", b"le", b"de", b"-", b"2:..", b"1:/", b"3:a/b", b"4:info"),
    *(b"4:path", b"6:length", b"5:files", b"10:path.utf-8", b"10:name.utf-8", b"1:\0", b"i-1e", b"99999999:", b"-6:"),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Make a T or R of which some parts are replaced."""
    data: bytes = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.sampled_from([0, 1, 2, 5, 50, 1000]))
        data = data[:start] + draw(st.sampled_from(PIECES) | st.binary(max_size=1)) + data[end:]
    return data


@MANY
@given(TORRENTS.map(bencodepy.encode) | damaged())
@example(b"d1:ai1e-6:e")
def test_any_torrent_is_refused_or_stays_below_its_root(tmp_path: Path, data: bytes) -> None:
    for name in "pack/a/b", "pack/b", "a/a", "victim":
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    try:
        metainfo = rtwatch.parse_metainfo(data)
    except rtwatch.Unreadable:
        return
    for tail in ("", "/pack", "/pack/", "/missing", "/pack/../a", "/victim") if metainfo else ():
        root = rtwatch.expand_directory(os.fsencode(tmp_path) + tail.encode(), 0)
        assert metainfo is not None
        assert root is not None
        top = os.path.realpath(root)
        files = rtwatch.locate_files(metainfo, root, b"/nowhere")[0]
        assert len(set(files)) == len(files)
        for file in files:
            assert os.path.normpath(file) == file
            assert b"\0" not in file
            assert file.startswith(top + b"/") or (file == top and os.path.isfile(top))


# what one file may cost

SIZE = 10 << 20
MEMORY = 400 << 10  # KiB
DATABASE = 25 * SIZE  # bytes
SECONDS = 200  # of processor time: what grows with the square of this size takes hours
SINGLE = b"4:infod6:lengthi1e4:name1:aee"


def text(value: bytes) -> bytes:
    """Return a bencoded string."""
    return b"%d:%s" % (len(value), value)


def repeat(head: bytes, piece: bytes, tail: bytes) -> Callable[[], bytes]:
    """Return what makes bytes of head, as many pieces as fit into the size, and tail.

    {WORD} in a piece stands for a bencoded string that begins with the word and is another one in each piece.
    """

    def fill(number: int) -> bytes:
        return re.sub(rb"{(.*?)}", lambda match: text(match[1] + b"%x" % number), piece)

    count = SIZE // len(fill(1 << 16))
    return lambda: head + (b"".join(map(fill, range(count))) if b"{" in piece else piece * count) + tail


ENTRY, FILES, END = b"d6:lengthi1e4:pathl%be%be", b"d4:infod5:filesl", b"e4:name1:aee"
PATH = FILES + b"d6:lengthi1e4:pathl"
COSTLY: dict[str, Callable[[], bytes]] = {
    **{
        f"a list of {item[:9]!r}": repeat(b"d1:al", item, b"e" + SINGLE)
        for item in (b"le", b"de", b"0:", b"i1e", b"l" * 900 + b"e" * 900)
    },
    "keys": repeat(b"d", b"{}0:", SINGLE),
    "trackers": repeat(b"d13:announce-listll", b"{}", b"ee" + SINGLE),
    "tiers": repeat(b"d13:announce-listl", b"l{}e", b"e" + SINGLE),
    "files": repeat(FILES, ENTRY % (b"{}", b""), END),
    "directories": repeat(FILES, ENTRY % (b"{}1:a", b""), END),
    "depth": repeat(FILES, ENTRY % (b"{}" + b"1:a" * 40, b""), END),
    "encodings": repeat(FILES, ENTRY % (b"1:a", b"{path.}l1:be"), END),
    "some encodings": repeat(FILES, b"".join(ENTRY % (b"1:a", b"6:path.%dl1:be" % n) for n in range(7)), END),
    "one path": repeat(PATH, b"1:a", b"ee" + END),
    "encodings of a path": repeat(PATH + b"1:ae", b"{path.}l{}e", b"e" + END),
    "encodings of the name": repeat(b"d" + SINGLE[:-2], b"{name.}{}", b"ee"),
    "name": lambda: b"d4:infod6:lengthi1e4:name" + text(b"x" * SIZE) + b"ee",
    "refused name": lambda: b"d4:infod6:lengthi1e4:name" + text(b"\0\n" * (SIZE // 2)) + b"ee",
    "digits": lambda: b"d1:a" + b"9" * SIZE + b":",
    "a number": lambda: b"d1:ai" + b"9" * SIZE + b"ee",
    "host name": lambda: b"d8:announce" + text(b"http://" + b"\xff" * SIZE) + SINGLE,
    "depth of lists": lambda: b"d1:a" + b"l" * (SIZE // 2) + b"e" * (SIZE // 2) + SINGLE,
}
WORST = ("directories", "some encodings", "one path", "name")
MEASURE = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
import rtwatch
status = rtwatch.main(sys.argv[1:])
with open("/proc/self/status") as file:  # ru_maxrss begins with that of the parent
    (peak,) = [line.split()[1] for line in file if line.startswith("VmHWM:")]
print("\\n", status, peak)
"""


def measure(state: Path, *words: str | Path) -> tuple[int, int]:
    """Run rtwatch, which must end in time and print nothing long; return KiB of memory and bytes of all its files."""
    line = [sys.executable, "-c", MEASURE, str(SECONDS), *map(str, words)]
    result = subprocess.run(line, env=environment(state), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-1000:]
    assert not CONTROL.search(result.stderr)
    assert all(len(line) < 1000 for line in result.stderr.splitlines())
    status, memory = map(int, result.stdout.splitlines()[-1].split())
    assert status == 0
    disk = sum(path.stat().st_size for path in state.rglob("*") if path.is_file())
    print(f"{memory / 1024:.0f} MiB, {disk >> 20} MiB on disk")
    return memory, disk


@pytest.mark.parametrize("kind", COSTLY if NIGHTLY else WORST)
def test_one_file_costs_little(kind: str, bed: Bed, tmp_path: Path) -> None:
    """However it is made: read by the whole program, which then lists its files or refuses it."""
    bed.session.add(single("other"), tmp_path)
    bed.session.file("A" * 40).write_bytes(COSTLY[kind]())
    bed.session.file("A" * 40, "R").write_bytes(b"d9:directory" + text(os.fsencode(tmp_path)) + b"e")
    memory, disk = measure(bed.state, "--once", *AT_ONCE, bed.session.path)
    assert memory < MEMORY
    assert disk < DATABASE


LONG_NAMES = {
    "a name of 200 KB and 20,000 files": (b"n" * 200_000, [[b"%x" % number] for number in range(20_000)]),
    "a name of 3,900 bytes and 30,000 files": (b"n" * 3_900, [[b"%x" % number] for number in range(30_000)]),
    "10 MB of long paths": (b"pack", [[b"%x" % number, *[b"a"] * 1900] for number in range(1750)]),
    "10 MB of long names": (b"pack", [[b"%x" % number, *[b"a" * 255] * 14] for number in range(2700)]),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", LONG_NAMES)
@pytest.mark.parametrize("known", [True, False], ids=["", "where it is is not known"])
def test_names_that_cannot_exist_cost_nothing(known: bool, kind: str, bed: Bed, tmp_path: Path) -> None:
    """Neither when they are read nor when others are removed: --orphans looks at a file as a removal does."""
    name, paths = LONG_NAMES[kind]
    hostile = craft({"name": name, "files": [{"length": 1, "path": path} for path in paths]})
    bed.seed(single("one"))
    bed.session.add(hostile, tmp_path, f"{tmp_path if known else '~'}/{name.decode()}")
    bed.session.kill()
    for words in ("--once", bed.session.path), ("--orphans", bed.session.path, bed.downloads):
        memory, disk = measure(bed.state, *words)
        assert memory < 110 << 10
        assert disk < 80 << 20


def test_300000_files_are_read_and_events_are_taken_in_between(bed: Bed) -> None:
    paths = [[b"directory %03d" % (number // 1000), b"some name, number %06d" % number] for number in range(300_000)]
    large = craft({"name": b"pack", "files": [{"length": 1, "path": path} for path in paths]})
    program = bed.start(*LONG)
    bed.download(single("one"))
    bed.session.add(large, bed.downloads)
    program.wait_for(lambda: processor_time(program.pid) > 1.0, "it is not read")
    begin = time.time()
    bed.session.erase(single("one"))
    program.wait_rows(
        f"SELECT count(*) FROM session_file WHERE hash = '{large.hash}'", lambda rows: rows[0][0] == 300_000
    )
    rows = program.wait_rows("SELECT vanished FROM rtwatch_torrent WHERE vanished", bool)
    assert rows[0][0] < begin + 1
    assert processor_time(program.pid) < SECONDS
    (peak,) = re.findall(r"VmHWM:\s*(\d+)", Path(f"/proc/{program.pid}/status").read_text())
    assert int(peak) < MEMORY


def processor_time(pid: int) -> float:
    """Return the seconds of processor time of a process; clock_getcpuclockid(3) has the number of its clock."""
    return time.clock_gettime((~pid << 3) | 2)


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[Bed]:
    """Give a test bed in a place with a name that would move the cursor."""
    with bed_in(tmp_path / EVIL) as bed:
        yield bed


@pytest.mark.parametrize("journal", [False, True], ids=["", "journal"])
def test_nothing_that_happens_forges_a_line(journal: bool, evil: Bed) -> None:
    session, name = evil.session, EVIL.encode()
    torrent = make(name, {(name,): b"x" * 100, (b"sub " + name, b"b"): b"y" * 50, (b"longer " + name,): b"z"})
    sharing = make(name, {(name,): b"x" * 100, (b"c",): b"c"})
    status = os.fstat(2)
    env = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"} if journal else {}
    evil.hooks_fail = True
    hooks = evil.write_each(pre_add=f"raise ValueError({EVIL!r} + '\\n' + str(args.session))")
    program = evil.start("-v", *SHORT, "--trash", evil.downloads, *hooks, env=env)
    paths = evil.download(torrent, sharing)
    paths[2].write_bytes(b"longer than it was")
    session.file("B" * 40, "R").write_bytes(b"garbage" + name)
    session.file("B" * 40).write_bytes(make(name + b"/", b"x").metainfo)
    # XML-RPC does not carry the path of this session, so that its saves are waited for.
    story = """erase-unwaited ERASED; says waiting.*evil; repoint SHARING elsewhere; says moved.*evil;
        add ERASED complete=1; says returned.*evil; rm ../session/BBBB*"""
    play(evil, story, ERASED=torrent, SHARING=sharing)
    since = len(program.lines)
    session.erase(torrent)
    program.wait_line("waiting.*evil", since)
    play(evil, "let-save; gone ERASED; settle; stop; exits 0; says kept.*evil; says ValueError: evil", ERASED=torrent)
    check_printed(program.output.replace("Traceback", ""))
    if journal:
        assert all(re.match(r"<[3-7]>(?!\d\d[:-]\d\d)", line) for line in program.lines)
    for message in program.notified:
        assert re.fullmatch(r"(READY|STOPPING)=1|STATUS=[^\n]*", message)
        check_printed(message)


# What the line names, and command lines: {} is the place, and EVIL a text that would forge a line.
REFUSED = """
--no-such-option: {} --no-such-option
evil: {} --EVIL
--grace: {} --grace; {} --grace soon; {} --grace -1; {} --grace EVIL
{}/missing: {}/missing; {} -r {} {}/missing; {} --hooks {}/missing; {} -r --trash {}/missing
{}/file: {}/file; {} -r {} {}/file; {} --hooks {}/file
{}/session: {} --hooks {}/session
{}/.session: -q
{}: {} --db {}
--keep: {} -r --keep=; {} --keep=a
on the same file system: {}/session -r --trash {} --trash {}/other
loop: {}/loop
~nobody-has-this-name/session: ~nobody-has-this-name/session
closed: {}/closed/x; {} {}/closed/x; {} -r {}/closed/x; {} --hooks {}/closed/x
closed: {} -r --trash {}/closed/x; {} --db {}/closed/x
"""
LINES = [(row.split(": ")[0], line) for row in REFUSED.strip().splitlines() for line in row.split(": ")[1].split("; ")]


@pytest.mark.parametrize(("named", "line"), LINES)
def test_unusable_arguments_are_refused_in_one_line_that_forges_none(named: str, line: str, tmp_path: Path) -> None:
    place = tmp_path / EVIL
    for directory in "session", "other", "closed/x":
        (place / directory).mkdir(parents=True)
    (place / "file").write_text(f"raise ValueError({EVIL!r})\n")
    (place / "loop").symlink_to("loop")
    (place / "closed").chmod(0)
    words = [word.replace("{}", str(place)).replace("EVIL", EVIL) for word in line.split()]
    with unprivileged():
        result = run("--once", *words, state=tmp_path / "state", env={"HOME": str(place)})
    (place / "closed").chmod(0o755)
    line = the_line(result, *((1, 2) if named == "closed" else (1 if "--db" in words else 2,)))
    assert rtwatch.printable(named.replace("{}", str(place))) in line
    check_printed(line)
    assert not (tmp_path / "state").exists()


def test_a_terminal_gets_colours_and_a_count_and_nothing_else(evil: Bed) -> None:
    evil.seed(make(EVIL.encode(), {(EVIL.encode(),): b"x" * 100}), *(single(f"other{number}") for number in range(120)))
    parent, child = pty.openpty()
    env = {**environment(evil.state), "TERM": "xterm"}
    env.pop("NO_COLOR", None)
    line, output = command("--once", "-v", *AT_ONCE, evil.session.path), b""
    with subprocess.Popen(line, env=env, stdin=child, stdout=child, stderr=child) as process:
        os.close(child)
        with suppress(OSError):  # the other end of the terminal is closed
            while data := os.read(parent, 65536):
                output += data
        os.close(parent)
    assert process.returncode == 0
    shown = re.sub(r"\x1b\[\d*m", "", output.decode())
    assert shown != output.decode()
    assert re.search(r"\r\d+ of \d+ torrents", shown)
    check_printed(re.sub(r"\r(\d+ of \d+ torrents|\x1b\[K)", "", shown).replace("\r\n", "\n"))
    assert "evil" in shown
