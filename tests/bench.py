"""Measure rtwatch on a synthetic session, each figure beside its floor: the same work done by a tight loop.

    .venv/bin/python tests/bench.py [--torrents N] [--only NAME] [--repeat N]

The floor of a figure reads the same files, decodes them with bencode.py and writes the same rows with the same pragmas,
and does nothing else. Times are medians; CPU is user and system time of the process, which other work on the machine
changes less than the time on the clock. All files are made in a temporary directory ($TMPDIR) that is removed again:
some 150 KiB and 55 files a torrent.
"""

from __future__ import annotations

import argparse
import itertools
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
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
GRACE = 2  # seconds
REMOVE = ("-r", "--grace", str(GRACE))
Returned = TypeVar("Returned")


class Cost(NamedTuple):
    """What something took: seconds on the clock and of the processor."""

    wall: float
    cpu: float

    def since(self, begin: Cost) -> Cost:
        return Cost(self.wall - begin.wall, self.cpu - begin.cpu)


def now(pid: int = 0) -> Cost:
    """Return the times by now of a process, of this one with 0; clock_getcpuclockid(3) has the number of its clock."""
    return Cost(time.monotonic(), time.clock_gettime((~pid << 3) | 2))


class World:
    """A session of so many torrents, its data, and rtwatch's state, below one temporary directory."""

    def __init__(self, directory: Path, number: int) -> None:
        """Make it all; rtorrent is not running."""
        self.rng = random.Random(SEED)
        self.number = number
        self.session = Session(directory / "session")
        self.data, self.state = directory / "data", directory / "state"
        torrents = [*self.make_session(number)]
        self.files = sum(map(self.add, torrents))
        self.hashes = [torrent.hash for torrent in torrents]
        self.singles = [torrent for torrent in torrents if torrent.content == b""]

    def make_session(self, number: int) -> Iterator[Torrent]:
        """Make torrents: 70 % of one file, 25 % of 2-60, 5 % of 300-1,500; every twentieth is the one before it again,
        from another tracker."""
        for n in range(number):
            if n % 20 != 19:
                kind, few, many = self.rng.random(), self.rng.randint(2, 60), self.rng.randint(300, 1500)
                info = self.invent(1 if kind < 0.7 else few if kind < 0.95 else many)
                directory = self.data / f"disk{n % 3}"
            yield self.load(info, directory, "cross.example.net" if n % 20 == 19 else f"tracker{n % 9}.example.org")

    def make_many(self, number: int, files: int, alike: bool = False) -> list[Torrent]:
        """Make torrents of so many files each, on a disk of their own; `alike` in the names of the files."""
        return [self.load(self.invent(files, alike), self.data / "other") for _ in range(number)]

    def invent(self, count: int, alike: bool = False) -> dict[str, Any]:
        """Invent the info dictionary of a torrent of so many files and of 1,000 to 2,000 pieces."""
        name = b"Some.Longer.Title.%x.1950.1080p.WEB-DL.DDP5.1.H.264-decibeL" % self.rng.getrandbits(40)
        own = [0 if alike else self.rng.getrandbits(60) for _ in range(count)]
        paths = [[b"CD%d" % (n // 40), b"%03d - %x.flac" % (n, number)] for n, number in enumerate(own)]
        lengths = [int(self.rng.lognormvariate(20, 1)) + 1 for _ in own]
        files = [{"length": length, "path": path} for length, path in zip(lengths, paths)]
        total = sum(lengths)
        piece = 1 << max(14, math.ceil(math.log2(total / 2000)))
        layout = {"length": total} if count == 1 else {"files": files}
        pieces = self.rng.randbytes(20 * -(-total // piece))
        return {"name": name, "piece length": piece, "pieces": pieces, "private": 1, **layout}

    def load(self, info: dict[str, Any], directory: Path, tracker: str = "t.example.org") -> Torrent:
        """Load a torrent that is complete in `directory`; its files are empty, if written."""
        announce = f"https://{tracker}/{self.rng.getrandbits(128):032x}/announce"
        more = {"created by": "mktorrent 1.1", "creation date": 1700000000, "comment": announce}
        torrent = craft({**info, "source": tracker}, announce=announce, **more)
        files, chunks = info.get("files", [info]), len(info["pieces"]) // 20
        torrent = torrent._replace(content={tuple(file["path"]): b"" for file in files} if "files" in info else b"")
        saved: dict[str, Any] = {
            **{"complete": 1, "chunks_done": chunks, "chunks_wanted": chunks, "timestamp.finished": 1700000000},
            **{"custom": {"x-filename": info["name"]}, "custom1": "movies", "views": ["main", "seeding"]},
            **{"tied_to_file": b"/home/user/watch/" + info["name"] + b".torrent"},
        }
        self.session.load(torrent, directory, **saved)
        progress = [{"completed": 1, "mtime": 1700000000, "priority": 1}] * len(files)
        self.session.loaded[torrent.hash].resume.update(bitfield=chunks, files=progress)
        return torrent

    def add(self, torrent: Torrent) -> int:
        """Save a torrent and write its files; return their number."""
        self.session.save_full(torrent)
        return len(torrent.write_root(Path(os.fsdecode(self.session.loaded[torrent.hash].rtorrent["directory"]))))

    @contextmanager
    def running(self, *options: str) -> Iterator[Program]:
        """Give an rtwatch that is ready."""
        program = Program(self.session.path, *options, state=self.state)
        try:
            program.wait_ready()
            yield program
            program.stop()
        finally:
            program.kill()

    def measure_start(self) -> tuple[Cost, dict[str, int]]:
        """Start rtwatch, wait until it is ready, and end it; return what that took and its /proc/PID/status then."""
        begin = time.monotonic()
        with self.running() as program:
            cost, status = now(program.pid), read_status(program.pid)
        return cost._replace(wall=cost.wall - begin), status

    def erase(self, program: Program, torrents: Sequence[Torrent]) -> Cost:
        """Erase torrents; return what it takes until they are gone, without the grace."""
        settle(program.pid)
        begin = now(program.pid)
        self.session.erase(*torrents)
        for torrent in torrents:
            program.wait_gone(torrent.hash)
        end = now(program.pid)
        return end.since(begin)._replace(wall=end.wall - begin.wall - GRACE)


def read_status(pid: int) -> dict[str, int]:
    """Return the numbers in /proc/PID/status; sizes are KiB."""
    return {key: int(number) for key, number in re.findall(r"(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text())}


def settle(pid: int) -> None:
    """Wait until a process has had nothing to do for a fifth of a second."""
    used = -1.0
    while used != now(pid).cpu:
        used = now(pid).cpu
        time.sleep(0.2)


# ---- Floors: each runs in a process of its own, as rtwatch does ------------------------------------------------------


def elsewhere(function: Callable[..., Returned], *args: Any) -> Returned:
    """Run a function in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def connect(db: Path) -> sqlite3.Connection:
    """Open a database with rtwatch's pragmas."""
    con = rtwatch.connect(db)
    con.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
    return con


def read(path: str) -> bytes:
    with open(path, "rb", 0) as file:
        return file.read()


def list_torrents(session: Path) -> list[str]:
    return sorted(entry.path for entry in os.scandir(session) if entry.name[40:] == ".torrent")


def floor_first(session: Path, db: Path) -> Cost:
    """List the session, read all its files, decode T and R, insert the rows."""
    begin = now()
    decode = bencodepy.BencodeDecoder().decode
    with closing(connect(db)) as con:
        con.executescript(rtwatch.TABLES)
        for number, path in enumerate(list_torrents(session), 1):
            t_data, r_data, l_data = read(path), read(path + ".rtorrent"), read(path + ".libtorrent_resume")
            torrent, root = decode(t_data), decode(r_data)[b"directory"]
            hash, info = os.path.basename(path)[:40], torrent[b"info"]
            files = info.get(b"files") or [{b"length": info[b"length"], b"path": [info[b"name"]]}]
            name, tracker = info[b"name"].decode(), torrent[b"announce"].decode().split("/")[2]
            row = (hash, name, tracker, t_data, l_data, r_data)
            con.execute("INSERT INTO torrent_data VALUES (?, ?, ?, ?, ?, ?)", row)
            sql = "INSERT INTO rtwatch_torrent(hash, directory, root, complete, started) VALUES (?, ?, ?, ?, ?)"
            con.execute(sql, (hash, root, root, True, True))
            rows = ((hash, root + b"/" + b"/".join(file[b"path"])) for file in files)
            con.executemany("INSERT INTO session_file VALUES (?, ?)", rows)
            if number % 1000 == 0:
                con.commit()
        con.commit()
    return now().since(begin)


def floor_resume(session: Path) -> Cost:
    """List the session, open, read and decode each R."""
    begin = now()
    decode = bencodepy.BencodeDecoder().decode
    for path in list_torrents(session):
        decode(read(path + ".rtorrent"))
    return now().since(begin)


def floor_removal(db: Path, torrents: Sequence[tuple[str, str, Sequence[str]]]) -> Cost:
    """Unlink the files of torrents, remove their directories and delete their rows, a transaction for each."""
    with closing(connect(db)) as con:
        begin = now()
        for hash, root, paths in torrents:
            for path in paths:
                os.unlink(path)
            for directory in sorted({os.path.dirname(path) for path in paths} | {root}, reverse=True):
                os.rmdir(directory)
            con.execute("DELETE FROM torrent_data WHERE hash = ?", (hash,))
            con.commit()
        return now().since(begin)


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


# ---- Figures ---------------------------------------------------------------------------------------------------------


def show(name: str, value: float, unit: str, floor: float = 0, most: float | None = None) -> None:
    """Print one line of the table; `most` is what the value may be, as a multiple of the floor where it has one."""
    floor_text, ratio = (f"{floor:.4g} {unit}", f"{value / floor:.2f}") if floor else ("", "")
    target = "" if most is None else f"{most:g} x floor" if floor else f"{most:g} {unit}"
    verdict = "" if most is None else "met" if value <= most * (floor or 1) else "MISSED"
    line = f"{name:48} {f'{value:.4g} {unit}':>12} {floor_text:>12} {ratio:>7}  {verdict:7} {target}"
    print(line.rstrip(), flush=True)


def compare(name: str, costs: Sequence[Cost], floors: Sequence[Cost], most: float, clock: float | None = None) -> None:
    """Print processor time and time on the clock, medians, beside their floors, with what they may be of these."""
    cost, floor = (Cost(*map(statistics.median, zip(*each))) for each in (costs, floors))
    show(f"{name}, CPU", cost.cpu, "s", floor.cpu, most)
    show(f"{name}, clock", cost.wall, "s", floor.wall, clock)


def first(world: World, repeat: int) -> None:
    """Start without a database."""
    starts, floors = [], []
    for _ in range(repeat):
        shutil.rmtree(world.state, ignore_errors=True)
        world.state.mkdir()
        floors.append(elsewhere(floor_first, world.session.path, world.state / "floor.db"))
        shutil.rmtree(world.state)
        starts.append(world.measure_start())
    compare("first start", [cost for cost, _ in starts], floors, 1.5)
    show("first start, peak memory", max(status["VmHWM"] for _, status in starts) / 1024, "MiB", most=60)


def restart(world: World, repeat: int) -> None:
    """Start with everything known and unchanged, which looks at each directory of a torrent's files."""
    world.measure_start()
    floors = [elsewhere(floor_resume, world.session.path) for _ in range(max(5, repeat))]
    starts = [world.measure_start() for _ in floors]
    costs = [cost for cost, _ in starts]
    compare("restart", costs, floors, 1.5 if world.number >= 10_000 else 3)
    show("restart, resident memory", starts[-1][1]["VmRSS"] / 1024, "MiB", most=30)
    show("restart", statistics.median(cost.wall for cost in costs), "s", most=1.5 * max(1.0, world.number / 10000))


def event(world: World, repeat: int) -> None:
    """Add torrents, with nothing else going on and while the whole session is being saved."""
    with world.running() as program:
        for name in "idle", "in a save":
            times = []
            for number, torrent in enumerate(torrents := [*world.make_session(ADDS)]):
                if name == "idle":
                    time.sleep(0.02)
                else:
                    world.session.save(*world.hashes[number::ADDS])
                world.add(torrent)
                begin = time.monotonic()
                while not program.select(f"SELECT 1 FROM torrent_data WHERE hash = '{torrent.hash}'"):
                    pass
                times.append(1000 * (time.monotonic() - begin))
            show(f"event to its rows, {name}", statistics.median(times), "ms", most=5)
            world.session.erase(*torrents)


def save(world: World, repeat: int) -> None:
    """Save all torrents at full speed; some get another directory, which shows what is lost; erase one.

    Each directory of a saved torrent's files is looked at.
    """
    world.measure_start()
    costs, floors, delays, lost = [], [], [], 0
    moving = [*world.singles[:: max(1, len(world.singles) // 20)], world.singles[-1]]
    with world.running() as program:
        for turn in range(repeat):
            floors.append(elsewhere(floor_resume, world.session.path))
            (spare,) = world.make_many(1, 1)
            world.add(spare)
            program.wait_known(spare.hash)
            place = world.data / f"moved{turn}"
            for torrent in moving:
                world.session.set_directory(torrent, place)
            settle(program.pid)
            begin = now(program.pid)
            world.session.save(*world.hashes)
            world.session.erase(spare)
            gone = time.monotonic()
            program.wait_line(f"vanished +{re.escape(spare.name.decode())}")
            delays.append(1000 * (time.monotonic() - gone))
            settle(program.pid)
            costs.append(now(program.pid).since(begin))
            rows = set(program.select("SELECT hash, CAST(file AS BLOB) FROM session_file"))
            lost += len({(torrent.hash, os.fsencode(torrent.paths(place)[0])) for torrent in moving} - rows)
        lost += sum("overflow" in line for line in program.lines)
    compare("periodic save", costs, floors, 2)  # rtorrent's own speed is in the time on the clock
    show("periodic save, lost", lost, "", most=0)
    show("periodic save, erase recorded", statistics.median(delays), "ms", most=100)


def question(world: World, repeat: int) -> None:
    """Ask rtorrent which torrents it has, and where, as before removals."""
    with world.session:
        took = statistics.median(elsewhere(ask, world.session.path, world.hashes) for _ in range(repeat))
    show("question, CPU", took, "s", most=0.5)


def removal(world: World, repeat: int) -> None:
    """Remove 1,000 torrents of ten files at once, with names of their own or all with the same, and one of 50,000."""
    kinds = {"1,000 x 10": (1000, False), "1,000 x 10 of the same names": (1000, True), "1 x 50,000": (1, False)}
    for name, (number, alike) in kinds.items():
        count = 10 if number > 1 else 50_000
        costs, floors = remove(world, [world.make_many(number, count, alike) for _ in range(repeat)])
        compare(f"removal, {name}", costs, floors, 3 if number > 1 else 2, 1.5)
        ms = 1000 * statistics.median(cost.cpu for cost in costs) / (number * count)
        show(f"removal, {name}, a file, CPU", ms, "ms")
    with tempfile.TemporaryDirectory(prefix="rtwatch-bench-") as directory:
        small = World(Path(directory), max(10, world.number // 10))
        costs, _ = remove(small, [small.make_many(1, 50_000) for _ in range(repeat)])
    in_small = 1000 * statistics.median(cost.cpu for cost in costs) / 50_000
    show("the same, beside a session of a tenth", ms, "ms", in_small, 1.2)


def remove(world: World, batches: Sequence[Sequence[Torrent]]) -> tuple[list[Cost], list[Cost]]:
    """Remove torrents, a batch at once; return what each batch took, and floors."""
    every = [*itertools.chain(*batches)]
    for torrent in every:
        world.add(torrent)
    world.measure_start()
    place, copy = world.data / "floor", world.state / "floor.db"
    shutil.copy(world.state / "rtwatch" / "rtwatch.db", copy)
    written = [[(t.hash, str(t.root(place)), [*map(str, t.write(place))]) for t in batch] for batch in batches]
    floors = [elsewhere(floor_removal, copy, victims) for victims in written]
    with world.session, world.running(*REMOVE) as program:
        costs = [world.erase(program, batch) for batch in batches]
        left = sum(torrent.root(world.data / "other").exists() for torrent in every)
        if left:
            raise SystemExit(program.report(f"{left} torrents were not removed"))
    return costs, floors


def missing(world: World, repeat: int) -> None:
    """Erase a torrent of 300,000 files that are not there."""
    made = world.make_many(1, 300_000)
    world.session.save_full(*made)
    world.measure_start()
    with world.session, world.running(*REMOVE) as program:
        show("300,000 missing files, CPU", world.erase(program, made).cpu, "s")
        show("300,000 missing files, memory", read_status(program.pid)["VmHWM"] / 1024, "MiB", most=300)


FIGURES = (first, restart, event, save, question, removal, missing)


def main() -> None:
    """Make the session and print the table."""
    figures = {figure.__name__: figure for figure in FIGURES}
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--torrents", metavar="N", type=int, default=1000, help="size of the session, default 1000")
    parser.add_argument("--only", metavar="NAME", choices=figures, action="append", help=", ".join(figures))
    parser.add_argument("--repeat", metavar="N", type=int, default=3, help="times that each is measured, default 3")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtwatch-bench-") as directory:
        begin = time.perf_counter()
        world = World(Path(directory), args.torrents)
        print(f"{world.number} torrents, {world.files} files, made in {time.perf_counter() - begin:.1f} s")
        print(f"{'':48} {'rtwatch':>12} {'floor':>12} {'ratio':>7}  {'':7} target", flush=True)
        for name in args.only or figures:
            figures[name](world, args.repeat)


if __name__ == "__main__":
    main()
