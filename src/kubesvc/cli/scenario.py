"""Start a Service that is broken in a known way, find out why, and repair it: for learners, and for our own tests.

  kubesvc scenario list                  what there is, with a hint each (--answers: and what is wrong)
  kubesvc scenario start typo-value      make it, in the namespace scenario-typo-value
  kubesvc why svc/web -n scenario-typo-value
  kubesvc scenario check typo-value      is it repaired?
  kubesvc scenario fix typo-value        repair it: run what `kubesvc why` suggests, or what the scenario knows
  kubesvc scenario stop typo-value       remove it with everything it made

Exit status: 0 done (check: repaired), 1 not (check: still broken), 2 cannot tell, 64 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shlex
import sys
from typing import TYPE_CHECKING

from . import WRONG_USAGE, Failure
from .target import add_target, kubectl_for, same_cluster

if TYPE_CHECKING:
    from kubesvc.why.scenarios import Scenario

    from .staging import Stage

ACTIONS = ("list", "show", "start", "check", "fix", "stop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", nargs="?", default="list", choices=ACTIONS,
        help="what to do (default: list); show: print the objects as YAML",
    )  # fmt: skip
    parser.add_argument("scenario", nargs="?", default="", metavar="SCENARIO", help="see `kubesvc scenario list`")
    parser.add_argument("--answers", action="store_true", help="list: tell the causes too")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(namespace="")
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    from kubesvc.why.scenarios import BY_NAME

    if args.action == "list":
        return tell_list(args)
    scenario = BY_NAME.get(args.scenario)
    if scenario is None:
        from kubesvc.why.nearest import nearest

        meant = nearest(args.scenario, BY_NAME) if args.scenario else ""
        said = f"no scenario {args.scenario!r}" if args.scenario else f"{args.action} what?"
        hint = f"; did you mean {meant}?" if meant else ""
        raise Failure(f"{said}{hint}\nnext: kubesvc scenario list", status=WRONG_USAGE)
    if args.action == "show":
        return show(scenario)
    return asyncio.run(act(args, scenario))


def tell_list(args: argparse.Namespace) -> int:
    """All scenarios, by family of their cause."""
    from kubesvc.why.causes import BY_CODE
    from kubesvc.why.scenarios import SCENARIOS

    if args.json:
        rows = [
            {"name": s.name, "code": s.code, "title": BY_CODE[s.code].title, "story": s.story, "alone": s.alone,
             "without": list(s.without), "needs": list(s.needs)}
            for s in SCENARIOS
        ]  # fmt: skip
        print(json.dumps(rows, indent=2))
        return 0
    family = ""
    width = max(len(s.name) for s in SCENARIOS)
    for s in sorted(SCENARIOS, key=lambda s: s.code):
        cause = BY_CODE[s.code]
        if cause.family != family:
            print(f"\n{cause.family}" if family else cause.family)
            family = cause.family
        text = f"{s.code} {cause.title}" if args.answers else first_sentence(s.story)
        print(f"  {s.name:<{width}}  {text}")
    print("\nnext: kubesvc scenario start NAME")
    return 0


def first_sentence(text: str) -> str:
    for mark in (". ", "? "):
        head, found, _ = text.partition(mark)
        if found and (". " not in head):
            return head + mark.strip()
    return text


def show(scenario: Scenario) -> int:
    """The objects, as one would write them."""
    import yaml

    from .staging import filled, words_for

    words = words_for(scenario, {})
    print(yaml.safe_dump_all([filled(o, words) for o in scenario.objects], sort_keys=False).rstrip())
    return 0


async def act(args: argparse.Namespace, scenario: Scenario) -> int:
    """start, check, fix, stop."""
    from .cluster import asking_cluster
    from .staging import Stage, StageFailed

    async with asking_cluster(args, "kubesvc-scenario") as cluster:
        stage = Stage(cluster)
        try:
            await stage.find_words()
            return await ACTS[args.action](args, stage, scenario)
        except StageFailed as error:
            said = re.sub(r"(?m)^next: kubesvc scenario .*$", lambda m: m[0] + same_cluster(args), str(error))
            raise Failure(said) from error


async def start(args: argparse.Namespace, stage: Stage, scenario: Scenario) -> int:
    words = stage.words(scenario)
    if scenario.alone:
        print(f"note: {scenario.alone}", file=sys.stderr)
    if scenario.needs:
        print(f"note: this needs an instance of its kind: kubesvc up {shlex.join(scenario.needs)}", file=sys.stderr)
    await stage.start(scenario)
    namespace, subject = stage.question(scenario, after=False)
    print(scenario.story)
    same, tool = same_cluster(args), kubectl_for(args)
    where, look = same, f"{tool} -n {words['NAMESPACE']} get service,pods,endpointslices"
    if scenario.files:
        manifests = shlex.quote(str(stage.manifests(scenario)))
        where, look = f" -f {manifests}", f"cat {manifests}/*"
    elif scenario.account:
        where = f" --kubeconfig {shlex.quote(str(stage.account(scenario)))}"
    print(f"\nlook:  {look}")
    print(f"ask:   kubesvc why {' '.join(subject)} -n {namespace}{where}")
    print(f"then:  kubesvc scenario check {scenario.name}{same}; kubesvc scenario fix {scenario.name}{same}")
    return 0


def not_started(args: argparse.Namespace, scenario: Scenario) -> Failure:
    asked = f"kubesvc scenario start {scenario.name}{same_cluster(args)}"
    return Failure(f"{scenario.name} is not started\nnext: {asked}", status=WRONG_USAGE)


async def check(args: argparse.Namespace, stage: Stage, scenario: Scenario) -> int:
    from kubesvc.why.render import headline

    if not await stage.started(scenario):
        raise not_started(args, scenario)
    after = await stage.examine(scenario, after=True)
    if stage.is_healed(scenario, after):
        print(f"repaired: {after.verdict}")
        return 0
    found = await stage.examine(scenario)
    still = next((f for f in found.findings if f.code == scenario.code), None)
    if still is None or still.text in found.verdict:
        print(headline(found))
    else:  # nothing that the first line tells, and what this scenario is about all the same
        print(f"{found.verdict}; still, {still.text}  [{still.code}]")
    return 1


async def fix(args: argparse.Namespace, stage: Stage, scenario: Scenario) -> int:
    if not await stage.started(scenario):
        raise not_started(args, scenario)
    before = await stage.examine(scenario, after=True)
    if stage.is_healed(scenario, before):
        print(f"repaired already: {before.verdict}")
        return 0
    commands = await stage.repair(scenario)
    for command in commands:
        print(f"$ {command}")
    after = await stage.healed(scenario)
    print(after.verdict)
    return 0


async def stop(args: argparse.Namespace, stage: Stage, scenario: Scenario) -> int:
    there = await stage.started(scenario)
    await stage.stop(scenario)  # in any case: it also takes away what an interrupted start left outside
    print(f"{scenario.name} is removed" if there else f"{scenario.name} was not started")
    return 0


ACTS = {"start": start, "check": check, "fix": fix, "stop": stop}
