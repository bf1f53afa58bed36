"""Whether a vanished torrent was erased, by rtorrent's answer or its saves; held torrents, and what forces them."""

import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from program import Argument, Program, run
from rtorrent import Rtorrent, wait_until
from steps import PACK, SHORT, TWIN, Bed, Options, each_row, names, pattern, play, remaining
from torrents import Torrent, make, multi, single, twin_of

ASKED, SAVED = "asked", "by its saves"
GRACE = ("-r", "--grace", "0.5")
OTHERS = [multi("bystander"), multi("another")]


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


COPY = "seed TWIN ../elsewhere"
STOP = "wait-checked TWIN; call d.stop TWIN; call d.close TWIN"
STARTED = f"load TWIN ../elsewhere; call d.start TWIN; exists ../elsewhere/pack/sub/b.bin; {STOP}"
POINT = "set-directory-base TWIN base={0}; call d.check_hash TWIN; wait-complete TWIN"
POINTED = f"""
empty files: start; {STARTED}; {POINT}; erase-unwaited PACK
never started: start; load TWIN ../elsewhere; {POINT}; erase-unwaited PACK
another name: start; {STARTED.replace("/pack/", "/another/").replace("TWIN", "NAMED")};
    {POINT.replace("TWIN", "NAMED")}; erase-unwaited PACK
a full copy: start; {COPY}; {STOP}; {POINT}; erase-unwaited PACK
a sparse copy: start; {COPY}; cd ../elsewhere/pack && truncate -s 0 *.bin */*.bin && truncate -s 400 a.bin &&
    truncate -s 800 sub/b.bin; {STOP}; {POINT}; erase-unwaited PACK
in the grace: start --grace=3; {STARTED}; erase-unwaited PACK; says vanished; {POINT}
the lock is deleted: start; {STARTED}; rm ../rtorrent/session/rtorrent.lock; {POINT}; erase-unwaited PACK
views hide all torrents: start; {STARTED}; call view.filter main false=; call view.filter default false=; {POINT};
    erase-unwaited PACK
"""


@pytest.mark.sampled(2)
@each_row("text", POINTED)
def test_files_that_a_torrent_was_pointed_at_without_a_save_are_kept(story: Story, text: str) -> None:
    torrents = {"PACK": PACK, "TWIN": TWIN, "NAMED": twin_of(PACK, b"another")}
    twin = torrents["NAMED" if "NAMED" in text else "TWIN"]
    play(story, text.format(PACK.root(story.downloads)) + "; save-when-waited-for PACK; gone PACK", **torrents)
    story.program.wait_line(names(twin, "(also|perhaps) in"))
    assert remaining(story.files) == story.files == story.real.used(twin)
    story.real.save(twin)
    story.program.wait_files(twin.hash, story.files)
    story.erase(twin)
    assert remaining(story.files) == []


GO = "cd ../rtorrent/session && A={0}.torrent B={1}.torrent &&"
EACH = "for end in .libtorrent_resume .rtorrent '';do"
BY_HAND = f"""
everything: pause; {GO} rm *; resume
everything, in the order of the directory: pause; {GO} find . -type f -delete; resume
T of all: pause; {GO} rm *.torrent; resume
two, kind by kind: pause; {GO} {EACH} rm $A$end $B$end;done; resume
one, slowly: {GO} {EACH} rm $A$end;sleep 1.2;done
one, T first: pause; {GO} for end in '' .libtorrent_resume .rtorrent;do rm $A$end;done; resume
T of one: pause; {GO} rm $A; resume
everything moved away: pause; {GO} mv * ..; resume
one moved away: pause; {GO} mv $A* ..; resume
one moved below: pause; {GO} mkdir old;mv $A* old; resume
T of one moved away: pause; {GO} mv $A ..; resume
one renamed: pause; {GO} for file in $A*;do mv $file old-$file;done; resume
the directory, made again: {GO} dir=$PWD;rm -r $dir;mkdir $dir; exits 1; start {{2}} --catch-up
one, in an overflow: pause; {GO} {EACH} rm $A$end;done; overflow; resume
one, while rtwatch is down: stop; {GO} {EACH} rm $A$end;done; start {{2}} --catch-up
T of one, while rtwatch is down: stop; {GO} rm $A; start {{2}} --catch-up
"""


@pytest.mark.sampled(4)
@each_row("text", BY_HAND)
def test_session_files_that_somebody_takes_away_cost_no_data(story: Story, text: str) -> None:
    lost, gone = [multi("lost"), multi("lost too")], multi("gone")
    files, hooks = story.seed(*lost), f"--hooks={story.hooks[1]}"
    play(story, f"start {hooks}; {text}".format(*(torrent.hash for torrent in lost), hooks))
    erased = story.download(gone)
    story.erase(gone)
    # A torrent whose session files rtwatch asks rtorrent to save comes back.
    back, status = ("returned", 0) if story.mode == ASKED else ("held", 3)
    story.program.wait_line(rf"{back} .*({pattern(lost[0])}|and \d+ more)")
    assert story.program.stop() == 0
    assert story.once(*story.options, "--catch-up", "--force").returncode == status
    assert remaining(files) == files
    assert not remaining(erased)
    assert [call["hash"] for call in story.calls() if "remove" in call["hook"]] == [gone.hash] * 2
    story.real.save_full(*lost)
    story.start()
    story.erase(lost[0])
    assert remaining(files) == files[2:]


