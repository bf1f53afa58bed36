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
import heapq
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
from collections import OrderedDict, deque, namedtuple
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import cache, cached_property
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


class Variant(NamedTuple):
    """The names that one text encoding gives to a torrent and its files.

    A path is joined with "/" as rtorrent joins it, below the torrent's root; one that is empty or ends in "/" is a
    file to rtorrent 0.16 only (0.9.8 makes a directory of it or nothing).
    """

    name: bytes
    paths: tuple[bytes, ...]


class Metainfo(NamedTuple):
    """What rtwatch needs of T; lengths are bytes, the first variant has `name` and `path` themselves."""

    name: bytes
    tracker: Optional[str]
    multi: bool
    lengths: tuple[int, ...]
    variants: tuple[Variant, ...]


class Resume(NamedTuple):
    """What rtwatch needs of R: the directory string as it stands, and whether rtorrent ever counted data there."""

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


class Torrent(NamedTuple):
    """A torrent as the database knows it."""

    hash: str
    name: str
    directory: bytes
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


class Comparison(NamedTuple):
    """The session directory against the database; hashes all of them."""

    listed: frozenset[str]  # with any session file
    present: list[str]  # with T
    strangers: list[str]  # with T or R, but vanished or not known
    missing: list[str]  # known, not vanished, without T


class Facts(NamedTuple):
    """What the guards look at."""

    listed: frozenset[str]
    troubles: Mapping[str, Trouble]
    lock: str
    paths: bool  # whether a PATH was given
    loaded: int  # torrents
    vanished: Sequence[float]  # Unix times of those that no other guard holds


class ListedFile(NamedTuple):
    """The facts about one file of a torrent; other torrents are pairs of hash and name."""

    path: Path
    info: Optional[os.stat_result]
    problem: Optional[str]  # why there is no info
    parent: str  # where its parent really is
    length: Optional[int]  # bytes, by the metainfo
    inherited: bool
    owners: Sequence[tuple[str, str]]  # list it as well
    perhaps: Optional[tuple[str, str]]  # may use it under another name
    users: Sequence[tuple[str, str]]  # use it through a symlink


class Limits(NamedTuple):
    """What a removal respects, as far as it is the same for all files of the torrent."""

    root: Path
    session: Path
    paths: tuple[Path, ...]
    vanished: float  # Unix time
    unlinked: Set[tuple[int, int]]  # device and inode of which rtwatch has removed another name
    arrived: Optional[float]  # Unix time of T, None when the torrent counted data
    device: Optional[int]  # of the trash


class Decision(NamedTuple):
    """One file of a plan: it is removed when `reason` is None, else kept, for the reason that `rule` gave."""

    file: ListedFile
    reason: Optional[str]
    rule: Optional[Callable[[ListedFile, Limits], Optional[str]]]


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


def state_directory() -> Path:
    """Return rtwatch's directory below $XDG_STATE_HOME, which must be absolute to count (XDG base directories)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "state") / "rtwatch"


def notify(message: str) -> None:
    """Tell the service manager, if there is one (sd_notify(3)); a manager that does not listen is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def forced_command(args: Args) -> str:
    """Return the command that lets the held removals of this run go ahead."""
    options = ["-r"] if args.remove else []
    options += [f"--{name}={value}" for name, value in (("trash", args.trash), ("hooks", args.hooks)) if value]
    options += [f"--db={args.db}"] if args.db != state_directory() / "rtwatch.db" else []
    return shlex.join(["rtwatch", "--once", "--force", *options, str(args.session), *map(str, args.paths)])


# ---- Metainfo and paths ----------------------------------------------------------------------------------------------

T_NAME = re.compile(r"([0-9A-F]{40})\.torrent")
SESSION_NAME = re.compile(r"([0-9A-F]{40})\.torrent(?:\.rtorrent|\.libtorrent_resume)?")
COMPLETE_NAME = re.compile(r"([0-9A-F]{40})\.complete")
MINUTE = 60.0  # seconds: between two looks for what cannot be known yet; what vanishes within one belongs together
GONE = "already gone"
MISSING = "it is missing"
MAX_FILE = 64 << 20  # bytes of one session file; the largest torrents in use have a few MiB
MAX_VALUES = 600_000  # in one session file: some 60,000 files, two seconds to decode and write
MAX_ENCODINGS = 8  # of one name
PATH_MAX = 4096  # bytes, of Linux
MAX_ELEMENTS = 256  # of one path


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
    name: Any = info.get(b"name")
    join_path([name])
    multi = b"length" not in info
    entries = info.get(b"files") if multi else [info]
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Refused("it lists no files")
    lengths = tuple(entry.get(b"length") for entry in entries)
    if not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise Unreadable("a file's length is no number")
    variants = parse_variants(name, entries if multi else [], info)
    return Metainfo(name, parse_tracker(torrent), multi, lengths, variants)


def parse_variants(name: bytes, entries: list[dict[bytes, Any]], info: dict[bytes, Any]) -> tuple[Variant, ...]:
    """Return the names of a torrent as they stand and in each encoding offered; raise Unreadable.

    rtorrent 0.9.8 uses `name.ENC` and `path.ENC` after `encoding.add = ENC`, 0.16 never does.
    """
    names = {b"": name, **alternatives(info, b"name.", lambda value: join_path([value]) and value)}
    paths = [alternatives(entry, b"path.", join_path) for entry in entries]
    for entry, known in zip(entries, paths):
        path = entry.get(b"path")
        known[b""] = join_path(path) if isinstance(path, list) or not known else next(iter(known.values()))
    variants = []
    encodings = {encoding: None for known in [names, *paths] for encoding in [b"", *known]}
    if len(encodings) > MAX_ENCODINGS:
        raise Unreadable("it names its files in too many encodings")
    for encoding in encodings:
        called = names.get(encoding, name)
        files = tuple(known.get(encoding, known[b""]) for known in paths) if entries else (join_path([called]),)
        variants.append(Variant(called, files))
    return tuple(dict.fromkeys(variants))


def alternatives(entry: dict[bytes, Any], prefix: bytes, parse: Callable[[Any], bytes]) -> dict[bytes, bytes]:
    """Return what `prefix` + ENC says in `entry`, by ENC in any case; what does not pass the checks is ignored."""
    keys = [key for key in entry if key.startswith(prefix)]
    if len(keys) > MAX_ENCODINGS:
        raise Unreadable("it names a file in too many encodings")
    found = {}
    for key in keys:
        with suppress(Unreadable):
            found[key[len(prefix) :].lower()] = parse(entry[key])
    return found


def join_path(elements: object) -> bytes:
    """Join path elements as rtorrent does, empty ones dropped, "/" at the end for an empty last one; raise Unreadable.

    The refused ones are those that libtorrent refuses (`is_valid_path_element`).
    """
    if not isinstance(elements, list) or not elements:
        raise Refused("a file has no path")
    if len(elements) > MAX_ELEMENTS:
        raise Unreadable("a path has too many elements")
    for element in elements:
        if not isinstance(element, bytes) or element in (b".", b"..") or b"/" in element or b"\0" in element:
            raise Refused(f"{str(element)[:40]} is no file name")
    path = b"/".join(filter(None, elements))
    return path if elements[-1] or not path else path + b"/"


def parse_tracker(torrent: dict[bytes, Any]) -> Optional[str]:
    """Return the host name of `announce`, else of the first tier of `announce-list` that has one, else None."""
    tiers = torrent.get(b"announce-list")
    lists = [[torrent.get(b"announce")], *(tiers if isinstance(tiers, list) else ())]
    urls = itertools.chain.from_iterable(tier for tier in lists if isinstance(tier, list))
    for url in itertools.islice(urls, 100):
        with suppress(ValueError):
            host = urlsplit(url.decode("utf-8", "replace")).hostname if isinstance(url, bytes) else None
            if host:
                return host
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


def resolve_below(root: bytes, elements: Sequence[bytes]) -> bytes:
    """Return the real path of a directory below the real path `root`; what does not exist stays as it is."""
    for number, element in enumerate(elements):
        root = os.path.join(root, element)
        try:
            if stat.S_ISLNK(os.lstat(root).st_mode):
                root = os.path.realpath(root)
        except OSError:
            return os.path.join(root, *elements[number + 1 :])
    return root


