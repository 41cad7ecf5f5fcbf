"""Hosts file, images, volumes, logs, addresses and scripts: the smaller plans of the node."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.meta import typed
from kubesvc.api.node import Node
from kubesvc.api.pod import HostAlias, Pod
from kubesvc.clock import RealClock
from kubesvc.kernel.links import Route
from kubesvc.node.agent import plan_routes
from kubesvc.node.environment import Sources
from kubesvc.node.hostsfile import pod_fqdn, pod_hostname, render_host_network_hosts, render_hosts
from kubesvc.node.images import (
    ImageMap,
    ImageProblem,
    MapEntry,
    advice,
    full_name,
    load_map,
    mapped_image,
    parse_name,
    stand_in,
)
from kubesvc.node.ipam import AddressPool, Exhausted
from kubesvc.node.logs import (
    LogFile,
    LogOptions,
    LogPipe,
    StoredLog,
    read_log,
    short_lines,
    split_lines,
    stored_lines,
    wanted_lines,
)
from kubesvc.node.records import PodRecord, Records
from kubesvc.node.simulated import parse_script
from kubesvc.node.volumes import File, Material, VolumeProblem, make_volume, plan_files, plan_mounts, write_files

# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "spec", "hostname", "fqdn"),
    [
        ("the Pod's name", {}, "web-1", ""),
        ("spec.hostname", {"hostname": "h"}, "h", ""),
        ("with subdomain", {"hostname": "h", "subdomain": "s"}, "h", "h.s.ns.svc.cluster.local"),
        ("hostnameOverride wins", {"hostname": "h", "hostnameOverride": "o.example"}, "o.example", ""),
        ("hostNetwork: the node's", {"hostname": "h", "hostNetwork": True, "subdomain": "s"}, "n1", ""),
    ],
)
def test_hostname(what: str, spec: dict[str, Any], hostname: str, fqdn: str) -> None:
    """NODE-80."""
    pod = typed({"metadata": {"name": "web-1", "namespace": "ns"}, "spec": spec}, Pod)
    assert (pod_hostname(pod, "n1"), pod_fqdn(pod, "n1", "cluster.local")) == (hostname, fqdn), what


def test_a_long_hostname_is_cut_at_63() -> None:
    pod = typed({"metadata": {"name": "a" * 62 + "-" + "b" * 10}, "spec": {}}, Pod)
    assert pod_hostname(pod, "n1") == "a" * 62


def test_hosts_file() -> None:
    """NODE-81, NODE-82."""
    text = render_hosts("h", "h.s.ns.svc.z", ["10.0.0.1", "fd00::1"], [HostAlias(ip="1.2.3.4", hostnames=["a", "b"])])
    assert text == (
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        "10.0.0.1\th.s.ns.svc.z\th\nfd00::1\th.s.ns.svc.z\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    )
    assert render_hosts("h", "", ["10.0.0.1"], []).endswith("10.0.0.1\th\n")
    assert render_host_network_hosts("1.1.1.1\tx\n", []).startswith(
        "# Kubernetes-managed hosts file (host network).\n1."
    )


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("shop:1", "docker.io/library/shop:1"),
        ("user/app", "docker.io/user/app:latest"),
        ("registry.example:5000/a/b:v1", "registry.example:5000/a/b:v1"),
        ("localhost/x", "localhost/x:latest"),
        ("app@sha256:" + "a" * 64, "docker.io/library/app@sha256:" + "a" * 64),
    ],
)
def test_image_names(name: str, full: str) -> None:
    assert full_name(name) == full


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "a:", "/a", "a//b", "a@x"])
def test_wrong_image_names(name: str) -> None:
    """NODE-19."""
    with pytest.raises(ImageProblem) as caught:
        parse_name(name)
    assert caught.value.reason == "InvalidImageName"


def test_the_map_comes_first_then_stand_ins_then_words(tmp_path: Path) -> None:
    entry = MapEntry(command=["/bin/mine"], args=["--x"])
    mapped = mapped_image("nginx:1.25", ImageMap({"nginx:*": entry}))
    assert mapped is not None and mapped_image("nginx:1.25", ImageMap({"httpd:*": entry})) is None
    assert mapped.argv([], []) == ["/bin/mine", "--x"]
    assert mapped.argv([], ["--y"]) == ["/bin/mine", "--y"]
    assert mapped.argv(["sh"], []) == ["sh"]
    for name in (
        "nginx",
        "httpd:2.4",
        "busybox",
        "registry.example/pause:3.9",
        "registry.example/tests/agnhost:2",
    ):
        image = stand_in(name)
        assert image is not None and image.said
    assert stand_in("no/such:1") is None
    words = advice("no/such:1", tmp_path / "images.toml")
    assert "images.toml" in words and '[images."no/such:*"]' in words and "kubesvc image load" in words


@pytest.mark.parametrize(
    "text",
    ["images = 3", '[images."a"]\ncommand = "x"', '[images."a"]\nwrong = 1', '[images."a"]\nstop_signal = "X"', "["],
)
def test_a_wrong_map_says_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "images.toml"
    path.write_text(text)
    with pytest.raises(ImageProblem, match=r"images\.toml"):
        load_map(path)
    assert load_map(tmp_path / "none.toml") == ImageMap()


# -- volumes ----------------------------------------------------------------------------------------------------------

MATERIAL = Material(
    config_maps={"m": {"a": b"A", "b": b"B"}}, secrets={"s": {"k": b"K"}}, tokens={("", 3600): "t"}, sources=Sources()
)


def a_pod(*volumes: dict[str, Any], **container: Any) -> Pod:
    spec = {"volumes": list(volumes), "containers": [{"name": "c", **container}]}
    return typed({"metadata": {"name": "p", "labels": {"x": "y"}}, "spec": spec}, Pod)


def files_of(source: dict[str, Any]) -> dict[str, tuple[bytes, int]] | None:
    pod = a_pod({"name": "v", **source})
    assert pod.spec.volumes is not None
    files = plan_files(pod.spec.volumes[0], pod, MATERIAL)
    return None if files is None else {path: (f.data, f.mode) for path, f in files.items()}


@pytest.mark.parametrize(
    ("what", "source", "expected"),
    [
        ("a whole map", {"configMap": {"name": "m"}}, {"a": (b"A", 0o644), "b": (b"B", 0o644)}),
        (
            "chosen keys", {"configMap": {"name": "m", "items": [{"key": "a", "path": "d/e", "mode": 0o600}]}},
            {"d/e": (b"A", 0o600)},
        ),
        ("a secret with a mode", {"secret": {"secretName": "s", "defaultMode": 0o400}}, {"k": (b"K", 0o400)}),
        ("optional and absent", {"configMap": {"name": "none", "optional": True}}, {}),
        (
            "projected", {"projected": {"sources": [{"configMap": {"name": "m"}}, {"secret": {"name": "s"}}]}},
            {"a": (b"A", 0o644), "b": (b"B", 0o644), "k": (b"K", 0o644)},
        ),
        ("emptyDir is made of nothing", {"emptyDir": {}}, None),
    ],
)  # fmt: skip
def test_volume_files(what: str, source: dict[str, Any], expected: Any) -> None:
    assert files_of(source) == expected, what


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "..data", ""])
def test_paths_stay_inside(path: str) -> None:
    with pytest.raises(VolumeProblem, match="invalid path"):
        files_of({"configMap": {"name": "m", "items": [{"key": "a", "path": path}]}})


def test_missing_objects_are_named() -> None:
    with pytest.raises(VolumeProblem, match='configmap "none" not found'):
        files_of({"configMap": {"name": "none"}})
    with pytest.raises(VolumeProblem, match="non-existent config key: z"):
        files_of({"configMap": {"name": "m", "items": [{"key": "z", "path": "z"}]}})


def test_files_change_all_at_once(tmp_path: Path) -> None:
    room = tmp_path / "v"
    assert write_files(room, {"a": File(b"1", 0o644), "d/e": File(b"2", 0o600)})
    first = os.readlink(room / "..data")
    assert ((room / "a").read_bytes(), (room / "d/e").read_bytes()) == (b"1", b"2")
    assert not write_files(room, {"a": File(b"1", 0o644), "d/e": File(b"2", 0o600)})
    assert write_files(room, {"a": File(b"3", 0o644), "n": File(b"4", 0o644)})
    assert os.readlink(room / "..data") != first
    assert sorted(n for n in os.listdir(room) if not n.startswith("..")) == ["a", "n"]
    assert (room / "a").read_bytes() == b"3"
    assert len([n for n in os.listdir(room) if n.startswith("..") and n != "..data"]) == 1


def test_empty_and_host_volumes(tmp_path: Path) -> None:
    def made(source: dict[str, Any]) -> Path:
        pod = a_pod({"name": "v", **source})
        assert pod.spec.volumes is not None
        return make_volume(pod.spec.volumes[0], pod, MATERIAL, tmp_path / "own")

    assert made({"emptyDir": {}}) == tmp_path / "own"
    path = tmp_path / "host"
    assert made({"hostPath": {"path": str(path), "type": "DirectoryOrCreate"}}) == path and path.is_dir()
    with pytest.raises(VolumeProblem, match="is not a file"):
        made({"hostPath": {"path": str(path), "type": "File"}})
    with pytest.raises(VolumeProblem, match="no volumes of its kind"):
        made({"nfs": {"server": "x", "path": "/"}})


def test_mounts() -> None:
    mounts = [
        {"name": "v", "mountPath": "/data/", "subPath": "in/side"},
        {"name": "m", "mountPath": "/conf"},
    ]
    pod = a_pod({"name": "v", "emptyDir": {}}, {"name": "m", "configMap": {"name": "m"}}, volumeMounts=mounts)
    assert pod.spec.containers is not None and pod.spec.volumes is not None
    places = {"v": Path("/s/v"), "m": Path("/s/m")}
    volumes = {v.name: v for v in pod.spec.volumes}
    data, conf = plan_mounts(pod.spec.containers[0], places, volumes, {})
    assert (data.source, data.target, data.below, data.read_only, data.make) == (
        "/s/v",
        "/data",
        "in/side",
        False,
        True,
    )
    assert (conf.target, conf.read_only, conf.make) == ("/conf", True, False)
    with pytest.raises(VolumeProblem, match="is not there"):
        plan_mounts(pod.spec.containers[0], {}, volumes, {})


# -- logs -------------------------------------------------------------------------------------------------------------

LOG = [
    b"2026-01-01T00:00:01.000000000Z stdout F one",
    b"2026-01-01T00:00:02.500000000Z stderr F two",
    b"2026-01-01T00:00:03.000000000Z stdout P thr",
    b"2026-01-01T00:00:03.000000000Z stdout F ee",
]
NOW = 1_767_225_604.0


@pytest.mark.parametrize(
    ("what", "options", "expected"),
    [
        ("all", LogOptions(), b"one\ntwo\nthree\n"),
        ("one stream", LogOptions(stream="Stderr"), b"two\n"),
        ("with times", LogOptions(stream="Stderr", timestamps=True), b"2026-01-01T00:00:02.500000000Z two\n"),
        ("since seconds", LogOptions(since_seconds=2), b"two\nthree\n"),
        ("since a time", LogOptions(since_time="2026-01-01T00:00:03Z"), b"three\n"),
    ],
)
def test_wanted_lines(what: str, options: LogOptions, expected: bytes) -> None:
    """NODE-95, NODE-98."""
    assert b"".join(wanted_lines(LOG, options, NOW)) == expected, what


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 7))
def test_lines_survive_any_cutting(pieces: list[bytes], size: int) -> None:
    """However the bytes arrive, the lines are the same."""
    data = b"\n".join(pieces)
    rest, found = b"", []
    for start in range(0, len(data), size):
        lines, rest = split_lines(rest + data[start : start + size])
        found += lines
    assert b"\n".join([*(line for line, _ in found), rest]) == data
    assert all(whole for _, whole in found)


class StandingClock(RealClock):
    def now(self) -> float:
        return 1e9


@given(st.lists(st.sampled_from([b"", b"a", b"bc", b"x" * 16383, b"y" * 16384, b"z" * 16385]), max_size=8))
def test_short_lines_are_kept_as_any_others(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """The quick way of keeping lines keeps the same as the long way, and is taken exactly when no line is long."""
    text = b"\n".join(lines)
    found, rest = split_lines(text)
    whole = short_lines(text)
    assert bool(whole) == (bool(found) and all(w for _, w in found))
    if not whole:
        return
    assert text[whole:] == rest
    kept = []
    clock = StandingClock()
    for number in range(2):
        path = tmp_path_factory.mktemp("log") / "0.log"

        async def keep(path: Path = path, number: int = number) -> None:
            file = LogFile(path, clock, 1 << 20, 2)
            if number:
                file.write_whole("stdout", text[:whole])
            else:
                file.write("stdout", found)
            file.close()

        asyncio.run(keep())
        kept.append(path.read_bytes())
    assert kept[0] == kept[1]


def test_a_line_without_end_is_cut() -> None:
    lines, rest = split_lines(b"x" * 40000)
    assert [len(line) for line, _ in lines] == [16384, 16384] and not any(whole for _, whole in lines)
    assert len(rest) == 40000 - 2 * 16384


def test_rotation_bounds_the_log(tmp_path: Path) -> None:
    async def fill() -> None:
        file = LogFile(tmp_path / "0.log", RealClock(), 1000, 3)
        for n in range(200):
            file.write("stdout", [(b"line %d" % n, True)])
        file.close()

    asyncio.run(fill())
    sizes = [p.stat().st_size for p in tmp_path.iterdir()]
    assert len(sizes) == 3 and max(sizes) <= 1000
    assert list(stored_lines(tmp_path / "0.log"))[-1].endswith(b"line 199")


def test_follow_tail_and_limit(tmp_path: Path) -> None:
    """NODE-98: following sends what comes, through a rotation, and ends with the container."""

    async def follow() -> bytes:
        file = LogFile(tmp_path / "0.log", RealClock(), 300, 5)
        file.write("stdout", [(b"a", True), (b"b", True), (b"c", True)])

        async def read() -> bytes:
            return b"".join(
                [p async for p in read_log(file.path, LogOptions(follow=True, tail_lines=1), RealClock(), file)]
            )

        task = asyncio.create_task(read())
        for n in range(12):
            await asyncio.sleep(0.005)
            file.write("stdout", [(b"%d" % n, True)])
        await asyncio.sleep(0.01)
        file.close()
        limited = [p async for p in read_log(tmp_path / "0.log", LogOptions(limit_bytes=3), RealClock())]
        assert len(b"".join(limited)) == 3
        return await asyncio.wait_for(task, 60)

    assert asyncio.run(follow()).split() == [b"c", *(b"%d" % n for n in range(12))]


@given(
    st.integers(2, 40),
    st.lists(st.one_of(st.integers(1, 12), st.none(), st.just("new")), max_size=40),
)
def test_no_line_comes_twice(files: int, steps: list[int | str | None]) -> None:
    """NODE-98: lines are written (a number of them), a reader goes on (None) or another one begins ("new"), in any
    order, while the log is rotated every few lines. Each reader has every line once, in order, from the oldest that
    was kept when it began; where parts are dropped faster than it reads, lines are missing, and none is twice."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "0.log"

        async def work() -> None:
            file = LogFile(path, RealClock(), 150, files)
            written, readers = 0, [(0, StoredLog(path), list[int]())]
            for step in [*steps, None, None]:
                if step == "new":
                    readers.append((written, StoredLog(path), []))
                    begun = readers[-1]
                    begun[2].extend(number_of(line) for line in begun[1].lines())
                elif step is None:
                    for _, log, seen in readers:
                        while text := log.more():
                            seen.extend(number_of(line) for line in text.splitlines())
                else:
                    for _ in range(int(step)):
                        file.write("stdout", [(b"%d" % written, True)])
                        written += 1
            for began, log, seen in readers:
                log.close()
                assert seen == sorted(set(seen)), seen
                assert written == 0 or not seen or seen[-1] == written - 1
                if files > 30 and written < 60:  # nothing was dropped
                    assert seen == list(range(written)), (began, seen)
            file.close()

        asyncio.run(work())


