"""The user's hook functions: when they are called, with what, and what becomes of their failures."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from faults import the_line
from program import Launcher, Program
from session import Session, touch
from steps import (
    ALL_HOOKS,
    AT_ONCE,
    SHORT,
    Hooks,
    download,
    erase,
    paused,
    remaining,
    seed,
    settle,
    wait_called,
)
from torrents import Torrent, make, multi, single, twin_of

ONE, PACK = single("one"), multi("pack")
ARGS = (
    *("session", "paths", "remove", "no_action", "hooks", "db", "grace", "trash"),
    *("keep", "scgi", "catch_up", "force", "once", "orphans", "what_if", "verbose", "quiet"),
)


def end(program: Program) -> None:
    """End rtwatch, in which no hook failed."""
    assert program.stop() == 0
    assert "Traceback" not in program.output


# when, and with what


@pytest.mark.parametrize("options", [("-r",), ("-r", "-n"), ()], ids=["-r", "-r -n", "without -r"])
@pytest.mark.parametrize("torrent", [ONE, PACK], ids=["single, without L", "multi"])
def test_hooks_are_called_in_order_with_what_the_torrent_was(
    torrent: Torrent, options: tuple[str, ...], session: Session, launcher: Launcher, downloads: Path
) -> None:
    other = single("other")
    session.add(other, downloads)
    program = launcher.start("--grace", "0.2", *options, *launcher.hooks)
    session.load(torrent, downloads)
    for kind in "TR" if torrent is ONE else "LTR":
        session.write(torrent, kind)
    stored = [file.read_bytes() if file.exists() else None for file in (session.file(torrent, kind) for kind in "TLR")]
    paths = sorted(torrent.write(downloads))
    wait_called(program, launcher, "post_add")
    mark = session.mark_complete(torrent)
    wait_called(program, launcher, "complete")
    session.erase(torrent)
    gone = wait_called(program, launcher, "post_remove")[0]["removed"]
    end(program)
    known, both = [other.hash], sorted([other.hash, torrent.hash])
    file, hash = str(session.file(torrent)), torrent.hash
    assert [
        (call["hook"], call["hash"], call["file"], sorted(call["known"]), sorted(call["listed"]))
        for call in launcher.calls()
    ] == [
        ("pre_loop", None, "None", known, known),
        ("pre_add", hash, file, known, known),
        ("post_add", hash, file, both, both),
        ("complete", hash, str(mark), both, both),
        ("pre_remove", hash, file, both, both),
        ("post_remove", hash, file, known, known),
        ("post_loop", None, "None", known, known),
    ]
    assert not any(call["in_transaction"] for call in launcher.calls())
    assert {call["no_action"] for call in launcher.calls()} == {"-n" in options}
    assert [*gone] == ["name", "tracker", "hash", "rmfiles", "torfiles", "tor", "ltor", "rtor"]
    assert [gone[key] for key in ("name", "tracker", "hash")] == [torrent.name.decode(), "127.0.0.1", hash]
    assert [gone[key] for key in ("tor", "ltor", "rtor")] == [content and str(content) for content in stored]
    assert sorted(gone["torfiles"]) == [*map(str, paths)]
    assert sorted(gone["rmfiles"]) == ([*map(str, paths)] if options else [])
    assert remaining(paths) == ([] if options == ("-r",) else paths)
    assert launcher.db.exists() == ("-n" not in options)


def test_hooks_get_their_arguments(session: Session, launcher: Launcher, downloads: Path, hooks: Hooks) -> None:
    option = hooks.write_each(
        pre_loop="note('types', types=types(con, inot, args, queues, qfuncs, inot_funcs))\n"
        "    note('complete', same=qfuncs['complete'] is complete, left=[*queues['complete']])",
        pre_remove="note('types', types=types(con, file, args))",
        post_remove="note('types', types=types(con, file, args, RmTuple, *RmTuple.torfiles))",
        complete="note('types', types=types(con, path, args, queues)); note('complete', left=[*queues['complete']])",
        post_loop="note('types', types=types(con, inot, args, args.session, args.paths))\n"
        "    inot.add_watch(args.session, flags.CREATE)\n"
        "    note('open', closed=inot.closed, rows=con.execute('SELECT count(*) FROM torrent_data').fetchone()[0])\n"
        "    note('args', **{key: str(value) for key, value in vars(args).items()})",
    )
    with open(hooks.path, "a") as file:
        file.write("""
