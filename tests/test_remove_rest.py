"""What -r removes, and everything it must not."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from pathlib import Path

import pytest
from program import Launcher, Program
from session import Session
from torrents import Torrent, make, multi, single

import rtwatch

SHORT = ("-r", "--grace", "0.2")
LONG = ("-r", "--grace", "600")

TORRENTS = pytest.mark.parametrize("torrent", [single("one"), multi("pack")], ids=["single", "multi"])
FIRST = make(b"pack", {(b"both.bin",): b"both" * 100, (b"sub", b"first.bin"): b"first" * 100})
SECOND = make(b"pack", {(b"both.bin",): b"both" * 100, (b"second.bin",): b"second" * 100})


def erase(program: Program, session: Session, *torrents: Torrent) -> None:
    """Erase torrents and wait until rtwatch is through with them."""
    for torrent in torrents:
        session.erase(torrent)
    for torrent in torrents:
        program.wait_gone(torrent.hash)


def download(program: Program, session: Session, directory: Path, *torrents: Torrent) -> list[Path]:
    """Download torrents, wait until rtwatch knows that, and return the paths of all files."""
    paths = [path for torrent in torrents for path in session.download(torrent, directory)]
    for torrent in torrents:
        program.wait_known(torrent.hash)
    settle(program, session, directory)
    return paths


def settle(program: Program, session: Session, directory: Path) -> None:
    """Wait until rtwatch has worked what happened so far."""
    number = len(list(session.path.glob("*.torrent")))
    torrent = single(f"settled{number}")
    session.add(torrent, directory)
    program.wait_known(torrent.hash)


def also_in(torrent: Torrent, word: str = "also") -> str:
    """Return the pattern of the reason that names another torrent."""
    return rf'{word} in {torrent.hash[:8]}\S* "{re.escape(torrent.name.decode())}"'


def wait_held(program: Program, torrent: Torrent, reason: str = "") -> None:
    """Wait until rtwatch has said what it does with a torrent, which must be to hold it, for a reason that matches."""
    name = re.escape(torrent.name.decode())
    match = program.wait_line(rf"^[\d: -]*(held|removed|erased)\s.*{name}.*")
    assert match[1] == "held"
    assert re.search(reason, match[0])


def tree(*places: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return everything below some directories: type and mode, time of change, and content by path."""
    found = {}
    for place in places:
        for path in [place, *sorted(place.rglob("*"))]:
            if os.path.lexists(path):
                status = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


# removed


@TORRENTS
def test_the_files_go_and_nothing_else(torrent: Torrent, session: Session, launcher: Launcher, downloads: Path) -> None:
    other = downloads / "other.bin"
    other.write_bytes(b"mine")
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, torrent)
    erase(program, session, torrent)
    assert not any(path.exists() for path in paths)
    assert sorted(downloads.iterdir()) == [other]
    program.wait_line(re.escape(torrent.name.decode()))


@TORRENTS
def test_without_the_option_the_files_stay(
    torrent: Torrent, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start("--grace", "0.2", *launcher.hooks)
    paths = download(program, session, downloads, torrent)
    erase(program, session, torrent)
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(torrent.hash), "post_remove is not called")
    assert all(path.exists() for path in paths)
    assert launcher.calls(torrent.hash)[-1]["removed"]["rmfiles"] == []
    assert sorted(launcher.calls(torrent.hash)[-1]["removed"]["torfiles"]) == sorted(map(str, paths))


