"""What lies below an object: scale, binding, eviction, finalize, ephemeral containers, resize, token (SUB-3 to SUB-5).

Each is a verb of its own on the stored object. What a node must answer (logs, exec, port forwarding) and what goes to
a backend (proxy) is handed to `Backends`, which whoever runs the nodes supplies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import msgspec
from aiohttp import web

from kubesvc.api import fields, podstrategy
from kubesvc.api.decode import Target as BodyTarget
from kubesvc.api.endpoints import ENDPOINTS
from kubesvc.api.errors import (
    BadRequest,
    Conflict,
    InternalError,
    NotAcceptable,
    ServiceUnavailable,
    TooManyRequests,
    UnsupportedMediaType,
)
from kubesvc.api.kind import Kind
from kubesvc.api.kinds import NODE, POD, by_resource
from kubesvc.api.meta import Object
from kubesvc.api.selectors import label_selector_of
from kubesvc.clock import rfc3339

from . import refusals
from .admission import TOPOLOGY_LABELS
from .apply import Applied, apply_patch
from .bodies import read_body
from .calls import Call
from .options import DeleteOptions, WriteOptions, delete_options, first, patch_options, write_options
from .patches import MEDIA_TYPES, patch_object
from .registry import Change, Registry
from .results import Written
from .storage import decode, seen
from .tables import check_include, partial, scale_table
from .tokens import TokenIssuer


class HttpBackend(NamedTuple):
    """Where a proxied request goes. `address` is "" where the pod's own is meant; `pod` is "" for a node; `port` is a
    number, a name, or "" for the first one; `path` begins with a slash or is empty."""

    scheme: str
    namespace: str
    pod: str
    address: str
    port: str
    path: str


class Backends(Protocol):
    """The way to nodes and pods, supplied by whoever runs them. Both methods raise ApiError when nobody is there."""

    async def pod_stream(self, call: Call, pod: Object, subresource: str) -> web.StreamResponse:
        """Answer log, exec, attach or portforward of a pod that is bound to an existing node."""
        ...

    async def http(self, call: Call, backend: HttpBackend) -> web.StreamResponse:
        """Pass the request on and its answer back."""
        ...

    def stop(self) -> None:
        """End every stream now."""
        ...


SCALE = BodyTarget("autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale")
BINDING = BodyTarget("", "v1", "Binding", "io.k8s.api.core.v1.Binding")
EVICTION = BodyTarget("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction")
TOKEN_REQUEST = BodyTarget("authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest")
SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


class Subresources:
    """Answers requests below objects, other than /status."""

    def __init__(self, registry: Registry, tokens: TokenIssuer) -> None:
        self.registry = registry
        self.tokens = tokens
        self.backends: Backends | None = None

    async def handle(self, call: Call, kind: Kind) -> web.StreamResponse:
        """Answer over HTTP."""
        match call.target.subresource:
            case "scale":
                return await self.scale(call, kind)
            case "binding":
                options = write_options(call.query, call.user_agent, "CreateOptions")
                body = await self.body(call, BINDING, options)
                done = await self.bind(kind, call.target.namespace, call.target.name, body, options, call.warnings)
                return call.object(done, 201)
            case "eviction":
                options = write_options(call.query, call.user_agent, "CreateOptions")
                body = await self.body(call, EVICTION, options)
                done = await self.evict(call.target.namespace, call.target.name, body, options)
                return call.object(done, 201)
            case "finalize":
                options = write_options(call.query, call.user_agent, "UpdateOptions")
                body = await self.body(call, kind, options)
                written = await self.finalize(kind, call.target.name, body, options, call.warnings)
                return call.answer(written.body())
            case "token":
                options = write_options(call.query, call.user_agent, "CreateOptions")
                body = await self.body(call, TOKEN_REQUEST, options)
                issued = await self.token(kind, call.target.namespace, call.target.name, body, call.warnings)
                return call.object(issued, 201)
            case "ephemeralcontainers" | "resize":
                return await self.partial_update(call, kind)
            case _:
                return await self.forwarded(call, kind)

    async def body(self, call: Call, target: Kind | BodyTarget, options: WriteOptions) -> Object:
        return await read_body(call, target, options.validation)

    # ------------------------------------------------------------------ scale

    async def scale(self, call: Call, kind: Kind) -> web.Response:
        target, registry = call.target, self.registry
        namespace, name = target.namespace, target.name
        if target.verb == "get":
            item = await registry.get(kind, namespace, name)
            return self.scale_answer(call, scale_of(seen(kind, item.value, item.revision), kind))
        if target.verb == "update":
            options = write_options(call.query, call.user_agent, "UpdateOptions")
            body = await self.body(call, SCALE, options)
            return self.scale_answer(call, await self.put_scale(kind, namespace, name, body, options, call.warnings))
        type = MEDIA_TYPES.get(call.media_type)
        if type is None:
            raise UnsupportedMediaType("415: Unsupported Media Type")
        options = patch_options(call.query, call.user_agent, apply=type == "apply")
        raw = await call.body()
        if type == "apply":
            done = await self.apply_scale(kind, namespace, name, raw, options, call.warnings)
        else:
            done = await self.patch_scale(kind, namespace, name, raw, type, options, call.warnings)
        return self.scale_answer(call, done)

    def scale_answer(self, call: Call, scale: Object) -> web.Response:
        """A Scale in the negotiated form."""
        form = call.form
        if form.as_kind == "Table":
            include = check_include(first(call.query, "includeObject"))
            return call.answer(scale_table(scale, include, self.registry.clock.now(), form.as_version))
        if form.as_kind == "PartialObjectMetadata":
            return call.answer(partial(msgspec.json.encode(scale), form.as_version))
        if form.as_kind:
            raise NotAcceptable(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*autoscaling.Scale)"
            )
        return call.object(scale)

    async def put_scale(
        self, kind: Kind, namespace: str, name: str, body: Object, options: WriteOptions, warnings: list[str]
    ) -> Object:
        """PUT of a Scale; the Scale afterwards (SUB-3)."""
        meta = body.get("metadata") or {}
        if (meta.get("name") or "") != name:
            raise BadRequest(
                f"the name of the object ({meta.get('name') or ''}) does not match the name on the URL ({name})"
            )

        def edit(old: Object) -> Object:
            sent = meta.get("resourceVersion")
            if sent and sent != old["metadata"]["resourceVersion"]:
                raise refusals.conflict(kind, name)
            if meta.get("uid") and meta["uid"] != old["metadata"]["uid"]:
                raise refusals.uid_conflict(kind, namespace, name, meta["uid"], old["metadata"]["uid"])
            return scaled(old, body, name, kind)

        written = await self.registry.change(Change(kind, namespace, name, edit, options, "scale"), warnings)
        return scale_of(written.object(), kind)

    async def patch_scale(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: bytes | Any,
        type: Any,
        options: WriteOptions,
        warnings: list[str],
    ) -> Object:
        """PATCH of a Scale with any patch but apply; the Scale afterwards."""

        def edit(old: Object) -> Object:
            before = scale_of(old, kind)
            patched = patch_object(before, patch, type, SCALE, options.validation)
            sent = (patched.obj.get("metadata") or {}).get("resourceVersion")
            if sent and sent != old["metadata"]["resourceVersion"]:
                raise refusals.conflict(kind, name)
            return scaled(old, patched.obj, name, kind)

        written = await self.registry.change(Change(kind, namespace, name, edit, options, "scale"), warnings)
        return scale_of(written.object(), kind)

    async def apply_scale(
        self, kind: Kind, namespace: str, name: str, patch: bytes | Any, options: WriteOptions, warnings: list[str]
    ) -> Object:
        """Server-side apply of a Scale: owners of the parent's spec.replicas stand for owners of the Scale's."""
        now = rfc3339(self.registry.clock.now())

        def merge(live: Object | None) -> Applied:
            assert live is not None  # missing objects are not made through /scale
            scale, path = scale_of(live, kind), replicas_path(kind)
            scale["metadata"]["managedFields"] = replica_owners(live, SCALE.group + "/" + SCALE.version, path)
            applied = apply_patch(
                scale, patch, SCALE, options.manager, now, name=name, namespace=namespace, force=bool(options.force),
                subresource="scale", field_validation=options.validation,
            )  # fmt: skip
            obj = scaled(live, applied.obj, name, kind)
            owners = applied.obj["metadata"].get("managedFields") or []
            obj["metadata"]["managedFields"] = give_replicas(live, owners, kind.api_version, path)
            return Applied(obj, applied.changed, applied.warnings)

        if self.registry.of(kind).get(namespace, name) is None:
            raise refusals.not_found(kind, name)
        written = await self.registry.apply(kind, namespace, name, merge, options, warnings, subresource="scale")
        return scale_of(written.object(), kind)

    # ------------------------------------------------------------------ pods

    async def bind(
        self, kind: Kind, namespace: str, name: str, binding: Object, options: WriteOptions, warnings: list[str]
    ) -> Object:
        """POST of a Binding (SUB-5); the Status."""
        target, meta = binding.get("target") or {}, binding.get("metadata") or {}
        if meta.get("name") and meta["name"] != name:
            raise BadRequest("name in URL does not match name in Binding object")
        if target.get("kind") not in (None, "", "Node"):
            shown = fields.not_supported("target.kind", target["kind"], ("Node", "<empty>"), in_order=True)
            raise refusals.plain_failure(str(shown))
        node = target.get("name") or ""
        if not node:
            raise refusals.plain_failure("target.name: Required value")
        now = rfc3339(self.registry.clock.now())

        def conflict(why: str) -> Conflict:
            return Conflict(
                f"Operation cannot be fulfilled on pods/binding {fields.quote(name)}: {why}",
                details={"name": name, "kind": "pods/binding"},
            )

        def edit(pod: Object) -> Object:
            spec, before = pod["spec"], pod["metadata"]
            if meta.get("uid") and meta["uid"] != before["uid"]:
                raise conflict(
                    f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
                )
            if before.get("deletionTimestamp"):
                raise conflict(f"pod {name} is being deleted, cannot be assigned to a host")
            if spec.get("nodeName"):
                raise conflict(f"pod {name} is already assigned to node {fields.quote(spec['nodeName'])}")
            if spec.get("schedulingGates"):
                raise conflict(f"pod {name} has non-empty .spec.schedulingGates")
            spec["nodeName"] = node
            if meta.get("annotations"):
                before["annotations"] = {**(before.get("annotations") or {}), **meta["annotations"]}
            self.topology(before, node)
            status = pod.setdefault("status", {})
            condition = {
                "type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now,
            }  # fmt: skip
            others = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
            status["conditions"] = [*others, condition]
            return pod

        change = Change(kind, namespace, name, edit, options, "binding", check=False)
        await self.registry.change(change, warnings)
        return {**SUCCESS, "code": 201}

    def topology(self, meta: Object, node_name: str) -> None:
        """The node's zone and region as labels of the pod, in place."""
        node = self.registry.of(NODE).get("", node_name)
        found = {k: node.labels[k] for k in TOPOLOGY_LABELS if k in node.labels} if node is not None else {}
        if found:
            meta["labels"] = {**(meta.get("labels") or {}), **found}

    async def evict(self, namespace: str, name: str, eviction: Object, options: WriteOptions) -> Object:
        """POST of an Eviction: delete the pod unless a disruption budget is in the way (SUB-4)."""
        meta = eviction.get("metadata") or {}
        if meta.get("name") != name:
            raise BadRequest("name in URL does not match name in Eviction object")
        item = await self.registry.get(POD, namespace, name)
        pod = decode(item.value, item.revision)
        self.registry.admission.evict(namespace, name)
        wanted = delete_options({}, eviction.get("deleteOptions") or {}, options.manager)
        dry_run = wanted.dry_run or options.dry_run
        done: Object = {**SUCCESS, "code": 201}
        phase = (pod.get("status") or {}).get("phase")
        if phase not in ("Succeeded", "Failed", "Pending") and not pod["metadata"].get("deletionTimestamp"):
            await self.use_budget(namespace, name, dry_run=dry_run)
        await self.registry.delete(
            POD,
            namespace,
            name,
            DeleteOptions(
                grace_seconds=wanted.grace_seconds,
                propagation=wanted.propagation,
                uid=wanted.uid,
                resource_version=wanted.resource_version,
                dry_run=dry_run,
                manager=options.manager,
            ),
        )
        return done

    async def use_budget(self, namespace: str, name: str, *, dry_run: bool) -> None:
        """Take one disruption from the pod's budget, or refuse the eviction."""
        budget_kind = by_resource("policy", "v1", "poddisruptionbudgets")
        if budget_kind is None:
            return
        labels = self.registry.of(POD).items[f"{namespace}/{name}"].labels
        budgets = [decode(i.value, i.revision) for i in self.registry.of(budget_kind).select(namespace)]
        found = [b for b in budgets if label_selector_of((b.get("spec") or {}).get("selector")).matches(labels)]
        if not found:
            return
        if len(found) > 1:
            raise refusals.plain_failure(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        budget = found[0]
        status, budget_name = budget.get("status") or {}, budget["metadata"]["name"]
        refused = "Cannot evict pod as it would violate the pod's disruption budget."
        if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
            message = f"The disruption budget {budget_name} is still being processed by the server."
            cause = {"reason": "DisruptionBudget", "message": message}
            raise TooManyRequests(refused, causes=[cause], retry_after_seconds=10)
        if (status.get("disruptionsAllowed") or 0) <= 0:
            message = (
                f"The disruption budget {budget_name} needs {status.get('desiredHealthy') or 0} healthy pods and has "
                f"{status.get('currentHealthy') or 0} currently"
            )
            raise TooManyRequests(refused, causes=[{"reason": "DisruptionBudget", "message": message}])
        if dry_run:
            return
        now = rfc3339(self.registry.clock.now())

        def edit(old: Object) -> Object:
            current = old.setdefault("status", {})
            current["disruptionsAllowed"] = (current.get("disruptionsAllowed") or 0) - 1
            current["disruptedPods"] = {**(current.get("disruptedPods") or {}), name: now}
            return old

        options = WriteOptions("kube-apiserver")
        await self.registry.change(
            Change(budget_kind, namespace, budget_name, edit, options, "status", check=False), []
        )

    async def partial_update(self, call: Call, kind: Kind) -> web.Response:
        """PUT or PATCH of a pod's ephemeral containers or resources."""
        target, part = call.target, call.target.subresource
        if target.verb == "update":
            options = write_options(call.query, call.user_agent, "UpdateOptions")
            body = await self.body(call, kind, options)

            def wanted(old: Object) -> Object:
                return body
        else:
            type = MEDIA_TYPES.get(call.media_type)
            if type is None or type == "apply":
                raise UnsupportedMediaType("415: Unsupported Media Type")
            options = patch_options(call.query, call.user_agent, apply=False)
            raw = await call.body()

            def wanted(old: Object) -> Object:
                return patch_object(old, raw, type, kind, options.validation).obj

        def edit(old: Object) -> Object:
            new = wanted(old)
            sent = (new.get("metadata") or {}).get("resourceVersion")
            if sent and sent != old["metadata"]["resourceVersion"]:
                raise refusals.conflict(kind, target.name)
            spec, changed = old["spec"], new.get("spec") or {}
            if part == "ephemeralcontainers":
                ephemeral_containers(kind, target.name, spec, changed)
                kind.default(old)
                errors = podstrategy.validate_ephemeral_containers(old)
            else:
                self.check_resize_node(target.name, spec)
                before = msgspec.json.decode(msgspec.json.encode(old))
                resize_containers(spec, changed)
                kind.default(old)
                errors = podstrategy.validate_resize(old, before)
            if errors:
                raise fields.invalid_object(kind.group, kind.name, target.name, errors)
            return old

        change = Change(kind, target.namespace, target.name, edit, options, part, check=False)
        written = await self.registry.change(change, call.warnings)
        return call.answer(written.body())

    def check_resize_node(self, name: str, spec: Object) -> None:
        node = spec.get("nodeName")
        if node and self.registry.of(NODE).get("", node) is None:
            raise refusals.forbidden(POD, name, f"node {fields.quote(node)} not found")

    # ------------------------------------------------------------------ namespaces, service accounts

    async def finalize(
        self, kind: Kind, name: str, body: Object, options: WriteOptions, warnings: list[str]
    ) -> Written:
        """PUT of a namespace's finalizers (NS-3)."""
        meta = body.get("metadata") or {}

        def edit(old: Object) -> Object:
            sent = meta.get("resourceVersion")
            if sent and sent != old["metadata"]["resourceVersion"]:
                raise refusals.conflict(kind, name)
            old["spec"] = {k: v for k, v in (body.get("spec") or {}).items() if k == "finalizers" and v}
            return old

        return await self.registry.change(Change(kind, "", name, edit, options, "finalize", check=False), warnings)

    async def token(self, kind: Kind, namespace: str, name: str, body: Object, warnings: list[str]) -> Object:
        """POST of a TokenRequest (AUTH-6)."""
        item = await self.registry.get(kind, namespace, name)
        account = decode(item.value, item.revision)
        self.registry.admission.token(namespace, name, body.get("spec") or {})
        return await self.tokens.issue(self.registry, account, body, warnings)

    # ------------------------------------------------------------------ what others answer

    async def forwarded(self, call: Call, kind: Kind) -> web.StreamResponse:
        """Logs, exec, attach, port forwarding and proxies: checked here, answered by the node or backend."""
        target = call.target
        if target.subresource == "proxy":
            return await self.proxy(call, kind)
        item = await self.registry.get(kind, target.namespace, target.name)
        pod = decode(item.value, item.revision)
        early = self.check_pod_stream(call, pod)
        if early is not None:
            return early
        if self.backends is None:
            raise ServiceUnavailable(f"no node can be reached for pods/{target.subresource}")
        return await self.backends.pod_stream(call, pod, target.subresource)

    async def proxy(self, call: Call, kind: Kind) -> web.StreamResponse:
        """HTTP to a pod, a Service or a node (SVCX-8)."""
        target = call.target
        if not target.rest and target.method in ("GET", "HEAD"):
            return web.Response(status=301, headers={**call.headers(), "Location": target.path + "/"})
        item_cache, namespace = self.registry.of(kind), target.namespace_of(kind)
        if kind is POD or kind is NODE:
            scheme, name, port = split_id(kind, target.name)
            if item_cache.get(namespace, name) is None:
                raise refusals.not_found(kind, name)
            backend = HttpBackend(scheme, namespace, name if kind is POD else "", "", port, target.rest)
        else:
            backend = self.service_backend(kind, namespace, target.name, target.rest)
        if self.backends is None:
            raise ServiceUnavailable(f"no node can be reached for {kind.plural}/proxy")
        return await self.backends.http(call, backend)

    def service_backend(self, kind: Kind, namespace: str, id: str, path: str) -> HttpBackend:
        """Where a request to a Service's proxy goes: a random ready address of its Endpoints."""
        scheme, name, port = split_id(kind, id)
        service = self.registry.of(kind).get(namespace, name)
        if service is None:
            raise refusals.not_found(kind, name)
        ports = (decode(service.value, service.revision).get("spec") or {}).get("ports") or []
        wanted = port
        if port.isdigit():
            wanted = next((p.get("name") or "" for p in ports if str(p.get("port")) == port), port)
        endpoints = self.registry.of(ENDPOINTS).get(namespace, name)
        subsets = (decode(endpoints.value, 0).get("subsets") or []) if endpoints is not None else []
        if not subsets:
            raise ServiceUnavailable(f"no endpoints available for service {fields.quote(name)}")
        found: list[tuple[str, str, int]] = []
        for subset in subsets:
            for p in subset.get("ports") or ():
                if (p.get("name") or "") == wanted:
                    for address in subset.get("addresses") or ():
                        reference = address.get("targetRef") or {}
                        if reference.get("kind") == "Pod" and reference.get("namespace") == namespace:
                            found.append((reference.get("name") or "", address["ip"], p["port"]))
        if not found:
            raise ServiceUnavailable(f"no service port {port} found for service {fields.quote(name)}")
        pod, address, number = self.registry.random.choice(found)
        return HttpBackend(scheme, namespace, pod, address, str(number), path)

    def check_pod_stream(self, call: Call, pod: Object) -> web.Response | None:
        """What can be said without the node (KCTL-83, KCTL-84)."""
        spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
        node = spec.get("nodeName") or ""
        if call.target.subresource != "portforward":
            check_container(spec, name, (call.query.get("container") or [""])[0])
        if not node:
            if call.target.subresource == "log":
                return web.Response(status=204, headers=call.headers())
            raise BadRequest(f"pod {name} does not have a host assigned")
        if self.registry.of(NODE).get("", node) is None:
            raise refusals.not_found(POD, node)
        return None


def split_id(kind: Kind, id: str) -> tuple[str, str, str]:
    """Scheme, name and port of `name`, `name:port` or `scheme:name:port`; BadRequest for more parts."""
    parts = id.split(":")
    if len(parts) > 3 or (len(parts) == 3 and parts[0] not in ("http", "https", "")):
        raise BadRequest(f"invalid {kind.name.lower()} request {fields.quote(id)}")
    if len(parts) == 3:
        return parts[0] or "http", parts[1], parts[2]
    return "http", parts[0], parts[1] if len(parts) == 2 else ""


def check_container(spec: Object, pod: str, wanted: str) -> None:
    """The container named in a log or exec request exists, or need not be named."""
    regular = [c["name"] for c in spec.get("containers") or ()]
    initial = [c["name"] for c in spec.get("initContainers") or ()]
    ephemeral = [c["name"] for c in spec.get("ephemeralContainers") or ()]
    if wanted:
        if wanted not in (*regular, *initial, *ephemeral):
            raise BadRequest(f"container {wanted} is not valid for pod {pod}")
        return
    if len(regular) == 1:
        return
    message = f"a container name must be specified for pod {pod}, choose one of: [{' '.join(regular)}]"
    if initial:
        message += f" or one of the init containers: [{' '.join(initial)}]"
    if ephemeral:
        message += f" or one of the ephemeral containers: [{' '.join(ephemeral)}]"
    raise BadRequest(message)


def resize_containers(spec: Object, changed: Object) -> None:
    """Take over amounts and resize policies of containers, by name, and nothing else; in place."""
    for listed in ("containers", "initContainers"):
        resized = {c.get("name"): c for c in changed.get(listed) or ()}
        for container in spec.get(listed) or ():
            other = resized.get(container.get("name"))
            if other is not None:
                container["resources"] = other.get("resources") or {}
                if "resizePolicy" in other:
                    container["resizePolicy"] = other["resizePolicy"]


def ephemeral_containers(kind: Kind, name: str, spec: Object, changed: Object) -> None:
    """Ephemeral containers may be added, never changed or removed; `spec` is changed in place."""
    before, after = spec.get("ephemeralContainers") or [], changed.get("ephemeralContainers") or []
    kept = {c.get("name"): c for c in after}
    for container in before:
        if kept.get(container.get("name")) != container:
            errors = [
                fields.forbidden(
                    "spec.ephemeralContainers",
                    f"existing ephemeral containers {fields.quote(container.get('name') or '')} may not be "
                    f"{'changed' if container.get('name') in kept else 'removed'}\n",
                )
            ]
            raise fields.invalid_object(kind.group, kind.name, name, errors)
    if after:
        spec["ephemeralContainers"] = after


def replicas_path(kind: Kind) -> tuple[str, ...]:
    """Where the number of replicas stands in a kind's objects."""
    if kind.custom is None or kind.custom.scale is None:
        return ("spec", "replicas")
    return names_in(kind.custom.scale.spec)


def names_in(path: str) -> tuple[str, ...]:
    """The field names of a scale path such as `.spec.replicas`."""
    return tuple(p for p in path.split(".") if p)


def value_at(obj: Object, path: Iterable[str]) -> Any:
    """What stands there; None if nothing does."""
    found: Any = obj
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def scale_of(parent: Object, kind: Kind) -> Object:
    """The Scale of a workload (SUB-3), or of a custom object by its definition's paths."""
    meta = parent["metadata"]
    custom = kind.custom.scale if kind.custom is not None else None
    if custom is None:
        spec, status = parent.get("spec") or {}, parent.get("status") or {}
        wanted, current = spec.get("replicas"), status.get("replicas")
        selector = str(label_selector_of(spec["selector"])) if spec.get("selector") else ""
    else:
        wanted, current = value_at(parent, names_in(custom.spec)), value_at(parent, names_in(custom.status))
        if wanted is None:
            raise InternalError(
                f"Internal error occurred: the spec replicas field {fields.quote(custom.spec)} does not exist"
            )
        found = value_at(parent, names_in(custom.selector)) if custom.selector else None
        selector = found if isinstance(found, str) else ""
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    scale: Object = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in kept if k in meta},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {"replicas": current or 0},
    }
    if selector:
        scale["status"]["selector"] = selector
    return scale


