"""What tests do again and again: torrents downloaded and erased, what rtwatch says waited for, the disk looked at.

`rtorrent` is a session.Session (the fake writer) or an rtorrent.Rtorrent (the real one): both have the same verbs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from subprocess import check_call
from typing import Any, Callable, Union

import program
import pytest
from faults import locked, mounted
from program import Argument, Env, Place, Program
from rtorrent import Rtorrent
from session import STOPPED, VERSIONS, Session, pass_tick
from torrents import Torrent, multi, single, twin_of

AT_ONCE = ("-r", "--grace", "0")
SHORT = ("-r", "--grace", "0.2")  # ends within a test
LONG = ("-r", "--grace", "600")  # does not end within a test

Client = Union[Session, Rtorrent]
Options = tuple[str, ...]

ALL_HOOKS = {
    "pre_loop": "con, inot, args, queues, qfuncs, inot_funcs",
    "pre_add": "con, file, args",
    "post_add": "con, file, args",
    "pre_remove": "con, file, args",
    "post_remove": "con, file, args, RmTuple",
    "complete": "con, path, args, queues",
    "post_loop": "con, inot, args",
}
PREAMBLE = """
import argparse, collections, inotify_simple, os, sqlite3, sys, time
from inotify_simple import flags
from pathlib import Path
from recorder import note
"""

ONE, PACK, TWIN = single("one"), multi("pack"), twin_of(multi("pack"))


def overflow(session: Client) -> None:
    """Raise more events than the kernel keeps for one who does not read."""
    file = session.path / f"{'0' * 40}.torrent"
    for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())):
        file.touch()
        file.unlink()


def pattern(torrent: Torrent) -> str:
    return re.escape(os.fsdecode(torrent.name))


def names(torrent: Torrent, word: str = "also in") -> str:
    """Return the pattern of a reason that names another torrent."""
    return rf'{word} {torrent.hash[:8]}\S* "{pattern(torrent)}"'


def below(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def remaining(paths: Iterable[Path]) -> list[Path]:
    """Return those of the paths that are there, be it as a link that leads nowhere."""
    return [path for path in paths if os.path.lexists(path)]


def tree(*places: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return everything at and below some directories: type and mode, time of change, and content by path."""
    found = {}
    for path in (path for place in places for path in [place, *place.rglob("*")]):
        if os.path.lexists(path):
            info = path.lstat()
            found[str(path)] = (info.st_mode, info.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
    return found


class Bed:
    """What most tests lie in: a fake rtorrent, a place for downloads, and rtwatch, which never fails."""

    hooks_fail = False  # a test whose hooks do may say so

    def __init__(self, rtorrent: Client, place: Path) -> None:
        """Make the directory for downloads; `to` of the steps below is relative to it."""
        self.rtorrent = rtorrent
        self.state, self.downloads = place / "state", place / "downloads"
        self.record, self.hooks_file = place / "calls", place / "hooks.py"
        self.started: list[Program] = []
        self.mounts = ExitStack()
        self.downloads.mkdir(parents=True)

    @property
    def hooks(self) -> tuple[str, str]:
        """The option for hooks that write down each of their calls."""
        return self.write_each()

    @property
    def db(self) -> Path:
        """Path of the default database."""
        return self.state / "rtwatch" / "rtwatch.db"

    @property
    def session(self) -> Session:
        """The rtorrent, which is a fake one."""
        assert isinstance(self.rtorrent, Session)
        return self.rtorrent

    def start(self, *options: Argument, ready: bool = True, cwd: Place = None, env: Env = None) -> Program:
        """Start the daemon, with options and directories, and wait until it is ready."""
        env = {"RTWATCH_RECORD": str(self.record), **(env or {})}
        program = Program(self.rtorrent.path, *options, state=self.state, cwd=cwd, env=env)
        self.started.append(program)
        if ready:
            program.wait_ready()
        return program

    def once(self, *options: Argument) -> subprocess.CompletedProcess[str]:
        """Run rtwatch --once to its end."""
        return self.run("--once", *options)

    def run(self, *options: Argument) -> subprocess.CompletedProcess[str]:
        """Run rtwatch, with options that let it end by itself, to its end; they may stand anywhere."""
        env = {"RTWATCH_RECORD": str(self.record)}
        result = program.run(self.rtorrent.path, *options, state=self.state, env=env)
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def calls(self, hash: str | None = None) -> list[dict[str, Any]]:
        """Return the recorded hook calls, of one torrent only when `hash` is given."""
        if not self.record.exists():
            return []
        lines = self.record.read_text().splitlines(keepends=True)
        calls = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be half written
        return [call for call in calls if hash in (None, call.get("hash"))]

    def hooks_called(self, hash: str | None = None) -> list[str]:
        return [call["hook"] for call in self.calls(hash)]

    def close(self) -> None:
        """End what was started, of which nothing may have failed."""
        for started in self.started:
            started.kill()
            print(started.report("output of rtwatch"))
        self.mounts.close()
        assert self.hooks_fail or not any("Traceback" in started.output for started in self.started)

    @property
    def program(self) -> Program:
        """The rtwatch that was started last."""
        return self.started[-1]

    def seed(self, *torrents: Torrent, to: Path | str = "") -> list[Path]:
        return [path for torrent in torrents for path in self.rtorrent.download(torrent, self.downloads / to)]

    def add(self, torrent: Torrent, to: Path | str = "", base: Path | str | None = None, **keys: Any) -> None:
        self.session.add(torrent, self.downloads / to, base, **keys)

    def load_complete(self, torrent: Torrent, to: Path | str = "", base: Path | str | None = None) -> None:
        """Load a torrent whose data is there, by whatever name, and save it as complete."""
        self.add(torrent, to, base)
        self.complete(torrent)

    def complete(self, torrent: Torrent) -> None:
        """Save a torrent as complete."""
        self.session.finish(torrent)
        self.session.save(torrent)

    def change(self, torrent: Torrent, resume: Mapping[str, Any] | None = None, **keys: Any) -> None:
        """Save a torrent with changes in R, and in L as `resume`."""
        self.session.loaded[torrent.hash].rtorrent.update(keys)
        self.session.loaded[torrent.hash].resume.update(resume or {})
        self.session.save(torrent)

    def repoint(self, torrent: Torrent, to: Path | str) -> list[Path]:
        """Give a torrent another directory and save that; return the new paths of its files."""
        self.session.set_directory(torrent, self.downloads / to)
        self.session.save(torrent)
        return torrent.places(self.downloads / to)

    def download(self, *torrents: Torrent, to: Path | str = "") -> list[Path]:
        """Download torrents, wait until rtwatch has worked that, and return the paths of all files."""
        paths = self.seed(*torrents, to=to)
        for torrent in torrents:
            self.program.wait_known(torrent.hash)
        self.settle()
        return paths

    def settle(self) -> Torrent:
        """Wait until rtwatch has worked what happened so far: another torrent, added now, is known; return that."""
        torrent = single(f"settled {time.monotonic_ns()}")
        self.rtorrent.add(torrent, self.downloads)
        self.program.wait_known(torrent.hash)
        return torrent

    def erase(self, *torrents: Torrent) -> None:
        """Erase torrents and wait until rtwatch has finished them."""
        self.rtorrent.erase(*torrents)
        for torrent in torrents:
            self.program.wait_gone(torrent.hash)

    def let_save(self) -> None:
        """Let rtorrent save its session once rtwatch has said that it waits for that."""
        self.program.wait_line("waiting ")
        self.settle()
        self.session.save_all()

    def erase_another(self) -> None:
        """Let another torrent come and go: every grace that began before is over then."""
        self.erase(self.settle())

    def vanish(self, *torrents: Torrent) -> None:
        """Erase torrents and wait until rtwatch has seen that and recorded what their files are."""
        since = len(self.program.lines)
        self.rtorrent.erase(*torrents)
        for torrent in torrents:
            self.program.wait_line(rf"vanished .*{pattern(torrent)}", since)
            self.program.wait_rows(f"SELECT 1 FROM rtwatch_torrent WHERE recorded AND hash = '{torrent.hash}'", bool)

    def leave_vanished(self, *torrents: Torrent) -> list[Path]:
        """Download and erase torrents under an rtwatch that ends within their grace; return the paths of all files."""
        self.start(*LONG)
        paths = self.download(*torrents)
        self.vanish(*torrents)
        assert self.program.stop() == 0
        return paths

    def wait_called(self, hook: str, torrent: Torrent | None = None, count: int = 1) -> list[dict[str, Any]]:
        """Wait until a hook was called `count` times, for `torrent` if given; return its calls."""
        hash = torrent and torrent.hash
        problem = f"{hook} is not called {count} times"
        self.program.wait_for(lambda: self.hooks_called(hash).count(hook) >= count, problem)
        return [call for call in self.calls(hash) if call["hook"] == hook]

    def asked_again(self, to: str) -> None:
        """Wait until rtorrent was asked something twice more, so that what the first answer led to is done."""
        asked = self.session.asked.count(to)
        self.program.wait_for(lambda: self.session.asked.count(to) > asked + 1, f"{to} is not asked again")

    def removed(self, torrent: Torrent) -> list[Path]:
        """Return the files that post_remove was given as removed, in the one call that there was, sorted."""
        (call,) = [call for call in self.calls(torrent.hash) if call["hook"] == "post_remove"]
        return sorted(map(Path, call["removed"]["rmfiles"]))

    def shell(self, command: str) -> None:
        """Run a shell command in the directory for downloads."""
        subprocess.run(["sh", "-ec", command], cwd=self.downloads, check=True)

    def change_db(self, sql: str) -> None:
        """Change rows of the default database."""
        with closing(sqlite3.connect(self.db)) as con, con:
            con.execute(sql)

    def write_hooks(self, text: str) -> tuple[str, str]:
        """Write a hooks file, `text` behind a preamble that has note(); return the option that names it."""
        self.hooks_file.write_text(PREAMBLE + text)
        return "--hooks", str(self.hooks_file)

    def write_each(self, **bodies: str) -> tuple[str, str]:
        """Write all hooks as calls of note(), those in `bodies` followed by more; return the option."""
        hook = "def {0}({1}):\n    note({0!r}, {1})\n    {2}\n".format
        return self.write_hooks("".join(hook(*item, bodies.get(item[0], "pass")) for item in ALL_HOOKS.items()))


@contextmanager
def bed_in(place: Path, version: str = VERSIONS[0], **options: Any) -> Iterator[Bed]:
    """Give a test bed in a directory, with a running rtorrent."""
    with Session(place / "session", version, **options) as session, closing(Bed(session, place)) as bed:
        yield bed


# ---- Stories told in words -------------------------------------------------------------------------------------------


def place(bed: Bed, words: list[str]) -> Path:
    return bed.downloads.joinpath(*words[:1])


def confirm(truth: object) -> None:
    assert truth


STOP, SLOW = "os.kill(os.getpid(), 19)", {"post_add": "time.sleep(2)"}
VERBS: dict[str, Callable[[Bed, list[Torrent], list[str]], object]] = {  # each with its torrents and its other words
    "start": lambda bed, torrents, words: bed.start(*SHORT, *words, cwd=bed.downloads),
    "once": lambda bed, torrents, words: bed.start(*words, "--once", ready=False, cwd=bed.downloads).wait(),
    "data": lambda bed, torrents, words: torrents[0].write(place(bed, words)),
    "load": lambda bed, torrents, words: bed.rtorrent.add(torrents[0], place(bed, words)),
    "load-at": lambda bed, torrents, words: bed.add(torrents[0], base=place(bed, words)),
    "load-unsaved": lambda bed, torrents, words: bed.session.load(torrents[0], place(bed, words)),
    "magnet": lambda bed, torrents, words: bed.session.magnet(torrents[0], bed.downloads),
    "point": lambda bed, torrents, words: bed.session.set_directory(torrents[0], place(bed, words)),
    "called": lambda bed, torrents, words: bed.wait_called(words[0], count=int(words[1])),
    "metadata": lambda bed, torrents, words: bed.session.metadata(torrents[0], bed.downloads),
    "write": lambda bed, torrents, words: [bed.session.write(torrents[0], kind) for kind in words[0]],
    "empty-t": lambda bed, torrents, words: bed.session.file(torrents[0]).write_bytes(b""),
    # twice, so that all saves so far are worked, too: in each pass, adds come before them
    "settle": lambda bed, torrents, words: (bed.settle(), bed.settle()),
    "erase-unwaited": lambda bed, torrents, words: bed.rtorrent.erase(*torrents),
    "kill-rtorrent": lambda bed, torrents, words: bed.rtorrent.kill(),
    "start-rtorrent": lambda bed, torrents, words: bed.rtorrent.start(),
    "end-rtorrent": lambda bed, torrents, words: bed.rtorrent.shutdown(*(("d.erase", t.hash) for t in torrents)),
    "move-home": lambda bed, torrents, words: vars(bed.rtorrent).update(cwd=place(bed, words), home=place(bed, words)),
    "call": lambda bed, torrents, words: (
        isinstance(bed.rtorrent, Rtorrent)
        and bed.rtorrent.call(words[0], *([torrent.hash for torrent in torrents] or [""]), *words[1:])
    ),
    "exists": lambda bed, torrents, words: bed.program.wait_for(place(bed, words).exists, f"there is no {words[0]}"),
    "load-raw": lambda bed, torrents, words: bed.rtorrent.add(torrents[0], words[0]),
    "lists": lambda bed, torrents, words: bed.program.wait_files(
        torrents[0].hash, torrents[0].places(place(bed, words).resolve())
    ),
    "overflow": lambda bed, torrents, words: overflow(bed.rtorrent),
    "gone": lambda bed, torrents, words: bed.program.wait_gone(torrents[0].hash),
    "open": lambda bed, torrents, words: bed.session.open_files([bed.downloads / word for word in words]),
    "mount": lambda bed, torrents, words: bed.mounts.enter_context(mounted(place(bed, words), *words[1:])),
    "bind": lambda bed, torrents, words: bed.mounts.enter_context(
        mounted(place(bed, words), "--bind", place(bed, words[1:]))
    ),
    "umask": lambda bed, torrents, words: bed.mounts.callback(os.umask, os.umask(int(words[0], 8))),
    "answers": lambda bed, torrents, words: bed.session.scgi.answers.update({words[0]: int(words[1])}),
    "asked": lambda bed, torrents, words: confirm(bed.session.asked.count(words[0]) == int(words[1])),
    "lock-database": lambda bed, torrents, words: bed.mounts.enter_context(locked(bed.db)),
    "release": lambda bed, torrents, words: bed.mounts.close(),  # locks and mounts
    "start-stopping-in": lambda bed, torrents, words: bed.start(*SHORT, *bed.write_each(**{words[0]: STOP})),
    "start-with-a-slow-hook": lambda bed, torrents, words: bed.start(*SHORT, *bed.write_each(**SLOW)),
    "stops": lambda bed, torrents, words: bed.program.wait_for(
        lambda: "\nState:\tT" in Path(f"/proc/{bed.program.pid}/status").read_text(), "no hook stops rtwatch"
    ),
    "pause": lambda bed, torrents, words: bed.program.process.send_signal(signal.SIGSTOP),
    "resume": lambda bed, torrents, words: bed.program.process.send_signal(signal.SIGCONT),
    "old-data": lambda bed, torrents, words: check_call(["touch", "-d2001-1-1", *torrents[0].write(bed.downloads)]),
    "tick": lambda bed, torrents, words: pass_tick(),
    "load-stopped": lambda bed, torrents, words: bed.add(torrents[0], **STOPPED),
    "reload": lambda bed, torrents, words: bed.session.readd(torrents[0], bed.downloads),
    "known": lambda bed, torrents, words: bed.program.wait_known(torrents[0].hash),
    "save-a-piece": lambda bed, torrents, words: bed.change(torrents[0], {"bitfield": b"\x80"}),
    "save-no-piece": lambda bed, torrents, words: bed.change(torrents[0], {"bitfield": b"\0"}),
    "change-db": lambda bed, torrents, words: bed.change_db(" ".join(words)),
    "is-noted": lambda bed, torrents, words: bed.program.wait_rows(
        "SELECT 1 FROM rtwatch_torrent WHERE vanished AND NOT said", lambda rows: not rows
    ),
    "known-torrents": lambda bed, torrents, words: confirm(
        len(bed.program.select("SELECT 1 FROM torrent_data")) == int(words[0])
    ),
    "exits": lambda bed, torrents, words: confirm(bed.program.wait() == int(words[0])),
    "says": lambda bed, torrents, words: bed.program.wait_line(" ".join(words)),
    "says-only": lambda bed, torrents, words: confirm(re.fullmatch(f".*{' '.join(words)}.*\n", bed.program.output)),
    "says-once": lambda bed, torrents, words: confirm(len(re.findall(" ".join(words), bed.program.output)) == 1),
    "says-no": lambda bed, torrents, words: confirm(not re.search(" ".join(words), bed.program.output)),
}


def each_row(names: str, text: str, pattern: str = "(.*?): (.*)") -> pytest.MarkDecorator:
    """Give the rows of a table, of which an indented line goes on, to a test.

    The first group of the pattern is the id, the others are the parameters.
    """
    matches = [re.fullmatch(pattern, line) for line in re.sub(r"\n +", " ", text.strip()).splitlines()]
    assert all(matches), text
    rows = [match.groups() for match in matches if match]
    return pytest.mark.parametrize(names.split(), [row[1:] for row in rows], ids=[row[0] for row in rows])


def play(bed: Bed, story: str, **torrents: Torrent) -> None:
    """Do the steps of a story, parted by ";": a verb with its words, some of them torrents' names (also ONE, PACK and
    TWIN), or a shell command.

    A verb stands in VERBS, or is a method of the bed, of its rtorrent or of its rtwatch: that gets torrents, the words
    NAME=VALUE as keywords, and another word as `to`. "left", with the files that must be there then, ends many stories.
    """
    torrents = {"ONE": ONE, "PACK": PACK, "TWIN": TWIN, **torrents}
    for step in re.split(r";\s+", story):
        verb, *words = step.split() or [":"]
        given, words = [torrents[word] for word in words if word in torrents], [w for w in words if w not in torrents]
        name = verb.replace("-", "_")
        owners = [each for each in (bed, bed.rtorrent, *bed.started[-1:]) if hasattr(type(each), name)]
        if verb == "left":
            assert [name for name in below(bed.downloads) if not (bed.downloads / name).is_dir()] == words
        elif verb in VERBS:
            VERBS[verb](bed, given, words)
        elif owners:
            pairs = ((word if "=" in word else f"to={word}").split("=") for word in words)
            getattr(owners[0], name)(*given, **{key: int(text) if text.isdigit() else text for key, text in pairs})
        else:
            bed.shell(step)