def test_empty_and_missing_files_are_the_torrents_too(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = make(b"pack", {(b"a",): b"", (b"b", b"c"): b"x" * 9, (b"d", b"e", b"f"): b"y" * 9})
    program = launcher.start(*SHORT, *launcher.hooks)
    paths = download(program, session, downloads, torrent)
    paths[2].unlink()
    erase(program, session, torrent)
    program.wait_for(lambda: "post_remove" in launcher.hooks_called(torrent.hash), "post_remove is not called")
    assert not (downloads / "pack").exists()
    assert sorted(launcher.calls(torrent.hash)[-1]["removed"]["rmfiles"]) == sorted(map(str, paths[:2]))


def test_an_incomplete_download_goes(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    torrent = multi("pack")
    session.add(torrent, downloads, chunks_done=1)
    program.wait_known(torrent.hash)
    paths = torrent.write(downloads)
    os.truncate(paths[0], 1)
    erase(program, session, torrent)
    assert not (downloads / "pack").exists()


def test_a_hard_link_is_an_independent_name(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    (path,) = download(program, session, downloads, single("one"))
    link = downloads / "link"
    os.link(path, link)
    erase(program, session, single("one"))
    assert not path.exists()
    assert link.read_bytes() == single("one").content


# shared


def test_a_shared_file_stays_until_its_last_torrent_goes(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    both, first, *_ = download(program, session, downloads, FIRST, SECOND)
    erase(program, session, FIRST)
    program.wait_line(also_in(SECOND))
    assert both.exists()
    assert not first.parent.exists()
    assert (downloads / "pack" / "second.bin").exists()
    erase(program, session, SECOND)
    assert not (downloads / "pack").exists()


def test_torrents_erased_together_leave_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    download(program, session, downloads, FIRST, SECOND)
    erase(program, session, FIRST, SECOND)
    assert not (downloads / "pack").exists()


def test_a_file_shared_by_another_string_of_the_path_stays(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    link = downloads / "link"
    link.symlink_to(".")
    program = launcher.start(*SHORT)
    both, *_ = download(program, session, downloads, FIRST)
    for torrent, base in ((SECOND, f"{downloads}/x/..//link/pack/"), (single("other"), "~/downloads")):
        session.add(torrent, downloads, base)
        program.wait_known(torrent.hash)
    (downloads / "x").mkdir()
    session.save(SECOND)
    program.wait_files(SECOND.hash, SECOND.paths(downloads / "pack"))
    erase(program, session, FIRST)
    assert both.exists()


def test_a_vanished_torrent_still_owns_its_files(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, FIRST, SECOND)
    session.file(SECOND).unlink()
    wait_held(program, SECOND)
    program.stop()
    assert launcher.once(*SHORT).returncode == 0
    assert all(path.exists() for path in paths)


def test_a_file_used_through_a_symlink_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    one, other = multi("pack"), make(b"linked", {(b"x.bin",): b"pack" * 100, (b"y",): b"other"})
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, one)
    (downloads / "linked").mkdir()
    (downloads / "linked" / "hop").symlink_to("../pack/a.bin")
    (downloads / "linked" / "x.bin").symlink_to("hop")
    (downloads / "linked" / "y").write_bytes(b"other")
    session.add(other, downloads)
    session.finish(other)
    session.save(other)
    settle(program, session, downloads)
    erase(program, session, one)
    assert paths[0].exists()
    assert not paths[1].exists()
    program.wait_line(f"{other.hash[:8]}|linked")
    erase(program, session, other)
    assert not paths[0].exists()
    assert not os.path.lexists(downloads / "linked" / "x.bin")


def test_a_symlink_goes_without_its_target(session: Session, launcher: Launcher, downloads: Path) -> None:
    mine = downloads / "mine"
    program = launcher.start(*SHORT)
    (path,) = download(program, session, downloads, single("one"))
    path.rename(mine)
    path.symlink_to(mine)
    erase(program, session, single("one"))
    assert not os.path.lexists(path)
    assert mine.exists()


def test_a_directory_not_saved_yet_protects(session: Session, launcher: Launcher, downloads: Path) -> None:
    one, other = single("one"), make(b"one.bin", single("one").content, private=1)
    program = launcher.start(*SHORT)
    (path,) = download(program, session, downloads, one)
    session.add(other, downloads / "old")
    program.wait_known(other.hash)
    session.set_directory(other, downloads)
    erase(program, session, one)
    assert path.exists()
    program.wait_line(also_in(other, "perhaps"))


# limits


def test_only_files_below_a_path_go(session: Session, launcher: Launcher, downloads: Path) -> None:
    inside, beside, outside = downloads / "in", downloads / "in2", downloads / "out"
    inside.mkdir()
    link = downloads / "link"
    link.symlink_to("in")
    program = launcher.start(*SHORT, paths=[link])
    gone = download(program, session, inside, multi("one"))
    kept = download(program, session, beside, multi("two")) + download(program, session, outside, multi("three"))
    erase(program, session, *map(multi, ("one", "two", "three")))
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    program.wait_line("two")


def test_a_path_may_be_relative_and_is_never_removed(session: Session, launcher: Launcher, downloads: Path) -> None:
    (downloads / "pack").mkdir()
    program = launcher.start(*SHORT, paths=[Path("pack")], cwd=downloads)
    download(program, session, downloads, multi("pack"))
    erase(program, session, multi("pack"))
    assert list((downloads / "pack").iterdir()) == []


@pytest.mark.parametrize("link", [False, True], ids=["by its name", "through a link"])
def test_nothing_in_the_session_directory_goes(
    link: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    stays = multi("stays")
    place = session.path
    if link:
        place = downloads / "link"
        place.symlink_to(session.path)
    program = launcher.start(*SHORT)
    download(program, session, downloads, stays)
    evil = make(stays.hash.encode() + b".torrent", session.file(stays).read_bytes())
    deep = make(b"pack", {(b"a",): b"a" * 9})
    deep.write(session.path)
    for torrent in evil, deep:
        session.add(torrent, place)
        session.finish(torrent)
        session.save(torrent)
        program.wait_known(torrent.hash)
        program.wait_files(torrent.hash, [])
    before = tree(session.path / "pack")
    erase(program, session, evil, deep)
    assert session.file(stays).exists()
    assert tree(session.path / "pack") == before


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket"])
def test_what_is_no_file_stays(kind: str, session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = multi("pack")
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, torrent)
    paths[0].unlink()
    if kind == "directory":
        paths[0].mkdir()
    elif kind == "fifo":
        os.mkfifo(paths[0])
    else:
        with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as place:
            (link := Path(short, "link")).symlink_to(paths[0].parent)  # a socket's path has 107 bytes
            place.bind(str(link / "a.bin"))
    erase(program, session, torrent)
    assert paths[0].exists()
    assert not paths[1].exists()
    program.wait_line(r"a\.bin")


def test_a_torrent_whose_files_are_elsewhere_is_said(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = multi("pack")
    program = launcher.start(*SHORT)
    download(program, session, downloads, torrent)
    (downloads / "pack").rename(downloads / "moved")
    erase(program, session, torrent)
    program.wait_line(rf"none of its 2 files is at .*{re.escape(str(downloads / 'pack'))}")
    assert (downloads / "moved" / "a.bin").exists()


@pytest.mark.parametrize("part", [".", "sub"], ids=["root", "subdirectory"])
def test_a_parent_that_became_a_symlink_is_not_followed(
    part: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent = multi("pack")
    program = launcher.start(*SHORT)
    download(program, session, downloads, torrent)
    replaced, moved = downloads / "pack" / part, downloads / "moved"
    replaced.rename(moved)
    replaced.symlink_to(moved)
    erase(program, session, torrent)
    assert (moved / ("a.bin" if part == "." else "b.bin")).exists()
    assert (moved / ("sub/b.bin" if part == "." else "b.bin")).exists()
    assert replaced.is_symlink()


@pytest.mark.parametrize("change", ["longer", "newer"])
def test_what_is_not_the_torrents_data_stays(
    change: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrent = multi("pack")
    program = launcher.start("-r", "--grace", "1")
    paths = download(program, session, downloads, torrent)
    program.wait_line("pack")
    since = len(program.lines)
    session.erase(torrent)
    program.wait_line("pack", since)
    status = paths[0].stat()
    with open(paths[0], "ab") as file:
        file.write(b"more" if change == "longer" else b"")
    modified = status.st_mtime if change == "longer" else time.time()  # without times the kernel takes a coarse clock
    os.utime(paths[0], (modified, modified))
    program.wait_gone(torrent.hash)
    assert paths[0].exists()
    assert not paths[1].exists()


def test_a_file_older_than_a_torrent_without_data_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    mine, torrent = downloads / "one.bin", single("one")
    mine.write_bytes(b"mine")
    os.utime(mine, (1600000000, 1600000000))
    program = launcher.start(*SHORT)
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    erase(program, session, torrent)
    assert mine.read_bytes() == b"mine"
    program.wait_line(r"one\.bin")


# directories


def test_a_directory_with_a_foreign_file_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = make(b"pack", {(b"a", b"b", b"c"): b"x", (b"d", b"e"): b"y"})
    program = launcher.start(*SHORT)
    download(program, session, downloads, torrent)
    foreign = downloads / "pack" / "a" / "foreign"
    foreign.write_bytes(b"")
    erase(program, session, torrent)
    assert sorted((downloads / "pack").rglob("*")) == [foreign.parent, foreign]


def test_a_root_of_another_name_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    base = downloads / "common"
    program = launcher.start(*SHORT)
    session.download(multi("pack"), downloads, base)
    program.wait_known(multi("pack").hash)
    erase(program, session, multi("pack"))
    assert list(base.iterdir()) == []


def test_the_directory_of_a_single_file_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    directory = downloads / "one.bin"
    program = launcher.start(*SHORT)
    (path,) = download(program, session, directory, single("one"))
    erase(program, session, single("one"))
    assert not path.exists()
    assert directory.is_dir()


def test_the_root_of_another_torrent_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    download(program, session, downloads, multi("pack"))
    inner = make(b"inner", {(b"x",): b"inner", (b"y", b"z"): b"inner"})
    session.add(inner, downloads, downloads / "pack" / "sub")
    program.wait_known(inner.hash)
    session.add(single("single"), downloads / "pack" / "sub2")
    program.wait_known(single("single").hash)
    (downloads / "pack" / "sub2").mkdir()
    erase(program, session, multi("pack"))
    assert sorted((downloads / "pack").rglob("*")) == [downloads / "pack" / "sub", downloads / "pack" / "sub2"]


def test_a_symlink_to_a_directory_stays(session: Session, launcher: Launcher, downloads: Path) -> None:
    real = downloads / "real"
    real.mkdir()
    (downloads / "pack").mkdir()
    (downloads / "pack" / "sub").symlink_to(real)
    program = launcher.start(*SHORT)
    download(program, session, downloads, multi("pack"))
    erase(program, session, multi("pack"))
    assert real.is_dir()
    assert (downloads / "pack" / "sub").is_symlink()


# dry runs


@pytest.mark.parametrize("known", [True, False], ids=["with a database", "without one"])
def test_a_dry_run_changes_nothing(known: bool, session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [multi("pack"), single("one"), single("two")]
    for torrent in torrents:
        session.download(torrent, downloads)
    if known:
        assert launcher.once("-r").returncode == 0
    before = tree(launcher.state, downloads)
    program = launcher.start(*SHORT, "-n")
    session.erase(torrents[0])
    program.wait_line(r"would.*pack|pack.*would")
    assert program.stop() == 0
    assert tree(launcher.state, downloads) == before
    assert not known or launcher.db.exists()


def test_a_dry_run_finishes_what_vanished_only_in_words(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*LONG)
    download(program, session, downloads, multi("pack"), single("one"), single("two"))
    program.wait_line("pack")
    since = len(program.lines)
    session.erase(multi("pack"))
    program.wait_line("pack", since)
    program.stop()
    session.erase(single("one"))
    before = tree(launcher.state, downloads, session.path)
    dry = launcher.once(*SHORT, "-n", "--catch-up")
    assert dry.returncode == 0
    for name in "pack", r"one\.bin":
        assert re.search(rf"would.*{name}|{name}.*would", dry.stderr)
    assert dry.stdout == ""
    assert tree(launcher.state, downloads, session.path) == before


# evidence and guards


def unlink(session: Session, torrents: list[Torrent], *kinds: str) -> None:
    """Remove session files of all torrents kind by kind, as no rtorrent does."""
    for kind in kinds:
        for torrent in torrents:
            session.file(torrent, kind).unlink()


@pytest.mark.parametrize("kinds", ["T", "LRT", "RLT", "TLR", "LTR"])
def test_session_files_removed_by_hand_hold(kinds: str, session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [multi("one"), multi("two")]
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, *torrents)
    unlink(session, torrents, *kinds)
    for torrent in torrents:
        wait_held(program, torrent)
    program.stop()
    once = launcher.once(*SHORT)
    assert once.returncode == 0
    assert all(path.exists() for path in paths)
    again = launcher.start(*LONG)
    for torrent in torrents:
        again.wait_files(torrent.hash, torrent.paths(torrent.root(downloads)))


@pytest.mark.parametrize("number", [0, rtwatch.PASS], ids=["idle", "busy"])
def test_session_files_removed_by_hand_in_rtorrents_order_hold(
    number: int, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    """Nobody types three names as fast as rtorrent unlinks them, even while a pass of removals takes long."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text(f"import time\n\ndef post_remove(*arguments): time.sleep({3 * rtwatch.ERASE / rtwatch.PASS})")
    program = launcher.start("-r", "--grace", "1", "--hooks", hooks)
    others = [single(f"other{i}") for i in range(number)]
    paths = download(program, session, downloads, *others, multi("one"))
    for torrent in others:
        session.erase(torrent)
    if others:
        program.wait_gone(others[0].hash)
    for kind in "LRT":
        session.file(multi("one"), kind).unlink()
        time.sleep(0.6 * rtwatch.ERASE)
    held = f"SELECT seen FROM rtwatch_torrent WHERE hash = '{multi('one').hash}' AND held NOT NULL"
    assert program.wait_rows(held, bool) == [(0,)]
    assert all(path.exists() for path in paths[number:])


def test_a_shell_glob_removes_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [multi("one"), multi("two")]
    program = launcher.start(*SHORT)
    paths = [path for torrent in torrents for path in session.download(torrent, downloads)]
    for torrent in torrents:
        program.wait_known(torrent.hash)
    for file in sorted(session.path.glob("*.torrent*")):
        file.unlink()
    for torrent in torrents:
        wait_held(program, torrent)
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("order", ["erased first", "erased last"])
def test_a_removal_by_hand_holds_what_was_erased_at_that_time(
    order: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    one, two = multi("one"), multi("two")
    program = launcher.start("-r", "--grace", "2")
    paths = download(program, session, downloads, one, two)
    if order == "erased first":
        session.erase(one)
    for kind in "RTL":
        session.file(two, kind).unlink()
    session.erase(one)
    wait_held(program, one)
    wait_held(program, two)
    assert all(path.exists() for path in paths)


def test_a_stale_lock_holds(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, multi("one"))
    session.kill()
    session.erase(multi("one"))
    wait_held(program, multi("one"))
    program.stop()
    assert launcher.once(*SHORT).returncode == 0
    assert all(path.exists() for path in paths)


def test_no_lock_says_nothing(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, multi("one"))
    session.lock.unlink()
    erase(program, session, multi("one"))
    assert not any(path.exists() for path in paths)


def test_an_erase_that_was_not_seen_needs_a_lock(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [multi(name) for name in ("one", "two", "three")]
    for torrent in torrents:
        session.download(torrent, downloads)
    assert launcher.once().returncode == 0
    session.erase(torrents[0])
    session.lock.unlink()
    assert launcher.once(*SHORT, "--catch-up").returncode == 0
    assert (downloads / "one" / "a.bin").exists()


def test_the_lock_of_another_host_needs_a_path(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.kill()
    session.lock.unlink()
    session.write_lock("elsewhere.example", 123)
    (downloads / "in").mkdir()
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads / "in", multi("one"))
    session.erase(multi("one"))
    wait_held(program, multi("one"), "host")
    assert all(path.exists() for path in paths)
    program.stop()
    again = launcher.start(*SHORT, paths=[downloads / "in"])
    gone = download(again, session, downloads / "in", multi("two"))
    kept = download(again, session, downloads, multi("three"))
    erase(again, session, multi("two"), multi("three"))
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("lock", ["older", "missing"])
def test_an_unreadable_torrent_holds_everything(
    lock: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, multi("one"))
    if lock == "missing":
        session.lock.unlink()
    broken = session.path / f"{'AB' * 20}.torrent"
    broken.write_bytes(b"garbage")
    session.erase(multi("one"))
    wait_held(program, multi("one"), broken.name)
    program.stop()
    assert launcher.once(*SHORT).returncode == 0
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("with_r", [True, False], ids=["with R", "without R"])
def test_an_unreadable_torrent_that_rtorrent_refused_too_is_harmless(
    with_r: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    broken = "AB" * 20
    session.kill()
    session.file(broken).write_bytes(b"garbage")
    if with_r:
        session.file(broken, "R").write_bytes(b"d9:directory1:/e")
    while session.lock.stat().st_mtime_ns <= session.file(broken).stat().st_ctime_ns:
        session.kill()
        session.start()
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, multi("one"))
    session.erase(multi("one"))
    assert program.wait_line(r"^[\d: -]*(held|removed)\s.*one")[1] == "removed"
    assert len([line for line in program.lines if broken in line]) == 1
    assert not any(path.exists() for path in paths)


@pytest.mark.parametrize(("count", "held"), [(10, False), (11, True)])
def test_the_whole_of_a_large_session_is_held(
    count: int, held: bool, session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [single(f"number{number}") for number in range(count)]
    paths = [path for torrent in torrents for path in session.download(torrent, downloads)]
    program = launcher.start("-r", "--grace", "0.5")
    for torrent in torrents:
        session.erase(torrent)
    if held:
        wait_held(program, torrents[0])
        program.stop()
        assert launcher.once("-r", "--grace", "0.1").returncode == 0
        assert all(path.exists() for path in paths)
        assert len(launcher.start().select("SELECT 1 FROM torrent_data")) == count
    else:
        for torrent in torrents:
            program.wait_gone(torrent.hash)
        assert not any(path.exists() for path in paths)


def hold(session: Session, launcher: Launcher, downloads: Path) -> list[Path]:
    """Bring a torrent into the state held, end rtwatch, and return the torrent's files."""
    program = launcher.start(*SHORT)
    paths = download(program, session, downloads, multi("one"))
    session.file(multi("one")).unlink()
    wait_held(program, multi("one"))
    program.stop()
    return paths


def test_force_removes_what_is_held(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = hold(session, launcher, downloads)
    for kind in "LR":
        session.file(multi("one"), kind).unlink()
    assert "--force" in launcher.once(*SHORT).stderr
    assert launcher.once(*SHORT, "--force").returncode == 0
    assert not any(path.exists() for path in paths)
    program = launcher.start()
    program.wait_gone(multi("one").hash)


def test_force_without_remove_forgets_what_is_held(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = hold(session, launcher, downloads)
    for kind in "LR":
        session.file(multi("one"), kind).unlink()
    assert launcher.once("--force", "--grace", "0.2").returncode == 0
    assert all(path.exists() for path in paths)
    program = launcher.start()
    program.wait_gone(multi("one").hash)


def test_force_never_waives_a_session_file_that_is_there(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = hold(session, launcher, downloads)
    assert launcher.once(*SHORT, "--force").returncode == 0
    assert all(path.exists() for path in paths)


def test_a_held_torrent_returns(session: Session, launcher: Launcher, downloads: Path) -> None:
    paths = hold(session, launcher, downloads)
    program = launcher.start(*SHORT)
    session.save_full(multi("one"))
    settle(program, session, downloads)
    erase(program, session, multi("one"))
    assert not any(path.exists() for path in paths)


def test_once_waits_for_the_grace(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*LONG)
    paths = download(program, session, downloads, multi("one"))
    program.wait_line("one")
    since = len(program.lines)
    session.erase(multi("one"))
    program.wait_line("one", since)
    program.stop()
    assert all(path.exists() for path in paths)
    assert launcher.once("-r", "--grace", "0.4", *launcher.hooks).returncode == 0
    assert not any(path.exists() for path in paths)
    assert launcher.hooks_called() == ["pre_loop", "pre_remove", "post_remove", "post_loop"]


# what happens meanwhile


def test_a_torrent_that_returns_during_pre_remove_keeps_its_files(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    (tmp_path / "hooks.py").write_text("def pre_remove(con, file, args):\n    file.touch()\n")
    program = launcher.start(*SHORT, "--hooks", tmp_path / "hooks.py")
    paths = download(program, session, downloads, multi("one"))
    session.erase(multi("one"))
    program.wait_for(session.file(multi("one")).exists, "pre_remove is not called")
    program.stop()
    assert all(path.exists() for path in paths)
    session.file(multi("one")).write_bytes(multi("one").metainfo)
    again = launcher.start(*SHORT)
    again.wait_files(multi("one").hash, multi("one").paths(downloads / "one"))


def test_a_torrent_added_during_pre_remove_keeps_its_files(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    (tmp_path / "hooks.py").write_text(
        f"""
import os
def pre_remove(con, file, args):
    for name in os.listdir({str(tmp_path / "prepared")!r}):
        os.rename({str(tmp_path / "prepared")!r} + "/" + name, args.session / name)
"""
    )
    program = launcher.start(*SHORT, "--hooks", tmp_path / "hooks.py")
    both, first = download(program, session, downloads, FIRST)
    prepared = Session(tmp_path / "prepared")
    prepared.add(SECOND, downloads)
    erase(program, session, FIRST)
    program.wait_line(also_in(SECOND))
    assert both.exists()
    assert not first.exists()
    program.wait_files(SECOND.hash, SECOND.paths(downloads / "pack"))


def test_many_files_go(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrent = make(b"many", {(b"%d" % (number % 7), b"%d" % number): b"x" for number in range(1000)})
    program = launcher.start(*SHORT)
    download(program, session, downloads, torrent)
    erase(program, session, torrent)
    assert not (downloads / "many").exists()


# the trash, the orphans


def test_the_trash_gets_files_and_the_torrent(session: Session, launcher: Launcher, downloads: Path) -> None:
    trash = downloads / "trash"
    trash.mkdir()
    program = launcher.start(*SHORT, "--trash", trash, *launcher.hooks)
    torrent = multi("pack")
    for number, place in enumerate((torrent.hash, f"{torrent.hash}.2")):
        paths = download(program, session, downloads, torrent)
        erase(program, session, torrent)
        assert not (downloads / "pack").exists()
        found = {str(path.relative_to(trash / place)): path.read_bytes() for path in (trash / place).rglob("*.bin")}
        assert sorted(found.values()) == sorted(torrent.content.values())  # type: ignore[union-attr]
        assert all(name.endswith(("a.bin", "sub/b.bin")) for name in found)
        assert (trash / place / "pack.torrent").read_bytes() == torrent.metainfo
        program.wait_for(
            lambda number=number: launcher.hooks_called().count("post_remove") == number + 1,  # type: ignore[misc]
            "post_remove is not called",
        )
        assert sorted(launcher.calls(torrent.hash)[-1]["removed"]["rmfiles"]) == sorted(map(str, paths))


def test_orphans_are_the_files_that_no_torrent_lists(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.download(multi("pack"), downloads)
    session.download(single("one"), downloads)
    orphan = downloads / "pack" / "orphan"
    for path in orphan, downloads / "two\nlines", downloads / ".nfs0001":
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    (downloads / "written today").write_bytes(b"")
    before = sorted(launcher.state.rglob("*")), sorted(downloads.rglob("*"))
    result = launcher.run("--orphans", paths=[downloads])
    assert result.returncode == 0
    assert set(result.stdout.splitlines()) == {str(orphan), str(downloads / "two\\nlines")}
    assert re.search(r"2 files, 0 B below", result.stderr)
    assert "1 path with a line break" in result.stderr
    assert (sorted(launcher.state.rglob("*")), sorted(downloads.rglob("*"))) == before


def test_a_directory_without_any_torrent_has_no_orphans(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.download(single("one"), downloads)
    (downloads / "other").mkdir()
    result = launcher.run("--orphans", paths=[downloads / "other"])
    assert (result.returncode, result.stdout) == (2, "")
    assert "no torrent has a file below it" in result.stderr


def test_what_a_torrent_may_have_whose_place_is_not_known_is_no_orphan(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads)
    hidden = multi("pack").write(downloads)
    session.add(multi("pack"), "downloads")  # where this is only a running rtorrent knows
    session.kill()
    orphan = downloads / "orphan"
    orphan.write_bytes(b"")
    for path in (orphan, *hidden):
        os.utime(path, (0, 0))
    result = launcher.run("--orphans", paths=[downloads])
    assert (result.returncode, result.stdout) == (0, f"{orphan}\n")
    assert re.search(r"unknown .*pack", result.stderr)


def test_there_are_no_orphans_beside_a_torrent_that_cannot_be_read(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    session.download(single("one"), downloads)
    session.file(multi("pack")).write_bytes(b"")
    (downloads / "may be its file").write_bytes(b"")
    os.utime(downloads / "may be its file", (0, 0))
    result = launcher.run("--orphans", paths=[downloads])
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot be read, see above" in result.stderr
