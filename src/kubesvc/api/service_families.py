"""Which address families a Service gets, from what was asked, what it had, and what the cluster offers (FAM)."""

from __future__ import annotations

from collections.abc import Sequence

from . import addresses, fields
from .fields import Errors, Path
from .meta import Object
from .service_update import headless
from .service_validation import cluster_ips_errors

SPEC = Path("spec")
POLICY = SPEC / "ipFamilyPolicy"
DUAL_POLICIES = ("PreferDualStack", "RequireDualStack")


def settle_families(spec: Object, before: Object | None, cluster: Sequence[str]) -> Errors:
    """Fill in ipFamilyPolicy and ipFamilies, and cut the secondary address that is to be released; in place.

    spec:    the new spec, after `service_update.prepare_*`; changed only in these fields
    before:  the stored spec, None on create
    cluster: the families of the cluster's service ranges, the primary first

    Returns what makes the wish impossible; `spec` is then of no further use.
    """
    if spec.get("type") == "ExternalName":
        return []
    if before is not None and before.get("type") == "ExternalName":
        before = None  # as if it were new
    if before is not None:
        if unchanged_preference(spec, before):
            return []
        if spec.get("ipFamilyPolicy") is None:
            set_policy(spec, before.get("ipFamilyPolicy"))
        if spec.get("ipFamilyPolicy") == "SingleStack":
            cut_secondary(spec, before)
    if errors := cluster_ips_errors(spec, (before or {}).get("clusterIPs") or ()):
        return errors
    selectorless = headless(spec) and not spec.get("selector")
    if spec.get("ipFamilyPolicy") is None:
        set_policy(spec, "RequireDualStack" if selectorless else "SingleStack")
    if errors := policy_errors(spec, before) + infer_families(spec, cluster):
        return errors
    if selectorless:
        settle_selectorless(spec, cluster)
        return []
    if errors := cluster_errors(spec, cluster):
        return errors
    families = spec.get("ipFamilies") or [cluster[0]]
    if spec["ipFamilyPolicy"] in DUAL_POLICIES and len(cluster) > 1 and len(families) == 1:
        families = [families[0], other(families[0])]
    spec["ipFamilies"] = families
    return []


def other(family: str) -> str:
    return "IPv6" if family == "IPv4" else "IPv4"


def set_policy(spec: Object, policy: str | None) -> None:
    if policy is None:
        spec.pop("ipFamilyPolicy", None)
    else:
        spec["ipFamilyPolicy"] = policy


def unchanged_preference(spec: Object, before: Object) -> bool:
    """Whether a PreferDualStack Service is left alone, and so keeps its one or two addresses (FAM-14).

    Policy and families must be in the request; leaving them out means having them worked out anew.
    """
    return (
        before.get("ipFamilyPolicy") == spec.get("ipFamilyPolicy") == "PreferDualStack"
        and spec.get("type") == before.get("type")
        and (spec.get("clusterIPs") or []) == (before.get("clusterIPs") or [])
        and (spec.get("ipFamilies") or []) == (before.get("ipFamilies") or [])
    )


def cut_secondary(spec: Object, before: Object) -> None:
    """SingleStack with the lists as they were means: release the secondary (FAM-13)."""
    for name in ("clusterIPs", "ipFamilies"):
        listed = spec.get(name) or []
        if len(listed) > 1 and listed == before.get(name):
            spec[name] = listed[:1]


def policy_errors(spec: Object, before: Object | None) -> Errors:
    """Lists of two need a dual policy, and a shortened list the single one (FAM-8, FAM-13)."""
    policy, errors = spec["ipFamilyPolicy"], Errors()
    lists = (("clusterIPs", "cluster IP", "cluster IPs"), ("ipFamilies", "IP family", "IP families"))
    for name, one, many in lists:
        listed, was = spec.get(name) or [], (before or {}).get(name) or []
        if policy == "SingleStack" and len(listed) > 1:
            text = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {many} are specified"
            errors.append(fields.invalid(POLICY, policy, text))
        if policy != "SingleStack" and 0 < len(listed) < len(was):
            errors.append(fields.invalid(POLICY, policy, f"must be 'SingleStack' to release the secondary {one}"))
    return errors


def infer_families(spec: Object, cluster: Sequence[str]) -> Errors:
    """Families that were not given follow from the addresses that were (FAM-6, FAM-9)."""
    if headless(spec):
        return []
    families: list[str] = list(spec.get("ipFamilies") or ())
    listed = spec.get("clusterIPs") or []
    errors: Errors = []
    for i, address in enumerate(listed[len(families) :], start=len(families)):
        family = addresses.family_of(address) or ""
        if family in cluster:
            families.append(family)
        else:
            errors.append(
                fields.invalid(SPEC / "clusterIPs" @ i, listed, f"{family} is not configured on this cluster")
            )
    if families:
        spec["ipFamilies"] = families
    return errors


def settle_selectorless(spec: Object, cluster: Sequence[str]) -> None:
    """Headless without a selector: both families, whatever the cluster has, unless SingleStack was asked (FAM-5)."""
    families = spec.get("ipFamilies") or [cluster[0]]
    if spec["ipFamilyPolicy"] != "SingleStack" and len(families) == 1:
        families = [families[0], other(families[0])]
    spec["ipFamilies"] = families


def cluster_errors(spec: Object, cluster: Sequence[str]) -> Errors:
    """FAM-7, FAM-9."""
    errors: Errors = []
    if spec["ipFamilyPolicy"] == "RequireDualStack" and len(cluster) < 2:
        errors.append(
            fields.invalid(POLICY, "RequireDualStack", "this cluster is not configured for dual-stack services")
        )
    for i, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in cluster:
            errors.append(fields.invalid(SPEC / "ipFamilies" @ i, family, "not configured on this cluster"))
    return errors
