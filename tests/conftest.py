"""Fixtures: a session directory with its rtorrent, a place for downloads, and rtwatch watching it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Callable

import pytest
from faults import mounted
from rtorrent import COMPLETE_MARK, Rtorrent
from session import VERSIONS
from steps import Bed, bed_in, pack, remaining

BOTH = [pytest.param(version, marks=pytest.mark.xdist_group(f"rtorrent-{version}")) for version in VERSIONS]

Mount = Callable[..., Path]
NIGHTLY = os.environ.get("RTWATCH_PROFILE") == "nightly"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sampled(n): one in n combinations is run, all of them nightly")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for the nightly run: of a story, each case stays, with modes and versions in turn."""
    left_out = []
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)  # the values of each parameter of a test
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker and not NIGHTLY and isinstance(item, pytest.Function):
            number = 0
            for name, value in item.callspec.params.items():
                values = seen[item.nodeid.partition("[")[0], name]
                values += [str(value)] * (str(value) not in values)
                number += values.index(str(value)) * (2 if name == "story" else 1)
            left_out += [item] if number % marker.args[0] else []
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def version() -> str:
    """Return the version whose order of system calls the session has; a module may ask for all of them."""
    return VERSIONS[-1]


@pytest.fixture
def bed(tmp_path: Path, version: str) -> Iterator[Bed]:
    """Give a test bed."""
    with bed_in(tmp_path, version) as bed:
        yield bed


@pytest.fixture(params=VERSIONS)
def rtorrent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rtorrent]:
    """Give a running rtorrent for one test, which may end it."""
    with Rtorrent(tmp_path / "rtorrent", version=request.param) as rtorrent:
        yield rtorrent


@pytest.fixture(scope="module", params=BOTH)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rtorrent]:
    """Give an rtorrent for the tests of a module, with three torrents whose data no test may touch."""
    with Rtorrent(tmp_path_factory.mktemp("rtorrent"), COMPLETE_MARK, version=request.param) as rtorrent:
        torrents = [pack(f"bystander {number}") for number in range(3)]
        paths = [path for torrent in torrents for path in rtorrent.download(torrent, rtorrent.downloads)]
        yield rtorrent
        assert remaining(paths) == paths


@pytest.fixture
def shared(running: Rtorrent) -> Iterator[Rtorrent]:
    """Give the rtorrent of the module, for a test that does not end it; what the test loads is erased after it."""
    before = running.loaded_hashes()
    yield running
    running.erase(*(hash for hash in running.loaded_hashes() if hash not in before))


@pytest.fixture(scope="module")
def seeder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rtorrent]:
    """Give a second rtorrent, from which the module's can download: of 0.9.8, for 0.16 gives 0.16 no metadata."""
    with Rtorrent(tmp_path_factory.mktemp("seeder"), version=VERSIONS[0]) as seeder:
        yield seeder


@pytest.fixture
def real_launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bed]:
    """Give what starts rtwatch for the real rtorrent that the test has asked for."""
    client = request.getfixturevalue("shared" if "shared" in request.fixturenames else "rtorrent")
    with closing(Bed(client, tmp_path)) as launcher:
        yield launcher


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    """Give a directory for --trash."""
    path = tmp_path / "trash"
    path.mkdir()
    return path


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Give what mounts something on a place, as mount(8) is told, until the end of the test; it returns the place."""
    with ExitStack() as stack:

        def mount(place: Path, *options: str | Path) -> Path:
            stack.enter_context(mounted(place, *map(str, options)))
            return place

        yield mount
