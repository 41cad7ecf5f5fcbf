"""Make `src/kubesvc/api/schemas.bin`: the fields of every kind we serve, from the definitions of kubernetes-validate.

    python tools/make_schemas.py [OUTPUT]

The table is built, never committed: it carries descriptions that are not ours. Its form is the one that
`kubesvc.api.schema` reads: an 8 byte magic, three little-endian lengths, then three zlib-compressed msgpack values:
the index of kinds, the definitions (each a msgpack value of its own, decoded only when somebody asks for it), and the
descriptions, which only explaining and OpenAPI ever load.
"""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

MAGIC = b"KSVCSCH1"
RELEASE = "v1.36.0-local"
OUTPUT = Path(__file__).parents[1] / "src" / "kubesvc" / "api" / "schemas.bin"

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
GROUPS = (
    "io.k8s.api.core.v1.",
    "io.k8s.api.apps.v1.",
    "io.k8s.api.batch.v1.",
    "io.k8s.api.discovery.v1.",
    "io.k8s.api.networking.v1.",
    "io.k8s.api.autoscaling.v1.",
    "io.k8s.api.autoscaling.v2.",
    "io.k8s.api.authentication.v1.",
    "io.k8s.api.authorization.v1.",
    "io.k8s.api.certificates.v1.",
    "io.k8s.api.coordination.v1.",
    "io.k8s.api.events.v1.",
    "io.k8s.api.flowcontrol.v1.",
    "io.k8s.api.node.v1.",
    "io.k8s.api.policy.v1.",
    "io.k8s.api.rbac.v1.",
    "io.k8s.api.resource.v1.",
    "io.k8s.api.scheduling.v1.",
    "io.k8s.api.storage.v1.",
    "io.k8s.api.admissionregistration.v1.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.",
    "io.k8s.apimachinery.pkg.version.",
    META,
)

SCALARS = {
    META + "Time": ("string", "date-time"),
    META + "MicroTime": ("string", "micro-time"),
    META + "Duration": ("string", "duration"),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ("string", "int-or-string"),
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ("string", "quantity"),
}
"""Definitions that are one value with a syntax of its own: (type, format)."""

TIMES = ("date-time", "micro-time", "duration", "quantity", "byte")
BODY = ("apiVersion", "kind")

FREE = {
    META + "FieldsV1",
    META + "Patch",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresourceStatus",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
}
"""Definitions whose content nobody prescribes."""

CORE = "io.k8s.api.core.v1."
OVERRIDES: dict[tuple[str, str], dict[str, Any]] = {
    # Defaults that take part in merge keys: apply needs them where the client leaves them out (3.3).
    (CORE + "ServicePort", "protocol"): {"default": "TCP"},
    (CORE + "ContainerPort", "protocol"): {"default": "TCP"},
    # As 1.36 answers: these lists of a Service are replaced whole by apply.
    (CORE + "ServiceSpec", "loadBalancerSourceRanges"): {"list_type": "atomic"},
}
"""Where the recordings of 1.36 show something else than the definitions say: (definition, field) to what is so."""

NEWER: dict[str, tuple[str, ...]] = {}
"""Fields of the definitions that the served release does not know: definition to names."""

