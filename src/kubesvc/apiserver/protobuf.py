"""Request bodies in Kubernetes' protobuf form, which stock kubectl uses for what it creates itself (WRITE-11).

Only reading, and only the messages that such clients send: an envelope (`k8s\\0`, then an Unknown message) around one
object. The table below gives the wire numbers of each message's fields; the result is the same plain object that a JSON
body gives, and goes through the same checks. Answers are always JSON, which those clients accept.

Format of a field: `number:jsonName[:type][+][?]`. Types: s text (the default), i integer, b boolean, y bytes, m map of
texts, M map of bytes, q map of quantities, or the name of a message; `+` repeated, `?` kept even if zero (upstream has
a pointer there); a name of `-` puts the message's fields in its parent.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any, NamedTuple

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import Object
from kubesvc.clock import rfc3339, rfc3339_micro

MAGIC = b"k8s\x00"

MESSAGES: dict[str, str] = {
    "Unknown": "1:typeMeta:TypeMeta 2:raw:y 3:contentEncoding 4:contentType",
    "TypeMeta": "1:apiVersion 2:kind",
    "ObjectMeta": "1:name 2:generateName 3:namespace 4:selfLink 5:uid 6:resourceVersion 7:generation:i "
    "8:creationTimestamp:Time 9:deletionTimestamp:Time 10:deletionGracePeriodSeconds:i? 11:labels:m 12:annotations:m "
    "13:ownerReferences:OwnerReference+ 14:finalizers:s+ 17:managedFields:ManagedFieldsEntry+",
    "OwnerReference": "1:kind 3:name 4:uid 5:apiVersion 6:controller:b? 7:blockOwnerDeletion:b?",
    "ManagedFieldsEntry": "1:manager 2:operation 3:apiVersion 4:time:Time 6:fieldsType 7:fieldsV1:FieldsV1 "
    "8:subresource",
    "FieldsV1": "1:Raw:y",
    "LabelSelector": "1:matchLabels:m 2:matchExpressions:LabelSelectorRequirement+",
    "LabelSelectorRequirement": "1:key 2:operator 3:values:s+",
    "DeleteOptions": "1:gracePeriodSeconds:i? 2:preconditions:Preconditions 3:orphanDependents:b? 4:propagationPolicy? "
    "5:dryRun:s+",
    "Preconditions": "1:uid? 2:resourceVersion?",
    "Condition": "1:type 2:status 3:observedGeneration:i 4:lastTransitionTime:Time 5:reason 6:message",
    "ObjectReference": "1:kind 2:namespace 3:name 4:uid 5:apiVersion 6:resourceVersion 7:fieldPath",
    "LocalObjectReference": "1:name",
    # core
    "ConfigMap": "1:metadata:ObjectMeta 2:data:m 3:binaryData:M 4:immutable:b?",
    "Secret": "1:metadata:ObjectMeta 2:data:M 3:type 4:stringData:m 5:immutable:b?",
    "ServiceAccount": "1:metadata:ObjectMeta 2:secrets:ObjectReference+ 3:imagePullSecrets:LocalObjectReference+ "
    "4:automountServiceAccountToken:b?",
    "Namespace": "1:metadata:ObjectMeta 2:spec:NamespaceSpec 3:status:NamespaceStatus",
    "NamespaceSpec": "1:finalizers:s+",
    "NamespaceStatus": "1:phase",
    "Service": "1:metadata:ObjectMeta 2:spec:ServiceSpec 3:status:ServiceStatus",
    "ServiceSpec": "1:ports:ServicePort+ 2:selector:m 3:clusterIP 4:type 5:externalIPs:s+ 7:sessionAffinity "
    "8:loadBalancerIP 9:loadBalancerSourceRanges:s+ 10:externalName 11:externalTrafficPolicy 12:healthCheckNodePort:i "
    "13:publishNotReadyAddresses:b 14:sessionAffinityConfig:SessionAffinityConfig 17:ipFamilyPolicy? 18:clusterIPs:s+ "
    "19:ipFamilies:s+ 20:allocateLoadBalancerNodePorts:b? 21:loadBalancerClass? 22:internalTrafficPolicy? "
    "23:trafficDistribution?",
    "ServicePort": "1:name 2:protocol 3:port:i 4:targetPort:IntOrString 5:nodePort:i 6:appProtocol?",
    "SessionAffinityConfig": "1:clientIP:ClientIPConfig",
    "ClientIPConfig": "1:timeoutSeconds:i?",
    "ServiceStatus": "1:loadBalancer:LoadBalancerStatus 2:conditions:Condition+",
    "LoadBalancerStatus": "1:ingress:LoadBalancerIngress+",
    "LoadBalancerIngress": "1:ip 2:hostname 3:ipMode?",
    "Binding": "1:metadata:ObjectMeta 2:target:ObjectReference",
    "Pod": "1:metadata:ObjectMeta 2:spec:PodSpec 3:status:PodStatus",
    "PodStatus": "1:phase 3:message 4:reason 5:hostIP 6:podIP",
    "PodTemplateSpec": "1:metadata:ObjectMeta 2:spec:PodSpec",
    "PodSpec": "1:volumes:Volume+ 2:containers:Container+ 3:restartPolicy 4:terminationGracePeriodSeconds:i? "
    "5:activeDeadlineSeconds:i? 6:dnsPolicy 7:nodeSelector:m 8:serviceAccountName 9:serviceAccount 10:nodeName "
    "11:hostNetwork:b 12:hostPID:b 13:hostIPC:b 14:securityContext:PodSecurityContext "
    "15:imagePullSecrets:LocalObjectReference+ 16:hostname 17:subdomain 19:schedulerName 20:initContainers:Container+ "
    "21:automountServiceAccountToken:b? 22:tolerations:Toleration+ 24:priorityClassName 25:priority:i? "
    "27:shareProcessNamespace:b? 29:runtimeClassName? 30:enableServiceLinks:b? 31:preemptionPolicy?",
    "PodSecurityContext": "2:runAsUser:i? 3:runAsNonRoot:b? 4:supplementalGroups:i+ 5:fsGroup:i? 6:runAsGroup:i?",
    "Toleration": "1:key 2:operator 3:value 4:effect 5:tolerationSeconds:i?",
    "Container": "1:name 2:image 3:command:s+ 4:args:s+ 5:workingDir 6:ports:ContainerPort+ 7:env:EnvVar+ "
    "8:resources:ResourceRequirements 9:volumeMounts:VolumeMount+ 10:livenessProbe:Probe 11:readinessProbe:Probe "
    "13:terminationMessagePath 14:imagePullPolicy 16:stdin:b 17:stdinOnce:b 18:tty:b 20:terminationMessagePolicy "
    "22:startupProbe:Probe 24:restartPolicy?",
    "ContainerPort": "1:name 2:hostPort:i 3:containerPort:i 4:protocol 5:hostIP",
    "EnvVar": "1:name 2:value",
    "ResourceRequirements": "1:limits:q 2:requests:q",
    "VolumeMount": "1:name 2:readOnly:b 3:mountPath 4:subPath 6:subPathExpr",
    "Probe": "1:-:ProbeHandler 2:initialDelaySeconds:i 3:timeoutSeconds:i 4:periodSeconds:i 5:successThreshold:i "
    "6:failureThreshold:i 7:terminationGracePeriodSeconds:i?",
    "ProbeHandler": "1:exec:ExecAction 2:httpGet:HTTPGetAction 3:tcpSocket:TCPSocketAction",
    "ExecAction": "1:command:s+",
    "HTTPGetAction": "1:path 2:port:IntOrString 3:host 4:scheme 5:httpHeaders:HTTPHeader+",
    "HTTPHeader": "1:name 2:value",
    "TCPSocketAction": "1:port:IntOrString 2:host",
    "Volume": "1:name 2:-:VolumeSource",
    "VolumeSource": "1:hostPath:HostPathVolumeSource 2:emptyDir:EmptyDirVolumeSource 6:secret:SecretVolumeSource "
    "19:configMap:ConfigMapVolumeSource",
    "HostPathVolumeSource": "1:path 2:type?",
    "EmptyDirVolumeSource": "1:medium",
    "SecretVolumeSource": "1:secretName 3:defaultMode:i? 4:optional:b?",
    "ConfigMapVolumeSource": "1:-:LocalObjectReference 3:defaultMode:i? 4:optional:b?",
    # apps, batch, autoscaling
    "Deployment": "1:metadata:ObjectMeta 2:spec:DeploymentSpec 3:status:DeploymentStatus",
    "DeploymentSpec": "1:replicas:i? 2:selector:LabelSelector 3:template:PodTemplateSpec 4:strategy:DeploymentStrategy "
    "5:minReadySeconds:i 6:revisionHistoryLimit:i? 7:paused:b 9:progressDeadlineSeconds:i?",
    "DeploymentStrategy": "1:type 2:rollingUpdate:RollingUpdateDeployment",
    "RollingUpdateDeployment": "1:maxUnavailable:IntOrString 2:maxSurge:IntOrString",
    "DeploymentStatus": "1:observedGeneration:i 2:replicas:i 3:updatedReplicas:i 4:availableReplicas:i "
    "5:unavailableReplicas:i 7:readyReplicas:i",
    "Job": "1:metadata:ObjectMeta 2:spec:JobSpec 3:status:JobStatus",
    "JobSpec": "1:parallelism:i? 2:completions:i? 3:activeDeadlineSeconds:i? 4:selector:LabelSelector "
    "5:manualSelector:b? 6:template:PodTemplateSpec 7:backoffLimit:i? 8:ttlSecondsAfterFinished:i? 9:completionMode? "
    "10:suspend:b?",
    "JobStatus": "4:active:i 5:succeeded:i 6:failed:i",
    "CronJob": "1:metadata:ObjectMeta 2:spec:CronJobSpec 3:status:CronJobStatus",
    "CronJobSpec": "1:schedule 2:startingDeadlineSeconds:i? 3:concurrencyPolicy 4:suspend:b? "
    "5:jobTemplate:JobTemplateSpec "
    "6:successfulJobsHistoryLimit:i? 7:failedJobsHistoryLimit:i? 8:timeZone?",
    "CronJobStatus": "1:active:ObjectReference+",
    "JobTemplateSpec": "1:metadata:ObjectMeta 2:spec:JobSpec",
    "Scale": "1:metadata:ObjectMeta 2:spec:ScaleSpec 3:status:ScaleStatus",
    "ScaleSpec": "1:replicas:i",
    "ScaleStatus": "1:replicas:i 2:selector",
    # networking, policy, rbac
    "Ingress": "1:metadata:ObjectMeta 2:spec:IngressSpec 3:status:IngressStatus",
    "IngressSpec": "1:defaultBackend:IngressBackend 2:tls:IngressTLS+ 3:rules:IngressRule+ 4:ingressClassName?",
    "IngressStatus": "1:loadBalancer:IngressLoadBalancerStatus",
    "IngressLoadBalancerStatus": "1:ingress:LoadBalancerIngress+",
    "IngressTLS": "1:hosts:s+ 2:secretName",
    "IngressRule": "1:host 2:-:IngressRuleValue",
    "IngressRuleValue": "1:http:HTTPIngressRuleValue",
    "HTTPIngressRuleValue": "1:paths:HTTPIngressPath+",
    "HTTPIngressPath": "1:path 2:backend:IngressBackend 3:pathType?",
    "IngressBackend": "3:resource:TypedLocalObjectReference 4:service:IngressServiceBackend",
    "TypedLocalObjectReference": "1:apiGroup? 2:kind 3:name",
    "IngressServiceBackend": "1:name 2:port:ServiceBackendPort",
    "ServiceBackendPort": "1:name 2:number:i",
    "PodDisruptionBudget": "1:metadata:ObjectMeta 2:spec:PodDisruptionBudgetSpec 3:status:PodDisruptionBudgetStatus",
    "PodDisruptionBudgetSpec": "1:minAvailable:IntOrString 2:selector:LabelSelector 3:maxUnavailable:IntOrString "
    "4:unhealthyPodEvictionPolicy?",
    "PodDisruptionBudgetStatus": "1:observedGeneration:i 3:disruptionsAllowed:i 4:currentHealthy:i 5:desiredHealthy:i "
    "6:expectedPods:i",
    "Eviction": "1:metadata:ObjectMeta 2:deleteOptions:DeleteOptions",
    "Role": "1:metadata:ObjectMeta 2:rules:PolicyRule+",
    "ClusterRole": "1:metadata:ObjectMeta 2:rules:PolicyRule+ 3:aggregationRule:AggregationRule",
    "AggregationRule": "1:clusterRoleSelectors:LabelSelector+",
    "PolicyRule": "1:verbs:s+ 2:apiGroups:s+ 3:resources:s+ 4:resourceNames:s+ 5:nonResourceURLs:s+",
    "RoleBinding": "1:metadata:ObjectMeta 2:subjects:Subject+ 3:roleRef:RoleRef",
    "ClusterRoleBinding": "1:metadata:ObjectMeta 2:subjects:Subject+ 3:roleRef:RoleRef",
    "Subject": "1:kind 2:apiGroup 3:name 4:namespace",
    "RoleRef": "1:apiGroup 2:kind 3:name",
    # reviews and tokens
    "SelfSubjectAccessReview": "1:metadata:ObjectMeta 2:spec:SubjectAccessReviewSpec "
    "3:status:SubjectAccessReviewStatus",
    "SubjectAccessReview": "1:metadata:ObjectMeta 2:spec:SubjectAccessReviewSpec 3:status:SubjectAccessReviewStatus",
    "LocalSubjectAccessReview": "1:metadata:ObjectMeta 2:spec:SubjectAccessReviewSpec "
    "3:status:SubjectAccessReviewStatus",
    "SubjectAccessReviewSpec": "1:resourceAttributes:ResourceAttributes 2:nonResourceAttributes:NonResourceAttributes "
    "3:user 4:groups:s+ 6:uid",
    "ResourceAttributes": "1:namespace 2:verb 3:group 4:version 5:resource 6:subresource 7:name",
    "NonResourceAttributes": "1:path 2:verb",
    "SubjectAccessReviewStatus": "1:allowed:b 2:reason 3:evaluationError 4:denied:b",
    "SelfSubjectRulesReview": "1:metadata:ObjectMeta 2:spec:SelfSubjectRulesReviewSpec "
    "3:status:SubjectRulesReviewStatus",
    "SelfSubjectRulesReviewSpec": "1:namespace",
    "SubjectRulesReviewStatus": "3:incomplete:b 4:evaluationError",
    "SelfSubjectReview": "1:metadata:ObjectMeta 2:status:SelfSubjectReviewStatus",
    "SelfSubjectReviewStatus": "1:userInfo:UserInfo",
    "UserInfo": "1:username 2:uid 3:groups:s+",
    "TokenReview": "1:metadata:ObjectMeta 2:spec:TokenReviewSpec 3:status:TokenReviewStatus",
    "TokenReviewSpec": "1:token 2:audiences:s+",
    "TokenReviewStatus": "1:authenticated:b 2:user:UserInfo 3:error 4:audiences:s+",
    "TokenRequest": "1:metadata:ObjectMeta 2:spec:TokenRequestSpec 3:status:TokenRequestStatus",
    "TokenRequestSpec": "1:audiences:s+ 3:boundObjectRef:BoundObjectReference 4:expirationSeconds:i?",
    "TokenRequestStatus": "1:token 2:expirationTimestamp:Time",
    "BoundObjectReference": "1:kind 2:apiVersion 3:name 4:uid",
}


class WireField(NamedTuple):
    name: str
    type: str
    repeated: bool
    keep_zero: bool


class Malformed(ValueError):
    """Bytes that are no message."""


@cache
def fields_of(message: str) -> dict[int, WireField]:
    """The fields of a message by their wire numbers."""
    found = {}
    for text in MESSAGES[message].split():
        keep, text = text.endswith("?"), text.removesuffix("?")
        repeated, text = text.endswith("+"), text.removesuffix("+")
        number, name, *type = text.split(":")
        found[int(number)] = WireField(name, type[0] if type else "s", repeated, keep)
    return found


def decode_protobuf(body: bytes) -> Object:
    """The plain object in a protobuf body, with its apiVersion and kind; BadRequest if it is not one that is known."""
    if not body.startswith(MAGIC):
        raise BadRequest("the body is not in Kubernetes' protobuf form: it does not begin with k8s\\x00")
    try:
        envelope = decode_message(body[len(MAGIC) :], "Unknown")
        type_meta = envelope.get("typeMeta") or {}
        kind = type_meta.get("kind") or ""
        if kind not in MESSAGES:
            raise BadRequest(f"bodies of kind {kind or '(none)'} are not understood in protobuf; send JSON")
        obj = decode_message(base64.b64decode(envelope.get("raw") or ""), kind)
    except (Malformed, IndexError, UnicodeDecodeError) as e:
        raise BadRequest(f"the body is no valid protobuf message: {e}") from None
    return {"kind": kind, "apiVersion": type_meta.get("apiVersion") or "", **obj}


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise Malformed("a number is too long")


def signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def wire_fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Number and value of every field, in order."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = read_varint(data, at)
            found.append((number, signed(value)))
        elif wire == 2:
            size, at = read_varint(data, at)
            if at + size > len(data):
                raise Malformed("a field ends beyond the body")
            found.append((number, data[at : at + size]))
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            found.append((number, data[at : at + size]))
            at += size
        else:
            raise Malformed(f"wire type {wire}")
    return found


def decode_message(data: bytes, message: str) -> Object:
    """A message as the JSON form of its Go type has it: fields that are zero and no pointers are left out."""
    obj: Object = {}
    known = fields_of(message)
    for number, raw in wire_fields(data):
        field = known.get(number)
        if field is None:
            if raw:
                raise BadRequest(f"field {number} of {message} is not understood in protobuf; send JSON")
            continue
        if field.name == "-":
            assert isinstance(raw, bytes)
            obj.update(decode_message(raw, field.type))
            continue
        if field.type in ("m", "M", "q"):
            assert isinstance(raw, bytes)
            key, value = decode_entry(raw, field.type)
            obj.setdefault(field.name, {})[key] = value
            continue
        value = decode_value(raw, field.type)
        if field.repeated:
            obj.setdefault(field.name, []).append(value)
        elif field.keep_zero or value not in ("", 0, False, None):
            obj[field.name] = value
    return obj


def decode_entry(data: bytes, type: str) -> tuple[str, Any]:
    """One entry of a map."""
    key, value = "", b""
    for number, raw in wire_fields(data):
        if isinstance(raw, bytes):
            key, value = (raw.decode(), value) if number == 1 else (key, raw)
    if type == "M":
        return key, base64.b64encode(value).decode()
    if type == "q":
        return key, decode_quantity(value)
    return key, value.decode()


def decode_quantity(data: bytes) -> str:
    return next((raw.decode() for number, raw in wire_fields(data) if number == 1 and isinstance(raw, bytes)), "")


def decode_value(raw: int | bytes, type: str) -> Any:
    """One value of a type of the table."""
    if isinstance(raw, int):
        return bool(raw) if type == "b" else raw
    match type:
        case "s":
            return raw.decode()
        case "y":
            return base64.b64encode(raw).decode()
        case "Time" | "MicroTime":
            parts = {number: value for number, value in wire_fields(raw) if isinstance(value, int)}
            if not parts:
                return None
            seconds = parts.get(1, 0) + parts.get(2, 0) / 1e9
            return rfc3339(seconds) if type == "Time" else rfc3339_micro(seconds)
        case "IntOrString":
            found = dict(wire_fields(raw))
            text = found.get(3, b"")
            if found.get(1, 0) == 1 and isinstance(text, bytes):
                return text.decode()
            return found.get(2, 0)
        case "FieldsV1":
            text = dict(wire_fields(raw)).get(1, b"{}")
            return json.loads(text) if isinstance(text, bytes) else {}
        case _:
            return decode_message(raw, type)
