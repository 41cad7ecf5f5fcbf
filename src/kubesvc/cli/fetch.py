"""`python -m kubesvc.cli.fetch [-s] [-S] [-i] [-f] [-m SECONDS] URL …`: what is needed of curl where it is not
installed. Exit statuses are curl's."""

from __future__ import annotations

import argparse
import socket
import sys
import urllib.error
import urllib.request


def main() -> int:
    parser = argparse.ArgumentParser(prog="fetch")
    parser.add_argument("-s", "-S", "-sS", action="store_true", dest="silent")
    parser.add_argument("-i", action="store_true", dest="headers")
    parser.add_argument("-f", action="store_true", dest="fail")
    parser.add_argument("-m", type=float, default=10.0, dest="seconds")
    parser.add_argument("urls", nargs="+")
    args = parser.parse_args()
    statuses = [fetch(args, url if "://" in url else f"http://{url}") for url in args.urls]
    return next((s for s in statuses if s), 0)


def fetch(args: argparse.Namespace, url: str) -> int:
    """Print one page; returns the exit status."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(url, timeout=args.seconds)
    except urllib.error.HTTPError as error:
        if args.fail:
            print(f"fetch: ({error.code}) {error.reason}", file=sys.stderr)
            return 22
        answer = error
    except urllib.error.URLError as error:
        print(f"fetch: {url}: {error.reason}", file=sys.stderr)
        if isinstance(error.reason, TimeoutError):
            return 28
        return 6 if isinstance(error.reason, socket.gaierror) else 7
    except TimeoutError:
        return 28
    with answer:
        if args.headers:
            print(f"HTTP/1.1 {answer.status} {answer.reason}\n{answer.headers}", end="")
        sys.stdout.buffer.write(answer.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