GO_TYPES: dict[str, dict[str, str]] = {
    CORE + "ServiceSpec": {
        "type": "v1.ServiceType",
        "sessionAffinity": "v1.ServiceAffinity",
        "externalTrafficPolicy": "v1.ServiceExternalTrafficPolicy",
        "internalTrafficPolicy": "v1.ServiceInternalTrafficPolicy",
        "ipFamilyPolicy": "v1.IPFamilyPolicy",
        "ipFamilies": "[]v1.IPFamily",
    },
    CORE + "ServicePort": {"protocol": "v1.Protocol"},
    CORE + "EndpointPort": {"protocol": "v1.Protocol"},
    CORE + "ContainerPort": {"protocol": "v1.Protocol"},
    CORE + "PortStatus": {"protocol": "v1.Protocol"},
    CORE + "LoadBalancerIngress": {"ipMode": "v1.LoadBalancerIPMode"},
    CORE + "PodSpec": {
        "restartPolicy": "v1.RestartPolicy",
        "dnsPolicy": "v1.DNSPolicy",
        "preemptionPolicy": "v1.PreemptionPolicy",
        "overhead": "v1.ResourceList",
    },
    CORE + "Container": {
        "imagePullPolicy": "v1.PullPolicy",
        "restartPolicy": "v1.ContainerRestartPolicy",
        "terminationMessagePolicy": "v1.TerminationMessagePolicy",
    },
    CORE + "PodStatus": {"phase": "v1.PodPhase", "qosClass": "v1.PodQOSClass"},
    CORE + "PodCondition": {"type": "v1.PodConditionType", "status": "v1.ConditionStatus"},
    CORE + "NodeCondition": {"type": "v1.NodeConditionType", "status": "v1.ConditionStatus"},
    CORE + "NodeAddress": {"type": "v1.NodeAddressType"},
    CORE + "NodeStatus": {"phase": "v1.NodePhase", "capacity": "v1.ResourceList", "allocatable": "v1.ResourceList"},
    CORE + "NamespaceSpec": {"finalizers": "[]v1.FinalizerName"},
    CORE + "NamespaceStatus": {"phase": "v1.NamespacePhase"},
    CORE + "NamespaceCondition": {"type": "v1.NamespaceConditionType", "status": "v1.ConditionStatus"},
    CORE + "ResourceRequirements": {"limits": "v1.ResourceList", "requests": "v1.ResourceList"},
    CORE + "Secret": {"type": "v1.SecretType"},
    CORE + "Taint": {"effect": "v1.TaintEffect"},
    CORE + "Toleration": {
        "effect": "v1.TaintEffect",
        "operator": "v1.TolerationOperator",
    },
    CORE + "HTTPGetAction": {"scheme": "v1.URIScheme"},
    "io.k8s.api.apps.v1.DeploymentStrategy": {"type": "v1.DeploymentStrategyType"},
    "io.k8s.api.apps.v1.DeploymentCondition": {"type": "v1.DeploymentConditionType", "status": "v1.ConditionStatus"},
    "io.k8s.api.discovery.v1.EndpointSlice": {"addressType": "v1.AddressType"},
    "io.k8s.api.discovery.v1.EndpointPort": {"protocol": "v1.Protocol"},
    META + "ObjectMeta": {"uid": "types.UID"},
    META + "OwnerReference": {"uid": "types.UID"},
    META + "Condition": {"status": "v1.ConditionStatus"},
    META + "LabelSelectorRequirement": {"operator": "v1.LabelSelectorOperator"},
    META + "ManagedFieldsEntry": {"operation": "v1.ManagedFieldsOperationType"},
}
"""What Go calls the type of a field that is a named string, for the words of OPT-4."""


