"""Kubeconfig files: what is read from them, and how errors name file and field."""

from __future__ import annotations

import base64
import textwrap
from pathlib import Path

import pytest

from kubesvc.client.kubeconfig import (
    Access,
    ExecPlugin,
    KubeconfigError,
    kubeconfig_paths,
    load_kubeconfig,
    render_kubeconfig,
)

PEM = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
DATA = base64.b64encode(PEM.encode()).decode()


def write(directory: Path, text: str, name: str = "config") -> Path:
    path = directory / name
    path.write_text(textwrap.dedent(text))
    return path


WHOLE = f"""
apiVersion: v1
kind: Config
current-context: main
clusters:
- name: c
  cluster: {{server: "https://127.0.0.1:6443/", certificate-authority-data: {DATA}, tls-server-name: kubernetes}}
- name: open
  cluster: {{server: "https://10.0.0.1", insecure-skip-tls-verify: true}}
users:
- name: certified
  user: {{client-certificate: admin.crt, client-key-data: {DATA}}}
- name: bearer
  user: {{token: secret, tokenFile: token.txt}}
- name: plugin
  user:
    exec: {{apiVersion: client.authentication.k8s.io/v1, command: ./get-token, args: [a], env: [{{name: X, value: y}}]}}
contexts:
- name: main
  context: {{cluster: c, user: certified, namespace: shop}}
- name: bearer
  context: {{cluster: open, user: bearer}}
- name: plugin
  context: {{cluster: c, user: plugin}}
"""


def test_contexts(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    (tmp_path / "admin.crt").write_text(PEM)
    config = load_kubeconfig(path)
    main = config.access()
    assert (main.server, main.namespace, main.tls_server_name) == ("https://127.0.0.1:6443", "shop", "kubernetes")
    assert main.ca == main.client_certificate == main.client_key == PEM.encode()
    bearer = config.access("bearer")
    assert (bearer.insecure, bearer.token, bearer.token_file) == (True, "", str(tmp_path / "token.txt"))
    plugin = config.access("plugin").plugin
    assert plugin is not None
    assert (plugin.command, plugin.args, plugin.env) == (str(tmp_path / "get-token"), ("a",), {"X": "y"})
    assert "secret" not in repr(bearer)


def test_first_file_wins_and_missing_ones_are_skipped(tmp_path: Path) -> None:
    one = write(tmp_path, "{contexts: [{name: x, context: {cluster: c}}]}", "one")
    two = write(
        tmp_path,
        """
        current-context: x
        contexts: [{name: x, context: {cluster: other}}]
        clusters: [{name: c, cluster: {server: "http://one"}}]
        """,
        "two",
    )
    assert load_kubeconfig(one, tmp_path / "none", two).access().server == "http://one"


def test_paths() -> None:
    assert kubeconfig_paths({"KUBECONFIG": "/a:/b::/a"}) == [Path("/a"), Path("/b")]
    assert kubeconfig_paths({"HOME": "/home/x"}) == [Path("/home/x/.kube/config")]


SERVER = 'clusters: [{name: c, cluster: {server: "https://x"}}]'
CONTEXT = "contexts: [{name: m, context: {cluster: c, user: u}}]\ncurrent-context: m"
BAD = (
    ("not YAML", "a: [", "config: not YAML"),
    ("a list", "[1]", "not a kubeconfig: found a list"),
    ("wrong type", "clusters: {a: b}", "config: clusters: Expected `array"),
    ("nested wrong type", "users: [{name: u, user: {token: 5}}]", r"config: users\[0\].user.token: Expected `str`"),
    ("no current context", SERVER, "current-context: not set; name a context: none"),
    ("unknown context", "current-context: m\n" + SERVER, "current-context: no context 'm'; there are none"),
    ("unknown cluster", CONTEXT, r"contexts\[0\].context.cluster: no cluster 'c'; there are none"),
    ("unknown user", f"{SERVER}\n{CONTEXT}", r"contexts\[0\].context.user: no user 'u'; there are none"),
    ("nameless", "users: [{user: {}}]", r"users\[0\].name: not set"),
    (
        "no server",
        CONTEXT.replace(", user: u", "") + "\nclusters: [{name: c, cluster: {}}]",
        r"clusters\[0\].cluster.server: not set",
    ),
    (
        "bad server",
        CONTEXT.replace(", user: u", "") + "\nclusters: [{name: c, cluster: {server: x}}]",
        "must begin with https://",
    ),
    (
        "not base64",
        f"{SERVER}\n{CONTEXT}\nusers: [{{name: u, user: {{client-key-data: '%'}}}}]",
        r"users\[0\].user.client-key-data: not base64",
    ),
    (
        "not PEM",
        f"{SERVER}\n{CONTEXT}\nusers: [{{name: u, user: {{client-key-data: MTIz}}}}]",
        "client-key-data: not PEM",
    ),
    (
        "missing file",
        f"{SERVER}\n{CONTEXT}\nusers: [{{name: u, user: {{client-certificate: no.crt}}}}]",
        "client-certificate: .*no.crt: No such file",
    ),
    (
        "key without certificate",
        f"{SERVER}\n{CONTEXT}\nusers: [{{name: u, user: {{client-key-data: {DATA}}}}}]",
        "client-certificate: not set",
    ),
    (
        "old plugin",
        f"{SERVER}\n{CONTEXT}\nusers: [{{name: u, user: {{auth-provider: {{name: gcp}}}}}}]",
        "auth-provider: no longer supported",
    ),
    (
        "plugin without command",
        f"{SERVER}\n{CONTEXT}\nusers: [{{name: u, user: {{exec: {{}}}}}}]",
        r"user.exec.command: not set",
    ),
)


@pytest.mark.parametrize(("name", "text", "message"), BAD, ids=[b[0] for b in BAD])
def test_errors_name_file_and_field(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(KubeconfigError, match=message) as caught:
        load_kubeconfig(path).access()
    assert str(caught.value).startswith(str(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="none: no such file"):
        load_kubeconfig(tmp_path / "none")


WRITTEN = (
    ("an admin's certificate",
     Access("https://h:1", ca=PEM.encode(), client_certificate=PEM.encode(), client_key=PEM.encode())),
    ("a token in a namespace", Access("https://h:1", "shop", PEM.encode(), token="t")),
    ("a server trusted blindly, by another name, through a proxy",
     Access("https://h:1", insecure=True, tls_server_name="n", proxy_url="http://p:2", token="t")),
    ("a password", Access("http://h:1", username="u", password='p"\n: #')),
    ("nobody", Access("http://h:1")),
)  # fmt: skip


@pytest.mark.parametrize(("sentence", "access"), WRITTEN, ids=[w[0] for w in WRITTEN])
def test_what_is_written_reads_back_the_same(sentence: str, access: Access, tmp_path: Path) -> None:
    path = write(tmp_path, render_kubeconfig(access, "a name", {"example.com/x": {"y": 1}}))
    assert load_kubeconfig(path).access() == access


def test_an_exec_plugin_is_not_carried_into_another_file() -> None:
    """It is called relative to its own file, and asks for what only that file's owner has."""
    plugin = ExecPlugin("get-token", (), {}, "client.authentication.k8s.io/v1", "", "config: users[0]")
    with pytest.raises(ValueError, match="config: users"):
        render_kubeconfig(Access("https://h:1", plugin=plugin), "n")
