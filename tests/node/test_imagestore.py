"""Loading images: what is laid where, what is refused, and that nothing ever leaves the image's directory."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.node.imagestore import ImageStore, stop_signal
from kubesvc.node.layers import Budget, Layers, safe_parts
from kubesvc.node.tarstream import BadArchive, read_tar

from .imagemaking import docker_save, entry, files_archive, layer, oci_files


def unpacked(tmp_path: Path, *layers: bytes, **budget: int) -> Path:
    """The layers laid over each other below tmp_path/outside/root."""
    root = tmp_path / "outside" / "root"
    root.mkdir(parents=True, exist_ok=True)
    (tmp_path / "outside" / "canary").write_text("alive")
    stack = Layers(root, owners=False, budget=Budget(**budget))
    for data in layers:
        stack.unpack(open_bytes(data))
    return root


def open_bytes(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


def tree(root: Path) -> dict[str, str]:
    """Everything below a directory: path to contents, "/" for directories, "-> target" for links."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text() if path.is_file() else "?"
    return found


LAYS: tuple[tuple[str, list[bytes], dict[str, str]], ...] = (
    ("files and directories", [layer(entry("a/", "dir"), entry("a/b", "file", "1"))], {"a": "/", "a/b": "1"}),
    (
        "parents that are not written are made",
        [layer(entry("a/b/c", "file", "1"))],
        {"a": "/", "a/b": "/", "a/b/c": "1"},
    ),
    ("a later layer replaces a file", [layer(entry("a", "file", "1")), layer(entry("a", "file", "2"))], {"a": "2"}),
    (
        "directories merge",
        [layer(entry("d/a", "file", "1")), layer(entry("d", "dir"), entry("d/b", "file", "2"))],
        {"d": "/", "d/a": "1", "d/b": "2"},
    ),
    (
        "a file takes the place of a directory",
        [layer(entry("d/a", "file", "1")), layer(entry("d", "file", "2"))],
        {"d": "2"},
    ),
    (
        "a whiteout removes",
        [layer(entry("d/a", "file", "1"), entry("d/b")), layer(entry("d/.wh.a"))],
        {"d": "/", "d/b": ""},
    ),
    ("a whiteout of a directory removes it whole", [layer(entry("d/a/b")), layer(entry("d/.wh.a"))], {"d": "/"}),
    ("a whiteout of nothing removes nothing", [layer(entry("a")), layer(entry(".wh.b"))], {"a": ""}),
    (
        "a whiteout leaves its own layer's file",
        [layer(entry("a", "file", "1")), layer(entry("a", "file", "2"), entry(".wh.a"))],
        {"a": "2"},
    ),
    (
        "an opaque directory hides what lay below",
        [layer(entry("d/a"), entry("d/b")), layer(entry("d/c"), entry("d/.wh..wh..opq"))],
        {"d": "/", "d/c": ""},
    ),
    (
        "a whiteout of a link removes the link",
        [layer(entry("l", "symlink", "d"), entry("d/a")), layer(entry(".wh.l"))],
        {"d": "/", "d/a": ""},
    ),
    (
        "a later layer goes through a link inside",
        [layer(entry("usr/bin/", "dir"), entry("bin", "symlink", "usr/bin")), layer(entry("bin/sh", "file", "1"))],
        {"bin": "-> usr/bin", "usr": "/", "usr/bin": "/", "usr/bin/sh": "1"},
    ),
    (
        "an absolute link is one inside the image",
        [layer(entry("real/", "dir"), entry("l", "symlink", "/real")), layer(entry("l/f", "file", "1"))],
        {"l": "-> /real", "real": "/", "real/f": "1"},
    ),
    (
        "a link upwards ends at the image's root",
        [layer(entry("l", "symlink", "../../../..")), layer(entry("l/f", "file", "1"))],
        {"f": "1", "l": "-> ../../../.."},
    ),
    ("a hard link", [layer(entry("a", "file", "1"), entry("b", "link", "a"))], {"a": "1", "b": "1"}),
    (
        "a hard link into a lower layer",
        [layer(entry("a", "file", "1")), layer(entry("b", "link", "/a"))],
        {"a": "1", "b": "1"},
    ),
    ("devices are left out", [layer(entry("dev/null", "device"), entry("a"))], {"a": "", "dev": "/"}),
    (
        "an absolute name is one inside the image",
        [layer(entry("/etc/passwd", "file", "x"))],
        {"etc": "/", "etc/passwd": "x"},
    ),
)