PROTOCOLS = {
    "SCTP": "is the SCTP protocol.",
    "TCP": "is the TCP protocol.",
    "UDP": "is the UDP protocol.",
}
FAMILIES = {
    "FQDN": "represents a FQDN.",
    "IPv4": "represents an IPv4 Address.",
    "IPv6": "represents an IPv6 Address.",
}
POLICIES = dict.fromkeys(("Cluster", "Local"), "")
EFFECTS = dict.fromkeys(("NoExecute", "NoSchedule", "PreferNoSchedule"), "")
ENUMS: dict[str, dict[str, dict[str, str]]] = {
    CORE + "ServicePort": {"protocol": PROTOCOLS},
    CORE + "ContainerPort": {"protocol": PROTOCOLS},
    CORE + "EndpointPort": {"protocol": PROTOCOLS},
    CORE + "PortStatus": {"protocol": PROTOCOLS},
    "io.k8s.api.discovery.v1.EndpointPort": {"protocol": PROTOCOLS},
    "io.k8s.api.networking.v1.NetworkPolicyPort": {"protocol": PROTOCOLS},
    "io.k8s.api.networking.v1.IngressPortStatus": {"protocol": PROTOCOLS},
    "io.k8s.api.discovery.v1.EndpointSlice": {"addressType": FAMILIES},
    CORE + "ServiceSpec": {
        "type": dict.fromkeys(("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"), ""),
        "sessionAffinity": dict.fromkeys(("ClientIP", "None"), ""),
        "externalTrafficPolicy": POLICIES,
        "internalTrafficPolicy": POLICIES,
        "ipFamilyPolicy": dict.fromkeys(("PreferDualStack", "RequireDualStack", "SingleStack"), ""),
    },
    CORE + "PodSpec": {
        "restartPolicy": dict.fromkeys(("Always", "Never", "OnFailure"), ""),
        "dnsPolicy": dict.fromkeys(("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"), ""),
        "preemptionPolicy": dict.fromkeys(("Never", "PreemptLowerPriority"), ""),
    },
    CORE + "PodStatus": {
        "phase": dict.fromkeys(("Failed", "Pending", "Running", "Succeeded", "Unknown"), ""),
        "qosClass": dict.fromkeys(("BestEffort", "Burstable", "Guaranteed"), ""),
    },
    CORE + "Container": {
        "imagePullPolicy": dict.fromkeys(("Always", "IfNotPresent", "Never"), ""),
        "terminationMessagePolicy": dict.fromkeys(("FallbackToLogsOnError", "File"), ""),
    },
    CORE + "HTTPGetAction": {"scheme": dict.fromkeys(("HTTP", "HTTPS"), "")},
    CORE + "NamespaceStatus": {"phase": dict.fromkeys(("Active", "Terminating"), "")},
    CORE + "Taint": {"effect": EFFECTS},
    CORE + "Toleration": {"effect": EFFECTS},
    CORE + "TopologySpreadConstraint": {
        "whenUnsatisfiable": dict.fromkeys(("DoNotSchedule", "ScheduleAnyway"), ""),
    },
    "io.k8s.api.apps.v1.DeploymentStrategy": {"type": dict.fromkeys(("Recreate", "RollingUpdate"), "")},
}
"""Values of fields that have a closed list of them: definition and field to value and what is said of it."""


def possible(values: dict[str, str]) -> str:
    """What the description of such a field ends with."""
    lines = [f' - `"{value}"`' + (f" {text}" if text else "") for value, text in values.items()]
    return "\n\nPossible enum values:\n" + "\n".join(lines)


CORE_LIKE = (
    "io.k8s.api.core.v1.",
    "io.k8s.api.apps.v1.",
    "io.k8s.api.batch.v1.",
    "io.k8s.api.discovery.v1.",
    "io.k8s.api.networking.v1.",
    "io.k8s.api.autoscaling.v1.",
    "io.k8s.api.authentication.v1.",
    "io.k8s.api.authorization.v1.",
    "io.k8s.api.coordination.v1.",
    "io.k8s.api.events.v1.",
    "io.k8s.api.policy.v1.",
    "io.k8s.api.rbac.v1.",
    "io.k8s.api.scheduling.v1.",
    "io.k8s.api.storage.v1.",
    META,
)
"""Groups for which POINTERS is complete: of every other optional scalar there, zero means absent."""

