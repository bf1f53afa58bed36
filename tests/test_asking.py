"""rtorrent is asked before anything is removed: what is an answer, what is none, and what rtwatch asks for."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from program import Launcher
from scgi import UNKNOWN
from session import VERSIONS, Session
from steps import SHORT, Hooks, download, erase, pack, pattern, paused, remaining, seed, settle
from torrents import make, multi, single, twin_of

ASKED_FOR = {"session.path", "system.pid", "system.env", "d.multicall2", "d.directory", "d.hash"}
SAVES = {"d.save_resume", "d.save_full_session"}
TORRENT, TWIN = pack("pack"), twin_of(pack("pack"))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Run every test here with both orders of system calls."""
    return str(request.param)


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


@pytest.mark.parametrize("answer", [*SPOILED, *WRONG, "not asked for"])
def test_what_is_no_good_answer_is_none_and_the_next_save_counts(
    answer: str, session: Session, launcher: Launcher, downloads: Path
) -> None:
    asks = answer != "not asked for"
    program = launcher.start(*SHORT, *launcher.hooks, *(() if asks else ("--scgi", "none")))
    files = download(program, session, downloads, TORRENT)
    session.scgi.change = SPOILED.get(answer, session.scgi.change)
    session.scgi.answers.update([WRONG[answer]] if answer in WRONG else [])
    session.erase(TORRENT)
    program.wait_line(f"waiting .*{pattern(TORRENT)}")
    settle(program, session, downloads)  # what comes meanwhile is not kept waiting
    assert remaining(files) == files
    session.save_all()
    program.wait_gone(TORRENT.hash)
    assert not remaining(files)
    assert SAVES.isdisjoint(session.asked)
    assert bool(session.asked) == asks


def test_a_question_without_an_answer_ends_with_the_first_signal(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*SHORT)
    download(program, session, downloads, TORRENT)
    session.scgi.asked.clear()
    session.scgi.change = lambda reply: None
    session.erase(TORRENT)
    program.wait_for(lambda: session.asked, "nothing was asked")
    assert program.stop() == 0


