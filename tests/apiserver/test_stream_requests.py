"""What requests for streams ask for, and what they are told: the pure parts, by table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import ApiError, BadRequest, Forbidden, Invalid
from kubesvc.apiserver.authentication import User
from kubesvc.apiserver.authorization import Attributes, further_access
from kubesvc.apiserver.calls import Call
from kubesvc.apiserver.execsession import exec_options, exit_status, failure_status, terminal_sizes
from kubesvc.apiserver.hijack import stream_protocol
from kubesvc.apiserver.nodeproxy import Place, proxy_prefix, request_headers, rewrite_html, rewrite_link, rewritten
from kubesvc.apiserver.nodestreams import pod_port
from kubesvc.apiserver.podlogs import log_request
from kubesvc.apiserver.portforward import port_number, wanted_ports
from kubesvc.apiserver.routing import parse_target
from kubesvc.apiserver.websockets import V1, V1_BASE64, V4, V4_BASE64, V5, ChannelData, decode_message, encode_message


def query(**values: str | list[str]) -> dict[str, list[str]]:
    return {k: v if isinstance(v, list) else [v] for k, v in values.items()}


# -- channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [V5, V4, V1, V4_BASE64, V1_BASE64, ""])
@given(channel=st.integers(0, 9), data=st.binary(max_size=50))
def test_a_message_of_any_form_says_what_was_meant(protocol: str, channel: int, data: bytes) -> None:
    """NODE-102, NODE-103."""
    assert decode_message(protocol, encode_message(protocol, channel, data)) == ChannelData(channel, data)


@given(protocol=st.sampled_from([V5, V4, V4_BASE64]), message=st.one_of(st.binary(), st.text()))
def test_garbage_says_something_or_nothing(protocol: str, message: bytes | str) -> None:
    said = decode_message(protocol, message)
    assert said is None or 0 <= said.channel <= 255


MESSAGES = (
    ("v5 half-closes stdin by 255 and the channel", V5, b"\xff\x00", ChannelData(0, None)),
    ("v4 knows no half-close", V4, b"\xff\x00", ChannelData(255, b"\x00")),
    ("text on a binary form is its bytes", V4, "\x00ls\n", ChannelData(0, b"ls\n")),
    ("an empty message says nothing", V4, b"", None),
    ("a close that names no channel says nothing", V5, b"\xff", None),
    ("base64 that is none says nothing", V4_BASE64, "0***", None),
    ("nor does text beyond ASCII", V4_BASE64, "0ÿ", None),
)


@pytest.mark.parametrize(("name", "protocol", "message", "said"), MESSAGES, ids=[m[0] for m in MESSAGES])
def test_message(name: str, protocol: str, message: bytes | str, said: ChannelData | None) -> None:
    assert decode_message(protocol, message) == said


# -- exec -------------------------------------------------------------------------------------------------------------


def test_a_terminal_has_no_stderr_of_its_own() -> None:
    options = exec_options(
        query(command=["sh", "-c"], stdin="true", stdout="1", stderr="true", tty="true"), attach=False
    )
    assert (options.command, options.outputs, options.streams) == (
        ("sh", "-c"), (1,), ("error", "stdin", "stdout", "resize"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "attach", "words"),
    [
        (query(command="ls"), False, "you must specify at least 1 of stdin, stdout, stderr"),
        (query(tty="true"), True, "you must specify at least 1 of stdin, stdout, stderr"),
        (query(stdout="true"), False, "you must specify at least one command for the container"),
    ],
)
def test_refused_exec(asked: dict[str, list[str]], attach: bool, words: str) -> None:
    """NODE-100: no stream requested is a 400."""
    with pytest.raises(BadRequest, match=words):
        exec_options(asked, attach=attach)


def test_statuses_at_the_end() -> None:
    """NODE-106."""
    assert exit_status(("true",), 0) == {"metadata": {}, "status": "Success"}
    status = exit_status(("sh", "-c", "exit 7"), 7)
    assert (status["reason"], status["details"]) == (
        "NonZeroExitCode", {"causes": [{"reason": "ExitCode", "message": "7"}]},
    )  # fmt: skip
    assert status["message"].startswith("command terminated with non-zero exit code: ")
    failure = failure_status('container not found ("c")')
    assert (failure["status"], failure["reason"], failure["code"]) == ("Failure", "InternalError", 500)
    assert 'container not found ("c")' in failure["message"]  # NODE-114


SIZES: tuple[tuple[str, str, list[dict[str, int]]], ...] = (
    ("one object", '{"Width":80,"Height":24}', [{"Width": 80, "Height": 24}]),
    (
        "objects one after the other",
        '{"Width":80,"Height":24}\n{"Width":81,"Height":25}',
        [{"Width": 80, "Height": 24}, {"Width": 81, "Height": 25}],
    ),
    ("what was whole before garbage", '{"Width":80,"Height":24}x', [{"Width": 80, "Height": 24}]),
    ("sizes no terminal has", '{"Width":0,"Height":24}{"Width":80,"Height":70000}{"Width":"a"}[]', []),
)


@pytest.mark.parametrize(("name", "text", "sizes"), SIZES, ids=[s[0] for s in SIZES])
def test_terminal_sizes(name: str, text: str, sizes: list[dict[str, int]]) -> None:
    """NODE-105."""
    assert terminal_sizes(text.encode()) == sizes


def test_stream_protocols() -> None:
    """NODE-108: the first that both know; 403 for none."""
    assert stream_protocol(["v5.channel.k8s.io", V4, V1], (V4, V1)) == V4
    with pytest.raises(Forbidden, match=r"client supports \[v9\], server accepts \[v4"):
        stream_protocol(["v9"], (V4,))
    with pytest.raises(BadRequest, match="X-Stream-Protocol-Version is a required header"):
        stream_protocol([], (V4,))


ALICE = User("alice")
GETS = Attributes(ALICE, "get", resource="pods", namespace="d", name="p")


@pytest.mark.parametrize(
    ("access", "further"),
    [
        (replace(GETS, subresource="exec"), "create"),
        (replace(GETS, subresource="portforward"), "create"),
        (replace(GETS, subresource="attach", verb="create"), None),
        (replace(GETS, subresource="log"), None),
        (GETS, None),
    ],
)
def test_who_opens_a_stream_by_get_must_also_be_allowed_to_create_it(access: Attributes, further: str | None) -> None:
    """NODE-113."""
    found = further_access(access)
    assert (found.verb if found else None) == further


# -- logs -------------------------------------------------------------------------------------------------------------

LOGS: tuple[tuple[str, dict[str, list[str]], dict[str, Any]], ...] = (
    ("nothing but the log", query(), {}),
    ("kubectl logs -f --tail 5 --timestamps", query(follow="true", tailLines="5", timestamps="true"),
     {"follow": True, "tail_lines": 5, "timestamps": True}),
    ("a time in another zone", query(sinceTime="2026-01-02T03:04:05+01:00"),
     {"since_time": "2026-01-02T03:04:05+01:00"}),
    ("one stream of the previous run", query(previous="true", stream="Stderr", limitBytes="9"),
     {"previous": True, "stream": "Stderr", "limit_bytes": 9}),
)  # fmt: skip


@pytest.mark.parametrize(("name", "asked", "wanted"), LOGS, ids=[c[0] for c in LOGS])
def test_log_request(name: str, asked: dict[str, list[str]], wanted: dict[str, Any]) -> None:
    """NODE-95."""
    assert log_request("p", asked) == {"follow": False, "previous": False, "timestamps": False, **wanted}


REFUSED_LOGS: tuple[tuple[dict[str, list[str]], type[ApiError], str], ...] = (
    (query(tailLines="-1"), Invalid,
     'PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0'),
    (query(limitBytes="0"), Invalid, "limitBytes: Invalid value: 0: must be greater than 0"),
    (query(sinceSeconds="0"), Invalid, "sinceSeconds: Invalid value: 0: must be greater than 0"),
    (query(sinceSeconds="1", sinceTime="2026-01-02T03:04:05Z"), Invalid,
     "at most one of `sinceTime` or `sinceSeconds` may be specified"),
    (query(stream="Stdin"), Invalid,
     'stream: Unsupported value: "Stdin": supported values: "All", "Stderr", "Stdout"'),
    (query(sinceTime="yesterday"), BadRequest, "sinceTime"),
    (query(tailLines="many"), BadRequest, 'parsing "many": invalid syntax'),
)  # fmt: skip


@pytest.mark.parametrize(("asked", "error", "words"), REFUSED_LOGS, ids=[c[2] for c in REFUSED_LOGS])
def test_refused_log(asked: dict[str, list[str]], error: type[ApiError], words: str) -> None:
    with pytest.raises(error) as raised:
        log_request("p", asked)
    assert words in raised.value.message


# -- port forwarding --------------------------------------------------------------------------------------------------


def test_ports() -> None:
    """NODE-111; one parameter each, or several in one."""
    assert wanted_ports({"ports": ["80", "443,8080"]}) == [80, 443, 8080]
    assert [port_number(t) for t in ("1", "65535", "0", "65536", "-1", "", "８０", "http")] == [
        1, 65535, None, None, None, None, None, None,
    ]  # fmt: skip
    for bad in ({}, {"ports": ["http"]}, {"ports": [str(n) for n in range(1, 100)]}):
        with pytest.raises(BadRequest):
            wanted_ports(bad)


# -- proxies ----------------------------------------------------------------------------------------------------------

PREFIX = "/api/v1/namespaces/d/pods/p:80/proxy"
LINKS = (
    ("from the root", "/rewriteme", PREFIX + "/rewriteme"),
    ("with a query", "/a?b=/c#d", PREFIX + "/a?b=/c#d"),
    ("to the own host", "http://10.0.0.5:80/x/", PREFIX + "/x/"),
    ("relative", "style.css", "style.css"),
    ("to elsewhere", "https://example.com/x", "https://example.com/x"),
    ("already below the proxy", PREFIX + "/x", PREFIX + "/x"),
    ("no link at all", "http://[", "http://["),
)


@pytest.mark.parametrize(("name", "link", "expected"), LINKS, ids=[c[0] for c in LINKS])
def test_links(name: str, link: str, expected: str) -> None:
    assert rewrite_link(link, PREFIX, ("10.0.0.5:80",)) == expected


def test_pages() -> None:
    page = b'<a href="/rewriteme">/x</a><IMG class=a src=\'/i.png\'><p href="/no"><a href=/bare title="/t">'
    new = (
        f'<a href="{PREFIX}/rewriteme">/x</a><IMG class=a src=\'{PREFIX}/i.png\'><p href="/no">'
        f'<a href={PREFIX}/bare title="/t">'
    )
    assert rewrite_html(page, PREFIX, ()).decode() == new


@given(st.binary(max_size=200))
def test_any_page_survives(page: bytes) -> None:
    """Without a link from the root nothing changes; packed nonsense passes as it is."""
    if b"/" not in page:
        assert rewrite_html(page, PREFIX, ()) == page
    assert rewritten(page, packed=True, prefix=PREFIX, hosts=()) == page


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        (
            "/api/v1/namespaces/proxy/services/proxy:80/proxy/proxy/x",
            "/api/v1/namespaces/proxy/services/proxy:80/proxy",
        ),
        ("/api/v1/nodes/n1/proxy/x", "/api/v1/nodes/n1/proxy"),
    ],
)
def test_the_way_to_the_proxy(path: str, prefix: str) -> None:
    assert proxy_prefix(parse_target("GET", path, watch=False), path) == prefix


def test_logins_and_what_belongs_to_the_hop_go_no_further() -> None:
    sent = {
        "Authorization": "Bearer secret", "Impersonate-User": "bob", "Connection": "keep-alive, X-Hop", "X-Hop": "1",
        "Transfer-Encoding": "chunked", "Cookie": "mine", "Host": "api", "X-Forwarded-For": "192.0.2.1",
    }  # fmt: skip
    request = make_mocked_request("GET", "/x?q=1", headers=sent)
    passed = dict(request_headers(Call(request, parse_target("GET", "/x", watch=False), {}, "1", None)))
    assert passed.pop("X-Forwarded-For").startswith("192.0.2.1, ")
    assert passed == {
        "Cookie": "mine",
        "Host": "api",
        "X-Forwarded-Uri": "/x",
        "X-Forwarded-Host": "api",
        "X-Forwarded-Proto": "http",
    }


def test_targets_are_encoded_again() -> None:
    place = Place("n1", "http", "fd00::1", 80, "/a b/ü")
    assert (place.authority, place.target("q=%20")) == ("[fd00::1]:80", "/a%20b/%C3%BC?q=%20")


def test_pod_ports() -> None:
    ports = [{"containerPort": 8080, "name": "http"}]
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"ports": ports}]}}
    assert [pod_port(pod, p) for p in ("", "http", "9")] == [8080, 8080, 9]
    assert pod_port({"metadata": {"name": "p"}, "spec": {"containers": [{}]}}, "") == 0
    with pytest.raises(ApiError):
        pod_port(pod, "grpc")