POINTERS: dict[str, str] = {
    "DaemonSetSpec": "revisionHistoryLimit",
    "DaemonSetStatus": "collisionCount",
    "DeploymentSpec": "progressDeadlineSeconds replicas revisionHistoryLimit",
    "DeploymentStatus": "collisionCount terminatingReplicas",
    "ReplicaSetSpec": "replicas",
    "ReplicaSetStatus": "terminatingReplicas",
    "RollingUpdateDaemonSet": "maxSurge maxUnavailable",
    "RollingUpdateDeployment": "maxSurge maxUnavailable",
    "RollingUpdateStatefulSetStrategy": "maxUnavailable partition",
    "StatefulSetOrdinals": "start",
    "StatefulSetSpec": "replicas revisionHistoryLimit serviceName",
    "StatefulSetStatus": "availableReplicas collisionCount",
    "TokenRequestSpec": "expirationSeconds",
    "TokenRequestStatus": "token",
    "HorizontalPodAutoscalerSpec": "minReplicas targetCPUUtilizationPercentage",
    "HorizontalPodAutoscalerStatus": "currentCPUUtilizationPercentage observedGeneration",
    "CronJobSpec": "failedJobsHistoryLimit startingDeadlineSeconds successfulJobsHistoryLimit suspend timeZone",
    "JobSpec": "activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions managedBy"
    " manualSelector maxFailedIndexes parallelism podReplacementPolicy suspend ttlSecondsAfterFinished",
    "JobStatus": "failedIndexes ready terminating",
    "PodFailurePolicyOnExitCodesRequirement": "containerName",
    "PodFailurePolicyOnPodConditionsPattern": "status",
    "SuccessPolicyRule": "succeededCount succeededIndexes",
    "LeaseSpec": "holderIdentity leaseDurationSeconds leaseTransitions preferredHolder strategy",
    "AppArmorProfile": "localhostProfile",
    "AzureDiskVolumeSource": "cachingMode fsType kind readOnly",
    "AzureFilePersistentVolumeSource": "secretNamespace",
    "CSIVolumeSource": "fsType readOnly",
    "ClientIPConfig": "timeoutSeconds",
    "ClusterTrustBundleProjection": "name optional signerName",
    "ConfigMap": "immutable",
    "ConfigMapEnvSource": "optional",
    "ConfigMapKeySelector": "optional",
    "ConfigMapProjection": "optional",
    "ConfigMapVolumeSource": "defaultMode optional",
    "Container": "restartPolicy",
    "ContainerStatus": "started stopSignal",
    "DownwardAPIVolumeFile": "mode",
    "DownwardAPIVolumeSource": "defaultMode",
    "EndpointAddress": "nodeName",
    "EndpointPort": "appProtocol",
    "EphemeralContainer": "restartPolicy",
    "FCVolumeSource": "lun",
    "FileKeySelector": "optional",
    "GRPCAction": "service",
    "GlusterfsPersistentVolumeSource": "endpointsNamespace",
    "HostPathVolumeSource": "type",
    "ISCSIPersistentVolumeSource": "initiatorName",
    "ISCSIVolumeSource": "initiatorName",
    "KeyToPath": "mode",
    "Lifecycle": "stopSignal",
    "LoadBalancerIngress": "ipMode",
    "LocalVolumeSource": "fsType",
    "NodeFeatures": "supplementalGroupsPolicy",
    "NodeRuntimeHandler": "name",
    "NodeRuntimeHandlerFeatures": "recursiveReadOnlyMounts userNamespaces",
    "NodeSwapStatus": "capacity",
    "PersistentVolumeClaimSpec": "storageClassName volumeAttributesClassName volumeMode",
    "PersistentVolumeClaimStatus": "currentVolumeAttributesClassName",
    "PersistentVolumeSpec": "volumeAttributesClassName volumeMode",
    "PodCertificateProjection": "maxExpirationSeconds",
    "core.v1.Event": "reportingComponent reportingInstance",
    "PodDNSConfigOption": "value",
    "PodDisruptionBudgetSpec": "maxUnavailable minAvailable unhealthyPodEvictionPolicy",
    "PodDisruptionBudgetStatus": "currentHealthy desiredHealthy disruptionsAllowed expectedPods",
    "PodResourceClaim": "resourceClaimName resourceClaimTemplateName",
    "PodResourceClaimStatus": "resourceClaimName",
    "PodSchedulingGroup": "podGroupName",
    "PodSecurityContext": "fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser seLinuxChangePolicy"
    " supplementalGroupsPolicy",
    "PodSpec": "activeDeadlineSeconds automountServiceAccountToken enableServiceLinks hostUsers hostnameOverride"
    " preemptionPolicy priority runtimeClassName setHostnameAsFQDN shareProcessNamespace"
    " terminationGracePeriodSeconds",
    "PortStatus": "error",
    "Probe": "terminationGracePeriodSeconds",
    "ProjectedVolumeSource": "defaultMode",
    "ReplicationControllerSpec": "replicas",
    "ResourceHealth": "message",
    "SeccompProfile": "localhostProfile",
    "Secret": "immutable",
    "SecretEnvSource": "optional",
    "SecretKeySelector": "optional",
    "SecretProjection": "optional",
    "SecretVolumeSource": "defaultMode optional",
    "SecurityContext": "allowPrivilegeEscalation privileged procMount readOnlyRootFilesystem runAsGroup"
    " runAsNonRoot runAsUser",
    "ServiceAccount": "automountServiceAccountToken",
    "ServiceAccountTokenProjection": "expirationSeconds",
    "ServicePort": "appProtocol targetPort",
    "ServiceSpec": "allocateLoadBalancerNodePorts internalTrafficPolicy ipFamilyPolicy loadBalancerClass"
    " trafficDistribution",
    "Toleration": "tolerationSeconds",
    "TopologySpreadConstraint": "minDomains nodeAffinityPolicy nodeTaintsPolicy",
    "TypedLocalObjectReference": "apiGroup",
    "TypedObjectReference": "apiGroup namespace",
    "VolumeMount": "mountPropagation recursiveReadOnly",
    "VolumeMountStatus": "recursiveReadOnly",
    "WindowsSecurityContextOptions": "gmsaCredentialSpec gmsaCredentialSpecName hostProcess runAsUserName",
    "Endpoint": "hostname nodeName zone",
    "EndpointConditions": "ready serving terminating",
    "discovery.v1.EndpointPort": "appProtocol name port protocol",
    "IngressClassParametersReference": "apiGroup namespace scope",
    "IngressPortStatus": "error",
    "IngressSpec": "ingressClassName",
    "NetworkPolicyPort": "endPort port protocol",
    "RoleRef": "apiGroup",
    "PriorityClass": "preemptionPolicy value",
    "CSIDriverSpec": "attachRequired fsGroupPolicy nodeAllocatableUpdatePeriodSeconds podInfoOnMount"
    " preventPodSchedulingIfMissing requiresRepublish seLinuxMount serviceAccountTokenInSecrets storageCapacity",
    "StorageClass": "allowVolumeExpansion reclaimPolicy volumeBindingMode",
    "TokenRequest": "expirationSeconds",
    "VolumeAttachmentSource": "persistentVolumeName",
    "VolumeError": "errorCode",
    "VolumeNodeResources": "count",
    "DeleteOptions": "gracePeriodSeconds ignoreStoreReadErrorWithClusterBreakingPotential orphanDependents"
    " propagationPolicy",
    "ListMeta": "remainingItemCount",
    "ObjectMeta": "deletionGracePeriodSeconds",
    "OwnerReference": "blockOwnerDeletion controller",
    "Preconditions": "resourceVersion uid",
}
"""Optional scalars whose zero value is kept apart from absence: short (or longer) definition name to fields."""

