"""rtwatch killed at system calls that change something, and started again: as if it had not been killed."""

import os
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from conftest import NIGHTLY
from faults import below, traced
from program import Argument
from steps import AT_ONCE, LONG, Bed, bed_in
from torrents import make, single

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the system calls' names are those of x86_64")

FIRST = make(b"pack", {(b"both.bin",): b"both" * 100, (b"sub", b"first.bin"): b"first" * 100})
SECOND = make(b"pack", {(b"both.bin",): b"both" * 100, (b"second.bin",): b"second" * 100})
SHARED = make(b"shared", {(b"both.bin",): b"shared" * 100, (b"gone.bin",): b"gone" * 100})
SHARING = make(b"shared", {(b"both.bin",): b"shared" * 100, (b"stays.bin",): b"stays" * 100})
TARGET = make(b"target", {(b"used.bin",): b"used" * 100, (b"sub", b"free.bin"): b"free" * 100})
LINKED = make(b"linked", {(b"used.bin",): b"used" * 100})
ERASED = [FIRST, SECOND, SHARED, TARGET, single("alone")]
STAY = [SHARING, *(single(f"other{number}") for number in range(4))]


def restore(bed: Bed, known: bool) -> None:
    """Put everything back as it was saved, the state only if `known`."""
    bed.shell("cd ..; rm -rf downloads trash state; mkdir trash; cp -al saved/downloads .")
    if known:
        bed.shell("cp -a ../saved/state ..")


def run(bed: Bed, *options: Argument, prefix: Sequence[str] = ()) -> tuple[int, str]:
    """Run rtwatch to its end, below `prefix`; return its exit status and what it said."""
    with below(*prefix):
        result = bed.once(*AT_ONCE, *options)
    return result.returncode, result.stderr


def end(bed: Bed) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return type and content of all files below downloads and trash by path, and the rows of a sound database.

    A removal that was cut short is continued in a new directory HASH.2 of the trash: those of one hash are one.
    """
    found: dict[str, Any] = {}
    top = bed.downloads.parent
    for path in sorted([*bed.downloads.rglob("*"), *(top / "trash").rglob("*")]):
        name = "/".join(part.partition(".2")[0] for part in path.relative_to(top).parts)
        content = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        content = b"the way back from there" if path.stem == "rtwatch-undo" else content
        if content != b"" or name not in found:
            assert found.get(name, content) in (content, b"")
            found[name] = content
    with closing(sqlite3.connect(bed.db)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert con.execute("PRAGMA foreign_key_check").fetchall() == []
        tables = "torrent_data", "session_file"
        return found, {table: con.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Give a test bed, saved, in which rtwatch has seen five of eleven torrents being erased and was ended then."""
    with bed_in(tmp_path_factory.mktemp("erased") / "place") as bed:
        bed.seed(*ERASED, *STAY)
        bed.add(LINKED)
        bed.shell("mkdir linked; ln -s ../target/used.bin linked")
        bed.start(*LONG)
        bed.vanish(*ERASED)
        assert bed.program.stop() == 0
        # Files stay the same ones, by links.
        bed.shell("cd ..; mkdir saved; cp -a state saved; cp -al downloads saved")
        yield bed


def check_each(bed: Bed, call: str, *options: Argument, known: bool = True) -> None:
    """Kill rtwatch at each of its system calls of one kind; a second start must leave what a run in one go leaves."""
    trace = bed.state.with_name("trace")
    restore(bed, known)
    status, said = run(bed, *options, prefix=traced(call, trace=trace))
    assert status == 0, said
    wanted, total = end(bed), trace.read_text("utf-8", "replace").count(f"{call}(")
    assert total > 0
    problems = []
    for number in range(1, total + 1, 1 if NIGHTLY else -(-total // 3)):
        restore(bed, known)
        killed, said = run(bed, *options, prefix=traced(f"{call}:signal=KILL:when={number}", trace=trace))
        ended = killed == 0 and trace.read_text("utf-8", "replace").count(f"{call}(") < number  # it made fewer calls
        status, said_again = run(bed, *options)
        if not (ended or killed == -signal.SIGKILL) or status or end(bed) != wanted:
            problems.append(f"killed at {call} {number}:\n{said}\nstarted again, exit {status}:\n{said_again}")
    assert not problems, f"{len(problems)} of {total}\n" + "\n".join(problems)


@pytest.mark.parametrize("call", ["unlinkat", "unlink", "ftruncate", "pwrite64", "fdatasync"])
def test_a_removal_that_is_killed_is_finished_by_the_next_start(call: str, erased: Bed) -> None:
    check_each(erased, call)
    assert not any((erased.downloads / name).exists() for name in ("pack", "alone.bin", "target/sub"))
    assert sorted(os.listdir(erased.downloads / "shared")) == ["both.bin", "stays.bin"]
    assert (erased.downloads / "linked" / "used.bin").read_bytes() == b"used" * 100


@pytest.mark.parametrize("call", ["renameat", "mkdir", "unlinkat", "pwrite64", "fdatasync"])
def test_a_removal_to_the_trash_that_is_killed_is_finished_by_the_next_start(call: str, erased: Bed) -> None:
    trash = erased.state.with_name("trash")
    check_each(erased, call, "--trash", trash)
    names = ["alone.bin", "both.bin", "first.bin", "free.bin", "gone.bin", "second.bin"]
    assert sorted(path.name for path in trash.rglob("*.bin") if not path.is_dir()) == names


@pytest.mark.parametrize("call", ["mkdir", "unlink", "ftruncate", "pwrite64", "fdatasync"])
def test_a_first_start_that_is_killed_is_repeated_by_the_next(call: str, erased: Bed) -> None:
    check_each(erased, call, known=False)
    assert len(end(erased)[1]["torrent_data"]) == len(STAY) + 1