TYPES = sqlite3.Connection, inotify_simple.INotify, argparse.Namespace, Path, collections.OrderedDict, tuple, dict

def types(*given):
    return [next(type.__name__ for type in TYPES if isinstance(value, type)) for value in given]
""")
    program = launcher.start("-r", "--grace", "0.25", *option, paths=[downloads])
    download(program, session, downloads, ONE)
    session.mark_complete(ONE)
    wait_called(program, launcher, "complete")
    erase(program, session, ONE)
    end(program)
    assert [call["types"] for call in launcher.calls() if call["hook"] == "types"] == [
        ["Connection", "INotify", "Namespace", "OrderedDict", "dict", "dict"],
        ["Connection", "Path", "Namespace", "OrderedDict"],
        ["Connection", "Path", "Namespace"],
        ["Connection", "Path", "Namespace", "tuple", "Path"],
        ["Connection", "INotify", "Namespace", "Path", "tuple"],
    ]
    assert [(call["left"], call.get("same")) for call in launcher.calls() if "left" in call] == [([], True), ([], None)]
    (opened,) = wait_called(program, launcher, "open")
    assert (opened["closed"], opened["rows"]) == (False, 1)
    (args,) = wait_called(program, launcher, "args")
    assert args.keys() == {*ARGS, "hook", "time"}
    assert {key: args[key] for key in ("db", "grace", "remove", "no_action", "once")} == {
        **{"db": str(launcher.db), "grace": "0.25", "remove": "True", "no_action": "False", "once": "False"},
    }


def test_each_write_of_a_mark_completes_once_more(session: Session, launcher: Launcher, downloads: Path) -> None:
    program = launcher.start(*launcher.hooks)
    session.add(ONE, downloads)
    mark = session.mark_complete(ONE)
    wait_called(program, launcher, "complete")
    touch(mark)
    wait_called(program, launcher, "complete", count=2)
    mark.rename(mark.with_name("moved")).rename(mark)
    wait_called(program, launcher, "complete", count=3)
    settle(program, session, downloads)
    assert launcher.hooks_called().count("complete") == 3


# hooks files that are refused

REFUSED = {
    "syntax error": ("def pre_add(con, file, args)\n", ""),
    "exception": ("raise ValueError('of this file')\n", "of this file"),
    "import": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "null": ("\0", ""),
    **{
        f"{hook} {change}": (text, hook)
        for hook, parameters in ALL_HOOKS.items()
        for change, text in {
            "fewer": f"def {hook}({parameters.rpartition(', ')[0]}): pass",
            "more": f"def {hook}({parameters}, more): pass",
            "keyword": f"def {hook}({parameters}, *, more): pass",
            "no function": f"{hook} = 7",
        }.items()
    },
}


@pytest.mark.parametrize(("text", "word"), REFUSED.values(), ids=REFUSED)
def test_a_hooks_file_that_does_not_load_or_fit_is_refused(
    text: str, word: str, session: Session, launcher: Launcher, hooks: Hooks
) -> None:
    result = launcher.run(*hooks.write(text))
    assert result.returncode == 2
    line = the_line(result.stderr)
    assert hooks.path.name in line
    assert word in line
    assert not launcher.db.exists()


@pytest.mark.parametrize("mode", [0o646, 0o777, 0o602, None, 0o400, 0o644, 0o755], ids=lambda mode: f"{mode or 0:o}")
def test_a_hooks_file_that_others_may_write_is_refused(
    mode: int | None, session: Session, launcher: Launcher, hooks: Hooks
) -> None:
    option = hooks.write_each()
    hooks.path.chmod(mode or 0o644)
    if mode is None:
        if os.geteuid() != 0:
            pytest.skip("only root may give a file away")
        os.chown(hooks.path, 65534, 65534)
    result = launcher.once(*option)
    if mode in (0o400, 0o644, 0o755):
        assert (result.returncode, launcher.hooks_called()) == (0, ["pre_loop", "post_loop"])
    else:
        assert (result.returncode, launcher.hooks_called()) == (2, [])
        assert str(hooks.path) in the_line(result.stderr)


def test_a_relative_hooks_file_may_import_its_neighbour_and_have_more_parameters(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("WORD = 'neighbour'\n")
    hooks.write(
        """