TORRENTS = {
    **{
        f"DISC{n}": make(b"disc%d" % n, {(b"VIDEO_TS", b"A.IFO"): b"%d" % n, (b"VIDEO_TS", b"A.VOB"): b"v"})
        for n in range(3)
    },
    "REFUSED": make(b"refused", {(b"a",): b"a" * 99, (b"both",): b"both" * 99}),
    "BOTH": make(b"refused", {(b"both",): b"both" * 99}),
}
THERE = "data TWIN ../elsewhere/downloads; end-rtorrent; move-home ../elsewhere; start-rtorrent; start"
EDIT = f"cd ../rtorrent/session && cp {PACK.hash}.torrent.rtorrent {TWIN.hash}.torrent.rtorrent"
EMPTY = f"rm ../rtorrent/session/{PACK.hash}*"
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
one without a lock is believed: end-rtorrent; echo session.use_lock.set = no >>../rtorrent/rtorrent.rc; start-rtorrent;
    start; test ! -e ../rtorrent/session/rtorrent.lock; erase PACK -> gone
one that is restarted with an emptied session while rtwatch is stopped: start; pause; end-rtorrent; {EMPTY};
    start-rtorrent; resume; says held .*pack: no rtorrent that ran at that time -> kept
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
    words = {"REFUSED": TORRENTS["REFUSED"].hash, "THERE": THERE, "EDIT": EDIT, "EMPTY": EMPTY, "MOVED": MOVED}
    play(story, text.format(**words), **TORRENTS)
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


OTHER = multi("other")


def singles(count: int, name: str = "number") -> list[Torrent]:
    """Make some small torrents."""
    return [single(f"{name}{number:03}", 20) for number in range(count)]


@pytest.mark.parametrize("options", [(), ("--catch-up",)], ids=["", "--catch-up"])
@pytest.mark.parametrize("number", [3, 12])
def test_a_wiped_session_is_held_until_forced(number: int, options: Options, bed: Bed, trash: Path) -> None:
    paths = bed.seed(*singles(number))
    others = bed.seed(single("outside"), to=bed.downloads.with_name("outside"))
    assert bed.once().returncode == 0
    bed.session.erase(*singles(number), single("outside"))
    others += bed.seed(single("stays"))
    options = (*SHORT, *options, "--trash", str(trash))
    program = bed.start(*options, *bed.hooks, bed.downloads)
    program.wait_line(f"held .*{number + 1} of {number + 2} torrents missing")
    others += bed.download(*singles(number + 2, "new"))
    bed.erase_another()
    program.stop()
    assert bed.once(*options, bed.downloads).returncode == 3
    assert remaining(paths + others) == paths + others
    program = bed.start(*options, bed.downloads)
    _, *command = shlex.split(program.wait_line("rtwatch --once --force.*")[0])
    program.stop()
    assert run(*command, state=bed.state).returncode == 0
    assert remaining(paths + others) == others
    assert len(list(trash.glob("*/number*.bin"))) == number


@pytest.mark.parametrize("number", [10, 11])
def test_without_r_a_mass_of_erased_torrents_only_waits(number: int, bed: Bed) -> None:
    paths = bed.seed(*singles(number))
    program = bed.start(*SHORT[1:], "--scgi", "none")
    play(bed, "pause")
    bed.session.erase(*singles(number))
    play(bed, "resume")
    if number > 10:
        bed.let_save()
    program.wait_rows("SELECT count(*) FROM torrent_data", [(number - 10,)].__eq__)
    assert ("waiting" in program.output) == (number > 10)
    assert remaining(paths) == paths


