"""Random lives of a session: RTWATCH_PROFILE=nightly lives thousands, RTWATCH_SEED=N others, RTWATCH_LIFE=TEXT one."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from lives import KNOWN_LOSSES, STEPS, live, make_life, parse_life, shrink

NIGHTLY = os.environ.get("RTWATCH_PROFILE") == "nightly"
SEED = int(os.environ.get("RTWATCH_SEED") or 0)
LIFE = os.environ.get("RTWATCH_LIFE")
SHARES = 4  # a share is one test, so that they run beside each other
WORKERS = 8  # lives at once in a share: they mostly wait
LENGTH = 40 if NIGHTLY else 30  # steps


def live_many(driver: str, seeds: range) -> Counter[str]:
    """Live the lives of these seeds; return what happened in them; fail with the first that breaks a promise."""
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        for seed, outcome in zip(seeds, pool.map(live, (make_life(driver, seed, LENGTH) for seed in seeds))):
            counts += outcome.counts
            if outcome.problem:
                pool.shutdown(cancel_futures=True)
                shorter = shrink(make_life(driver, seed, LENGTH), 600 if NIGHTLY else 60)
                pytest.fail(f"life {seed}: {outcome.problem}\nshorter: RTWATCH_LIFE='{shorter}'")
    return counts


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("driver", ["fake-0.9.8", "fake-0.16"])
def test_what_rtorrent_uses_stays_and_what_nothing_uses_goes(driver: str, share: int) -> None:
    number = (4000 if NIGHTLY else 60) // SHARES
    counts = live_many(driver, range(SEED + share * number, SEED + (share + 1) * number))
    assert counts["files removed"] > number / 2, counts


@pytest.mark.skipif(LIFE is None, reason="RTWATCH_LIFE names no life")
def test_one_life() -> None:
    problem = live(parse_life(LIFE or "")).problem
    assert not problem, problem


def test_each_known_loss_is_a_step() -> None:
    assert KNOWN_LOSSES.keys() <= STEPS.keys() | {"slow"}
