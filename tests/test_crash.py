"""rtwatch killed at every system call that changes something, and started again: as if it had not been killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults import NEEDS_STRACE, below, count_calls, traced
from program import Launcher, Program, command, environment
from session import Session
from torrents import make, single

pytestmark = [
    NEEDS_STRACE,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the names of the system calls are those of x86_64"),
]

NIGHTLY = os.environ.get("RTWATCH_PROFILE") == "nightly"
CALLS = ("unlink", "unlinkat", "rename", "renameat", "rmdir", "mkdir", "ftruncate", "pwrite64", "fdatasync")
TABLES = ("torrent_data", "session_file", "rtwatch_torrent", "rtwatch_link", "rtwatch_session")
AT_ONCE = ("--once", "--grace", "0")

FIRST = make(b"pack", {(b"both.bin",): b"both" * 100, (b"sub", b"first.bin"): b"first" * 100})
SECOND = make(b"pack", {(b"both.bin",): b"both" * 100, (b"second.bin",): b"second" * 100})
SHARED = make(b"shared", {(b"both.bin",): b"shared" * 100, (b"gone.bin",): b"gone" * 100})
SHARING = make(b"shared", {(b"both.bin",): b"shared" * 100, (b"stays.bin",): b"stays" * 100})
TARGET = make(b"target", {(b"used.bin",): b"used" * 100, (b"sub", b"free.bin"): b"free" * 100})
LINKED = make(b"linked", {(b"used.bin",): b"used" * 100})
ERASED = [FIRST, SECOND, SHARED, TARGET, single("alone")]
STAY = [SHARING, LINKED, *(single(f"other{number}") for number in range(4))]


class Place:
    """A directory with a session, its downloads and rtwatch's state, that can be put back as it was."""

    def __init__(self, path: Path) -> None:
        """Take an existing or future directory."""
        self.path = path
        self.session = path / "session"
        self.state = path / "state"
        self.downloads = path / "downloads"
        self.trash = path / "trash"

    def save(self) -> None:
        """Keep a copy."""
        shutil.copytree(self.path, f"{self.path}.saved", symlinks=True)

    def restore(self) -> None:
        """Put everything back as it was saved; the torrents vanish after that: what changes later is kept."""
        shutil.rmtree(self.path)
        shutil.copytree(f"{self.path}.saved", self.path, symlinks=True)
        if self.state.exists():
            with closing(sqlite3.connect(self.state / "rtwatch" / "rtwatch.db")) as con, con:
                con.execute("UPDATE rtwatch_torrent SET vanished = ? WHERE vanished NOT NULL", (time.time(),))

    def run(self, *options: str, prefix: Sequence[str] = ()) -> tuple[int, str]:
        """Run rtwatch to its end on this session, below `prefix`; return its exit status and what it said."""
        line = [*prefix, *command(*options, self.session)]
        result = subprocess.run(
            line,
            env=environment(self.state),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return result.returncode, result.stderr

    def tree(self) -> dict[str, Any]:
        """Return all files below downloads and trash, as type and content by path.

        A removal that was cut short is continued in a new directory HASH.2 of the trash: those of one hash are one.
        """
        found: dict[str, Any] = {}
        for path in sorted(self.downloads.rglob("*")):
            name = str(path.relative_to(self.path))
            found[name] = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(self.trash.rglob("*")):
            hash, *below = path.relative_to(self.trash).parts
            name = "/".join(["trash", hash[:40], *below])
            content = path.is_file() and path.read_bytes()
            if not name.endswith(".torrent") or content or name not in found:
                assert found.get(name, content) in (content, b"")
                found[name] = content
        return found

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows, after a check that the database is sound."""
        with closing(sqlite3.connect(self.state / "rtwatch" / "rtwatch.db")) as con:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert con.execute("PRAGMA foreign_key_check").fetchall() == []
            return {table: sorted(con.execute(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a place, saved, in which rtwatch has seen five of eleven torrents being erased and was ended then."""
    place = Place(tmp_path_factory.mktemp("erased") / "place")
    with Session(place.session) as session:
        session.start()
        place.trash.mkdir()
        launcher = Launcher(place.session, place.state, place.path / "calls")
        for torrent in [*ERASED, *STAY]:
            session.add(torrent, place.downloads)
            if torrent is LINKED:
                (used,) = LINKED.paths(place.downloads / "linked")
                used.parent.mkdir()
                used.symlink_to("../target/used.bin")
            else:
                torrent.write(place.downloads)
            session.finish(torrent)
            session.save(torrent)
        program = launcher.start("-r", "--grace", "600")
        for torrent in ERASED:
            session.erase(torrent)
        program.wait_rows("SELECT 1 FROM rtwatch_torrent WHERE seen = 1", lambda rows: len(rows) == len(ERASED))
        assert program.stop() == 0
        place.save()
        yield place


def check_each(place: Place, call: str, *options: str) -> None:
    """Kill rtwatch at each of its system calls of one kind in turn, and compare what a second start leaves with the
    end of a run that was not killed."""
    place.restore()
    trace = place.path / "trace"
    status, said = place.run(*options, prefix=traced(call, trace=trace))
    assert status == 0, said
    end = place.tree(), place.rows()
    total = count_calls(trace, [call])[call]
    assert total > 0
    problems = []
    for number in range(1, total + 1, 1 if NIGHTLY else -(-total // 12)):
        place.restore()
        killed, said = place.run(*options, prefix=traced(f"{call}:signal=KILL:when={number}"))
        status, said_again = place.run(*options)
        sound = (killed, status) == (-signal.SIGKILL, 0) and "Traceback" not in said + said_again
        if not sound or (place.tree(), place.rows()) != end:
            problems.append(f"killed at {call} {number}:\n{said}\nstarted again, exit {status}:\n{said_again}")
    assert not problems, f"{len(problems)} of {total}\n" + "\n".join(problems)


@pytest.mark.parametrize("call", ["unlinkat", "unlink", "ftruncate", "pwrite64", "fdatasync"])
def test_a_removal_that_is_killed_is_finished_by_the_next_start(call: str, erased: Place) -> None:
    check_each(erased, call, "-r", *AT_ONCE)
    assert not any((erased.downloads / name).exists() for name in ("pack", "alone.bin", "target/sub"))
    assert sorted(os.listdir(erased.downloads / "shared")) == ["both.bin", "stays.bin"]
    assert (erased.downloads / "linked" / "used.bin").read_bytes() == b"used" * 100


@pytest.mark.parametrize("call", ["renameat", "mkdir", "unlinkat", "pwrite64", "fdatasync"])
def test_a_removal_to_the_trash_that_is_killed_is_finished_by_the_next_start(call: str, erased: Place) -> None:
    check_each(erased, call, "-r", "--trash", "trash", *AT_ONCE)
    moved = [path for path in erased.trash.rglob("*.bin") if not path.is_dir()]
    names = ["alone.bin", "both.bin", "first.bin", "free.bin", "gone.bin", "second.bin"]
    assert sorted(path.name for path in moved) == names


@pytest.mark.parametrize("call", ["mkdir", "unlink", "ftruncate", "pwrite64", "fdatasync"])
def test_a_first_start_that_is_killed_is_repeated_by_the_next(call: str, erased: Place, tmp_path: Path) -> None:
    place = Place(tmp_path / "new")
    erased.restore()
    shutil.rmtree(erased.state)
    shutil.copytree(erased.path, place.path, symlinks=True)
    place.save()
    check_each(place, call, "-r", *AT_ONCE)
    assert len(place.rows()["torrent_data"]) == len(STAY)


def is_through(program: Program, sql: str) -> bool:
    """Tell whether `sql` selects anything by now, or the program has ended."""
    try:
        return program.process.poll() is not None or bool(program.select(sql))
    except sqlite3.OperationalError:  # no database or no table yet
        return False


def live(place: Place, prefix: Sequence[str]) -> int:
    """Let torrents come and go while rtwatch runs below `prefix`, and start it again when it was killed; return how
    it ended the first time. What went while it was not running is left to --catch-up."""
    place.downloads.mkdir(parents=True)
    place.trash.mkdir()
    launcher = Launcher(place.session, place.state, place.path / "calls")
    with Session(place.session) as session, below(*prefix):
        session.start()
        for torrent in STAY:
            if torrent is not LINKED:
                session.download(torrent, place.downloads)
        program = launcher.start("-r", "--grace", "0.1", ready=False)
        program.wait_for(lambda: program.notified or program.process.poll() is not None, "rtwatch is not ready")
        for torrent in FIRST, SHARED:
            session.download(torrent, place.downloads)
            program.wait_for(
                partial(
                    is_through, program, f"SELECT 1 FROM rtwatch_torrent WHERE counted AND hash = '{torrent.hash}'"
                ),
                "a torrent is not known",
            )
        if program.process.poll() is not None:
            place.run(*AT_ONCE)
        for torrent in FIRST, SHARED:
            session.erase(torrent)
        sql = f"SELECT 1 WHERE (SELECT count(*) FROM torrent_data) = {len(STAY) - 1}"
        program.wait_for(partial(is_through, program, sql), "the torrents are not gone")
        status = program.wait() if program.process.poll() is not None else program.stop()
        launcher.close()
        assert place.run("-r", "--catch-up", *AT_ONCE)[0] == 0
    return status


def test_what_comes_and_goes_while_rtwatch_is_killed_is_not_lost(tmp_path: Path) -> None:
    first = Place(tmp_path / "undisturbed")
    trace = tmp_path / "trace"
    assert live(first, traced(*CALLS, trace=trace)) == 0
    assert sorted(os.listdir(first.downloads)) == [*(f"other{number}.bin" for number in range(4)), "shared"]
    assert sorted(os.listdir(first.downloads / "shared")) == ["both.bin", "stays.bin"]
    numbers = [(call, number) for call, total in count_calls(trace, CALLS).items() for number in range(1, total + 1)]
    assert len(numbers) > 100
    for call, number in numbers if NIGHTLY else numbers[3::17]:
        place = Place(tmp_path / f"{call}{number}")
        assert live(place, traced(f"{call}:signal=KILL:when={number}")) in (-signal.SIGKILL, 0)
        assert place.tree() == first.tree()
        assert place.rows().keys() == first.rows().keys()
        for table in "torrent_data", "session_file":
            assert [row[0] for row in place.rows()[table]] == [row[0] for row in first.rows()[table]]