VALUES: dict[str, str] = {
    "DaemonSetSpec": "template updateStrategy",
    "DeploymentSpec": "strategy template",
    "ReplicaSetSpec": "template",
    "StatefulSetSpec": "template updateStrategy",
    "SelfSubjectReviewStatus": "userInfo",
    "TokenReviewStatus": "user",
    "HorizontalPodAutoscalerSpec": "scaleTargetRef",
    "ContainerResourceMetricSource": "target",
    "ContainerResourceMetricStatus": "current",
    "ExternalMetricSource": "metric target",
    "ExternalMetricStatus": "current metric",
    "ObjectMetricSource": "describedObject metric target",
    "ObjectMetricStatus": "current describedObject metric",
    "PodsMetricSource": "metric target",
    "PodsMetricStatus": "current metric",
    "ResourceMetricSource": "target",
    "ResourceMetricStatus": "current",
    "CronJobSpec": "jobTemplate",
    "JobSpec": "template",
    "JobTemplateSpec": "metadata spec",
    "PodTemplateSpec": "metadata spec",
    "PersistentVolumeClaimTemplate": "metadata spec",
    "Binding": "target",
    "Container": "resources",
    "EphemeralContainer": "resources",
    "ContainerStatus": "lastState state",
    "core.v1.Event": "involvedObject source",
    "events.v1.Event": "deprecatedSource regarding",
    "NodeDaemonEndpoints": "kubeletEndpoint",
    "NodeStatus": "daemonEndpoints nodeInfo",
    "PersistentVolumeClaimSpec": "resources",
    "PodTemplate": "template",
    "PreferredSchedulingTerm": "preference",
    "ServiceStatus": "loadBalancer",
    "WeightedPodAffinityTerm": "podAffinityTerm",
    "Endpoint": "conditions",
    "HTTPIngressPath": "backend",
    "IngressServiceBackend": "port",
    "IngressStatus": "loadBalancer",
    "NetworkPolicySpec": "podSelector",
    "RoleBinding": "roleRef",
    "ClusterRoleBinding": "roleRef",
    "VolumeAttachmentSpec": "source",
    "MutatingWebhook": "clientConfig",
    "ValidatingWebhook": "clientConfig",
    "CustomResourceDefinitionSpec": "names",
    "CustomResourceDefinitionStatus": "acceptedNames",
}
"""Structs held by value, which exist (empty) in every object that holds them; metadata, spec and status besides."""


