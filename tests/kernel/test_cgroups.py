"""Control groups: which hierarchies are found, what is written into groups, and that they are removed again.

The kernel's own directory trees are played by plain directories; the scenarios of tests/node use real ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesvc.kernel.cgroups import (
    Cgroups,
    Group,
    Hierarchy,
    Limits,
    explain_limits,
    find_hierarchies,
    held,
    plan_writes,
    remove_recorded,
)

V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {0}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {1} {0}/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / {0}/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / {0}/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_OWN = "9:name=systemd:/\n4:memory:/box/inner\n2:cpu,cpuacct:/\n0::/\n"
V2_MOUNTS = "30 23 0:26 / {0} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
FULL = Limits(memory_bytes=64 << 20, cpus=0.5, cpu_shares=512, pids=100)

WRITES: tuple[tuple[str, int, Limits, list[tuple[str, str]]], ...] = (
    (
        "version 1: limits, and swap counted with memory",
        1,
        FULL,
        [
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "67108864"),
            ("cpu.shares", "512"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("pids.max", "100"),
        ],
    ),
    (
        "version 2: no swap, the whole container ends when memory runs out",
        2,
        FULL,
        [
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("cpu.weight", "20"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "100"),
        ],
    ),
    ("no limits: nothing is written", 2, Limits(), []),
    (
        "a tiny limit is the least the kernel takes",
        1,
        Limits(cpus=0.001),
        [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "1000")],
    ),
    ("the most shares are the greatest weight", 2, Limits(cpu_shares=1 << 30), [("cpu.weight", "10000")]),
)


@pytest.mark.parametrize("case", WRITES, ids=lambda case: case[0])
def test_writes(case: tuple[str, int, Limits, list[tuple[str, str]]]) -> None:
    _, version, limits, expected = case
    assert plan_writes(version, limits, ("cpu", "memory", "pids")) == expected


def test_a_controller_that_is_not_held_gets_nothing() -> None:
    assert plan_writes(1, FULL, ("pids",)) == [("pids.max", "100")]


def play(tmp_path: Path, mounts: str, own: str, *, root: str = "/") -> list[Hierarchy]:
    (tmp_path / "mountinfo").write_text(mounts.format(tmp_path, root))
    (tmp_path / "own").write_text(own)
    return find_hierarchies(tmp_path / "mountinfo", tmp_path / "own")


def directory(path: Path, **files: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup_procs": "", **files}.items():
        (path / name.replace("_", ".", 1)).write_text(text)


def test_version_1_below_our_own_group(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "memory/box/inner", "systemd", "unified"):
        directory(tmp_path / name)
    found = play(tmp_path, V1_MOUNTS, V1_OWN)
    assert found == [Hierarchy(1, ("cpu",), tmp_path / "cpu"), Hierarchy(1, ("memory",), tmp_path / "memory/box/inner")]
    assert held(found) == ("cpu", "memory") and "pids" not in explain_limits(held(found)).partition(":")[0]


def test_version_1_seen_through_a_mount_of_a_part(tmp_path: Path) -> None:
    for name in ("cpu", "memory/inner"):
        directory(tmp_path / name)
    assert play(tmp_path, V1_MOUNTS, V1_OWN, root="/box")[1].parent == tmp_path / "memory/inner"


def test_version_2_beside_our_own_group(tmp_path: Path) -> None:
    """Our own group holds us, so it cannot hand on controllers; the one above it does."""
    given = {"cgroup_subtree_control": "memory pids\n", "cgroup_controllers": "cpu memory pids\n"}
    directory(tmp_path / "user", cgroup_type="domain\n", **given)
    directory(
        tmp_path / "user/session", cgroup_procs="1\n", cgroup_type="domain\n", cgroup_controllers="memory pids\n",
        cgroup_subtree_control="",
    )  # fmt: skip
    assert play(tmp_path, V2_MOUNTS, "0::/user/session\n") == [
        Hierarchy(2, ("cpu", "memory", "pids"), tmp_path / "user")
    ]


def test_version_2_without_controllers_gives_nothing(tmp_path: Path) -> None:
    directory(tmp_path, cgroup_controllers="", cgroup_subtree_control="")
    assert play(tmp_path, V2_MOUNTS, "0::/\n") == []
    assert explain_limits(()).startswith("no control group can be made here")


def test_groups_are_recorded_made_and_removed(tmp_path: Path) -> None:
    """Whatever a crash leaves, the record leads to it; nobody else's groups are touched."""
    tops = [tmp_path / "cpu", tmp_path / "memory"]
    for top in tops:
        top.mkdir()
    record = tmp_path / "record"
    hierarchies = [Hierarchy(1, ("cpu",), tops[0]), Hierarchy(1, ("memory",), tops[1])]
    groups = Cgroups(hierarchies, "kubesvc-t/n1", record)
    groups.prepare()
    other = Cgroups(hierarchies, "kubesvc-t/n2", tmp_path / "record2")
    other.prepare()
    made = groups.make("pod/c", Limits(cpus=1.0))
    assert made.directories == (tops[0] / "kubesvc-t/n1/pod/c",)
    assert (made.directories[0] / "cpu.cfs_quota_us").read_text() == "100000"
    assert groups.make("pod/d", Limits(), also=("memory",)).directories == (tops[1] / "kubesvc-t/n1/pod/d",)
    assert groups.names() == ["pod"] and groups.find("pod/c") == made
    for file in made.directories[0].iterdir():
        file.unlink()  # the kernel's own files vanish with their directory
    assert remove_recorded(record) == [] and not record.exists()
    assert [sorted(p.name for p in top.iterdir()) for top in tops] == [["kubesvc-t"], ["kubesvc-t"]], (
        "n2 is still there"
    )
    other.close()
    assert [list(top.iterdir()) for top in tops] == [[], []]
    assert remove_recorded(record) == [], "twice is as good as once"


def test_kills_for_want_of_memory_are_counted(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert Group((tmp_path,)).out_of_memory_kills() == 2
    assert Group().out_of_memory_kills() == 0


def test_a_process_enters_by_every_hierarchy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Group((tmp_path / "a", tmp_path / "b")).add(7)
    assert [(tmp_path / n / "cgroup.procs").read_text() for n in ("a", "b")] == ["7\n", "7\n"]