def test_rtwatch_only_asks_for_what_it_says(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    session.add(single("refused"), downloads)
    download(program, session, downloads, TORRENT, TWIN)
    del session.loaded[single("refused").hash]
    erase(program, session, TORRENT, TWIN)
    assert {*session.asked} <= ASKED_FOR


def test_many_erased_at_once_cost_few_questions(session: Session, launcher: Launcher, downloads: Path) -> None:
    torrents = [single(f"number{number}", 10) for number in range(300)]
    files = seed(session, downloads, *torrents)
    program = launcher.start("-r", "--grace", "0.5")
    erase(program, session, *torrents)
    assert not remaining(files)
    assert session.asked.count("d.multicall2") < 30


def test_more_erased_at_once_than_one_question_has_time_for_all_go(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    torrents = [single(f"number{number}", 10) for number in range(90)]
    files = seed(session, downloads, *torrents)
    program = launcher.start("-r", "--grace", "0.5")

    def answer_slowly(*params: object) -> object:
        time.sleep(0.05)
        raise UNKNOWN[session.version]

    session.scgi.answers["d.directory"] = answer_slowly
    erase(program, session, *torrents)
    assert not remaining(files)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_the_socket_may_be_a_path_or_a_port(tcp: bool, named: bool, tmp_path: Path, downloads: Path) -> None:
    with Session(tmp_path / "session", tcp=tcp) as session:
        session.start()
        assert session.scgi.socket is not None
        name = session.scgi.socket.getsockname()
        option = ("--scgi", f"127.0.0.1:{name[1]}" if tcp else name) if named else ()
        launcher = Launcher(session.path, tmp_path / "state", tmp_path / "calls")
        program = launcher.start(*SHORT, *option)
        program.wait_line("watching .*rtorrent answers")
        download(program, session, downloads, TORRENT)
        erase(program, session, TORRENT)
        launcher.close()


# what the answer says of others


def test_a_name_with_control_characters_spoils_no_answer(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    odd = make(b"odd\x01\xff", b"odd")
    files = download(program, session, downloads, TORRENT, odd)
    session.scgi.answers["d.multicall2"] = lambda *asked: [
        [hash, directory + ("\x01" if hash == odd.hash else ""), *more]
        for hash, directory, *more in session.scgi._d_multicall2(*asked)
    ]
    session.set_directory(odd, downloads / "x\x01")
    erase(program, session, TORRENT)
    assert len(remaining(files)) == 1
    assert session.asked.count("d.save_resume") == 1


@pytest.mark.parametrize("state", ["pointed elsewhere", "not saved yet", "T deleted", "all deleted", "T empty"])
def test_what_rtorrent_has_elsewhere_than_saved_is_saved_before_anything_goes(
    state: str, session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    program = launcher.start(*SHORT)
    files = download(program, session, downloads, TORRENT)
    if state == "not saved yet":
        session.load(TWIN, downloads)
    else:
        seed(session, tmp_path / "elsewhere", TWIN)
        program.wait_known(TWIN.hash)
        session.set_directory(TWIN, downloads)
    if state == "T deleted":
        session.file(TWIN).unlink()
    elif state == "all deleted":
        for file in session.files(TWIN):
            file.unlink()
    elif state == "T empty":
        program.stop()
        launcher.db.unlink()
        session.file(TWIN).write_bytes(b"")
        program = launcher.start(*SHORT)
    session.erase(TORRENT)
    program.wait_gone(TORRENT.hash)
    assert remaining(files) == files
    assert session.asked.count("d.save_resume" if state == "pointed elsewhere" else "d.save_full_session") == 1


def test_a_full_disk_of_the_session_is_said(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    files = download(program, session, downloads, TORRENT)
    session.load(TWIN, downloads)
    session.save_on_full_disk(TWIN)
    for method in SAVES:
        session.scgi.answers[method] = 0
    session.erase(TORRENT)
    program.wait_line("waiting .*to save where other torrents are")
    program.wait_for(lambda: not SAVES.isdisjoint(session.asked), "no save was asked for")
    session.save_full(TWIN)
    program.wait_gone(TORRENT.hash)
    assert remaining(files) == files


def test_an_unfinished_save_of_a_torrent_that_is_loaded_holds_without_an_answer(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*SHORT, "--scgi", "none")
    files = download(program, session, downloads, TORRENT)
    session.erase(TORRENT)
    program.wait_line("waiting .*next save")
    session.load(TWIN, downloads)
    session.save_all()
    for kind in "TLR":
        session.file(TWIN, kind).unlink(missing_ok=True)
    session.file(TWIN, "L").with_name(session.file(TWIN, "L").name + ".new").touch()
    settle(program, session, downloads)
    session.save(TWIN)
    session.save_full(TWIN)
    session.save_all()
    program.wait_gone(TORRENT.hash)
    assert remaining(files) == files


def test_a_dry_run_asks_for_no_save(session: Session, launcher: Launcher, downloads: Path, tmp_path: Path) -> None:
    program = launcher.start(*SHORT, "-n")
    seed(session, downloads, TORRENT)
    seed(session, tmp_path / "elsewhere", TWIN)
    program.wait_line("added .*pack.*\n?")
    session.set_directory(TWIN, downloads)
    session.erase(TORRENT)
    program.wait_line("would wait ")
    asked = session.asked.count("d.multicall2")
    program.wait_for(lambda: session.asked.count("d.multicall2") > asked + 1, "it is not asked again")
    assert SAVES.isdisjoint(session.asked)


# open files


def test_what_a_running_rtorrent_has_open_is_kept(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*SHORT)
    both = make(b"pack", {(b"first of pack",): b"pack" * 3000})
    files = download(program, session, downloads, TORRENT, both)
    linked = downloads / "linked"
    os.link(files[1], linked)
    session.open_files([files[1]])
    session.erase(TORRENT)
    program.wait_line("waiting .*close files")
    assert remaining(files) == files
    session.open_files([linked])
    session.download(TORRENT, downloads)
    program.wait_line("returned")
    erase(program, session, TORRENT)
    assert remaining(files) == [files[0], files[2]]


# processes


def test_another_program_with_the_number_of_the_lock_proves_nothing(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*SHORT)
    files = download(program, session, downloads, TORRENT)
    program.stop()
    session.kill()
    session.lock.unlink()
    session.write_lock(os.uname().nodename, os.getpid())
    program = launcher.start(*SHORT)
    session.erase(TORRENT)
    program.wait_line("waiting .*next save")
    assert remaining(files) == files


def test_an_rtorrent_that_was_killed_is_dead_though_nobody_has_waited_for_it(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start(*SHORT, "--scgi", "none")
    files = download(program, session, downloads, TORRENT)
    with paused(program):
        session.erase(TORRENT)
        assert session.process is not None
        pid = session.process.pid
        os.kill(pid, 9)
        program.wait_for(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text(), "it is no zombie")
    program.wait_line("(held|waiting) ")
    assert remaining(files) == files


# removal in steps


def test_a_removal_goes_on_beside_saves_and_lets_others_through(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    many = make(b"many", {(f"{number}".encode(),): b"x" for number in range(3000)})
    busy, done = single("busy"), single("done")
    program = launcher.start("-r", "--grace", "0", *launcher.hooks)
    files = download(program, session, downloads, many, busy, done)
    session.erase(many)
    while (downloads / "many").exists():
        session.save(busy)
        session.mark_complete(done)
    program.wait_gone(many.hash)
    assert len(remaining(files)) == 2
    assert "complete" in launcher.hooks_called()


def test_a_torrent_that_comes_back_while_it_is_removed_keeps_the_rest(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write_each(pre_remove="os.kill(os.getpid(), 19)")
    program = launcher.start(*SHORT, *option)
    files = download(program, session, downloads, TORRENT)
    session.erase(TORRENT)
    program.wait_for(lambda: "\nState:\tT" in Path(f"/proc/{program.pid}/status").read_text(), "it does not stop")
    session.add(TORRENT, downloads)
    program.send_signal(18)
    program.wait_line("returned")
    assert remaining(files) == files


# an older database


@pytest.fixture
def old(launcher: Launcher, session: Session, downloads: Path) -> list[Path]:
    """Make the database that version 1 of the schema would be, with one torrent that had vanished; give its files."""
    files = seed(session, downloads, TORRENT, multi("other"))
    launcher.start().stop()
    with sqlite3.connect(launcher.db) as con:
        con.executescript("""
            ALTER TABLE rtwatch_torrent RENAME TO new;
            DROP INDEX rtwatch_torrent_root;
            DROP INDEX rtwatch_torrent_vanished;
            DROP INDEX torrent_data_name;
            DROP TABLE rtwatch_directory;
            CREATE TABLE rtwatch_torrent(
                hash TEXT PRIMARY KEY REFERENCES torrent_data(hash) ON DELETE CASCADE, directory BLOB, root PATH BLOB,
                folded_name TEXT, largest TEXT, arrived REAL, counted INTEGER, vanished REAL, seen INTEGER, held TEXT);
            CREATE INDEX rtwatch_torrent_root ON rtwatch_torrent(root);
            CREATE INDEX rtwatch_torrent_folded_name ON rtwatch_torrent(folded_name);
            CREATE INDEX rtwatch_torrent_largest ON rtwatch_torrent(largest);
            CREATE INDEX rtwatch_torrent_vanished ON rtwatch_torrent(vanished) WHERE vanished IS NOT NULL;
            CREATE INDEX rtwatch_torrent_unseen ON rtwatch_torrent(vanished) WHERE seen = 0;
            CREATE INDEX rtwatch_torrent_counted ON rtwatch_torrent(counted) WHERE NOT counted;
            INSERT INTO rtwatch_torrent
                SELECT hash, directory, root, '', '', arrived, counted, NULL, NULL, NULL FROM new;
            UPDATE rtwatch_torrent SET vanished = strftime('%s') + 1, seen = 1
                WHERE CAST(directory AS TEXT) LIKE '%/pack';
            DROP TABLE new;
            PRAGMA user_version = 1;
        """)
    con.close()
    session.erase(TORRENT)
    return files


@pytest.mark.parametrize("dry", [True, False])
def test_an_older_database_is_brought_up_to_date(
    dry: bool, old: list[Path], session: Session, launcher: Launcher
) -> None:
    before = launcher.db.read_bytes()
    program = launcher.start(*SHORT, *(("-n",) if dry else ()))
    program.wait_line(f"held .*{pattern(TORRENT)}: vanished before rtwatch was updated")
    program.stop()
    assert remaining(old) == old
    assert (launcher.db.read_bytes() == before) is dry
    if not dry:
        result = launcher.run("--once", "--force", *SHORT)
        assert len(remaining(old)) == 2, result.stderr
