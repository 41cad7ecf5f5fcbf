"""Which controllers there are: upstream's name of each, and where its class lives. Order is start order, and the
order in which controllers hear of a change: slices come first because traffic follows them, not Endpoints.

A new controller adds a line; its module is imported when it is selected.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from .runner import Controller

CONTROLLERS: dict[str, str] = {
    "endpointslice-controller": "kubesvc.controllers.endpointslice:EndpointSliceController",
    "endpoints-controller": "kubesvc.controllers.endpoints:EndpointsController",
    "endpointslice-mirroring-controller": "kubesvc.controllers.mirroring:MirroringController",
    "namespace-controller": "kubesvc.controllers.namespace:NamespaceController",
    "serviceaccount-controller": "kubesvc.controllers.serviceaccount:ServiceAccountController",
    "serviceaccount-token-controller": "kubesvc.controllers.accounttoken:AccountTokenController",
    "root-ca-certificate-publisher-controller": "kubesvc.controllers.rootca:RootCaPublisher",
    "deployment-controller": "kubesvc.controllers.deployment:DeploymentController",
    "replicaset-controller": "kubesvc.controllers.replicaset:ReplicaSetController",
    "statefulset-controller": "kubesvc.controllers.statefulset:StatefulSetController",
    "daemonset-controller": "kubesvc.controllers.daemonset:DaemonSetController",
    "job-controller": "kubesvc.controllers.job:JobController",
    "cronjob-controller": "kubesvc.controllers.cronjob:CronJobController",
    "ttl-after-finished-controller": "kubesvc.controllers.job:TtlAfterFinishedController",
    "replicationcontroller-controller": "kubesvc.controllers.replicaset:ReplicationControllerController",
    "disruption-controller": "kubesvc.controllers.disruption:DisruptionController",
    "clusterrole-aggregation-controller": (
        "kubesvc.controllers.clusterroleaggregation:ClusterRoleAggregationController"
    ),
    "certificatesigningrequest-signing-controller": "kubesvc.controllers.certificates:CertificateSigner",
    "certificatesigningrequest-approving-controller": "kubesvc.controllers.certificates:CertificateApprover",
    "certificatesigningrequest-cleaner-controller": "kubesvc.controllers.certificates:CertificateCleaner",
    "token-cleaner-controller": "kubesvc.controllers.tokencleaner:TokenCleaner",
    "service-cidr-controller": "kubesvc.controllers.servicecidr:ServiceCidrController",
    "service-lb-controller": "kubesvc.controllers.loadbalancer:LoadBalancerController",
    "node-ipam-controller": "kubesvc.controllers.nodeipam:NodeIpamController",
    "garbage-collector-controller": "kubesvc.controllers.garbagecollector:GarbageCollector",
    "node-lifecycle-controller": "kubesvc.controllers.nodelifecycle:NodeLifecycleController",
    "taint-eviction-controller": "kubesvc.controllers.nodelifecycle:TaintEvictionController",
    "pod-garbage-collector-controller": "kubesvc.controllers.podgc:PodGarbageCollector",
    "persistentvolume-binder-controller": "kubesvc.controllers.persistentvolume_binder:PersistentVolumeBinder",
    "persistentvolumeclaim-protection-controller": "kubesvc.controllers.volumeprotection:ClaimProtection",
    "persistentvolume-protection-controller": "kubesvc.controllers.volumeprotection:VolumeProtection",
    "ephemeral-volume-controller": "kubesvc.controllers.ephemeralvolume:EphemeralVolumeController",
    "local-path-provisioner": "kubesvc.controllers.localpath:LocalPathProvisioner",
    "scheduler": "kubesvc.controllers.scheduler:Scheduler",
    "cluster-dns": "kubesvc.controllers.clusterdns:ClusterDnsController",
    "service-events": "kubesvc.controllers.service_events:ServiceEventsController",
}


def load(name: str) -> type[Controller]:
    """The class of a controller by its full name."""
    module, _, attribute = CONTROLLERS[name].partition(":")
    return cast("type[Controller]", getattr(import_module(module), attribute))