from mine import WORD

class Add:
    def __call__(self, con, file, args, more=7):
        note("post_add", more=more, word=WORD)

post_add = Add()

def pre_add(*given, more=8, **others):
    note("pre_add", more=more)

def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    note("pre_loop", more=len(queues["complete"]))  # is there without a hook of this name
"""
    )
    program = launcher.start("--hooks", hooks.path.name, cwd=tmp_path)
    session.add(ONE, downloads)
    wait_called(program, launcher, "post_add")
    assert [(call["more"], call.get("word")) for call in launcher.calls()] == [
        *((0, None), (8, None), (7, "neighbour")),
    ]


# failures, and the end


@pytest.mark.parametrize(
    ("hook", "error"),
    [
        *(("pre_add", "OSError"), ("post_add", "sqlite3.OperationalError"), ("complete", "ValueError")),
        *(("post_remove", "OSError"), ("post_loop", "ValueError")),
    ],
)
def test_a_hook_that_fails_is_logged_and_the_loop_goes_on(
    hook: str, error: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    program = launcher.start(*SHORT, *hooks.write_each(**{hook: f"raise {error}('of this hook')"}))
    for count, torrent in enumerate([PACK, ONE], 1):
        paths = download(program, session, downloads, torrent)
        session.mark_complete(torrent)
        wait_called(program, launcher, "complete", count=count)
        erase(program, session, torrent)
        wait_called(program, launcher, "post_remove", count=count)
        assert remaining(paths) == []
    assert program.stop() == 0
    program.wait_line("Traceback")
    program.wait_line(f"{error}: of this hook")
    assert hook in program.output
    assert launcher.hooks_called()[0] == "pre_loop"
    assert launcher.hooks_called()[-1] == "post_loop"


def test_a_torrent_whose_pre_remove_fails_is_held_until_the_next_start(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    program = launcher.start(*SHORT, *hooks.write_each(pre_remove="raise ValueError('of this hook')"))
    paths = download(program, session, downloads, PACK, ONE)
    session.erase(PACK)
    program.wait_line("ValueError: of this hook")
    program.wait_line(r"pack.*pre_remove|pre_remove.*pack")
    session.erase(ONE)
    wait_called(program, launcher, "pre_remove", count=2)
    assert program.stop() == 0
    assert launcher.hooks_called().count("pre_remove") == 2
    assert "post_remove" not in launcher.hooks_called()
    assert remaining(paths) == paths
    again = launcher.start(*SHORT, *hooks.write_each())
    wait_called(again, launcher, "post_remove", count=2)
    assert remaining(paths) == []


def test_a_pre_loop_that_fails_ends_rtwatch(session: Session, launcher: Launcher, hooks: Hooks) -> None:
    program = launcher.start(*hooks.write_each(pre_loop="raise ValueError('of this hook')"), ready=False)
    assert program.wait() == 1
    program.wait_line("ValueError: of this hook")
    program.wait_line("pre_loop")


def call(hook: str, program: Program, session: Session, downloads: Path) -> list[Path]:
    """Do what makes a hook be called, other than pre_loop; return the files of the torrent that it is about."""
    paths = session.download(PACK, downloads)
    if hook not in ("pre_loop", "pre_add", "post_add"):
        program.wait_known(PACK.hash)
        session.mark_complete(PACK)
    if hook in ("pre_remove", "post_remove"):
        settle(program, session, downloads)
        session.erase(PACK)
    elif hook == "post_loop":
        program.send_signal(signal.SIGTERM)
    return paths


@pytest.mark.parametrize("hook", ALL_HOOKS)
@pytest.mark.parametrize("deed", ["sys.exit()", "while True: time.sleep(0.01)"], ids=["exits", "hangs"])
def test_a_hook_that_exits_ends_rtwatch_in_order_and_one_that_hangs_ends_at_the_second_signal(
    deed: str, hook: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    program = launcher.start(*SHORT, *hooks.write_each(**{hook: deed}), ready=hook != "pre_loop")
    paths = call(hook, program, session, downloads)
    if deed != "sys.exit()":
        wait_called(program, launcher, hook)
        program.send_signal(signal.SIGTERM)
        if hook != "post_loop":
            program.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert launcher.hooks_called()[-1] == "post_loop"
    assert launcher.hooks_called().count("post_loop") == 1
    assert "Traceback" not in program.output
    if deed != "sys.exit()":
        assert remaining(paths) == ([] if hook == "post_remove" else paths)


def test_after_a_signal_the_hook_ends_and_no_other_removal_begins(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    body = "os.kill(os.getpid(), 15)\n    note('went on')"
    program = launcher.start(*SHORT, *hooks.write_each(pre_remove=body))
    paths = download(program, session, downloads, ONE, PACK)
    session.erase(ONE, PACK)
    assert program.wait() == 0
    assert launcher.hooks_called()[-3:] == ["pre_remove", "went on", "post_loop"]
    assert len(remaining(paths)) >= 1
    again = launcher.start(*SHORT, *launcher.hooks)
    for torrent in ONE, PACK:
        again.wait_gone(torrent.hash)
    assert remaining(paths) == []


@pytest.mark.parametrize(("failure", "kept"), [("pass", True), ("raise ValueError('of this hook')", False)])
def test_an_open_transaction_is_ended_after_the_hook(
    failure: str, kept: bool, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write_each(
        pre_loop="con.execute('CREATE TABLE IF NOT EXISTS mine (hash TEXT)')",
        post_add=f"con.execute('INSERT INTO mine VALUES (?)', (file.stem,))\n"
        f"    note('in', open=con.in_transaction)\n    {failure}",
        complete="note('after', open=con.in_transaction, mine=con.execute('SELECT count(*) FROM mine').fetchone()[0])",
    )
    program = launcher.start(*option)
    session.add(ONE, downloads)
    assert wait_called(program, launcher, "in")[0]["open"]
    session.mark_complete(ONE)
    (call,) = wait_called(program, launcher, "after")
    assert (call["open"], call["mine"]) == (False, int(kept))
    assert program.select("SELECT hash FROM mine") == ([(ONE.hash,)] if kept else [])
    program.wait_known(ONE.hash)


# what hooks may do to rtwatch


def test_a_hook_may_set_a_row_factory_and_change_the_working_directory(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    option = hooks.write_each(
        pre_loop="os.chdir('/'); con.row_factory = lambda cursor, row: {'hash': row[0]}",
        post_remove="con.row_factory = sqlite3.Row",
    )
    program = launcher.start(*SHORT, *option, "--db", "relative.db", cwd=tmp_path)
    for torrent in PACK, ONE:
        paths = download(program, session, downloads, torrent)
        erase(program, session, torrent)
        assert remaining(paths) == []
    wait_called(program, launcher, "post_remove", count=2)
    end(program)


@pytest.mark.parametrize(
    ("hook", "table"),
    [
        *((hook, "torrent_data") for hook in ("pre_add", "post_add", "pre_remove", "post_remove", "complete")),
        *((hook, "session_file") for hook in ("post_add", "pre_remove")),
    ],
)
def test_a_hook_that_deletes_all_rows_ends_nothing_and_costs_no_file_of_others(
    hook: str, table: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    program = launcher.start(*SHORT, *hooks.write_each(**{hook: f"con.execute('DELETE FROM {table}')"}))
    stay = session.download(multi("stays"), downloads)
    session.download(PACK, downloads)
    session.mark_complete(PACK)
    wait_called(program, launcher, "complete")
    session.erase(PACK)
    for count in 3, 4:
        session.add(single(f"other{count}"), downloads)
        wait_called(program, launcher, "pre_add", count=count)
        session.save_all()
    assert remaining(stay) == stay
    end(program)


@pytest.mark.parametrize(
    "deed",
    [
        *("del queues['mine']", "queues['nobody'] = collections.deque([1])", "del qfuncs['mine']"),
        *("inot_funcs.clear()", "raise MemoryError", "raise RecursionError", "con.close()"),
    ],
)
def test_a_hook_that_takes_things_apart_costs_no_file(
    deed: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    paths = session.download(PACK, downloads)
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    def mine(con, item, args, queues):
        note("mine")
        {deed}

    queues["mine"] = collections.deque([1, 2, 3])
    qfuncs["mine"] = mine
"""
    )
    program = launcher.start(*SHORT, *option)
    wait_called(program, launcher, "mine")
    program.send_signal(signal.SIGTERM)
    assert program.wait() in (0, 1)
    assert not any(line.startswith("Traceback") for line in program.lines), program.output
    assert remaining(paths) == paths


