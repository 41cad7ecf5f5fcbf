"""A pod's spec as Go's own types print it: capitalised names, every field, nulls for what is unset.

The API shows this form in one place, the difference that ends the refusal of a pod update (POD-5). The tables below
hold the order of the fields and what an unset one prints: `?` null, `""`, `0` or `f` (false); `:T` a struct, `:?T` a
pointer to one, `:[T]` a list of them.
"""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from typing import Any, NamedTuple

from .meta import Object

TYPES = {
    "PodSpec": "Volumes:[Volume] InitContainers:[Container] Containers:[Container] EphemeralContainers:[Container] "
    'RestartPolicy"" TerminationGracePeriodSeconds? ActiveDeadlineSeconds? DNSPolicy"" NodeSelector? '
    'ServiceAccountName"" AutomountServiceAccountToken? NodeName"" SecurityContext:?PodSecurityContext '
    'ImagePullSecrets:[Name] Hostname"" Subdomain"" SetHostnameAsFQDN? Affinity? SchedulerName"" '
    'Tolerations:[Toleration] HostAliases? PriorityClassName"" Priority? PreemptionPolicy? DNSConfig? ReadinessGates? '
    "RuntimeClassName? Overhead? EnableServiceLinks? TopologySpreadConstraints? OS? SchedulingGates:[Name] "
    "ResourceClaims? Resources? HostnameOverride?",
    "PodSecurityContext": "HostNetworkf HostPIDf HostIPCf ShareProcessNamespace? HostUsers? SELinuxOptions? "
    "WindowsOptions? RunAsUser? RunAsGroup? RunAsNonRoot? SupplementalGroups? SupplementalGroupsPolicy? FSGroup? "
    "FSGroupChangePolicy? Sysctls? SeccompProfile? AppArmorProfile? SELinuxChangePolicy?",
    "Container": 'Name"" Image"" Command? Args? WorkingDir"" Ports:[Port] EnvFrom:[EnvFrom] Env:[Env] '
    "Resources:Resources ResizePolicy? RestartPolicy? RestartPolicyRules? VolumeMounts:[Mount] VolumeDevices? "
    "LivenessProbe:?Probe ReadinessProbe:?Probe StartupProbe:?Probe Lifecycle:?Lifecycle "
    'TerminationMessagePath"" TerminationMessagePolicy"" ImagePullPolicy"" SecurityContext? Stdinf StdinOncef TTYf',
    "Port": 'Name"" HostPort0 ContainerPort0 Protocol"" HostIP""',
    "EnvFrom": 'Prefix"" ConfigMapRef:?Ref SecretRef:?Ref',
    "Ref": 'Name"" Optional?',
    "KeyRef": 'Name"" Key"" Optional?',
    "Env": 'Name"" Value"" ValueFrom:?EnvSource',
    "EnvSource": "FieldRef:?FieldRef ResourceFieldRef:?ResourceRef ConfigMapKeyRef:?KeyRef SecretKeyRef:?KeyRef "
    "FileKeyRef?",
    "FieldRef": 'APIVersion"" FieldPath""',
    "ResourceRef": 'ContainerName"" Resource"" Divisor"0"',
    "Resources": "Limits? Requests? Claims?",
    "Mount": 'Name"" ReadOnlyf RecursiveReadOnly? MountPath"" SubPath"" MountPropagation? SubPathExpr""',
    "Probe": "Exec:?Exec HTTPGet:?HTTPGet TCPSocket:?TCPSocket GRPC:?GRPC InitialDelaySeconds0 TimeoutSeconds0 "
    "PeriodSeconds0 SuccessThreshold0 FailureThreshold0 TerminationGracePeriodSeconds?",
    "Lifecycle": "PostStart:?Handler PreStop:?Handler StopSignal?",
    "Handler": "Exec:?Exec HTTPGet:?HTTPGet TCPSocket:?TCPSocket Sleep?",
    "Exec": "Command?",
    "HTTPGet": 'Path"" Port0 Host"" Scheme"" HTTPHeaders:[Header]',
    "Header": 'Name"" Value""',
    "TCPSocket": 'Port0 Host""',
    "GRPC": "Port0 Service?",
    "Name": 'Name""',
    "Toleration": 'Key"" Operator"" Value"" Effect"" TolerationSeconds?',
    "Volume": 'Name"" HostPath:?HostPath EmptyDir:?EmptyDir GCEPersistentDisk? AWSElasticBlockStore? GitRepo? '
    "Secret:?SecretVolume NFS? ISCSI? Glusterfs? PersistentVolumeClaim:?Claim RBD? Quobyte? FlexVolume? Cinder? "
    "CephFS? Flocker? DownwardAPI? FC? AzureFile? ConfigMap:?MapVolume VsphereVolume? AzureDisk? "
    "PhotonPersistentDisk? Projected:?Projected PortworxVolume? ScaleIO? StorageOS? CSI? Ephemeral? Image?",
    "HostPath": 'Path"" Type?',
    "EmptyDir": 'Medium"" SizeLimit?',
    "SecretVolume": 'SecretName"" Items:[Item] DefaultMode? Optional?',
    "MapVolume": 'Name"" Items:[Item] DefaultMode? Optional?',
    "Item": 'Key"" Path"" Mode?',
    "Claim": 'ClaimName"" ReadOnlyf',
    "Projected": "Sources:[Source] DefaultMode?",
    "Source": "Secret:?Projection DownwardAPI? ConfigMap:?Projection ServiceAccountToken:?Token ClusterTrustBundle? "
    "PodCertificate?",
    "Projection": 'Name"" Items:[Item] Optional?',
    "Token": 'Audience"" ExpirationSeconds0 Path""',
}
FIELD = re.compile(r'([A-Z][A-Za-z]*?)(\?|""|"0"|0|f|:(\??)(\[?)([A-Z][A-Za-z]*)\]?)$')
ZEROS: dict[str, Any] = {"?": None, '""': "", '"0"': "0", "0": 0, "f": False}
CAPITALS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]")