def number_of(line: bytes) -> int:
    return int(line.split(b" ", 3)[3])


def test_followed_lines_keep_their_carriage_returns(tmp_path: Path) -> None:
    """A progress bar's line is one line, read at once or followed."""

    async def follow() -> tuple[bytes, bytes]:
        file = LogFile(tmp_path / "0.log", RealClock(), 10_000, 2)
        pieces: list[bytes] = []

        async def read() -> None:
            async for piece in read_log(file.path, LogOptions(follow=True), RealClock(), file):
                pieces.append(piece)

        task = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        file.write("stdout", [(b"10 %\r20 %\x0b done", True)])
        await asyncio.sleep(0.01)
        file.close()
        await task
        again = [piece async for piece in read_log(file.path, LogOptions(), RealClock())]
        return b"".join(pieces), b"".join(again)

    assert asyncio.run(follow()) == (b"10 %\r20 %\x0b done\n",) * 2


def test_a_pipe_outlives_its_reader(tmp_path: Path) -> None:
    """A container goes on writing while no agent reads, and the next agent finds what it wrote."""

    async def scene() -> list[bytes]:
        path, pipe_path = tmp_path / "0.log", tmp_path / "0.stdout"
        first = LogFile(path, RealClock(), 10000, 2)
        pipe = LogPipe(pipe_path, "stdout", first)
        container = pipe.for_container()
        os.write(container, b"one\n")
        await asyncio.sleep(0.02)
        pipe.close()
        first.close()
        os.write(container, b"two\nthr")
        second = LogFile(path, RealClock(), 10000, 2)
        pipe = LogPipe(pipe_path, "stdout", second)
        await asyncio.sleep(0.02)
        os.write(container, b"ee\nlast without end")
        os.close(container)
        pipe.drain()
        second.close()
        return [line.split(b" ", 3)[3] for line in stored_lines(path)]

    assert asyncio.run(scene()) == [b"one", b"two", b"three", b"last without end"]