def listed(table: dict[str, str], name: str) -> list[str]:
    """The entry of a table keyed by the end of definition names; a longer key goes first."""
    short = name.rsplit(".", 1)[1]
    longer = ".".join(name.rsplit(".", 3)[1:])
    return table.get(longer, table.get(short, "")).split()


def source() -> dict[str, Any]:
    """The definitions of the installed kubernetes-validate, by name."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise SystemExit("kubernetes-validate is not installed: it carries the definitions the table is made from")
    file = Path(spec.origin).parent / "kubernetes-json-schema" / RELEASE / "_definitions.json"
    found: dict[str, Any] = json.loads(file.read_bytes())["$defs"]
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rsplit("/", 1)[1]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def wanted(definitions: dict[str, Any]) -> list[str]:
    """The definitions of the groups we serve and all they refer to, sorted."""
    seen: set[str] = set()
    todo = [n for n in definitions if any(n.startswith(g) and "." not in n[len(g) :] for g in GROUPS)]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += references(definitions[name])
    return sorted(seen)


def plain_type(node: dict[str, Any]) -> str:
    """Its JSON type without the null that every field admits."""
    found = node.get("type", "")
    return str(next(t for t in found if t != "null") if isinstance(found, list) else found)


def field_of(node: dict[str, Any]) -> dict[str, Any]:
    """One field, items or values schema in the table's form (the attributes of `kubesvc.api.schema.Field`)."""
    out: dict[str, Any] = {}
    if "$ref" in node:
        ref = node["$ref"].rsplit("/", 1)[1]
        out["ref"] = ref
        if ref in SCALARS:
            out["type"], out["format"] = SCALARS[ref]
        else:
            out["type"] = "any" if ref in FREE else "object"
    else:
        kind = plain_type(node)
        if kind == "object":
            kind = "map" if "additionalProperties" in node else "any"
        out["type"] = kind or "any"
        if "format" in node:
            out["format"] = node["format"]
        inner = node.get("items") or node.get("additionalProperties")
        if kind == "array" or (kind == "map" and isinstance(inner, dict)):
            out["items"] = field_of(inner or {})
        elif kind == "map":
            out["items"] = {"type": "any"}
    for source_name, name in (
        ("x-kubernetes-list-type", "list_type"),
        ("x-kubernetes-list-map-keys", "list_map_keys"),
        ("x-kubernetes-map-type", "map_type"),
        ("x-kubernetes-patch-merge-key", "patch_merge_key"),
    ):
        if source_name in node:
            out[name] = node[source_name]
    if "x-kubernetes-patch-strategy" in node:
        out["patch_strategy"] = node["x-kubernetes-patch-strategy"].split(",")
    return out