NUMBERED = {f"N{number}": torrent for number, torrent in enumerate(singles(11))}
FEW, MANY = " ".join([*NUMBERED][:10]), " ".join(NUMBERED)
WITHOUT_T = "start --scgi none; load-unsaved TWIN; save TWIN"
RM = f"rm ../session/{PACK.hash}*"
GONE = "says held .*pack: no rtorrent that ran at that time; settle; cat pack/a.bin pack/sub/b.bin"
HELD_STORIES = f"""
a mass, as nobody knows which rtorrent has said it: seed {MANY}; rm ../session/rtorrent.lock; start --scgi none; pause;
    erase-unwaited {MANY}; resume; let-save; says held .*so many at once; test $(ls number* | wc -l) = 11; stop;
    once -r --grace=0.2 --force; exits 0; left
no mass, as they are ten: seed {FEW}; rm ../session/rtorrent.lock; start --scgi none; pause; erase-unwaited {FEW};
    resume; let-save; gone N9; says-no so many at once; left
forced with -r: seed PACK; start; kill-rtorrent; {RM}; says held .*pack; stop; start-rtorrent;
    once -r --grace=0.2 --force; exits 0; left; known-torrents 0
forced without -r: seed PACK; start; kill-rtorrent; {RM}; says held .*pack; stop; start-rtorrent;
    once --grace=0.2 --force; exits 0; left pack/a.bin pack/sub/b.bin; known-torrents 0
not forced, as session files are there: seed PACK; start; kill-rtorrent; rm ../session/{PACK.hash}.torrent; says held
    .*pack; stop; start-rtorrent; once -r --grace=0.2 --force; exits 3; left pack/a.bin pack/sub/b.bin; known-torrents 1
held as the session directory was gone, though rtorrent answers: seed PACK; start --grace=600; vanish PACK; stop;
    change-db UPDATE rtwatch_torrent SET held = 'away' WHERE vanished; once -r --grace=0.2; exits 3;
    left pack/a.bin pack/sub/b.bin; once -r --grace=0.2 --force; exits 0; left
held with all others, as a loaded one has no T: seed PACK OTHER; {WITHOUT_T}; erase-unwaited PACK OTHER; let-save;
    says held .*other.*: the .torrent of another; stop; once -r --grace=0.2 --scgi none --force; exits 3;
    left other/a.bin other/sub/b.bin pack/a.bin pack/sub/b.bin; save-full TWIN; start --scgi none; gone PACK;
    gone OTHER; left pack/a.bin pack/sub/b.bin
kept alone, as a loaded one has an empty T: seed PACK OTHER; {WITHOUT_T}; touch t; mv t ../session/{TWIN.hash}.torrent;
    erase-unwaited PACK OTHER; let-save; gone PACK; gone OTHER; left pack/a.bin pack/sub/b.bin
kept alone, as a loaded one has a T that is cut short: seed PACK OTHER; {WITHOUT_T}; printf d4:info >t;
    mv t ../session/{TWIN.hash}.torrent; erase-unwaited PACK OTHER; let-save; gone PACK; gone OTHER;
    left pack/a.bin pack/sub/b.bin
kept for a link made under a loaded torrent whose T was deleted: seed PACK real; seed TWIN; start --scgi none;
    rm ../session/{TWIN.hash}.torrent; says vanished; rm -r pack; cp -rs $PWD/real/pack .; erase-unwaited PACK;
    let-save; gone PACK; left pack/a.bin pack/sub/b.bin real/pack/a.bin real/pack/sub/b.bin
held as an R of the round of saves does not decode: seed OTHER; seed TWIN x; seed PACK; start --grace=600; vanish PACK;
    stop; point TWIN; save-all; save-on-full-disk TWIN kinds=R; once -r --grace=0.2 --scgi none; exits 3; save-all;
    once -r --grace=0.2 --scgi none; exits 0; cat pack/a.bin pack/sub/b.bin
not held beside the stub of a magnet link that was saved on a full disk: seed PACK; start; magnet STUB;
    save-on-full-disk STUB; settle; erase PACK; left
held as rtorrent was restarted twice, with an emptied session, while rtwatch was stopped: seed PACK; start; pause;
    end-rtorrent; start-rtorrent; end-rtorrent; {RM}; start-rtorrent; resume; {GONE}
held as the session was emptied before rtorrent was killed, all while rtwatch was stopped: seed PACK; start; pause;
    end-rtorrent; start-rtorrent; {RM}; kill-rtorrent; start-rtorrent; resume; {GONE}
held as rtorrent was restarted with an emptied session in an overflow: seed PACK; start; pause; overflow;
    end-rtorrent; {RM}; start-rtorrent; resume; {GONE}
held as the next rtorrent ended in order, not its own: seed PACK; start --scgi none; {RM}; says vanished; pause;
    kill-rtorrent; start-rtorrent; end-rtorrent; start-rtorrent; resume; {GONE}
held though a magnet link of it was erased since: seed PACK; start; kill-rtorrent; {RM}; says held .*pack;
    start-rtorrent; magnet PACK; settle; erase-unwaited PACK; seed OTHER; settle; erase OTHER; {GONE}
held as rtorrent had it again when it was killed: seed PACK OTHER; start; answers d.save_resume 0;
    answers d.save_full_session 0; point OTHER elsewhere; erase-unwaited PACK; says waiting .*where other;
    load-unsaved PACK; says waiting .*still has it; kill-rtorrent; start-rtorrent; {GONE}
held as its session files were moved away before rtorrent was killed: seed PACK OTHER; start;
    mv ../session/{PACK.hash}* ..; kill-rtorrent; start-rtorrent; settle; erase OTHER; {GONE}
held, its directory a link now: start; seed PACK; settle; kill-rtorrent; rm ../session/{PACK.hash}.torrent;
    says held .*pack; mv pack store; ln -s store pack; start-rtorrent; load-complete TWIN; settle; erase TWIN;
    cat pack/a.bin pack/sub/b.bin; says kept .*on the way to files in
"""


@each_row("story", HELD_STORIES)
def test_held_torrents_files_stay_until_they_are_forced(story: str, bed: Bed) -> None:
    play(bed, story, OTHER=OTHER, STUB=single("stub"), **NUMBERED)
