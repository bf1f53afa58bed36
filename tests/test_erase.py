"""Whether a vanished torrent was erased, and where the others are: told by the real rtorrent, asked or by its saves.

Every story runs on both versions, with rtorrent's SCGI socket and without one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from program import Argument, Program
from rtorrent import Rtorrent, wait_until
from steps import PACK, TWIN, Bed, each_row, names, overflow, pack, pattern, paused, play, remaining
from torrents import Torrent, make, single, twin_of

ASKED, SAVED = "asked", "by its saves"
GRACE = ("-r", "--grace", "0.5")
OTHERS = [pack("bystander"), pack("another")]


class Story(Bed):
    """A real rtorrent with PACK and two other torrents, and rtwatch, which asks it or has to wait for its saves."""

    def __init__(self, rtorrent: Rtorrent, place: Path, mode: str) -> None:
        """Seed the others."""
        super().__init__(rtorrent, place)
        self.real, self.mode, self.place = rtorrent, mode, place
        self.options = (*GRACE, *(() if mode == ASKED else ("--scgi", "none")))
        self.elsewhere = place / "elsewhere"
        self.elsewhere.mkdir()
        self.kept, self.files = self.seed(*OTHERS, to=place / "others"), self.seed(PACK)

    def start(self, *options: Argument, **more: Any) -> Program:
        """Start rtwatch."""
        return super().start(*self.options, *options, **more)

    def save_when_waited_for(self, *torrents: Torrent, since: int = 0) -> None:
        """Let rtorrent save its session once rtwatch waits for that; where it asks, that is not needed."""
        if self.mode == SAVED:
            for torrent in torrents:
                self.program.wait_line(rf"waiting .*({pattern(torrent)}|and \d+ more).*next save", since)
            self.real.save_all()

    def erase(self, *torrents: Torrent) -> None:
        """Erase torrents, and wait until rtwatch has finished them."""
        since = len(self.program.lines)
        self.real.erase(*torrents)
        self.save_when_waited_for(*torrents, since=since)
        for torrent in torrents:
            self.program.wait_gone(torrent.hash)


@pytest.fixture(params=[ASKED, SAVED])
def story(request: pytest.FixtureRequest, rtorrent: Rtorrent, tmp_path: Path) -> Iterator[Story]:
    """Give a story; the data of its other torrents must be there in the end."""
    with closing(Story(rtorrent, tmp_path, request.param)) as story:
        yield story
        assert remaining(story.kept) == story.kept


def test_torrents_erased_together_in_the_middle_of_saves_all_go(story: Story) -> None:
    torrents, others = ([single(f"{word} {number}", 100) for number in range(40)] for word in ("erased", "other"))
    files = story.seed(*torrents)
    story.kept += story.seed(*others)
    story.start(*story.hooks)
    erasing = [("d.erase", torrent.hash) for torrent in torrents]
    story.real.multicall(("session.save",), *erasing[:20], ("session.save",), *erasing[20:])
    for _ in range(10 if story.mode == SAVED else 0):  # a grace that is not over at a save waits for the next one
        if wait_until(lambda: not remaining(files), 4):
            break
        story.real.save_all()
    for torrent in torrents:
        story.wait_called("post_remove", torrent)
    hooks = [call["hook"] for call in story.calls() if call["hash"]]
    assert sorted(hooks) == ["post_remove"] * 40 + ["pre_remove"] * 40


POINTED = [
    *("empty files", "never started", "another name", "a full copy", "a sparse copy"),
    *("in the grace", "the lock is deleted", "views hide all torrents"),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", POINTED)
def test_files_that_a_torrent_was_pointed_at_without_a_save_are_kept(story: Story, case: str) -> None:
    rtorrent = story.real
    twin = twin_of(PACK, b"another name" if case == "another name" else None)
    copies = twin.places(story.elsewhere)
    program = story.start(*(("--grace", "3") if case == "in the grace" else ()))
    if "copy" in case:
        story.seed(twin, to=story.elsewhere)
        for path in copies if case == "a sparse copy" else ():
            size = path.stat().st_size
            os.truncate(path, 0)
            os.truncate(path, size)
    else:
        rtorrent.add(twin, start=case != "never started", directory=story.elsewhere)
    if case != "never started":
        program.wait_for(lambda: remaining(copies) == copies, "rtorrent creates no files")
        rtorrent.wait_checked(twin)
        for method in "d.stop", "d.close":
            rtorrent.call(method, twin.hash)
    if case == "in the grace":
        rtorrent.erase(PACK)
        program.wait_line("vanished")
    elif case == "the lock is deleted":
        rtorrent.lock.unlink()
    elif case == "views hide all torrents":
        for view in "main", "default":
            rtorrent.call("view.filter", "", view, "false=")
    rtorrent.set_directory_base(twin, PACK.root(story.downloads))
    rtorrent.call("d.check_hash", twin.hash)
    rtorrent.wait_complete(twin)
    if case != "in the grace":
        rtorrent.erase(PACK)
    story.save_when_waited_for(PACK)
    program.wait_gone(PACK.hash)
    program.wait_line(names(twin, "(also|perhaps) in"))
    assert remaining(story.files) == story.files == rtorrent.used(twin)
    rtorrent.save(twin)
    program.wait_files(twin.hash, story.files)
    story.erase(twin)
    assert remaining(story.files) == []


BY_HAND = {  # $A and $B are names of T; find deletes in the order of the directory
    "everything": "rm *",
    "everything, in the order of the directory": "find . -type f -delete",
    "T of all": "rm *.torrent",
    "two, kind by kind": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end $B$end; done",
    "one, slowly": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end; sleep 1.2; done",
    "one, T first": "for end in '' .libtorrent_resume .rtorrent; do rm $A$end; done",
    "T of one": "rm $A",
    "everything moved away": "mv * ..",
    "one moved away": "mv $A* ..",
    "one moved below": "mkdir old; mv $A* old",
    "T of one moved away": "mv $A ..",
    "one renamed": "for file in $A*; do mv $file old-$file; done",
    "the directory, made again": "dir=$PWD; rm -r $dir; mkdir $dir",
    "one, in an overflow": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end; done",
    "one, while rtwatch is down": "for end in .libtorrent_resume .rtorrent ''; do rm $A$end; done",
    "T of one, while rtwatch is down": "rm $A",
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", BY_HAND)
def test_session_files_that_somebody_takes_away_cost_no_data(story: Story, case: str) -> None:
    rtorrent, lost, gone = story.real, [pack("lost"), pack("lost too")], pack("gone")
    files = story.seed(*lost)
    shell = ["env", *(f"{key}={rtorrent.file(torrent).name}" for key, torrent in zip("AB", lost)), "sh", "-ec"]
    program = story.start(*story.hooks)
    down = "down" in case
    if down:
        program.stop()
    with nullcontext() if down or "slowly" in case or "made again" in case else paused(program):
        subprocess.run([*shell, BY_HAND[case]], cwd=rtorrent.path, check=True)
        if "overflow" in case:
            overflow(rtorrent)
    if "made again" in case:
        assert program.wait() == 1
    if down or "made again" in case:
        program = story.start("--catch-up", *story.hooks)
    erased = story.download(gone)
    story.erase(gone)
    # A torrent whose session files rtwatch asks rtorrent to save comes back.
    back, status = ("returned", 0) if story.mode == ASKED else ("held", 3)
    program.wait_line(rf"{back} .*({pattern(lost[0])}|and \d+ more)")
    assert program.stop() == 0
    assert story.once(*story.options, "--catch-up", "--force").returncode == status
    assert remaining(files) == files
    assert not remaining(erased)
    assert [call["hash"] for call in story.calls() if "remove" in call["hook"]] == [gone.hash] * 2
    rtorrent.save_full(*lost)
    program = story.start()
    story.erase(lost[0])
    assert remaining(files) == files[2:]


def test_an_rtorrent_without_a_lock_is_believed(story: Story) -> None:
    story.real.shutdown()
    with story.real.configuration.open("a") as configuration:
        configuration.write("session.use_lock.set = no\n")
    story.real.start()
    program = story.start()
    assert not story.real.lock.exists()
    story.erase(PACK)
    assert not remaining(story.files)
    assert sum("waiting" in line for line in program.lines) == (story.mode == SAVED)


TORRENTS = {
    **{"PACK": PACK, "TWIN": TWIN},
    **{
        f"DISC{n}": make(b"disc%d" % n, {(b"VIDEO_TS", b"A.IFO"): b"%d" % n, (b"VIDEO_TS", b"A.VOB"): b"v"})
        for n in range(3)
    },
    "REFUSED": make(b"refused", {(b"a",): b"a" * 99, (b"both",): b"both" * 99}),
    "BOTH": make(b"refused", {(b"both",): b"both" * 99}),
}
THERE = "data TWIN ../elsewhere/downloads; end-rtorrent; move-home ../elsewhere; start-rtorrent; start"
EDIT = f"cd ../rtorrent/session && cp {PACK.hash}.torrent.rtorrent {TWIN.hash}.torrent.rtorrent"
MOVED = f"erase PACK; says {names(TWIN)}; ls ../elsewhere/downloads/pack/*"
# What happens, and what becomes of the files of PACK.
STORIES = """
an rtorrent that ends in order has given its word: start --scgi none; erase-unwaited PACK; end-rtorrent; gone PACK
    -> gone