@pytest.mark.parametrize("case", LAYS, ids=lambda case: case[0])
def test_layers(case: tuple[str, list[bytes], dict[str, str]], tmp_path: Path) -> None:
    _, layers, expected = case
    assert tree(unpacked(tmp_path, *layers)) == expected
    assert tree(tmp_path / "outside")["canary"] == "alive"


def pax_bomb() -> bytes:
    """A header that says that its extension is a gigabyte long."""
    block = bytearray(512)
    block[:4] = b"huge"
    block[100:108] = block[108:116] = block[116:124] = b"0000644\0"
    block[124:136] = b"10000000000\0"
    block[136:148] = b"00000000000\0"
    block[156:157] = b"x"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + bytes(4096)


HOSTILE: tuple[tuple[str, list[bytes], str], ...] = (
    ("a name that climbs", [layer(entry("../canary", "file", "dead"))], "leads out"),
    ("a name that climbs later", [layer(entry("a/../../canary", "file", "dead"))], "leads out"),
    ("a hard link that climbs", [layer(entry("x", "link", "../canary"))], "leads out"),
    ("a hard link to nothing", [layer(entry("x", "link", "nothing"))], "No such file"),
    ("a hard link to a directory", [layer(entry("d/", "dir"), entry("x", "link", "d"))], "directory"),
    ("a file in the way of a directory", [layer(entry("a"), entry("a/b"))], "Not a directory"),
    (
        "a dangling link in the way",
        [layer(entry("l", "symlink", "nowhere"), entry("l/f", "file", "1"))],
        "No such file",
    ),
    (
        "links in a circle",
        [layer(entry("a", "symlink", "b"), entry("b", "symlink", "a"), entry("a/f"))],
        "symbolic links",
    ),
    ("a whiteout of the parent", [layer(entry("d/.wh..."))], "whiteout"),
    ("a whiteout of everything", [layer(entry("d/.wh."))], "whiteout"),
    ("a path without end", [layer(entry("/".join(["d"] * 300)))], "too deep"),
    ("a name too long", [layer(entry("n" * 300))], "too long"),
    ("no archive", [b"1" * 1024], "checksum"),
    ("half an archive", [layer(entry("a", "file", "1" * 4000))[:1500]], "ends in the middle"),
    ("an endless header", [pax_bomb()], "extended header"),
)


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case[0])
def test_hostile_layers_are_refused(case: tuple[str, list[bytes], str], tmp_path: Path) -> None:
    _, layers, words = case
    with pytest.raises(BadArchive, match=words):
        unpacked(tmp_path, *layers)
    assert tree(tmp_path / "outside")["canary"] == "alive"


def test_links_cannot_lead_a_write_out(tmp_path: Path) -> None:
    """A link out, then a file through it: the file lands inside, the thing outside is untouched."""
    away = str(tmp_path / "outside")
    data = layer(entry("l", "symlink", away), entry("away/", "dir"), entry("m", "symlink", "../.."))
    root = unpacked(tmp_path, data, layer(entry("m/canary", "file", "inside")))
    assert (root / "canary").read_text() == "inside" and (tmp_path / "outside/canary").read_text() == "alive"
    with pytest.raises(BadArchive):
        unpacked(tmp_path, layer(entry("l/canary", "file", "dead")))
    assert (tmp_path / "outside/canary").read_text() == "alive"


def test_budgets_hold(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="larger than allowed"):
        unpacked(tmp_path, layer(entry("a", "file", "x" * 2000)), size_bytes=1000)
    with pytest.raises(BadArchive, match="more files"):
        unpacked(tmp_path, layer(*(entry(str(n)) for n in range(20))), entries=10)


