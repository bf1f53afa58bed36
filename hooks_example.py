"""Hooks for rtwatch to copy and cut down; as they stand they do no harm: rtwatch --hooks hooks_example.py

They keep the .torrent of each erased torrent, run a command for each finished one, write a history of their own into
rtwatch's database, and say of each .torrent in a drop directory how many of its file names the session has already.
With -n they change nothing: they write only to `con`, which is a temporary copy then.
Only you may be able to write to a hooks file: chmod go-w hooks_example.py
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import time
from argparse import Namespace
from collections import deque
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Callable, Optional

from inotify_simple import flags

from rtwatch import Unreadable, parse_metainfo, read_session_file

# The command gets the path of the finished download as one more argument. rtwatch waits for it, so let it be short.
COMMAND = ["true"]
STATE = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "rtwatch-example"
ERASED = STATE / "erased"
DROP = STATE / "drop"  # watched if it is there when rtwatch starts
LINE = "%-12s %s"  # like rtwatch's lines: a verb, then the rest

logger = logging.getLogger("rtwatch.example")


def pre_loop(con: Connection, inot: Any, args: Namespace, queues: Any, qfuncs: Any, inot_funcs: Any) -> None:
    """Make the table, queue the marks that were written while rtwatch was off, and watch DROP."""
    con.execute("CREATE TABLE IF NOT EXISTS example_history(hash TEXT, name TEXT, added REAL, erased REAL)")
    queues["complete"].extend(sorted(args.session.glob("*.complete")))
    if DROP.is_dir():
        queues["drop"] = deque()
        qfuncs["drop"] = on_dropped
        # rtwatch has handlers for these keys, too. They are called for all other directories.
        for mask in (flags.CLOSE_WRITE, flags.MOVED_TO):
            inot_funcs["torrent", mask] = partial(sort_out, queues["drop"], inot_funcs.get(("torrent", mask)))
        inot.add_watch(DROP, flags.CLOSE_WRITE | flags.MOVED_TO)


def post_loop(con: Connection, inot: Any, args: Namespace) -> None:
    """End the watch of DROP; adding it once more only returns its watch descriptor."""
    with suppress(OSError):  # DROP is not there, or not any more.
        inot.rm_watch(inot.add_watch(DROP, flags.MOVED_TO))


def post_add(con: Connection, file: Path, args: Namespace) -> None:
    """Begin the torrent's line in the history; rtwatch commits what a hook leaves open."""
    sql = "INSERT INTO example_history(hash, name, added) SELECT hash, name, ? FROM torrent_data WHERE hash = ?"
    con.execute(sql, (time.time(), file.stem))


def post_remove(con: Connection, file: Path, args: Namespace, RmTuple: Any) -> None:
    """End the torrent's line in the history, keep its .torrent, remove its mark, which would count if it came back."""
    sql = "UPDATE example_history SET erased = ? WHERE hash = ? AND erased IS NULL"
    con.execute(sql, (time.time(), RmTuple.hash))
    kept = ERASED / f"{safe_name(RmTuple.name)}-{RmTuple.hash[:8]}.torrent"
    logger.info(LINE, "would save" if args.no_action else "saved", kept)
    if not args.no_action:
        ERASED.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(RmTuple.tor)
        file.with_suffix(".complete").unlink(missing_ok=True)


def complete(con: Connection, path: Path, args: Namespace, queues: Any) -> None:
    """Run COMMAND for a finished torrent; its mark is deleted if that works, and queued again if not."""
    # Events may come twice.
    if not path.exists():
        return
    files = [row[0] for row in con.execute("SELECT file FROM session_file WHERE hash = ?", (path.stem,))]
    if not files:
        # rtorrent 0.16 may write the mark before the torrent.
        if abs(time.time() - path.stat().st_mtime) < 60:
            queues["complete"].append(path)
        return
    command = [*COMMAND, os.path.commonpath(files)]
    if args.no_action:
        logger.info(LINE, "would run", shlex.join(command))
    elif subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0:
        path.unlink(missing_ok=True)
        logger.info(LINE, "ran", shlex.join(command))
    else:
        say_failed(shlex.join(command))
        # rtwatch calls this hook again after a second.
        queues["complete"].append(path)


@cache
def say_failed(command: str) -> None:
    """Say that a command failed. The cache makes it say so once, not every second."""
    logger.warning(LINE, "failed", f"{command}; it is run again until it works")


def sort_out(queue: deque[Path], func: Optional[Callable[[Path], object]], path: Path) -> None:
    """Queue a path in DROP; hand any other to `func`, which was in inot_funcs before."""
    # A .torrent.new has the same key.
    if path.parent == DROP and path.suffix == ".torrent":
        queue.append(path)
    elif func:
        func(path)


def on_dropped(con: Connection, path: Path, args: Namespace, queues: Any) -> None:
    """Say how many of the file names in a dropped torrent the session has already."""
    try:
        # It reads only regular files, and no huge ones.
        metainfo = parse_metainfo(read_session_file(path))
    except (OSError, Unreadable) as error:
        logger.warning(LINE, "found", f"{path.name} cannot be read: {error}")
        return
    names = {os.path.basename(path) for _, path in metainfo.each_path()} if metainfo else set()
    listed = con.execute("SELECT CAST(file AS BLOB) FROM session_file")
    known = names & {os.path.basename(file) for (file,) in listed}
    logger.info(LINE, "found", f"{path.name}, {len(known)} of {len(names)} file names are in the session already")


def safe_name(name: str) -> str:
    """Return a torrent's name as a file name without odd characters, a dot or dash first, or more than 200 bytes."""
    name = re.sub(r"[^\w .()\[\]+-]", "_", name).lstrip(".- ").encode()[:200].decode(errors="ignore") or "unnamed"
    # The locale's encoding may be another one.
    return os.fsdecode(name.encode())
