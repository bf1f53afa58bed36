# /// script
# requires-python = ">=3.9"
# dependencies = ["inotify_simple>=1.3", "bencode.py>=4"]
# ///
"""Watch rtorrent's session directory: index the files of its torrents, call hooks, remove what erased torrents leave.

An inotify event goes (ext, mask) -> inot_funcs[key](path) -> queues[name] -> qfuncs[name](con, path, args, queues),
and from there to sqlite, to the disk and to the user's hooks:

    HASH.torrent, HASH.torrent.rtorrent renamed into place -> saved    -> rows are written, or follow a new directory
    HASH.torrent deleted                                   -> unlinked -> the torrent is vanished, its grace begins
    the grace is over and T did not come back              -> erased   -> guards, plan, removal, rows deleted
    HASH.complete written                                  -> complete -> the user's hook

One function, `Watch.compare`, holds the session directory against the database. It serves the start, a lost event and
every pass of removals alike. A file that a loaded torrent uses is never removed; in doubt it is kept, with the reason.

The files of one torrent in the session directory: T is HASH.torrent, R is HASH.torrent.rtorrent (it names the torrent's
directory), L is HASH.torrent.libtorrent_resume.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import inspect
import itertools
import logging
import os
import re
import runpy
import shlex
import signal
import socket
import sqlite3
import stat
import sys
import time
import traceback
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque, namedtuple
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import cache, lru_cache
from pathlib import Path, PosixPath
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional
from urllib.parse import quote, urlsplit

from bencodepy import BencodeDecodeError, BencodeDecoder
from inotify_simple import INotify, flags

if TYPE_CHECKING:
    Con = sqlite3.Connection
    Args = argparse.Namespace
    Queues = OrderedDict[str, deque[Any]]
    QueueFunction = Callable[[Con, Any, Args, Queues], object]

__version__ = "0.1.0"

logger = logging.getLogger("rtwatch")


# ---- Records ---------------------------------------------------------------------------------------------------------


class Error(Exception):
    """Something the user has to mend; `main` prints it as one line and exits with `status`."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class SessionGone(Error):
    """The session directory was removed, moved, unmounted or covered by a mount."""


class Unreadable(Exception):
    """A session file that cannot be used; the text says why."""


class Refused(Unreadable):
    """A .torrent that every rtorrent refuses as well."""


class Metainfo(NamedTuple):
    """What rtwatch needs of T.

    `names` has the torrent's name by text encoding, b"" for `name` itself; `files` has lengths in bytes and paths,
    likewise. A path is joined with "/" as rtorrent joins it, below the torrent's root; one that is empty or ends in
    "/" is a file to rtorrent 0.16 only (0.9.8 makes a directory of it or nothing).
    """

    tracker: Optional[str]
    multi: bool
    names: dict[bytes, bytes]
    files: list[tuple[int, dict[bytes, bytes]]]


class Resume(NamedTuple):
    """What rtwatch needs of R: the directory string as it stands, and whether rtorrent has counted data there."""

    directory: bytes
    counted: bool


class Loaded(NamedTuple):
    """A torrent as its session files describe it; `root` is None while its directory cannot be resolved."""

    hash: str
    metainfo: Metainfo
    resume: Resume
    root: Optional[bytes]
    files: list[bytes]
    arrived: float  # Unix time of T
    blobs: tuple[bytes, Optional[bytes], bytes]


class Place(NamedTuple):
    """Where the database has a torrent: what a save is compared with, in bytes as it comes."""

    directory: bytes
    root: Optional[bytes]
    counted: bool
    vanished: Optional[float]  # Unix time at which T went


class Torrent(NamedTuple):
    """A torrent as the database knows it."""

    hash: str
    name: str
    root: Optional[Path]
    arrived: float  # Unix time of T
    counted: bool
    vanished: Optional[float]  # Unix time at which T went
    seen: Optional[bool]  # whether rtorrent was seen to erase it
    held: Optional[str]


class Lock(NamedTuple):
    """rtorrent.lock: its state is "running", "stale", "elsewhere" (another host) or "missing"."""

    state: str
    pid: int
    written: float  # Unix time


class Trouble(NamedTuple):
    """A session file that cannot be used; harmless when rtorrent has refused it as well."""

    name: str
    reason: str
    harmless: bool


class Facts(NamedTuple):
    """What the guards look at."""

    listed: Collection[str]  # hashes with any session file
    troubles: Mapping[str, Trouble]
    lock: str
    paths: bool  # whether a PATH was given
    loaded: int  # torrents
    vanished: Sequence[float]  # Unix times, in order, without those that are held because nobody saw it


class ListedFile(NamedTuple):
    """The facts about one file of a torrent; other torrents are HASH "name"."""

    path: Path
    info: Optional[os.stat_result]
    problem: Optional[str]  # why there is no info
    parent: str  # where its parent really is
    length: Optional[int]  # bytes, by the metainfo
    inherited: bool
    owners: Sequence[str]  # list it as well
    perhaps: Optional[str]  # may use it under another name
    users: Sequence[str]  # use it through a symlink


class Limits(NamedTuple):
    """What a removal respects, as far as it is the same for all files of the torrent."""

    root: Path
    session: Path
    paths: tuple[Path, ...]
    vanished: float  # Unix time
    unlinked: Set[tuple[int, int]]  # device and inode of which rtwatch has removed another name
    arrived: Optional[float]  # Unix time of T, None when the torrent counted data
    device: Optional[int]  # of the trash


RmTuple = namedtuple("RmTuple", "name tracker hash rmfiles torfiles tor ltor rtor")


# ---- What people see -------------------------------------------------------------------------------------------------

COLOURS = {"added": 36, "moved": 36, "returned": 36, "removed": 32, "trashed": 32, "failed": 31}
MAX_LINE = 2000  # characters: room for any command, none for a name of a megabyte
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4}  # of syslog(3)


def say(level: int, verb: str, what: str, *details: str) -> None:
    """Log one line about one thing: a verb, its name, details."""
    logger.log(level, "%-12s %s", verb, ", ".join([what, *details]))


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 file", "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(names: Sequence[str]) -> str:
    """Return at most three names and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def human_size(size: float) -> str:
    """Return a number of bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 999.5:  # so that there are three digits at the most
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB" if size < 999.5 else f"{size:.0f} TiB"


def printable(line: str) -> str:
    """Escape what could forge a line or move the cursor: a name may hold any byte but NUL and "/"."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


class Formatter(logging.Formatter):
    """One escaped line a message; a traceback below it is indented, so that none of its lines looks like a message."""

    def __init__(self, journal: bool, colour: bool) -> None:
        super().__init__()
        self.journal, self.colour = journal, colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: priority for the journal, time elsewhere, neither for the end of rtwatch (CRITICAL)."""
        message = printable(record.getMessage())
        lines = [message if len(message) <= MAX_LINE else message[:MAX_LINE] + "..."]
        if record.exc_info:
            lines += [f"    {printable(line)}" for line in self.formatException(record.exc_info).splitlines()]
        if self.journal:
            return "\n".join(f"<{PRIORITIES.get(record.levelno, 3)}>{line}" for line in lines)
        if record.levelno == logging.CRITICAL:
            return "rtwatch: " + "\n".join(lines)
        if self.colour:
            code = COLOURS.get(lines[0][:12].strip(), 33 if record.levelno == logging.WARNING else 0)
            lines[0] = f"\033[{code}m{lines[0][:12]}\033[m{lines[0][12:]}"
        return time.strftime("%m-%d %H:%M:%S ", time.localtime(record.created)) + "\n".join(lines)


def set_up_log(verbose: bool, quiet: bool) -> None:
    """Log to standard error, for the journal under systemd."""
    handler = logging.StreamHandler()
    terminal = sys.stderr.isatty()
    journal = "JOURNAL_STREAM" in os.environ and not terminal
    handler.setFormatter(Formatter(journal, terminal and not os.environ.get("NO_COLOR")))
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)


def show_progress(done: int, total: int) -> None:
    """Count on a terminal while a big session is read."""
    if (done % 100 == 0 or done == total) and sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
        sys.stderr.write(f"\r{done} of {count(total, 'torrent')}" if done < total else "\r\033[K")
        sys.stderr.flush()


def notify(message: str) -> None:
    """Tell the service manager, if there is one (sd_notify(3)); a manager that does not listen is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def state_directory() -> Path:
    """Return rtwatch's directory below $XDG_STATE_HOME, which must be absolute to count (XDG base directories)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "state") / "rtwatch"


def forced_command(args: Args) -> str:
    """Return the command that lets the held removals of this run go ahead."""
    options = ["-r"] if args.remove else []
    options += [f"--{name}={value}" for name, value in (("trash", args.trash), ("hooks", args.hooks)) if value]
    options += [f"--db={args.db}"] if args.db != state_directory() / "rtwatch.db" else []
    return shlex.join(["rtwatch", "--once", "--force", *options, str(args.session), *map(str, args.paths)])


def session_advice() -> str:
    """Return where rtorrent's configuration says that its session is, as far as that can be read plainly."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for file in (Path.home() / ".rtorrent.rc", config / "rtorrent" / "rtorrent.rc"):
        with suppress(OSError):
            lines = file.read_text("utf-8", "replace")
            for path in re.findall(r'^\s*(?:session\.path\.set|session)\s*=\s*"?([^"(){}$,;#\n]+?)"?\s*$', lines, re.M):
                return f"{file} says session.path.set = {path}: rtwatch {shlex.quote(path)}"
    return "name the one of session.path.set in your rtorrent.rc: rtwatch SESSION"


# ---- Metainfo and paths ----------------------------------------------------------------------------------------------

LETTERS = {".torrent": "T", ".torrent.rtorrent": "R", ".torrent.libtorrent_resume": "L"}
SESSION_NAME = re.compile(r"[0-9A-F]{40}\.torrent(\.rtorrent|\.libtorrent_resume)?")
MAX_FILE = 64 << 20  # bytes of one session file; the largest torrents in use have a few MiB
MAX_VALUES = 600_000  # in one session file: some 60,000 files, two seconds to decode and write
MAX_ENCODINGS = 8  # of one name
MAX_ELEMENTS = 256  # of one path
PATH_MAX = 4096  # bytes, of Linux
PLAIN_ENTRY = {b"length", b"path"}  # of `files`


class Decoder(BencodeDecoder):
    """bencode.py's decoder, strict in string lengths: 4.1.0 takes `-6:` and then goes back and forth for ever."""

    def decode_string(self, x: bytes, f: int, kind: str = "value", **kwargs: object) -> tuple[bytes, int]:
        """Return the string that starts at `f` and the position behind it; raise ValueError."""
        colon = x.index(b":", f)
        length = x[f:colon]
        if not length.isdigit() or (length[0] == 48 and len(length) > 1):
            raise ValueError(length)
        end = colon + 1 + int(length)
        return x[colon + 1 : end], end


DECODER = Decoder(max_depth=950)  # nearly rtorrent's own limit, and what Python's stack allows


def decode(data: bytes) -> dict[bytes, Any]:
    """Decode a bencoded dictionary without any text encoding; raise Unreadable."""
    if not data:
        raise Refused("it is empty")
    if len(data) > MAX_VALUES and data.count(b"e") + data.count(b":") > MAX_VALUES:  # every value has one of them
        raise Unreadable("it holds too many values")
    try:
        value = DECODER.decode(data)
    except BencodeDecodeError as error:
        # rtorrent is laxer (data behind the end, 007, spaces, more depth), but not about a type or an end too soon
        strict = isinstance(error.__context__, KeyError) or "not found" in str(error.__context__)
        raise (Refused if strict else Unreadable)(str(error)) from None
    if not isinstance(value, dict):
        raise Refused("it is not a bencoded dictionary")
    return value