NAMES = st.one_of(
    st.sampled_from(["a", "b", "d", "l", ".wh.a", ".wh..wh..opq", "..", ".", "", "canary", ".wh.d"]),
    st.text(min_size=1, max_size=4).filter(lambda t: "\0" not in t and "/" not in t),
)
PATHS = st.builds(
    lambda parts, lead: lead + "/".join(parts),
    st.lists(NAMES, min_size=1, max_size=5),
    st.sampled_from(["", "/", "./", "../"]),
)
ENTRIES = st.builds(entry, PATHS, st.sampled_from(["file", "dir", "link", "symlink", "device", "fifo"]), PATHS)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=8), min_size=1, max_size=3))
def test_nothing_outside_changes_whatever_is_in_layers(stack: list[list[Any]]) -> None:
    """Any entries in any order: refused, or laid inside; never a change outside, never another error."""
    with tempfile.TemporaryDirectory(prefix="kubesvc-test-") as directory:
        try:
            unpacked(Path(directory), *(layer(*entries) for entries in stack))
        except BadArchive:
            pass
        outside = Path(directory) / "outside"
        assert sorted(p.name for p in outside.iterdir()) == ["canary", "root"]
        assert (outside / "canary").read_text() == "alive" and sorted(os.listdir(directory)) == ["outside"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1600), st.integers(0, 511), st.binary(min_size=1, max_size=12))
def test_any_bytes_are_read_or_refused(tail: bytes, at: int, patch: bytes) -> None:
    """Garbage, and good archives with something written over them."""
    good = bytearray(layer(entry("a/b", "file", "hello"), entry("n" * 150, "symlink", "t" * 150)))
    good[at : at + len(patch)] = patch
    for data in (tail, bytes(good), bytes(good[: len(tail)])):
        try:
            for _, body in read_tar(open_bytes(data)):
                body.read()
        except BadArchive:
            pass


@given(st.text(max_size=60))
def test_safe_parts_never_climb(name: str) -> None:
    try:
        parts = safe_parts(name)
    except (BadArchive, UnicodeEncodeError):
        return
    assert not {"", ".", ".."} & set(parts)


# -- archives ---------------------------------------------------------------------------------------------------------

SHELL = layer(
    entry("bin/sh", "file", "#!"),
    entry("etc/passwd", "file", "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:\n"),
    entry("etc/group", "file", "www:x:55:\n"),
)
CONFIG: dict[str, Any] = {
    "Entrypoint": ["/bin/sh"],
    "Cmd": ["-c", "x"],
    "Env": ["A=1", "B=x=y"],
    "WorkingDir": "/srv",
    "User": "web:www",
    "StopSignal": "SIGQUIT",
}


def save(tmp_path: Path, kind: str, layers: list[bytes], **config: Any) -> Path:
    path = tmp_path / "image"
    if kind == "docker archive":
        return docker_save(path, layers, **config)
    if kind == "OCI archive, zstandard":
        pack: Callable[[bytes], bytes] = zstandard.ZstdCompressor().compress
    else:
        pack = bytes if kind == "OCI archive, plain layers" else gzip.compress
    files = oci_files(layers, config, pack=pack)
    if kind == "OCI directory":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path.write_bytes(files_archive(files))
        if kind == "zipped archive":
            path.write_bytes(gzip.compress(path.read_bytes()))
    return path


