"""The user's hook functions: when they are called, with what, and what becomes of their failures."""

from __future__ import annotations

import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from steps import ALL_HOOKS, ONE, PACK, SHORT, Bed, Options, play, remaining
from torrents import Torrent, multi, single, twin_of

import rtwatch

ARGS = (
    *("session", "paths", "remove", "no_action", "hooks", "db", "grace", "trash"),
    *("keep", "scgi", "catch_up", "force", "once", "orphans", "what_if", "verbose", "quiet"),
)
TYPES = {  # by the parameters' names
    **{"con": "Connection", "inot": "INotify", "args": "Namespace", "file": "Path", "path": "Path"},
    **{"queues": "OrderedDict", "qfuncs": "dict", "inot_funcs": "dict", "RmTuple": "tuple"},
}


def test_each_hook_is_tried_in_these_tests() -> None:
    assert {name: len(parameters.split(",")) for name, parameters in ALL_HOOKS.items()} == rtwatch.HOOKS


@pytest.mark.parametrize("options", [("-r",), ("-r", "-n"), ()], ids=["-r", "-r -n", "without -r"])
@pytest.mark.parametrize("torrent", [ONE, PACK], ids=["single, without L", "multi"])
def test_hooks_are_called_in_order_with_the_torrent(torrent: Torrent, options: Options, bed: Bed) -> None:
    """Each write of HASH.complete completes once more."""
    bed.add(single("other"))
    bed.start("--grace", "0.2", *options, *bed.hooks)
    bed.session.load(torrent, bed.downloads)
    for kind in "TR" if torrent is ONE else "LTR":
        bed.session.write(torrent, kind)
    files = [bed.session.file(torrent, kind) for kind in "TLR"]
    stored = [str(file.read_bytes()) if file.exists() else None for file in files]
    paths, mark = sorted(torrent.write(bed.downloads)), bed.session.path / f"{torrent.hash}.complete"
    story = f"""called post_add 1; mark-complete T; called complete 1; touch {mark}; called complete 2; mv {mark} moved;
        mv moved {mark}; called complete 3; erase-unwaited T; called post_remove 1; stop; exits 0"""
    play(bed, story, T=torrent)
    gone = bed.calls(torrent.hash)[-1]["removed"]
    calls, file = bed.calls(), str(files[0])
    known, both = [single("other").hash], sorted([single("other").hash, torrent.hash])
    assert [(call["hook"], call["file"], sorted(call["known"])) for call in calls] == [
        *(("pre_loop", "None", known), ("pre_add", file, known), ("post_add", file, both)),
        *(*[("complete", str(mark), both)] * 3, ("pre_remove", file, both)),
        *(("post_remove", file, known), ("post_loop", "None", known)),
    ]
    for call in calls:
        assert call["types"] == [TYPES[name] for name in ALL_HOOKS[call["hook"]].split(", ")]
        assert sorted(call["listed"]) == sorted(call["known"])
        assert (call["in_transaction"], call["no_action"]) == (False, "-n" in options)
    told = [torrent.name.decode(), "127.0.0.1", torrent.hash, *stored]
    assert [gone[key] for key in ("name", "tracker", "hash", "tor", "ltor", "rtor")] == told
    assert sorted(gone["torfiles"]) == [*map(str, paths)]
    assert sorted(gone["rmfiles"]) == ([*map(str, paths)] if options else [])
    assert [*gone] == ["name", "tracker", "hash", "rmfiles", "torfiles", "tor", "ltor", "rtor"]
    assert remaining(paths) == ([] if options == ("-r",) else paths)
    assert bed.db.exists() == ("-n" not in options)


