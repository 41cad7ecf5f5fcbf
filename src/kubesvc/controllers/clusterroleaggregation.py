"""Keeps the rules of ClusterRoles that gather those of others by label, such as `admin`, `edit` and `view`."""

from __future__ import annotations

from kubesvc.api.clusterrole import CLUSTER_ROLE, ClusterRole, aggregated_rules
from kubesvc.api.meta import Object, plain
from kubesvc.client.workqueue import Key

from .runner import Controller, ControllerContext, key_of


class ClusterRoleAggregationController(Controller):
    """Keys are ClusterRoles. A change of any role may change every gathering one, of which there are few."""

    name = "clusterrole-aggregation-controller"
    component = "clusterrole-aggregation-controller"

    def __init__(self, ctx: ControllerContext) -> None:
        super().__init__(ctx)
        self.roles = ctx.informers.of(CLUSTER_ROLE)
        self.roles.on_change(self.role_moved)

    def role_moved(self, _: ClusterRole | None, __: ClusterRole | None) -> None:
        for role in self.roles.values():
            if role.aggregation_rule is not None:
                self.queue.add(key_of(role))

    async def reconcile(self, key: Key) -> None:
        role = self.roles.get(key)
        if role is None or role.metadata.deletion_timestamp:
            return
        wanted = aggregated_rules(role, self.roles.values())
        if wanted is None or wanted == (role.rules or []):
            return
        patch: Object = {
            "apiVersion": CLUSTER_ROLE.api_version,
            "kind": CLUSTER_ROLE.name,
            "metadata": {"name": role.name},
            "rules": [plain(rule) for rule in wanted],
        }
        await self.client.patch(CLUSTER_ROLE, role.name, "", patch, type="apply", force=True)