KINDS = (
    "docker archive",
    "OCI archive",
    "OCI archive, plain layers",
    "OCI archive, zstandard",
    "OCI directory",
    "zipped archive",
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_archive_is_loaded(kind: str, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    path = save(tmp_path, kind, [SHELL, layer(entry("bin/sh", "file", "new"))], **CONFIG)
    ((name, identity),) = store.load(path)
    assert name == "docker.io/library/shop:1" and identity.startswith("sha256:")
    image = store.find("shop:1")
    assert image is not None
    assert (image.entrypoint, image.command, image.workdir) == (("/bin/sh",), ("-c", "x"), "/srv")
    assert (image.env["A"], image.env["B"], image.user, image.group, image.stop_signal) == ("1", "x=y", 33, 55, 3)
    assert (Path(image.directory) / "bin/sh").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700, "set-user-id programs stay out of reach"
    assert store.load(path) == [(name, identity)], "again changes nothing"
    assert store.load(path, ("other:2",))[0] == ("docker.io/library/other:2", identity)
    store.remove("shop:1")
    assert store.find("shop:1") is None and Path(image.directory).exists(), "another name still stands for it"
    store.remove("other:2")
    assert not Path(image.directory).exists() and sorted(os.listdir(store.directory)) == ["index.json", "lock"]


def damaged(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / "image"
    files = oci_files([SHELL], CONFIG)
    config = next(name for name, data in files.items() if b"diff_ids" in data)
    zipped = next(name for name, data in files.items() if data[:2] == b"\x1f\x8b")
    if kind == "another layer":
        files[zipped] = gzip.compress(layer(entry("evil")))
    elif kind == "a layer cut off":
        files[zipped] = files[zipped][:-20]
    elif kind == "a layer is missing":
        del files[zipped]
    elif kind == "another configuration":
        files[config] += b" "
    elif kind == "a blob's name that climbs":
        files["index.json"] = json.dumps({"manifests": [{"digest": "sha256:../../etc/passwd"}]}).encode()
    elif kind == "an index of numbers":
        files["index.json"] = b'{"manifests": [1, 2]}'
    elif kind == "nothing in it":
        files = {"readme": b"hello"}
    elif kind == "a zstandard layer of nonsense":
        data = b"\x28\xb5\x2f\xfd" + bytes(40)
        docker_save(path, [data])
        return path
    path.write_bytes(files_archive(files))
    return path


@pytest.mark.parametrize(
    "case",
    (
        ("another layer", "content is another"),
        ("a layer cut off", "decompressed"),
        ("a layer is missing", "missing"),
        ("another configuration", "content is another"),
        ("a blob's name that climbs", "only sha256"),
        ("an index of numbers", "must be a list"),
        ("nothing in it", "not an image"),
        ("a zstandard layer of nonsense", "content is another|decompressed"),
    ),
)
def test_damaged_archives_change_nothing(case: tuple[str, str], tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    with pytest.raises(BadArchive, match=case[1]):
        store.load(damaged(case[0], tmp_path))
    assert store.names() == {} and sorted(os.listdir(store.directory)) == ["lock"]


def test_an_image_larger_than_allowed_changes_nothing(tmp_path: Path) -> None:
    """A layer of zeros is small until it is unpacked."""
    store = ImageStore(tmp_path / "store", lambda: Budget(size_bytes=1 << 20))
    path = save(tmp_path, "OCI archive", [layer(entry("zeros", "file", bytes(8 << 20)))])
    assert path.stat().st_size < 1 << 17
    with pytest.raises(BadArchive, match="larger than allowed"):
        store.load(path)
    assert sorted(os.listdir(store.directory)) == ["lock"]


@pytest.mark.parametrize(("text", "number"), [("SIGINT", 2), ("INT", 2), ("9", 9), ("", 15), ("NOPE", 15)])
def test_stop_signals(text: str, number: int) -> None:
    assert stop_signal(text) == number


@pytest.mark.parametrize(
    ("user", "trouble"),
    [
        ("", ""),
        ("33:44", ""),
        ("nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("33:nowhere", "unable to find group nowhere: no matching entries in group file"),
        ("4294967296", "unable to find user 4294967296: no matching entries in passwd file"),
    ],
)
def test_users_who_are_not_in_the_image(user: str, trouble: str, tmp_path: Path) -> None:
    """Such an image is loaded; it is its containers that cannot be made."""
    store = ImageStore(tmp_path / "store")
    store.load(save(tmp_path, "docker archive", [SHELL], User=user))
    [name] = store.names()
    found = store.find(name)
    assert found is not None and found.user_trouble == trouble
    assert found.username == ("nobody-here" if user == "nobody-here" else "")
