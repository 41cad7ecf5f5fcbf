"""The lists follow from what there is, never from the way there: any order of the same events ends alike."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.kinds import POD, SERVICE

from .house import House, in_house

Deed = Callable[[House], Awaitable[Any]]
Lists = tuple[list[list[str]], list[tuple[list[str], list[str]]]]


def made(number: int, *, ready: bool = True, node: str = "n1", app: str = "web") -> Deed:
    return lambda house: house.pod(f"p{number}", f"10.1.0.{number + 1}", ready=ready, node=node, app=app)


def turned(number: int, ready: bool) -> Deed:
    return lambda house: house.status(f"p{number}", ready=ready)


def labelled(number: int, app: str) -> Deed:
    meta = {"metadata": {"labels": {"app": app}}}
    return lambda house: house.client.patch(POD, f"p{number}", "ns", meta, "merge")


def deleted(number: int) -> Deed:
    return lambda house: house.client.delete(POD, f"p{number}", "ns", grace_seconds=0)


def specified(**spec: Any) -> Deed:
    return lambda house: house.client.patch(SERVICE, "web", "ns", {"spec": spec}, "merge")


async def spoilt(house: House) -> None:
    """Somebody deletes every slice by hand."""
    await house.client.delete_collection(ENDPOINT_SLICE, "ns")


LIVES: tuple[tuple[Deed, ...], ...] = (
    (lambda house: house.service(), specified(selector={"app": "other"}), specified(publishNotReadyAddresses=True),
     specified(publishNotReadyAddresses=False), specified(selector={"app": "web"})),
    (lambda house: house.node("n2"),),
    (made(0, ready=False), turned(0, True)),
    (made(1), turned(1, False), turned(1, True), turned(1, False)),
    (made(2, node="n2"), labelled(2, "other"), labelled(2, "web")),
    (made(3), deleted(3), made(3, ready=False), turned(3, True)),
    (made(4, app="other"), labelled(4, "web"), deleted(4)),
    (made(5, node="n2", app="other"), labelled(5, "web")),
    (spoilt,),
)  # fmt: skip
"""What befalls each object, in its own order; between objects any order may be."""
STEPS = [life for life, deeds in enumerate(LIVES) for _ in deeds]
PAUSES = (0.0, 0.0, 0.01, 0.4, 2.0)


def ending(order: Sequence[int], pauses: Sequence[float], late: Sequence[float]) -> Lists:
    """The lists after the lives of these numbers took their next step in turn, with pauses in seconds between; and so
    much later news of Pods, slices and Endpoints came to the caches."""
    found: list[Lists] = []

    async def story(house: House) -> None:
        house.trouble.late_seconds = dict(zip((POD, ENDPOINT_SLICE, ENDPOINTS), late, strict=True))
        house.start(("endpoints", "endpointslice"))
        lives = [iter(deeds) for deeds in LIVES]
        for life, pause in zip(order, pauses, strict=True):
            await next(lives[life])(house)
            await house.settle(pause)
        await house.settle(90)
        found.append((await house.shown(), await house.endpoints()))
        async with house.counting(ENDPOINT_SLICE, ENDPOINTS) as seen:
            await house.settle(60)
        assert seen == {"EndpointSlice": [], "Endpoints": []}, "nobody goes on writing"

    in_house(story)
    return found[0]


@functools.cache
def plain_ending() -> Lists:
    return ending(STEPS, [5.0] * len(STEPS), (0.0, 0.0, 0.0))


def test_what_the_lists_are() -> None:
    assert plain_ending() == (
        [["10.1.0.1", "10.1.0.2!", "10.1.0.3", "10.1.0.4", "10.1.0.6"]],
        [(["10.1.0.1", "10.1.0.3", "10.1.0.4", "10.1.0.6"], ["10.1.0.2"])],
    )


@settings(max_examples=15)
@given(
    st.permutations(STEPS).filter(lambda order: order.index(0) < order.index(len(LIVES) - 1)),
    st.lists(st.sampled_from(PAUSES), min_size=len(STEPS), max_size=len(STEPS)),
    st.tuples(*[st.sampled_from((0.0, 0.3, 2.0))] * 3),
)
def test_any_permutation_of_events_gives_the_same_lists(
    order: list[int], pauses: list[float], late: tuple[float, ...]
) -> None:
    """EP-1, SLICE-1: a sync reads what there is, not what woke it."""
    assert ending(order, pauses, late) == plain_ending()