one that erases as it ends: start --scgi none; end-rtorrent PACK; gone PACK -> gone
one whose end is read later: start --scgi none; pause; erase-unwaited PACK; end-rtorrent; resume; gone PACK -> gone
one that is restarted: start --scgi none; erase-unwaited PACK; end-rtorrent; start-rtorrent; says waiting .*pack;
    is-noted; save-all; gone PACK -> gone
one that is killed, forced: start --scgi none; erase-unwaited PACK; says vanished; kill-rtorrent;
    says held .*pack: no rtorrent that ran at that time; test -e pack; stop; once --force; exits 0 -> gone
one that is killed and restarted, forced: start --scgi none; erase-unwaited PACK; says vanished; kill-rtorrent;
    start-rtorrent; stop; start; says held .*pack: no rtorrent that ran at that time; test -e pack; stop; save-all;
    once --force --grace=0; exits 0 -> gone
a relative directory, looked at again at another start: {THERE}; load-raw TWIN downloads;
    lists TWIN ../elsewhere/downloads; end-rtorrent; move-home ..; start-rtorrent; {MOVED} -> kept
a directory at home, looked at again at another start: {THERE}; load-raw TWIN ~/downloads;
    lists TWIN ../elsewhere/downloads; end-rtorrent; move-home ..; start-rtorrent; {MOVED} -> kept
