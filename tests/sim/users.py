"""What users of a simulated cluster do: ordinary changes, storms, and edits of what is not theirs to edit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.endpointslice import ENDPOINT_SLICE
from kubesvc.api.kinds import DAEMON_SET, DEPLOYMENT, JOB, NAMESPACE, NODE, POD, SERVICE, STATEFUL_SET
from kubesvc.api.meta import Object
from kubesvc.client.interface import Client

from .machines import pod_template
from .world import World

SHOP, SIDE = "shop", "side"
NAMESPACES = (SHOP, SIDE)
SCRIPTS = (
    "ready",
    "ready after 1s",
    "ready after 3s",
    "ready after 2s; unready after 8s; ready after 2s; unready after 5s; ready after 4s",
    "ready after 2s; unready after 20s; ready after 4s",
    "never",
    "unready",
    "ready after 1s; fail after 15s",
    "ready after 1s; succeed after 20s",
)
JOB_SCRIPTS = ("ready after 1s; succeed after 3s", "ready after 1s; succeed after 15s", "ready after 1s; fail after 2s")
STOP = "kubesvc.dev/simulate-stop-seconds"
APPS = ("web", "db")
PORTS: tuple[list[Object], ...] = (
    [{"name": "http", "port": 80, "targetPort": 8080}],
    [{"name": "http", "port": 80, "targetPort": "main"}],
    [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    [{"name": "http", "port": 80, "targetPort": "main"}, {"name": "odd", "port": 81, "targetPort": "nowhere"}],
)
HANDMADE = "192.0.2."
"""Addresses that only people write; no pod has them."""

Act = Callable[["Users"], Awaitable[None]]


class Users:
    """They act on a world, by its chance."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.numbers = 0
        self.spoilt: dict[str, None] = {}
        """Slices whose labels or owners were edited: nothing wakes a controller for that (SLICE-2)."""
        self.edited_endpoints: dict[tuple[str, str], None] = {}
        """Endpoints of Services with selectors that somebody wrote into: they stay so until deleted (EP-1)."""

    async def act(self, what: str, call: Callable[[Client], Awaitable[Any]]) -> Any:
        return await self.world.act(what, call)

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    async def names(self, kind: Any, namespace: str) -> list[str]:
        return [o["metadata"]["name"] for o in await self.world.all(kind, namespace)]

    async def one(self, kind: Any, namespace: str = SHOP) -> str | None:
        """The name of some object of a kind."""
        found = await self.names(kind, namespace)
        return self.random.choice(found) if found else None

    # ---------------------------------------------------------------- the beginning

    async def settle_in(self) -> None:
        """What there is before trouble begins."""
        for namespace in NAMESPACES:
            await self.make_namespace(namespace)
        for name, spec in self.first_services():
            await self.make_service(SHOP, name, spec)
        await self.make_service(SIDE, "web", {"selector": {"app": "web"}, "ports": PORTS[0]})
        await self.make_endpoints("byhand")
        for app in APPS:
            await self.make_deployment(SHOP, app, self.random.randint(2, 6))
        await self.make_deployment(SIDE, "web", 2)
        await self.make_set("ledger", self.random.randint(1, 3))
        await self.make_daemons("agent")
        await self.make_job()

    def first_services(self) -> list[tuple[str, Object]]:
        r = self.random
        policy = {"ipFamilyPolicy": "PreferDualStack"} if len(self.world.families) > 1 and r.random() < 0.7 else {}
        node_port: Object = {
            "type": "NodePort",
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            "externalTrafficPolicy": r.choice(("Cluster", "Local")),
            "internalTrafficPolicy": r.choice(("Cluster", "Local")),
        }
        near: Object = {"selector": {"app": "web"}, "ports": r.choice(PORTS)}
        if r.random() < 0.5:
            near["trafficDistribution"] = r.choice(("PreferSameZone", "PreferSameNode"))
        return [
            ("web", {"selector": {"app": "web"}, "ports": r.choice(PORTS), **policy}),
            ("db", {"selector": {"app": "db"}, "ports": r.choice(PORTS), "clusterIP": "None", **policy}),
            ("door", {**node_port, **policy}),
            ("near", near),
            ("early", {"selector": {"app": "web"}, "ports": r.choice(PORTS), "publishNotReadyAddresses": True}),
            ("blue", {"selector": {"app": "web", "colour": "blue"}, "ports": r.choice(PORTS)}),
            ("byhand", {"ports": [{"name": "http", "port": 80}]}),
            ("nobody", {"selector": {"app": "nobody"}, "ports": PORTS[0]}),
        ]

    async def make_namespace(self, name: str) -> None:
        await self.act(f"makes namespace {name}", lambda c: c.create(NAMESPACE, {"metadata": {"name": name}}))

    async def make_service(self, namespace: str, name: str, spec: Object) -> None:
        body = {"metadata": {"name": name}, "spec": spec}
        await self.act(f"makes Service {namespace}/{name}", lambda c: c.create(SERVICE, body, namespace))

    async def make_endpoints(self, name: str) -> None:
        addresses = [{"ip": f"{HANDMADE}{i}"} for i in range(1, self.random.randint(2, 7))]
        subsets = [{"addresses": addresses, "ports": [{"name": "http", "port": 8080}]}]
        body = {"metadata": {"name": name}, "subsets": subsets}
        await self.act(f"makes Endpoints {name}", lambda c: c.create(ENDPOINTS, body, SHOP))

    async def make_deployment(self, namespace: str, app: str, replicas: int) -> None:
        template = pod_template(app, self.random.choice(SCRIPTS[:3]), colour=self.random.choice(("blue", "red")))
        template["metadata"]["annotations"][STOP] = str(self.random.choice((0, 2, 4)))
        body = {
            "metadata": {"name": app},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template},
        }
        await self.act(f"makes Deployment {namespace}/{app}", lambda c: c.create(DEPLOYMENT, body, namespace))

    async def make_set(self, name: str, replicas: int) -> None:
        """Pods with names in the headless Service `db`."""
        template = pod_template("db", self.random.choice(SCRIPTS[:3]), set=name)
        body = {
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "serviceName": "db",
                "podManagementPolicy": self.random.choice(("OrderedReady", "Parallel")),
                "selector": {"matchLabels": {"set": name}},
                "template": template,
            },
        }
        await self.act(f"makes StatefulSet {name}", lambda c: c.create(STATEFUL_SET, body, SHOP))

    async def make_daemons(self, name: str) -> None:
        template = pod_template("web", self.random.choice(SCRIPTS[:3]), set=name)
        body = {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"set": name}}, "template": template}}
        await self.act(f"makes DaemonSet {name}", lambda c: c.create(DAEMON_SET, body, SHOP))

    async def make_job(self) -> None:
        name, script = f"task-{self.number()}", self.random.choice(JOB_SCRIPTS)
        template = pod_template("web", script)
        template["spec"]["restartPolicy"] = "Never"
        spec: Object = {"completions": self.random.randint(1, 4), "parallelism": self.random.randint(1, 3)}
        spec["backoffLimit"] = 3  # its waits double: with more of them a Job is not over when all is quiet
        if self.random.random() < 0.5:
            spec["completionMode"] = "Indexed"
        body = {"metadata": {"name": name}, "spec": {**spec, "template": template}}
        await self.act(f"makes Job {name} ({script})", lambda c: c.create(JOB, body, SHOP))

    # ---------------------------------------------------------------- ordinary changes

    async def scale_set(self) -> None:
        if name := await self.one(STATEFUL_SET):
            n = self.random.choice((0, 1, 2, 4))
            await self.patch(f"scales StatefulSet {name} to {n}", STATEFUL_SET, name, {"spec": {"replicas": n}})

    async def roll_out_sets(self) -> None:
        kind = self.random.choice((STATEFUL_SET, DAEMON_SET))
        if name := await self.one(kind):
            annotations = {"kubesvc.dev/simulate": self.random.choice(SCRIPTS[:3]), "turn": str(self.number())}
            patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
            await self.patch(f"rolls out {kind.name} {name}", kind, name, patch)

    async def replace_job(self) -> None:
        if name := await self.one(JOB):
            how = self.random.choice(("Background", "Foreground", "Orphan"))
            await self.act(f"deletes Job {name}, {how}", lambda c: c.delete(JOB, name, SHOP, propagation=how))
        await self.make_job()

    async def suspend_job(self) -> None:
        if name := await self.one(JOB):
            for suspend in (True, False):
                await self.patch(f"suspends Job {name}: {suspend}", JOB, name, {"spec": {"suspend": suspend}})
                await asyncio.sleep(self.random.choice((0.0, 1.0, 5.0)))

    async def patch(self, what: str, kind: Any, name: str, patch: Object, namespace: str = SHOP) -> None:
        await self.act(what, lambda c: c.patch(kind, name, namespace, patch, "merge"))

    async def scale(self) -> None:
        if name := await self.one(DEPLOYMENT):
            n = self.random.choice((0, 1, 3, 5, 8))
            await self.patch(f"scales {name} to {n}", DEPLOYMENT, name, {"spec": {"replicas": n}})

    async def roll_out(self) -> None:
        if name := await self.one(DEPLOYMENT):
            labels = {"colour": self.random.choice(("blue", "red", "green")), "turn": str(self.number())}
            annotations = {"kubesvc.dev/simulate": self.random.choice(SCRIPTS[:4])}
            template = {"template": {"metadata": {"labels": labels, "annotations": annotations}}}
            await self.patch(f"rolls out {name}", DEPLOYMENT, name, {"spec": template})

    async def delete_pods(self, most: int = 3) -> None:
        names = await self.names(POD, SHOP)
        for name in self.random.sample(names, min(len(names), self.random.randint(1, most))):
            grace = self.random.choice((None, None, 0, 1, 10))

            def call(c: Client, name: str = name, grace: int | None = grace) -> Awaitable[Any]:
                return c.delete(POD, name, SHOP, grace_seconds=grace)

            await self.act(f"deletes pod {name}, grace {grace}", call)

    async def pod_storm(self) -> None:
        """Pods without a controller, many at once, with every kind of behaviour."""
        for _ in range(self.random.randint(3, 12)):
            name = f"bare-{self.number()}"
            app = self.random.choice(APPS)
            template = pod_template(app, self.random.choice(SCRIPTS), colour=self.random.choice(("blue", "red")))
            spec = {**template["spec"], "restartPolicy": "Never"}
            if self.random.random() < 0.3:
                spec |= {"hostname": name, "subdomain": "db"}
            metadata = {"name": name, **template["metadata"]}
            body = {"metadata": metadata, "spec": spec}
            await self.act(f"makes pod {name}", lambda c, body=body: c.create(POD, body, SHOP))  # type: ignore[misc]

    async def label_storm(self) -> None:
        names = await self.names(POD, SHOP)
        for name in self.random.sample(names, min(len(names), self.random.randint(2, 10))):
            labels: Object = {"colour": self.random.choice(("blue", "red", None))}
            if self.random.random() < 0.3:
                labels["app"] = self.random.choice(APPS)
            await self.patch(f"labels pod {name} {labels}", POD, name, {"metadata": {"labels": labels}})

    async def edit_selector(self) -> None:
        name = self.random.choice(("web", "near", "blue", "nobody", "early"))
        selector = self.random.choice(
            ({"app": "web", "colour": None}, {"app": "db", "colour": None}, {"app": "web", "colour": "blue"})
        )
        await self.patch(f"lets {name} select {selector}", SERVICE, name, {"spec": {"selector": selector}})

    async def edit_ports(self) -> None:
        name = self.random.choice(("web", "near", "early"))
        await self.patch(f"edits ports of {name}", SERVICE, name, {"spec": {"ports": self.random.choice(PORTS)}})

    async def toggle_publish(self) -> None:
        name = self.random.choice(("early", "db"))
        value = self.random.random() < 0.5
        patch = {"spec": {"publishNotReadyAddresses": value}}
        await self.patch(f"lets {name} publish not ready addresses: {value}", SERVICE, name, patch)

    async def label_service(self) -> None:
        if name := await self.one(SERVICE):
            labels = {"note": self.random.choice(("a", "b", None))}
            await self.patch(f"labels Service {name} {labels}", SERVICE, name, {"metadata": {"labels": labels}})

    async def replace_service(self) -> None:
        """A Service goes, and perhaps comes back at once under its name with another uid."""
        name, spec = self.random.choice(self.first_services())
        await self.act(f"deletes Service {name}", lambda c: c.delete(SERVICE, name, SHOP))
        await asyncio.sleep(self.random.choice((0.0, 0.0, 0.05, 3.0)))
        await self.make_service(SHOP, name, spec)
        if name == "byhand":
            await self.make_endpoints(name)

    async def change_type(self) -> None:
        name = self.random.choice(("web", "near", "door"))
        kind = self.random.choice(("ClusterIP", "NodePort", "LoadBalancer"))
        await self.patch(f"makes {name} a {kind}", SERVICE, name, {"spec": {"type": kind}})

    async def external_name(self) -> None:
        """There and back again: its slices go and come."""
        patch: Object = {"spec": {"type": "ExternalName", "externalName": "example.org"}}
        await self.patch("makes near an ExternalName", SERVICE, "near", patch)
        await asyncio.sleep(self.random.choice((0.0, 1.0, 5.0)))
        patch = {"spec": {"type": "ClusterIP", "externalName": None}}
        await self.patch("makes near a ClusterIP again", SERVICE, "near", patch)

    async def take_selector(self) -> None:
        """A Service gains or loses its selector."""
        name = self.random.choice(("byhand", "blue"))
        selector: Object | None = self.random.choice((None, {"app": "web"}))
        await self.patch(f"gives {name} the selector {selector}", SERVICE, name, {"spec": {"selector": selector}})
        self.edited_endpoints[SHOP, name] = None

    async def edit_handmade(self) -> None:
        addresses = [{"ip": f"{HANDMADE}{i}"} for i in self.random.sample(range(1, 20), self.random.randint(1, 9))]
        subsets = [{"addresses": addresses, "ports": [{"name": "http", "port": 8080}]}]
        await self.patch("edits Endpoints byhand", ENDPOINTS, "byhand", {"subsets": subsets})
        self.edited_endpoints[SHOP, "byhand"] = None

    async def replace_namespace(self) -> None:
        await self.act(f"deletes namespace {SIDE}", lambda c: c.delete(NAMESPACE, SIDE))
        await asyncio.sleep(self.random.uniform(0, 20))
        await self.make_namespace(SIDE)
        await self.make_service(SIDE, "web", {"selector": {"app": "web"}, "ports": PORTS[0]})
        await self.make_deployment(SIDE, "web", 2)

    async def replace_deployment(self) -> None:
        app = self.random.choice(APPS)
        how = self.random.choice(("Background", "Foreground", "Orphan"))
        text = f"deletes Deployment {app}, {how}"
        await self.act(text, lambda c: c.delete(DEPLOYMENT, app, SHOP, propagation=how))
        await asyncio.sleep(self.random.uniform(0, 5))
        await self.make_deployment(SHOP, app, self.random.randint(1, 4))

    # ---------------------------------------------------------------- edits of what is not theirs

    async def spoil_slice(self) -> None:
        name = await self.one(ENDPOINT_SLICE)
        if name is None:
            return
        way = self.random.choice(("delete", "empty", "stranger", "label", "disown", "unmanaged"))
        if way == "delete":
            await self.act(f"deletes slice {name}", lambda c: c.delete(ENDPOINT_SLICE, name, SHOP))
            return
        stranger = [{"addresses": [f"{HANDMADE}99"], "conditions": {"ready": True}}]
        label = {"x": "y", "kubernetes.io/service-name": self.random.choice(("web", "db"))}
        patches: dict[str, Object] = {
            "empty": {"endpoints": []},
            "stranger": {"endpoints": stranger},
            "label": {"metadata": {"labels": label}},
            "disown": {"metadata": {"ownerReferences": None}},
            "unmanaged": {"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": "somebody"}}},
        }
        if way == "empty":
            self.world.emptied[name] = None
        if "metadata" in patches[way]:
            self.spoilt[name] = None
        await self.patch(f"spoils slice {name}: {way}", ENDPOINT_SLICE, name, patches[way])

    async def spoil_endpoints(self) -> None:
        name = self.random.choice(("web", "db", "blue"))
        if self.random.random() < 0.5:
            await self.act(f"deletes Endpoints {name}", lambda c: c.delete(ENDPOINTS, name, SHOP))
            return
        subsets = [{"addresses": [{"ip": f"{HANDMADE}77"}], "ports": [{"port": 1}]}]
        await self.patch(f"spoils Endpoints {name}", ENDPOINTS, name, {"subsets": subsets})
        self.edited_endpoints[SHOP, name] = None

    async def flip_readiness(self) -> None:
        """Pods whose probes change their minds."""
        for machine in self.world.machines:
            for worker in list(machine.workers.values()):
                if self.random.random() < 0.3 and worker.ips and not worker.deleted.is_set() and machine.running:
                    word = self.random.choice(("ready", "unready"))
                    task = asyncio.create_task(worker.write(word))
                    machine.tasks[f"flip-{self.number()}"] = task
                    self.world.story.tell(machine.name, f"pod {worker.pod.name} turns {word}")

    # ---------------------------------------------------------------- putting right what only people can

    async def put_right(self) -> None:
        """After trouble: slices and Endpoints whose edits nobody undoes are removed, to be made anew."""
        assert self.world.server is not None
        for name in self.spoilt:
            await self.act(f"removes slice {name}", lambda c, n=name: c.delete(ENDPOINT_SLICE, n, SHOP))  # type: ignore[misc]
        for namespace, name in self.edited_endpoints:
            await self.act(f"removes Endpoints {name}", lambda c, n=name, ns=namespace: c.delete(ENDPOINTS, n, ns))  # type: ignore[misc]
        services = {s["metadata"]["name"]: s for s in await self.world.all(SERVICE, SHOP)}
        if "byhand" in services and not services["byhand"]["spec"].get("selector"):
            await self.make_endpoints("byhand")

    async def sweep(self) -> None:
        """Remove pods that have ended: one that was not ready before it ended stays in slices as it was (EP-4)."""
        for namespace in NAMESPACES:
            for pod in await self.world.all(POD, namespace):
                if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                    name = pod["metadata"]["name"]
                    await self.act(f"sweeps pod {name}", lambda c, n=name, ns=namespace: c.delete(POD, n, ns))  # type: ignore[misc]

    async def lose_node(self, name: str) -> None:
        await self.act(f"deletes node {name}", lambda c: c.delete(NODE, name))


ACTS: tuple[tuple[int, Act], ...] = (
    (4, Users.scale),
    (3, Users.roll_out),
    (5, Users.delete_pods),
    (3, Users.pod_storm),
    (3, Users.label_storm),
    (3, Users.edit_selector),
    (2, Users.edit_ports),
    (1, Users.toggle_publish),
    (1, Users.label_service),
    (2, Users.replace_service),
    (1, Users.change_type),
    (1, Users.external_name),
    (1, Users.take_selector),
    (1, Users.edit_handmade),
    (1, Users.replace_namespace),
    (1, Users.replace_deployment),
    (2, Users.spoil_slice),
    (2, Users.spoil_endpoints),
    (3, Users.flip_readiness),
    (2, Users.scale_set),
    (2, Users.roll_out_sets),
    (1, Users.replace_job),
    (1, Users.suspend_job),
)
