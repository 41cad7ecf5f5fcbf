"""Make the virtual environment and install what the make targets need; run by make before anything else.

Python packages come locked with hashes from requirements/dev.lock into .venv. System packages (`PACKAGES`) are
installed with apt when this runs as root on a machine that has it; otherwise the missing ones are named in a plain
sentence. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".bootstrapped"
LOCK = ROOT / "requirements" / "dev.lock"

PACKAGES = {  # program: Debian package; what the end-to-end tests and the demo call besides Python
    "ip": "iproute2",
    "nft": "nftables",
    "dig": "dnsutils",
    "curl": "curl",
    "newuidmap": "uidmap",
    "conntrack": "conntrack",
}


# program: Debian package; the browser that the tests of the web page drive. Without it they are skipped, aloud.
WISHED = {"chromium": "chromium", "chromedriver": "chromium-driver"}


# program: Debian package; servers that the end-to-end tests start themselves, on loopback. They are unpacked beside the
# checkout's .venv and never installed: installing a server's package would start it on the machine.
PEERS = {
    "usr/bin/etcd": "etcd-server",
    "usr/bin/prometheus": "prometheus",
    "usr/bin/vmagent": "victoria-metrics",
    "usr/bin/docker-registry": "docker-registry",
    "usr/bin/containerd": "containerd",
    "usr/sbin/runc": "runc",
}


QUIET = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def install_system_packages() -> None:
    """Install what is missing, or say what a person has to install; never fails for packages that only tests need."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program, path=search)})
    if not missing:
        return
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or not apt:
        say(
            f"These system packages are missing: {' '.join(missing)}. Install them (as root: apt-get install "
            f"{' '.join(missing)}); until then the end-to-end tests that need them will fail."
        )
        return
    say(f"installing system packages: {' '.join(missing)}")
    subprocess.run([apt, "update", "-qq"], env=QUIET, check=False, stdout=subprocess.DEVNULL)
    subprocess.run([apt, "install", "-y", "-qq", *missing], env=QUIET, check=True, stdout=subprocess.DEVNULL)


def install_browser() -> None:
    """Install the browser for the tests of the web page, if this can be done here; else say what will be left out."""
    missing = sorted({package for program, package in WISHED.items() if not shutil.which(program)})
    if not missing:
        return
    apt = shutil.which("apt-get")
    if os.geteuid() == 0 and apt:
        say(f"installing a browser for the tests of the web page: {' '.join(missing)}")
        install = [apt, "install", "-y", "-qq", "--no-install-recommends", *missing]
        if subprocess.run(install, env=QUIET, check=False, stdout=subprocess.DEVNULL).returncode:
            subprocess.run([apt, "update", "-qq"], env=QUIET, check=False, stdout=subprocess.DEVNULL)
            subprocess.run(install, env=QUIET, check=False, stdout=subprocess.DEVNULL)
    still = sorted({package for program, package in WISHED.items() if not shutil.which(program)})
    if still:
        say(f"not installed: {' '.join(still)}; the tests that drive a browser will be skipped")


def unpack_peers() -> None:
    """Unpack the servers of `PEERS` under .peers; what cannot be fetched is named, and tests that start it say so."""
    missing = [package for program, package in PEERS.items() if not (ROOT / ".peers" / program).exists()]
    apt, unpacker = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if not missing:
        return
    if not apt or not unpacker:
        say(f"not fetched, there is no apt-get here: {' '.join(missing)}; the tests that start them will be skipped")
        return
    (ROOT / ".peers").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".peers") as folder:
        os.chmod(folder, 0o755)  # apt fetches as a user of its own
        fetch = [apt, "download", "-qq", *missing]
        if subprocess.run(fetch, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            if os.geteuid() == 0:
                subprocess.run([apt, "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
            subprocess.run(fetch, cwd=folder, check=False, stdout=subprocess.DEVNULL)
        for archive in sorted(Path(folder).glob("*.deb")):
            subprocess.run([unpacker, "-x", str(archive), str(ROOT / ".peers")], check=True)
    still = [package for program, package in PEERS.items() if not (ROOT / ".peers" / program).exists()]
    if still:
        say(f"could not be fetched: {' '.join(still)}; the tests that start them will be skipped")


def wanted_state() -> str:
    """A digest of everything that decides what .venv must contain."""
    parts = [LOCK, ROOT / "pyproject.toml", ROOT / "tools" / "make_schemas.py", ROOT / "tools" / "build_hook.py"]
    digest = hashlib.sha256(sys.version.encode())
    for part in parts:
        digest.update(part.read_bytes() if part.exists() else b"")
    return digest.hexdigest()


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever python3 is on the machine runs this file
        say(
            f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}. Run: make PYTHON=python3.12"
        )
        return 1
    install_system_packages()
    install_browser()
    unpack_peers()
    state = wanted_state()
    python = VENV / "bin" / "python"
    if STAMP.exists() and STAMP.read_text() == state and (ROOT / "src/kubesvc/api/schemas.bin").exists():
        compile_sources(python)
        return 0
    if not python.exists():
        say("making the virtual environment .venv")
        venv.create(VENV, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input"]
    say("installing the locked Python packages")
    subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True, cwd=ROOT)
    say("installing kubesvc itself")
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], check=True, cwd=ROOT)
    compile_sources(python)
    STAMP.write_text(state)
    return 0


def compile_sources(python: Path) -> None:
    """Compile what changed, as an installed package is: many short processes start here, and not every environment
    lets Python write what it compiled."""
    subprocess.run([str(python), "-m", "compileall", "-q", str(ROOT / "src")], check=False)


if __name__ == "__main__":
    sys.exit(main())
