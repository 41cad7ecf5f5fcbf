"""Images for tests: layers from lists of entries, saved as docker and as OCI tools save them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kubesvc.node.imagestore import MACHINES

MACHINE = MACHINES.get(platform.machine(), platform.machine())
TYPES = {"dir": tarfile.DIRTYPE, "link": tarfile.LNKTYPE, "symlink": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE}


def entry(name: str, kind: str = "file", what: str | bytes = "", mode: int = 0o755, **more: int) -> Any:
    return name, kind, what, mode, more


def layer(*entries: Any) -> bytes:
    """A tar archive of entries (name, kind, contents or target, mode, uid and gid)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, what, mode, more in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid = mode, more.get("uid", 0), more.get("gid", 0)
            data = b""
            if kind == "file":
                data = what.encode() if isinstance(what, str) else what
                info.size = len(data)
            elif kind == "device":
                info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
            else:
                info.type, info.linkname = TYPES[kind], what if isinstance(what, str) else ""
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration(layers: Sequence[bytes], **config: Any) -> bytes:
    plain = {"architecture": MACHINE, "os": "linux", "config": config}
    return json.dumps({**plain, "rootfs": {"type": "layers", "diff_ids": [sha(data) for data in layers]}}).encode()


def files_archive(files: dict[str, bytes]) -> bytes:
    return layer(*(entry(name, "file", data) for name, data in files.items()))


def docker_save(path: Path, layers: Sequence[bytes], names: Sequence[str] = ("shop:1",), **config: Any) -> Path:
    """What `docker save` writes."""
    raw = configuration(layers, **config)
    files = {f"{n}/layer.tar": data for n, data in enumerate(layers)} | {"config.json": raw}
    saved = {"Config": "config.json", "RepoTags": list(names), "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}
    files["manifest.json"] = json.dumps([saved]).encode()
    path.write_bytes(files_archive(files))
    return path


def oci_files(
    layers: Sequence[bytes],
    config: dict[str, Any],
    name: str = "shop:1",
    *,
    pack: Callable[[bytes], bytes] = gzip.compress,
) -> dict[str, bytes]:
    """The files of an OCI layout."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> dict[str, Any]:
        blobs[f"blobs/sha256/{sha(data)[7:]}"] = data
        return {"digest": sha(data), "size": len(data)}

    stored = [put(pack(data)) for data in layers]
    manifest = put(json.dumps({"config": put(configuration(layers, **config)), "layers": stored}).encode())
    notes = {"org.opencontainers.image.ref.name": name}
    foreign = {"digest": "sha256:" + "0" * 64, "platform": {"os": "windows", "architecture": MACHINE}}
    index = {"manifests": [foreign, {**manifest, "annotations": notes}]}
    return {**blobs, "index.json": json.dumps(index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