# -- records ----------------------------------------------------------------------------------------------------------


def test_records_survive_a_torn_write(tmp_path: Path) -> None:
    records = Records(tmp_path)
    record = PodRecord(uid="u", namespace="n", name="p")
    for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        record.ips = [ip]
        records.save(record)
    directory = records.pod_directory("u")
    journal = directory / "record.jsonl"
    assert list(directory.iterdir()) == [journal]
    with journal.open("a") as file:
        file.write('\n{"uid": "u", "ips": [')
    (tmp_path / "pods" / "empty").mkdir()
    again = Records(tmp_path)
    assert [r.ips for r in again.load()] == [["10.0.0.3"]]
    assert not (tmp_path / "pods" / "empty").exists()
    record.ips = ["10.0.0.5"]
    again.save(record)
    assert [r.ips for r in Records(tmp_path).load()] == [["10.0.0.5"]]
    record.start_time = "x" * 1000
    for n in range(600):
        record.ips = [f"10.0.1.{n}"]
        again.save(record)
        assert journal.stat().st_size < 1 << 19
    assert [r.ips for r in Records(tmp_path).load()] == [["10.0.1.599"]]
    again.remove("u")
    assert Records(tmp_path).load() == []


# -- addresses, routes, scripts ---------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=60))
def test_addresses_are_unique_and_inside(draws: list[bool]) -> None:
    """NODE-117."""
    pool = AddressPool("10.244.1.0/27")
    chance = random.Random(1)
    held: list[str] = []
    for take in draws:
        if take or not held:
            try:
                address = pool.allocate()
            except Exhausted:
                assert len(held) == 29
                continue
            assert address not in held and address not in ("10.244.1.0", "10.244.1.1", "10.244.1.31")
            held.append(address)
        else:
            pool.release(held.pop(chance.randrange(len(held))))