def scaled(parent: Object, scale: Object, name: str, kind: Kind) -> Object:
    """The parent with a Scale's replicas, in place; 422 for a negative number."""
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        errors = [fields.invalid("spec.replicas", replicas, "must be greater than or equal to 0")]
        raise fields.invalid_object("autoscaling", "Scale", name, errors)
    *above, last = replicas_path(kind)
    place = parent
    for step in above:
        place = place.setdefault(step, {})
    place[last] = replicas
    return parent


def owns(entry: Object, path: Iterable[str]) -> bool:
    """Whether an entry of managedFields owns a field."""
    return value_at(entry.get("fieldsV1") or {}, [f"f:{p}" for p in path]) is not None


def replica_owners(parent: Object, api_version: str, path: tuple[str, ...]) -> list[Object]:
    """managedFields of a Scale: the parent's owners of its number of replicas."""
    return [
        {**entry, "apiVersion": api_version, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for entry in parent["metadata"].get("managedFields") or ()
        if owns(entry, path)
    ]


def owner_key(entry: Object) -> tuple[str, str, str]:
    return entry.get("manager") or "", entry.get("operation") or "", entry.get("subresource") or ""


def give_replicas(parent: Object, owners: list[Object], api_version: str, path: tuple[str, ...]) -> list[Object]:
    """The parent's managedFields when its number of replicas belongs to exactly these owners of the Scale."""
    entries: list[Object] = msgspec.json.decode(msgspec.json.encode(parent["metadata"].get("managedFields") or []))
    wanted = {owner_key(o): o for o in owners}
    for entry in entries:
        if not owns(entry, path):
            continue
        if owner_key(entry) not in wanted:
            disown(entry["fieldsV1"], path)
        wanted.pop(owner_key(entry), None)
    entries = [e for e in entries if e.get("fieldsV1")]
    whole: Object = {}
    for step in reversed(path):
        whole = {f"f:{step}": whole}
    entries += [{**owner, "apiVersion": api_version, "fieldsV1": whole} for owner in wanted.values()]
    return sorted(entries, key=lambda e: (e.get("operation") != "Apply", e.get("time") or "", e.get("manager") or ""))


def disown(owned: Object, path: tuple[str, ...]) -> None:
    """Take a field out of a set, in place, with what is left empty above it."""
    key = f"f:{path[0]}"
    if len(path) > 1:
        disown(owned[key], path[1:])
    if len(path) == 1 or not owned[key]:
        del owned[key]
