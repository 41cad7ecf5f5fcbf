"""What a user is told of trouble with the cluster that a command asks."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from kubesvc.api.errors import Forbidden
from kubesvc.cli import Failure
from kubesvc.cli.cluster import asking_cluster
from kubesvc.client import Unreachable

from .test_top import NOWHERE


async def meet(path: Path, error: BaseException, *, among_tasks: bool) -> None:
    args = argparse.Namespace(kubeconfig=str(path), context=None, name=None, namespace=None)
    async with asking_cluster(args, "kubesvc-test"):
        if not among_tasks:
            raise error
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            raise error


@pytest.mark.parametrize("among_tasks", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Unreachable("nobody is there"), 2, "cannot be reached: nobody is there"),
        (Forbidden("not you"), 2, "refuses: not you"),
        (Failure("svc/web is odd"), 1, "svc/web is odd"),
    ],
)
def test_trouble_is_told_in_words(
    error: BaseException, status: int, said: str, among_tasks: bool, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(NOWHERE)
    with pytest.raises(Failure) as told:
        asyncio.run(meet(config, error, among_tasks=among_tasks))
    assert told.value.status == status
    assert str(told.value).partition("\nnext: ")[0].endswith(said)


def test_a_mistake_of_ours_stays_one(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(NOWHERE)
    with pytest.raises(ExceptionGroup):
        asyncio.run(meet(config, ZeroDivisionError(), among_tasks=True))
