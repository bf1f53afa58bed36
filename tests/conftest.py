"""Fixtures: a session directory with its rtorrent, a place for downloads, and rtwatch watching it."""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from program import PROJECT
from rtorrent import COMPLETE_MARK, Rtorrent
from session import VERSIONS
from steps import PACK, SHORT, Bed, bed_in

NIGHTLY = os.environ.get("RTWATCH_PROFILE") == "nightly"


def pytest_configure(config: pytest.Config) -> None:
    # rtwatch refuses what others than the user can write, as a umask of 002 has made it, in a clone, too.
    os.umask(0o022)
    file = PROJECT / "hooks_example.py"
    if file.stat().st_mode & 0o022:
        file.chmod(file.stat().st_mode & ~0o022)
    config.addinivalue_line("markers", "sampled(n): one in n combinations is run, all of them nightly")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for the nightly run: of a story, each case stays, with modes and versions in turn."""
    left_out = []
    seen: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)  # the values of each parameter of a test, numbered
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker and not NIGHTLY and isinstance(item, pytest.Function):
            number = 0
            for name, value in item.callspec.params.items():
                values = seen[item.nodeid.partition("[")[0], name]
                number += values.setdefault(str(value), len(values)) * (2 if name == "story" else 1)
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
    """Give a running rtorrent."""
    with Rtorrent(tmp_path / "rtorrent", COMPLETE_MARK, version=request.param) as rtorrent:
        yield rtorrent


@pytest.fixture
def real_launcher(rtorrent: Rtorrent, tmp_path: Path) -> Iterator[Bed]:
    """Give a test bed with a real rtorrent."""
    with closing(Bed(rtorrent, tmp_path)) as bed:
        yield bed


@pytest.fixture
def files(bed: Bed) -> list[Path]:
    """Give the files of PACK, downloaded beside an rtwatch that removes what is erased after a short grace."""
    bed.start(*SHORT)
    return bed.download(PACK)


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    """Give a directory for --trash."""
    path = tmp_path / "trash"
    path.mkdir()
    return path
