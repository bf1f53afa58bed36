"""Torrents made for tests: real metainfo with real piece hashes, and the data that goes with it."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import bencodepy

ANNOUNCE = b"http://127.0.0.1:1/announce"  # loopback, nothing listens there
PIECE_LENGTH = 16384

Content = Union[bytes, dict[tuple[bytes, ...], bytes]]


class Torrent(NamedTuple):
    """A torrent and its data: `content` is bytes (single-file) or a map from path elements to bytes (multi-file)."""

    hash: str
    metainfo: bytes
    name: bytes
    content: Content

    def root(self, directory: Path) -> Path:
        """Return what rtorrent saves as `directory` when it is told to use `directory` (d.directory.set)."""
        return directory if isinstance(self.content, bytes) else directory / os.fsdecode(self.name)

    def paths(self, root: Path) -> list[Path]:
        """Return the paths of all files, root being the `directory` string that rtorrent saved."""
        if isinstance(self.content, bytes):
            return [root / os.fsdecode(self.name)]
        return [root.joinpath(*map(os.fsdecode, path)) for path in self.content]

    def places(self, directory: Path) -> list[Path]:
        """Return the paths of all files where rtorrent is told to use `directory`."""
        return self.paths(self.root(directory))

    def contents(self) -> list[bytes]:
        """Return the contents of all files."""
        return [self.content] if isinstance(self.content, bytes) else [*self.content.values()]

    def data(self) -> bytes:
        """Return the contents of all files, one after the other, which is what the pieces are of."""
        return b"".join(self.contents())

    def write(self, directory: Path) -> list[Path]:
        """Write the data as a download into `directory` would have left it; return its paths."""
        return self.write_root(self.root(directory))

    def write_root(self, root: Path) -> list[Path]:
        """Write the data below `root`, the `directory` string that rtorrent saved; return its paths."""
        paths = self.paths(root)
        for path, data in zip(paths, self.contents()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return paths


def make(name: bytes, content: Content, announce: bytes = ANNOUNCE, **info: Any) -> Torrent:
    """Make a torrent named `name`; further keywords go into its info dictionary (and so change its hash)."""
    data = content if isinstance(content, bytes) else b"".join(content.values())
    pieces = [data[i : i + PIECE_LENGTH] for i in range(0, len(data), PIECE_LENGTH)]
    layout: dict[str, Any] = (
        {"length": len(content)}
        if isinstance(content, bytes)
        else {"files": [{"length": len(d), "path": list(p)} for p, d in content.items()]}
    )
    layout.update(info, name=name, pieces=b"".join(hashlib.sha1(piece).digest() for piece in pieces))
    return craft(layout, announce=announce)._replace(content=content)


def craft(info: dict[str, Any], **metainfo: Any) -> Torrent:
    """Make a torrent of any info dictionary, which is completed by pieces of nothing, and further keys beside it."""
    info = {"piece length": PIECE_LENGTH, "pieces": b"x" * 20, **info}
    content: Content = b"" if "length" in info else {}
    # as rtorrent writes it
    hash = hashlib.sha1(bencodepy.encode(info)).hexdigest().upper()
    return Torrent(hash, bencodepy.encode({**metainfo, "info": info}), info.get("name", b""), content)


def single(name: str, size: int = 3000) -> Torrent:
    """Make a single-file torrent of `name`.bin, its data made from the name."""
    return make(f"{name}.bin".encode(), (name.encode() * size)[:size])


def multi(name: str) -> Torrent:
    """Make a multi-file torrent `name` of two files, one in a subdirectory, their data made from the name."""
    data = name.encode()
    return make(data, {(b"a.bin",): data * 100, (b"sub", b"b.bin"): data * 200})


def twin_of(torrent: Torrent, name: Optional[bytes] = None) -> Torrent:
    """Make a torrent of the same files, perhaps of another name, as another tracker has it."""
    return make(name or torrent.name, torrent.content, source=b"another tracker")