def test_an_address_is_not_given_again_at_once() -> None:
    pool = AddressPool("10.244.1.0/24", used=["10.244.1.7"])
    first = pool.allocate()
    pool.release(first)
    assert (first, pool.allocate()) == ("10.244.1.8", "10.244.1.9")
    assert AddressPool("fd00::/64").allocate() == "fd00::2"


def test_routes_to_other_nodes() -> None:
    def node(name: str, address: str, *cidrs: str) -> Node:
        addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
        spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
        return typed({"metadata": {"name": name}, "spec": spec, "status": {"addresses": addresses}}, Node)

    nodes = [
        node("n1", "172.30.0.11", "10.244.1.0/24"),
        node("n2", "172.30.0.12", "10.244.2.0/24", "fd00:2::/64"),
        node("n3", "172.30.0.13"),
    ]
    assert plan_routes(nodes, "n1") == {"10.244.2.0/24": Route("10.244.2.0/24", gateway="172.30.0.12")}


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", [("ready", 0.0)]),
        ("never", []),
        ("ready after 3s", [("ready", 3.0)]),
        ("ready; unready after 1.5s; repeat", [("ready", 0.0), ("unready", 1.5), ("repeat", 0.0)]),
    ],
)
def test_scripts(text: str, steps: list[tuple[str, float]]) -> None:
    assert parse_script(text) == steps


@pytest.mark.parametrize("text", ["maybe", "ready after", "ready after 3", "ready in 3s"])
def test_wrong_scripts(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_script(text)