def parse_resume(data: bytes) -> Resume:
    """Parse R; raise Unreadable. `chunks_done` counts pieces, `complete` is 0 or 1."""
    resume = decode(data)
    directory = resume.get(b"directory")
    if not isinstance(directory, bytes) or b"\0" in directory:
        raise Unreadable("it has no directory")
    return Resume(directory, bool(resume.get(b"complete") or resume.get(b"chunks_done")))


def parse_metainfo(data: bytes) -> Optional[Metainfo]:
    """Parse T; return None for the stub of a magnet link whose metadata has not come yet; raise Unreadable."""
    torrent = decode(data)
    info = torrent.get(b"info")
    if not isinstance(info, dict):
        raise Refused("it has no info dictionary")
    if info.get(b"meta_download") == 1:
        return None
    names = parse_paths(info, b"name")
    multi = b"length" not in info
    entries = info.get(b"files") if multi else [info]
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Refused("it lists no files")
    lengths = [entry.get(b"length") for entry in entries]
    if not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise Unreadable("a file's length is no number")
    paths = [parse_paths(entry, b"path") for entry in entries] if multi else [names]
    return Metainfo(parse_tracker(torrent), multi, names, list(zip(lengths, paths)))


def parse_paths(entry: dict[bytes, Any], key: bytes) -> dict[bytes, bytes]:
    """Return the path at `key` as b"", and those at `key.ENC` by ENC in lower case; raise Unreadable.

    rtorrent 0.9.8 uses the latter after `encoding.add = ENC`, 0.16 never does. Those that fail the checks are ignored.
    """
    if key == b"path" and entry.keys() == PLAIN_ENTRY:  # as most of a million are
        return {b"": join_path(entry[b"path"])}
    own = entry.get(key) if key == b"path" else [entry.get(key)]
    prefix = key + b"."
    others = [other for other in entry if other.startswith(prefix)]
    if not others:
        return {b"": join_path(own)}
    if len(others) > MAX_ENCODINGS:
        raise Unreadable("it names a file in too many encodings")
    paths = {}
    for other in others:
        with suppress(Unreadable):
            paths[other[len(prefix) :].lower()] = join_path(entry[other] if key == b"path" else [entry[other]])
    return {b"": join_path(own) if isinstance(own, list) or not paths else next(iter(paths.values())), **paths}


def join_path(elements: object) -> bytes:
    """Join path elements as rtorrent does, empty ones dropped, "/" at the end for an empty last one; raise Unreadable.

    The refused ones are those that libtorrent refuses (`is_valid_path_element`).
    """
    if not isinstance(elements, list) or not elements:
        raise Refused("a file has no path")
    if len(elements) > MAX_ELEMENTS:
        raise Unreadable("a path has too many elements")
    try:
        path = b"/".join(elements)
    except TypeError:
        raise Refused("a file name is no string") from None
    inside = path.count(b"/") >= len(elements)  # more than the joints
    if inside or b"." in elements or b".." in elements or b"\0" in path:
        raise Refused(f"{str(path)[:40]} is not a path of file names")
    if b"" in elements:
        path = b"/".join(filter(None, elements))
        path += b"/" if path and not elements[-1] else b""
    return path


def parse_tracker(torrent: dict[bytes, Any]) -> Optional[str]:
    """Return the host name of `announce`, else of the first tier of `announce-list` that has one, else None."""
    tiers = torrent.get(b"announce-list")
    lists = [[torrent.get(b"announce")], *(tiers if isinstance(tiers, list) else ())]
    urls = itertools.chain.from_iterable(tier for tier in lists if isinstance(tier, list))
    found = (find_host(url) for url in itertools.islice(urls, 100) if isinstance(url, bytes) and len(url) < 2000)
    return next(filter(None, found), None)


@lru_cache(maxsize=100)  # thousands of torrents have few trackers
def find_host(url: bytes) -> Optional[str]:
    """Return the host name of a URL, None when it has none."""
    try:
        return urlsplit(url.decode("utf-8", "replace")).hostname
    except ValueError:
        return None


def resolve_root(directory: bytes, pid: int) -> Optional[bytes]:
    """Return the real path of a `directory` string of R, or None while it cannot be known.

    A leading "~" is the HOME of the rtorrent process `pid` (0 when none runs), a relative path starts at its working
    directory (measured with 0.9.8 and 0.16.20).
    """
    if not directory.startswith(b"/"):
        try:
            if directory.startswith(b"~"):
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                directory = next(v[5:] for v in environment if v.startswith(b"HOME=/")) + directory[1:]
            else:
                if os.stat(f"/proc/{pid}/cwd").st_nlink == 0:  # it was removed
                    return None
                directory = os.readlink(f"/proc/{pid}/cwd".encode()) + b"/" + directory
        except (OSError, StopIteration):
            return None
    return os.path.realpath(directory)


def locate_files(metainfo: Metainfo, directory: bytes, root: bytes, session: bytes) -> list[bytes]:
    """Return the canonical path of every file: the real path of its parent, plus its name. Skip what is in `session`.

    Where encodings give different names, a multi-file torrent's directory tells which is likely, then what exists on
    disk; of what neither tells, all are listed.
    """

    @cache
    def resolve(parent: bytes) -> bytes:
        """Return the real path of a directory below the root, "/" at its end; what does not exist stays as it is."""
        path = root
        if parent:
            above, _, name = parent.rpartition(b"/")
            path = resolve(above) + name
            path = os.path.realpath(path) if os.path.islink(path) else path
        return path.rstrip(b"/") + b"/"

    def place(path: bytes) -> list[bytes]:
        """Return the canonical path of one file; nothing when it is no file to the rtorrent that wrote here."""
        parent, _, name = path.rstrip(b"/").rpartition(b"/")
        file = resolve(parent) + name if name else root
        known = (name and not path.endswith(b"/")) or is_data(look_at(os.fsdecode(file))[0])
        return [file] if known and len(file) <= PATH_MAX else []

    last = os.path.basename(directory.rstrip(b"/"))
    own = metainfo.names[b""]
    files: list[bytes] = []
    for _, paths in metainfo.files:
        if len(paths) == 1:
            files += place(paths[b""])
            continue
        every = [file for path in dict.fromkeys(paths.values()) for file in place(path)]
        if len(every) > 1:  # rtorrent chooses the encoding for each name by itself
            told = [path for key, path in paths.items() if metainfo.multi and metainfo.names.get(key, own) == last]
            likely = [file for path in told for file in place(path)] or every
            every = [f for f in likely if os.path.lexists(f)] or [f for f in every if os.path.lexists(f)] or likely
        files += every
    inside = session + b"/"
    return [file for file in dict.fromkeys(files) if not file.startswith(inside)]


def is_below(path: Path, directory: Path) -> bool:
    """Tell whether `path` lies below `directory`; both are canonical."""
    inside = str(directory).rstrip("/") + "/"
    return str(path).startswith(inside) and str(path) != inside


def text(name: bytes) -> str:
    """Return a torrent's name as text."""
    return name.decode("utf-8", "replace")


def fold(name: bytes) -> str:
    """Return a name or path for comparison without regard to case, as some file systems do."""
    return text(name).casefold()


# ---- Reading session and disk ----------------------------------------------------------------------------------------

GONE = "already gone"


def read_session_file(path: str | Path) -> bytes:
    """Read a session file; raise Unreadable (no regular file, too big, no permission), FileNotFoundError or OSError."""
    try:
        with open(path, "rb", 0, opener=lambda name, mode: os.open(name, mode | os.O_NONBLOCK)) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise Unreadable("it is not a regular file")
            if info.st_size > MAX_FILE:
                raise Unreadable(f"it is larger than {human_size(MAX_FILE)}")
            return file.read()
    except (PermissionError, IsADirectoryError) as error:
        raise Unreadable(str(error.strerror)) from None


def file_system(path: Path) -> str:
    """Return the type of the file system that a path lies on, "" when that is not known (proc(5), mountinfo)."""
    with suppress(OSError):
        device = path.stat().st_dev
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            if line.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                return line.split(" - ")[1].split()[0]
    return ""


def read_lock(session: Path) -> Lock:
    """Read rtorrent.lock (`HOST:+PID`): stale when it names this host and no rtorrent runs under that number."""
    path = session / "rtorrent.lock"
    try:
        written = path.stat().st_mtime
        host, _, pid = path.read_bytes().decode("ascii", "replace").strip().partition(":+")
    except FileNotFoundError:
        return Lock("missing", 0, 0)
    except OSError:
        return Lock("elsewhere", 0, 0)
    if host != socket.gethostname() or not pid.isdecimal():
        return Lock("elsewhere", 0, written)
    try:
        running = Path(f"/proc/{pid}/comm").read_bytes().startswith(b"rtorrent")
    except OSError:
        running = False
    return Lock("running", int(pid), written) if running else Lock("stale", 0, written)


def find_root(directory: bytes, session: Path) -> Optional[bytes]:
    """Return the real root of a torrent; the lock is read only when the process takes part in it."""
    return resolve_root(directory, 0 if directory.startswith(b"/") else read_lock(session).pid)


def read_loaded(session: Path, hash: str, r_data: bytes, resume: Resume) -> Optional[Loaded]:
    """Read T and L of a torrent whose R is given; return None for a magnet's stub; raise as read_session_file does."""
    t_path = f"{session}/{hash}.torrent"
    data = read_session_file(t_path)
    metainfo = parse_metainfo(data)
    if metainfo is None:
        return None
    try:
        l_data = read_session_file(f"{t_path}.libtorrent_resume")
    except (OSError, Unreadable):
        l_data = None
    root = find_root(resume.directory, session)
    files = locate_files(metainfo, resume.directory, root, os.fsencode(session)) if root else []
    return Loaded(hash, metainfo, resume, root, files, os.stat(t_path).st_mtime, (data, l_data, r_data))


def list_session(session: Path) -> dict[str, str]:
    """List the session directory once: for every hash that has session files, their letters T, R, L; raise OSError."""
    found: dict[str, str] = {}
    for name in os.listdir(session):
        hash, letter = name[:40], LETTERS.get(name[40:])
        if letter and (hash in found or SESSION_NAME.fullmatch(name)):
            found[hash] = found.get(hash, "") + letter
    return found


def is_data(info: Optional[os.stat_result]) -> bool:
    """Tell whether there is a regular file."""
    return info is not None and stat.S_ISREG(info.st_mode)


def look_at(path: str | Path) -> tuple[Optional[os.stat_result], Optional[str]]:
    """Return the lstat of a file, or why there is none."""
    try:
        return os.lstat(path), None
    except (FileNotFoundError, NotADirectoryError):
        return None, GONE
    except OSError as error:
        return None, f"cannot be looked at: {error.strerror}"


def find_links(files: Iterable[bytes]) -> set[bytes]:
    """Return every path that the symlinks among `files` lead through, the last target included.

    A directory of many listed files is read once, which tells the types, rather than asking for each file.
    """
    by_parent: dict[bytes, list[bytes]] = {}
    for file in files:
        by_parent.setdefault(file.rpartition(b"/")[0] or b"/", []).append(file)
    links: list[bytes] = []
    for parent, listed in by_parent.items():
        if len(listed) <= 8:
            links += filter(os.path.islink, listed)
        else:
            with suppress(OSError), os.scandir(parent) as entries:
                links += {entry.path for entry in entries if entry.is_symlink()}.intersection(listed)
    hops = set()
    for hop in links:
        with suppress(OSError):  # readlink fails at the end of the chain
            for _ in range(40):  # the kernel's own limit
                target = os.path.join(os.path.dirname(hop), os.readlink(hop))
                hop = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))
                hops.add(hop)
    return hops


# ---- Database --------------------------------------------------------------------------------------------------------

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE torrent_data(hash TEXT PRIMARY KEY, name TEXT, tracker TEXT, torrent BLOB, libtorrent BLOB, rtorrent BLOB);
CREATE TABLE session_file(
    hash TEXT NOT NULL REFERENCES torrent_data(hash) ON DELETE CASCADE, file PATH BLOB NOT NULL,
    PRIMARY KEY (hash, file));
