"""SPDY frames: what is encoded is decoded, however it is cut; garbage is refused and never crashes (NODE-115)."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.apiserver.spdy import (
    DICTIONARY,
    HEAD,
    MOST_CONTROL_BYTES,
    MOST_HEADERS,
    Data,
    Frame,
    GoAway,
    MoreHeaders,
    Other,
    Ping,
    Reset,
    SpdyDecoder,
    SpdyEncoder,
    SpdyError,
    SynReply,
    SynStream,
    control,
)

stream_ids = st.integers(0, 2**31 - 1)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Lu", "Lt")), max_size=12)
values = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), min_size=1, max_size=3)
headers = st.dictionaries(names.map(str.lower).filter(lambda n: n == n.lower()), values.map(tuple), max_size=5)
numbers = st.integers(0, 2**32 - 1)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(SynStream, stream_ids, headers, st.booleans(), stream_ids, st.integers(0, 7)),
    st.builds(SynReply, stream_ids, headers, st.booleans()),
    st.builds(MoreHeaders, stream_ids, headers, st.booleans()),
    st.builds(Data, stream_ids, st.binary(max_size=300), st.booleans()),
    st.builds(Reset, stream_ids, numbers),
    st.builds(Ping, numbers),
    st.builds(GoAway, stream_ids, numbers),
)


def decoded(data: bytes, cuts: list[int]) -> list[Frame]:
    decoder, before = SpdyDecoder(), 0
    found: list[Frame] = []
    for cut in [*sorted(c % (len(data) + 1) for c in cuts), len(data)]:
        found += decoder.feed(data[before:cut])
        before = cut
    return found


def test_the_dictionary_is_the_one_both_sides_know() -> None:
    """A zlib stream names its dictionary by its Adler-32, which peers check."""
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(frames, max_size=12), st.lists(st.integers(0, 5000), max_size=8))
def test_what_is_encoded_is_decoded_however_it_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    encoder = SpdyEncoder()
    assert decoded(b"".join(encoder.encode(f) for f in sent), cuts) == sent


@given(st.binary(max_size=400))
def test_garbage_gives_frames_or_is_refused(data: bytes) -> None:
    try:
        for frame in SpdyDecoder().feed(data):
            assert frame is not None
    except SpdyError:
        pass


@given(st.integers(1, 9), st.binary(max_size=60))
def test_control_frames_of_garbage_are_read_or_refused(type: int, payload: bytes) -> None:
    decoder = SpdyDecoder()
    try:
        (frame,) = decoder.feed(control(type, payload))
        assert frame is not None
    except SpdyError:
        pass


def test_frames_nobody_needs_pass() -> None:
    """SETTINGS and WINDOW_UPDATE are read over; what follows them is found."""
    data = control(4, b"\0\0\0\0") + control(9, b"\0\0\0\1\0\0\1\0") + SpdyEncoder().encode(Ping(7))
    assert decoded(data, []) == [Other(4), Other(9), Ping(7)]


TOO_MANY = {str(n): ("",) for n in range(MOST_HEADERS + 1)}
REFUSED = (
    ("another version of the protocol", HEAD.pack(1 << 31 | 2 << 16 | 6, 4) + b"\0\0\0\1"),
    ("a control frame beyond all reason", HEAD.pack(1 << 31 | 3 << 16 | 1, MOST_CONTROL_BYTES + 1)),
    ("a reset without a code", control(3, b"\0\0\0\1")),
    ("headers that are not zlib", control(2, b"\0\0\0\1" + b"nonsense")),
    ("more headers than anyone sends", SpdyEncoder().encode(SynReply(1, TOO_MANY))),
    ("headers that unpack without end", SpdyEncoder().encode(SynReply(1, {"a": ("x" * (1 << 20),)}))),
)  # fmt: skip


@pytest.mark.parametrize(("name", "data"), REFUSED, ids=[n for n, _ in REFUSED])
def test_refused(name: str, data: bytes) -> None:
    with pytest.raises(SpdyError):
        list(SpdyDecoder().feed(data))


def test_names_are_sent_in_lower_case() -> None:
    assert decoded(SpdyEncoder().encode(SynStream(1, {"streamType": ("data",)})), []) == [
        SynStream(1, {"streamtype": ("data",)})
    ]


def test_data_that_fits_no_frame_is_not_sent() -> None:
    with pytest.raises(ValueError, match="at most 16777215"):
        SpdyEncoder().encode(Data(1, bytes(1 << 24)))
