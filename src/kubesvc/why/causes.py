"""The catalogue of causes: what each code means and what helps. docs/causes.md is made from it.

A code is never given to another cause and never vanishes: scripts and pages refer to it.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

FAMILIES = {
    "EP1": "The selector",
    "EP2": "No Pods",
    "EP3": "A Pod that is out",
    "EP4": "Ports and addresses",
    "EP5": "Endpoints and slices by hand",
    "EP6": "The way there",
    "EP7": "Names",
    "EP8": "The question itself",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry: stable code, title, what happens and why, and what to do."""

    code: str
    title: str
    explanation: str
    remedy: str

    @property
    def family(self) -> str:
        return FAMILIES[self.code[:3]]


CAUSES: tuple[Cause, ...] = (
    Cause(
        "EP101",
        "The selector's value is misspelt",
        "No Pod of the namespace has the label that the selector asks for, but Pods have the same key with a value "
        "that differs by a letter or two. Selectors compare exactly, letter by letter and case by case.",
        "Correct the selector of the Service, or, if the Pods are wrong, the labels in the template of what makes "
        "them. The suggested command corrects the selector.",
    ),
    Cause(
        "EP102",
        "The selector's key is misspelt",
        "No Pod of the namespace has the selector's key, but Pods have a key that differs by a letter or two, with the "
        "wanted value. `app` and `app.kubernetes.io/name` are different keys, too.",
        "Correct the key in the selector; the suggested command removes the wrong key and adds the right one.",
    ),
    Cause(
        "EP103",
        "The Pods are in another namespace",
        "A Service selects Pods of its own namespace only. Pods with just these labels exist, in another namespace.",
        "Make the Service where its Pods are; clients of other namespaces then ask for `name.namespace`. The suggested "
        "command does so. To keep the old name alive as well, make the old Service an ExternalName to the new one.",
    ),
    Cause(
        "EP104",
        "The label is on the workload, not on its Pods",
        "Labels in the metadata of a Deployment (or StatefulSet, DaemonSet) belong to the Deployment itself. Pods get "
        "the labels of `spec.template.metadata.labels`, and there the wanted label is missing.",
        "Add the label to the template; the suggested command does, and the workload rolls out Pods that have it.",
    ),
    Cause(
        "EP105",
        "Nothing has the selected label",
        "Neither a Pod nor a template of the namespace carries the labels of the selector, nor anything like them.",
        "Create the Pods, or change the selector to labels that `kubectl get pods --show-labels` shows.",
    ),
    Cause(
        "EP106",
        "The selector asks for more than the Pods carry",
        "A selector is a conjunction: every pair must match. Pods match some of the pairs and lack another one.",
        "Drop the pair that no Pod has, as the suggested command does, or add the label to the Pods' template.",
    ),
    Cause(
        "EP201",
        "The workload is scaled to zero",
        "What would make the Pods asks for 0 replicas. Somebody, or an autoscaler, turned it off.",
        "Scale it up.",
    ),
    Cause(
        "EP202",
        "A quota forbids new Pods",
        "The namespace's ResourceQuota is used up, so the API server refuses the Pods that the workload wants to make.",
        "Raise the quota, or free some of it: delete Pods, or lower their requests.",
    ),
    Cause(
        "EP203",
        "The Pods cannot be created",
        "The workload tries to make Pods and is refused: by admission, by a missing service account, by validation. "
        "The message says by whom.",
        "Mend what the message names; the workload tries again on its own.",
    ),
    Cause(
        "EP204",
        "The rollout is paused before its first Pod",
        "The Deployment is paused, and a paused Deployment does not start a new template.",
        "Resume the rollout.",
    ),
    Cause(
        "EP205",
        "The workload has not been acted upon",
        "A workload that asks for Pods has none, and nothing says why: its controller is not running, or does not "
        "exist on this cluster.",
        "Look whether the controller manager runs. kubesvc itself does not act on every kind of workload; its README "
        "says on which.",
    ),
    Cause(
        "EP206",
        "No node for the DaemonSet",
        "A DaemonSet makes one Pod for each node that fits, and no node fits its node selector, affinity and "
        "tolerations.",
        "Label a node as the DaemonSet asks, or change what it asks for.",
    ),
    Cause(
        "EP301",
        "The readiness probe fails",
        "The Pod runs, but its readiness probe does not succeed, so it is kept off the list of endpoints: that is what "
        "the probe is for. The last result of the probe says what it met.",
        "Look at the application first: its log, and what it answers at the probe's address. If the application is "
        "well, correct the probe.",
    ),
    Cause(
        "EP302",
        "A readiness gate is not set",
        "The Pod names a readiness gate: a condition that something outside (a load balancer's controller, mostly) has "
        "to set to True. Nobody has, so the Pod is not Ready, however well its containers are.",
        "Look at whoever should set the condition. The suggested command sets it by hand.",
    ),
    Cause(
        "EP303",
        "The startup probe has not succeeded yet",
        "As long as the startup probe has not succeeded once, the container does not count as started, and the other "
        "probes do not run.",
        "Wait; if it never succeeds, look at the log, and give a slow start more room (`failureThreshold`).",
    ),
    Cause(
        "EP304",
        "The probe asks a port on which nobody listens",
        "The probe is refused at its port, and no container of the Pod declares that port; or it asks for a port by a "
        "name that its container does not declare.",
        "Point the probe at the port of the application.",
    ),
    Cause(
        "EP305",
        "The Pod has no address yet",
        "The Pod is on a node, but its network is not there yet, so there is no address to list.",
        "Wait a few seconds; if it stays so, the Pod's events name what fails (volumes, network, runtime).",
    ),
    Cause(
        "EP306",
        "The Pod is terminating",
        "The Pod is being deleted. It stays in the slices as `terminating`, but gets no new connections unless nothing "
        "else is left.",
        "Nothing, if this is a rollout. A Pod that terminates for long is held by a finalizer, a slow preStop hook or "
        "a node that is gone.",
    ),
    Cause(
        "EP307",
        "The Pod has run to its end",
        "The Pod's phase is Succeeded or Failed: its containers have ended and will not be started again.",
        "A server must not end: look at its log. If the Pod is a leftover of a Job or an eviction, delete it.",
    ),
    Cause(
        "EP308",
        "The Pod's node is not ready",
        "The node does not report, or reports that it is not ready, so its Pods were marked as not Ready.",
        "Mend the node, or delete the Pod so that it is made elsewhere.",
    ),
    Cause(
        "EP309",
        "The Pod cannot be scheduled",
        "No node takes the Pod: too little free, a taint, a node selector or affinity that no node has, a cordon.",
        "Remove the obstacle that the scheduler names.",
    ),
    Cause(
        "EP310",
        "The image cannot be had",
        "The node cannot get the image of a container: a wrong name or tag, a registry that refuses, no network.",
        "Correct the image. If an earlier revision worked, undo the rollout, as the suggested command does.",
    ),
    Cause(
        "EP311",
        "The container crashes again and again",
        "The container starts, ends and is started anew, each time after a longer wait.",
        "Read the log of the run before (`kubectl logs --previous`). Where the liveness probe is what ends it, look at "
        "what the application answers there, or correct the probe.",
    ),
    Cause(
        "EP312",
        "The container cannot be made",
        "The container's configuration cannot be put together: a ConfigMap, Secret or key that does not exist, a "
        "command that is not there.",
        "Create what the message names, or correct the reference.",
    ),
    Cause(
        "EP313",
        "An init container has not finished",
        "Init containers run one after another before the application starts, and one of them has not come to its "
        "end.",
        "Read the init container's log: it often waits for something, perhaps for this very Service.",
    ),
    Cause(
        "EP314",
        "The probe is too tight: the Pod flaps",
        "The readiness probe fails now and then and succeeds in between, so the Pod leaves and joins the list over and "
        "over.",
        "Give the probe more time (`timeoutSeconds`) or more tries (`failureThreshold`), and look at why the "
        "application answers slowly.",
    ),
    Cause(
        "EP315",
        "Another Pod has the host port",
        "Two Pods with the same host port (or on the host's network, with the same container port) cannot be on one "
        "node.",
        "Use as many nodes as Pods, or do without host ports: the Service needs none.",
    ),
    Cause(
        "EP316",
        "The Pod is not ready and does not say why",
        "The Pod's Ready condition is not True, and neither its containers nor its events give a reason; it may just "
        "have started.",
        "Look again in a moment; `kubectl describe pod` shows what is known.",
    ),
    Cause(
        "EP317",
        "The Pod's node does not exist",
        "The Pod names a node that is not in the cluster any more. The EndpointSlice controller leaves such Pods out.",
        "Delete the Pod, so that it is made elsewhere.",
    ),
    Cause(
        "EP318",
        "Pods are listed though they are not ready",
        "The Service says `publishNotReadyAddresses`, so Pods are listed as ready whether they are or not, and "
        "clients reach Pods that cannot answer.",
        "Take the setting away, unless this is the governing Service of a StatefulSet whose members have to find "
        "each other before they are ready.",
    ),
    Cause(
        "EP319",
        "The Pod is held by a scheduling gate",
        "The Pod names scheduling gates. Until all of them are removed it is not even looked at by the scheduler.",
        "Look at whoever put the gate there.",
    ),
    Cause(
        "EP401",
        "No container has the named target port",
        "The Service's targetPort is a name, and a name is looked up among the ports that the Pod's containers "
        "declare. None has that name, so the Pod is not listed for this port.",
        "Use a name that the containers declare, as the suggested command does, or declare the name.",
    ),
    Cause(
        "EP402",
        "The named target port has another protocol",
        "A container declares a port of that name, but for another protocol. The name and the protocol must agree.",
        "Set the protocol of the Service's port to that of the container's.",
    ),
    Cause(
        "EP403",
        "No container declares the target port",
        "The Pods are Ready and declare ports, but not the one that the Service sends to. Declaring is only a remark: "
        "a program may listen there all the same. If it does not, connections are refused.",
        "Compare the program's own port with the Service's targetPort; the suggested command sets it to the declared "
        "one.",
    ),
    Cause(
        "EP404",
        "The Pods have no address of the Service's family",
        "The Service is for one IP family, its Pods have addresses of the other only, so none can be listed.",
        "A Service's first family cannot be changed: delete the Service and make it anew with the Pods' family, as "
        "the suggested command does. It gets another ClusterIP.",
    ),
    Cause(
        "EP405",
        "The Service has no ports",
        "Only a headless Service may go without ports; then no SRV names exist and every port of its Pods is open.",
        "Add ports; the suggested command adds those that the selected containers declare.",
    ),
    Cause(
        "EP406",
        "A headless Service translates no ports",
        "A headless Service has no address of its own: its name leads straight to the Pods. So clients must use the "
        "targetPort; the Service's port counts for nothing but SRV names.",
        "Let clients use the target port, or make the Service's port the same number.",
    ),
    Cause(
        "EP407",
        "Nobody listens at the target port",
        "The Pods are Ready and listed, and a connection to the target port is refused: no program listens there. "
        "Readiness says nothing about it unless a probe asks this very port. Seen by looking into the nodes, so on "
        "instances of kubesvc only.",
        "Compare the program's own port with the Service's targetPort. Where the Pods answer at one other port that "
        "they declare, and no other port of the Service leads there, the suggested command sends the Service there. A "
        "program that listens at 127.0.0.1 only is heard by nobody outside its Pod: let it listen at 0.0.0.0.",
    ),
    Cause(
        "EP408",
        "The target port is declared for another protocol",
        "The Service sends one protocol (say UDP) to a number that the containers declare for another one (TCP). "
        "Declaring is only a remark, so a program may serve both; mostly it does not.",
        "Set the protocol of the Service's port to the containers', as the suggested command does.",
    ),
    Cause(
        "EP409",
        "An endpoint does not answer",
        "An address is listed as ready and connections to it get no answer at all, neither accepted nor refused: "
        "nobody has the address, or something on the way drops the packets. Seen by looking into the nodes, so on "
        "instances of kubesvc only.",
        "Take the address off the list that names it: an EndpointSlice or Endpoints by hand, mostly.",
    ),
    Cause(
        "EP501",
        "No selector and no Endpoints",
        "The Service has no selector, so no controller lists anything for it, and nobody has by hand.",
        "Give it a selector, or make an EndpointSlice with the label `kubernetes.io/service-name`.",
    ),
    Cause(
        "EP502",
        "The Endpoints have another name than the Service",
        "Endpoints by hand belong to the Service of exactly their own name. Endpoints with a name much like it exist, "
        "and no Service has that name.",
        "Make the Endpoints anew under the Service's name.",
    ),
    Cause(
        "EP503",
        "The Endpoints are not mirrored into slices",
        "Proxies and DNS read EndpointSlices only. Endpoints by hand are copied there by the mirroring controller, "
        "which leaves out those with the label `endpointslice.kubernetes.io/skip-mirror=true` or a leader annotation.",
        "Take the label away, or make the slices by hand too.",
    ),
    Cause(
        "EP504",
        "A slice by hand names another Service",
        "An EndpointSlice belongs to the Service that its label `kubernetes.io/service-name` names. The label of this "
        "one is missing or names a Service that does not exist.",
        "Set the label.",
    ),
    Cause(
        "EP505",
        "The slice's ports have other names than the Service's",
        "Slices and Services are joined by the names of their ports (and protocols), not by numbers. The Service's "
        "port has no namesake in the slices.",
        "Give the slice's port the name of the Service's.",
    ),
    Cause(
        "EP506",
        "The slices are out of date",
        "What the EndpointSlices hold is not what the Service and its Pods would give, and that for a while: their "
        "controller is not running, or cannot write.",
        "Look at the controller manager: its log and its lease.",
    ),
    Cause(
        "EP507",
        "The Endpoints are truncated",
        "An Endpoints object holds at most 1000 addresses; the rest is cut off and the annotation "
        "`endpoints.kubernetes.io/over-capacity` says so. Slices hold all of them.",
        "Let clients read EndpointSlices.",
    ),
    Cause(
        "EP508",
        "Endpoints by hand for a Service with a selector",
        "As long as the Service has a selector its Endpoints belong to the endpoints controller, which overwrites what "
        "others write.",
        "Remove the selector, or put the addresses into an EndpointSlice of your own.",
    ),
    Cause(
        "EP509",
        "The Endpoints have not been mirrored",
        "Endpoints by hand exist and are to be mirrored, but there are no slices of them: the mirroring controller is "
        "not running, or cannot write.",
        "Look at the controller manager.",
    ),
    Cause(
        "EP510",
        "The listed addresses are not ready",
        "Endpoints or slices by hand list addresses, all of them as not ready.",
        "Move the addresses from `notReadyAddresses` to `addresses`, or set the condition `ready` of the slice's "
        "endpoints.",
    ),
    Cause(
        "EP511",
        "A dead controller's slice lists Pods that do not exist",
        "Traffic goes to what any EndpointSlice with the Service's label lists, whoever wrote it. A slice by another "
        "controller, or by hand, names Pods that are gone; nobody takes them off, and part of the connections fail.",
        "Delete the slice, or its dead endpoints, as the suggested command does; then mend or remove what wrote it.",
    ),
    Cause(
        "EP601",
        "The Service is left to another proxy",
        "The label `service.kubernetes.io/service-proxy-name` tells the standard proxy to keep its hands off.",
        "Take the label away, unless the proxy of that name really runs.",
    ),
    Cause(
        "EP602",
        "internalTrafficPolicy Local leaves nodes without endpoints",
        "With `internalTrafficPolicy: Local` a node sends traffic only to endpoints on itself. On a node without one, "
        "connections to the ClusterIP are dropped: they time out.",
        "Use the policy Cluster (or `trafficDistribution: PreferSameNode`), or run a Pod on every node.",
    ),
    Cause(
        "EP603",
        "externalTrafficPolicy Local leaves nodes without endpoints",
        "With `externalTrafficPolicy: Local` a node takes traffic from outside only for endpoints on itself. Node "
        "ports and load balancer addresses on other nodes time out. A load balancer that asks the health check port "
        "avoids such nodes; a client that uses node ports by hand does not.",
        "Use the policy Cluster, or address only nodes that have an endpoint.",
    ),
    Cause(
        "EP604",
        "Topology hints lead all traffic of a zone or node to few endpoints",
        "Endpoints carry hints, and traffic follows them as long as they leave anything: those few endpoints take the "
        "load of the whole zone, and if they do not answer, nobody steps in.",
        "Spread the Pods over zones, or take `trafficDistribution` or the topology annotation away.",
    ),
    Cause(
        "EP605",
        "Only some sources are allowed",
        "`loadBalancerSourceRanges` admits clients of these ranges only; connections of others are dropped.",
        "Add the client's range.",
    ),
    Cause(
        "EP606",
        "An external IP must lead to a node",
        "`externalIPs` make nodes take packets for these addresses. That the packets arrive at a node at all is up to "
        "the network; Kubernetes does nothing for it.",
        "Route the address to a node.",
    ),
    Cause(
        "EP607",
        "The load balancer has no address",
        "The Service is of type LoadBalancer, and nothing has given it an address: no controller for load balancers "
        "runs, or it failed. Its ClusterIP and node port work all the same.",
        "Install such a controller, or use the node port.",
    ),
    Cause(
        "EP608",
        "A NetworkPolicy isolates the Pods",
        "A NetworkPolicy selects the Pods for ingress and admits nobody to this port. It blocks only where the "
        "cluster's network enforces policies; kubesvc's own does not.",
        "Add an ingress rule for the clients.",
    ),
    Cause(
        "EP609",
        "The proxy does not run on a node",
        "The Pod of kube-proxy on this node is not ready, so the node's rules are old or missing.",
        "Mend it; until then Services behave on that node as they were when it stopped.",
    ),
    Cause(
        "EP610",
        "Clients stick to one endpoint",
        "With `sessionAffinity: ClientIP` every client stays with the endpoint it met first, for three hours unless "
        "said otherwise. It is no fault, but a test from one client sees one Pod only.",
        "Take the affinity away to see all endpoints.",
    ),
    Cause(
        "EP611",
        "Only terminating endpoints are left",
        "No endpoint is ready. Those that are being deleted, and still serve, take the traffic until they end.",
        "Find out why no new Pod is ready.",
    ),
    Cause(
        "EP612",
        "There is no node port on a ClusterIP Service",
        "Only Services of type NodePort or LoadBalancer are reached at the nodes' own addresses.",
        "Change the type.",
    ),
    Cause(
        "EP613",
        "The process of a node does not run",
        "On an instance of kubesvc one process per node is agent, proxy and DNS. It is stopped or gone: the kernel "
        "keeps the rules that it left, Pods run on, and nothing there follows changes any more.",
        "A stopped process goes on with the suggested command; one that ended is started again by the control "
        "process.",
    ),
    Cause(
        "EP614",
        "The rules of a node are behind",
        "What the kernel of a node makes of a packet to the Service is not what its proxy's plan gives, though the "
        "process runs: it is busy, cut off from the API, it was refused by the kernel, or somebody changed its rules, "
        "which it repairs within a minute.",
        "Connect the node again if it is cut off (`kubesvc nodes heal`). Else look again in a moment; if it stays so, "
        "the node's log (`node.log` in its state directory) says why.",
    ),
    Cause(
        "EP615",
        "A stale connection-tracking entry",
        "The kernel translates only the first packet of a UDP flow by the rules and the rest by its memory of it. A "
        "client that keeps its socket stays with an endpoint that is gone until that entry is forgotten. Proxies "
        "forget such entries when an endpoint leaves; this one is left.",
        "Let the kernel forget the entry, as the suggested command does, or let the client open a new socket.",
    ),
    Cause(
        "EP616",
        "The kernel does not take the Service's rules",
        "The proxy of a node has set the Service aside, because the kernel refused its rules; other Services do not "
        "suffer. The message is the kernel's. In userspace mode it is a port that the node's proxy cannot have: "
        "another program has it, or the protocol is one that no process passes on.",
        "Change what the message is about (an address or a port of the Service, mostly); the proxy tries again at the "
        "Service's next change.",
    ),
    Cause(
        "EP701",
        "A headless Service has no ClusterIP",
        "The Service's clusterIP is None: its name leads to the Pods' own addresses, and there is no address that "
        "stands for all of them.",
        "Use the name. For a single address make a second Service without `clusterIP: None`.",
    ),
    Cause(
        "EP702",
        "The external name is an IP address",
        "ExternalName is an alias in DNS (CNAME), and an alias to an address does not exist: resolvers look for a "
        "host of that name and find none.",
        "Use a Service without selector and an EndpointSlice that lists the address, as the suggested command does.",
    ),
    Cause(
        "EP703",
        "DNS does not run",
        "The Service of cluster DNS has no ready endpoint, so no Pod can resolve any name.",
        "Mend the DNS Pods.",
    ),
    Cause(
        "EP704",
        "The name does not exist",
        "DNS answers that there is no such name; the steps that a Pod's resolver takes are listed.",
        "Correct the name: `service.namespace.svc.cluster.local`, or short `service.namespace`.",
    ),
    Cause(
        "EP705",
        "The external name leads to a Service that does not exist",
        "The ExternalName is a name of this cluster, and there is no Service of that name.",
        "Correct the name.",
    ),
    Cause(
        "EP706",
        "The DNS server of a node does not answer",
        "On an instance of kubesvc every node answers names itself. This one does not: Pods of the node resolve "
        "nothing, though the objects of cluster DNS are in order.",
        "Start the node anew, as the suggested command does: its Pods are started again, too. The node's log "
        "(`node.log` in its state directory) tells what it met; a rule of somebody else's in the node may drop the "
        "questions.",
    ),
    Cause(
        "EP707",
        "The DNS server of a node is behind",
        "What the node's DNS server says to the Service's name is not what its own plan makes of the objects: it has "
        "not heard of the last changes.",
        "Connect the node again if it is cut off (`kubesvc nodes heal`). Else look again in a moment; if it stays so, "
        "look at the node's log.",
    ),
    Cause(
        "EP708",
        "The Pods' governing Service does not exist",
        "A Pod has a name of its own, such as `web-0.web`, if its subdomain is the name of a headless Service that "
        "selects it. A StatefulSet gives its Pods the subdomain that its `serviceName` says; nothing checks whether "
        "there is such a Service, and all else works without.",
        "If the name is misspelt, make the StatefulSet anew with the right one: `serviceName` cannot be changed. The "
        "suggested command does so beside the running Pods, keeps them and their claims, and replaces the Pods one by "
        "one. If the Service was forgotten, make it.",
    ),
    Cause(
        "EP801",
        "There is no such Service",
        "No Service has this name in this namespace.",
        "Correct the name or the namespace.",
    ),
    Cause("EP802", "There is no such Pod", "No Pod has this name in this namespace.", "Correct the name."),
    Cause(
        "EP803",
        "The address belongs to nobody",
        "Neither a Service nor a Pod nor a node has this address. A ClusterIP changes when its Service is made anew; "
        "clients that keep the old one talk to nobody.",
        "Use the Service's name instead of its address.",
    ),
    Cause(
        "EP804",
        "The Service has no such port",
        "The address is the Service's, but none of its ports is the one that was asked for. The proxy refuses.",
        "Use a port that the Service has, or add it.",
    ),
    Cause(
        "EP805",
        "The Service does not select the Pod",
        "The Pod's labels do not fulfil the Service's selector.",
        "Label the Pod and the template of what makes it, or correct the selector; the suggested command does what "
        "disturbs least.",
    ),
    Cause(
        "EP806",
        "No Service selects the Pod",
        "The Pod may be well, but no Service of its namespace has a selector that its labels fulfil.",
        "Make a Service, or correct a selector or a label.",
    ),
    Cause(
        "EP807",
        "Not enough is known",
        "Something that the answer hangs on could not be read: a permission is missing, or the dump does not hold it.",
        "Have somebody who may grant permissions run the suggested command: it makes the least role that suffices "
        "and gives it to the user who asked. Or make the dump with all namespaces.",
    ),
)  # fmt: skip

BY_CODE = {c.code: c for c in CAUSES}


def render_page() -> str:
    """docs/causes.md."""
    lines = [
        "# Causes",
        "",
        "What `kubesvc why` can find, by code. Codes are stable: none is given to another cause. This page is made",
        "from `src/kubesvc/why/causes.py` by `tools/make_causes.py`.",
    ]
    family = ""
    for cause in CAUSES:
        if cause.family != family:
            family = cause.family
            lines += ["", f"## {family}"]
        lines += ["", f"### {cause.code}: {cause.title}"]
        for text in (cause.explanation, f"**What to do.** {cause.remedy}"):
            lines += ["", *textwrap.wrap(text, 120, break_on_hyphens=False, break_long_words=False)]
    return "\n".join(lines) + "\n"
