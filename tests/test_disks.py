"""Disks that fail, permissions that are missing, files that cannot be read, and what the system refuses."""

import re
import sys
import time
from pathlib import Path

import pytest
from faults import strace, the_line, unprivileged
from rtorrent import wait_until
from steps import AT_ONCE, ONE, SHORT, Bed, each_row, play, remaining
from torrents import make

PACK = make(b"pack", {(b"a.bin",): b"a" * 100, (b"sub", b"b.bin"): b"b" * 100, (b"sub", b"c.bin"): b"c" * 100})

# What somebody does, or the fault of a system call; what is not removed; what is said.
FAILURES = """
a directory that may not be written: chmod 555 pack -> a.bin (kept .*Permission denied)
a directory that may not be searched: chmod 0 pack/sub -> sub/b.bin sub/c.bin (kept .*Permission denied)
a mounted file: bind pack/a.bin pack/a.bin -> a.bin (kept .*busy)
a read-only disk: mount pack --bind -o ro {}/pack -> a.bin sub/b.bin sub/c.bin (kept .*Read-only)
a bad block: unlinkat:error=EIO:when=1 -> a.bin (kept .*Input/output error)
a file that may not be removed: unlinkat:error=EPERM:when=1 -> a.bin (kept .*Operation not permitted)
a file that another program removes: unlinkat:error=ENOENT:when=1 -> a.bin (kept .*already gone)
a directory that another program writes to: unlinkat:error=ENOTEMPTY:when=4 -> (not empty)
"""


@each_row("step names said", FAILURES, r"(.*?): (.*) -> (.*?) ?\((.*)\)")
def test_what_cannot_be_removed_stays_and_the_rest_goes(step: str, names: str, said: str, bed: Bed) -> None:
    paths = bed.leave_vanished(PACK)
    with strace(step) if "unlinkat" in step else unprivileged():
        play(bed, ":" if "unlinkat" in step else step.format(bed.downloads))
        result = bed.once("-v", *AT_ONCE, *bed.hooks)
    bed.mounts.close()
    bed.shell("chmod -R u+rwx .")
    assert result.returncode == 0, result.stderr
    kept = [bed.downloads / "pack" / name for name in names.split()]
    lines = [line for line in result.stderr.splitlines() if re.search(said, line)]
    assert all(len([line for line in lines if path.name in line]) == 1 for path in kept), result.stderr
    assert lines
    assert remaining(paths) == kept
    assert bed.removed(PACK) == [path for path in paths if path not in kept]


@pytest.mark.parametrize("trash", [[], ["--trash=../trash"]], ids=["", "trash"])
def test_a_torrent_that_is_back_as_open_files_are_looked_at_keeps_its_files(trash: list[str], bed: Bed) -> None:
    paths = bed.leave_vanished(PACK)
    trace = bed.state / "trace"
    bed.state.with_name("trash").mkdir()
    with strace("openat:signal=STOP", trace=trace, only=Path("/proc")):
        program = bed.start("--once", *AT_ONCE, *trash, ready=False, cwd=bed.downloads)
    program.wait_for(lambda: trace.exists() and "stopped by SIGSTOP" in trace.read_text(), "rtwatch does not stop")
    play(bed, "load PACK; resume; exits 0; says returned +pack", PACK=PACK)
    assert remaining(paths) == paths


def test_a_file_that_cannot_be_looked_at_hides_no_other_open_file(bed: Bed) -> None:
    paths = bed.seed(PACK)
    (unlucky := bed.downloads / "unlucky").touch()
    bed.session.open_files([unlucky, paths[0]])
    (fd,) = (fd for fd in Path(f"/proc/{bed.session.process.pid}/fd").iterdir() if fd.resolve() == unlucky)
    with strace("newfstatat:error=EIO", only=fd):
        program = bed.start(*SHORT)
    bed.rtorrent.erase(PACK)
    program.wait_line("waiting .*close files")
    assert remaining(paths) == paths


@pytest.mark.parametrize(("call", "path"), [("openat", "net/tcp6"), ("readlink", "fd/0")])
def test_the_socket_is_found_where_something_of_the_process_cannot_be_read(call: str, path: str, bed: Bed) -> None:
    with strace(f"{call}:error=ENOENT", only=Path(f"/proc/{bed.session.process.pid}/{path}")):
        bed.start(*SHORT).wait_line("ready .*rtorrent answers")


