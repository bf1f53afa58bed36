"""Torrents that are missing at the start or vanish in a mass, those that rtwatch holds, and what lets them go."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from program import Launcher, Program, run
from session import Session
from steps import SHORT, download, erase, erase_another, pattern, paused, remaining, seed, settle, wait_held
from torrents import Torrent, multi, single, twin_of

NOT_ASKED = ("--scgi", "none")
ONE, TWIN, OTHER = multi("one"), twin_of(multi("one")), multi("other")


def singles(count: int, name: str = "number") -> list[Torrent]:
    """Make some small torrents."""
    return [single(f"{name}{number:03}", 20) for number in range(count)]


def forced(launcher: Launcher, program: Program) -> subprocess.CompletedProcess[str]:
    """End rtwatch and run the command that it says lets held removals go ahead, but with a short grace."""
    _, *arguments = shlex.split(program.wait_line("rtwatch --once --force.*")[0])
    program.stop()
    return run(*arguments, "--grace", "0.2", state=launcher.state, env={"RTWATCH_RECORD": str(launcher.record)})


def wait_count(program: Program, number: int) -> None:
    """Wait until a number of torrents have rows."""
    program.wait_rows("SELECT count(*) FROM torrent_data", lambda rows: rows == [(number,)])


def save_when_waited_for(program: Program, session: Session, directory: Path) -> None:
    """Let rtorrent save its session once rtwatch waits for that."""
    program.wait_line("waiting .*next save")
    settle(program, session, directory)
    session.save_all()


# missing at the start


@pytest.mark.parametrize("options", [(), ("--catch-up",)], ids=["", "--catch-up"])
@pytest.mark.parametrize("number", [3, 12])
def test_a_wiped_session_is_held_until_the_command_that_is_said(
    number: int, options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, trash: Path
) -> None:
    paths = seed(session, downloads, *singles(number))
    others = seed(session, downloads.with_name("outside"), single("outside"))
    assert launcher.once().returncode == 0
    session.erase(*singles(number), single("outside"))
    others += seed(session, downloads, single("stays"))
    options = (*SHORT, *options, "--trash", str(trash))
    program = launcher.start(*options, *launcher.hooks, paths=[downloads])
    program.wait_line(f"held .*{number + 1} of {number + 2} torrents missing")
    others += download(program, session, downloads, *singles(number + 2, "new"))
    erase_another(program, session, downloads)
    program.stop()
    assert launcher.once(*options, paths=[downloads]).returncode == 3
    assert remaining(paths + others) == paths + others
    program = launcher.start(*options, paths=[downloads])
    assert forced(launcher, program).returncode == 0
    assert remaining(paths + others) == others
    assert len(list(trash.glob("*/number*.bin"))) == number


# many at once


@pytest.mark.parametrize(("of", "gone", "held"), [(10, 10, False), (11, 11, True), (20, 11, True), (22, 11, False)])
def test_a_mass_is_held_where_nobody_knows_which_rtorrent_has_said_it(
    of: int, gone: int, held: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, *singles(of))
    session.lock.unlink()  # as with session.use_lock = no
    program = launcher.start(*SHORT, *NOT_ASKED)
    with paused(program):
        session.erase(*singles(of)[:gone])
    save_when_waited_for(program, session, downloads)
    if held:
        program.wait_line("held .*so many at once")
        assert remaining(paths) == paths
        assert forced(launcher, program).returncode == 0
    else:
        wait_count(program, of - gone + 1)
    assert remaining(paths) == paths[gone:]


@pytest.mark.parametrize(("of", "gone", "waits"), [(10, 10, False), (11, 11, True), (22, 11, False)])
def test_without_r_only_a_mass_waits_for_rtorrents_word(
    of: int, gone: int, waits: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, *singles(of))
    program = launcher.start("--grace", "0.2", *NOT_ASKED)
    with paused(program):
        session.erase(*singles(of)[:gone])
    if waits:
        save_when_waited_for(program, session, downloads)
    wait_count(program, of - gone + waits)
    assert ("waiting" in program.output) == waits
    assert remaining(paths) == paths


# --force


@pytest.mark.parametrize(
    ("options", "kinds", "status", "removes"),
    [(("-r",), "LRT", 0, True), ((), "LRT", 0, False), (("-r",), "T", 3, False)],
    ids=["with -r", "without -r", "session files are there"],
)
def test_force_removes_a_held_torrent_or_forgets_it_but_never_one_that_has_session_files(
    options: tuple[str, ...],
    kinds: str,
    status: int,
    removes: bool,
    session: Session,
    launcher: Launcher,
    downloads: Path,
) -> None:
    paths = seed(session, downloads, ONE)
    program = launcher.start(*SHORT)
    session.kill()
    for kind in kinds:
        session.file(ONE, kind).unlink()
    wait_held(program, ONE)
    program.stop()
    session.start()
    assert launcher.once(*options, "--grace", "0.2", "--force").returncode == status
    assert remaining(paths) == ([] if removes else paths)
    wait_count(launcher.start(), status == 3)


# torrents whose names are not known


def test_a_loaded_torrent_without_t_holds_everything_until_rtorrent_saves_it(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, others = seed(session, downloads, ONE), seed(session, downloads, OTHER)
    program = launcher.start(*SHORT, *NOT_ASKED)
    session.load(TWIN, downloads)
    session.save(TWIN)
    session.erase(ONE, OTHER)
    save_when_waited_for(program, session, downloads)
    program.wait_line(f"held .*{pattern(OTHER)}.*: the .torrent of another")
    program.stop()
    assert launcher.once(*SHORT, *NOT_ASKED, "--force").returncode == 3
    assert remaining(paths + others) == paths + others
    session.save_full(TWIN)
    program = launcher.start(*SHORT, *NOT_ASKED)
    for torrent in ONE, OTHER:
        program.wait_gone(torrent.hash)
    assert remaining(paths + others) == paths


@pytest.mark.parametrize("content", [b"", b"d4:info"], ids=["empty", "cut short"])
def test_a_loaded_torrent_with_a_broken_t_keeps_what_lies_in_its_directory(
    content: bytes, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths, others = seed(session, downloads, ONE), seed(session, downloads, OTHER)
    program = launcher.start(*SHORT, *NOT_ASKED)
    session.load(TWIN, downloads)
    session.write(TWIN, "T", content)
    session.erase(ONE, OTHER)
    save_when_waited_for(program, session, downloads)
    for torrent in ONE, OTHER:
        program.wait_gone(torrent.hash)
    assert remaining(paths + others) == paths


def test_a_magnet_link_that_was_saved_on_a_full_disk_holds_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, ONE)
    program = launcher.start(*SHORT)
    session.magnet(single("stub"), downloads)
    session.save_on_full_disk(single("stub"))  # 0.16 moves an empty R into place
    settle(program, session, downloads)
    erase(program, session, ONE)
    assert remaining(paths) == []
