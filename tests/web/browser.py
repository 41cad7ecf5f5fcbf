"""A real browser for tests: Chromium by its WebDriver, over plain HTTP. No browser, no test: `missing` says why."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
)  # fmt: skip
START_SECONDS = 120.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014",
        "Down": "\ue015"}  # fmt: skip


def missing() -> str:
    """What is not on this machine, "" if all is there."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)} on this machine (Debian: chromium, chromium-driver)" if absent else ""


class Browser:
    """One window."""

    def __init__(self, base: str, session: str) -> None:
        self.base = f"{base}/session/{session}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return ask(method, self.base + path, body)

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    def run(self, script: str, *args: Any) -> Any:
        """What a function body returns in the page."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def run_async(self, script: str, *args: Any) -> Any:
        """What a function body gives its last argument, a callback."""
        return self.call("POST", "/execute/async", {"script": script, "args": list(args)})

    def devtools(self, command: str, **params: Any) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def picture(self, path: Path) -> None:
        """A screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def until(self, script: str, *args: Any, seconds: float = 120.0) -> Any:
        """Wait until a function body returns something true; AssertionError with the page's text if not so."""
        deadline = time.monotonic() + seconds
        while True:
            if found := self.run(script, *args):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"never so: {script}\n{self.run('return document.body.innerText')[:2000]}")
            time.sleep(0.02)


def ask(method: str, url: str, body: Any = None, seconds: float = 120.0) -> Any:
    data = None if method == "GET" else json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode(errors='replace')[:1500]}") from None


@contextmanager
def browser(width: int = 1440, height: int = 900, *, dark: bool = False) -> Iterator[Browser]:
    """A window of a browser of its own, without any profile; gone afterwards."""
    driver = shutil.which("chromedriver")
    assert driver, missing()
    # Parts of a browser that has been told to end may still write into its profile.
    with tempfile.TemporaryDirectory(prefix="kubesvc-browser-", ignore_cleanup_errors=True) as folder:
        process, base = start_driver(driver, Path(folder))
        try:
            options = {
                "binary": shutil.which("chromium"),
                "args": [*SWITCHES, f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"],
            }
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = ask("POST", f"{base}/session", {"capabilities": {"alwaysMatch": wanted}}, START_SECONDS)
            window = Browser(base, session["sessionId"])
            scheme = "dark" if dark else "light"
            window.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            window.devtools(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            try:
                yield window
            finally:
                window.call("DELETE", "")
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_driver(driver: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The driver and its address. A port that it takes may be in use in the other family: then it is started again."""
    for attempt in range(5):
        log = folder / f"driver-{attempt}.log"
        with log.open("wb") as output:
            process = subprocess.Popen([driver, "--port=0"], stdout=output, stderr=output, cwd=folder)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if told := re.search(r"successfully on port (\d+)\.?\n", log.read_text(errors="replace")):
                return process, f"http://127.0.0.1:{told[1]}"
            time.sleep(0.02)
        process.kill()
        process.wait()
    raise AssertionError(f"chromedriver did not start: {log.read_text(errors='replace')[:1000]}")
