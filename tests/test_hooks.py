"""The user's hook functions: when they are called, with what, and what becomes of their failures."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from program import Launcher, Program, run
from session import Session, touch
from steps import ALL_HOOKS, Hooks
from torrents import Torrent, multi, single

SHORT = ("--grace", "0.2")
LONG = ("--grace", "600")

ARGS = (
    *("session", "paths", "remove", "no_action", "hooks", "db", "grace", "trash"),
    *("catch_up", "force", "once", "orphans", "verbose", "quiet"),
)
def wait_called(program: Program, launcher: Launcher, hook: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until a hook was called `count` times; return its calls."""
    program.wait_for(lambda: launcher.hooks_called().count(hook) >= count, f"{hook} is not called {count} times")
    return [call for call in launcher.calls() if call["hook"] == hook]


def live(program: Program, launcher: Launcher, session: Session, downloads: Path, torrent: Torrent) -> None:
    """Let a torrent be added, completed and erased, and wait until rtwatch is through."""
    session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    session.mark_complete(torrent)
    session.erase(torrent)
    program.wait_gone(torrent.hash)


# when, and with what


def test_hooks_are_called_in_order(session: Session, launcher: Launcher, downloads: Path) -> None:
    old, torrent = single("old"), multi("pack")
    session.add(old, downloads)
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    session.mark_complete(torrent)
    wait_called(program, launcher, "complete")
    session.erase(torrent)
    program.wait_gone(torrent.hash)
    wait_called(program, launcher, "post_remove")
    assert program.stop() == 0
    both = sorted([old.hash, torrent.hash])
    assert [
        (call["hook"], call["hash"], sorted(call["known"]), sorted(call["listed"])) for call in launcher.calls()
    ] == [
        ("pre_loop", None, [old.hash], [old.hash]),
        ("pre_add", torrent.hash, [old.hash], [old.hash]),
        ("post_add", torrent.hash, both, both),
        ("complete", torrent.hash, both, both),
        ("pre_remove", torrent.hash, both, both),
        ("post_remove", torrent.hash, [old.hash], [old.hash]),
        ("post_loop", None, [old.hash], [old.hash]),
    ]
    assert not any(call["in_transaction"] for call in launcher.calls())
    files = {call["hook"]: call["file"] for call in launcher.calls(torrent.hash)}
    mark = str(session.path / f"{torrent.hash}.complete")
    file = str(session.file(torrent))
    assert files == {"complete": mark, "pre_add": file, "post_add": file, "pre_remove": file, "post_remove": file}


def test_hooks_get_their_arguments(session: Session, launcher: Launcher, downloads: Path, hooks: Hooks) -> None:
    option = hooks.write(
        """
KINDS = (sqlite3.Connection, inotify_simple.INotify, argparse.Namespace, Path, collections.OrderedDict, tuple, dict)

def kinds(given):
    return [next(kind.__name__ for kind in KINDS if isinstance(value, kind)) for value in given]
"""
        + "".join(f"def {name}(*given):\n    note({name!r}, kinds=kinds(given))\n" for name in ALL_HOOKS)
    )
    program = launcher.start("-r", *SHORT, *option)
    live(program, launcher, session, downloads, single("one"))
    wait_called(program, launcher, "complete")
    wait_called(program, launcher, "post_remove")
    program.stop()
    assert {call["hook"]: call["kinds"] for call in launcher.calls()} == {
        "pre_loop": ["Connection", "INotify", "Namespace", "OrderedDict", "dict", "dict"],
        "pre_add": ["Connection", "Path", "Namespace"],
        "post_add": ["Connection", "Path", "Namespace"],
        "complete": ["Connection", "Path", "Namespace", "OrderedDict"],
        "pre_remove": ["Connection", "Path", "Namespace"],
        "post_remove": ["Connection", "Path", "Namespace", "tuple"],
        "post_loop": ["Connection", "INotify", "Namespace"],
    }


def test_args_has_every_option(session: Session, launcher: Launcher, downloads: Path, hooks: Hooks) -> None:
    option = hooks.write(
        """
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    values = {key: str(value) for key, value in vars(args).items()}
    kinds = [isinstance(args.session, Path), type(args.paths) is tuple, all(isinstance(p, Path) for p in args.paths)]
    note("pre_loop", values=values, kinds=kinds, numbers=[args.grace, args.remove, args.no_action, args.once])
"""
    )
    program = launcher.start("-r", "--grace", "2.5", *option, paths=[downloads])
    (call,) = wait_called(program, launcher, "pre_loop")
    assert call["kinds"] == [True, True, True]
    assert call["numbers"] == [2.5, True, False, False]
    assert call["values"]["db"] == str(launcher.db)
    assert sorted(call["values"]) == sorted(ARGS)