CREATE INDEX session_file_file ON session_file(file);
CREATE TABLE rtwatch_torrent(
    hash TEXT PRIMARY KEY REFERENCES torrent_data(hash) ON DELETE CASCADE, directory BLOB, root PATH BLOB,
    folded_name TEXT, largest TEXT, arrived REAL, counted INTEGER, vanished REAL, seen INTEGER, held TEXT);
CREATE INDEX rtwatch_torrent_root ON rtwatch_torrent(root);
CREATE INDEX rtwatch_torrent_folded_name ON rtwatch_torrent(folded_name);
CREATE INDEX rtwatch_torrent_largest ON rtwatch_torrent(largest);
CREATE INDEX rtwatch_torrent_vanished ON rtwatch_torrent(vanished) WHERE vanished IS NOT NULL;
CREATE INDEX rtwatch_torrent_unseen ON rtwatch_torrent(vanished) WHERE seen = 0;
CREATE INDEX rtwatch_torrent_counted ON rtwatch_torrent(counted) WHERE NOT counted;
CREATE TABLE rtwatch_link(
    hash TEXT NOT NULL REFERENCES torrent_data(hash) ON DELETE CASCADE, file PATH BLOB NOT NULL, inherited INTEGER,
    PRIMARY KEY (hash, file));
CREATE INDEX rtwatch_link_file ON rtwatch_link(file);
CREATE TABLE rtwatch_session(path BLOB);
"""
KNOWN = "FROM rtwatch_torrent JOIN torrent_data USING (hash)"
MINUTE = 60.0  # seconds: between two looks for what cannot be known yet; what vanishes within one belongs together


def connect(path: str | os.PathLike[str], **options: Any) -> Con:
    """Open a database of rtwatch so that `session_file.file` is read as a Path and written from one."""
    sqlite3.register_adapter(PosixPath, os.fsencode)
    sqlite3.register_converter("path", lambda value: Path(os.fsdecode(value)))
    con: Con = sqlite3.connect(path, detect_types=sqlite3.PARSE_DECLTYPES, **options)
    con.execute("PRAGMA foreign_keys = ON")
    return con


def query(con: Con, sql: str, *values: Any) -> sqlite3.Cursor:
    """Run one statement; its rows are tuples whatever `row_factory` a hook has set."""
    cursor = con.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, values)


def open_database(args: Args) -> Con:
    """Open the index of this session, made when it is missing, as a temporary copy with -n; raise Error."""
    db = args.db
    try:
        present = db.exists() and db.stat().st_size > 0
        # leaves no file behind: without a -wal it has no writer and cannot change
        mode = "mode=ro" if Path(f"{db}-wal").exists() else "immutable=1"
        with closing(connect(f"file:{quote(os.fsencode(db))}?{mode}", uri=True) if present else connect("")) as disk:
            present = is_index(disk, db, args.session)
            if args.no_action:
                con = connect("")
                disk.backup(con)
        if not args.no_action:
            db.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(db, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # -wal and -shm get the same mode
            con = connect(db)
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("PRAGMA synchronous = NORMAL")
        if not present:
            con.execute("BEGIN")
            for statement in SCHEMA.split(";"):
                con.execute(statement)
            con.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            con.execute("INSERT INTO rtwatch_session VALUES (?)", (os.fsencode(args.session),))
            con.commit()
        return con
    except (sqlite3.Error, OSError) as error:
        raise unusable(db, error) from None


def is_index(disk: Con, db: Path, session: Path) -> bool:
    """Tell whether `disk` is an index of this session, or nothing yet; raise Error for any other database."""
    version = disk.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and not disk.execute("SELECT 1 FROM sqlite_master").fetchone():
        return False
    if version != SCHEMA_VERSION:
        raise Error(f"{db}: not a database of this version of rtwatch; choose another: --db {db}.new")
    row = disk.execute("SELECT path FROM rtwatch_session").fetchone() or (b"no session",)
    owner = Path(os.fsdecode(row[0]))
    if owner != session:
        other = db.with_name(f"{db.stem}-{session.parent.name or 'root'}{db.suffix}")
        raise Error(f"{db}: this is the index of {owner}; for {session} add --db {other}")
    return True


def unusable(db: Path, error: Exception) -> Error:
    """Return the Error for a database that does not work; it is only an index and can be moved away."""
    advice = "mend that, or choose another place with --db"
    if not isinstance(error, (sqlite3.OperationalError, OSError)):
        advice = f"move it away and it is built anew: mv {shlex.quote(str(db))} {shlex.quote(str(db))}.bad"
    return Error(f"{db}: the database cannot be used ({error}); {advice}")


def find_place(con: Con, hash: str) -> Optional[Place]:
    """Return the place of a torrent, None when it is not known."""
    sql = f"SELECT directory, CAST(root AS BLOB), counted, vanished {KNOWN} WHERE hash = ?"  # cast: not as a Path
    row = query(con, sql, hash).fetchone()
    return row and Place(*row)


def find_torrent(con: Con, hash: str) -> Optional[Torrent]:
    """Return the torrent of this info-hash, None when it is not known."""
    columns = "hash, name, root, arrived, counted, vanished, seen, held"
    row = query(con, f"SELECT {columns} {KNOWN} WHERE hash = ?", hash).fetchone()
    return row and Torrent(*row)


def find_hashes(con: Con, where: str, *values: Any) -> list[str]:
    """Return the hashes of the torrents for which an SQL condition on `rtwatch_torrent` holds."""
    return [row[0] for row in query(con, f"SELECT hash FROM rtwatch_torrent WHERE {where}", *values)]


def find_blobs(con: Con, hash: str) -> Any:
    """Return tracker, T, L and R of a torrent as they are stored, None when it is not known."""
    sql = "SELECT tracker, torrent, libtorrent, rtorrent FROM torrent_data WHERE hash = ?"
    return query(con, sql, hash).fetchone()


def find_files(con: Con, hash: str) -> list[Path]:
    """Return the files of a torrent in the order of their paths."""
    return [row[0] for row in query(con, "SELECT file FROM session_file WHERE hash = ? ORDER BY file", hash)]


def find_users(con: Con, table: str, hash: str) -> dict[Path, list[str]]:
    """Return the other torrents, as HASH "name", that have files of a torrent, or what it inherited, in `table`.

    One whose row in `torrent_data` somebody has deleted counts as well; its next save or start writes it anew.
    """
    sql = f"""SELECT file, hash || ' "' || coalesce(name, '?') || '"' FROM {table} LEFT JOIN torrent_data USING (hash)
              WHERE hash <> ? AND file IN (SELECT file FROM session_file WHERE hash = ?
                                           UNION ALL SELECT file FROM rtwatch_link WHERE hash = ? AND inherited)"""
    users: dict[Path, list[str]] = {}
    for file, user in query(con, sql, hash, hash, hash):
        users.setdefault(file, []).append(user)
    return users


def is_used_directory(con: Con, directory: Path, hash: str) -> bool:
    """Tell whether another torrent than `hash` has its root or a file at or below `directory`."""
    low, high = os.fsencode(directory) + b"/", os.fsencode(directory) + b"0"  # "0" follows "/"
    sql = """SELECT 1 FROM rtwatch_torrent WHERE (root = ? OR root > ? AND root < ?) AND hash <> ?
             UNION ALL SELECT 1 FROM session_file WHERE (file > ? AND file < ?) AND hash <> ? LIMIT 1"""
    return query(con, sql, directory, low, high, hash, low, high, hash).fetchone() is not None


def insert_torrent(con: Con, loaded: Loaded) -> None:
    """Write all rows of a torrent, over those of a vanished one; what other tables refer to stays."""
    hash, metainfo, resume, root, files, arrived, blobs = loaded
    name = metainfo.names[b""]
    _, paths = max(metainfo.files, key=lambda file: file[0])
    sql = """INSERT INTO torrent_data VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET name = excluded.name,
             tracker = excluded.tracker, torrent = excluded.torrent, libtorrent = excluded.libtorrent,
             rtorrent = excluded.rtorrent"""
    query(con, sql, hash, text(name), metainfo.tracker, *blobs)
    sql = "INSERT OR REPLACE INTO rtwatch_torrent VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)"
    largest = fold(os.path.basename(paths[b""]))
    query(con, sql, hash, resume.directory, root, fold(name), largest, arrived, resume.counted)
    insert_files(con, hash, files)


def insert_files(con: Con, hash: str, files: Sequence[bytes]) -> None:
    """Replace the files of a torrent, and what their symlinks lead through."""
    query(con, "DELETE FROM session_file WHERE hash = ?", hash)
    con.executemany("INSERT INTO session_file VALUES (?, ?)", ((hash, file) for file in files))
    insert_links(con, hash, files)


def insert_links(con: Con, hash: str, files: Iterable[bytes]) -> None:
    """Replace what the symlinks among the files of a torrent lead through; what it has inherited stays."""
    query(con, "DELETE FROM rtwatch_link WHERE hash = ? AND NOT inherited", hash)
    hops = ((hash, file) for file in find_links(files))
    con.executemany("INSERT OR IGNORE INTO rtwatch_link VALUES (?, ?, FALSE)", hops)


def update_links(con: Con, hash: str) -> None:
    """Look anew where the files of a torrent lead: some became symlinks after its rows were written."""
    insert_links(con, hash, map(os.fsencode, find_files(con, hash)))


def update_vanished(con: Con, hash: str, when: float, seen: Optional[bool]) -> None:
    """Record that T is gone. Whoever deletes session files by hand makes the minute around it suspect as well."""
    sql = "UPDATE rtwatch_torrent SET vanished = ?, seen = ?, held = NULL WHERE hash = ?"
    query(con, sql, when, seen, hash)
    if find_hashes(con, "seen = 0 AND vanished BETWEEN ? AND ? LIMIT 1", when - MINUTE, when + MINUTE):
        sql = "UPDATE rtwatch_torrent SET seen = 0 WHERE seen = 1 AND vanished BETWEEN ? AND ?"
        query(con, sql, when - MINUTE, when + MINUTE)


# ---- Planning --------------------------------------------------------------------------------------------------------

PRESENT = "session files of it are there"
HOOK_FAILED = "its pre_remove hook failed; it is called again at the next start"
WIPE = "so many at once look like a wiped session, not like erased torrents"
UNSEEN = "?"  # stands among the deleted names where events were lost


def was_erased(names: Sequence[str], hash: str, had_resume: bool) -> Optional[bool]:
    """Tell from the last three deletions whether rtorrent erased `hash`, None where events were lost.

    Both versions of rtorrent unlink L (when there is one), R, T and nothing between.
    """
    erase = (f"{hash}.torrent.libtorrent_resume", f"{hash}.torrent.rtorrent", f"{hash}.torrent")
    if tuple(names) == erase or (not had_resume and tuple(names[-2:]) == erase[1:]):
        return True
    return None if UNSEEN in names else False


def guard(torrent: Torrent, facts: Facts, forced: bool) -> Optional[str]:
    """Return why a vanished torrent cannot be finished now, None when nothing speaks against it."""
    if torrent.held == WIPE and not forced:
        return WIPE  # it remains one when the session grows again
    if torrent.hash in facts.listed:
        return PRESENT
    if forced:
        return None
    # what is for ever comes before what may change
    if torrent.seen == 0:
        return "rtorrent was not seen to erase it, or others that vanished within a minute of it"
    # seen: not the whole of more than ten; else not more than half, nor the last one
    when = torrent.vanished or 0
    group = bisect_right(facts.vanished, when + MINUTE) - bisect_left(facts.vanished, when - MINUTE)
    if facts.loaded == 0 and group > 10 if torrent.seen else group > facts.loaded:
        return WIPE
    # where events were lost, rtorrent runs at least
    if torrent.seen is None and facts.lock not in ("running", "elsewhere"):
        return f"nobody knows who deleted its session files, and rtorrent.lock is {facts.lock}"
    # every torrent in the directory is known, a stub, or unreadable to rtorrent as well
    harmful = next((trouble for trouble in facts.troubles.values() if not trouble.harmless), None)
    if harmful:
        return f"rtorrent may have loaded what cannot be read here: {harmful.name}, {harmful.reason}"
    # rtorrent in a container or on another machine may see other paths
    return "rtorrent.lock names another host; name a PATH" if facts.lock == "elsewhere" and not facts.paths else None


def is_allowed(path: Path, limits: Limits) -> bool:
    """Tell whether rtwatch may act on `path` at all: below a PATH, when any is given, and not in the session."""
    allowed = not limits.paths or any(is_below(path, directory) for directory in limits.paths)
    return allowed and not is_below(path, limits.session)


def rule_shared(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what another torrent lists, be it vanished or held."""
    return f"also in {file.owners[0]}" if file.owners else None


