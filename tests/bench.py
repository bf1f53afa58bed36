"""Measure rtwatch on a synthetic session, each figure beside its floor: the same work done by a tight loop.

    .venv/bin/python tests/bench.py [--torrents N] [--only NAME] [--repeat N]

The floor of a figure reads the same files, decodes them with bencode.py and writes the same rows with the same pragmas,
and does nothing else. Times are medians; CPU is user and system time of the process, which other work on the machine
changes less than the time on the clock. All files are made in a temporary directory ($TMPDIR) that is removed again:
some 150 KiB and 55 files a torrent.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import shutil
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, NamedTuple, TypeVar

import bencodepy
import program
from program import Program
from session import Session
from torrents import Torrent, craft

sys.path.insert(0, str(program.PROJECT))

import rtwatch

program.DEADLINE = 900.0  # seconds: a first start may take minutes

SEED = 5
ADDS = 31
BATCH = 1000  # torrents erased together
WIDE = 50_000  # files of one torrent
HOOKS = """
import functools, os, time

calls = os.open(os.environ["RTWATCH_CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(hook, con, file, *given):
    os.write(calls, f"{hook} {file.stem} {time.monotonic()} {time.process_time()}\\n".encode())

post_add, pre_remove = functools.partial(note, "post_add"), functools.partial(note, "pre_remove")
post_remove = functools.partial(note, "post_remove")
"""

Files = dict[tuple[bytes, ...], int]
Returned = TypeVar("Returned")


class Made(NamedTuple):
    """A torrent whose files are empty, where they are, and what rtorrent saves of it beside that."""

    torrent: Torrent
    directory: Path
    saved: dict[str, Any]
    resume: dict[str, Any]


class Cost(NamedTuple):
    """What something took: seconds on the clock and of the processor."""

    wall: float
    cpu: float

    def since(self, begin: Cost) -> Cost:
        return Cost(self.wall - begin.wall, self.cpu - begin.cpu)


def now(pid: int = 0) -> Cost:
    """Return the times by now of a process, of this one with 0; clock_getcpuclockid(3) has the number of its clock."""
    return Cost(time.monotonic(), time.clock_gettime((~pid << 3) | 2))


def invent(rng: random.Random, number: int, count: int) -> tuple[bytes, Files]:
    """Invent the name of a torrent and the names and lengths of its files."""
    year, group = rng.randint(1950, 2025), rng.choice(("GRP", "NTb", "FLUX", "decibeL"))
    name = f"Some.Longer.Title.{number}.{year}.1080p.WEB-DL.DDP5.1.H.264-{group}".encode()
    if count == 1:
        return name + b".mkv", {(): int(rng.lognormvariate(22, 1)) + 1}
    paths = ((b"CD%d" % (n // 40), b"%03d - %x.flac" % (n, rng.getrandbits(60))) for n in range(count))
    return name, {path: int(rng.lognormvariate(18, 1)) + 1 for path in paths}


def make(rng: random.Random, name: bytes, files: Files, directory: Path, tracker: str) -> Made:
    """Make a torrent of 1,000 to 2,000 pieces, all downloaded into `directory`."""
    total = sum(files.values())
    piece = 1 << max(14, math.ceil(math.log2(total / 2000)))
    chunks = -(-total // piece)
    info = {"name": name, "piece length": piece, "pieces": rng.randbytes(20 * chunks), "private": 1, "source": tracker}
    single = () in files
    info.update(
        {"length": total} if single else {"files": [{"length": files[path], "path": [*path]} for path in files]}
    )
    torrent = craft(
        info,
        announce=f"https://{tracker}/{rng.getrandbits(128):032x}/announce",
        comment=f"https://{tracker}/torrents/{rng.getrandbits(20)}",
        **{"created by": "mktorrent 1.1", "creation date": 1700000000},
    )
    saved = {
        **{"complete": 1, "chunks_done": chunks, "chunks_wanted": chunks, "timestamp.finished": 1700000000},
        **{"custom": {"addtime": "1700000000", "x-filename": name}, "custom1": "movies", "views": ["main", "seeding"]},
        **{"total_uploaded": rng.getrandbits(40), "total_downloaded": total, "key": rng.getrandbits(31)},
        **{"tied_to_file": b"/home/user/watch/" + name + b".torrent"},
    }
    progress = [{"completed": -(-length // piece), "mtime": 1700000000, "priority": 1} for length in files.values()]
    content = b"" if single else dict.fromkeys(files, b"")
    return Made(torrent._replace(content=content), directory, saved, {"bitfield": chunks, "files": progress})


def make_session(rng: random.Random, number: int, data: Path) -> Iterator[Made]:
    """Make torrents: 70 % of one file, 25 % of 2-60, 5 % of 300-1,500; every twentieth is the one before it again,
    from another tracker."""
    last = None
    for n in range(number):
        if n % 20 == 19 and last:
            yield make(rng, *last, "cross.example.net")
            continue
        kind = rng.random()
        count = 1 if kind < 0.7 else rng.randint(2, 60) if kind < 0.95 else rng.randint(300, 1500)
        last = *invent(rng, n, count), data / f"disk{n % 3}"
        yield make(rng, *last, f"tracker{rng.randrange(9)}.example.org")


class World:
    """A session of so many torrents, its data, and rtwatch's state, below one temporary directory."""

    def __init__(self, directory: Path, number: int) -> None:
        """Make it all; rtorrent is not running."""
        self.rng = random.Random(SEED)
        self.number = number
        self.session = Session(directory / "session")
        self.data, self.state = directory / "data", directory / "state"
        self.hooks, self.record = directory / "hooks.py", directory / "calls"
        self.hooks.write_text(HOOKS)
        made = [*make_session(self.rng, number, self.data)]
        self.files = sum(self.add(each) for each in made)
        self.hashes = [each.torrent.hash for each in made]
        self.singles = [each.torrent for each in made if each.torrent.content == b""]

    def add(self, made: Made) -> int:
        """Load a torrent whose files, empty ones, are there; return their number."""
        self.load(made)
        return len(made.torrent.write(made.directory))

    def load(self, made: Made) -> None:
        self.session.load(made.torrent, made.directory, **made.saved)
        self.session.loaded[made.torrent.hash].resume.update(made.resume)
        self.session.save_full(made.torrent)

    def start(self, *options: str | Path) -> Program:
        """Start rtwatch and wait until it is ready."""
        program = Program(self.session.path, *options, state=self.state, env={"RTWATCH_CALLS": str(self.record)})
        program.wait_ready()
        return program

    def calls(self, hook: str) -> dict[str, Cost]:
        """Return rtwatch's times at the calls of a hook so far, of all runs, by hash."""
        whole, *_ = self.record.read_text().rpartition("\n") if self.record.exists() else ("",)
        lines = map(str.split, whole.splitlines())
        return {hash: Cost(float(wall), float(cpu)) for name, hash, wall, cpu in lines if name == hook}

    def wait_calls(self, program: Program, hook: str, hashes: Iterable[str]) -> list[Cost]:
        """Wait until a hook was called for all these torrents; return its calls."""
        program.wait_for(lambda: self.calls(hook).keys() >= {*hashes}, f"{hook} is not called")
        return [self.calls(hook)[hash] for hash in hashes]

    def measure_start(self) -> tuple[Cost, dict[str, int]]:
        """Start rtwatch, wait until it is ready, and end it; return what that took and its /proc/PID/status then."""
        begin = time.monotonic()
        with self.start() as program:
            cost, status = now(program.pid), read_status(program.pid)
            program.stop()
        return cost._replace(wall=cost.wall - begin), status

    @contextmanager
    def removing(self) -> Iterator[Program]:
        """Give an rtwatch that knows everything and removes files, with rtorrent running."""
        self.measure_start()
        with self.session, self.start("-r", "--grace", "2", "--hooks", self.hooks) as program:
            settle(program.pid)
            yield program
            program.stop()

    def make(self, number: int, files: int) -> list[Made]:
        """Make torrents of so many files each, on a disk of their own; nothing is written."""
        invented = (invent(self.rng, self.rng.getrandbits(40), files) for _ in range(number))
        return [make(self.rng, *each, self.data / "other", "t.example.org") for each in invented]

    def make_alike(self, number: int, files: int) -> list[Made]:
        """Make torrents whose files have the same names, each in a directory of its own; nothing is written."""
        names: Files = {(b"CD1", b"%d.flac" % n): 100 for n in range(files)}
        own = (b"alike%x" % self.rng.getrandbits(40) for _ in range(number))
        return [make(self.rng, name, names, self.data / "other", "t.example.org") for name in own]


def read_status(pid: int) -> dict[str, int]:
    """Return the numbers in /proc/PID/status; sizes are KiB."""
    return {key: int(number) for key, number in re.findall(r"(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text())}


def elsewhere(function: Callable[..., Returned], *args: Any) -> Returned:
    """Run a function in a process of its own, as rtwatch runs."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def read(path: str) -> bytes:
    with open(path, "rb", 0) as file:
        return file.read()


def connect(db: Path) -> sqlite3.Connection:
    """Open a database with rtwatch's pragmas."""
    con = sqlite3.connect(db)
    for pragma in ("foreign_keys = ON", "journal_mode = WAL", "synchronous = NORMAL"):
        con.execute(f"PRAGMA {pragma}")
    return con


def list_hashes(session: Path) -> list[str]:
    return sorted(entry.name[:40] for entry in os.scandir(session) if entry.name[40:] == ".torrent")


def floor_first(session: Path, db: Path) -> Cost:
    """List the session, read all its files, decode T and R, insert the rows."""
    begin = now()
    con = connect(db)
    con.executescript(rtwatch.Index.TABLES)
    decode = bencodepy.BencodeDecoder().decode
    for number, hash in enumerate(list_hashes(session), 1):
        path = f"{session}/{hash}.torrent"
        t_data, r_data, l_data = read(path), read(path + ".rtorrent"), read(path + ".libtorrent_resume")
        torrent, root = decode(t_data), decode(r_data)[b"directory"]
        info = torrent[b"info"]
        files = info.get(b"files") or [{b"length": info[b"length"], b"path": [info[b"name"]]}]
        name, tracker = info[b"name"].decode(), torrent[b"announce"].decode().split("/")[2]
        con.execute("INSERT INTO torrent_data VALUES (?, ?, ?, ?, ?, ?)", (hash, name, tracker, t_data, l_data, r_data))
        sql = "INSERT INTO rtwatch_torrent(hash, directory, root, complete, started) VALUES (?, ?, ?, ?, ?)"
        con.execute(sql, (hash, root, root, True, True))
        rows = ((hash, root + b"/" + b"/".join(file[b"path"])) for file in files)
        con.executemany("INSERT INTO session_file VALUES (?, ?)", rows)
        if number % 1000 == 0:
            con.commit()
    con.commit()
    con.close()
    return now().since(begin)


def floor_resume(session: Path) -> Cost:
    """List the session, open, read and decode each R."""
    begin = now()
    decode = bencodepy.BencodeDecoder().decode
    for hash in list_hashes(session):
        decode(read(f"{session}/{hash}.torrent.rtorrent"))
    return now().since(begin)


def floor_removal(db: Path, torrents: Sequence[tuple[str, str, Sequence[str]]]) -> Cost:
    """Unlink the files of torrents, remove their directories and delete their rows, a transaction for each."""
    con = connect(db)
    begin = now()
    for hash, root, paths in torrents:
        for path in paths:
            os.unlink(path)
        for directory in sorted({os.path.dirname(path) for path in paths} | {root}, reverse=True):
            os.rmdir(directory)
        con.execute("DELETE FROM torrent_data WHERE hash = ?", (hash,))
        con.commit()
    cost = now().since(begin)
    con.close()
    return cost


def show(name: str, value: float, unit: str, floor: float | None = None, target: str = "", met: object = None) -> None:
    """Print one line of the table."""
    floor_text, ratio = (f"{floor:.4g} {unit}", f"{value / floor:.2f}") if floor else ("", "")
    verdict = "" if met is None else "met" if met else "MISSED"
    line = f"{name:32} {f'{value:.4g} {unit}':>12} {floor_text:>12} {ratio:>7}  {verdict:7} {target}"
    print(line.rstrip(), flush=True)


def compare(name: str, costs: Sequence[Cost], floors: Sequence[Cost], limit: float, clock: float | None = None) -> None:
    """Print processor time and time on the clock, medians, beside their floors, with what they may be of these."""
    cost, floor = (Cost(*map(statistics.median, zip(*each))) for each in (costs, floors))
    show(f"{name}, CPU", cost.cpu, "s", floor.cpu, f"{limit:g} x floor", cost.cpu <= limit * floor.cpu)
    met = () if clock is None else (f"{clock:g} x floor", cost.wall <= clock * floor.wall)
    show(f"{name}, clock", cost.wall, "s", floor.wall, *met)


def settle(pid: int) -> None:
    """Wait until a process has had nothing to do for a fifth of a second."""
    used = -1.0
    while used != now(pid).cpu:
        used = now(pid).cpu
        time.sleep(0.2)


def first(world: World, repeat: int) -> None:
    """Start without a database."""
    starts, floors = [], []
    for _ in range(repeat):
        shutil.rmtree(world.state, ignore_errors=True)
        world.state.mkdir()
        floors.append(elsewhere(floor_first, world.session.path, world.state / "floor.db"))
        shutil.rmtree(world.state)
        starts.append(world.measure_start())
    peak = max(status["VmHWM"] for _, status in starts) / 1024
    compare("first start", [cost for cost, _ in starts], floors, 1.5)
    show("first start, peak memory", peak, "MiB", None, "60 MiB", peak < 60)


def restart(world: World, repeat: int) -> None:
    """Start with everything known and unchanged, which looks at each directory of a torrent's files."""
    world.measure_start()
    floors = [elsewhere(floor_resume, world.session.path) for _ in range(max(5, repeat))]
    starts = [world.measure_start() for _ in floors]
    costs, resident = [cost for cost, _ in starts], starts[-1][1]["VmRSS"] / 1024
    wall, limit = statistics.median(cost.wall for cost in costs), 1.5 * max(1.0, world.number / 10000)
    compare("restart", costs, floors, 1.5 if world.number >= 10_000 else 3)
    show("restart, resident memory", resident, "MiB", None, "30 MiB", resident < 30)
    show("restart", wall, "s", None, f"{limit:g} s", wall < limit)


def event(world: World, repeat: int) -> None:
    """Add torrents, with nothing else going on and while the whole session is being saved."""
    made = [*make_session(world.rng, 2 * ADDS, world.data / "added")]
    with world.start("--hooks", world.hooks) as program:
        for name, torrents in (("idle", made[:ADDS]), ("in a save", made[ADDS:])):
            renamed = {}
            for number, each in enumerate(torrents):
                if name == "idle":
                    time.sleep(0.02)
                else:
                    world.session.save(*world.hashes[number::ADDS])
                world.add(each)
                renamed[each.torrent.hash] = time.monotonic()
            called = world.wait_calls(program, "post_add", renamed)
            took = statistics.median(1000 * (call.wall - when) for call, when in zip(called, renamed.values()))
            show(f"event to post_add, {name}", took, "ms", None, "5 ms", took < 5)
        program.stop()
    world.session.erase(*(each.torrent for each in made))


def save(world: World, repeat: int) -> None:
    """Save all torrents at full speed; some get another directory, which shows what is lost; erase one.

    Each directory of a saved torrent's files is looked at.
    """
    world.measure_start()
    costs, floors, delays, lost = [], [], [], 0
    moving = [*world.singles[:: max(1, len(world.singles) // 20)], world.singles[-1]]
    with world.start() as program:
        for turn in range(repeat):
            floors.append(elsewhere(floor_resume, world.session.path))
            spare = world.make(1, 1)[0]
            world.add(spare)
            program.wait_known(spare.torrent.hash)
            place = world.data / f"moved{turn}"
            for torrent in moving:
                world.session.set_directory(torrent, place)
            settle(program.pid)
            begin = now(program.pid)
            world.session.save(*world.hashes)
            world.session.erase(spare.torrent)
            gone = time.monotonic()
            program.wait_line(f"vanished +{re.escape(spare.torrent.name.decode())}")
            delays.append(1000 * (time.monotonic() - gone))
            settle(program.pid)
            costs.append(now(program.pid).since(begin))
            rows = set(program.select("SELECT hash, CAST(file AS BLOB) FROM session_file"))
            lost += len({(each.hash, os.fsencode(each.paths(place)[0])) for each in moving} - rows)
        lost += sum("overflow" in line for line in program.lines)
        program.stop()
    delay = statistics.median(delays)
    compare("periodic save", costs, floors, 2)  # rtorrent's own speed is in the time on the clock
    show("periodic save, lost", lost, "", None, "0", lost == 0)
    show("periodic save, erase recorded", delay, "ms", None, "100 ms", delay < 100)


def ask(session: Path, hashes: Sequence[str]) -> float:
    """Ask rtorrent once what it has; return the seconds of CPU that took."""
    wake, writer = socket.socketpair()
    with wake, writer:
        rtorrent = rtwatch.Rtorrent(rtwatch.Session(session), None, wake)
        begin = time.process_time()
        answer = rtorrent.ask(hashes[:10], hashes)
        assert answer
        assert answer.loaded.keys() == {*hashes}
        return time.process_time() - begin


def question(world: World, repeat: int) -> None:
    """Ask rtorrent which torrents it has, and where, as before removals."""
    with world.session:
        took = statistics.median(elsewhere(ask, world.session.path, world.hashes) for _ in range(repeat))
    show("question, CPU", took, "s", None, "0.5 s", took < 0.5)


def each(world: World, repeat: int) -> None:
    """Remove torrents of 1,000 files, one after the other, in a small and in a large session.

    Before the first of them rtorrent is asked what it has and all directories are looked at.
    """
    with tempfile.TemporaryDirectory(prefix="rtwatch-bench-") as directory:
        small, *_ = remove_each(World(Path(directory), max(10, world.number // 10)), repeat)
    large, common, look = remove_each(world, repeat)
    show("question and look, CPU", look, "s", None, "0.5 s", look < 0.5)
    show("removal, a file, CPU", large, "ms", small, "the same in a session of a tenth", large < 1.2 * small)
    show("removal, a file of a common name", common, "ms", large, "the same", common < 1.2 * large)


def batches(world: World, repeat: int) -> None:
    """Remove 1,000 torrents of ten files at once, with names of their own and with names that all of them have."""
    for name, make_batch in (("own names", world.make), ("same names", world.make_alike)):
        made = [make_batch(BATCH, 10) for _ in range(repeat)]
        compare(f"{BATCH} x 10, {name}", *remove_batches(world, made), 3, 1.5)


def wide(world: World, repeat: int) -> None:
    """Remove a torrent of 50,000 files."""
    compare(f"removal of 1 x {WIDE}", *remove_batches(world, [world.make(1, WIDE) for _ in range(repeat)]), 2)


def missing(world: World, repeat: int) -> None:
    """Erase a torrent of 300,000 files that are not there."""
    [made] = world.make(1, 300_000)
    world.load(made)
    with world.removing() as program:
        before = read_status(program.pid)["VmHWM"] / 1024
        cost = erase(world, program, [made])
        peak = read_status(program.pid)["VmHWM"] / 1024
    show("300,000 missing files, CPU", cost.cpu, "s")
    show("300,000 missing files, memory", peak, "MiB", before, "300 MiB", peak < 300)


def remove_each(world: World, repeat: int) -> tuple[float, float, float]:
    """Return the ms of CPU for one file of a torrent of 1,000, and of names that others have; seconds until the first
    removal begins."""
    wide, common = world.make(repeat, 1000), world.make_alike(2, 1000)
    for made in [*wide, *common]:
        world.add(made)
    with world.removing() as program:
        begin = now(program.pid)
        erase(world, program, common[:1])
        look = world.calls("pre_remove")[common[0].torrent.hash].since(begin).cpu
        shared = erase(world, program, common[1:]).cpu
        ms = [erase(world, program, [made]).cpu for made in wide]  # seconds for 1,000 files are ms for one
    return statistics.median(ms), shared, look


def remove_batches(world: World, batches: Sequence[Sequence[Made]]) -> tuple[list[Cost], list[Cost]]:
    """Remove torrents, a batch at once; return what each batch took, the deletions noted before as well, and floors."""
    every = [made for batch in batches for made in batch]
    for made in every:
        world.add(made)
    world.measure_start()
    copy = world.state / "floor.db"
    shutil.copy(world.state / "rtwatch" / "rtwatch.db", copy)
    costs, floors = [], []
    for number, batch in enumerate(batches):
        place = world.data / f"floor{number}"
        victims = [(t.hash, str(t.root(place)), [*map(str, t.write(place))]) for t, *_ in batch]
        floors.append(elsewhere(floor_removal, copy, victims))
    copy.unlink()
    with world.removing() as program:
        for batch in batches:
            settle(program.pid)
            begin = now(program.pid)
            cost = erase(world, program, batch)
            costs.append(cost._replace(cpu=now(program.pid).since(begin).cpu))
        left = sum(torrent.root(place).exists() for torrent, place, *_ in every)
        if left:
            raise SystemExit(program.report(f"{left} torrents were not removed"))
    return costs, floors


def erase(world: World, program: Program, batch: Sequence[Made]) -> Cost:
    """Erase torrents; return the times from the first pre_remove to the last post_remove."""
    world.session.erase(*(made.torrent for made in batch))
    hashes = [made.torrent.hash for made in batch]
    ended = world.wait_calls(program, "post_remove", hashes)
    return max(ended).since(min(world.wait_calls(program, "pre_remove", hashes)))


FIGURES = {
    **{"first": first, "restart": restart, "event": event, "save": save, "question": question},
    **{"each": each, "batches": batches, "wide": wide, "missing": missing},
}


def main() -> None:
    """Make the session and print the table."""
    figures = "".join(f"\n  {name:10} {str(figure.__doc__).splitlines()[0]}" for name, figure in FIGURES.items())
    parser = argparse.ArgumentParser(
        description=str(__doc__).split("\n", 1)[0],
        epilog=f"figures:{figures}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--torrents", metavar="N", type=int, default=1000, help="size of the session, default 1000")
    parser.add_argument("--only", metavar="NAME", choices=FIGURES, action="append", help="one of the figures below")
    parser.add_argument("--repeat", metavar="N", type=int, default=3, help="times that each is measured, default 3")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtwatch-bench-") as directory:
        begin = time.perf_counter()
        world = World(Path(directory), args.torrents)
        print(f"{world.number} torrents, {world.files} files, made in {time.perf_counter() - begin:.1f} s")
        print(f"{'':32} {'rtwatch':>12} {'floor':>12} {'ratio':>7}  {'':7} target", flush=True)
        for name in args.only or FIGURES:
            FIGURES[name](world, args.repeat)


if __name__ == "__main__":
    main()
