"""rtorrent is asked before anything is removed: what is an answer, what is none, and what rtwatch asks for."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from session import UNKNOWN, VERSIONS
from steps import PACK, SHORT, TWIN, Bed, bed_in, pattern, paused, remaining, wait_stopped
from torrents import make, multi, single

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
    program = bed.start(*SHORT, *bed.hooks, *(() if asks else ("--scgi", "none")))
    files = bed.download(PACK)
    bed.session.scgi.change = SPOILED.get(answer, bed.session.scgi.change)
    bed.session.scgi.answers.update([WRONG[answer]] if answer in WRONG else [])
    bed.session.erase(PACK)
    program.wait_line(f"waiting .*{pattern(PACK)}")
    bed.settle()  # what comes meanwhile is not kept waiting
    assert remaining(files) == files
    if answer == "none":
        bed.session.scgi.change = SPOILED["empty"]  # which does not take five seconds each time
    bed.session.save_all()
    program.wait_gone(PACK.hash)
    assert not remaining(files)
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
        program = bed.start(*SHORT, *(("--scgi", f"127.0.0.1:{name[1]}" if scgi == "tcp" else name) if named else ()))
        program.wait_line("ready .*rtorrent answers")
        bed.download(PACK)
        bed.erase(PACK)


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


@pytest.mark.parametrize("state", ["pointed elsewhere", "not saved yet", "T deleted", "all deleted", "T empty"])
def test_what_is_elsewhere_than_saved_is_saved_first(state: str, files: list[Path], bed: Bed, tmp_path: Path) -> None:
    if state == "not saved yet":
        bed.session.load(TWIN, bed.downloads)
    else:
        bed.seed(TWIN, to=tmp_path / "elsewhere")
        bed.program.wait_known(TWIN.hash)
        bed.session.set_directory(TWIN, bed.downloads)
    for file in bed.session.files(TWIN)[2 if state == "T deleted" else 0 if state == "all deleted" else 3 :]:
        file.unlink()
    if state == "T empty":
        bed.program.stop()
        bed.db.unlink()
        bed.session.file(TWIN).write_bytes(b"")
        bed.start(*SHORT)
    bed.session.erase(PACK)
    bed.program.wait_gone(PACK.hash)
    assert remaining(files) == files
    assert bed.session.asked.count("d.save_resume" if state == "pointed elsewhere" else "d.save_full_session") == 1


def test_a_full_disk_of_the_session_is_said(files: list[Path], bed: Bed) -> None:
    bed.session.load(TWIN, bed.downloads)
    bed.session.save_on_full_disk(TWIN)
    for method in SAVES:
        bed.session.scgi.answers[method] = 0
    bed.session.erase(PACK)
    bed.program.wait_line("waiting .*to save where other torrents are")
    bed.program.wait_for(lambda: not SAVES.isdisjoint(bed.session.asked), "no save was asked for")
    assert "does not save it" not in bed.program.output  # which takes a second request, after a minute
    bed.session.save_full(TWIN)
    bed.program.wait_gone(PACK.hash)
    assert remaining(files) == files


def test_a_dry_run_asks_for_no_save(bed: Bed, tmp_path: Path) -> None:
    program = bed.start(*SHORT, "-n")
    bed.seed(PACK)
    bed.seed(TWIN, to=tmp_path / "elsewhere")
    program.wait_line("added .*pack.*\n?")
    bed.session.set_directory(TWIN, bed.downloads)
    bed.session.erase(PACK)
    program.wait_line("would wait ")
    asked = bed.session.asked.count("d.multicall2")
    program.wait_for(lambda: bed.session.asked.count("d.multicall2") > asked + 1, "it is not asked again")
    assert SAVES.isdisjoint(bed.session.asked)


def test_what_a_running_rtorrent_has_open_is_kept(bed: Bed) -> None:
    program = bed.start(*SHORT)
    both = make(b"pack", {(b"first of pack",): b"pack" * 3000})
    files = bed.download(PACK, both)
    linked = bed.downloads / "linked"
    os.link(files[1], linked)
    bed.settle()  # else nobody knows whether the link came before the erase
    bed.session.open_files([files[1]])
    bed.session.erase(PACK)
    program.wait_line("waiting .*close files")
    assert remaining(files) == files
    bed.session.open_files([linked])
    bed.seed(PACK)
    bed.settle()
    bed.erase(PACK)
    assert remaining(files) == [files[0], files[2]]


def test_another_program_with_the_number_of_the_lock_proves_nothing(files: list[Path], bed: Bed) -> None:
    bed.program.stop()
    bed.session.kill()
    bed.session.lock.unlink()
    bed.session.write_lock(os.uname().nodename, os.getpid())
    program = bed.start(*SHORT)
    bed.session.erase(PACK)
    program.wait_line("waiting .*next save, within 20 minutes$")
    assert remaining(files) == files


def test_an_rtorrent_that_was_killed_is_dead_though_nobody_has_waited_for_it(bed: Bed) -> None:
    program = bed.start(*SHORT, "--scgi", "none")
    files = bed.download(PACK)
    with paused(program):
        bed.session.erase(PACK)
        pid = bed.session.process.pid
        os.kill(pid, 9)
        program.wait_for(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text(), "it is no zombie")
    program.wait_line("(held|waiting) ")
    assert remaining(files) == files


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


def test_a_torrent_that_comes_back_while_it_is_removed_keeps_the_rest(bed: Bed) -> None:
    option = bed.write_each(pre_remove="os.kill(os.getpid(), 19)")
    program = bed.start(*SHORT, *option)
    files = bed.download(PACK)
    bed.session.erase(PACK)
    wait_stopped(program)
    bed.add(PACK)
    program.send_signal(signal.SIGCONT)
    program.wait_line("returned")
    assert remaining(files) == files


def test_a_question_goes_on_after_a_pause_of_rtwatch(files: list[Path], bed: Bed) -> None:
    scgi, asked = bed.session.scgi, []

    def pause_and_answer(*params: str) -> Any:
        bed.program.send_signal(signal.SIGSTOP)
        wait_stopped(bed.program)
        bed.program.send_signal(signal.SIGCONT)
        asked.append(params)
        del scgi.answers["d.multicall2"]
        return [[scgi.column(hash, column.rstrip("=")) for column in params[2:]] for hash in bed.session.loaded]

    scgi.answers["d.multicall2"] = pause_and_answer
    bed.erase(PACK)
    assert asked
    assert "waiting" not in bed.program.output
    assert not remaining(files)


@pytest.mark.parametrize("dry", [True, False])
def test_an_older_database_is_brought_up_to_date(dry: bool, bed: Bed) -> None:
    files = bed.seed(PACK, multi("other"))
    bed.start().stop()
    with sqlite3.connect(bed.db) as con:
        con.executescript("""
            ALTER TABLE rtwatch_torrent RENAME TO new;
            DROP INDEX rtwatch_torrent_root;
            DROP INDEX rtwatch_torrent_vanished;
            DROP INDEX torrent_data_name;
            DROP TABLE rtwatch_directory;
            DROP TABLE rtwatch_use;
            ALTER TABLE rtwatch_session DROP COLUMN boot;
            ALTER TABLE rtwatch_session DROP COLUMN present;
            CREATE TABLE rtwatch_link(
                hash TEXT NOT NULL REFERENCES torrent_data(hash) ON DELETE CASCADE, file PATH BLOB NOT NULL,
                inherited INTEGER, PRIMARY KEY (hash, file));
            CREATE INDEX rtwatch_link_file ON rtwatch_link(file);
            CREATE TABLE rtwatch_torrent(
                hash TEXT PRIMARY KEY REFERENCES torrent_data(hash) ON DELETE CASCADE, directory BLOB, root PATH BLOB,
                folded_name TEXT, largest TEXT, arrived REAL, counted INTEGER, vanished REAL, seen INTEGER, held TEXT);
            CREATE INDEX rtwatch_torrent_root ON rtwatch_torrent(root);
            CREATE INDEX rtwatch_torrent_vanished ON rtwatch_torrent(vanished) WHERE vanished IS NOT NULL;
            CREATE INDEX rtwatch_torrent_counted ON rtwatch_torrent(counted) WHERE NOT counted;
            INSERT INTO rtwatch_torrent
                SELECT hash, directory, root, '', '', strftime('%s'), 0, NULL, NULL, NULL FROM new;
            UPDATE rtwatch_torrent SET vanished = strftime('%s') + 1, seen = 1
                WHERE CAST(directory AS TEXT) LIKE '%/pack';
            DROP TABLE new;
            PRAGMA user_version = 1;
        """)
    con.close()
    bed.session.erase(PACK)
    before = bed.db.read_bytes()
    program = bed.start(*SHORT, *(("-n",) if dry else ()))
    program.wait_line(f"held .*{pattern(PACK)}: it vanished before rtwatch was updated")
    program.stop()
    assert remaining(files) == files
    assert (bed.db.read_bytes() == before) is dry
    if not dry:
        result = bed.run("--once", "--force", *SHORT)
        assert len(remaining(files)) == 2, result.stderr
