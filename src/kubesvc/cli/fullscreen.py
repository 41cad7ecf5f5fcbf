"""The full-screen view of `kubesvc top`: the terminal's other screen, keys, resizing; everything is put back at the
end, however it comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubesvc.web.terminal import DIM, Paint, fit, overview_keys, render_overview, render_picture, screen

if TYPE_CHECKING:
    from kubesvc.web.feed import Feed

DRAWN_SECONDS = 0.1
"""The screen is drawn at most so often."""
PAGE = 10
KEYS = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up", "\x1b[B": "down", "\x1bOB": "down", "j": "down", "\x1b[5~": "page up",
    "\x1b[6~": "page down", "\x1b[H": "home", "\x1b[1~": "home", "\x1b[F": "end", "\x1b[4~": "end", "\r": "open",
    "\n": "open", "\x1b[C": "open", "\x1b": "back", "\x1b[D": "back", "q": "quit", "\x03": "quit", "/": "filter",
    "\x7f": "erase", "\x08": "erase",
}  # fmt: skip


def keys_in(text: str) -> Iterator[str]:
    """The keys in what a terminal sent: a name of KEYS, or the character itself; unknown sequences are passed over."""
    while text:
        for size in (4, 3, 1):
            if len(text) >= size and text[:size] in KEYS and not (size == 1 and text[:2] in ("\x1b[", "\x1bO")):
                yield text[:size]
                text = text[size:]
                break
        else:
            if text[0] == "\x1b":
                end = next((i for i, c in enumerate(text[2:], 2) if c.isalpha() or c == "~"), len(text) - 1)
                text = text[end + 1 :]
            else:
                yield text[0]
                text = text[1:]


@contextlib.contextmanager
def other_screen() -> Iterator[None]:
    """The terminal in raw mode, with its other screen and no cursor."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        sys.stdout.flush()
        yield
    finally:
        sys.stdout.write("\x1b[?7h\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class FullScreen:
    """Shows one Service, or the list of all with a cursor.

    key: the Service to begin with; None for the list
    """

    def __init__(self, feed: Feed, key: tuple[str, str] | None) -> None:
        self.feed = feed
        self.key = key
        self.alone = key is not None
        self.chosen = ""
        self.scroll = 0
        self.words = ""
        self.typing = False
        self.ended = asyncio.Event()
        self.wake = asyncio.Event()
        self.paint = Paint("NO_COLOR" not in os.environ)
        self.watching: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Until the user quits. Returns the exit status."""
        loop = asyncio.get_running_loop()
        logging.getLogger().addHandler(logging.NullHandler())  # nothing may be written across the picture
        with other_screen():
            loop.add_reader(sys.stdin.fileno(), self.read)
            for number in (signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self.wake.set if number == signal.SIGWINCH else self.end)
            try:
                self.say("reading the cluster …")
                self.follow()
                while not self.ended.is_set():
                    await self.wake.wait()
                    self.wake.clear()
                    if self.watching is not None and self.watching.done():
                        self.watching.result()
                    if not self.ended.is_set() and self.feed.ready.is_set():
                        self.draw()
                    await asyncio.sleep(DRAWN_SECONDS)
            finally:
                loop.remove_reader(sys.stdin.fileno())
                if self.watching is not None:
                    self.watching.cancel()
                    await asyncio.gather(self.watching, return_exceptions=True)
        return 0

    def end(self) -> None:
        self.ended.set()
        self.wake.set()

    def follow(self) -> None:
        """Hear of changes of what is shown now."""

        async def watch(key: tuple[str, str] | None) -> None:
            changes = self.feed.changes(key)
            try:
                async for _ in changes:
                    self.wake.set()
            finally:
                await changes.aclose()

        if self.watching is not None:
            self.watching.cancel()
        self.watching = asyncio.get_running_loop().create_task(watch(self.key))
        self.watching.add_done_callback(lambda _: self.wake.set())
        self.wake.set()

    # ---------------------------------------------------------------- keys

    def read(self) -> None:
        text = os.read(sys.stdin.fileno(), 1024).decode(errors="replace")
        if not text:
            return self.end()
        for key in keys_in(text):
            self.press(key)
        self.wake.set()

    def press(self, key: str) -> None:
        """Do what a key asks."""
        name = KEYS.get(key, "")
        if self.typing and not (name and key not in ("k", "j", "q", "/")):
            self.words += key if key.isprintable() else ""
        elif self.typing and name in ("open", "back", "erase"):
            self.words = self.words[:-1] if name == "erase" else self.words if name == "open" else ""
            self.typing = name == "erase"
        elif name == "quit":
            self.end()
        elif name == "filter" and self.key is None:
            self.typing = True
        elif name == "back":
            self.back()
        elif self.key is None:
            self.move(name)
        else:
            far = {"up": -1, "down": 1, "page up": -PAGE, "page down": PAGE, "home": -(1 << 30), "end": 1 << 30}
            self.scroll = max(0, min(self.scroll + far.get(name, 0), self.most_scroll))

    @property
    def most_scroll(self) -> int:
        """Nobody scrolls further than there are Pods."""
        return sum(id_.startswith("pod/") for id_ in self.feed.state(self.key)["items"])

    def back(self) -> None:
        if self.key is None:
            self.words = ""
        elif self.alone:
            self.end()
        else:
            self.key, self.scroll = None, 0
            self.follow()

    def move(self, name: str) -> None:
        """Move the cursor in the list, or open what it is on."""
        keys = overview_keys(self.feed.overview, self.words)
        if not keys:
            return None
        at = keys.index(self.chosen) if self.chosen in keys else 0
        if name == "open":
            namespace, _, service = keys[at].partition("/")
            self.key, self.scroll = (namespace, service), 0
            return self.follow()
        far = {"up": -1, "down": 1, "page up": -PAGE, "page down": PAGE, "home": -at, "end": len(keys)}.get(name, 0)
        self.chosen = keys[max(0, min(len(keys) - 1, at + far))]

    # ---------------------------------------------------------------- drawing

    def say(self, text: str) -> None:
        sys.stdout.write("\x1b[2J\x1b[H" + text)
        sys.stdout.flush()

    def draw(self) -> None:
        width, height = shutil.get_terminal_size()
        paint, state = self.paint, self.feed.state(self.key)
        if self.key is None:
            keys = overview_keys(self.feed.overview, self.words)
            if self.chosen not in keys:
                self.chosen = keys[0] if keys else ""
            lines = render_overview(
                self.feed.overview,
                width=width,
                height=height - 2,
                chosen=self.chosen,
                paint=paint,
                words=self.words,
                gaps=[str(g) for g in self.feed.gaps],
            )
            keys_text = f"/{self.words}▏ Enter keeps it, Esc clears it" if self.typing else (
                f"{'filter: ' + self.words + '   ' if self.words else ''}↑↓ choose   Enter open   / filter   q quit"
            )  # fmt: skip
        else:
            lines = render_picture(
                state["items"], state["entries"], width=width, height=height - 2, scroll=self.scroll, paint=paint,
                uncounted=self.feed.uncounted,
            )  # fmt: skip
            keys_text = f"↑↓ Pods   {'q quit' if self.alone else 'Esc all Services   q quit'}"
        keys_text = f"{self.feed.lost}   {keys_text}" if self.feed.lost else keys_text
        lines = [
            *lines[: height - 2],
            *[""] * (height - 2 - len(lines)),
            "",
            paint(fit(f" {keys_text}", width - 1), DIM),
        ]
        sys.stdout.write(screen(lines, width, height))
        sys.stdout.flush()
