"""Other users, whom root is in turn: what they could change is refused, with what mends it; one writer a session."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from faults import below, mounted, the_line
from program import environment, run
from steps import Bed, Options

import rtwatch

NOBODY, STRANGER = 65534, 54321  # the latter has no entry in passwd(5)
AS_STRANGER = (  # without HOME; who may read all files, as the tests and Python may lie in root's home
    *("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"),
    *("--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"),
    *("env", "-u", "HOME"),
)
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
SPOILS = {"the group can write": 0o020, "all can write": 0o002, "of another user": 0}


@ROOT
@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("what", ["db", "state", "above", "hooks", "trash"])
def test_what_others_can_change_is_refused(what: str, how: str, bed: Bed, trash: Path, tmp_path: Path) -> None:
    bed.write_hooks("print('hooks were run')\ndef post_add(con, file, args):\n    pass\n")
    above = tmp_path / "above"
    above.mkdir(mode=0o700)
    db = above / "state" / "my.db"
    words = ("-r", "--db", db, "--hooks", bed.hooks_file, "--trash", trash)
    assert bed.once(*words).returncode == 0
    path = {"db": db, "state": db.parent, "above": above, "hooks": bed.hooks_file, "trash": trash}[what]
    os.chown(path, -1, 12345)  # the group of the directory above is not the user's own
    os.chown(path, -1 if SPOILS[how] else STRANGER, -1)
    path.chmod(stat.S_IMODE(path.stat().st_mode) | SPOILS[how])
    before = db.read_bytes()
    for options in (), ("-n",):
        result = bed.once(*words, *options)
        line = the_line(result, 2 if what in ("hooks", "trash") else 1)
        assert line.startswith(f"rtwatch: {path}: others can change it; ")
        assert ("hooks were run" in result.stdout) == (what in ("db", "state", "above"))
    assert db.read_bytes() == before
    (command,) = re.findall(r"choose another: (?:sudo )?(.+)", line)
    subprocess.run(shlex.split(command), check=True)
    assert bed.once(*words).returncode == 0


@ROOT
def test_directories_above_may_be_shared_where_nobody_can_replace_what_is_ours(bed: Bed, tmp_path: Path) -> None:
    """The sticky bit sees to that, as in /tmp; the user's own group is theirs; 65534 is who owns / in a sandbox."""
    for number, (mode, uid, gid) in enumerate([(0o1777, 0, 12345), (0o775, 0, os.getegid()), (0o755, NOBODY, 12345)]):
        above = tmp_path / str(number)
        above.mkdir()
        os.chown(above, uid, gid)
        above.chmod(mode)
        assert bed.once("--db", above / "state" / "my.db").returncode == 0


@pytest.mark.parametrize("name", ["rtwatch.db", "rtwatch.db-wal", "lock"])
def test_a_link_in_the_state_directory_changes_nothing_behind_it(name: str, bed: Bed, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_bytes(b"victim")
    bed.db.parent.mkdir(parents=True, mode=0o700)
    (bed.db.parent / name).symlink_to(victim)
    assert bed.once().returncode == (1 if name == "rtwatch.db" else 0)
    assert victim.read_bytes() == b"victim"


def test_the_trash_is_the_directory_that_was_checked(tmp_path: Path, trash: Path) -> None:
    (victim := tmp_path / "autostart").mkdir()
    with rtwatch.own_directory(trash) as place:
        trash.rename(tmp_path / "moved")
        trash.symlink_to(victim)
        (place / "file").write_bytes(b"")
    assert [*victim.iterdir()] == []
    assert (tmp_path / "moved" / "file").exists()
    with pytest.raises(OSError), rtwatch.own_directory(victim / ".." / "autostart"):  # noqa: PT011
        pass


def test_a_session_has_one_writer_whoever_starts_it(bed: Bed, tmp_path: Path) -> None:
    """By whatever path and with whatever state, database and home; a killed one leaves nothing to mend."""
    program = bed.start()
    link = tmp_path / "link"
    link.symlink_to(bed.session.path)
    with mounted(tmp_path / "bound", "--bind", str(bed.session.path)):
        for number, path in enumerate([bed.session.path, link, tmp_path / "bound"]):
            state = tmp_path / str(number)
            result = run("--once", "--db", state / "my.db", path, state=state, env={"HOME": str(state)})
            assert f"end that one first: kill {program.pid}" in the_line(result, 1)
            assert run("--once", "-n", path, state=state).returncode == 0
            assert not state.exists()
    assert {path.name for path in bed.db.parent.iterdir()} <= {f"rtwatch.db{end}" for end in ("", "-wal", "-shm")}
    program.kill()
    assert run("--once", bed.session.path, state=tmp_path / "other").returncode == 0


@ROOT
@pytest.mark.parametrize("uid", [NOBODY, STRANGER], ids=["known", "unknown"])
@pytest.mark.parametrize("sudo", [True, False], ids=["sudo", "no sudo"])
@pytest.mark.parametrize("options", [("--once",), ("-r", "-n")], ids=" ".join)
def test_root_is_refused_on_anothers_session(options: Options, sudo: bool, uid: int, bed: Bed) -> None:
    os.chown(bed.session.path, uid, uid)
    bed.write_hooks("note('run')\ndef post_add(con, file, args):\n    pass\n")
    programs = {"rtwatch": 'echo "$(id -u) $HOME $*"', "sudo": 'shift; uid=$1; shift; echo "$uid: $*"'}
    words = [*options, "--hooks", str(bed.hooks_file), str(bed.session.path)]
    start = "import sys, rtwatch; del sys.argv[0]; sys.exit(rtwatch.main())"
    with tempfile.TemporaryDirectory() as bin:  # every user can run what is there
        os.chmod(bin, 0o755)
        for name in programs if sudo else ["rtwatch"]:
            Path(bin, name).write_text(f"#!/bin/sh\n{programs[name]}\n")
            Path(bin, name).chmod(0o755)
        env = environment(bed.state, {"PATH": f"{bin}:{os.environ['PATH']}"})
        arguments = [sys.executable, "-c", start, f"{bin}/rtwatch", *words]
        result = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False)
        (command,) = re.findall(r"run rtwatch as that user: (.+)", the_line(result, 2))
        assert bed.calls() == []
        said = subprocess.run(["sh", "-c", command], env=env, stdout=subprocess.PIPE, check=True).stdout.decode()
    home = "/nonexistent" if uid == NOBODY else bed.session.path.parent
    as_user = f"nobody: {bin}/rtwatch" if sudo and uid == NOBODY else f"{uid} {home}"
    assert said == f"{as_user} {shlex.join(words)}\n"


@ROOT
def test_a_user_without_home_and_entry_in_passwd_can_name_the_database(bed: Bed, tmp_path: Path) -> None:
    with below(*AS_STRANGER):
        for options in ("--db", tmp_path / "my.db"), ():
            assert bed.once("-r", *options).returncode == 0
        result = run("--once", bed.session.path, state=tmp_path, env={"XDG_STATE_HOME": ""})
        default = run("--once", state=tmp_path)
    shutil.rmtree("/nonexistent", ignore_errors=True)  # that user may write anywhere
    assert result.returncode == 0
    assert "/.session: no such session directory" in the_line(default, 2)