def rule_outside(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what lies outside PATH or the torrent's root, or in the session directory; an inherited file has no root."""
    if not is_allowed(file.path, limits):
        return "in the session directory" if is_below(file.path, limits.session) else "outside PATH"
    return None if file.inherited or is_below(file.path, limits.root) else "outside the torrent's directory"


def rule_moved(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what is reached by another way than when it was listed: a directory was replaced by a symlink."""
    return None if file.parent == os.path.dirname(file.path) else "its directory is a symlink now"


def rule_gone(file: ListedFile, limits: Limits) -> Optional[str]:
    """Leave out what is not there or cannot be looked at."""
    return file.problem


def rule_type(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep directories, pipes, sockets and devices."""
    usual = file.info and stat.S_IFMT(file.info.st_mode) in (stat.S_IFREG, stat.S_IFLNK)
    return None if usual else "not a regular file"


def rule_device(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what cannot be renamed into the trash."""
    other = limits.device is not None and file.info is not None and file.info.st_dev != limits.device
    return "on another file system than the trash" if other else None


def rule_perhaps(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what may be another torrent's under a name that rtwatch does not know."""
    return f"perhaps in {file.perhaps}" if file.perhaps else None


def rule_longer(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what is longer than the metainfo says: rtorrent never makes it so."""
    longer = file.info and is_data(file.info) and file.length is not None and file.info.st_size > file.length
    return "longer than the torrent says" if longer else None


def rule_modified(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what somebody wrote to, or put there, when rtorrent no longer did.

    The ctime tells of an older file moved into its place; it also changes when another hard link goes.
    """
    if file.info is None:
        return None
    single = file.info.st_nlink == 1 and (file.info.st_dev, file.info.st_ino) not in limits.unlinked
    changed = max(file.info.st_mtime, file.info.st_ctime) if single else file.info.st_mtime
    return "modified after the torrent vanished" if changed > limits.vanished else None


def rule_older(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what was there before a torrent that never counted any data: a person's own file that it merely names."""
    older = file.info is not None and limits.arrived is not None and file.info.st_mtime < limits.arrived
    return "older than the torrent, which never counted data" if older else None


def rule_linked(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what another torrent uses through a symlink. As the last rule it tells who inherits the file."""
    return f"used by a symlink in {file.users[0]}" if file.users else None


RULES = (
    *(rule_shared, rule_outside, rule_moved, rule_gone, rule_type, rule_device),
    *(rule_perhaps, rule_longer, rule_modified, rule_older, rule_linked),
)


def plan_removal(files: Sequence[ListedFile], limits: Limits) -> list[tuple[ListedFile, Optional[str]]]:
    """Return every file with the reason to keep it, which the first rule that has one gives; None: remove it."""
    return [(file, next(filter(None, (rule(file, limits) for rule in RULES)), None)) for file in files]


def plan_directories(files: Iterable[Path], name: str, limits: Limits) -> list[Path]:
    """Return the directories that may have become empty, deepest first; the root only if it bears `name`."""
    own = text(os.fsencode(limits.root.name)) == name
    found: set[Path] = set()
    for path in {file.parent for file in files}:
        while path not in found and is_allowed(path, limits):
            if not (is_below(path, limits.root) or (own and path == limits.root)):
                break
            found.add(path)
            path = path.parent
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


class Claim(NamedTuple):
    """A file that another torrent may have under a name that rtwatch does not know."""

    torrent: str  # HASH "name"
    tail: str  # "/" and its path below the root, folded
    place: Optional[str]  # where rtwatch knows it, None when the root is not known
    length: int  # bytes
    unsaved: bool  # rtorrent may have it elsewhere since it last saved R


def read_claims(con: Con, hashes: Iterable[str], session: Path, vanished: float) -> dict[str, list[Claim]]:
    """Return the claims of torrents, by folded file name, on what another leaves that vanished then (Unix time)."""
    claims: dict[str, list[Claim]] = {}
    for hash in hashes:
        sql = f"SELECT name, directory, root, torrent {KNOWN} WHERE hash = ?"
        name, directory, root, data = query(con, sql, hash).fetchone()
        now = find_root(directory, session)  # a symlink may lead elsewhere since
        roots = {str(root) if root else None, os.fsdecode(now) if now else None}
        info, _ = look_at(session / f"{hash}.torrent.rtorrent")
        unsaved = info is None or info.st_mtime < vanished
        metainfo = parse_metainfo(data)
        for length, paths in metainfo.files if metainfo else ():
            for path, place in itertools.product(paths.values(), roots):
                known = os.path.join(place, os.fsdecode(path)) if place else None
                claim = Claim(f'{hash} "{name}"', "/" + fold(path), known, length, unsaved)
                claims.setdefault(os.path.basename(claim.tail), []).append(claim)
    return claims


def is_claimed(file: Path, info: os.stat_result, claim: Claim) -> bool:
    """Tell whether a claim is on `file`, which has its name: it is the same directory entry by another way, or, when
    what was recorded is missing or too short, one that the torrent was pointed at and that rtorrent has not saved yet.
    What lies in a place that is not known may be a symlink to a file in any directory."""
    if claim.place is None:
        return True
    if not fold(os.fsencode(file)).endswith(claim.tail):
        return False
    if is_same_entry(file, info, claim.place):
        return True
    try:
        return claim.unsaved and os.stat(claim.place).st_size < claim.length  # be it behind a symlink
    except OSError:
        return True


def is_same_entry(file: Path, info: os.stat_result, place: str) -> bool:
    """Tell whether two paths lead to one directory entry: through a symlink, a bind mount or in another case."""
    try:
        if os.path.islink(place):
            return os.fsencode(file) in find_links([os.fsencode(place)])
        same = os.path.samestat(os.lstat(place), info)
        return same and (info.st_nlink == 1 or os.path.samefile(file.parent, os.path.dirname(place)))
    except OSError:
        return False


def read_listed(
    con: Con, torrent: Torrent, t_data: bytes, session: Path, files: Collection[tuple[Path, bool]]
) -> list[ListedFile]:
    """Look at files of a torrent, each with whether it is inherited, and at who else may use them."""
    real_path = cache(os.path.realpath)
    metainfo = parse_metainfo(t_data)
    lengths = {}
    for length, paths in metainfo.files if metainfo else ():
        for path in paths.values():
            parent, name = os.path.split(os.path.join(torrent.root or "", os.fsdecode(path)).rstrip("/"))
            lengths[os.path.join(real_path(parent), name)] = length
    folded = {file: fold(os.path.basename(os.fsencode(file))) for file, _ in files}
    names = sorted({*folded.values()})
    suspects = set(find_hashes(con, "folded_name = ? OR root IS NULL", torrent.name.casefold()))
    for part in (names[start : start + 500] for start in range(0, len(names), 500)):  # sqlite's limit was 999
        suspects.update(find_hashes(con, f"largest IN ({', '.join('?' * len(part))})", *part))
    claims = read_claims(con, sorted(suspects - {torrent.hash}), session, torrent.vanished or 0)
    owners, users = (find_users(con, table, torrent.hash) for table in ("session_file", "rtwatch_link"))
    listed = []
    for file, inherited in files:
        info, problem = look_at(file)
        owned, used = owners.get(file, ()), users.get(file, ())
        found = (claim for claim in claims.get(folded[file], ()) if claim.torrent not in (*owned, *used))
        perhaps = next((claim.torrent for claim in found if info and is_claimed(file, info, claim)), None)
        where = real_path(os.path.dirname(file)), lengths.get(str(file))
        listed.append(ListedFile(file, info, problem, *where, inherited, owned, perhaps, used))
    return listed


# ---- Acting on disk: every unlink, rename and rmdir ------------------------------------------------------------------


@contextmanager
def opened_parent(path: Path) -> Iterator[int]:
    """Open the parent of `path`; raise OSError when it is reached by another way than it was recorded."""
    parent = os.path.dirname(path)
    fd = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != parent:
            raise OSError(f"{parent} was replaced meanwhile")
        yield fd
    finally:
        os.close(fd)


def remove_file(file: ListedFile, target: Optional[Path]) -> None:
    """Unlink one file, still the one that was looked at, or rename it to `target`, where nothing is; raise OSError."""
    name = file.path.name
    with opened_parent(file.path) as parent:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if file.info is None or not os.path.samestat(info, file.info) or info.st_mtime_ns != file.info.st_mtime_ns:
            raise OSError("it was changed meanwhile")
        if target is None:
            os.unlink(name, dir_fd=parent)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise OSError(f"{target} is there already")
        os.rename(name, target, src_dir_fd=parent)


def is_left_empty(directory: Path, removed: set[Path]) -> bool:
    """Tell whether nothing is in a real directory but what is `removed` (with -n only in words); no mount point."""
    try:
        with os.scandir(directory) as entries:
            mounted = os.lstat(directory).st_dev != os.lstat(directory.parent).st_dev
            return not mounted and all(directory / entry.name in removed for entry in entries)
    except OSError:
        return False


def make_trash(trash: Path, torrent: Torrent, metainfo: bytes) -> Path:
    """Make a new directory HASH, else HASH.2 and so on, in the trash, with the .torrent in it; raise OSError."""
    names = itertools.chain([torrent.hash], (f"{torrent.hash}.{number}" for number in itertools.count(2)))
    directory = next(path for path in map(trash.joinpath, names) if not os.path.lexists(path))
    directory.mkdir(mode=0o700)
    stem = torrent.name.replace("/", "_").encode()[:200].decode("utf-8", "ignore")
    file = directory / f"{stem}.torrent"
    try:
        file.write_bytes(metainfo)
    except OSError:
        file.unlink(missing_ok=True)
        directory.rmdir()
        raise
    return directory


class Removal:
    """The removal of the files of one erased torrent, as far as it went; `freed` counts bytes on disk."""

    def __init__(self, con: Con, args: Args, torrent: Torrent, t_data: bytes, unlinked: set[tuple[int, int]]) -> None:
        self.con, self.args, self.torrent, self.t_data, self.unlinked = con, args, torrent, t_data, unlinked
        planned, done = ("would trash", "trashed") if args.trash else ("would remove", "removed")
        self.verb = planned if args.no_action else done
        self.files = find_files(con, torrent.hash)
        self.todo = deque((file, False) for file in self.files)
        sql = "SELECT file, TRUE FROM rtwatch_link WHERE hash = ? AND inherited"  # it is the last one to use them
        self.todo.extend(query(con, sql, torrent.hash))
        self.removed: list[Path] = []
        self.kept: dict[str, list[Path]] = {}
        self.directories: dict[Path, Optional[str]] = {}  # and why one could not be removed
        self.freed = 0
        self.trash: Optional[Path] = None
        self.limits = Limits(
            root=torrent.root or args.session,
            session=args.session,
            paths=args.paths,
            vanished=torrent.vanished or 0,
            unlinked=unlinked,
            arrived=None if torrent.counted else torrent.arrived,
            device=args.trash.stat().st_dev if args.trash else None,
        )

    def plan(self) -> list[tuple[ListedFile, Optional[str]]]:
        """Decide on the files that are still to do by what is true now."""
        listed = read_listed(self.con, self.torrent, self.t_data, self.args.session, self.todo)
        return plan_removal(listed, self.limits)

    def carry_out(self, file: ListedFile, reason: Optional[str]) -> None:
        """Remove one file or keep it; what fails is kept, with its reason. -n changes nothing here."""
        if file.info and reason is None:
            try:
                if not self.args.no_action:
                    remove_file(file, self.trash_place(file) if self.args.trash else None)
                self.removed.append(file.path)
                if file.info.st_nlink > 1:
                    self.unlinked.add((file.info.st_dev, file.info.st_ino))
                self.freed += file.info.st_blocks * 512 if file.info.st_nlink == 1 or self.args.trash else 0
                return
            except FileNotFoundError:
                reason = GONE
            except OSError as error:
                reason = f"cannot be removed: {error.strerror or error}"
        if reason == rule_linked(file, self.limits):
            query(self.con, "UPDATE rtwatch_link SET inherited = TRUE WHERE file = ?", file.path)
            self.con.commit()
        self.kept.setdefault(reason or GONE, []).append(file.path)

    def trash_place(self, file: ListedFile) -> Path:
        """Return where a file goes in the trash: as it lay below the torrent's root, or below "linked" if inherited."""
        self.trash = self.trash or make_trash(self.args.trash, self.torrent, self.t_data)
        if is_below(file.path, self.limits.root):
            return self.trash / file.path.relative_to(self.limits.root)
        return self.trash / "linked" / str(len(self.removed)) / file.path.name

    def prune(self) -> None:
        """Remove the directories that removed and missing files leave empty, from the deepest up."""
        needed = [Path(os.path.expanduser("~")), self.args.session, *self.args.paths]
        gone = {*self.removed, *self.kept.get(GONE, ())}
        for directory in plan_directories(gone, self.torrent.name, self.limits):
            if any(directory == path or is_below(path, directory) for path in needed):
                continue
            if is_used_directory(self.con, directory, self.torrent.hash) or not is_left_empty(directory, gone):
                continue
            try:
                if not self.args.no_action:
                    with opened_parent(directory) as parent:
                        os.rmdir(directory.name, dir_fd=parent)
                gone.add(directory)
                self.directories[directory] = None
            except OSError as error:
                self.directories[directory] = f"cannot be removed: {error.strerror or error}"

    def report(self) -> None:
        """Say what became of the torrent: one line, and one below it for every reason to keep files."""
        name, root = self.torrent.name, self.limits.root
        total = count(len(self.removed) + sum(map(len, self.kept.values())) or len(self.files), "file")
        if self.removed:
            place = self.trash if self.args.verbose else f"{self.args.trash}/{self.torrent.hash[:8]}*"
            where = [f"in {place}"] if self.trash else []
            say(logging.INFO, self.verb, name, f"{len(self.removed)} of {total}", human_size(self.freed), *where)
        elif self.torrent.root is None:
            say(logging.INFO, "erased", name, "where its files are is not known")
        else:
            say(logging.INFO, "erased", name, f"none of {total} to remove" if self.args.remove else f"leaves {total}")
        gone = [*map(str, self.removed), *(f"{path}/" for path, reason in self.directories.items() if not reason)]
        for line in gone:
            say(logging.DEBUG, f"  {self.verb}", line)
        if self.files and set(self.files) <= set(self.kept.get(GONE, ())):
            missing = f"none of its {len(self.files)} files is at {root}"
            say(logging.WARNING, "  kept", f"{missing}: moved, or its disk is not mounted")
            self.kept[GONE] = [path for path in self.kept[GONE] if path not in self.files]  # what it has inherited
        for path, failure in self.directories.items():
            if failure:
                self.kept.setdefault(failure, []).append(path)
        for reason, paths in self.kept.items():
            why = reason if self.args.verbose else re.sub(r'([0-9A-F]{8})[0-9A-F]{32} "', r'\1 "', reason)
            shown = [str(path.relative_to(root) if is_below(path, root) else path) for path in paths]
            if len(shown) > 3 and not self.args.verbose:
                shown = [f"{len(shown)} files, {shown[0]} ..."]
            for line in shown:
                say(logging.DEBUG if reason == GONE else logging.WARNING, "  kept", f"{line}: {why}")


# ---- Hooks -----------------------------------------------------------------------------------------------------------

HOOKS = {"pre_loop": 6, "pre_add": 3, "post_add": 3, "pre_remove": 3, "post_remove": 4, "complete": 4, "post_loop": 3}


def load_hooks(path: Optional[Path]) -> dict[str, Callable[..., object]]:
    """Run the hooks file and return its hooks by name; raise Error when it does not load or a hook cannot be called."""
    if path is None:
        return {}
    try:
        info = path.stat()
        if not is_data(info):
            raise IsADirectoryError(errno.EISDIR, "not a regular file")
    except OSError as error:
        raise Error(f"{path}: {error.strerror}; --hooks names a Python file", 2) from None
    if info.st_mode & stat.S_IWOTH or info.st_uid not in (0, os.geteuid()):
        raise Error(f"{path}: others can write to it; rtwatch runs what is yours alone: chown and chmod o-w {path}", 2)
    try:
        module = runpy.run_path(str(path), run_name="rtwatch_hooks")
    except (Exception, SystemExit) as error:  # whatever the user's file does
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else (lines or [1])[-1]
        raise Error(f"{path}:{line}: the hooks file does not load: {type(error).__name__}: {error}", 2) from None
    hooks = {name: module[name] for name in HOOKS if name in module}
    for name, hook in hooks.items():
        try:
            inspect.signature(hook).bind(*range(HOOKS[name]))
        except (TypeError, ValueError) as error:
            raise Error(f"{path}: {name} cannot be called with {HOOKS[name]} arguments: {error}", 2) from None
    return hooks


# ---- The watch: handlers, one per queue ------------------------------------------------------------------------------

NOTHING_LOST = "nothing is removed; start rtwatch again when it is back"
OWN_QUEUES = ("lost", "unlinked", "added", "saved", "unknown", "erased")  # in the order of work
NEWS = OWN_QUEUES[:4]  # what events bring
PASS = 50  # items of one queue
BUNCH = 0.003  # seconds for which events gather while one pass follows the other: rtorrent saves everything
MISSING = "it is missing"
ERASE = 2.0  # seconds, for what rtorrent does in a thousandth of one
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.rclone"}
LOST, IGNORED, MOVED = map(int, (flags.Q_OVERFLOW, flags.IGNORED, flags.MOVED_TO))  # flags are slow to compare
split_mask = cache(lambda mask: tuple(flags.from_mask(mask)))  # in inotify_simple's order
ENDS = int(flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT)


class WatchedINotify(INotify):
    """An INotify that remembers the directory of each watch, and adds to the mask of a directory watched already."""

    def __init__(self) -> None:
        try:
            super().__init__()
        except OSError as error:
            advice = "too many are in use: sysctl fs.inotify.max_user_instances=512"
            raise Error(f"inotify: {error.strerror}; {advice}") from None
        self.directories: dict[int, Path] = {}

    def add_watch(self, path: str | bytes | os.PathLike[str], mask: int) -> int:
        """Watch a directory; return the watch descriptor; raise OSError with inotify's errno."""
        wd = int(super().add_watch(path, mask | flags.MASK_ADD))
        self.directories.setdefault(wd, Path(os.fsdecode(path)))
        return wd


class Watch:
    """One run of rtwatch: the handlers of the queues, the comparison and the loop, and what they share.

    All times are monotonic seconds, but for those in the database.
    """

    def __init__(self, con: Con, inot: WatchedINotify, args: Args) -> None:
        self.con, self.inot, self.args = con, inot, args
        self.hooks: dict[str, Callable[..., object]] = {}
        own = self.on_lost, self.on_unlinked, self.on_saved, self.on_saved, self.on_unknown, self.on_erased
        self.qfuncs: dict[str, QueueFunction] = dict(zip(OWN_QUEUES, own))
        self.queues: Queues = OrderedDict((name, deque()) for name in (*OWN_QUEUES, "complete"))
        self.inot_funcs: dict[tuple[str, Any], Callable[[Path], object]] = {}
        for ext in ("torrent", "rtorrent"):
            self.inot_funcs[ext, flags.MOVED_TO] = self.note_saved
        for ext in ("torrent", "rtorrent", "libtorrent_resume"):
            self.inot_funcs[ext, flags.DELETE] = self.note_deleted
        self.level = logging.DEBUG  # of what the start finds; afterwards it is news
        self.identity: Optional[os.stat_result] = None  # of the session directory
        self.stopping = 0  # counts the reasons to stop
        self.due: dict[object, tuple[float, str, Any]] = {}  # time, queue, item: by hash its grace, else by anything
        self.pauses: dict[int, float] = {}  # seconds, by id of the item: it may be anything
        self.drained = 0.0  # when no event lay unread: what is read now came later
        self.deleted: tuple[tuple[str, float], ...] = ()  # the last three names in the session directory, and when read
        self.deletions: dict[str, tuple[tuple[str, ...], float]] = {}  # the last deleted names, Unix time, by hash
        self.troubles: dict[str, Trouble] = {}
        self.unknown: list[str] = []  # whose place is not known, as last said
        self.absent: set[str] = set()  # missing since the start, from a session that looked empty
        self.facts: Optional[Facts] = None  # true until the next event
        self.held: dict[str, list[str]] = {}  # names by reason, not yet said
        self.finished: list[float] = []  # Unix times at which those vanished that were finished in the last minutes
        self.removals: dict[str, Removal] = {}  # under way, or failed at the very end
        self.unlinked: set[tuple[int, int]] = set()  # device and inode of files with other names
        self.freed = 0  # bytes
        self.told = -1  # what total_changes was at the last STATUS=

    def t_path(self, hash: str) -> Path:
        """Return the path of T."""
        return Path(self.args.session, f"{hash}.torrent")

    def call_later(self, key: object, seconds: float, name: str, item: object) -> None:
        """Put an item into a queue after some time, instead of what is due under the same key."""
        self.due[key] = (time.monotonic() + seconds, name, item)

    def call_hook(self, name: str, *arguments: object) -> bool:
        """Call a hook with no transaction open and close the one it leaves; return False when it raised."""
        if name not in self.hooks:
            return True
        self.con.commit()
        try:
            self.hooks[name](self.con, *arguments)
            self.con.commit()
        except SystemExit:
            self.con.commit()
            self.stopping += 1
        except Exception:  # whatever the user's function does
            self.con.rollback()
            logger.exception("%-12s %s", "failed", f"the hook {name}")
            return False
        return True

    def note_saved(self, path: Path) -> None:
        """Queue a session file that was renamed into place; what of its torrent went before tells nothing now.

        T is renamed when a torrent is added, not at a periodic save; the rest of what is added may follow it.
        """
        if path.parent != self.args.session:
            return
        self.deleted = tuple(("", 0.0) if name[:40] == path.name[:40] else (name, when) for name, when in self.deleted)
        new = path.name[40:] in (".torrent", ".torrent.new") or path.name[:40] in self.troubles
        self.queues["added" if new else "saved"].append(path)

    def on_saved(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Bring the rows of one torrent up to date with its session files, when they are complete and readable."""
        if not SESSION_NAME.fullmatch(path.name) or path.parent != args.session:
            return
        hash = path.name[:40]
        source = f"{hash}.torrent.rtorrent"
        known, resume = find_place(con, hash), None
        try:
            data = read_session_file(f"{args.session}/{source}")
            resume = parse_resume(data)
            if known and known.vanished is None:
                self.follow(hash, known, resume, data)
            else:
                source = f"{hash}.torrent"
                loaded = read_loaded(args.session, hash, data, resume)
                if loaded:
                    self.enter(known, loaded)
            self.note_trouble(hash, None)
        except (Unreadable, OSError) as error:
            in_place = bool(known and resume and known.directory == resume.directory)
            self.note_trouble(hash, self.find_trouble(source, error, in_place))
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise

    def enter(self, known: Optional[Place], loaded: Loaded) -> None:
        """Write the rows of a torrent that is new, or `known` and back from being vanished."""
        hash, path = loaded.hash, self.t_path(loaded.hash)
        if known is None:
            self.call_hook("pre_add", path, self.args)
        elif known.root and loaded.root is None and known.directory == loaded.resume.directory:
            files = list(map(os.fsencode, find_files(self.con, hash)))
            loaded = loaded._replace(root=known.root, files=files)  # a place once known stays
        insert_torrent(self.con, loaded)
        self.due.pop(hash, None)
        self.note_root(loaded.root)
        what = "returned" if known else "added"
        say(self.level, what, text(loaded.metainfo.names[b""]), count(len(loaded.files), "file"))
        if known is None:
            self.call_hook("post_add", path, self.args)

    def follow(self, hash: str, known: Place, resume: Resume, data: bytes) -> None:
        """Let the files follow the directory; a place once known stays until rtorrent says another."""
        directory = resume.directory
        if resume.counted != known.counted:  # no more, after it was moved or while it is checked: links may come
            query(self.con, "UPDATE rtwatch_torrent SET counted = ? WHERE hash = ?", resume.counted, hash)
            update_links(self.con, hash)
        if directory == known.directory and find_root(directory, self.args.session) in (None, known.root):
            return  # None: it cannot be known now
        loaded = read_loaded(self.args.session, hash, data, resume)
        if loaded:  # and no magnet of the same hash, loaded a moment ago
            sql = "UPDATE rtwatch_torrent SET directory = ?, root = ? WHERE hash = ?"
            query(self.con, sql, directory, loaded.root, hash)
            insert_files(self.con, hash, loaded.files)
            self.note_root(loaded.root)
            say(self.level, "moved", text(loaded.metainfo.names[b""]), f"to {os.fsdecode(loaded.root or directory)}")

    def note_root(self, root: Optional[bytes]) -> None:
        """Look again, and say so, when a place is not known."""
        if root is None:
            self.call_later("unknown", 0, "unknown", self.args.session)

    def find_trouble(self, source: str, error: Exception, in_place: bool) -> Optional[Trouble]:
        """Return what is wrong with a torrent whose session file `source` cannot be used, None if nothing is.

        A stub uses no files. R without T is nothing when its torrent is known `in_place`, or when it is older than
        rtorrent.lock: rtorrent does not load it. T that rtorrent refused, too, when it started is harmless; it has
        saved nothing for it since then.
        """
        t_path = self.t_path(source[:40])
        r_path, l_path = (t_path.with_suffix(f".torrent.{ext}") for ext in ("rtorrent", "libtorrent_resume"))
        try:
            if parse_metainfo(read_session_file(t_path)) is None:
                return None
        except FileNotFoundError:
            if in_place or self.is_older_than_lock(r_path):
                return None
            source = t_path.name
        except (Unreadable, OSError) as worse:
            source, error = t_path.name, worse
        if isinstance(error, FileNotFoundError):
            return Trouble(source, MISSING, False)
        refused = isinstance(error, Refused) and source == t_path.name
        harmless = refused and all(map(self.is_older_than_lock, (t_path, r_path, l_path)))
        return Trouble(source, str(error), harmless)

    def is_older_than_lock(self, path: Path) -> bool:
        """Tell whether a session file, if it is there, is as the running rtorrent found it when it started."""
        lock, (info, _) = read_lock(self.args.session), look_at(path)
        return info is None or (lock.state == "running" and info.st_ctime < lock.written)

    def note_trouble(self, hash: str, trouble: Optional[Trouble]) -> None:
        """Remember what is wrong with a torrent and say it once; after the last trouble look again at all held ones."""
        if self.troubles.get(hash) == trouble:
            return
        blocked = self.is_blocked()
        self.troubles.pop(hash, None)
        if trouble:
            self.troubles[hash] = trouble
            if "unknown" not in self.due:
                self.call_later("unknown", MINUTE, "unknown", self.args.session)
            if trouble.reason != MISSING:  # a save may be under way; said after the minute
                waits = "removals wait until it is mended or moved away"
                effect = "rtorrent refuses it too" if trouble.harmless else waits
                say(logging.WARNING, "unreadable", f"{self.args.session / trouble.name}: {trouble.reason}", effect)
        if blocked and not self.is_blocked():
            for held in find_hashes(self.con, "held IS NOT NULL AND held <> ?", HOOK_FAILED):
                if held not in self.due:  # else its grace runs, as after a restart
                    self.call_later(held, 0, "erased", self.t_path(held))

    def is_blocked(self) -> bool:
        """Tell whether rtorrent may have loaded what rtwatch cannot read."""
        return not all(trouble.harmless for trouble in self.troubles.values())

    def on_unknown(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Look once more for places that could not be known, and say in one line which ones remain."""
        self.read_again([*find_hashes(con, "root IS NULL"), *self.troubles])
        unknown = [name for (name,) in query(con, f"SELECT name {KNOWN} WHERE root IS NULL")]
        unknown += [f"{t.name} ({t.reason})" for t in self.troubles.values() if t.reason == MISSING]
        if unknown and unknown != self.unknown:
            say(logging.WARNING, "unknown", f"where the files are of {some(unknown)}; looked at again every minute")
        self.unknown = unknown
        self.due.pop("unknown", None)
        if unknown or self.is_blocked():
            self.call_later("unknown", MINUTE, "unknown", path)

    def read_again(self, hashes: Iterable[str]) -> None:
        """Bring torrents up to date without waiting for an event; what fails is noted as trouble."""
        for hash in hashes:
            with suppress(OSError):
                self.on_saved(self.con, self.t_path(hash), self.args, self.queues)

    def note_deleted(self, path: Path) -> None:
        """Keep the order of deletions in the session directory: it tells whether rtorrent erased a torrent."""
        if path.parent == self.args.session:
            self.deleted = (*self.deleted[-2:], (path.name, time.monotonic()))
            if path.suffix == ".torrent" and SESSION_NAME.fullmatch(path.name):
                stale = read_lock(self.args.session).state == "stale"
                names = tuple(name for name, when in self.deleted if self.drained - when < ERASE and not stale)
                self.deletions[path.stem] = (names, time.time())
                self.queues["unlinked"].append(path)

    def on_unlinked(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Record that T of a known torrent was deleted and start its grace; it may be back already."""
        names, when = self.deletions.get(path.stem, ((), 0.0))
        row = query(con, "SELECT libtorrent IS NOT NULL FROM torrent_data WHERE hash = ?", path.stem).fetchone()
        if when and row:
            self.vanish(path.stem, when, was_erased(names, path.stem, had_resume=row[0]))
        self.deletions.pop(path.stem, None)  # not before: a locked database brings the path here again
        if row and os.path.lexists(path):
            self.on_saved(con, path, args, queues)  # erased and loaded again at once: all columns are read anew
        elif path.stem in self.troubles:  # not before: what is read only now was not known when T went
            self.read_again([path.stem])

    def vanish(self, hash: str, when: float, seen: Optional[bool]) -> None:
        """Record that T of a known torrent is gone since `when` (Unix time), and give it its grace to come back."""
        update_vanished(self.con, hash, when, seen)
        self.removals.pop(hash, None)
        self.con.commit()  # before it is said
        self.call_later(hash, self.args.grace, "erased", self.t_path(hash))
        torrent = find_torrent(self.con, hash)
        if torrent and not os.path.lexists(self.t_path(hash)):
            say(logging.INFO, "vanished", torrent.name, f"has {self.args.grace:g} s to come back")

    def on_erased(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Finish a torrent whose grace is over, or hold it when a guard says no."""
        self.take_events()
        torrent = self.find_erased(path.stem)
        if torrent is None:
            return
        if args.trash:
            args.trash.stat()  # fails, and so comes again, while the trash is not mounted
        if not self.call_hook("pre_remove", path, args):
            self.hold(torrent, HOOK_FAILED)
        elif any(os.path.lexists(f"{path}{ext}") for ext in ("", ".rtorrent", ".libtorrent_resume")):
            self.hold(torrent, PRESENT)
        elif not self.stopping:
            self.finish(torrent)

    def find_erased(self, hash: str) -> Optional[Torrent]:
        """Return a torrent that may be finished now; None if it returned, has its grace again, or a guard holds it."""
        facts = self.facts or self.look()
        torrent = find_torrent(self.con, hash)
        if self.stopping or torrent is None or torrent.vanished is None or hash in self.due:
            return None
        reason = guard(torrent, facts, self.args.force)
        self.hold(torrent, reason)
        return None if reason else torrent

    def hold(self, torrent: Torrent, reason: Optional[str]) -> None:
        """Keep a vanished torrent and its files, and say so, once, when the queue is worked; None: let it go."""
        if reason != torrent.held:
            query(self.con, "UPDATE rtwatch_torrent SET held = ? WHERE hash = ?", reason, torrent.hash)
            if reason:
                self.held.setdefault(reason, []).append(torrent.name)

    def say_held(self) -> None:
        """Say what was held, one line a reason, with the command that goes on."""
        for reason, names in self.held.items():
            say(logging.WARNING, "held", f"{some(names)}: {reason}")
            if reason not in (PRESENT, HOOK_FAILED):
                what = "with ALL that is held, if rtorrent has none of it"
                say(logging.WARNING, "  go on", f"{what}: stop rtwatch, then {forced_command(self.args)}")
        self.held.clear()

    def finish(self, torrent: Torrent) -> None:
        """Remove the files of an erased torrent as far as -r and the plan allow, delete its rows, call post_remove."""
        hash = torrent.hash
        row = find_blobs(self.con, hash)
        if row is None:  # pre_remove has deleted it
            return
        tracker, *blobs = row
        if hash not in self.removals:
            self.removals[hash] = Removal(self.con, self.args, torrent, blobs[0], self.unlinked)
        removal = self.removals[hash]
        if self.args.remove and not self.remove_files(removal):
            return
        query(self.con, "DELETE FROM torrent_data WHERE hash = ?", hash)  # and all of its rows
        self.con.commit()
        del self.removals[hash]
        self.finished.append(torrent.vanished or 0)
        self.freed += 0 if self.args.trash else removal.freed
        removal.report()
        erased = RmTuple(torrent.name, tracker, hash, removal.removed, removal.files, *blobs)
        self.call_hook("post_remove", self.t_path(hash), self.args, erased)

    def remove_files(self, removal: Removal) -> bool:
        """Carry out the plan file by file; return False when it has to end before the last one.

        Events are looked for before every file, and after any the guards are asked and the rest is planned again.
        """
        while removal.todo:
            for file, reason in removal.plan():
                if self.stopping:
                    return False
                if self.take_events():
                    break
                removal.carry_out(file, reason)
                removal.todo.popleft()
            if removal.todo and self.find_erased(removal.torrent.hash) is None:
                return False
        removal.prune()
        return True

    # ---- Compare -----------------------------------------------------------------------------------------------------

    def check_session(self) -> None:
        """Raise SessionGone when the session directory is no longer the one that is watched."""
        with suppress(OSError):
            if self.identity is None or os.path.samestat(os.stat(self.args.session), self.identity):
                return
        raise SessionGone(f"{self.args.session}: the session directory was replaced or is gone; {NOTHING_LOST}")

    def compare(self, every: bool) -> tuple[dict[str, str], list[str]]:
        """Hold the session directory against the database, both ways, and read what is not known, or `every` torrent.

        Return the letters of what is there by hash, and the hashes that are missing; raise SessionGone.
        """
        self.check_session()
        try:
            listing = list_session(self.args.session)
        except OSError as error:
            raise SessionGone(f"{self.args.session}: cannot be listed ({error.strerror}); {NOTHING_LOST}") from None
        known = {*find_hashes(self.con, "TRUE")}.difference(find_hashes(self.con, "vanished IS NOT NULL"))  # by indexes
        self.absent -= listing.keys()
        hashes = listing if every else listing.keys() - known
        strangers = [hash for hash in hashes if listing[hash] != "L"]
        for number, hash in enumerate(sorted({*strangers, *self.troubles}), 1):
            if self.stopping:
                break
            self.read_again([hash])
            if every:
                show_progress(number, len(strangers))
            if number % 1000 == 0:
                self.con.commit()
        return listing, [hash for hash in known - self.absent if "T" not in listing.get(hash, "")]

    def look(self) -> Facts:
        """Work what the inotify queue brings until it is empty, compare, and return what the guards need to know."""
        listing = None
        while self.take_events() or listing is None:  # so that no event explains what the listing shows
            for name in NEWS:
                while self.queues[name] and not self.stopping:
                    self.work_item(name)
            listing, missing = self.compare(every=False)
            if self.stopping:
                break
        waiting = [item for _, name, item in self.due.values() if name in NEWS]
        if waiting:  # it failed, and the rows are not true without it
            raise OSError(f"{waiting[0]} could not be worked yet")
        for hash in missing:
            self.vanish(hash, time.time(), False)  # it was moved away, as rtorrent never does
        for hash in find_hashes(self.con, "NOT counted"):
            update_links(self.con, hash)
        sql = """SELECT (SELECT count(*) FROM rtwatch_torrent)
                 - (SELECT count(*) FROM rtwatch_torrent WHERE vanished IS NOT NULL)"""  # by indexes
        loaded = query(self.con, sql).fetchone()[0] - len(self.absent)
        sql = "SELECT vanished FROM rtwatch_torrent WHERE vanished IS NOT NULL AND (held IS NULL OR seen IS NOT 0)"
        self.finished = [when for when in self.finished if when > time.time() - 2 * MINUTE]
        vanished = sorted([*(row[0] for row in query(self.con, sql)), *self.finished])
        lock = read_lock(self.args.session).state
        self.con.commit()
        self.facts = Facts(listing, dict(self.troubles), lock, bool(self.args.paths), loaded, vanished)
        return self.facts

    def on_lost(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Compare after the kernel dropped events: every torrent is read again, what is missing is vanished."""
        say(logging.WARNING, "overflow", "the kernel dropped events (fs.inotify.max_queued_events); comparing anew")
        for hash in self.compare(every=True)[1]:
            self.vanish(hash, time.time(), None)

    def bring_up_to_date(self) -> None:
        """Compare at the start: no hooks, nothing removed; what went while rtwatch was away loses its rows."""
        listing, missing = self.compare(every=True)
        if not self.stopping:
            self.drop_missing(missing, sum("T" in letters for letters in listing.values()))
            waiting: list[str] = []
            query(self.con, "UPDATE rtwatch_torrent SET held = NULL WHERE held = ?", HOOK_FAILED)  # it is called again
            for hash, reason, name in query(self.con, f"SELECT hash, held, name {KNOWN} WHERE vanished IS NOT NULL"):
                self.call_later(hash, self.args.grace, "erased", self.t_path(hash))
                (self.held.setdefault(reason, []) if reason and not self.args.force else waiting).append(name)
            if waiting and not self.args.catch_up:
                say(logging.INFO, "vanished", some(waiting), f"{self.args.grace:g} s to come back")
            self.on_unknown(self.con, self.args.session, self.args, self.queues)
            self.level = logging.INFO
        self.con.commit()

    def drop_missing(self, missing: Sequence[str], present: int) -> None:
        """Forget what went while rtwatch was not running, unless the session looks wiped or not mounted.

        Then nothing that is missing counts as erased, not even what was seen to go before.
        """
        if len(missing) > present and not self.args.catch_up:
            what = f"the session looks empty: {len(missing)} of {count(len(missing) + present, 'torrent')} missing"
            say(logging.WARNING, "held", what, "rows and files stay")
            command = f"{forced_command(self.args)} --catch-up"
            say(logging.WARNING, "  go on", f"restore or mount it; or, if rtorrent has them no more: {command}")
            self.absent.update(missing)
            query(self.con, "UPDATE rtwatch_torrent SET seen = 0 WHERE vanished IS NOT NULL")
            return
        for hash in missing:
            torrent = find_torrent(self.con, hash)
            if self.args.catch_up:
                self.vanish(hash, time.time(), None)
            elif torrent:
                files = count(len(find_files(self.con, hash)), "file")
                query(self.con, "DELETE FROM torrent_data WHERE hash = ?", hash)
                say(logging.INFO, "dropped", torrent.name, f"erased while rtwatch was not running, leaves {files}")

    def give_up(self) -> None:
        """Record that the session directory is gone: nobody has erased what vanished with it."""
        query(self.con, "UPDATE rtwatch_torrent SET seen = 0 WHERE vanished IS NOT NULL")
        for hash in find_hashes(self.con, "vanished IS NULL"):
            if not os.path.lexists(self.t_path(hash)):
                update_vanished(self.con, hash, time.time(), False)
        self.con.commit()

    # ---- Watch loop --------------------------------------------------------------------------------------------------

    def add_watch(self) -> None:
        """Watch the session directory for the events that have a handler, and for its own end."""
        mask = flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR
        for _, key in self.inot_funcs:
            for flag in key if isinstance(key, tuple) else (key,):
                mask |= flag
        try:
            self.inot.add_watch(self.args.session, mask)
        except OSError as error:
            advice = "; allow more: sysctl fs.inotify.max_user_watches=524288" if error.errno == errno.ENOSPC else ""
            raise Error(f"{self.args.session}: it cannot be watched ({error.strerror}){advice}") from None

    def take_events(self) -> bool:
        """Dispatch what the inotify queue holds, without waiting; tell whether rtwatch has to work any of it."""
        begin = time.monotonic()
        for event in self.inot.read(timeout=0):
            self.dispatch(event.wd, event.mask, event.name)
        self.drained = begin
        news = any(self.queues[name] for name in NEWS)
        if news:
            self.facts = None
        return news

    def dispatch(self, wd: int, mask: int, name: str) -> None:
        """Hand one event to the function for its extension and mask; raise SessionGone."""
        if mask & LOST:
            self.deleted = ((UNSEEN, time.monotonic()),) * 3
            self.queues["lost"].append(self.args.session)
        directory = self.inot.directories.get(wd)
        if directory is None:
            return
        if mask & ENDS and directory == self.args.session:
            raise SessionGone(f"{directory}: the session directory was removed, moved or unmounted; {NOTHING_LOST}")
        if mask & IGNORED:
            del self.inot.directories[wd]
        _, dot, ext = name.removesuffix(".new").rpartition(".")
        key = ext if dot else ""
        func = self.inot_funcs.get((key, mask)) or self.inot_funcs.get((key, split_mask(mask)))
        if func is not None:
            try:
                func(directory / name)
            except Exception:  # may be a function that a hook put there
                logger.exception("%-12s %s", "failed", f"the function for {name}; rtwatch goes on")
                if mask & MOVED:  # no removal may go by what was known before
                    self.queues["added"].append(directory / name)

    def take_due(self) -> None:
        """Queue what is due by now: graces that are over, items put back, what has to be looked at again."""
        now = time.monotonic()
        for key, (when, name, item) in sorted(self.due.items(), key=lambda entry: entry[1][0]):
            if when > now:
                break
            del self.due[key]
            self.queues.setdefault(name, deque()).append(item)

    def timeout(self) -> Optional[float]:
        """Return the milliseconds until something is due, None when nothing is."""
        if any(self.queues.values()):
            return 0
        times = [when for when, _, _ in self.due.values()]
        return min(max(0.0, min(times) - time.monotonic()) * 1000 + 1, 1e9) if times else None  # poll takes an int

    def work(self) -> None:
        """Make one pass: some items of each queue, of those that stand in it now."""
        self.facts = None
        for name, queue, number in [(name, queue, min(PASS, len(queue))) for name, queue in self.queues.items()]:
            for _ in range(number):
                if queue and not self.stopping and self.queues.get(name) is queue:  # a hook may have taken it away
                    self.work_item(name)
        next_end = min((when for when, name, _ in self.due.values() if name == "erased"), default=None)
        if not self.queues["erased"] and (next_end is None or next_end > time.monotonic() + 1):  # all of them at once
            self.say_held()
            if next_end is None:
                self.unlinked.clear()

    def work_item(self, name: str) -> None:
        """Call the function of a queue with its first item. What the function puts back comes again after a second,
        what failed for the time being after growing pauses of up to a minute."""
        queue = self.queues[name]
        item = queue.popleft()
        pause = self.pauses.pop(id(item), 0.5)
        before = len(queue)
        try:
            self.qfuncs[name](self.con, item, self.args, self.queues)
            self.con.commit()
        except Error:
            raise
        except SystemExit:
            self.con.commit()
            self.stopping += 1
        except (sqlite3.OperationalError, OSError) as error:
            self.con.rollback()
            pause = self.pauses[id(item)] = min(MINUTE, 2 * pause)
            say(logging.ERROR, "failed", f"{item}: {error}; tried again in {pause:g} s")
            self.call_later(object(), pause, name, item)
        except Exception as error:
            if type(error) is sqlite3.DatabaseError:
                raise unusable(self.args.db, error) from None
            self.con.rollback()
            logger.exception("%-12s %s", "failed", f"{item}; rtwatch goes on")
            if name in NEWS:  # nothing is removed while it waits
                self.call_later(object(), MINUTE, name, item)
        else:
            for _ in range(len(queue) - before):
                self.call_later(object(), 1.0, name, queue.popleft() if queue[0] is item else queue.pop())

    def start(self, hooks: dict[str, Callable[..., object]]) -> None:
        """Watch, then compare, so that nothing falls between; then let the hooks in; raise Error."""
        if self.args.session in (Path.cwd(), *Path.cwd().parents):
            os.chdir("/")  # a working directory would keep a removed session alive, and its end silent
        self.add_watch()
        self.identity = os.stat(self.args.session)
        self.bring_up_to_date()
        if self.stopping:
            return
        kind = file_system(self.args.session)
        if kind in NETWORK:
            say(logging.WARNING, "deaf", f"the session is on {kind}: what another machine writes there stays unseen")
        say(logging.INFO, "watching", *self.describe(hooks))
        self.say_held()
        self.hooks = hooks
        if "complete" in hooks:
            self.qfuncs["complete"] = hooks["complete"]
            self.inot_funcs["complete", flags.CLOSE_WRITE] = self.note_completed
            self.inot_funcs["complete", flags.MOVED_TO] = self.note_completed
        if not self.call_hook("pre_loop", self.inot, self.args, self.queues, self.qfuncs, self.inot_funcs):
            raise Error(f"{self.args.hooks}: pre_loop failed, see above; mend it or start without --hooks")
        self.add_watch()
        self.tell_status()
        notify("READY=1")

    def note_completed(self, path: Path) -> None:
        """Queue a mark HASH.complete of the session directory for the user's hook."""
        if path.parent == self.args.session and re.fullmatch(r"[0-9A-F]{40}\.complete", path.name):
            self.queues["complete"].append(path)

    def describe(self, hooks: Iterable[str]) -> list[str]:
        """Return what the first line says: how much is known, whether rtorrent runs, what is removed, the hooks."""
        args, lock = self.args, read_lock(self.args.session).state
        sql = "SELECT (SELECT count(*) FROM torrent_data), (SELECT count(*) FROM session_file)"
        torrents, files = query(self.con, sql).fetchone()
        if not torrents and lock == "missing":
            what = f"{args.session}: neither a torrent nor rtorrent.lock is here; if it is the wrong directory"
            say(logging.WARNING, "empty", what, session_advice())
        runs = {"running": "rtorrent runs", "elsewhere": "rtorrent.lock names another host"}
        mode = f"{'would remove' if args.no_action else 'removes'} files" if args.remove else "removes no files"
        where = [f"only below {' '.join(map(str, args.paths))}"] if args.paths and args.remove else []
        known = [count(torrents, "torrent"), count(files, "file"), runs.get(lock, f"rtorrent.lock is {lock}")]
        home = f"{Path.home()}/"
        session = str(args.session).replace(home, "~/", 1) if is_below(args.session, Path.home()) else str(args.session)
        more = [f"trash {args.trash}"] if args.trash else []
        more += [f"hooks {' '.join(hooks) or 'none'}"] if args.hooks else []
        return [session, mode, *where, *known, *more]

    def run(self, wake: int) -> None:
        """Block until something happens or is due, and work it, until there is a reason to stop; raise SessionGone.

        `wake` is the file descriptor that a signal writes to.
        """
        poller = poll()
        poller.register(self.inot, POLLIN)
        poller.register(wake, POLLIN)
        worked, quick = 0.0, 0
        while not self.stopping and not (self.args.once and self.is_done()):
            timeout = self.timeout()
            ready = poller.poll(0)
            if not ready:  # what is read next comes while it waits
                ready = poller.poll(timeout)
                self.drained = time.monotonic()
            if any(fd == wake for fd, _ in ready):
                os.read(wake, 4096)
            quick = quick + 1 if time.monotonic() < worked + BUNCH else 0
            if quick > 4 and timeout != 0:
                time.sleep(BUNCH)
            self.check_session()
            self.take_events()
            self.take_due()
            self.work()
            self.tell_status()
            worked = time.monotonic()

    def tell_status(self) -> None:
        """Tell the service manager how things stand, after each change."""
        if "NOTIFY_SOCKET" in os.environ and self.told != self.con.total_changes:
            self.told = self.con.total_changes
            sql = "SELECT count(*), count(vanished), count(held) FROM rtwatch_torrent"  # what is held is vanished
            torrents, vanished, held = query(self.con, sql).fetchone()
            known = f"{count(torrents, 'torrent')}, {vanished - held} vanished, {held} held"
            notify(f"STATUS={known}, {human_size(self.freed)} freed")

    def is_done(self) -> bool:
        """Tell whether there is nothing left that --once waits for; what a hook puts back is no reason to stay."""
        waiting = any(name in OWN_QUEUES and key != "unknown" for key, (_, name, _) in self.due.items())
        return not (self.take_events() or waiting or any(self.queues.values()))


# ---- Orphans ---------------------------------------------------------------------------------------------------------

PASSED_OVER = re.compile(r"\.nfs.*|lost\+found|\.Trash.*|\.snapshots?|\.zfs|@eaDir|\.fuse_hidden.*")
DAY = 86400.0  # seconds


def walk_files(directory: Path, passed_over: Sequence[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Give the files and symlinks below a directory on its own file system, without what is no download of anybody."""
    device = directory.stat().st_dev
    waiting = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            say(logging.WARNING, "passed over", f"{error.filename}: {error.strerror}")
            continue
        for entry in entries:
            path = Path(entry.path)
            info, _ = look_at(path)
            if info is None or info.st_dev != device or PASSED_OVER.fullmatch(entry.name) or path in passed_over:
                continue
            if stat.S_ISDIR(info.st_mode):
                waiting.append(path)
            else:
                yield path, info


def list_orphans(con: Con, args: Args) -> None:
    """Print the files below PATH that no torrent lists and nobody touched for a day, and say their number and size.

    What a torrent may have whose place is not known is left out. Raise Error when no torrent has anything below PATH:
    then it is the wrong directory.
    """
    odd = 0
    claims = read_claims(con, find_hashes(con, "root IS NULL"), args.session, 0)
    for directory in args.paths:
        if not is_used_directory(con, directory, ""):
            raise Error(f"{directory}: no torrent has a file below it; name the directory of your downloads", 2)
        sizes = []
        for path, info in walk_files(directory, [args.session, *filter(None, [args.trash])]):
            sql = "SELECT 1 FROM session_file WHERE file = ? UNION ALL SELECT 1 FROM rtwatch_link WHERE file = ?"
            young = info.st_mtime > time.time() - DAY
            if young or query(con, sql, path, path).fetchone():
                continue
            if any(is_claimed(path, info, claim) for claim in claims.get(fold(os.fsencode(path.name)), ())):
                continue
            odd += "\n" in str(path)
            line = printable(str(path)) if "\n" in str(path) else str(path)
            sys.stdout.buffer.write(os.fsencode(line) + b"\n")
            sizes.append(info.st_blocks * 512)
        found = f"{count(len(sizes), 'file')}, {human_size(sum(sizes))}"
        say(logging.INFO, "orphans", f"{found} below {directory}, not touched for a day")
    if odd:
        say(logging.WARNING, "escaped", f"{count(odd, 'path')} with a line break in it")


# ---- Process: lock, signals, notifications ---------------------------------------------------------------------------


@contextmanager
def writer_lock(session: Path) -> Iterator[None]:
    """Be the one writer for this session; raise Error."""
    path = state_directory() / f"{hashlib.sha1(os.fsencode(session)).hexdigest()}.lock"
    with ExitStack() as stack:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.write(fd, b"%d\n" % os.getpid())
        except BlockingIOError:
            owner = path.read_text("utf-8", "replace").strip()
            advice = f"another rtwatch watches it, process {owner}; end that one first: kill {owner}"
            raise Error(f"{session}: {advice}") from None
        except OSError as error:
            raise Error(f"{path}: {error.strerror}; XDG_STATE_HOME={path.parent.parent} must be writable") from None
        yield


def catch_signals(watch: Watch) -> int:
    """Let TERM, INT and HUP end the loop in order and a second one at once; return what becomes readable then.

    The write to the pipe wakes a poll without timeout, which Python would restart (PEP 475).
    """

    def on_signal(number: int, frame: object) -> None:
        """Note that the loop shall end."""
        watch.stopping += 1
        if watch.stopping > 1:
            raise SystemExit(0)

    wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    return wake


def watch_session(args: Args) -> int:
    """Run the program and return its exit status; raise Error."""
    hooks = load_hooks(args.hooks)
    lock = nullcontext() if args.no_action else writer_lock(args.session)
    with lock, closing(open_database(args)) as con, WatchedINotify() as inot:
        watch = Watch(con, inot, args)
        if args.orphans:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for `| head`
            watch.bring_up_to_date()
            if watch.is_blocked():
                raise Error("rtorrent may use any file for what cannot be read, see above; mend it or move it away")
            list_orphans(con, args)
            return 0
        wake = catch_signals(watch)
        try:
            watch.start(hooks)
            watch.run(wake)
        except SessionGone:
            with suppress(sqlite3.Error):
                watch.give_up()
            raise
        except sqlite3.Error as error:
            raise unusable(args.db, error) from None
        except SystemExit:
            con.rollback()
        finally:
            notify("STOPPING=1")
            with suppress(sqlite3.Error):
                watch.call_hook("post_loop", inot, args)
    return 0


# ---- Command line ----------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> Any:
        """Raise Error."""
        raise Error(f"{message}; see rtwatch --help", 2)


class VersionAction(argparse.Action):
    """Print the versions of everything that takes part."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        """Print and exit."""
        from importlib.metadata import version

        libraries = f"inotify_simple {version('inotify_simple')}, bencode.py {version('bencode_py')}"  # as 3.9 finds it
        own = f"rtwatch {__version__}, Python {sys.version.split()[0]}, sqlite {sqlite3.sqlite_version}"
        sys.stdout.write(f"{own}, {libraries}\n")
        parser.exit()


def seconds(value: str) -> float:
    """Return a number of seconds from the command line; raise ValueError."""
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(value)
    return number


def make_parser() -> Parser:
    """Return the parser of the command line, its options grouped by what people want."""
    epilog = "Look first: rtwatch -r -n ~/.session says what -r would do and changes nothing."
    parser = Parser(prog="rtwatch", description=str(__doc__).split("\n", 1)[0], epilog=epilog)
    add = parser.add_argument
    add("session", metavar="SESSION", nargs="?", default="~/.session", help="rtorrent's session directory (~/.session)")
    add("paths", metavar="PATH", nargs="*", help="with -r: remove only files below these directories")
    add = parser.add_argument_group("removing the files of erased torrents").add_argument
    add("-r", "--remove", action="store_true", help="remove the files of an erased torrent that no other torrent uses")
    add("-n", "--no-action", action="store_true", help="say what would be done; change no file and no database")
    add("--trash", metavar="DIR", help="with -r: move files there instead of deleting them")
    add("--grace", metavar="SECONDS", type=seconds, default=60.0, help="how long a vanished torrent may come back (60)")
    add("--catch-up", action="store_true", help="also take as erased what vanished while rtwatch was not running")
    add("--force", action="store_true", help="only with --once: let all held removals go ahead")
    add = parser.add_argument_group("doing one thing and exiting").add_argument
    add("--once", action="store_true", help="bring the database up to date and finish what vanished")
    add("--orphans", action="store_true", help="list the files below PATH that no torrent lists")
    versions = "versions of rtwatch, Python, sqlite and both libraries"
    add("--version", nargs=0, action=VersionAction, default=argparse.SUPPRESS, help=versions)
    add = parser.add_argument_group("hooks, database, output").add_argument
    add("--hooks", metavar="FILE", help="Python file with hook functions")
    add("--db", metavar="FILE", help="database ($XDG_STATE_HOME/rtwatch/rtwatch.db)")
    add("-v", "--verbose", action="store_true", help="also say every file that is removed, and whole hashes")
    add("-q", "--quiet", action="store_true", help="say errors only")
    return parser


def absolute(path: Optional[str]) -> Optional[Path]:
    """Return a path of the command line, absolute and without symlinks; raise Error with status 2."""
    if path == "":
        raise Error("an empty path; see rtwatch --help", 2)
    try:
        return Path(path).expanduser().resolve() if path else None
    except (OSError, RuntimeError) as error:  # a loop of symlinks, a directory that may not be searched, ~nobody
        raise Error(f"{path}: {error}", 2) from None


def parse_args(argv: Optional[Sequence[str]]) -> Args:
    """Return the options, all paths absolute and real; raise Error with status 2 for wrong usage."""
    args = make_parser().parse_intermixed_args(argv)
    args.session, args.hooks, args.trash = map(absolute, (args.session, args.hooks, args.trash))
    args.paths = tuple(map(absolute, args.paths))
    args.db = absolute(args.db) or state_directory() / "rtwatch.db"
    if not args.session.is_dir():
        raise Error(f"{args.session}: no such session directory; {session_advice()}", 2)
    for path in args.paths:
        if not path.is_dir():
            raise Error(f"{path}: not a directory; what follows SESSION are the directories of your downloads", 2)
    if args.trash and not (args.remove or args.orphans):
        raise Error("--trash goes with -r: it is where -r moves files to", 2)
    if args.trash and not args.trash.is_dir():
        raise Error(f"{args.trash}: no such directory: mkdir -p {shlex.quote(str(args.trash))}", 2)
    if args.trash and (args.trash == args.session or is_below(args.trash, args.session)):
        raise Error(f"{args.trash}: the trash cannot be in the session directory; choose another one", 2)
    if args.orphans and not args.paths:
        raise Error("--orphans needs the directories to look through: rtwatch --orphans SESSION PATH ...", 2)
    args.no_action |= args.orphans  # it lists only
    if args.force and not args.once:
        raise Error(f"--force goes with --once only: {forced_command(args)}", 2)
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run rtwatch and return its exit status."""
    set_up_log(verbose=False, quiet=False)
    try:
        args = parse_args(argv)
        set_up_log(args.verbose, args.quiet)
        return watch_session(args)
    except Error as error:
        logger.critical("%s", error)
        return error.status
    except OSError as error:
        logger.critical("%s: %s", error.filename or "rtwatch", error.strerror)
        return 1
    except KeyboardInterrupt:  # before the loop
        return 0


if __name__ == "__main__":
    sys.exit(main())