# a hook's own queues


def test_an_item_put_back_is_called_again_after_a_second_and_delays_nothing(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    program = launcher.start(*SHORT, *hooks.write_each(complete="queues['complete'].extend([path] * 3)"))
    paths = download(program, session, downloads, PACK)
    with paused(program):
        session.mark_complete(PACK)
        session.add(ONE, downloads)
    calls = wait_called(program, launcher, "complete", count=4)
    assert calls[1]["time"] - calls[0]["time"] > 0.9
    assert wait_called(program, launcher, "post_add", count=3)[2]["time"] < calls[1]["time"]
    goes = download(program, session, downloads, multi("goes"))
    erase(program, session, multi("goes"))
    assert remaining([*goes, *paths]) == paths
    end(program)


@pytest.mark.parametrize("failure", ["OSError(5, 'of this queue')", "sqlite3.OperationalError('of this queue')"])
@pytest.mark.parametrize("item", ["args.session", "['a', 1]", "None"])
def test_an_item_whose_function_fails_is_tried_again(
    item: str, failure: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    queues["mine"] = collections.deque([{item}, {item}])
    qfuncs["mine"] = mine

def mine(con, item, args, queues):
    calls.append(item)
    note("mine", item=str(item))
    if len(calls) < 3:
        raise {failure}

calls = []
"""
    )
    program = launcher.start(*option)
    calls = wait_called(program, launcher, "mine", count=4)
    assert len({call["item"] for call in calls}) == 1
    program.wait_line(re.escape("of this queue"))
    settle(program, session, downloads)
    assert launcher.hooks_called().count("mine") == 4
    end(program)


def test_a_long_queue_starves_no_other(session: Session, launcher: Launcher, downloads: Path, hooks: Hooks) -> None:
    body = """
    queues["mine"] = collections.deque(range(500))
    queues.move_to_end("mine", last=False)
    qfuncs["mine"] = lambda con, number, args, queues: note("mine", number=number)
"""
    program = launcher.start(*hooks.write_each(pre_loop=body))
    session.add(ONE, downloads)
    program.wait_known(ONE.hash)
    calls = wait_called(program, launcher, "mine", count=500)
    assert [call["number"] for call in calls] == [*range(500)]


# a hook's own watches and handlers


def move_into(directory: Path, name: str, content: bytes = b"") -> None:
    """Rename a file into a directory."""
    (directory / "new").write_bytes(content)
    (directory / "new").rename(directory / name)


def test_a_hook_may_watch_another_directory_whose_torrents_are_not_rtorrents(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    option = hooks.write(
        f"""
def pre_loop(con, inot, args, queues, qfuncs, inot_funcs):
    queues["mine"] = collections.deque()
    qfuncs["mine"] = lambda con, path, args, queues: note("mine", file=str(path))
    inot_funcs["torrent", flags.CLOSE_WRITE] = queues["mine"].append
    inot_funcs["nfo", (flags.MOVED_TO,)] = queues["mine"].append
    inot.add_watch(Path({str(watched)!r}), flags.CLOSE_WRITE | flags.MOVED_TO | flags.DELETE)
"""
    )
    program = launcher.start(*SHORT, *option)
    paths = download(program, session, downloads, PACK)
    before = len(wait_called(program, launcher, "mine", count=2))
    foreign = single("foreign")
    move_into(watched, f"{foreign.hash}.torrent", foreign.metainfo)
    move_into(watched, f"{foreign.hash}.torrent.rtorrent", session.file(PACK, "R").read_bytes())
    for kind in "LRT":
        move_into(watched, session.file(PACK, kind).name, session.file(PACK, kind).read_bytes())
        (watched / session.file(PACK, kind).name).unlink()
    for name in "a.torrent", "other.txt", foreign.hash + ".torrent", "b.torrent.new":
        (watched / name).write_bytes(foreign.metainfo)
    for directory in watched, session.path:
        move_into(directory, "c.nfo")
    calls = wait_called(program, launcher, "mine", count=before + 5)[before:]
    files = [watched / name for name in ("a.torrent", foreign.hash + ".torrent", "b.torrent.new", "c.nfo")]
    assert [call["file"] for call in calls] == [*map(str, files), str(session.path / "c.nfo")]
    download(program, session, downloads, ONE)
    erase(program, session, ONE)
    assert remaining(paths) == paths
    program.wait_files(PACK.hash, paths)
    assert program.select(f"SELECT 1 FROM torrent_data WHERE hash = '{foreign.hash}'") == []


@pytest.mark.parametrize(
    ("spelling", "mask"),
    [
        ("args.session", "flags.CLOSE_WRITE | flags.MODIFY"),
        ("args.session", "0xfff"),
        ("args.session", "flags.DELETE_SELF"),
        ("str(args.session) + '/'", "flags.CREATE"),
        ("os.fsencode(args.session)", "flags.CREATE"),
        ("link", "flags.CREATE"),
        ("os.path.relpath(args.session)", "flags.CREATE"),
    ],
)
def test_a_hook_may_watch_the_session_directory_and_wrap_a_handler(
    spelling: str, mask: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    body = f"""
    link = str(args.db) + ".link"
    os.symlink(args.session, link)
    inot.add_watch({spelling}, {mask})
    inot_funcs["other", flags.MOVED_TO] = lambda path: note("other", file=str(path))
    inot_funcs["dir", flags.CREATE | flags.ISDIR] = lambda path: note("dir", file=str(path))
    key, = inot_funcs.keys() & {{("torrent", flags.MOVED_TO), ("torrent", (flags.MOVED_TO,))}}
    handler = inot_funcs[key]
    inot_funcs[key] = lambda path: [note("wrapped", file=str(path)), handler(path)]
"""
    program = launcher.start(*SHORT, *hooks.write_each(pre_loop=body))
    paths = download(program, session, downloads, PACK)
    erase(program, session, PACK)
    assert remaining(paths) == []
    assert wait_called(program, launcher, "wrapped")[0]["file"] == str(session.file(PACK))
    (session.path / "made.dir").mkdir()
    move_into(session.path, "some.other")
    (call,) = wait_called(program, launcher, "other")
    assert call["file"] == str(session.path / "some.other")
    if mask in ("0xfff", "flags.CREATE"):
        assert wait_called(program, launcher, "dir")[0]["file"] == str(session.path / "made.dir")
    end(program)


@pytest.mark.parametrize("deed", ["None", "{}['mine']"], ids=["hides", "fails"])
def test_a_handler_that_a_hook_replaces_costs_no_file(
    deed: str, session: Session, launcher: Launcher, downloads: Path, hooks: Hooks, tmp_path: Path
) -> None:
    moves, comes = make(b"another name", PACK.content, source=b"another tracker"), twin_of(ONE)
    paths = seed(session, downloads, PACK, ONE)
    session.download(moves, tmp_path / "other")
    body = f"""
    for ext in "torrent", "rtorrent":
        inot_funcs[ext, flags.MOVED_TO] = lambda path: {deed}
"""
    program = launcher.start(*AT_ONCE, *hooks.write_each(pre_loop=body))
    session.add(comes, downloads)
    erase(program, session, ONE)
    if deed != "None":
        session.set_directory_base(moves, downloads / "pack")
        session.save(moves)
        erase(program, session, PACK)
    assert remaining(paths) == paths


def test_a_handler_that_fails_for_what_reading_causes_does_not_feed_itself(
    session: Session, launcher: Launcher, downloads: Path, hooks: Hooks
) -> None:
    body = "inot_funcs['rtorrent', flags.CLOSE_NOWRITE] = lambda path: 1 / 0"
    program = launcher.start(*AT_ONCE, *hooks.write_each(pre_loop=body))
    session.add(ONE, downloads)
    program.wait_line("ZeroDivisionError")
    settle(program, session, downloads)
    assert program.stop() == 0
    assert program.output.count("ZeroDivisionError") < 50