a relative directory, looked at again as rtorrent says another: {THERE}; load-raw TWIN downloads;
    lists TWIN ../elsewhere/downloads; call system.cwd.set ..; {MOVED} -> kept
a directory edited in R while rtorrent is down: seed TWIN ../elsewhere; start; end-rtorrent; {EDIT}; lists TWIN .;
    start-rtorrent; erase PACK -> kept
a directory edited in R while nothing runs: seed TWIN ../elsewhere; start; stop; end-rtorrent; {EDIT}; start;
    lists TWIN .; start-rtorrent; erase PACK -> kept
a torrent loaded again while it waits: seed DISC0; start --scgi none; erase-unwaited PACK; says waiting .*next save;
    load PACK; says returned; erase-unwaited DISC0; says waiting .*disc0; save-all; gone DISC0 -> kept
torrents of equal names keep nothing of each other: seed DISC0 DISC1; load DISC2 ../elsewhere; start; erase DISC0 DISC1;
    test ! -e disc0 && test ! -e disc1 -> kept
a torrent that rtorrent refuses blocks nothing and keeps its files: seed REFUSED; seed BOTH; end-rtorrent;
    mv ../rtorrent/session/{REFUSED}* ../elsewhere; start-rtorrent; touch -d 2020-01-01 ../elsewhere/*;
    mv ../elsewhere/* ../rtorrent/session; start; erase BOTH; cat refused/a refused/both -> kept
"""


@pytest.mark.sampled(2)
@each_row("text end", STORIES, "(.*?): (.*) -> (gone|kept)")
def test_what_an_rtorrent_has_said_counts(story: Story, text: str, end: str) -> None:
    play(story, text.format(REFUSED=TORRENTS["REFUSED"].hash, THERE=THERE, EDIT=EDIT, MOVED=MOVED), **TORRENTS)
    assert remaining(story.files) == (story.files if end == "kept" else [])


def test_an_open_file_that_no_torrent_lists_is_kept(story: Story, tmp_path: Path) -> None:
    program = story.start()
    with Rtorrent(tmp_path / "second", version=story.real.version) as second:
        second.add(TWIN, story.downloads)
        second.call("d.open", TWIN.hash)
        story.real.erase(PACK)
        story.save_when_waited_for(PACK)
        program.wait_line("waiting .*close files")
        assert remaining(story.files) == story.files
