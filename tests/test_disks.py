"""Disks that fail, permissions that are missing, and what the system refuses."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from faults import fill, mounted, small_disk, strace, the_line, unprivileged
from program import Launcher, run
from session import Session
from steps import AT_ONCE, SHORT, download, leave_vanished, remaining, removed, settle
from torrents import make

PACK = make(b"pack", {(b"a.bin",): b"a" * 100, (b"sub", b"b.bin"): b"b" * 100, (b"sub", b"c.bin"): b"c" * 100})

Failure = Callable[[Path], AbstractContextManager[None]]

# files that cannot be removed


@contextmanager
def forbid(directory: Path, mode: int) -> Iterator[None]:
    """Give a directory a mode, which then holds for rtwatch."""
    before = stat.S_IMODE(directory.stat().st_mode)
    directory.chmod(mode)
    with unprivileged():
        yield
    directory.chmod(before)


FAILURES: dict[str, tuple[Failure, list[str], str]] = {
    "directory may not be written": (lambda root: forbid(root, 0o555), ["a.bin"], "Permission denied"),
    "directory may not be searched": (
        lambda root: forbid(root / "sub", 0),
        ["sub/b.bin", "sub/c.bin"],
        "Permission denied",
    ),
    "mounted file": (lambda root: mounted(root / "a.bin", "--bind", str(root / "a.bin")), ["a.bin"], "busy"),
    "disk may only be read": (
        lambda root: mounted(root, "--bind", "-o", "ro", str(root)),
        ["a.bin", "sub/b.bin", "sub/c.bin"],
        "Read-only file system",
    ),
    "EIO": (lambda root: strace("unlinkat:error=EIO:when=1"), ["a.bin"], "Input/output error"),
    "EPERM": (lambda root: strace("unlinkat:error=EPERM:when=1"), ["a.bin"], "Operation not permitted"),
}


@pytest.mark.parametrize(("fail", "names", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_file_that_cannot_be_removed_is_kept_with_the_reason_and_the_others_go(
    fail: Failure, names: list[str], reason: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = leave_vanished(launcher, session, downloads, PACK)
    root = downloads / "pack"
    with fail(root):
        result = launcher.once("-v", *AT_ONCE, *launcher.hooks)
    assert result.returncode == 0, result.stderr
    kept = [root / name for name in names]
    lines = [line for line in result.stderr.splitlines() if "kept" in line]
    assert all(len([line for line in lines if path.name in line and reason in line]) == 1 for path in kept), lines
    assert "Traceback" not in result.stderr
    assert remaining(paths) == kept
    assert removed(launcher, PACK) == [path for path in paths if path not in kept]


def test_an_empty_mount_point_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    place = downloads / "pack" / "sub"
    place.mkdir(parents=True)
    with small_disk(place):
        paths = leave_vanished(launcher, session, downloads, PACK)
        assert launcher.once(*AT_ONCE).returncode == 0
        assert remaining(paths) == []
        assert os.path.ismount(place)


@pytest.mark.parametrize("error", ["ENOENT:when=1", "ENOTEMPTY:when=4"], ids=["a file goes", "a file comes"])
def test_other_programs_may_work_in_the_same_directories(
    error: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = leave_vanished(launcher, session, downloads, PACK)
    with strace(f"unlinkat:error={error}"):
        result = launcher.once(*AT_ONCE, *launcher.hooks)
    assert result.returncode == 0
    vanished = error == "ENOENT:when=1"
    assert removed(launcher, PACK) == (paths[1:] if vanished else paths)
    assert (downloads / "pack" / "sub").is_dir() != vanished
    assert len([line for line in result.stderr.splitlines() if "not empty" in line]) == 1
    assert "No such file" not in result.stderr
    assert "Traceback" not in result.stderr


def take_away(place: Path) -> Path:
    """Move a directory away; return where it is."""
    return place.rename(place.with_name("moved"))


def swap_for_link(place: Path) -> Path:
    """Move a directory away and put a symlink to it in its place; return where it is."""
    moved = take_away(place)
    place.symlink_to(moved)
    return moved


def swap_for_other(place: Path) -> Path:
    """Move a directory away and put another with files of the same names in its place; return where those are."""
    take_away(place)
    PACK.write(place.parent)
    return place


@pytest.mark.parametrize("swap", [swap_for_link, swap_for_other, take_away])
@pytest.mark.parametrize("call", ["%%stat", "openat"])
def test_a_directory_that_is_swapped_after_the_decision_loses_nothing(
    call: str, swap: Callable[[Path], Path], session: Session, launcher: Launcher, downloads: Path
) -> None:
    paths = leave_vanished(launcher, session, downloads, PACK)
    place = paths[0].parent
    trace = launcher.state / "trace"
    with strace(f"{call}:signal=STOP:when=1", trace=trace, only=paths[0] if call == "%%stat" else place):
        program = launcher.start("--once", *AT_ONCE, ready=False)
    program.wait_for(lambda: trace.exists() and "stopped by SIGSTOP" in trace.read_text(), "rtwatch does not stop")
    kept = swap(place)
    program.send_signal(signal.SIGCONT)
    assert program.wait() == 0
    assert (kept / "a.bin").read_bytes() == b"a" * 100
    assert "Traceback" not in program.output


# the trash


def test_a_trash_is_private(session: Session, launcher: Launcher, downloads: Path) -> None:
    leave_vanished(launcher, session, downloads, PACK)
    trash = downloads / "trash"
    trash.mkdir()
    assert launcher.once(*AT_ONCE, "--trash", trash).returncode == 0
    assert stat.S_IMODE((trash / PACK.hash).stat().st_mode) == 0o700


@pytest.mark.parametrize("reason", ["No space left", "Permission denied"])
def test_a_trash_that_fails_keeps_the_files(reason: str, session: Session, launcher: Launcher, downloads: Path) -> None:
    with small_disk(downloads):
        paths = leave_vanished(launcher, session, downloads, PACK)
        trash = downloads / "trash"
        trash.mkdir(0o555 if reason == "Permission denied" else 0o755)
        if reason == "No space left":
            fill(downloads)
        with unprivileged():
            result = launcher.once(*AT_ONCE, "--trash", trash, *launcher.hooks)
        assert result.returncode == 0
        assert reason in result.stderr
        assert "Traceback" not in result.stderr
        assert remaining(paths) == paths
        assert removed(launcher, PACK) == []
        assert len(list(trash.iterdir())) <= 1


def test_a_trash_that_goes_keeps_the_files(session: Session, launcher: Launcher, downloads: Path) -> None:
    trash = downloads / "trash"
    trash.mkdir()
    program = launcher.start(*SHORT, "--trash", trash)
    paths = download(program, session, downloads, PACK)
    trash.rmdir()
    session.erase(PACK)
    program.wait_line(r"(kept|failed).*trash")
    settle(program, session, downloads)
    assert program.stop() == 0
    assert "Traceback" not in program.output
    assert remaining(paths) == paths


# what ends rtwatch in one line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        *(("closed/x", "closed"), ("session --hooks closed/x", "closed"), ("-r --trash closed/x session", "closed")),
        *(("-r session closed/x", "closed"), ("--db closed/x session", "closed")),
        *(("loop", "loop"), ("~nobody-has-this-name/session", "~nobody-has-this-name/session")),
    ],
)
def test_a_path_that_cannot_be_resolved_is_said_in_one_line(
    options: str, named: str, session: Session, launcher: Launcher, tmp_path: Path
) -> None:
    (tmp_path / "closed" / "x").mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    with forbid(tmp_path / "closed", 0):
        result = run("--once", "-q", *options.split(), state=launcher.state, cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert named in the_line(result.stderr)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("inotify_init1:error=EMFILE", "fs.inotify.max_user_instances"),
        ("inotify_add_watch:error=ENOSPC", "fs.inotify.max_user_watches"),
        ("bind:error=EACCES", "session: it cannot be locked"),
        ("bind:error=EADDRINUSE", "session: another rtwatch watches it"),
    ],
)
def test_refusals_of_the_system_are_one_line(fault: str, words: str, session: Session, launcher: Launcher) -> None:
    with strace(fault):
        result = launcher.once("-q")
    assert result.returncode == 1
    assert words in the_line(result.stderr)