def test_hooks_get_the_options_and_an_open_queue_and_inotify_descriptor(bed: Bed) -> None:
    option = bed.write_each(
        pre_loop="note('left', left=[*queues['complete']], same=qfuncs['complete'] is complete)",
        complete="note('left', left=[*queues['complete']], same=None)",
        post_loop="inot.add_watch('/', flags.CREATE); note('args', **{k: str(v) for k, v in vars(args).items()})",
    )
    bed.start("-r", "--grace", "0.25", *option, bed.downloads)
    bed.add(ONE)
    bed.session.mark_complete(ONE)
    lefts = bed.wait_called("left", count=2)
    assert bed.program.stop() == 0
    assert [(call["left"], call["same"]) for call in lefts] == [([], True), ([], None)]
    (args,) = bed.wait_called("args")
    assert args.keys() == {*ARGS, "hook", "time"}
    expected = {"db": str(bed.db), "grace": "0.25", "remove": "True", "no_action": "False", "once": "False"}
    assert expected.items() <= args.items()


REFUSED = {
    "syntax error": ("def pre_add(con, file, args)\n", ""),
    "exception": ("raise ValueError('of this file')\n", "of this file"),
    "import": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "null": ("\0", ""),
    "no hook": ("def post_removed(con, file, args, gone): pass\n", "has none of the hooks: pre_loop, pre_add"),
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
def test_a_hooks_file_that_does_not_load_or_fit_is_refused(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(text)
    with pytest.raises(rtwatch.Error, match=rf"^{tmp_path}/hooks.py.*{word}.*$") as refusal:
        rtwatch.load_hooks(tmp_path / "hooks.py")
    assert refusal.value.status == 2


def test_a_function_named_nearly_like_a_hook_is_named(bed: Bed) -> None:
    misspelt = {"post_ad": "post_add", "Pre_Remove": "pre_remove", "completed": "complete", "on_complete": "complete"}
    near = "".join(f"def {name}(*args): pass\n" for name in misspelt)
    other = "from os.path import commonpath as pre_path\ndef _pre_ad(): pass\ndef remove(): pass\npost_data = 7\n"
    text = f"{near}{other}def post_loop(con, inot, args): pass\n"
    (line,) = re.findall(r"no hook +(.*)\n", bed.once(*bed.write_hooks(text)).stderr)
    named = [f"{name} (the hook is {hook})" for name, hook in sorted(misspelt.items())]
    assert line == f"{bed.hooks_file}: rtwatch never calls {', '.join(named[:3])} and 1 more"


def test_a_hook_may_be_any_object_that_takes_its_arguments(tmp_path: Path) -> None:
    accepted = "class Add:\n    def __call__(self, con, file, args, more=7): pass\n"
    accepted += "post_add = Add()\ndef pre_add(*given, more=8, **others): pass\n"
    (tmp_path / "hooks.py").write_text(accepted)
    assert rtwatch.load_hooks(tmp_path / "hooks.py").keys() == {"pre_add", "post_add"}


ERRORS = {"pre_add": "OSError", "post_add": "sqlite3.OperationalError", "complete": "ValueError"}
ERRORS |= {"pre_remove": "ValueError", "post_remove": "OSError", "post_loop": "ValueError"}
DELETED = [(hook, "torrent_data") for hook in ERRORS] + [(hook, "session_file") for hook in ("post_add", "pre_remove")]
MISDEEDS = [(hook, f"raise {error}('of this hook')") for hook, error in ERRORS.items()]
MISDEEDS += [(hook, f"con.execute('DELETE FROM {table}')") for hook, table in DELETED]


@pytest.mark.parametrize(("hook", "deed"), MISDEEDS)
def test_a_hook_that_fails_or_deletes_all_rows_costs_no_file_of_others(hook: str, deed: str, bed: Bed) -> None:
    """rtwatch goes on, a failure is logged, and a torrent whose pre_remove fails is held until the next start."""
    bed.hooks_fail, fails = True, deed.startswith("raise")
    bed.write_each(**{hook: deed})
    finished = f"called {'pre_remove' if hook == 'pre_remove' else 'post_remove'} 2; " if fails else ""
    story = f"""start --hooks=../hooks.py; seed TWIN STAYS ONE PACK; mark-complete PACK; called complete 1;
        erase-unwaited PACK ONE; load FIFTH; called pre_add 5; save-all; load SIXTH; called pre_add 6; save-all;
        {finished}stop; exits 0; ls pack/a.bin pack/sub/b.bin stays/a.bin stays/sub/b.bin"""
    play(bed, story, STAYS=multi("stays"), FIFTH=single("5"), SIXTH=single("6"))
    assert (bed.hooks_called()[0], bed.hooks_called()[-1]) == ("pre_loop", "post_loop")
    paths = ONE.places(bed.downloads)
    if fails:
        play(bed, "says Traceback; says Error: of this hook")
        bed.program.wait_line(rf"held .*pack.*{hook}" if hook == "pre_remove" else hook)
        assert remaining(paths) == (paths if hook == "pre_remove" else [])
    if fails and hook == "pre_remove":
        bed.start(*SHORT, *bed.write_each())
        bed.wait_called("post_remove", count=2)
        assert remaining(paths) == []


ENDS = {"exits": "sys.exit()", "hangs": "while True: time.sleep(0.01)", "signals": "os.kill(os.getpid(), 15)"}


@pytest.mark.parametrize("hook", ALL_HOOKS)
@pytest.mark.parametrize("deed", ENDS.values(), ids=ENDS)
def test_a_hook_that_exits_ends_rtwatch_one_that_hangs_at_a_second_signal(deed: str, hook: str, bed: Bed) -> None:
    """After a signal in a hook no removal begins."""
    program = bed.start(*SHORT, *bed.write_each(**{hook: deed}), ready=hook != "pre_loop")
    paths = bed.seed(PACK, ONE)
    if hook not in ("pre_loop", "pre_add", "post_add"):
        program.wait_known(PACK.hash)
        bed.session.mark_complete(PACK)
    if "remove" in hook:
        bed.settle()
        bed.session.erase(PACK, ONE)
    elif hook == "post_loop":
        program.process.send_signal(signal.SIGTERM)
    if deed.startswith("while"):
        bed.wait_called(hook)
        program.process.send_signal(signal.SIGTERM)
        if hook != "post_loop":
            program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert (bed.hooks_called()[-1], bed.hooks_called().count("post_loop")) == ("post_loop", 1)
    assert len(remaining(paths)) >= (1 if hook == "post_remove" else 3)


@pytest.mark.parametrize("left", ["1", "missing"], ids=["", "fails"])
def test_an_open_transaction_is_committed_after_the_hook_or_rolled_back_if_it_fails(left: str) -> None:
    with closing(sqlite3.connect(":memory:")) as con:
        con.execute("CREATE TABLE mine (number)")
        hooks = rtwatch.Hooks(con, print)
        hooks.functions["post_add"] = lambda con: [con.execute(f"INSERT INTO mine VALUES ({n})") for n in ("1", left)]
        assert (hooks.call("post_add") is rtwatch.FAILED) == (left == "missing")
        assert not con.in_transaction
        assert con.execute("SELECT * FROM mine").fetchall() == ([] if left == "missing" else [(1,), (1,)])


def test_a_hook_may_set_a_row_factory_and_change_the_working_directory(bed: Bed) -> None:
    chdir = "os.chdir('/'); con.row_factory = lambda cursor, row: {'hash': row[0]}"
    bed.write_each(pre_loop=chdir, post_remove="con.row_factory = sqlite3.Row")
    life = "seed {0}; settle; erase {0}; called post_remove {1}"
    story = f"start --hooks=../hooks.py --db ../my.db; {life.format('PACK', 1)}; {life.format('ONE', 2)}; left"
    play(bed, story)


DEEDS = ["del queues['mine']", "queues['nobody'] = collections.deque([1])", "del qfuncs['mine']", "inot_funcs.clear()"]


@pytest.mark.parametrize("deed", [*DEEDS, "raise MemoryError", "raise RecursionError", "con.close()"])
def test_a_hook_that_takes_things_apart_costs_no_file(deed: str, bed: Bed) -> None:
    bed.hooks_fail = True
    body = f"""
    def mine(con, item, args, queues):
        note("mine")
        {deed}

    queues["mine"], qfuncs["mine"] = collections.deque([1, 2, 3]), mine
"""
    bed.write_each(pre_loop=body)
    end = "exits 1" if deed == "con.close()" else "stop; exits 0"
    play(bed, f"seed PACK; start --hooks=../hooks.py; called mine 1; {end}")
    play(bed, "says-no (?m)^Traceback; left pack/a.bin pack/sub/b.bin")


@pytest.mark.parametrize("spelling", ["args.session", "os.fsencode(args.session)", "str(args.session) + '/'", "link"])
def test_a_hook_may_watch_directories_and_wrap_a_handler(spelling: str, bed: Bed) -> None:
    """Torrents elsewhere than in the session directory are not rtorrent's."""
    foreign = single("foreign").hash
    (bed.downloads / f"{foreign}.torrent").write_bytes(single("foreign").metainfo)
    body = f"""
    link = str(args.db) + ".link"
    os.symlink(args.session, link)
    inot.add_watch({spelling}, flags.CREATE)
    inot.add_watch(args.session / "../watched", flags.CLOSE_WRITE | flags.MOVED_TO | flags.DELETE)
    inot_funcs["dir", flags.CREATE | flags.ISDIR] = lambda path: note("dir", file=str(path))
    key, = inot_funcs.keys() & {{("torrent", flags.MOVED_TO), ("torrent", (flags.MOVED_TO,))}}
    handler = inot_funcs[key]
    inot_funcs[key] = lambda path: [note("wrapped", file=str(path)), handler(path)]
"""
    bed.write_each(pre_loop=body)
    story = f"""mkdir ../watched; start --hooks=../hooks.py; seed PACK; settle; called wrapped 1;
        cp ../session/{PACK.hash}.torrent.rtorrent {foreign}.torrent.rtorrent; mv {foreign}* ../watched;
        cp ../session/{PACK.hash}* .; mv {PACK.hash}* ../watched; rm ../watched/{PACK.hash}*; mkdir ../session/made.dir;
        called dir 1; erase-another; lists PACK; known-torrents 3; ls pack/a.bin pack/sub/b.bin; erase PACK; left"""
    play(bed, story)
    assert bed.wait_called("wrapped")[0]["file"] == str(bed.session.file(PACK))
    assert bed.wait_called("dir")[0]["file"] == str(bed.session.path / "made.dir")


@pytest.mark.parametrize("deed", ["None", "{}['mine']"], ids=["hides", "fails"])
def test_a_handler_that_a_hook_replaces_costs_no_file(deed: str, bed: Bed) -> None:
    bed.hooks_fail = True
    body = f"inot_funcs.update({{(ext, flags.MOVED_TO): lambda path: {deed} for ext in ('torrent', 'rtorrent')}})"
    bed.write_each(pre_loop=body)
    paths = bed.seed(PACK, ONE)
    play(bed, "seed TWIN x; start --hooks=../hooks.py; load COPY; erase ONE", COPY=twin_of(ONE))
    if deed != "None":
        play(bed, "repoint TWIN .; erase PACK")
    assert remaining(paths) == paths


def test_a_pre_loop_that_fails_ends_rtwatch_with_the_line_of_the_hooks_file_in_its_own_encoding(bed: Bed) -> None:
    """It is read once, by the descriptor that was checked."""
    bed.hooks_fail = True
    bed.hooks_file.write_bytes(
        b"# coding: latin-1\nWORD = '\xe9'\ndef pre_loop(*args):\n    raise ValueError(ascii(WORD))\n"
    )
    story = r"""once --hooks=../hooks.py; exits 1; says File "\S+/hooks.py", line 4, in pre_loop;
        says raise ValueError\(ascii\(WORD\)\); says ValueError: '\\xe9'"""
    play(bed, story)
