"""Random lives of a session: RTWATCH_PROFILE=nightly lives thousands, RTWATCH_SEED=N others, RTWATCH_LIFE=TEXT one."""

import ast
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import pytest
from conftest import NIGHTLY
from lives import Life, live, make_life, shrink
from rtorrent import find_program
from session import VERSIONS

import rtwatch

SEED = int(os.environ.get("RTWATCH_SEED") or 0)
LIFE = os.environ.get("RTWATCH_LIFE")
LIVES = {"fake": 500 if NIGHTLY else 15, "real": 150 if NIGHTLY else 6}  # in a test
LENGTH = 30  # steps
WORKERS = 2 if NIGHTLY else 8  # lives at once in a test: they mostly wait; six tests run at once
SHARES = {"fake": 4 if NIGHTLY else 2, "real": 1}  # tests for one version

OWN, PACK = "test_remove.py -k own_files_go_and_nothing_else", "test_shared.py -k shared_file_goes_with_its_last"
BITES = {  # by rule or guard: the test that fails without it, and the lives of which one does, 0 where none need
    "rule_shared": (PACK, 50),
    "rule_outside": ("test_remove.py -k a_path_limits_what_goes", 50),
    "rule_moved": (OWN, 0),
    "rule_gone": (OWN, 0),
    "rule_type": (OWN, 0),
    "rule_device": ("test_remove.py -k go_to_the_trash_and_come_back", 50),
    "rule_own": ("test_facts.py -k rtwatchs_own_files_are_kept", 0),
    "rule_perhaps": ("test_shared.py -k stays_while_another_torrent_uses_it", 0),
    "rule_longer": (OWN, 0),
    "rule_found": ("test_facts.py -k only_what_is_a_torrents_own", 50),
    "rule_started": ("test_facts.py -k only_what_is_a_torrents_own", 50),
    "rule_left": ("test_facts.py -k put_in_place_since_the_erase", 50),
    "rule_through": (OWN, 0),
    "rule_way": ("test_shared.py -k stays_while_another_torrent_uses_it", 0),
    "rule_linked": (PACK, 50),
    "guard_present": ("test_cli.py -k it_is_said_when", 0),
    "guard_lasting": ("test_erase.py -k held_torrents_files", 0),
    "guard_host": ("test_remove.py -k a_path_limits_what_goes", 0),
    "guard_word": ("test_asking.py -k no_good_answer", 0),
    "guard_nameless": ("test_erase.py -k held_torrents_files", 0),
    "guard_wipe": ("test_erase.py -k held_torrents_files", 0),
}


def live_many(driver: str, seeds: range) -> tuple[Counter[str], Optional[Life], str]:
    """Live until a promise is broken; return what happened, and the life that broke it, with its story."""
    counts: Counter[str] = Counter()
    lives = [make_life(driver, seed, LENGTH) for seed in seeds]
    with ThreadPoolExecutor(WORKERS) as pool:
        for life, (problem, more) in zip(lives, pool.map(live, lives)):
            counts += more
            if problem:
                pool.shutdown(cancel_futures=True)
                return counts, life, problem
    return counts, None, ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("kind", "share"), [(kind, share) for kind in SHARES for share in range(SHARES[kind])])
def test_what_rtorrent_uses_stays_and_what_nothing_uses_goes(kind: str, share: int, version: str) -> None:
    if kind == "real":
        find_program(version)
    number = LIVES[kind]
    first = SEED + share * number
    counts, life, problem = live_many(f"{kind}-{version}", range(first, first + number))
    if life:
        shorter = shrink(life, 600 if NIGHTLY else 15)
        pytest.fail(f'{problem}\nshorter: RTWATCH_LIFE="{shorter}"')
    assert counts["files removed"] > number / 2, counts
    assert counts["rtorrent failed"] <= number / 4, counts


def test_each_rule_and_guard_has_a_test_that_fails_without_it() -> None:
    assert {entry.__name__ for entry in (*rtwatch.RULES, *rtwatch.GUARDS)} == {*BITES}
    for file, _, name in (test.split() for test, _ in BITES.values()):
        assert name in Path(__file__).with_name(file).read_text()


@pytest.mark.skipif(not NIGHTLY, reason="for the nightly run")
@pytest.mark.parametrize("name", BITES)
def test_a_missing_rule_fails_its_test(name: str) -> None:
    words = ["-qx", "-n0", "-p", "no:cacheprovider", *BITES[name][0].split()]
    env = {**os.environ, "RTWATCH_WITHOUT": name}
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=Path(__file__).parent, env=env, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.skipif(not NIGHTLY, reason="for the nightly run")
@pytest.mark.parametrize("name", [name for name in BITES if BITES[name][1]])
def test_a_missing_rule_breaks_a_promise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTWATCH_WITHOUT", name)
    assert live_many("fake-0.9.8", range(SEED, SEED + BITES[name][1]))[1]


@pytest.mark.skipif(LIFE is None, reason="RTWATCH_LIFE names no life")
def test_one_life() -> None:
    problem = live(Life(*ast.literal_eval(LIFE or "")))[0]
    assert not problem, problem
