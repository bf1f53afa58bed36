"""Torrents that are missing at the start or vanish in a mass, those that rtwatch holds, and what lets them go."""

import shlex
from pathlib import Path

import pytest
from program import run
from steps import SHORT, Bed, Options, each_row, play, remaining
from torrents import Torrent, multi, single, twin_of

NOT_ASKED = ("--scgi", "none")
ONE, TWIN, OTHER = multi("one"), twin_of(multi("one")), multi("other")


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
    program = bed.start(*SHORT[1:], *NOT_ASKED)
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
STORIES = f"""
a mass, as nobody knows which rtorrent has said it: seed {MANY}; rm ../session/rtorrent.lock; start --scgi none; pause;
    erase-unwaited {MANY}; resume; let-save; says held .*so many at once; test $(ls number* | wc -l) = 11; stop;
    once -r --grace=0.2 --force; exits 0; left
no mass, as they are ten: seed {FEW}; rm ../session/rtorrent.lock; start --scgi none; pause; erase-unwaited {FEW};
    resume; let-save; gone N9; says-no so many at once; left
forced with -r: seed ONE; start; kill-rtorrent; rm ../session/{ONE.hash}*; says held .*one; stop; start-rtorrent;
    once -r --grace=0.2 --force; exits 0; left; known-torrents 0
forced without -r: seed ONE; start; kill-rtorrent; rm ../session/{ONE.hash}*; says held .*one; stop; start-rtorrent;
    once --grace=0.2 --force; exits 0; left one/a.bin one/sub/b.bin; known-torrents 0
not forced, as session files are there: seed ONE; start; kill-rtorrent; rm ../session/{ONE.hash}.torrent;
    says held .*one; stop; start-rtorrent; once -r --grace=0.2 --force; exits 3; left one/a.bin one/sub/b.bin;
    known-torrents 1
held as the session directory was gone, though rtorrent answers: seed ONE; start --grace=600; vanish ONE; stop;
    change-db UPDATE rtwatch_torrent SET held = 'away' WHERE vanished; once -r --grace=0.2; exits 3;
    left one/a.bin one/sub/b.bin; once -r --grace=0.2 --force; exits 0; left
held with all others, as a loaded one has no T: seed ONE OTHER; {WITHOUT_T}; erase-unwaited ONE OTHER; let-save;
    says held .*other.*: the .torrent of another; stop; once -r --grace=0.2 --scgi none --force; exits 3;
    left one/a.bin one/sub/b.bin other/a.bin other/sub/b.bin; save-full TWIN; start --scgi none; gone ONE; gone OTHER;
    left one/a.bin one/sub/b.bin
kept alone, as a loaded one has an empty T: seed ONE OTHER; {WITHOUT_T}; touch t; mv t ../session/{TWIN.hash}.torrent;
    erase-unwaited ONE OTHER; let-save; gone ONE; gone OTHER; left one/a.bin one/sub/b.bin
kept alone, as a loaded one has a T that is cut short: seed ONE OTHER; {WITHOUT_T}; printf d4:info >t;
    mv t ../session/{TWIN.hash}.torrent; erase-unwaited ONE OTHER; let-save; gone ONE; gone OTHER;
    left one/a.bin one/sub/b.bin
kept for a link made under a loaded torrent whose T was deleted: seed ONE real; seed TWIN; start --scgi none;
    rm ../session/{TWIN.hash}.torrent; says vanished; rm -r one; cp -rs $PWD/real/one .; erase-unwaited ONE; let-save;
    gone ONE; left one/a.bin one/sub/b.bin real/one/a.bin real/one/sub/b.bin
held as an R of the round of saves does not decode: seed OTHER; seed TWIN x; seed ONE; start --grace=600; vanish ONE;
    stop; point TWIN; save-all; save-on-full-disk TWIN kinds=R; once -r --grace=0.2 --scgi none; exits 3; save-all;
    once -r --grace=0.2 --scgi none; exits 0; cat one/a.bin one/sub/b.bin
not held beside the stub of a magnet link that was saved on a full disk: seed ONE; start; magnet STUB;
    save-on-full-disk STUB; settle; erase ONE; left
held, its directory a link now: start; seed ONE; settle; kill-rtorrent; rm ../session/{ONE.hash}.torrent;
    says held .*one; mv one store; ln -s store one; start-rtorrent; load-complete TWIN; settle; erase TWIN;
    cat one/a.bin one/sub/b.bin; says kept .*on the way to files in
"""


@each_row("story", STORIES)
def test_held_torrents_files_stay_until_they_are_forced(story: str, bed: Bed) -> None:
    play(bed, story, ONE=ONE, TWIN=TWIN, OTHER=OTHER, STUB=single("stub"), **NUMBERED)
