"""The database: unusable, of another session, locked, on a full disk, damaged, private."""

import os
import shlex
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from faults import locked, the_line, unprivileged
from program import run
from steps import AT_ONCE, Bed, Options, play, remaining
from torrents import multi, single

PACK, ALSO = multi("pack"), single("also")
TORRENTS = {"PACK": PACK, "ALSO": ALSO, "MOVES": multi("moves"), "COMES": multi("comes")}


def run_sql(db: Path, *statements: str) -> None:
    """Run statements on a database, without foreign keys."""
    with closing(sqlite3.connect(db)) as con, con:
        for statement in statements:
            con.execute(statement)


TABLES = ["torrent_data", "session_file", "rtwatch_torrent", "rtwatch_directory", "rtwatch_use", "rtwatch_session"]
SPOILS: dict[str, Callable[[Path], object]] = {
    "a directory": lambda db: os.system(f"rm {db}; mkdir {db}"),
    "in a file": lambda db: os.system(f"rm -r {db.parent}; touch {db.parent}"),
    "garbage": lambda db: db.write_bytes(b"this is no database " * 1000),
    "truncated": lambda db: os.truncate(db, 5000),
    "damaged pages": lambda db: db.write_bytes(db.read_bytes()[:4096] + b"\xff" * (db.stat().st_size - 4096)),
    "of a later rtwatch": lambda db: run_sql(db, "PRAGMA user_version = 1234567"),
    "without tables": lambda db: run_sql(db, *(f"DROP TABLE {table}" for table in TABLES)),
    "of no session": lambda db: run_sql(db, *(f"DELETE FROM {table}" for table in TABLES)),
}
CAN_MOVE = ["truncated", "damaged pages"]  # what was an sqlite database


@pytest.mark.parametrize("kind", SPOILS)
@pytest.mark.parametrize("options", [(), ("-n",)], ids=["", "-n"])
def test_an_unusable_database_is_refused_untouched(options: Options, kind: str, bed: Bed, tmp_path: Path) -> None:
    bed.seed(PACK)
    place = tmp_path / "place"
    db = place / "my.db"
    assert bed.once("--db", db).returncode == 0
    SPOILS[kind](db)
    before = {path: path.read_bytes() for path in tmp_path.rglob("place/*.db") if path.is_file()}
    if not (options and kind == "in a file"):  # a dry run needs no place for a database
        result = bed.once("-q", *AT_ONCE, *options, "--db", db)
        assert str(db) in the_line(result, 1)
        assert ("mv -n" in result.stderr) == (kind in CAN_MOVE)
    assert {path: path.read_bytes() for path in tmp_path.rglob("place/*.db*") if path.is_file()} == before
    place.rename(tmp_path / "bad")
    assert bed.once(*options, "--db", db).returncode == 0


@pytest.mark.parametrize("options", ["-r", "-r -n"])
def test_the_database_of_another_session_is_refused_with_what_to_type(options: str, bed: Bed, tmp_path: Path) -> None:
    bed.seed(PACK)
    assert bed.once().returncode == 0
    before, path, downloads = bed.db.read_bytes(), bed.session.path, bed.downloads
    others = [tmp_path / name / "same name" / "session" for name in "ab"]
    for other in others:
        other.mkdir(parents=True)
        (other / "rtorrent.lock").touch()
        words = shlex.split(the_line(run("--once", *options.split(), other, state=bed.state), 1))
        assert run("--once", "--db", words[words.index("--db") + 1], other, state=bed.state).returncode == 0
    assert len([*bed.db.parent.glob("*.db")]) == 3
    mistaken = {  # by what was typed: what to type
        f"--once {options} {tmp_path}/missing": f"rtwatch --once {options} {path}",
        f"--once {options} {downloads}": f"rtwatch --once {options} {path}",
        f"--once {options} {downloads} {path}": f": rtwatch --once {options} {path} {downloads}; ",
        f"--orphans {downloads}": f"session directory: rtwatch --orphans {path} {downloads}",
        f"--orphans {path}": f"look through: rtwatch --orphans {path} ~/downloads",
    }
    for typed, better in mistaken.items():
        assert better in the_line(run(*typed.split(), state=bed.state), 1, 2)
    assert bed.db.read_bytes() == before
    (tmp_path / "link").symlink_to(path)
    assert run("--once", tmp_path / "link", state=bed.state).returncode == 0


