"""Scenarios about the selector and about workloads that make no Pods (EP101 to EP206)."""

from __future__ import annotations

from .scenario import Scenario, deployment, pod, run, service

SELECTORS = (
    Scenario(
        name="typo-value", code="EP101",
        story="The Pods run and are ready, and the Service has no endpoints. Compare what the Service selects with "
        "what `kubectl get pods --show-labels` shows, letter by letter.",
        objects=(service(selector={"app": "wbe"}), deployment()),
    ),
    Scenario(
        name="typo-key", code="EP102",
        story="A label is a key and a value, and both have to be the same. Which of the two is it here?",
        objects=(service(selector={"appp": "web"}), deployment()),
    ),
    Scenario(
        name="other-namespace", code="EP103",
        story="There are Pods with just these labels. But where? A Service never looks beyond its own namespace.",
        objects=(
            service(selector={"app": "till"}), pod("till-1", labels={"app": "till"}, meta={"namespace": "$OTHER"}),
        ),
        after="$OTHER svc/web",
    ),
    Scenario(
        name="label-on-deployment", code="EP104",
        story="The Deployment carries the label tier=front for everybody to see. Do its Pods, too? Their labels come "
        "from the template.",
        objects=(service(selector={"tier": "front"}), deployment(meta={"labels": {"tier": "front"}})),
    ),
    Scenario(
        name="nothing-there", code="EP105",
        story="Somebody made the Service and never what stands behind it.",
        objects=(service(selector={"app": "counter"}),),
        repair=(run("counter-1", "counter"),),
    ),
    Scenario(
        name="one-label-too-many", code="EP106",
        story="The selector names two labels, and every Pod has one of them. A selector is a conjunction.",
        objects=(service(selector={"app": "web", "version": "v2"}), deployment()),
    ),
)  # fmt: skip

WORKLOADS = (
    Scenario(
        name="scaled-to-zero", code="EP201",
        story="Selector and template fit. How many Pods does the Deployment want?",
        objects=(service(), deployment(0)),
    ),
    Scenario(
        name="quota", code="EP202",
        story="The Deployment wants a Pod and does not get it. Who may say no to a Pod? Read the events of its "
        "ReplicaSet.",
        objects=(
            {
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"},
                "spec": {"hard": {"pods": "0"}},
            },
            service(),
            deployment(),
        ),
    ),
    Scenario(
        name="no-service-account", code="EP203",
        story="The Pods are refused before they exist: they want to run as somebody whom nobody knows.",
        objects=(service(), deployment(pod={"serviceAccountName": "shopkeeper"})),
        repair=("kubectl -n $NAMESPACE create serviceaccount shopkeeper",),
    ),
    Scenario(
        name="paused", code="EP204",
        story="The Deployment was made, and nothing follows. Somebody wanted to look before it starts.",
        objects=(service(), deployment(paused=True)),
    ),
    Scenario(
        name="nobody-acts", code="EP205",
        story="A Deployment is only a wish. On this cluster the one who grants it does not run.",
        objects=(service(), deployment()),
        without=("deployment-controller",),
        repair=("kubesvc controllers --controllers deployment-controller",),
    ),
    Scenario(
        name="no-node-for-daemonset", code="EP206",
        story="A DaemonSet makes a Pod for each node that fits. Which nodes fit?",
        objects=(
            service(),
            {
                "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"},
                "spec": {
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": deployment(
                        pod={"nodeSelector": {"example.com/scenario-no-node-for-daemonset": "yes"}}
                    )["spec"]["template"],
                },
            },
        ),
        repair=("kubectl label node $NODE example.com/scenario-no-node-for-daemonset=yes --overwrite",),
    ),
)  # fmt: skip