def locate_files(metainfo: Metainfo, directory: bytes, root: bytes, session: bytes) -> list[bytes]:
    """Return the canonical path of every file: the real path of its parent, plus its name. Skip what is in `session`.

    Where encodings give different names, a multi-file torrent's directory tells which is likely, then what exists on
    disk; of what neither tells, all are listed.
    """
    resolve = cache(lambda parent: resolve_below(root, parent.split(b"/")) if parent else root)

    def place(path: bytes) -> Optional[bytes]:
        """Return the canonical path of one file, None when it is no file to the rtorrent that wrote here."""
        parent, _, name = path.rstrip(b"/").rpartition(b"/")
        file = os.path.join(resolve(parent), name) if name else root
        if len(file) > PATH_MAX:
            return None
        return file if path[-1:] not in (b"", b"/") or is_data(look_at(os.fsdecode(file))[0]) else None

    last = os.path.basename(directory.rstrip(b"/"))
    told = [metainfo.multi and variant.name == last for variant in metainfo.variants]
    files = []
    for paths in zip(*(variant.paths for variant in metainfo.variants)):
        places = {path: place(path) for path in paths}
        every = [file for file in places.values() if file is not None]
        likely = [file for path, tells in zip(paths, told) if tells and (file := places[path])] or every
        if len(every) > 1:  # rtorrent chooses the encoding for each name by itself
            likely = [f for f in likely if os.path.lexists(f)] or [f for f in every if os.path.lexists(f)] or likely
        files += likely
    return [file for file in dict.fromkeys(files) if not file.startswith(session + b"/")]


def sidecars(t_path: Path) -> tuple[str, str]:
    """Return the paths of R and L beside T."""
    return f"{t_path}.rtorrent", f"{t_path}.libtorrent_resume"


def is_below(path: Path, directory: Path) -> bool:
    """Tell whether `path` lies below `directory`; both are canonical."""
    return str(path).startswith(os.path.join(directory, "")) and path != directory


def text(name: bytes) -> str:
    """Return a torrent's name as text."""
    return name.decode("utf-8", "replace")


def fold(name: bytes) -> str:
    """Return a name or path for comparison without regard to case, as some file systems do."""
    return text(name).casefold()


# ---- Reading session and disk ----------------------------------------------------------------------------------------


def read_session_file(path: Path) -> bytes:
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


def read_loaded(session: Path, hash: str, r_data: bytes, resume: Resume) -> Optional[Loaded]:
    """Read T and L of a torrent whose R is given; return None for a magnet's stub; raise as read_session_file does."""
    t_path = session / f"{hash}.torrent"
    data = read_session_file(t_path)
    metainfo = parse_metainfo(data)
    if metainfo is None:
        return None
    try:
        resume_data = read_session_file(t_path.with_name(f"{hash}.torrent.libtorrent_resume"))
    except (OSError, Unreadable):
        resume_data = None
    root, files = locate(metainfo, resume.directory, session)
    return Loaded(hash, metainfo, resume, root, files, t_path.stat().st_mtime, (data, resume_data, r_data))


def rtorrent_pid(directory: bytes, session: Path) -> int:
    """Return the process id of the running rtorrent if it takes part in resolving `directory`, else 0."""
    return 0 if directory.startswith(b"/") else read_lock(session).pid


def locate(metainfo: Metainfo, directory: bytes, session: Path) -> tuple[Optional[bytes], list[bytes]]:
    """Return the real root of a torrent and its canonical files; None and nothing while the root cannot be known."""
    root = resolve_root(directory, rtorrent_pid(directory, session))
    return root, [] if root is None else locate_files(metainfo, directory, root, os.fsencode(session))


def list_session(session: Path) -> dict[str, str]:
    """List the session directory once: for every hash that has session files, their letters T, R, L; raise OSError."""
    found: dict[str, str] = {}
    with os.scandir(session) as entries:
        for entry in entries:
            letter = {".torrent": "T", ".torrent.rtorrent": "R", ".torrent.libtorrent_resume": "L"}.get(entry.name[40:])
            if letter and SESSION_NAME.fullmatch(entry.name):
                found[entry.name[:40]] = found.get(entry.name[:40], "") + letter
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
        by_parent.setdefault(os.path.dirname(file), []).append(file)
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
CREATE TABLE rtwatch_link(
    hash TEXT NOT NULL REFERENCES torrent_data(hash) ON DELETE CASCADE, file PATH BLOB NOT NULL, inherited INTEGER,
    PRIMARY KEY (hash, file));
