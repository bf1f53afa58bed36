"""Whether a vanished torrent was erased, and where the others are: told by the real rtorrent, asked or by its saves.

Every story runs on both versions, with rtorrent's SCGI socket and without one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import bencodepy
import pytest
from program import Launcher, Program
from rtorrent import Rtorrent
from steps import overflow, pack, pattern, paused, remaining, seed
from torrents import Torrent, make, single, twin_of

ASKED, SAVED = "asked", "by its saves"
GRACE = ("-r", "--grace", "0.5")
OTHERS = [pack("bystander"), pack("another")]


class Story:
    """A real rtorrent with two other torrents, and rtwatch, which asks it or has to wait for its saves."""

    def __init__(self, rtorrent: Rtorrent, launcher: Launcher, mode: str) -> None:
        """Seed the others."""
        self.rtorrent, self.launcher, self.mode = rtorrent, launcher, mode
        self.options = (*GRACE, *(() if mode == ASKED else ("--scgi", "none")))
        self.data = rtorrent.downloads / "data"
        self.elsewhere = rtorrent.downloads / "elsewhere"
        self.elsewhere.mkdir()
        self.kept = seed(rtorrent, rtorrent.downloads, *OTHERS)

    def start(self, *options: str) -> Program:
        """Start rtwatch."""
        return self.launcher.start(*self.options, *options)

    def save_when_waited_for(self, program: Program, *torrents: Torrent, since: int = 0) -> None:
        """Let rtorrent save its session once rtwatch waits for that; where it asks, that is not needed."""
        if self.mode == SAVED:
            for torrent in torrents:
                program.wait_line(rf"waiting .*({pattern(torrent)}|and \d+ more).*next save", since)
            self.rtorrent.save_all()

    def erase(self, program: Program, *torrents: Torrent) -> None:
        """Erase torrents, and wait until rtwatch has finished them."""
        since = len(program.lines)
        self.rtorrent.erase(*torrents)
        self.save_when_waited_for(program, *torrents, since=since)
        for torrent in torrents:
            program.wait_gone(torrent.hash)


@pytest.fixture(params=[ASKED, SAVED])
def story(request: pytest.FixtureRequest, rtorrent: Rtorrent, real_launcher: Launcher) -> Iterator[Story]:
    """Give a story; the data of its other torrents must be there in the end."""
    story = Story(rtorrent, real_launcher, request.param)
    yield story
    assert remaining(story.kept) == story.kept


def point(story: Story, torrent: Torrent, directory: Path) -> None:
    """Point a torrent at data elsewhere and let it be checked there; rtorrent does not save that."""
    story.rtorrent.call("d.stop", torrent.hash)
    story.rtorrent.call("d.close", torrent.hash)
    story.rtorrent.set_directory(torrent, directory)
    story.rtorrent.call("d.check_hash", torrent.hash)
    story.rtorrent.wait_complete(torrent)


def test_an_erased_torrent_goes_with_what_only_it_used(story: Story) -> None:
    first, second = make(b"pack", {(b"a",): b"a" * 99, (b"b",): b"b" * 99}), make(b"pack", {(b"a",): b"a" * 99})
    files = seed(story.rtorrent, story.data, first)
    seed(story.rtorrent, story.data, second)
    program = story.start()
    story.erase(program, first)
    assert remaining(files) == files[:1]
    story.erase(program, second)
    assert not story.data.joinpath("pack").exists()
    assert len([line for line in program.lines if "waiting" in line]) == (0 if story.mode == ASKED else 2)


def test_a_twin_pointed_at_the_data_in_the_grace_keeps_it(story: Story) -> None:
    torrent, twin = pack("pack"), twin_of(pack("pack"))
    files = seed(story.rtorrent, story.data, torrent)
    program = story.start()
    story.rtorrent.erase(torrent)
    story.rtorrent.add(twin, story.elsewhere)
    point(story, twin, story.data)
    story.save_when_waited_for(program, torrent)
    program.wait_gone(torrent.hash)
    assert remaining(files) == files


@pytest.mark.parametrize("copy", ["full", "sparse"])
def test_a_twin_with_a_copy_of_its_own_pointed_at_the_data_before_the_erase_keeps_it(story: Story, copy: str) -> None:
    torrent, twin = pack("pack"), twin_of(pack("pack"))
    files = seed(story.rtorrent, story.data, torrent)
    copies = seed(story.rtorrent, story.elsewhere, twin)
    program = story.start()
    if copy == "sparse":
        for path in copies:
            size = path.stat().st_size
            os.truncate(path, 0)
            os.truncate(path, size)
    point(story, twin, story.data)
    story.erase(program, torrent)
    assert remaining(files) == files


def delete_as_a_walk_on_xfs(rtorrent: Rtorrent, torrent: Torrent) -> None:
    """Delete the session files in the order of an erase."""
    for path in rtorrent.files(torrent):
        path.unlink()


def delete_t(rtorrent: Rtorrent, torrent: Torrent) -> None:
    """Delete T alone."""
    rtorrent.file(torrent).unlink()


def move_away(rtorrent: Rtorrent, torrent: Torrent) -> None:
    """Move all session files into a subdirectory."""
    (rtorrent.path / "old").mkdir()
    for path in rtorrent.files(torrent):
        path.rename(rtorrent.path / "old" / path.name)


@pytest.mark.parametrize("lose", [delete_as_a_walk_on_xfs, delete_t, move_away])
@pytest.mark.parametrize("when", ["seen", "in an overflow", "while rtwatch is down"])
def test_session_files_that_somebody_deletes_cost_no_data(
    story: Story, lose: Callable[[Rtorrent, Torrent], None], when: str
) -> None:
    torrent, gone = pack("pack"), pack("gone")
    files = seed(story.rtorrent, story.data, torrent)
    erased = seed(story.rtorrent, story.data, gone)
    program = story.start()
    if when == "while rtwatch is down":
        program.stop()
        lose(story.rtorrent, torrent)
        program = story.start("--catch-up")
    elif when == "seen":
        lose(story.rtorrent, torrent)
    else:
        with paused(program):
            lose(story.rtorrent, torrent)
            overflow(story.rtorrent)
    story.rtorrent.erase(gone)
    story.save_when_waited_for(program, gone)
    program.wait_gone(gone.hash)
    # where rtorrent is asked for it, it comes back
    program.wait_line(f"{'returned' if story.mode == ASKED else 'held'} .*{pattern(torrent)}")
    assert remaining(files) == files
    assert not remaining(erased)


def test_a_directory_edited_in_r_while_nothing_runs_is_followed(story: Story) -> None:
    torrent, twin = pack("pack"), twin_of(pack("pack"))
    files = seed(story.rtorrent, story.data, torrent)
    seed(story.rtorrent, story.elsewhere, twin)
    program = story.start()
    program.stop()
    story.rtorrent.shutdown()
    resume = bencodepy.decode(story.rtorrent.file(twin, "R").read_bytes())
    resume[b"directory"] = os.fsencode(twin.root(story.data))
    story.rtorrent.file(twin, "R").write_bytes(bencodepy.encode(resume))
    story.rtorrent.start()
    program = story.start()
    story.erase(program, torrent)
    assert remaining(files) == files


def test_a_directory_edited_in_r_while_rtwatch_runs_is_followed(story: Story) -> None:
    torrent, twin = pack("pack"), twin_of(pack("pack"))
    files = seed(story.rtorrent, story.data, torrent)
    seed(story.rtorrent, story.elsewhere, twin)
    story.rtorrent.shutdown()
    program = story.start()
    resume = bencodepy.decode(story.rtorrent.file(twin, "R").read_bytes())
    resume[b"directory"] = os.fsencode(twin.root(story.data))
    story.rtorrent.file(twin, "R").write_bytes(bencodepy.encode(resume))
    program.wait_files(twin.hash, files)


def test_a_torrent_loaded_again_while_it_waits_or_is_edited_loses_nothing(story: Story) -> None:
    torrent = pack("pack")
    files = seed(story.rtorrent, story.data, torrent)
    program = story.start()
    story.rtorrent.erase(torrent)
    if story.mode == SAVED:
        program.wait_line("waiting .*next save")
    story.rtorrent.add(torrent, story.data)
    program.wait_line("returned")
    story.erase(program, OTHERS[0])
    story.kept = story.kept[2:]
    assert remaining(files) == files


def test_an_rtorrent_that_ends_in_order_has_given_its_word(story: Story) -> None:
    torrent = pack("pack")
    files = seed(story.rtorrent, story.data, torrent)
    program = story.start("--scgi", "none")
    story.rtorrent.erase(torrent)
    story.rtorrent.shutdown()
    program.wait_gone(torrent.hash)
    assert not remaining(files)


def test_an_rtorrent_that_was_restarted_in_order_has_given_its_word(story: Story) -> None:
    torrent = pack("pack")
    files = seed(story.rtorrent, story.data, torrent)
    program = story.start("--scgi", "none")
    story.rtorrent.erase(torrent)
    story.rtorrent.shutdown()
    program.stop()
    story.rtorrent.start()
    program = story.start()
    story.save_when_waited_for(program, torrent)
    program.wait_gone(torrent.hash)
    assert not remaining(files)


def test_after_a_kill_the_files_stay_until_they_are_forced(story: Story) -> None:
    torrent = pack("pack")
    files = seed(story.rtorrent, story.data, torrent)
    program = story.start("--scgi", "none")
    story.rtorrent.erase(torrent)
    program.wait_line("vanished")
    story.rtorrent.kill()
    story.rtorrent.start()
    program.stop()
    program = story.start()
    program.wait_line(f"held .*{pattern(torrent)}: no rtorrent that ran when it vanished")
    command = program.wait_line("rtwatch --once --force.*")[0].split("rtwatch ", 1)[1].split()
    assert remaining(files) == files
    program.stop()
    if story.mode == SAVED:
        story.rtorrent.save_all()
    result = story.launcher.run(*command[:-1], *story.options)
    assert not remaining(files), result.stderr


def test_a_lock_that_somebody_deletes_changes_nothing(story: Story) -> None:
    torrent, twin = pack("pack"), twin_of(pack("pack"))
    files = seed(story.rtorrent, story.data, torrent)
    seed(story.rtorrent, story.elsewhere, twin)
    program = story.start()
    story.rtorrent.lock.unlink()
    point(story, twin, story.data)
    story.erase(program, torrent)
    assert remaining(files) == files


def test_many_erased_at_once_are_all_removed(story: Story) -> None:
    torrents = [single(f"number{number}", 100) for number in range(30)]
    files = seed(story.rtorrent, story.data, *torrents)
    program = story.start()
    story.erase(program, *torrents)
    assert not remaining(files)


def test_torrents_of_equal_names_keep_nothing_of_each_other(story: Story) -> None:
    disc = {(b"VIDEO_TS", b"VIDEO_TS.IFO"): b"i" * 999, (b"VIDEO_TS", b"VTS_01_1.VOB"): b"v" * 9999}
    first, second, third = (
        make(f"disc {number}".encode(), {path: data + bytes([number]) for path, data in disc.items()})
        for number in range(3)
    )
    files = seed(story.rtorrent, story.data, first, second)
    story.rtorrent.add(third, story.elsewhere)
    program = story.start()
    story.erase(program, first, second)
    assert not remaining(files)


def test_a_torrent_that_rtorrent_refuses_blocks_nothing_and_keeps_its_files(story: Story) -> None:
    refused = make(b"refused", {(b"a",): b"a" * 99, (b"both",): b"both" * 99})
    torrent = make(b"refused", {(b"both",): b"both" * 99})
    files = seed(story.rtorrent, story.data, refused)
    seed(story.rtorrent, story.data, torrent)
    t_data = story.rtorrent.file(refused).read_bytes()
    r_data = story.rtorrent.file(refused, "R").read_bytes()
    story.rtorrent.shutdown()
    for kind in "TRL":
        story.rtorrent.file(refused, kind).unlink()
    story.rtorrent.start()
    story.rtorrent.file(refused).write_bytes(t_data)
    resume = story.rtorrent.file(refused, "R")
    resume.write_bytes(r_data)
    os.utime(resume, (1.6e9, 1.6e9))
    program = story.start()
    story.erase(program, torrent)
    assert remaining(files) == files


def test_a_view_that_hides_torrents_hides_no_file(story: Story) -> None:
    torrent, twin = pack("pack"), twin_of(pack("pack"))
    files = seed(story.rtorrent, story.data, torrent)
    seed(story.rtorrent, story.elsewhere, twin)
    program = story.start()
    for view in ("main", "default"):
        story.rtorrent.call("view.filter", "", view, "false=")
    point(story, twin, story.data)
    story.erase(program, torrent)
    assert remaining(files) == files


def test_an_open_file_that_no_torrent_lists_is_kept(story: Story, tmp_path: Path) -> None:
    torrent, twin = pack("pack"), twin_of(pack("pack"))
    files = seed(story.rtorrent, story.data, torrent)
    program = story.start()
    with Rtorrent(tmp_path / "second", version=story.rtorrent.version) as second:
        second.add(twin, story.data)
        second.call("d.open", twin.hash)
        story.rtorrent.erase(torrent)
        story.save_when_waited_for(program, torrent)
        program.wait_line("waiting .*close files")
        assert remaining(files) == files
