"""Say what this machine can and cannot do for kubesvc, and how to change it.

Exit status 0 when nodes can run here, 1 when something they need is missing.
"""

from __future__ import annotations

import argparse
import json

from kubesvc.instance.doctor import Finding, examine

SIGN = {"ok": "ok     ", "limited": "limited", "missing": "MISSING"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--name", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    findings = examine()
    if args.json:
        keys = ("name", "verdict", "text", "remedy")
        print(json.dumps([{k: getattr(f, k) for k in keys} for f in findings], indent=2))
    else:
        for finding in findings:
            print(render(finding))
    return 1 if any(f.verdict == "missing" for f in findings) else 0


def render(finding: Finding) -> str:
    line = f"{SIGN[finding.verdict]}  {finding.name:<16} {finding.text}"
    return f"{line}\n         {'':<16} remedy: {finding.remedy}" if finding.remedy else line
