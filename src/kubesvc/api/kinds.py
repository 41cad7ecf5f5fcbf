"""The registry: every kind that is stored and served, by constant, by resource and by name."""

from __future__ import annotations

from .certificatesigningrequest import CERTIFICATE_SIGNING_REQUEST
from .clusterrole import CLUSTER_ROLE
from .clusterrolebinding import CLUSTER_ROLE_BINDING
from .configmap import CONFIG_MAP
from .controllerrevision import CONTROLLER_REVISION
from .cronjob import CRON_JOB
from .csinode import CSI_NODE
from .customresourcedefinition import CUSTOM_RESOURCE_DEFINITION
from .daemonset import DAEMON_SET
from .deployment import DEPLOYMENT
from .endpoints import ENDPOINTS
from .endpointslice import ENDPOINT_SLICE
from .event import EVENT
from .eventsevent import EVENTS_EVENT
from .flowschema import FLOW_SCHEMA
from .horizontalpodautoscaler import HORIZONTAL_POD_AUTOSCALER, HORIZONTAL_POD_AUTOSCALER_V1
from .ingress import INGRESS
from .ingressclass import INGRESS_CLASS
from .ipaddress import IP_ADDRESS
from .job import JOB
from .kind import Kind
from .lease import LEASE
from .limitrange import LIMIT_RANGE
from .mutatingadmissionpolicy import MUTATING_ADMISSION_POLICY
from .mutatingadmissionpolicybinding import MUTATING_ADMISSION_POLICY_BINDING
from .mutatingwebhookconfiguration import MUTATING_WEBHOOK_CONFIGURATION
from .namespace import NAMESPACE
from .networkpolicy import NETWORK_POLICY
from .node import NODE
from .persistentvolume import PERSISTENT_VOLUME
from .persistentvolumeclaim import PERSISTENT_VOLUME_CLAIM
from .pod import POD
from .poddisruptionbudget import POD_DISRUPTION_BUDGET
from .podtemplate import POD_TEMPLATE
from .priorityclass import PRIORITY_CLASS
from .prioritylevelconfiguration import PRIORITY_LEVEL_CONFIGURATION
from .replicaset import REPLICA_SET
from .replicationcontroller import REPLICATION_CONTROLLER
from .resourcequota import RESOURCE_QUOTA
from .role import ROLE
from .rolebinding import ROLE_BINDING
from .runtimeclass import RUNTIME_CLASS
from .secret import SECRET
from .service import SERVICE
from .serviceaccount import SERVICE_ACCOUNT
from .servicecidr import SERVICE_CIDR
from .statefulset import STATEFUL_SET
from .storageclass import STORAGE_CLASS
from .validatingadmissionpolicy import VALIDATING_ADMISSION_POLICY
from .validatingadmissionpolicybinding import VALIDATING_ADMISSION_POLICY_BINDING
from .validatingwebhookconfiguration import VALIDATING_WEBHOOK_CONFIGURATION

__all__ = [
    "CERTIFICATE_SIGNING_REQUEST",
    "CLUSTER_ROLE",
    "CLUSTER_ROLE_BINDING",
    "CONFIG_MAP",
    "CONTROLLER_REVISION",
    "CRON_JOB",
    "CSI_NODE",
    "CUSTOM_RESOURCE_DEFINITION",
    "DAEMON_SET",
    "DEPLOYMENT",
    "ENDPOINTS",
    "ENDPOINT_SLICE",
    "EVENT",
    "EVENTS_EVENT",
    "FLOW_SCHEMA",
    "HORIZONTAL_POD_AUTOSCALER",
    "HORIZONTAL_POD_AUTOSCALER_V1",
    "INGRESS",
    "INGRESS_CLASS",
    "IP_ADDRESS",
    "JOB",
    "KINDS",
    "LEASE",
    "LIMIT_RANGE",
    "MUTATING_ADMISSION_POLICY",
    "MUTATING_ADMISSION_POLICY_BINDING",
    "MUTATING_WEBHOOK_CONFIGURATION",
    "NAMESPACE",
    "NETWORK_POLICY",
    "NODE",
    "PERSISTENT_VOLUME",
    "PERSISTENT_VOLUME_CLAIM",
    "POD",
    "POD_DISRUPTION_BUDGET",
    "POD_TEMPLATE",
    "PRIORITY_CLASS",
    "PRIORITY_LEVEL_CONFIGURATION",
    "REPLICATION_CONTROLLER",
    "REPLICA_SET",
    "RESOURCE_QUOTA",
    "ROLE",
    "ROLE_BINDING",
    "RUNTIME_CLASS",
    "SECRET",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "SERVICE_CIDR",
    "STATEFUL_SET",
    "STORAGE_CLASS",
    "VALIDATING_ADMISSION_POLICY",
    "VALIDATING_ADMISSION_POLICY_BINDING",
    "VALIDATING_WEBHOOK_CONFIGURATION",
    "by_kind",
    "by_resource",
]

KINDS: tuple[Kind, ...] = (
    CONFIG_MAP,
    ENDPOINTS,
    EVENT,
    LIMIT_RANGE,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_TEMPLATE,
    REPLICATION_CONTROLLER,
    RESOURCE_QUOTA,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    CONTROLLER_REVISION,
    DAEMON_SET,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    EVENTS_EVENT,
    HORIZONTAL_POD_AUTOSCALER_V1,
    HORIZONTAL_POD_AUTOSCALER,
    CRON_JOB,
    JOB,
    CERTIFICATE_SIGNING_REQUEST,
    INGRESS,
    INGRESS_CLASS,
    IP_ADDRESS,
    NETWORK_POLICY,
    SERVICE_CIDR,
    POD_DISRUPTION_BUDGET,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    CSI_NODE,
    STORAGE_CLASS,
    MUTATING_ADMISSION_POLICY,
    MUTATING_ADMISSION_POLICY_BINDING,
    MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_ADMISSION_POLICY,
    VALIDATING_ADMISSION_POLICY_BINDING,
    VALIDATING_WEBHOOK_CONFIGURATION,
    CUSTOM_RESOURCE_DEFINITION,
    PRIORITY_CLASS,
    RUNTIME_CLASS,
    FLOW_SCHEMA,
    PRIORITY_LEVEL_CONFIGURATION,
    LEASE,
    ENDPOINT_SLICE,
)
"""Every kind, by group. A view of another kind in the same group comes before it, so that whoever looks at places in
the store finds the stored kind last."""

BY_RESOURCE = {(k.group, k.version, k.plural): k for k in KINDS}
BY_KIND = {(k.api_version, k.name): k for k in KINDS}


def by_resource(group: str, version: str, plural: str) -> Kind | None:
    """The kind at `/apis/<group>/<version>/<plural>`; the core group is ""."""
    return BY_RESOURCE.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Kind | None:
    """The kind that an object's own words name, such as ("apps/v1", "Deployment")."""
    return BY_KIND.get((api_version, kind))
