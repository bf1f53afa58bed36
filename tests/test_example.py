"""hooks_example.py as it stands, run by rtwatch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from program import PROJECT, Launcher, Program, environment
from session import Session
from torrents import Torrent, make, multi, single

EXAMPLE = ("--hooks", PROJECT / "hooks_example.py")
SHORT = ("--grace", "0.2")
COUNTING = """
from hooks_example import *
from hooks_example import post_loop as end

def post_loop(con, inot, args):
    def watches():
        return open(f"/proc/self/fdinfo/{inot.fileno()}").read().count("inotify wd:")
    before = watches()
    end(con, inot, args)
    print("watches", before, watches(), flush=True)
"""


class Command:
    """A program named as the example's command, first in PATH: it writes its arguments down and does as it is told."""

    def __init__(self, directory: Path) -> None:
        """Make the program; it works until it is told otherwise."""
        self.directory, self.record, self.fails = directory, directory / "record", directory / "fails"
        directory.mkdir()
        script = directory / "true"
        script.write_text(f'#!/bin/sh\necho "$#:$1" >>"{self.record}"\n[ ! -e "{self.fails}" ]\n')
        script.chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        """What an environment needs so that this is the command."""
        return {"PATH": os.pathsep.join([str(self.directory), os.environ["PATH"]])}

    def calls(self) -> list[str]:
        """Return the number of arguments and the first one of every call."""
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Give the command."""
    return Command(tmp_path / "bin")


@pytest.fixture
def erased(launcher: Launcher) -> Path:
    """Give the directory for what is erased."""
    return launcher.state / "rtwatch-example" / "erased"


@pytest.fixture
def drop(launcher: Launcher) -> Path:
    """Give the drop directory, made."""
    path = launcher.state / "rtwatch-example" / "drop"
    path.mkdir(parents=True)
    return path


def download(program: Program, session: Session, directory: Path, torrent: Torrent) -> list[Path]:
    """Download a torrent, wait until it has its rows, and return its files."""
    files = session.download(torrent, directory)
    program.wait_known(torrent.hash)
    return files


def tree(*places: Path) -> dict[str, tuple[int, bytes]]:
    """Return time of change and content of everything below some directories, by path."""
    paths = [path for place in places for path in [place, *place.rglob("*")]]
    return {str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


def test_importing_it_does_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = environment(home / "state", {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"})
    command = [sys.executable, "-W", "error", "-c", "import hooks_example"]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, check=True)
    assert (done.stdout, done.stderr, list(home.iterdir())) == (b"", b"", [])


@pytest.mark.parametrize("torrent", [single("one"), multi("pack")], ids=["single", "multi"])
def test_the_torrent_of_what_is_erased_is_kept(
    torrent: Torrent, session: Session, launcher: Launcher, downloads: Path, erased: Path
) -> None:
    program = launcher.start("-r", *SHORT, *EXAMPLE)
    files = download(program, session, downloads, torrent)
    session.erase(torrent)
    kept = erased / f"{torrent.name.decode()}-{torrent.hash[:8]}.torrent"
    program.wait_for(lambda: kept.is_file() and kept.read_bytes() == torrent.metainfo, "the .torrent is not kept")
    program.wait_line(f"saved +{re.escape(str(kept))}$")
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    "name",
    ["..\u2215..\u2215x", "...", "-rf", ".hidden", "new\nline", "a\\b\x1b[2J", "\udcff", "雪" * 85, "x" * 255, " "],
    ids=["slashes to the eye", "dots", "dash", "dot", "newline", "escape", "no text", "long text", "long", "blank"],
)
def test_a_name_does_not_choose_where_the_torrent_is_kept(
    name: str, session: Session, launcher: Launcher, downloads: Path, erased: Path
) -> None:
    torrent = make(os.fsencode(name), b"data")
    program = launcher.start(*SHORT, *EXAMPLE)
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    session.erase(torrent)
    program.wait_line(r"saved +\S")
    program.wait_for(lambda: erased.is_dir() and list(erased.iterdir()), "the .torrent is not kept")
    (kept,) = erased.iterdir()
    assert re.fullmatch(rf"[\w ()\[\]+][\w .()\[\]+-]*-{torrent.hash[:8]}\.torrent", kept.name)
    program.wait_for(lambda: kept.read_bytes() == torrent.metainfo, "the .torrent is not kept")


@pytest.mark.parametrize("torrent", [single("one"), multi("pack")], ids=["single", "multi"])
def test_a_finished_torrent_runs_the_command(
    torrent: Torrent, session: Session, launcher: Launcher, downloads: Path, command: Command
) -> None:
    program = launcher.start(*EXAMPLE, env=command.env)
    download(program, session, downloads, torrent)
    mark = session.mark_complete(torrent)
    program.wait_for(lambda: not mark.exists(), "the mark is still there")
    assert set(command.calls()) == {f"1:{downloads / torrent.name.decode()}"}
    program.wait_line("ran +true ")


def test_a_command_that_fails_is_run_again(
    session: Session, launcher: Launcher, downloads: Path, command: Command
) -> None:
    command.fails.touch()
    program = launcher.start(*EXAMPLE, env=command.env)
    torrent = single("one")
    download(program, session, downloads, torrent)
    mark = session.mark_complete(torrent)
    program.wait_for(lambda: len(command.calls()) >= 2, "the command is not run again")
    assert mark.exists()
    command.fails.unlink()
    program.wait_for(lambda: not mark.exists(), "the mark is still there")
    program.wait_line("ran +true ")
    assert program.output.count("it is run again until it works") == 1
    assert "Traceback" not in program.output


def test_marks_written_meanwhile_are_taken_up(
    session: Session, launcher: Launcher, downloads: Path, command: Command
) -> None:
    torrents = [single("one"), single("two")]
    for torrent in torrents:
        session.download(torrent, downloads)
    marks = [session.mark_complete(torrent) for torrent in torrents]
    program = launcher.start(*EXAMPLE, env=command.env)
    program.wait_for(lambda: not any(mark.exists() for mark in marks), "a mark is still there")
    assert sorted(command.calls()) == sorted(f"1:{downloads / torrent.name.decode()}" for torrent in torrents)


def test_a_mark_may_come_before_its_torrent(
    session: Session, launcher: Launcher, downloads: Path, command: Command
) -> None:
    program = launcher.start(*EXAMPLE, env=command.env)
    torrent = single("one")
    mark = session.path / f"{torrent.hash}.complete"
    mark.touch()
    download(program, session, downloads, torrent)
    program.wait_for(lambda: not mark.exists(), "the mark is still there")
    assert command.calls()


def test_an_old_mark_without_a_torrent_is_left_alone(
    session: Session, launcher: Launcher, downloads: Path, command: Command
) -> None:
    mark = session.path / f"{'A' * 40}.complete"
    mark.touch()
    os.utime(mark, (0, 0))
    program = launcher.start(*EXAMPLE, env=command.env)
    download(program, session, downloads, single("one"))
    done = session.mark_complete(single("one"))
    program.wait_for(lambda: not done.exists(), "the mark is still there")
    assert mark.exists()
    assert "A" * 40 not in program.output


def test_the_mark_of_an_erased_torrent_goes(
    session: Session, launcher: Launcher, downloads: Path, command: Command
) -> None:
    command.fails.touch()
    program = launcher.start(*SHORT, *EXAMPLE, env=command.env)
    torrent = single("one")
    download(program, session, downloads, torrent)
    mark = session.mark_complete(torrent)
    program.wait_for(command.calls, "the command is not run")
    session.erase(torrent)
    program.wait_for(lambda: not mark.exists(), "the mark is still there")


def test_the_history_tells_when(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(single("old"), downloads)
    program = launcher.start(*SHORT, *EXAMPLE)
    torrent = single("one")
    for number in (1, 2):
        download(program, session, downloads, torrent)
        session.erase(torrent)
        program.wait_rows("SELECT * FROM example_history WHERE erased > added", lambda rows: len(rows) == number)  # noqa: B023
    download(program, session, downloads, torrent)
    sql = "SELECT hash, name, erased IS NULL FROM example_history ORDER BY rowid"
    line = (torrent.hash, "one.bin")
    program.wait_rows(sql, lambda rows: rows == [(*line, 0), (*line, 0), (*line, 1)])
    assert program.stop() == 0
    program = launcher.start(*EXAMPLE)
    assert len(program.select(sql)) == 3


@pytest.mark.parametrize("how", ["written", "moved"])
def test_a_dropped_torrent_is_looked_up(
    how: str, session: Session, launcher: Launcher, downloads: Path, drop: Path, tmp_path: Path
) -> None:
    program = launcher.start(*EXAMPLE)
    download(program, session, downloads, multi("pack"))
    dropped = make(b"other", {(b"a.bin",): b"1", (b"b.bin",): b"2", (b"c.bin",): b"3"})
    source = drop / "some.torrent" if how == "written" else tmp_path / "elsewhere"
    source.write_bytes(dropped.metainfo)
    if how == "moved":
        source.rename(drop / "some.torrent")
    program.wait_line(r"found +some\.torrent, 2 of 3 file names are in the session already$")
    download(program, session, downloads, single("after"))  # rtwatch's own function for this key is still called


@pytest.mark.parametrize("content", [b"", b"d1:ai1e-6:e", b"d4:infodee"], ids=["empty", "endless", "no info"])
def test_a_dropped_file_may_be_anything(
    content: bytes, session: Session, launcher: Launcher, downloads: Path, drop: Path
) -> None:
    program = launcher.start(*EXAMPLE)
    (drop / "some.torrent").write_bytes(content)
    (drop / "other.torrent.new").write_bytes(content)
    program.wait_line(r"found +some\.torrent cannot be read")
    download(program, session, downloads, single("after"))
    assert "other" not in program.output
    assert "Traceback" not in program.output


def test_the_drop_directory_may_go(session: Session, launcher: Launcher, downloads: Path, drop: Path) -> None:
    program = launcher.start(*EXAMPLE)
    drop.rmdir()
    download(program, session, downloads, single("after"))
    assert program.stop() == 0
    assert "Traceback" not in program.output


@pytest.mark.parametrize("dropping", [True, False], ids=["with", "without"])
def test_the_watch_ends_with_the_loop(dropping: bool, session: Session, launcher: Launcher, tmp_path: Path) -> None:
    if dropping:
        (launcher.state / "rtwatch-example" / "drop").mkdir(parents=True)
    hooks = tmp_path / "counting.py"
    hooks.write_text(COUNTING)
    program = launcher.start("--hooks", hooks)
    assert program.stop() == 0
    match = program.wait_line(r"watches (\d+) (\d+)")
    assert int(match[1]) - int(match[2]) == int(dropping)


def test_with_no_action_it_changes_nothing(
    session: Session, launcher: Launcher, downloads: Path, command: Command, drop: Path
) -> None:
    torrent, finished = multi("pack"), single("one")
    for known in (torrent, finished):
        session.download(known, downloads)
    assert launcher.once(*EXAMPLE).returncode == 0
    marks = [session.mark_complete(known) for known in (torrent, finished)]
    (drop / "some.torrent").write_bytes(single("two").metainfo)
    before = tree(downloads, launcher.state)
    program = launcher.start("-n", "-r", *SHORT, *EXAMPLE, env=command.env)
    session.add(single("three"), downloads)
    marks.append(session.mark_complete(single("three")))
    for name in ("pack", "one.bin", "three.bin"):
        program.wait_line(f"would run +true {re.escape(str(downloads / name))}$")
    session.erase(torrent)
    program.wait_line(rf"would save +\S+pack-{torrent.hash[:8]}\.torrent$")
    assert program.stop() == 0
    assert tree(downloads, launcher.state) == before
    assert command.calls() == []
    assert all(mark.exists() for mark in marks)
    assert "Traceback" not in program.output