def test_the_queue_of_complete_is_the_hook(session: Session, launcher: Launcher, downloads: Path, hooks: Hooks) -> None:
    option = hooks.write(
        """
def complete(con, path, args, queues):
    note("complete", left=len(queues["complete"]))

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    note("pre_loop", same=qfuncs["complete"] is complete, left=list(queues["complete"]))
"""
    )
    program = launcher.start(*option)
    session.add(single("one"), downloads)
    session.mark_complete(single("one"))
    (call,) = wait_called(program, launcher, "complete")
    assert call["left"] == 0
    assert wait_called(program, launcher, "pre_loop")[0]["same"]


def test_the_queue_of_complete_is_always_there(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write("def pre_loop(*given):\n    note('pre_loop', left=list(given[3]['complete']))\n")
    program = launcher.start(*option)
    assert wait_called(program, launcher, "pre_loop")[0]["left"] == []
    session.add(single("one"), downloads)
    session.mark_complete(single("one"))
    session.add(single("two"), downloads)
    program.wait_known(single("two").hash)
    assert program.stop() == 0


def test_a_second_touch_completes_again(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*launcher.hooks)
    session.add(single("one"), downloads)
    mark = session.mark_complete(single("one"))
    wait_called(program, launcher, "complete")
    touch(mark)
    wait_called(program, launcher, "complete", 2)
    other = mark.with_name("moved")
    mark.rename(other)
    other.rename(mark)
    wait_called(program, launcher, "complete", 3)
    session.add(single("two"), downloads)
    program.wait_known(single("two").hash)
    assert launcher.hooks_called().count("complete") == 3


def test_once_calls_the_hooks_of_the_loop(session: Session, launcher: Launcher, downloads: Path) -> None:
    session.add(single("one"), downloads)
    assert launcher.once(*launcher.hooks).returncode == 0
    assert launcher.hooks_called() == ["pre_loop", "post_loop"]
    assert launcher.calls()[0]["known"] == [single("one").hash]


def test_con_and_inot_are_open_after_the_loop(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
def post_loop(con, inot, args):
    inot.add_watch(args.session, flags.CREATE)
    note("post_loop", closed=inot.closed, hashes=con.execute("SELECT count(*) FROM torrent_data").fetchone()[0])
"""
    )
    session.add(single("one"), downloads)
    program = launcher.start(*option)
    assert program.stop() == 0
    (call,) = wait_called(program, launcher, "post_loop")
    assert (call["closed"], call["hashes"]) == (False, 1)


@pytest.mark.parametrize("options", [("-r",), ("-r", "-n"), ()], ids=["-r", "-r -n", "without -r"])
@pytest.mark.parametrize("torrent", [single("one"), multi("pack")], ids=["single", "multi"])
def test_post_remove_gets_what_the_torrent_was(
    torrent: Torrent, options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
def post_add(con, file, args):
    note("post_add")

def post_remove(con, file, args, RmTuple):
    fields = RmTuple._asdict()
    blobs = {name: fields.pop(name).hex() for name in ("tor", "ltor", "rtor")}
    kinds = [type(RmTuple).__name__, isinstance(RmTuple, tuple), type(RmTuple.rmfiles).__name__]
    kinds += sorted({type(path).__name__ for path in RmTuple.torfiles})
    note("post_remove", order=RmTuple._fields, fields=fields, blobs=blobs, kinds=kinds)

json.JSONEncoder.default = lambda self, value: str(value)
"""
    )
    program = launcher.start(*options, *SHORT, *option)
    paths = [str(path) for path in session.download(torrent, downloads)]
    wait_called(program, launcher, "post_add")
    stored = dict(zip(["tor", "ltor", "rtor"], (session.file(torrent, kind).read_bytes() for kind in "TLR")))
    session.erase(torrent)
    (call,) = wait_called(program, launcher, "post_remove")
    assert call["order"] == ["name", "tracker", "hash", "rmfiles", "torfiles", "tor", "ltor", "rtor"]
    assert sorted(call["fields"].pop("rmfiles")) == (sorted(paths) if options else [])
    assert sorted(call["fields"].pop("torfiles")) == sorted(paths)
    assert call["fields"] == {"name": torrent.name.decode(), "tracker": "127.0.0.1", "hash": torrent.hash}
    assert call["kinds"] == ["RmTuple", True, "list", "PosixPath"]
    assert bytes.fromhex(call["blobs"]["tor"]) == stored["tor"]
    assert all(os.path.exists(path) for path in paths) == (options != ("-r",))


def test_post_remove_gets_no_resume_data_when_there_was_none(
    session: Session, launcher: Launcher, downloads: Path
) -> None:
    program = launcher.start("-r", *SHORT, *launcher.hooks)
    torrent = single("one")
    session.load(torrent, downloads)
    session.write(torrent, "T")
    session.write(torrent, "R")
    program.wait_known(torrent.hash)
    session.erase(torrent)
    (call,) = wait_called(program, launcher, "post_remove")
    assert call["removed"]["ltor"] is None
    assert call["removed"]["rtor"] is not None


def test_hooks_are_called_in_a_dry_run(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start("-r", "-n", *SHORT, *launcher.hooks)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    wait_called(program, launcher, "post_add")
    session.mark_complete(torrent)
    wait_called(program, launcher, "complete")
    session.erase(torrent)
    (call,) = wait_called(program, launcher, "post_remove")
    assert sorted(call["removed"]["rmfiles"]) == sorted(map(str, paths))
    assert program.stop() == 0
    assert all(path.exists() for path in paths)
    assert launcher.hooks_called() == [
        "pre_loop",
        "pre_add",
        "post_add",
        "complete",
        "pre_remove",
        "post_remove",
        "post_loop",
    ]
    assert all(call["no_action"] for call in launcher.calls())
    assert not launcher.db.exists()


# failures


@pytest.mark.parametrize("hook", ["pre_add", "post_add", "complete", "post_remove", "post_loop"])
def test_a_hook_that_fails_is_logged_and_passed_over(
    hook: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    program = launcher.start("-r", *SHORT, *hooks.write_each(**{hook: "raise ValueError('of this hook')"}))
    torrent = multi("pack")
    live(program, launcher, session, downloads, torrent)
    assert not (downloads / "pack").exists()
    live(program, launcher, session, downloads, single("other"))
    wait_called(program, launcher, "post_remove", 2)
    assert program.stop() == 0
    program.wait_line("Traceback")
    program.wait_line("ValueError: of this hook")
    assert hook in program.output
    assert [name for name in launcher.hooks_called() if name != "complete"] == [
        "pre_loop",
        *["pre_add", "post_add", "pre_remove", "post_remove"] * 2,
        "post_loop",
    ]


def test_a_torrent_whose_pre_remove_fails_is_held(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write_each(pre_remove="raise ValueError('of this hook')")
    program = launcher.start("-r", *SHORT, *option)
    torrents = [multi("pack"), multi("other")]
    for torrent in torrents:
        session.download(torrent, downloads)
        program.wait_known(torrent.hash)
    session.erase(torrents[0])
    program.wait_line("ValueError: of this hook")
    program.wait_line(r"pack.*pre_remove|pre_remove.*pack")
    session.erase(torrents[1])
    wait_called(program, launcher, "pre_remove", 2)
    assert program.stop() == 0
    assert launcher.hooks_called().count("pre_remove") == 2
    assert "post_remove" not in launcher.hooks_called()
    assert all(path.exists() for torrent in torrents for path in torrent.paths(downloads / torrent.name.decode()))
    again = launcher.start("-r", *SHORT, *hooks.write_each())
    for torrent in torrents:
        again.wait_gone(torrent.hash)
    wait_called(again, launcher, "post_remove", 2)
    assert not (downloads / "pack").exists()


def test_a_pre_loop_that_fails_ends_rtwatch(session: Session, launcher: Launcher, hooks: Hooks) -> None:
    program = launcher.start(*hooks.write_each(pre_loop="raise ValueError('of this hook')"), ready=False)
    assert program.wait() == 1
    program.wait_line("ValueError: of this hook")
    program.wait_line("pre_loop")


@pytest.mark.parametrize("hook", ALL_HOOKS)
def test_a_hook_may_end_rtwatch(hook: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks) -> None:
    program = launcher.start("-r", *SHORT, *hooks.write_each(**{hook: "sys.exit()"}), ready=hook != "pre_loop")
    torrent = multi("pack")
    session.download(torrent, downloads)
    if hook not in ("pre_loop", "pre_add", "post_add"):
        program.wait_known(torrent.hash)
        session.mark_complete(torrent)
        session.erase(torrent)
    if hook == "post_loop":
        program.wait_gone(torrent.hash)
        program.send_signal(signal.SIGTERM)
    assert program.wait() == 0
    assert launcher.hooks_called()[-1] == "post_loop"
    assert launcher.hooks_called().count("post_loop") == 1
    assert "Traceback" not in program.output


def test_a_signal_waits_for_the_hook_and_a_second_one_does_not(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    body = "while not (args.session / 'go on').exists(): time.sleep(0.01)\n    note('went on')"
    option = hooks.write_each(post_add=body)
    program = launcher.start(*option)
    session.add(single("one"), downloads)
    wait_called(program, launcher, "post_add")
    program.send_signal(signal.SIGTERM)
    (session.path / "go on").touch()
    assert program.wait() == 0
    (session.path / "go on").unlink()
    assert launcher.hooks_called()[-2:] == ["went on", "post_loop"]
    again = launcher.start(*option)
    session.add(single("two"), downloads)
    wait_called(again, launcher, "post_add", 2)
    again.send_signal(signal.SIGTERM)
    again.send_signal(signal.SIGINT)
    assert again.wait() == 0
    assert launcher.hooks_called()[-2:] == ["post_add", "post_loop"]
    assert "Traceback" not in again.output


def test_after_a_signal_while_rtwatch_looks_at_the_session_no_pre_remove_is_called(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    """The first pre_remove lets another torrent be saved, so that rtwatch looks again before the next one."""
    stays, *erased = single("stays"), single("one"), single("two")
    for torrent in (stays, *erased):
        session.add(torrent, downloads)
    program = launcher.start(*LONG)
    for torrent in erased:
        session.erase(torrent)
    program.wait_rows("SELECT count(vanished) FROM rtwatch_torrent", lambda rows: rows == [(2,)])
    program.stop()
    option = hooks.write(
        f"""
import signal

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    saved = qfuncs["saved"]
    def end(con, path, args, queues):
        saved(con, path, args, queues)
        os.kill(os.getpid(), signal.SIGTERM)
    qfuncs["saved"] = end

def pre_remove(con, file, args):
    note("pre_remove")
    resume = args.session / "{stays.hash}.torrent.rtorrent"
    new = resume.with_name(resume.name + ".new")
    new.write_bytes(resume.read_bytes())
    new.rename(resume)
"""
    )
    program = launcher.start(*SHORT, *option)
    assert program.wait() == 0
    assert launcher.hooks_called() == ["pre_remove"]
    assert [hash for (hash,) in program.select("SELECT hash FROM rtwatch_torrent WHERE vanished")] == [erased[1].hash]


@pytest.mark.parametrize(("failure", "kept"), [("pass", True), ("raise ValueError('of this hook')", False)])
def test_an_open_transaction_is_ended_after_the_hook(
    failure: str, kept: bool, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        f"""
def pre_loop(con, *others):
    con.execute("CREATE TABLE IF NOT EXISTS mine (hash TEXT)")

def post_add(con, file, args):
    con.execute("INSERT INTO mine VALUES (?)", (file.stem,))
    note("post_add", open=con.in_transaction)
    {failure}

def complete(con, path, args, queues):
    note("complete", open=con.in_transaction, mine=con.execute("SELECT count(*) FROM mine").fetchone()[0])
"""
    )
    program = launcher.start(*option)
    torrent = single("one")
    session.add(torrent, downloads)
    assert wait_called(program, launcher, "post_add")[0]["open"]
    session.mark_complete(torrent)
    (call,) = wait_called(program, launcher, "complete")
    assert (call["open"], call["mine"]) == (False, int(kept))
    assert program.select("SELECT hash FROM mine") == ([(torrent.hash,)] if kept else [])
    program.wait_known(torrent.hash)


@pytest.mark.parametrize("hook", ALL_HOOKS)
@pytest.mark.parametrize("change", ["fewer", "more", "keyword", "no function"])
def test_a_hook_that_cannot_take_its_arguments_is_refused(
    hook: str, change: str, session: Session, launcher: Launcher, hooks: Hooks
) -> None:
    parameters = ALL_HOOKS[hook]
    text = {
        "fewer": f"def {hook}({parameters.rpartition(', ')[0]}): pass",
        "more": f"def {hook}({parameters}, more): pass",
        "keyword": f"def {hook}({parameters}, *, more): pass",
        "no function": f"{hook} = 7",
    }[change]
    result = run(*hooks.write(text), session.path, state=launcher.state)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert str(hooks.path) in line or hooks.path.name in line
    assert hook in line
    assert not launcher.db.exists()


@pytest.mark.parametrize(
    "text",
    ["def pre_add(con, file, args)\n", "raise ValueError('of this file')\n", "import no_such_module_anywhere\n", "\0"],
    ids=["syntax error", "exception", "import", "null"],
)
def test_a_hooks_file_that_does_not_load_is_refused(
    text: str, session: Session, launcher: Launcher, hooks: Hooks
) -> None:
    result = run(*hooks.write(text), session.path, state=launcher.state)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert hooks.path.name in line
    assert not launcher.db.exists()


def test_a_hook_may_have_further_parameters_with_defaults(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
class Add:
    def __call__(self, con, file, args, more=7):
        note("post_add", more=more)

post_add = Add()

def pre_add(*given, more=8, **others):
    note("pre_add", more=more)
"""
    )
    program = launcher.start(*option)
    session.add(single("one"), downloads)
    wait_called(program, launcher, "post_add")
    assert [call["more"] for call in launcher.calls()] == [8, 7]


def test_a_hooks_file_may_import_its_neighbour_and_be_relative(
    session: Session, launcher: Launcher, downloads: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def post_add(con, file, args):\n    print('post_add was called', flush=True)\n")
    program = launcher.start("--hooks", "mine.py", cwd=tmp_path)
    session.add(single("one"), downloads)
    program.wait_line("post_add was called")


# a hook's own queues, watches and handlers


def test_a_hook_may_watch_another_directory(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    option = hooks.write(
        f"""
WATCHED = Path({str(watched)!r})

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    queues["mine"] = collections.deque()
    qfuncs["mine"] = mine
    inot_funcs["torrent", flags.CLOSE_WRITE] = queues["mine"].append
    inot_funcs["nfo", (flags.MOVED_TO,)] = queues["mine"].append
    inot.add_watch(WATCHED, flags.CLOSE_WRITE | flags.MOVED_TO)

def mine(con, path, args, queues):
    kinds = [isinstance(con, sqlite3.Connection), isinstance(path, Path), args.once, list(queues)]
    note("mine", file=str(path), kinds=kinds)
"""
    )
    program = launcher.start(*option)
    torrent, file = single("one"), single("two").hash + ".torrent"
    (watched / "a.torrent").write_bytes(b"")
    (watched / "other.txt").write_bytes(b"")
    (watched / file).write_bytes(torrent.metainfo)
    (watched / "new").write_bytes(b"")
    (watched / "new").rename(watched / "b.nfo")
    (watched / "c.torrent.new").write_bytes(b"")
    calls = wait_called(program, launcher, "mine", 4)
    assert [call["file"] for call in calls] == [
        str(watched / name) for name in ("a.torrent", file, "b.nfo", "c.torrent.new")
    ]
    assert calls[0]["kinds"][:3] == [True, True, False]
    assert {"mine", "complete"} <= set(calls[0]["kinds"][3])
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    calls = wait_called(program, launcher, "mine", 5)
    assert calls[4]["file"] == str(session.file(torrent)) + ".new"
    (session.path / "d.nfo.new").write_bytes(b"")
    (session.path / "d.nfo.new").rename(session.path / "d.nfo")
    program.wait_for(
        lambda: any(call["file"] == str(session.path / "d.nfo") for call in launcher.calls()),
        "the session directory is not watched for the hook's events",
    )
    assert program.select("SELECT hash FROM torrent_data") == [(torrent.hash,)]


def test_a_torrent_file_moved_into_another_directory_is_no_torrent_of_rtorrent(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    inot.add_watch({str(watched)!r}, flags.MOVED_TO | flags.DELETE)
"""
    )
    program = launcher.start("-r", *SHORT, *option)
    torrent = multi("pack")
    paths = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    foreign = single("foreign")
    for name, content in (
        (f"{torrent.hash}.torrent", torrent.metainfo),
        (f"{foreign.hash}.torrent", foreign.metainfo),
        (f"{foreign.hash}.torrent.rtorrent", session.file(torrent, "R").read_bytes()),
    ):
        (watched / "new").write_bytes(content)
        (watched / "new").rename(watched / name)
    for kind in "LRT":
        file = watched / session.file(torrent, kind).name
        file.touch()
        file.unlink()
    last = single("last")
    session.add(last, downloads)
    program.wait_known(last.hash)
    session.erase(last)
    program.wait_gone(last.hash)
    assert program.select("SELECT hash FROM torrent_data") == [(torrent.hash,)]
    assert all(path.exists() for path in paths)


def test_a_hook_may_wrap_a_handler_of_rtwatch(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    key, = [key for key in inot_funcs if key in (("torrent", flags.MOVED_TO), ("torrent", (flags.MOVED_TO,)))]
    handler = inot_funcs[key]

    def wrapped(path):
        note("wrapped", file=str(path))
        return handler(path)

    inot_funcs[key] = wrapped
"""
    )
    program = launcher.start(*option)
    torrent = single("one")
    session.add(torrent, downloads)
    program.wait_known(torrent.hash)
    assert [call["file"] for call in wait_called(program, launcher, "wrapped")] == [str(session.file(torrent))]


def test_a_watch_on_the_session_directory_takes_nothing_from_rtwatch(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    inot_funcs["dir", flags.CREATE | flags.ISDIR] = lambda path: note("dir", file=str(path))
    inot.add_watch(args.session, flags.CREATE)
"""
    )
    program = launcher.start("-r", *SHORT, *option)
    (session.path / "made.dir").mkdir()
    assert wait_called(program, launcher, "dir")[0]["file"] == str(session.path / "made.dir")
    torrent = single("one")
    (path,) = session.download(torrent, downloads)
    program.wait_known(torrent.hash)
    session.erase(torrent)
    program.wait_gone(torrent.hash)
    assert not path.exists()


def test_an_item_put_back_is_called_again_after_a_second(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
def complete(con, path, args, queues):
    note("complete")
    queues["complete"].append(path)

def post_add(con, file, args):
    note("post_add")
"""
    )
    program = launcher.start(*option)
    session.add(single("one"), downloads)
    session.mark_complete(single("one"))
    wait_called(program, launcher, "complete")
    session.add(single("two"), downloads)
    wait_called(program, launcher, "complete", 4)
    times = [call["time"] for call in launcher.calls() if call["hook"] == "complete"]
    assert all(0.9 < later - earlier < 3 for earlier, later in zip(times, times[1:]))
    added = [call["time"] for call in launcher.calls() if call["hook"] == "post_add"][1]
    assert added < times[1]


@pytest.mark.parametrize("failure", ["OSError(5, 'of this queue')", "sqlite3.OperationalError('of this queue')"])
def test_a_queue_whose_function_fails_keeps_its_item(
    failure: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    queues["mine"] = collections.deque([args.session])
    qfuncs["mine"] = mine

def mine(con, path, args, queues):
    calls.append(path)
    note("mine", file=str(path))
    if len(calls) < 3:
        raise {failure}

calls = []
"""
    )
    program = launcher.start(*option)
    session.add(single("one"), downloads)
    program.wait_known(single("one").hash)
    calls = wait_called(program, launcher, "mine", 3)
    assert {call["file"] for call in calls} == {str(session.path)}
    program.wait_line(re.escape("of this queue"))
    session.add(single("two"), downloads)
    program.wait_known(single("two").hash)
    assert program.stop() == 0
    assert launcher.hooks_called().count("mine") == 3


def test_a_queue_that_fills_itself_does_not_starve_others(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        """
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    queues["mine"] = collections.deque(range(500))
    queues.move_to_end("mine", last=False)
    qfuncs["mine"] = lambda con, number, args, queues: note("mine", number=number)
"""
    )
    program = launcher.start(*option)
    session.add(single("one"), downloads)
    program.wait_known(single("one").hash)
    calls = wait_called(program, launcher, "mine", 500)
    assert [call["number"] for call in calls] == [*range(500)]
