"""Installing: what README.md tells people to type does what it says, and the packages hold what they should.

Only RTWATCH_PROFILE=nightly tries pipx and uv, and makes a fresh Debian: that takes two minutes, as root, where
debootstrap is installed and reaches a mirror. Mirror, package index, proxies and certificates
are those of the machine at hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NIGHTLY as IS_NIGHTLY
from program import PROJECT, Argument
from session import Session
from torrents import single

import rtwatch

pytestmark = pytest.mark.xdist_group("install")  # one fresh system, one build
NIGHTLY = pytest.mark.skipif(not IS_NIGHTLY, reason="in the nightly profile only")
PATIENCE = 900.0  # seconds until a command is taken to hang
LITTER = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist")
OF_THE_MACHINE = r"(?i)PIP_(CERT|PROXY|(EXTRA_)?INDEX_URL|TRUSTED_HOST)|SSL_CERT_FILE|\w+_CA_BUNDLE|\w+_PROXY"
VERSION = f"rtwatch {rtwatch.__version__}, Python "

# The shell is the first process of its own namespaces: whatever it started or mounted ends with it.
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c")
ENTER = 'mount -t proc proc "$0/proc" && chroot --userspec=user:user "$0" bash -c "cd ~/rtwatch && $1"; exit $?'


def run(*command: Argument, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


def read_output(*command: Argument, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed; return what it writes to standard output."""
    result = run(*command, env=env)
    assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
    return result.stdout


def take_over_settings(root: Path) -> dict[str, str]:
    """Give a system this machine's name server, proxies, certificates and settings of pip; return its environment."""
    shutil.copy("/etc/resolv.conf", root / "etc")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {os.uname().nodename}\n")  # sudo looks for it
    settings = read_output("apt-config", "dump", "Acquire").splitlines(keepends=True)
    (root / "etc/apt/apt.conf.d/99machine").write_text("".join(line for line in settings if "::Proxy " in line))
    if os.path.exists("/etc/pip.conf"):
        shutil.copy("/etc/pip.conf", root / "etc")
    env = {"HOME": "/home/user", "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    env.update({name: text for name, text in os.environ.items() if re.fullmatch(OF_THE_MACHINE, name)})
    for name, file in env.items():
        if os.path.isfile(file):  # its path here is no place for it: installing ca-certificates writes there
            shutil.copy(file, root / "etc" / name)
            env[name] = f"/etc/{name}"
    return env


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the root of the current Debian stable, with a user who may use sudo and the project in ~/rtwatch."""
    missing = [tool for tool in ("debootstrap", "apt-get", "unshare") if not shutil.which(tool)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a fresh system needs root and debootstrap; missing: {missing or 'root'}")
    uris = read_output("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    mirrors = [uri for uri in uris if uri.startswith("http") and uri.rstrip("/").endswith("/debian")]
    root = tmp_path_factory.mktemp("fresh") / "root"
    try:
        line = ("debootstrap", "--variant=minbase", "--include=sudo", "stable", str(root), *mirrors[:1])
        made = run(*UNSHARE, '"$0" "$@"; exit $?', *line)
        if made.returncode:
            pytest.skip(f"debootstrap makes no fresh system here: {(made.stdout + made.stderr)[-300:]}")
        read_output("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "user")
        (root / "etc/sudoers.d/user").write_text("user ALL=(ALL) NOPASSWD: ALL\n")
        shutil.copytree(PROJECT, root / "home/user/rtwatch", ignore=shutil.ignore_patterns(*LITTER))
        yield root
    finally:
        shutil.rmtree(root.parent)  # pytest would keep the last three


@NIGHTLY
def test_the_first_command_installs_rtwatch_and_runs_it(system: Path) -> None:
    torrent, session = single("film"), Session(system / "home/user/.session")
    session.add(torrent, "/home/user/downloads", complete=1)
    (file,) = torrent.write(system / "home/user/downloads")
    read_output("chroot", system, "chown", "-R", "user:user", "/home/user")
    (command,) = re.findall(r"^sudo .* ~/\.session$", (PROJECT / "README.md").read_text("utf-8"), re.M)
    install = f"({command} --grace 0.5 >~/said 2>&1 &)"
    ready, would = (f"until grep -q '{word}' ~/said; do sleep 1; done" for word in ("ready  ", "would wait"))
    erase = f"rm {' '.join(f'~/.session/{file.name}' for file in session.files(torrent))}"
    line = f"{install}; {ready}; {erase}; {would}; cat ~/said"
    said = read_output(*UNSHARE, ENTER, system, line, env=take_over_settings(system))
    assert re.search(r" watching +~/\.session, would remove files\n(?s:.*) ready +1 torrent, 1 file, ", said)
    assert re.search(r" would wait +film\.bin: for rtorrent's next save", said)
    assert file.exists()


def at_home(home: Path) -> dict[str, str]:
    """Return our environment with another home, where only the settings are our own."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("PIPX_", "PYTHON", "UV_", "XDG_"))}
    settings = os.environ.get("XDG_CONFIG_HOME", str(Path.home() / ".config"))
    return {**env, "HOME": str(home), "XDG_CONFIG_HOME": settings, "UV_PYTHON": sys.executable}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with pip, pipx and uv in tools/bin, a copy of the project in source and its packages in dist."""
    home = tmp_path_factory.mktemp("home")
    read_output(sys.executable, "-m", "venv", home / "tools")
    tools = ("pip", "build", *(("pipx", "uv") if IS_NIGHTLY else ()))
    installed = run(home / "tools/bin/pip", "-q", "install", "--retries=1", "--upgrade", *tools, env=at_home(home))
    if installed.returncode:
        pytest.skip(f"the package index is not reached: {installed.stderr[-300:]}")
    shutil.copytree(PROJECT, home / "source", ignore=shutil.ignore_patterns(*LITTER))
    read_output(home / "tools/bin/python", "-m", "build", "-o", home / "dist", home / "source", env=at_home(home))
    return home


def test_the_source_package_holds_what_a_contributor_needs(home: Path) -> None:
    (path,) = home.glob("dist/*.tar.gz")
    wanted = {"LICENSE", "README.md", "hooks_example.py", "pyproject.toml", "rtwatch.py"}
    wanted |= {f"tests/{file.name}" for file in (home / "source/tests").iterdir()}
    with tarfile.open(path) as sdist:
        modes = {member.name.partition("/")[2]: member.mode for member in sdist}
    assert wanted - set(modes) == set()
    assert modes["tests/run"] & 0o111


def test_the_wheel_holds_the_module_and_runs_in_a_fresh_environment(home: Path, tmp_path: Path) -> None:
    (path,) = home.glob("dist/*.whl")
    with zipfile.ZipFile(path) as wheel:
        assert [name for name in wheel.namelist() if ".dist-info/" not in name] == ["rtwatch.py"]
    read_output(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    read_output(home / "tools/bin/pip", "--python", tmp_path / "bin/python", "install", path, env=at_home(home))
    strict = {**at_home(home), "PYTHONWARNINGS": "error"}
    assert read_output(tmp_path / "bin/rtwatch", "--version", env=strict).startswith(VERSION)


@NIGHTLY
@pytest.mark.parametrize("tool", ["pipx", "uv"])
def test_the_file_alone_runs(home: Path, tool: str) -> None:
    file = home / "source/rtwatch.py"
    assert read_output(home / "tools/bin" / tool, "run", file, "--version", env=at_home(home)).startswith(VERSION)