@pytest.mark.parametrize("options", [(), ("--db", os.fsdecode(b"new/a\xff b?c#d%e&f=\n.db"))], ids=["", "any name"])
def test_the_database_is_private_and_may_have_any_name(options: Options, bed: Bed, tmp_path: Path) -> None:
    play(bed, "umask 0")
    program = bed.start(*options, cwd=tmp_path)
    bed.mounts.close()
    bed.download(PACK)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in program.db.parent.iterdir()}
    assert {program.db.name, f"{program.db.name}-wal", f"{program.db.name}-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(program.db.parent.stat().st_mode) == 0o700
    assert bed.once("-n", "--db", program.db).returncode == 0


def test_a_database_that_may_not_be_written_ends_rtwatch(bed: Bed) -> None:
    with unprivileged():
        play(bed, f"once; exits 0; chmod 400 {bed.db}; once -q; exits 1; says-only {bed.db}; chmod 600 {bed.db}")
    play(bed, f"mount {bed.state} --bind -o ro {bed.state}; once -q; exits 1; says-only {bed.state}; once -n; exits 0")


# Where the database lies, and what takes all of its space.
SMALL, FILL = "mount ../state -t tmpfs -o size=1m rtwatch-test", "cat /dev/zero >../state/zeros || :"


@pytest.mark.parametrize("before", ["", "once; exits 0; seed MOVES"], ids=["new", "present"])
def test_a_full_disk_ends_the_start(before: str, bed: Bed) -> None:
    story = f"{SMALL}; seed PACK; {before}; {FILL}; once -q -r; exits 1; says-only {bed.state}"
    play(bed, f"{story}; rm ../state/zeros; once -q -r; exits 0; says-no .", **TORRENTS)


@pytest.mark.parametrize("obstacle", ["full", "locked"])
def test_events_that_the_database_cannot_take_are_worked_later(obstacle: str, bed: Bed) -> None:
    obstacles = {"full": (SMALL, FILL, "rm ../state/zeros"), "locked": ("", "lock-database", "release")}
    before, begin, end = obstacles[obstacle]
    story = f"""{before}; start --hooks={bed.hooks[1]}; seed PACK ALSO MOVES; settle; {begin}; erase-unwaited PACK;
        seed COMES; data MOVES elsewhere; repoint MOVES elsewhere; erase-unwaited ALSO; says failed.*{obstacle}; {end};
        lists COMES; lists MOVES elsewhere; gone PACK; gone ALSO; called post_remove 2; stop; says-once added +comes;
        says-once moved +moves; says-once removed +pack; left comes/a.bin comes/sub/b.bin
        elsewhere/moves/a.bin elsewhere/moves/sub/b.bin moves/a.bin moves/sub/b.bin"""
    play(bed, story, **TORRENTS)
    gone = PACK.places(bed.downloads) + ALSO.places(bed.downloads)
    assert sorted(bed.removed(PACK) + bed.removed(ALSO)) == sorted(gone)
    for torrent in PACK, ALSO:
        assert bed.hooks_called(torrent.hash)[2:] == ["pre_remove", "post_remove"]
    assert bed.program.select("PRAGMA integrity_check") == [("ok",)]


def test_a_locked_database_at_the_start_loses_no_removal(bed: Bed) -> None:
    paths = bed.leave_vanished(PACK)
    with locked(bed.db):
        bed.start("--once", *AT_ONCE, *bed.hooks, ready=False).wait_line("locked")
    if bed.program.wait() == 1:  # it may also end, in order, and do it at the next start
        assert remaining(paths) == paths
        assert bed.once(*AT_ONCE, *bed.hooks).returncode == 0
    assert remaining(paths) == []
    assert bed.removed(PACK) == paths


def test_post_remove_is_called_although_the_disk_of_the_database_fills_up_during_the_removal(bed: Bed) -> None:
    fill = "con.execute('PRAGMA wal_checkpoint(TRUNCATE)'); os.system(f'cat /dev/zero >{args.db.parent}/../zeros')"
    option = bed.write_each(pre_remove=fill, post_remove="note('removed', files=sorted(map(str, RmTuple.rmfiles)))")
    start = f"{SMALL}; start {option[0]} {option[1]}; seed PACK; settle; erase-unwaited PACK"
    play(bed, f"{start}; says disk is full; rm ../state/zeros; called removed 1; left", **TORRENTS)
    assert [call["files"] for call in bed.wait_called("removed")] == [[*map(str, PACK.places(bed.downloads))]]
    assert bed.program.stop() == 0


def test_a_database_damaged_meanwhile_ends_rtwatch(bed: Bed) -> None:
    play(bed, "start; seed PACK; settle", **TORRENTS)
    damage = "UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'torrent_data'"
    run_sql(bed.db, "PRAGMA writable_schema = ON", damage, "PRAGMA schema_version = 4711")
    play(bed, "erase-unwaited PACK; exits 1; left pack/a.bin pack/sub/b.bin", **TORRENTS)
    assert str(bed.db) in bed.program.lines[-1]


OLDER = """
    ALTER TABLE rtwatch_torrent RENAME TO new; DROP INDEX rtwatch_torrent_root; DROP INDEX rtwatch_torrent_vanished;
    DROP INDEX torrent_data_name; DROP TABLE rtwatch_directory; DROP TABLE rtwatch_use;
    ALTER TABLE rtwatch_session DROP COLUMN boot; ALTER TABLE rtwatch_session DROP COLUMN present;
    CREATE TABLE rtwatch_link(hash TEXT, file PATH BLOB, inherited INTEGER);
    CREATE TABLE rtwatch_torrent AS SELECT hash, directory, root, 0 AS counted,
        CASE WHEN CAST(directory AS TEXT) LIKE '%/pack' THEN strftime('%s') + 1 END AS vanished FROM new;
    CREATE INDEX rtwatch_torrent_root ON rtwatch_torrent(root); DROP TABLE new; PRAGMA user_version = 1;
    CREATE INDEX rtwatch_torrent_vanished ON rtwatch_torrent(vanished) WHERE vanished IS NOT NULL;
    CREATE INDEX rtwatch_torrent_counted ON rtwatch_torrent(counted) WHERE NOT counted;
"""


@pytest.mark.parametrize("dry", [True, False])
def test_an_older_database_is_brought_up_to_date(dry: bool, bed: Bed) -> None:
    play(bed, "seed PACK COMES; start; stop", **TORRENTS)
    run_sql(bed.db, *OLDER.split(";"))
    before = bed.db.read_bytes()
    story = f"""erase-unwaited PACK; start {"-n" if dry else ""};
        says held .*pack: it vanished before rtwatch was updated; says command .* --force; stop; left comes/a.bin
        comes/sub/b.bin pack/a.bin pack/sub/b.bin"""
    play(bed, story, **TORRENTS)
    assert (bed.db.read_bytes() == before) is dry
    if not dry:
        play(bed, "once -r --grace=0.2 --force; left comes/a.bin comes/sub/b.bin")
