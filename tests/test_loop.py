"""The loop: what it watches and waits for, what ends it, and what else may run beside it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import mounted, the_line
from inotify_simple import flags, masks
from program import Launcher, Program, run
from session import Session
from steps import LONG, SHORT, Hooks, download, remaining, seed, settle, wait_vanished
from torrents import multi, single

THREE = [multi(name) for name in ("one", "two", "three")]


# waiting


def test_idle_costs_no_wake_up(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.download(single("one"), downloads)
    program = launcher.start(*launcher.hooks)
    system_call = Path(f"/proc/{program.pid}/syscall")
    try:
        system_call.read_text()
    except OSError as error:
        pytest.skip(f"{system_call}: {error}")
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of the system calls are those of x86_64")

    def polls_without_a_timeout() -> bool:
        number, *arguments = system_call.read_text().split()
        return number == "7" and int(arguments[2], 16) & 0xFFFFFFFF == 0xFFFFFFFF

    program.wait_for(polls_without_a_timeout, "rtwatch does not wait in poll without a timeout")


def test_a_service_manager_that_does_not_read_hangs_nothing(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """Its socket takes ten messages (net.unix.max_dgram_qlen); rtwatch sends one at every change."""
    name = f"\0rtwatch-test {tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(name)
        program = launcher.start(*LONG, ready=False, env={"NOTIFY_SOCKET": name.replace("\0", "@")})
        for number in range(40):
            download(program, session, downloads, single(f"number {number}"))
        begin = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - begin < 5


def watched(program: Program) -> int:
    """Return the mask of the events that a process watches for, all its watches together."""
    mask = 0
    for info in Path(f"/proc/{program.pid}/fdinfo").iterdir():
        for found in re.findall(r"^inotify .*\bmask:([0-9a-f]+)", info.read_text(), re.MULTILINE):
            mask |= int(found, 16)
    return mask & int(masks.ALL_EVENTS)


def test_only_events_with_a_handler_are_watched(session: Session, launcher: Launcher, hooks: Hooks) -> None:
    needed = flags.MOVED_TO | flags.CLOSE_WRITE | flags.DELETE | flags.DELETE_SELF | flags.MOVE_SELF
    program = launcher.start(*launcher.hooks)
    assert watched(program) == needed
    program.stop()
    option = hooks.write_each(pre_loop='inot_funcs["other", flags.CREATE] = print')
    assert watched(launcher.start(*option)) == needed | flags.CREATE


# the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_rtwatch_in_order(number: int, session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*LONG, *launcher.hooks)
    (path, *_) = download(program, session, downloads, single("one"))
    wait_vanished(program, session, single("one"))
    program.send_signal(number)
    assert program.wait() == 0
    assert launcher.hooks_called()[0] == "pre_loop"
    assert launcher.hooks_called()[-1] == "post_loop"
    assert "pre_remove" not in launcher.hooks_called()
    told = "\n".join(program.notified).split("\n")
    assert told.count("READY=1") == told.count("STOPPING=1") == 1
    assert any(line.startswith("STATUS=") for line in told)
    assert "Traceback" not in program.output
    assert path.exists()


def remove(session: Session) -> None:
    """Remove the session directory."""
    shutil.rmtree(session.path)


def move_away(session: Session) -> None:
    """Move the session directory away."""
    session.path.rename(session.path.with_name("moved"))


def replace(session: Session) -> None:
    """Put an empty directory in the session directory's place."""
    move_away(session)
    session.path.mkdir()


@pytest.mark.parametrize("lose", [remove, move_away, replace])
def test_the_end_of_the_session_directory_ends_rtwatch_and_removes_nothing(
    lose: Callable[[Session], None], session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = seed(session, downloads, *THREE)
    program = launcher.start(*SHORT, *launcher.hooks)
    lose(session)
    assert program.wait() == 1
    assert session.path.name in program.lines[-1]
    assert remaining(paths) == paths
    assert len(program.select("SELECT 1 FROM torrent_data")) == 3
    assert launcher.hooks_called() == ["pre_loop", "post_loop"]
    assert "STOPPING=1" in program.notified


def test_a_mount_over_the_session_ends_rtwatch(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = seed(session, downloads, *THREE)
    program = launcher.start(*SHORT)
    program.send_signal(signal.SIGSTOP)
    session.erase(THREE[0])
    with mounted(session.path, "-t", "tmpfs", "rtwatch-test"):
        program.send_signal(signal.SIGCONT)
        assert program.wait() == 1
    assert remaining(paths) == paths


# beside another


@pytest.mark.parametrize("db", [(), ("--db", "other.db")], ids=["same database", "other database"])
def test_a_second_rtwatch_on_a_session_is_refused(
    db: tuple[str, ...], session: Session, launcher: Launcher, tmp_path: Path
) -> None:
    program = launcher.start()
    link = tmp_path / "link"
    link.symlink_to(session.path)
    for path in session.path, link:
        second = run(*db, path, state=launcher.state, cwd=tmp_path)
        assert second.returncode == 1
        assert re.search(f"{session.path.name}|{path.name}", the_line(second.stderr))
    program.kill()
    assert launcher.start(*db, cwd=tmp_path).stop() == 0


def test_a_dry_run_may_run_beside_and_changes_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*LONG)
    dry = launcher.start("-n", *SHORT)
    paths = download(program, session, downloads, multi("pack"))
    dry.wait_line("pack")
    session.erase(multi("pack"))
    dry.wait_line("would remove.*pack")
    settle(program, session, downloads)
    program.wait_files(multi("pack").hash, paths)
    assert dry.stop() == 0
    assert remaining(paths) == paths
    program.wait_files(multi("pack").hash, paths)