def definition_of(name: str, node: dict[str, Any]) -> dict[str, Any]:
    """One definition in the table's form (the attributes of `kubesvc.api.schema.Definition`)."""
    out: dict[str, Any] = {"name": name}
    if name in SCALARS:
        out["type"], out["format"] = SCALARS[name]
        return out
    out["type"] = "any" if name in FREE else "object"
    required, kinds = node.get("required", ()), node.get("x-kubernetes-group-version-kind")
    pointers, values = listed(POINTERS, name), listed(VALUES, name)
    reviewed = name.startswith(CORE_LIKE)
    fields = {}
    for key, value in (node.get("properties") or {}).items():
        if key in NEWER.get(name, ()):
            continue
        entry = field_of(value) | OVERRIDES.get((name, key), {})
        scalar = entry["type"] in ("string", "integer", "number", "boolean") and entry.get("format") not in TIMES
        if scalar and key not in required and reviewed and key not in pointers and not (kinds and key in BODY):
            entry["zero_absent"] = True
        if entry["type"] == "object" and (key in values or (kinds and key in ("metadata", "spec", "status"))):
            entry["value"] = True
        if values_of := ENUMS.get(name, {}).get(key):
            entry["enum"] = list(values_of)
        if go := GO_TYPES.get(name, {}).get(key):
            entry["go"] = go
        fields[key] = entry
    if fields:
        out["fields"] = fields
    if node.get("required"):
        out["required"] = node["required"]
    if kinds:
        out["kinds"] = [[k["group"], k["version"], k["kind"]] for k in kinds]
    if "x-kubernetes-map-type" in node:
        out["map_type"] = node["x-kubernetes-map-type"]
    if "x-kubernetes-unions" in node:
        out["unions"] = node["x-kubernetes-unions"]
    return out


def tidy(text: str) -> str:
    return re.sub(r"[ \t]+\n", "\n", text)


def descriptions_of(name: str, node: dict[str, Any]) -> tuple[str, dict[str, str]]:
    fields = {k: tidy(v["description"]) for k, v in (node.get("properties") or {}).items() if v.get("description")}
    for key, values in ENUMS.get(name, {}).items():
        fields[key] = fields.get(key, "") + possible(values)
    return tidy(node.get("description", "")), fields


def build() -> bytes:
    """The whole table, as the file's bytes; the same input gives the same bytes."""
    definitions = source()
    names = wanted(definitions)
    encode = msgspec.msgpack.Encoder().encode
    table = {name: definition_of(name, definitions[name]) for name in names}
    index = {
        "/".join(k): name for name in names for k in table[name].get("kinds", ()) if len(table[name]["kinds"]) == 1
    }
    parts = [
        encode(index),
        encode({name: encode(entry) for name, entry in table.items()}),
        encode({name: encode(descriptions_of(name, definitions[name])) for name in names}),
    ]
    packed = [zlib.compress(part, 9) for part in parts]
    return MAGIC + struct.pack("<3I", *map(len, packed)) + b"".join(packed)


def write(output: Path = OUTPUT) -> Path:
    """Write the table whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_suffix(".part")
    draft.write_bytes(build())
    draft.replace(output)
    return output


if __name__ == "__main__":
    written = write(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
    sys.stdout.write(f"{written}: {written.stat().st_size} bytes\n")