CREATE INDEX rtwatch_link_file ON rtwatch_link(file);
CREATE TABLE rtwatch_session(path BLOB);
"""


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
    try:
        present = is_index(args.db, args.session)
        con = connect("") if args.no_action else connect(make_private(args.db))
        if not args.no_action:
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("PRAGMA synchronous = NORMAL")
        elif present:
            with closing(connect_read_only(args.db)) as disk:
                disk.backup(con)
        if not present:
            con.execute("BEGIN")
            for statement in SCHEMA.split(";"):
                con.execute(statement)
            con.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            con.execute("INSERT INTO rtwatch_session VALUES (?)", (os.fsencode(args.session),))
            con.commit()
        return con
    except (sqlite3.Error, OSError) as error:
        raise unusable(args.db, error) from None


def unusable(db: Path, error: Exception) -> Error:
    """Return the Error for a database that does not work; it is only an index and can be moved away."""
    if isinstance(error, (sqlite3.OperationalError, OSError)):
        return Error(f"{db}: the database cannot be used ({error}); mend that, or choose another place with --db")
    advice = f"move it away and it is built anew: mv {shlex.quote(str(db))} {shlex.quote(str(db))}.bad"
    return Error(f"{db}: the database cannot be used ({error}); {advice}")


def make_private(db: Path) -> Path:
    """Create the database file and its directory for the user alone; sqlite's -wal and -shm get the same mode."""
    db.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(db, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return db


def connect_read_only(db: Path) -> Con:
    """Open a database without leaving any file behind; one without a -wal has no writer and cannot change."""
    mode = "mode=ro" if Path(f"{db}-wal").exists() else "immutable=1"
    return connect(f"file:{quote(os.fsencode(db))}?{mode}", uri=True)


def is_index(db: Path, session: Path) -> bool:
    """Tell whether there is an index of this session, or nothing yet; raise Error for any other database, untouched."""
    if not db.exists() or db.stat().st_size == 0:
        return False
    with closing(connect_read_only(db)) as con:
        version = con.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not con.execute("SELECT 1 FROM sqlite_master").fetchone():
            return False  # the very first start was cut short
        if version != SCHEMA_VERSION:
            raise Error(f"{db}: not a database of this version of rtwatch; choose another: --db {db}.new")
        row = con.execute("SELECT path FROM rtwatch_session").fetchone() or (b"no session",)
        owner = Path(os.fsdecode(row[0]))
    if owner != session:
        other = db.with_name(f"{db.stem}-{session.parent.name or 'root'}{db.suffix}")
        raise Error(f"{db}: this is the index of {owner}; for {session} add --db {other}")
    return True


KNOWN = "FROM rtwatch_torrent JOIN torrent_data USING (hash)"


def find_torrent(con: Con, hash: str) -> Optional[Torrent]:
    """Return the torrent of this info-hash, None when it is not known."""
    columns = "hash, name, directory, root, arrived, counted, vanished, seen, held"
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


def find_inherited(con: Con, hash: str) -> list[Path]:
    """Return the files that a torrent uses through symlinks and whose last owner is gone."""
    return [row[0] for row in query(con, "SELECT file FROM rtwatch_link WHERE hash = ? AND inherited", hash)]


def find_users(con: Con, table: str, file: Path, hash: str) -> Sequence[tuple[str, str]]:
    """Return hash and name of the torrents other than `hash` that have `file` in `table`."""
    sql = f"SELECT hash, name FROM {table} JOIN torrent_data USING (hash) WHERE file = ? AND hash <> ?"
    return query(con, sql, file, hash).fetchall()


def is_used_directory(con: Con, directory: Path, hash: str) -> bool:
    """Tell whether another torrent than `hash` has its root or a file at or below `directory`."""
    low, high = os.fsencode(directory) + b"/", os.fsencode(directory) + b"0"  # "0" follows "/"
    sql = """SELECT 1 FROM rtwatch_torrent WHERE (root = ? OR root > ? AND root < ?) AND hash <> ?
             UNION ALL SELECT 1 FROM session_file WHERE (file > ? AND file < ?) AND hash <> ? LIMIT 1"""
    return query(con, sql, directory, low, high, hash, low, high, hash).fetchone() is not None


def insert_torrent(con: Con, loaded: Loaded) -> None:
    """Write all rows of a torrent, over those of a vanished one; what other tables refer to stays."""
    hash, metainfo, resume, root, files, arrived, blobs = loaded
    largest = metainfo.variants[0].paths[metainfo.lengths.index(max(metainfo.lengths))]
    sql = """INSERT INTO torrent_data VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET name = excluded.name,
             tracker = excluded.tracker, torrent = excluded.torrent, libtorrent = excluded.libtorrent,
             rtorrent = excluded.rtorrent"""
    query(con, sql, hash, text(metainfo.name), metainfo.tracker, *blobs)
    sql = "INSERT OR REPLACE INTO rtwatch_torrent VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)"
    folded_names = fold(metainfo.name), fold(os.path.basename(largest))
    query(con, sql, hash, resume.directory, root, *folded_names, arrived, resume.counted)
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


def delete_torrent(con: Con, hash: str) -> None:
    """Delete all rows of a torrent."""
    query(con, "DELETE FROM torrent_data WHERE hash = ?", hash)


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
ERASE = 2.0  # seconds, for what rtorrent does in a thousandth of one
UNSEEN = "?"  # stands among the deleted names where events were lost
WIPE = "so many at once look like a wiped session, not like erased torrents"


def was_erased(names: Sequence[str], hash: str, had_resume: bool) -> Optional[bool]:
    """Tell from the last three deletions whether rtorrent erased `hash`, None where events were lost.

    Both versions of rtorrent unlink L (when there is one), R, T and nothing between.
    """
    erase = (f"{hash}.torrent.libtorrent_resume", f"{hash}.torrent.rtorrent", f"{hash}.torrent")
    if tuple(names) == erase or (not had_resume and tuple(names[-2:]) == erase[1:]):
        return True
    return None if UNSEEN in names else False


def guard_present(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 1: none of its session files is there."""
    return PRESENT if torrent.hash in facts.listed else None


def guard_troubles(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 2: every torrent in the directory is known, a stub, or unreadable to rtorrent as well."""
    harmful = next((trouble for trouble in facts.troubles.values() if not trouble.harmless), None)
    return harmful and f"rtorrent may have loaded what cannot be read here: {harmful.name}, {harmful.reason}"


def guard_seen(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 3: rtorrent was seen to erase it, or, when that is not known, it is running."""
    if torrent.seen is None and facts.lock not in ("running", "elsewhere"):
        return f"nobody knows who deleted its session files, and rtorrent.lock is {facts.lock}"
    return "its session files went, but rtorrent was not seen to erase it" if torrent.seen == 0 else None


def guard_wipe(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 4: what vanished within a minute of it is no wipe: seen, not the whole of more than ten torrents; else not
    more than half of them, nor the last one. A wipe remains one when the session grows again."""
    group = sum(abs(when - (torrent.vanished or 0)) <= MINUTE for when in facts.vanished)
    wiped = facts.loaded == 0 and group > 10 if torrent.seen else group > facts.loaded
    return WIPE if wiped or torrent.held == WIPE else None


def guard_host(torrent: Torrent, facts: Facts) -> Optional[str]:
    """Guard 5: rtorrent on another host (a container, a network disk) may see other paths: only below a PATH."""
    return "rtorrent.lock names another host; name a PATH" if facts.lock == "elsewhere" and not facts.paths else None


GUARDS = (guard_present, guard_troubles, guard_seen, guard_wipe, guard_host)  # --force leaves the first


def is_allowed(path: Path, limits: Limits) -> bool:
    """Tell whether rtwatch may act on `path` at all: below a PATH, when any is given, and not in the session."""
    allowed = not limits.paths or any(is_below(path, directory) for directory in limits.paths)
    return allowed and not is_below(path, limits.session)


def called(hash: str, name: str) -> str:
    """Return how a torrent is named in a reason."""
    return f'{hash} "{name}"'


def rule_shared(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what another torrent lists, be it vanished or held."""
    return f"also in {called(*file.owners[0])}" if file.owners else None


def rule_perhaps(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what may be another torrent's under a name that rtwatch does not know."""
    return f"perhaps in {called(*file.perhaps)}" if file.perhaps else None


def rule_outside(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what lies outside PATH or the torrent's root, or in the session directory; an inherited file has no root."""
    if not is_allowed(file.path, limits):
        return "in the session directory" if is_below(file.path, limits.session) else "outside PATH"
    return None if file.inherited or is_below(file.path, limits.root) else "outside the torrent's directory"


def rule_moved(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what is reached by another way than when it was listed: a directory was replaced by a symlink."""
    return None if file.parent == str(file.path.parent) else "its directory is a symlink now"


def rule_gone(file: ListedFile, limits: Limits) -> Optional[str]:
    """Leave out what is not there or cannot be looked at."""
    return file.problem


def rule_type(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep directories, pipes, sockets and devices."""
    usual = file.info and stat.S_IFMT(file.info.st_mode) in (stat.S_IFREG, stat.S_IFLNK)
    return None if usual else "not a regular file"


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
    return f"used by a symlink in {called(*file.users[0])}" if file.users else None


def rule_device(file: ListedFile, limits: Limits) -> Optional[str]:
    """Keep what cannot be renamed into the trash."""
    other = limits.device is not None and file.info is not None and file.info.st_dev != limits.device
    return "on another file system than the trash" if other else None


RULES = (
    *(rule_shared, rule_outside, rule_moved, rule_gone, rule_type, rule_device),
    *(rule_perhaps, rule_longer, rule_modified, rule_older, rule_linked),
)


def plan_removal(files: Sequence[ListedFile], limits: Limits) -> list[Decision]:
    """Decide for every file: the first rule that gives a reason keeps it."""
    plan = []
    for file in files:
        reasons = ((rule(file, limits), rule) for rule in RULES)
        plan.append(Decision(file, *next((found for found in reasons if found[0]), (None, None))))
    return plan


def plan_directories(files: Sequence[Path], name: str, limits: Limits) -> list[Path]:
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


class Candidate:
    """Another torrent that may use files of an erased one under names that rtwatch does not know."""

    def __init__(self, con: Con, hash: str, session: Path, vanished: float) -> None:
        sql = f"SELECT name, directory, root, torrent {KNOWN} WHERE hash = ?"
        name, directory, root, data = query(con, sql, hash).fetchone()
        now = resolve_root(directory, rtorrent_pid(directory, session))  # a symlink may lead elsewhere since
        roots = {str(root) if root else None, os.fsdecode(now) if now else None}
        self.called: tuple[str, str] = (hash, name)
        info, _ = look_at(session / f"{hash}.torrent.rtorrent")
        self.unsaved = info is None or info.st_mtime < vanished  # rtorrent may have it elsewhere since
        self.files: dict[str, list[tuple[str, Optional[str], int]]] = {}
        metainfo = parse_metainfo(data)
        for variant in metainfo.variants if metainfo else ():
            for path, length in zip(variant.paths, metainfo.lengths if metainfo else ()):
                places = [root and os.path.join(root, os.fsdecode(path)) for root in roots]
                known = [("/" + fold(path), place, length) for place in places]
                self.files.setdefault(fold(os.path.basename(path)), []).extend(known)

    def may_use(self, file: Path, info: os.stat_result) -> bool:
        """Tell whether `file` may be this torrent's: the same directory entry by another way, or, when what it recorded
        is missing or too short, one that it was pointed at and that rtorrent has not saved yet."""
        folded = fold(os.fsencode(file))
        for path, place, length in self.files.get(fold(os.fsencode(file.name)), ()):
            if folded.endswith(path):
                if place is None or is_same_entry(file, info, place):
                    return True
                if self.unsaved and not is_whole(place, length):
                    return True
        return False


def is_whole(place: str, length: int) -> bool:
    """Tell whether there is a file of at least `length` bytes, be it behind a symlink."""
    try:
        return os.stat(place).st_size >= length
    except OSError:
        return False


def is_same_entry(file: Path, info: os.stat_result, place: str) -> bool:
    """Tell whether two paths lead to one directory entry: through a symlink, a bind mount or in another case."""
    try:
        if os.path.islink(place):
            return os.fsencode(file) in find_links([os.fsencode(place)])
        same = os.path.samestat(os.lstat(place), info)
        return same and (info.st_nlink == 1 or os.path.samefile(file.parent, os.path.dirname(place)))
    except OSError:
        return False


def read_listed(con: Con, torrent: Torrent, session: Path, files: Collection[tuple[Path, bool]]) -> list[ListedFile]:
    """Look at files of a torrent, each with whether it is inherited, and at who else may use them."""
    metainfo = parse_metainfo(find_blobs(con, torrent.hash)[1])
    real_path = cache(os.path.realpath)
    lengths: dict[Path, int] = {}
    if metainfo and torrent.root:
        for variant in metainfo.variants:
            paths = (Path(torrent.root, os.fsdecode(path)) for path in variant.paths)
            lengths.update(zip((Path(real_path(path.parent), path.name) for path in paths), metainfo.lengths))
    suspects = set(find_hashes(con, "folded_name = ? OR root IS NULL", torrent.name.casefold()))
    for name in {fold(os.fsencode(file.name)) for file, _ in files}:
        suspects.update(find_hashes(con, "largest = ?", name))
    candidates = [Candidate(con, hash, session, torrent.vanished or 0) for hash in sorted(suspects - {torrent.hash})]
    listed = []
    for file, inherited in files:
        info, problem = look_at(file)
        owners, users = (find_users(con, table, file, torrent.hash) for table in ("session_file", "rtwatch_link"))
        others = [c for c in candidates if c.called not in (*owners, *users)]
        perhaps = next((c.called for c in others if info and c.may_use(file, info)), None)
        parent = real_path(file.parent)
        listed.append(ListedFile(file, info, problem, parent, lengths.get(file), inherited, owners, perhaps, users))
    return listed


# ---- Acting on disk: every unlink, rename and rmdir ------------------------------------------------------------------


@contextmanager
def opened_parent(path: Path) -> Iterator[int]:
    """Open the parent of `path`; raise OSError when it is reached by another way than it was recorded."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != str(path.parent):
            raise OSError(f"{path.parent} was replaced meanwhile")
        yield fd
    finally:
        os.close(fd)


def remove_file(file: ListedFile, target: Optional[Path]) -> None:
    """Unlink one file, still the one that was looked at, or rename it to `target`, where nothing is; raise OSError."""
    with opened_parent(file.path) as parent:
        info = os.stat(file.path.name, dir_fd=parent, follow_symlinks=False)
        if file.info is None or not os.path.samestat(info, file.info) or info.st_mtime_ns != file.info.st_mtime_ns:
            raise OSError("it was changed meanwhile")
        if target is None:
            os.unlink(file.path.name, dir_fd=parent)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise OSError(f"{target} is there already")
        os.rename(file.path.name, target, src_dir_fd=parent)


def remove_directory(directory: Path) -> None:
    """Remove one empty directory; raise OSError."""
    with opened_parent(directory) as parent:
        os.rmdir(directory.name, dir_fd=parent)


def is_left_empty(directory: Path, removed: set[Path]) -> bool:
    """Tell whether nothing is in a real directory but what is `removed` (with -n only in words); no mount point."""
    try:
        with os.scandir(directory) as entries:
            return not os.path.ismount(directory) and all(directory / entry.name in removed for entry in entries)
    except OSError:
        return False


def removed(args: Args) -> str:
    """Return the verb for what -r does."""
    planned, done = ("would trash", "trashed") if args.trash else ("would remove", "removed")
    return planned if args.no_action else done


class Removal:
    """The removal of the files of one erased torrent, as far as it went; `freed` counts bytes on disk."""

    def __init__(self, con: Con, args: Args, torrent: Torrent, unlinked: set[tuple[int, int]]) -> None:
        self.con, self.args, self.torrent, self.unlinked = con, args, torrent, unlinked
        self.files = find_files(con, torrent.hash)
        self.todo = deque((file, False) for file in self.files)
        self.todo.extend((file, True) for file in find_inherited(con, torrent.hash))
        self.removed: list[Path] = []
        self.kept: dict[str, list[Path]] = {}
        self.freed = 0
        self.limits = Limits(
            root=torrent.root or args.session,
            session=args.session,
            paths=args.paths,
            vanished=torrent.vanished or 0,
            unlinked=unlinked,
            arrived=None if torrent.counted else torrent.arrived,
            device=args.trash.stat().st_dev if args.trash else None,
        )

    def plan(self) -> list[Decision]:
        """Decide on the files that are still to do by what is true now."""
        return plan_removal(read_listed(self.con, self.torrent, self.args.session, self.todo), self.limits)

    def carry_out(self, decision: Decision) -> None:
        """Remove one file or keep it; what fails is kept, with its reason. -n changes nothing here."""
        file, reason, rule = decision
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
        if rule is rule_linked:
            query(self.con, "UPDATE rtwatch_link SET inherited = TRUE WHERE file = ?", file.path)
        self.kept.setdefault(reason or GONE, []).append(file.path)

    @cached_property
    def trash(self) -> Path:
        """Make a new directory HASH, else HASH.2 and so on, in the trash, with the .torrent in it; raise OSError."""
        torrent = self.torrent
        names = itertools.chain([torrent.hash], (f"{torrent.hash}.{number}" for number in itertools.count(2)))
        directory = next(path for path in (Path(self.args.trash, name) for name in names) if not os.path.lexists(path))
        directory.mkdir(mode=0o700)
        stem = torrent.name.replace("/", "_").encode()[:200].decode("utf-8", "ignore")
        metainfo = directory / f"{stem}.torrent"
        try:
            metainfo.write_bytes(find_blobs(self.con, torrent.hash)[1])
        except OSError:
            metainfo.unlink(missing_ok=True)
            directory.rmdir()
            raise
        return directory

    def trash_place(self, file: ListedFile) -> Path:
        """Return where a file goes in the trash: as it lay below the torrent's root, or below "linked" if inherited."""
        if is_below(file.path, self.limits.root):
            return Path(self.trash) / file.path.relative_to(self.limits.root)
        return Path(self.trash, "linked", str(len(self.removed)), file.path.name)

    def prune(self) -> None:
        """Remove the directories that removed and missing files leave empty, from the deepest up."""
        needed = [Path(os.path.expanduser("~")), self.args.session, *self.args.paths]
        gone = {*self.removed, *self.kept.get(GONE, ())}
        for directory in plan_directories(list(gone), self.torrent.name, self.limits):
            if any(directory == path or is_below(path, directory) for path in needed):
                continue
            if is_used_directory(self.con, directory, self.torrent.hash) or not is_left_empty(directory, gone):
                continue
            try:
                if not self.args.no_action:
                    remove_directory(directory)
                gone.add(directory)
                say(logging.DEBUG, f"  {removed(self.args)}", f"{directory}/")
            except OSError as error:
                say(logging.WARNING, "  kept", f"{directory}/: cannot be removed: {error.strerror or error}")

    def report(self) -> None:
        """Say what became of the torrent: one line, and one below it for every reason to keep files."""
        name, root = self.torrent.name, self.limits.root
        total = count(len(self.removed) + sum(map(len, self.kept.values())) or len(self.files), "file")
        if not self.args.remove or self.torrent.root is None:
            what = "where its files are is not known" if self.torrent.root is None else f"leaves {total}"
            say(logging.INFO, "erased", name, what)
            return
        say(logging.INFO, removed(self.args), name, f"{len(self.removed)} of {total}", human_size(self.freed))
        for path in self.removed:
            say(logging.DEBUG, f"  {removed(self.args)}", str(path))
        if self.files and len(self.kept.get(GONE, ())) == len(self.files):
            where = f"none of its {len(self.files)} files is at {root}"
            say(logging.WARNING, "  kept", f"{where}: moved, or its disk is not mounted")
            del self.kept[GONE]
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
    except OSError as error:
        raise Error(f"{path}: {error.strerror}; --hooks names a Python file", 2) from None
    if info.st_mode & stat.S_IWOTH or info.st_uid not in (0, os.geteuid()):
        raise Error(f"{path}: others can write to it; rtwatch runs what is yours alone: chown and chmod o-w {path}", 2)
    try:
        module = runpy.run_path(str(path), run_name="rtwatch_hooks")
    except (Exception, SystemExit) as error:  # whatever the user's file does
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else (lines or [1])[-1]
        raise Error(f"{path}:{line} the hooks file does not load: {type(error).__name__}: {error}", 2) from None
    hooks = {name: module[name] for name in HOOKS if name in module}
    for name, hook in hooks.items():
        try:
            inspect.signature(hook).bind(*range(HOOKS[name]))
        except (TypeError, ValueError) as error:
            raise Error(f"{path}: {name} cannot be called with {HOOKS[name]} arguments: {error}", 2) from None
    return hooks


# ---- The watch: handlers, one per queue ------------------------------------------------------------------------------

NOTHING_LOST = "nothing is removed; start rtwatch again when it is back"
OWN_QUEUES = ("lost", "unlinked", "saved", "unknown", "erased")  # in the order of work
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.rclone"}
ENDS = flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT


class WatchedINotify(INotify):
    """An INotify that remembers the directory of each watch, and adds to the mask of a directory watched already."""

    def __init__(self) -> None:
        super().__init__()
        self.directories: dict[int, Path] = {}

    def add_watch(self, path: str | bytes | os.PathLike[str], mask: int) -> int:
        """Watch a directory; return the watch descriptor; raise OSError with inotify's errno."""
        wd = int(super().add_watch(path, mask | flags.MASK_ADD))
        self.directories.setdefault(wd, Path(os.fsdecode(path)))
        return wd


@cache
def mask_flags(mask: int) -> tuple[flags, ...]:
    """Return the flags of a mask, in inotify_simple's order."""
    return tuple(flags.from_mask(mask))


class Watch:
    """One run of rtwatch: the handlers of the queues, the comparison and the loop, and what they share.

    All times are monotonic seconds, but for those in the database.
    """

    def __init__(self, con: Con, inot: WatchedINotify, args: Args) -> None:
        self.con, self.inot, self.args = con, inot, args
        self.hooks: dict[str, Callable[..., object]] = {}
        own = self.on_lost, self.on_unlinked, self.on_saved, self.on_unknown, self.on_erased
        self.qfuncs: dict[str, QueueFunction] = dict(zip(OWN_QUEUES, own))
        self.queues: Queues = OrderedDict((name, deque()) for name in (*OWN_QUEUES, "complete"))
        self.inot_funcs: dict[tuple[str, Any], Callable[[Path], object]] = {}
        for ext in ("torrent", "rtorrent"):
            self.inot_funcs[ext, flags.MOVED_TO] = self.note_saved
        for ext in ("torrent", "rtorrent", "libtorrent_resume"):
            self.inot_funcs[ext, flags.DELETE] = self.note_deleted
        self.level = logging.DEBUG  # of what the start finds; afterwards it is news
        self.deleted: tuple[tuple[str, float], ...] = ()  # the last three names in the session directory, and when
        self.deletions: dict[str, tuple[tuple[str, ...], float]] = {}  # the last deleted names, Unix time, by hash
        self.troubles: dict[str, Trouble] = {}
        self.held: dict[str, list[str]] = {}  # names by reason, not yet said
        self.fresh: set[str] = set()  # counted no data yet: its files may still become symlinks
        self.absent: set[str] = set()  # missing since the start, from a session that looked empty
        self.unknown: list[str] = []  # whose place is not known, as last said
        self.look_again_at: Optional[float] = None
        self.facts: Optional[Facts] = None  # true until the next event
        self.grace_ends: dict[str, float] = {}
        self.later: list[tuple[float, int, str, Any]] = []  # a heap of time, counter, queue, item
        self.counter = itertools.count()
        self.pauses: dict[int, float] = {}  # seconds, by id of the item: it may be anything
        self.identity: Optional[os.stat_result] = None
        self.stopping = 0  # counts the reasons to stop
        self.finished: list[float] = []  # Unix times at which those vanished that were finished in the last minutes
        self.freed = 0  # bytes
        self.removals: dict[str, Removal] = {}  # under way, or failed at the very end
        self.unlinked: set[tuple[int, int]] = set()  # device and inode of files with other names
        self.told = -1  # what total_changes was at the last STATUS=

    def t_path(self, hash: str) -> Path:
        """Return the path of T."""
        return Path(self.args.session, f"{hash}.torrent")

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
            logger.exception("%-12s %s", "failed", f"the hook {name}; rtwatch goes on")
            return False
        return True

    def on_saved(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Bring the rows of one torrent up to date with its session files, when they are complete and readable."""
        match = SESSION_NAME.fullmatch(path.name)
        if match is None or path.parent != args.session:
            return
        hash = match[1]
        torrent, resume = find_torrent(con, hash), None
        source = self.t_path(hash).with_suffix(".torrent.rtorrent")
        try:
            data = read_session_file(source)
            resume = parse_resume(data)
            if torrent and torrent.vanished is None:
                self.follow(torrent, resume, data)
            else:
                source = self.t_path(hash)
                loaded = read_loaded(args.session, hash, data, resume)
                if loaded:
                    self.enter(torrent, loaded)
        except FileNotFoundError:
            self.note_missing(hash, source, bool(torrent and resume and torrent.directory == resume.directory))
        except (Unreadable, OSError) as error:
            self.note_trouble(hash, source, error)
            if isinstance(error, OSError):
                raise
        else:
            self.clear_trouble(hash)

    def read_again(self, hash: str) -> None:
        """Bring one torrent up to date without waiting for an event; what fails is noted as trouble."""
        with suppress(OSError):
            self.on_saved(self.con, self.t_path(hash), self.args, self.queues)

    def enter(self, known: Optional[Torrent], loaded: Loaded) -> None:
        """Write the rows of a torrent that is new, or `known` and back from being vanished."""
        path = self.t_path(loaded.hash)
        if known is None:
            self.call_hook("pre_add", path, self.args)
        elif known.root and loaded.root is None and known.directory == loaded.resume.directory:
            files = list(map(os.fsencode, find_files(self.con, known.hash)))
            loaded = loaded._replace(root=os.fsencode(known.root), files=files)  # a place once known stays
        insert_torrent(self.con, loaded)
        self.grace_ends.pop(loaded.hash, None)
        self.note_place(loaded.hash, loaded.root, loaded.resume)
        what = "returned" if known else "added"
        say(self.level, what, text(loaded.metainfo.name), count(len(loaded.files), "file"))
        if known is None:
            self.call_hook("post_add", path, self.args)

    def follow(self, torrent: Torrent, resume: Resume, data: bytes) -> None:
        """Let the files follow the directory; a place once known stays until rtorrent says another."""
        hash, directory = torrent.hash, resume.directory
        if resume.counted and not torrent.counted:
            query(self.con, "UPDATE rtwatch_torrent SET counted = TRUE WHERE hash = ?", hash)
            insert_links(self.con, hash, map(os.fsencode, find_files(self.con, hash)))
            self.fresh.discard(hash)
        if directory == torrent.directory:
            root = resolve_root(directory, rtorrent_pid(directory, self.args.session))
            if root is None or (torrent.root is not None and root == os.fsencode(torrent.root)):
                return
        loaded = read_loaded(self.args.session, hash, data, resume)
        if loaded:  # and no magnet of the same hash, loaded a moment ago
            sql = "UPDATE rtwatch_torrent SET directory = ?, root = ? WHERE hash = ?"
            query(self.con, sql, directory, loaded.root, hash)
            insert_files(self.con, hash, loaded.files)
            self.note_place(hash, loaded.root, resume)
            say(self.level, "moved", torrent.name, f"to {os.fsdecode(loaded.root or directory)}")

    def note_place(self, hash: str, root: Optional[bytes], resume: Resume) -> None:
        """Remember what has to be looked at again: symlinks made after loading, a place that is not known."""
        if not resume.counted:
            self.fresh.add(hash)
        if root is None:
            self.look_again_at = time.monotonic()

    def note_missing(self, hash: str, source: Path, in_place: bool) -> None:
        """Remember a torrent that lacks T or R: it is being saved, or rtorrent has it loaded from somewhere unknown.

        R without T is harmless when its torrent is known `in_place`, or when it is older than rtorrent.lock: rtorrent
        does not load it. T without R is harmless when it is a stub; when it cannot be read, that is the trouble.
        """
        t_path = self.t_path(hash)
        try:
            harmless = parse_metainfo(read_session_file(t_path)) is None
        except FileNotFoundError:
            harmless = in_place or self.is_older_than_lock(t_path.with_suffix(".torrent.rtorrent"))
        except (Unreadable, OSError) as error:
            self.note_trouble(hash, t_path, error)
            return
        if harmless:
            self.clear_trouble(hash)
        elif hash not in self.troubles:
            self.troubles[hash] = Trouble(source.name, MISSING, False)
            self.look_again_at = self.look_again_at or time.monotonic() + MINUTE  # soon enough to say so

    def is_older_than_lock(self, path: Path) -> bool:
        """Tell whether a session file, if it is there, is as the running rtorrent found it when it started."""
        lock, (info, _) = read_lock(self.args.session), look_at(path)
        return info is None or (lock.state == "running" and info.st_ctime < lock.written)

    def note_trouble(self, hash: str, source: Path, error: Exception) -> None:
        """Remember a session file that cannot be used and say so once.

        It is harmless when rtorrent met it at its start, refused it too, and so has not saved anything for it since.
        """
        names = [self.t_path(hash), *map(Path, sidecars(self.t_path(hash)))]
        harmless = isinstance(error, Refused) and source == names[0] and all(map(self.is_older_than_lock, names))
        trouble = Trouble(source.name, str(error), harmless)
        if self.troubles.get(hash) != trouble:
            self.troubles[hash] = trouble
            self.look_again_at = self.look_again_at or time.monotonic() + MINUTE
            effect = "rtorrent refuses it too" if harmless else "removals wait until it is mended or moved away"
            say(logging.WARNING, "unreadable", f"{source}: {error}", effect)

    def clear_trouble(self, hash: str) -> None:
        """Forget what was wrong with a torrent; after the last trouble look again at all that is held."""
        if self.troubles.pop(hash, None) and all(trouble.harmless for trouble in self.troubles.values()):
            for held in find_hashes(self.con, "held IS NOT NULL AND held <> ?", HOOK_FAILED):
                self.grace_ends[held] = time.monotonic()

    def note_saved(self, path: Path) -> None:
        """Queue a session file that was renamed into place; what of its torrent went before tells nothing now."""
        self.deleted = tuple(("", 0.0) if name[:40] == path.name[:40] else (name, when) for name, when in self.deleted)
        self.queues["saved"].append(path)

    def note_deleted(self, path: Path) -> None:
        """Keep the order of deletions in the session directory: it tells whether rtorrent erased a torrent."""
        if path.parent == self.args.session:
            now = time.monotonic()
            self.deleted = (*self.deleted[-2:], (path.name, now))
            match = T_NAME.fullmatch(path.name)
            if match:
                stale = read_lock(self.args.session).state == "stale"
                names = tuple(name for name, when in self.deleted if now - when < ERASE and not stale)
                self.deletions[match[1]] = (names, time.time())
                self.queues["unlinked"].append(path)

    def on_unlinked(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Record that T of a known torrent was deleted and start its grace; it may be back already."""
        if path.stem in self.troubles:
            self.read_again(path.stem)
        names, when = self.deletions.get(path.stem, ((), 0.0))
        row = find_blobs(con, path.stem)
        if when and row:
            self.vanish(path.stem, when, was_erased(names, path.stem, row[2] is not None))
            self.deletions.pop(path.stem)  # not before: a locked database brings the path here again
            if os.path.lexists(path):
                self.on_saved(con, path, args, queues)  # erased and loaded again at once: all columns are read anew

    def vanish(self, hash: str, when: float, seen: Optional[bool]) -> None:
        """Record that T of a known torrent is gone since `when` (Unix time), and give it its grace to come back."""
        update_vanished(self.con, hash, when, seen)
        self.removals.pop(hash, None)
        self.con.commit()  # before it is said
        self.grace_ends[hash] = time.monotonic() + self.args.grace
        torrent = find_torrent(self.con, hash)
        if torrent and not os.path.lexists(self.t_path(hash)):
            say(logging.INFO, "vanished", torrent.name, f"has {self.args.grace:g} s to come back")

    def on_erased(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Finish a torrent whose grace is over, or hold it when a guard says no."""
        self.take_news()
        torrent = self.find_due(path.stem)
        if torrent is None:
            return
        if args.trash:
            args.trash.stat()  # fails, and so comes again, while the trash is not mounted
        reason = self.refusal(torrent)
        if reason is None and not self.call_hook("pre_remove", path, args):
            reason = HOOK_FAILED
        if reason is None and any(os.path.lexists(name) for name in (path, *sidecars(path))):
            reason = PRESENT
        if reason is not None:
            self.hold(torrent, reason)
        elif not self.stopping:
            self.finish(torrent)

    def find_due(self, hash: str) -> Optional[Torrent]:
        """Return a vanished torrent whose grace is over; it may have returned, and vanished again, meanwhile."""
        torrent = find_torrent(self.con, hash)
        return torrent if torrent and torrent.vanished is not None and hash not in self.grace_ends else None

    def refusal(self, torrent: Torrent) -> Optional[str]:
        """Return why a vanished torrent cannot be finished now, None when all guards let it pass."""
        facts = self.facts or self.look()
        guards = GUARDS[:1] if self.args.force else GUARDS
        return next(filter(None, (guard(torrent, facts) for guard in guards)), None)

    def hold(self, torrent: Torrent, reason: str) -> None:
        """Keep a vanished torrent and its files; the look that found the reason may have found it back as well."""
        if self.find_due(torrent.hash) is None:
            return
        query(self.con, "UPDATE rtwatch_torrent SET held = ? WHERE hash = ?", reason, torrent.hash)
        if reason != torrent.held:
            self.held.setdefault(reason, []).append(torrent.name)

    def say_held(self) -> None:
        """Say what was held, one line a reason, with the command that goes on."""
        for reason, names in self.held.items():
            say(logging.WARNING, "held", f"{some(names)}: {reason}")
            if reason not in (PRESENT, HOOK_FAILED):
                command = forced_command(self.args)
                say(logging.WARNING, "  go on", f"if rtorrent has it no more: stop rtwatch, then {command}")
        self.held.clear()

    def finish(self, torrent: Torrent) -> None:
        """Remove the files of an erased torrent as far as -r and the plan allow, delete its rows, call post_remove."""
        if torrent.hash not in self.removals:
            self.removals[torrent.hash] = Removal(self.con, self.args, torrent, self.unlinked)
        removal = self.removals[torrent.hash]
        if self.args.remove and not self.remove_files(removal):
            return
        row = find_blobs(self.con, torrent.hash)
        if row is None:  # a hook has deleted it
            return
        tracker, *blobs = row
        delete_torrent(self.con, torrent.hash)
        self.con.commit()
        del self.removals[torrent.hash]
        self.fresh.discard(torrent.hash)
        self.finished = [when for when in (*self.finished, torrent.vanished or 0) if when > time.time() - 2 * MINUTE]
        self.freed += 0 if self.args.trash else removal.freed
        removal.report()
        erased = RmTuple(torrent.name, tracker, torrent.hash, removal.removed, removal.files, *blobs)
        self.call_hook("post_remove", self.t_path(torrent.hash), self.args, erased)

    def remove_files(self, removal: Removal) -> bool:
        """Carry out the plan file by file; return False when it has to end before the last one.

        Events are looked for before every file, and after any the guards are asked and the rest is planned again.
        """
        todo = removal.todo
        while todo:
            for decision in removal.plan():
                if self.stopping:
                    return False
                if self.take_news():
                    break
                todo.popleft()
                removal.carry_out(decision)
            else:
                break
            torrent = self.find_due(removal.torrent.hash)
            if torrent is None:
                return False
            reason = self.refusal(torrent)
            if reason is not None:
                self.hold(torrent, reason)
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

    def compare(self) -> Comparison:
        """Hold the session directory against the database, both ways; raise SessionGone."""
        self.check_session()
        try:
            listing = list_session(self.args.session)
        except OSError as error:
            raise SessionGone(f"{self.args.session}: cannot be listed ({error.strerror}); {NOTHING_LOST}") from None
        loaded = set(find_hashes(self.con, "vanished IS NULL"))
        present = sorted(hash for hash, letters in listing.items() if "T" in letters)
        strangers = [hash for hash, letters in listing.items() if letters != "L" and hash not in loaded]
        self.absent -= listing.keys()
        missing = [hash for hash in loaded if "T" not in listing.get(hash, "") and hash not in self.absent]
        return Comparison(frozenset(listing), present, strangers, missing)

    def look(self) -> Facts:
        """Work what the inotify queue brings until it is empty, compare, and return what the guards need to know."""
        waiting = [entry for entry in self.later if entry[2] in OWN_QUEUES[:3]]
        if waiting:  # the rows are not true without them
            raise OSError(f"{waiting[0][3]} could not be worked yet")
        comparison = None
        while self.take_events() or comparison is None:  # so that no event explains what the listing shows
            for name in OWN_QUEUES[:3]:
                while self.queues[name] and not self.stopping:
                    self.work_item(name)
            comparison = self.compare()
            if self.stopping:
                break
        for hash in {*comparison.strangers, *self.troubles}:
            self.read_again(hash)
        for hash in comparison.missing:
            self.vanish(hash, time.time(), False)  # it was moved away, as rtorrent never does
        for hash in self.fresh:
            insert_links(self.con, hash, map(os.fsencode, find_files(self.con, hash)))
        loaded = len(find_hashes(self.con, "vanished IS NULL")) - len(self.absent)
        sql = "SELECT vanished FROM rtwatch_torrent WHERE vanished IS NOT NULL AND (held IS NULL OR seen IS NOT 0)"
        vanished = [row[0] for row in query(self.con, sql)] + self.finished
        lock = read_lock(self.args.session).state
        self.con.commit()
        self.facts = Facts(comparison.listed, dict(self.troubles), lock, bool(self.args.paths), loaded, vanished)
        return self.facts

    def give_up(self) -> None:
        """Record that the session directory is gone: nobody has erased what vanished with it."""
        query(self.con, "UPDATE rtwatch_torrent SET seen = 0 WHERE vanished IS NOT NULL")
        for hash in find_hashes(self.con, "vanished IS NULL"):
            if not os.path.lexists(self.t_path(hash)):
                update_vanished(self.con, hash, time.time(), False)
        self.con.commit()

    def bring_up_to_date(self) -> None:
        """Compare at the start: no hooks, nothing removed; what went while rtwatch was away loses its rows."""
        comparison = self.compare()
        for number, hash in enumerate(comparison.present, 1):
            if self.stopping:
                self.con.commit()
                return
            self.read_again(hash)
            show_progress(number, len(comparison.present))
            if number % 1000 == 0:
                self.con.commit()
        self.drop_missing(comparison)
        now = time.monotonic()
        self.grace_ends = dict.fromkeys(find_hashes(self.con, "vanished IS NOT NULL"), now + self.args.grace)
        for reason, name in query(self.con, f"SELECT held, name {KNOWN} WHERE held IS NOT NULL ORDER BY name"):
            self.held.setdefault(reason, []).append(name)
        self.on_unknown(self.con, self.args.session, self.args, self.queues)
        self.con.commit()
        self.fresh = set(find_hashes(self.con, "NOT counted"))
        self.level = logging.INFO

    def drop_missing(self, comparison: Comparison) -> None:
        """Forget what went while rtwatch was not running, unless the session looks wiped or not mounted.

        Then nothing that is missing counts as erased, not even what was seen to go before.
        """
        number, loaded = len(comparison.missing), len(comparison.present)
        if number > loaded and not self.args.catch_up:
            what = f"the session looks empty: {number} of {count(number + loaded, 'torrent')} missing"
            say(logging.WARNING, "held", what, "their rows and files stay")
            command = f"{forced_command(self.args)} --catch-up"
            say(logging.WARNING, "  go on", f"restore or mount it; or, if rtorrent has them no more: {command}")
            self.absent.update(comparison.missing)
            query(self.con, "UPDATE rtwatch_torrent SET seen = 0 WHERE vanished IS NOT NULL")
            return
        for hash in comparison.missing:
            torrent = find_torrent(self.con, hash)
            if self.args.catch_up:
                self.vanish(hash, time.time(), None)
            elif torrent:
                files = count(len(find_files(self.con, hash)), "file")
                delete_torrent(self.con, hash)
                say(logging.INFO, "dropped", torrent.name, f"erased while rtwatch was not running, leaves {files}")

    def on_unknown(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Look once more for places that could not be known, and say in one line which ones remain."""
        for hash in [*find_hashes(con, "root IS NULL"), *self.troubles]:
            self.read_again(hash)
        torrents = [find_torrent(con, hash) for hash in find_hashes(con, "root IS NULL")]
        unknown = [torrent.name for torrent in torrents if torrent]
        unknown += [f"{t.name} ({t.reason})" for t in self.troubles.values() if t.reason == MISSING]
        if unknown and unknown != self.unknown:
            say(logging.WARNING, "unknown", f"where the files are of {some(unknown)}; looked at again every minute")
        self.unknown = unknown
        harmful = not all(trouble.harmless for trouble in self.troubles.values())
        self.look_again_at = time.monotonic() + MINUTE if unknown or harmful else None

    def on_lost(self, con: Con, path: Path, args: Args, queues: Queues) -> None:
        """Compare after the kernel dropped events: every torrent is read again, what is missing is vanished."""
        say(logging.WARNING, "overflow", "the kernel dropped events (fs.inotify.max_queued_events); comparing anew")
        comparison = self.compare()
        queues["saved"].extend(map(self.t_path, comparison.present))
        for hash in comparison.missing:
            self.vanish(hash, time.time(), None)

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
        for event in self.inot.read(timeout=0):
            self.dispatch(event.wd, event.mask, event.name)
        news = any(self.queues[name] for name in OWN_QUEUES[:3])
        if news:
            self.facts = None
        return news

    def dispatch(self, wd: int, mask: int, name: str) -> None:
        """Hand one event to the function for its extension and mask; raise SessionGone."""
        if mask & flags.Q_OVERFLOW:
            self.deleted = ((UNSEEN, time.monotonic()),) * 3
            self.queues["lost"].append(self.args.session)
        directory = self.inot.directories.get(wd)
        if directory is None:
            return
        if directory == self.args.session and mask & ENDS:
            raise SessionGone(f"{directory}: the session directory was removed, moved or unmounted; {NOTHING_LOST}")
        if mask & flags.IGNORED:
            del self.inot.directories[wd]
        _, dot, ext = (name[:-4] if name.endswith(".new") else name).rpartition(".")
        key = ext if dot else ""
        func = self.inot_funcs.get((key, mask)) or self.inot_funcs.get((key, mask_flags(mask)))
        if func is not None:
            try:
                func(directory / name)
            except Exception:  # may be a function that a hook put there
                logger.exception("%-12s %s", "failed", f"the function for {name}; rtwatch goes on")

    def take_news(self) -> bool:
        """Work what the inotify queue brings, if anything, until it is empty; tell whether there was anything."""
        if not self.take_events():
            return False
        self.look()
        return True

    def take_due(self) -> None:
        """Queue what is due by now: graces that are over, items put back, directories to look at again."""
        now = time.monotonic()
        for hash in [hash for hash, end in self.grace_ends.items() if end <= now]:
            del self.grace_ends[hash]
            self.queues["erased"].append(self.t_path(hash))
        while self.later and self.later[0][0] <= now:
            _, _, name, item = heapq.heappop(self.later)
            self.queues.setdefault(name, deque()).append(item)
        if self.look_again_at is not None and self.look_again_at <= now:
            self.look_again_at = None
            self.queues["unknown"].append(self.args.session)

    def timeout(self) -> Optional[float]:
        """Return the milliseconds until something is due, None when nothing is."""
        if any(self.queues.values()):
            return 0
        times = [*self.grace_ends.values(), *(entry[0] for entry in self.later[:1])]
        times += [self.look_again_at] if self.look_again_at is not None else []
        return min(max(0.0, min(times) - time.monotonic()) * 1000 + 1, 1e9) if times else None  # poll takes an int

    def work(self) -> None:
        """Make one pass: at most fifty items of each queue, of those that stand in it now."""
        self.facts = None
        for name, queue in list(self.queues.items()):
            for _ in range(min(50, len(queue))):
                if queue and not self.stopping and self.queues.get(name) is queue:  # a hook may have taken it away
                    self.work_item(name)
        if not self.queues["erased"]:
            self.say_held()
        if not self.grace_ends:
            self.unlinked.clear()

    def work_item(self, name: str) -> None:
        """Call the function of a queue with its first item. What the function puts back comes again after a second,
        what failed for the time being after growing pauses of up to a minute."""
        queue = self.queues[name]
        item = queue.popleft()
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
            pause = self.pauses[id(item)] = min(MINUTE, 2 * self.pauses.get(id(item), 0.5))
            say(logging.ERROR, "failed", f"{item}: {error}; tried again in {pause:g} s")
            self.call_later(pause, name, item)
        except Exception as error:
            if type(error) is sqlite3.DatabaseError:
                raise unusable(self.args.db, error) from None
            self.con.rollback()
            logger.exception("%-12s %s", "failed", f"{item}; rtwatch goes on")
        else:
            self.pauses.pop(id(item), None)
            for _ in range(len(queue) - before):
                self.call_later(1.0, name, queue.popleft() if queue[0] is item else queue.pop())

    def call_later(self, seconds: float, name: str, item: object) -> None:
        """Put an item back into a queue after some time."""
        heapq.heappush(self.later, (time.monotonic() + seconds, next(self.counter), name, item))

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
        say(logging.INFO, "watching", *self.describe())
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
        if path.parent == self.args.session and COMPLETE_NAME.fullmatch(path.name):
            self.queues["complete"].append(path)

    def describe(self) -> list[str]:
        """Return what the first line says: how much is known, whether rtorrent runs, what is removed."""
        args, lock = self.args, read_lock(self.args.session).state
        sql = "SELECT (SELECT count(*) FROM torrent_data), (SELECT count(*) FROM session_file)"
        torrents, files = query(self.con, sql).fetchone()
        runs = {"running": "rtorrent runs", "elsewhere": "rtorrent.lock names another host"}
        mode = f"{'would remove' if args.no_action else 'removes'} files" if args.remove else "removes no files"
        where = [f"only below {' '.join(map(str, args.paths))}"] if args.paths else []
        known = [count(torrents, "torrent"), count(files, "file"), runs.get(lock, f"rtorrent.lock is {lock}")]
        home = f"{Path.home()}/"
        session = str(args.session).replace(home, "~/", 1) if is_below(args.session, Path.home()) else str(args.session)
        return [session, mode, *where, *known, *([f"trash {args.trash}"] if args.trash else [])]

    def run(self, wake: int) -> None:
        """Block until something happens or is due, and work it, until there is a reason to stop; raise SessionGone.

        `wake` is the file descriptor that a signal writes to.
        """
        poller = poll()
        poller.register(self.inot, POLLIN)
        poller.register(wake, POLLIN)
        while not self.stopping and not (self.args.once and self.is_done()):
            poller.poll(self.timeout())
            with suppress(BlockingIOError):
                os.read(wake, 4096)
            self.check_session()
            self.take_events()
            self.take_due()
            self.work()
            self.tell_status()

    def tell_status(self) -> None:
        """Tell the service manager how things stand, after each change."""
        if "NOTIFY_SOCKET" in os.environ and self.told != self.con.total_changes:
            self.told = self.con.total_changes
            sql = "SELECT count(*), count(vanished), count(held) FROM rtwatch_torrent"
            torrents, vanished, held = query(self.con, sql).fetchone()
            known = f"{count(torrents, 'torrent')}, {vanished} vanished, {held} held"
            notify(f"STATUS={known}, {human_size(self.freed)} freed")

    def is_done(self) -> bool:
        """Tell whether there is nothing left that --once waits for; what a hook puts back is no reason to stay."""
        failed = any(name in OWN_QUEUES for _, _, name, _ in self.later)
        return not (self.take_events() or self.grace_ends or any(self.queues.values()) or failed)


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

    Raise Error when no torrent has anything below PATH: then it is the wrong directory.
    """
    odd = 0
    for directory in args.paths:
        if not is_used_directory(con, directory, ""):
            raise Error(f"{directory}: no torrent has a file below it; name the directory of your downloads", 2)
        sizes = []
        for path, info in walk_files(directory, [args.session, *filter(None, [args.trash])]):
            sql = "SELECT 1 FROM session_file WHERE file = ? UNION ALL SELECT 1 FROM rtwatch_link WHERE file = ?"
            young = info.st_mtime > time.time() - DAY
            if young or query(con, sql, path, path).fetchone():
                continue
            odd += "\n" in str(path)
            line = printable(str(path)) if "\n" in str(path) else str(path)
            sys.stdout.buffer.write(os.fsencode(line) + b"\n")
            sizes.append(info.st_blocks * 512)
        say(logging.INFO, "orphans", f"{count(len(sizes), 'file')}, {human_size(sum(sizes))} below {directory}")
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


def open_inotify() -> WatchedINotify:
    """Return an inotify instance; raise Error."""
    try:
        return WatchedINotify()
    except OSError as error:
        advice = "too many are in use: sysctl fs.inotify.max_user_instances=512"
        raise Error(f"inotify: {error.strerror}; {advice}") from None


def watch_session(args: Args) -> int:
    """Run the program and return its exit status; raise Error."""
    hooks = load_hooks(args.hooks)
    lock = nullcontext() if args.no_action else writer_lock(args.session)
    with lock, closing(open_database(args)) as con, open_inotify() as inot:
        watch = Watch(con, inot, args)
        if args.orphans:
            watch.bring_up_to_date()
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
    add("--force", action="store_true", help="only with --once: let held removals go ahead")
    add = parser.add_argument_group("doing one thing and exiting").add_argument
    add("--once", action="store_true", help="bring the database up to date and finish what vanished")
    add("--orphans", action="store_true", help="list the files below PATH that no torrent lists")
    versions = "versions of rtwatch, Python, sqlite and both libraries"
    add("--version", nargs=0, action=VersionAction, default=argparse.SUPPRESS, help=versions)
    add = parser.add_argument_group("hooks, database, output").add_argument
    add("--hooks", metavar="FILE", help="Python file with hook functions")
    add("--db", metavar="FILE", help="database ($XDG_STATE_HOME/rtwatch/rtwatch.db)")
    add("-v", "--verbose", action="store_true", help="also say every file and every known torrent")
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


def session_advice() -> str:
    """Return where rtorrent's configuration says that its session is, as far as that can be read plainly."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for file in (Path.home() / ".rtorrent.rc", config / "rtorrent" / "rtorrent.rc"):
        with suppress(OSError):
            lines = file.read_text("utf-8", "replace")
            for path in re.findall(r'^\s*(?:session\.path\.set|session)\s*=\s*"?([^"(){}$,;#\n]+?)"?\s*$', lines, re.M):
                return f"{file} says session.path.set = {path}: rtwatch {shlex.quote(path)}"
    return "name the one of session.path.set in your rtorrent.rc: rtwatch SESSION"


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
            raise Error(f"{path}: not a directory; rtwatch -r SESSION PATH ... removes only below each PATH", 2)
    if args.trash and not (args.remove and args.trash.is_dir()):
        raise Error(f"{args.trash}: --trash goes with -r and names a directory: mkdir -p {args.trash}", 2)
    if args.orphans and not args.paths:
        raise Error("--orphans needs the directories to look through: rtwatch --orphans SESSION PATH ...", 2)
    args.no_action |= args.orphans  # it lists only
    if args.force and not args.once:
        raise Error("--force goes with --once only: rtwatch --once --force", 2)
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
