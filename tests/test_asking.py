"""rtorrent is asked before anything is removed: what is an answer, what is none, and what rtwatch asks for."""

import time
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from session import UNKNOWN, VERSIONS
from steps import PACK, SHORT, TWIN, Bed, bed_in, each_row, play, remaining
from torrents import make, single

ASKED_FOR = {"session.path", "system.pid", "system.env", "d.multicall2", "d.directory", "system.multicall"}
SAVES = {"d.save_resume", "d.save_full_session"}

pytestmark = pytest.mark.parametrize("version", VERSIONS)  # both orders of system calls

SPOILED: dict[str, Callable[[bytes], Optional[bytes]]] = {
    "none": lambda reply: None,
    "cut short": lambda reply: reply[: len(reply) // 2],
    "empty": lambda reply: b"",
    "with a document type": lambda reply: reply.replace(b"<methodResponse>", b"<!DOCTYPE a><methodResponse>"),
}
WRONG: dict[str, tuple[str, Any]] = {
    "of another session": ("session.path", "/tmp/"),
    "of another process": ("system.pid", 1),
    "of another type": ("d.multicall2", 5),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("answer", [*SPOILED, *WRONG, "not asked for"])
def test_what_is_no_good_answer_is_none_and_the_next_save_counts(answer: str, bed: Bed) -> None:
    asks = answer != "not asked for"
    play(bed, f"start {'' if asks else '--scgi=none'}; seed PACK; settle")
    bed.session.scgi.change = SPOILED.get(answer, bed.session.scgi.change)
    bed.session.scgi.answers.update([WRONG[answer]] if answer in WRONG else [])
    # What comes meanwhile is not kept waiting.
    play(bed, "erase-unwaited PACK; says waiting .*pack; settle; ls pack/a.bin pack/sub/b.bin")
    if answer == "none":
        bed.session.scgi.change = SPOILED["empty"]  # which does not take five seconds each time
    play(bed, "save-all; gone PACK; left")
    assert SAVES.isdisjoint(bed.session.asked)
    assert asks or "d.multicall2" not in bed.session.asked  # others look whose socket it is


def test_a_question_without_an_answer_ends_with_the_first_signal(files: list[Path], bed: Bed) -> None:
    bed.session.scgi.asked.clear()
    bed.session.scgi.change = lambda reply: None
    bed.session.erase(PACK)
    bed.program.wait_for(lambda: bed.session.asked, "nothing was asked")
    assert bed.program.stop() == 0


@pytest.mark.parametrize(("number", "pause"), [(300, 0), (150, 0.03)], ids=["", "more than one question has time for"])
def test_many_erased_at_once_cost_few_questions_and_all_go(number: int, pause: float, version: str, bed: Bed) -> None:
    def answer_slowly(*params: object) -> object:
        time.sleep(pause)
        raise UNKNOWN[version]

    torrents = [single(f"number{number}", 10) for number in range(number)]
    files = bed.seed(*torrents)
    bed.start("-r", "--grace", "0.5")
    if pause:
        bed.session.scgi.answers["d.directory"] = answer_slowly
    bed.erase(*torrents)
    assert not remaining(files)
    assert pause or bed.session.asked.count("d.multicall2") < 30
    assert {*bed.session.asked} <= ASKED_FOR


@pytest.mark.parametrize("scgi", ["unix", "tcp"])
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_the_socket_may_be_a_path_or_a_port(scgi: str, named: bool, version: str, tmp_path: Path) -> None:
    with bed_in(tmp_path, version, scgi=scgi) as bed:
        name = bed.session.scgi.socket.getsockname()
        named_by = f"--scgi={f'127.0.0.1:{name[1]}' if scgi == 'tcp' else name}" if named else ""
        play(bed, f"start {named_by}; says ready .*rtorrent answers; seed PACK; settle; erase PACK; left", PACK=PACK)


def answer_truly(bed: Bed, *params: str) -> Any:
    """Return the true answer to d.multicall2, also to the next questions."""
    bed.session.scgi.answers.clear()
    columns = [column.rstrip("=") for column in params[2:]]
    return [[bed.session.scgi.column(hash, column) for column in columns] for hash in bed.session.loaded]


def test_an_answer_does_not_tell_where_a_torrent_is_whose_session_file_says_another_place_since(bed: Bed) -> None:
    bed.start(*SHORT)
    files = bed.download(PACK)
    bed.load_complete(TWIN)
    bed.settle()

    def answer_and_write(*params: str) -> Any:
        """Answer, and then write another directory, of a name as long, into R, as a script does."""
        bed.shell(f"sed -i s:/downloads:/elsewhere: {bed.session.file(TWIN, 'R')}")
        return answer_truly(bed, *params)

    bed.session.scgi.answers["d.multicall2"] = answer_and_write
    bed.erase(PACK)
    assert "moved" in bed.program.output
    assert remaining(files) == files


def test_a_name_with_control_characters_spoils_no_answer(bed: Bed) -> None:
    bed.start(*SHORT)
    odd = make(b"odd\x01\xff", b"odd")
    files = bed.download(PACK, odd)
    bed.session.scgi.answers["d.multicall2"] = lambda *_: [
        [hash, bed.session.scgi.column(hash, "d.directory") + ("\x01" if hash == odd.hash else ""), 1, 0]
        for hash in bed.session.loaded
    ]
    bed.session.set_directory(odd, bed.downloads / "x\x01")
    bed.erase(PACK)
    assert len(remaining(files)) == 1
    assert bed.session.asked.count("d.save_resume") == 1


FILE = make(b"pack", {(b"a.bin",): b"pack" * 100})
BEFORE = "start; seed PACK; settle"
POINTED = f"{BEFORE}; seed TWIN elsewhere; settle; point TWIN"
END = "erase PACK; ls pack/a.bin pack/sub/b.bin"
NOT_ITS = "start --scgi none; pause; erase-unwaited PACK"
T = f"../session/{TWIN.hash}.torrent"
STORIES = rf"""
one is pointed here: {POINTED}; {END}; asked d.save_resume 1
one is never saved: {BEFORE}; load-unsaved TWIN; {END}; asked d.save_full_session 1
one is without its T: {POINTED}; rm {T}; {END}; asked d.save_full_session 1
one is without session files: {POINTED}; rm {T}*; {END}; asked d.save_full_session 1
one is unreadable: {POINTED}; stop; rm -r ../state; cp /dev/null {T}; start; {END}; asked d.save_full_session 1
the disk of the session is full: {BEFORE}; load-unsaved TWIN; save-on-full-disk TWIN kinds=R;
    answers d.save_full_session 0; erase-unwaited PACK; says waiting .*to save where other torrents are;
    asked-again d.multicall2; says-no does not save it; save-full TWIN; gone PACK; ls pack/a.bin pack/sub/b.bin;
    asked d.save_full_session 1
nothing is asked for in a dry run: seed PACK; seed TWIN elsewhere; start -n; point TWIN; erase-unwaited PACK;
    says would wait; asked-again d.multicall2; asked d.save_resume 0; asked d.save_full_session 0
a file is open, until it is closed, be it by another name: {BEFORE}; seed FILE; settle; ln pack/sub/b.bin linked;
    settle; open pack/sub/b.bin; erase-unwaited PACK; says waiting .*close files; ls pack/a.bin pack/sub/b.bin;
    open linked; seed PACK; settle; erase PACK; left linked pack/a.bin
another program has the number of the lock: seed PACK; kill-rtorrent; rm ../session/rtorrent.lock;
    echo "$(uname -n):+1" >../session/rtorrent.lock; {NOT_ITS}; resume; ls pack/a.bin pack/sub/b.bin;
    says waiting .*next save, within 20 minutes$
the process was killed, and nobody has waited for it: seed PACK; {NOT_ITS};
    P=$(sed 's/.*+//' ../session/rtorrent.lock);kill -9 $P;until grep -q ') Z' /proc/$P/stat;do sleep 0.1;done;
    resume; says held +pack: no rtorrent that ran at that time; ls pack/a.bin pack/sub/b.bin
"""


@each_row("story", STORIES)
def test_files_stay_until_the_running_rtorrent_has_said_where_torrents_are(story: str, bed: Bed) -> None:
    play(bed, story, FILE=FILE)


def test_a_removal_goes_on_beside_saves_and_lets_others_through(bed: Bed) -> None:
    many = make(b"many", {(f"{number}".encode(),): b"x" for number in range(1000)})
    busy, done = single("busy"), single("done")
    program = bed.start("-r", "--grace", "0", *bed.hooks)
    files = bed.download(many, busy, done)
    bed.session.erase(many)
    while (bed.downloads / "many").exists():
        bed.session.save(busy)
        bed.session.mark_complete(done)
    program.wait_gone(many.hash)
    assert len(remaining(files)) == 2
    assert "complete" in bed.hooks_called()


def test_a_question_goes_on_after_a_pause_of_rtwatch(files: list[Path], bed: Bed) -> None:
    def pause_and_answer(*params: str) -> Any:
        play(bed, "pause; stops; resume")
        return answer_truly(bed, *params)

    bed.session.scgi.answers["d.multicall2"] = pause_and_answer
    bed.erase(PACK)
    assert not bed.session.scgi.answers
    assert "waiting" not in bed.program.output
    assert not remaining(files)