class GoField(NamedTuple):
    name: str
    wire: str
    zero: Any
    type: str
    many: bool
    pointer: bool


@cache
def fields_of(type_: str) -> tuple[GoField, ...]:
    found = []
    for text in TYPES[type_].split():
        match = FIELD.match(text)
        assert match, text
        name = match[1]
        zero = ZEROS.get(match[2])
        found.append(GoField(name, wire_name(name), zero, match[5] or "", bool(match[4]), bool(match[3])))
    return tuple(found)


def wire_name(name: str) -> str:
    """`DNSPolicy` is `dnsPolicy`, `TTY` is `tty`, `HostIP` is `hostIP`."""
    return CAPITALS.sub(lambda m: m[0].lower(), name, count=1)


def go_form(value: Object, type_: str) -> Object:
    """The struct with all its fields in Go's order."""
    return {f.name: go_value(value.get(f.wire), f) for f in fields_of(type_)}


def go_value(value: Any, field: GoField) -> Any:
    if not field.type:
        return field.zero if value is None else capitalised(value) if isinstance(value, dict | list) else value
    if field.many:
        return [go_form(v, field.type) for v in value] if value else None
    if value is None:
        return None if field.pointer else go_form({}, field.type)
    return go_form(value, field.type)


def capitalised(value: Any) -> Any:
    """Structs without a table of their own: what is set, in the order it came; maps of the API stay as they are."""
    if isinstance(value, list):
        return [capitalised(v) for v in value]
    if isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
        return {k[:1].upper() + k[1:]: capitalised(v) for k, v in value.items()}
    return value


def pod_spec(spec: Object) -> Object:
    """The whole spec. The host's namespaces are part of the security context there."""
    context = {**(spec.get("securityContext") or {})}
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"):
        if name in spec:
            context[name] = spec[name]
    return go_form({**spec, "securityContext": context}, "PodSpec")


def difference(old: Object, new: Object) -> str:
    """What differs between two specs, as a unified diff of their Go forms without a header."""
    before, after = (json.dumps(pod_spec(s), indent=1, ensure_ascii=False).splitlines() for s in (old, new))
    lines = list(difflib.unified_diff(before, after, lineterm="", n=3))[2:]
    return "".join(f"{line}\n" for line in lines)