def test_a_file_put_in_place_while_rtwatch_is_frozen_is_kept(bed: Bed) -> None:
    """A process that is frozen gets no signal when it goes on; a poll that ends late stands for that."""
    (path,) = bed.seed(ONE)
    with strace("poll:delay_exit=400000"):
        program = bed.start(*SHORT, "--scgi", "none")
    bed.rtorrent.erase(ONE)
    wait_until(lambda: not bed.session.file(ONE).exists(), 5)
    time.sleep(0.1)
    path.write_bytes(path.read_bytes())
    bed.let_save()
    program.wait_gone(ONE.hash)
    assert path.exists()


TRASHES = {  # and the reason
    "a full disk": ("mkdir trash; cat /dev/zero >zeros || :", "No space left"),
    "a directory that may not be written": ("mkdir -m 555 trash", "Permission denied"),
}


@pytest.mark.parametrize(("trash", "reason"), TRASHES.values(), ids=TRASHES)
def test_a_trash_that_fails_keeps_the_files(trash: str, reason: str, bed: Bed) -> None:
    play(bed, "mount . -t tmpfs -o size=1m rtwatch-test")
    paths = bed.leave_vanished(PACK)
    with unprivileged():
        play(bed, f"{trash}; once -r --grace=0 --trash=trash --hooks={bed.hooks[1]}; exits 0")
    bed.program.wait_line(rf"cannot be (removed|moved to \S+): {reason}")
    assert remaining(paths) == paths
    assert bed.removed(PACK) == []
    assert len(list((bed.downloads / "trash").iterdir())) <= 1


REFUSALS = {
    "inotify_init1:error=EMFILE": "fs.inotify.max_user_instances",
    "inotify_add_watch:error=ENOSPC": "fs.inotify.max_user_watches",
    "bind:error=EACCES": "session: it cannot be locked",
    "bind:error=EADDRINUSE": "session: another rtwatch watches it",
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_refusals_of_the_system_are_one_line(fault: str, bed: Bed) -> None:
    with strace(fault):
        result = bed.once("-q")
    assert REFUSALS[fault] in the_line(result, 1)


UNREADABLE = {  # shell commands that make the file $0
    **{"forbidden": "echo >new; chmod 0 new; mv new $0", "link to itself": "ln -s $0 $0", "pipe": "mkfifo $0"},
    **{"directory": "mkdir $0", "huge": "truncate -s 1G new; mv new $0"},
    "socket": f"""{sys.executable} -c '__import__("socket").socket(1).bind("$0")'""",
}
BROKEN, KEPT = f"{'A' * 40}.torrent", "pack/a.bin pack/sub/b.bin pack/sub/c.bin"
BESIDE = f"""start; seed PACK ONE; settle; cp ../session/{PACK.hash}.torrent{{0}} ../session/{BROKEN}{{0}}; MAKE;
    erase PACK; says kept .*AAAAAAAA; stop; says-once unreadable .*{BROKEN}; start; says-once unreadable .*{BROKEN};
    rm -r $0; rm ../session/{BROKEN}{{0}}; erase ONE; left {KEPT}"""
STORIES = {  # of each file
    "rtorrent.lock": rf"""seed PACK; rm $0; MAKE; start --scgi none; says ready .*rtorrent.lock is unreadable;
        erase-unwaited PACK; says held +pack: rtorrent.lock cannot be read;
        says remedy +chmod a\+r \S*/session/rtorrent.lock; stop; says-no another host; left {KEPT}""",
    BROKEN: BESIDE.format(".rtorrent"),
    f"{BROKEN}.rtorrent": BESIDE.format(""),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("file", STORIES)
def test_a_file_of_the_session_that_cannot_be_read_hangs_nothing_and_keeps_files(
    file: str, what: str, bed: Bed
) -> None:
    """An unreadable lock is not that of another host; an unreadable torrent is said once, when it comes or at a start,
    and keeps the files that it may have."""
    with unprivileged():
        story = STORIES[file].replace("MAKE", UNREADABLE[what].replace("; ", ";"))
        play(bed, story.replace("$0", f"../session/{file}"), PACK=PACK)


def test_a_session_file_with_a_bad_block_is_read_again(bed: Bed) -> None:
    with strace("read:error=EIO:when=1", only=bed.session.file(PACK)):
        program = bed.start()
    bed.add(PACK)
    program.wait_known(PACK.hash)


@pytest.mark.parametrize("mode", ["000", "300"])
def test_a_session_directory_that_has_or_gets_no_permission_ends_rtwatch(mode: str, bed: Bed) -> None:
    session = bed.session.path
    with unprivileged():
        play(bed, f"start; seed PACK; settle; chmod {mode} {session}; erase-unwaited PACK; exits 1", PACK=PACK)
        assert str(session) in bed.program.lines[-1]
        assert str(session) in the_line(bed.once(), 1, 2)
    play(bed, f"chmod 755 {session}; left {KEPT}")
