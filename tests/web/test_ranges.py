"""Which bytes a Range header asks for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.errors import RangeNotSatisfiable
from callfs.model import ByteRange
from callfs.web.ranges import MAX_RANGES, content_range, multipart, select

numbers = st.integers(0, 40)
specs = st.one_of(
    st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    numbers.map(lambda first: f"{first}-"),
    numbers.map(lambda length: f"-{length}"),
)


def naive_bytes(spec: str, size: int) -> list[int]:
    """The offsets a single range names, found by looking at every byte."""
    first, last = spec.split("-")
    if not first:
        return [offset for offset in range(size) if offset >= size - int(last)]
    return [offset for offset in range(size) if int(first) <= offset and (not last or offset <= int(last))]


class TestSelection:
    """Against the plainest model there is."""

    @given(st.lists(specs, min_size=1, max_size=20), st.integers(0, 30))
    def test_it_selects_what_looking_at_every_byte_selects(self, asked: list[str], size: int) -> None:
        """The bytes of each range, in the order asked for, are those that the naive model names."""
        expected = [found for spec in asked if (found := naive_bytes(spec, size))]
        header = "bytes=" + ",".join(asked)
        if size == 0 and any(re.fullmatch("-[1-9][0-9]*", spec) for spec in asked):
            assert select(header, size) is None
        elif not expected:
            with pytest.raises(RangeNotSatisfiable) as caught:
                select(header, size)
            assert caught.value.size == size
        elif len(expected) > MAX_RANGES or sum(map(len, expected)) > size:
            assert select(header, size) is None
        else:
            selected = select(header, size)
            assert selected is not None
            assert [list(range(part.start, part.end)) for part in selected] == expected

    @given(st.text(max_size=30), st.integers(0, 1000))
    def test_no_header_makes_it_fail_otherwise(self, text: str, size: int) -> None:
        """Whatever is sent, the outcome is ranges inside the file, the whole file, or 416."""
        try:
            selected = select("bytes=" + text, size)
        except RangeNotSatisfiable:
            return
        assert selected is None or all(0 <= part.start < part.end <= size for part in selected)

    @pytest.mark.parametrize(
        "header",
        [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=0-1,x",
            "bytes=0 - 1",
            "bytes=0-1;2-3",
            "bytes=--1",
            "bytes=0-0, bytes=1-1",
            "items=0-1",
            "0-1",
            "bytes=\u0660-\u0661",
            "bytes:0-1",
        ],
    )
    def test_what_is_malformed_is_ignored(self, header: str) -> None:
        """A header that isn't well formed, or of another unit, asks for the whole file."""
        assert select(header, 100) is None

    @pytest.mark.parametrize("header", ["bytes=0-4", "BYTES=0-4", " bytes = 0-4", "bytes=,0-4 ,", "bytes=00-0004"])
    def test_blanks_case_and_empty_elements_make_no_difference(self, header: str) -> None:
        """The unit is compared without case and lists may have empty elements (RFC 9110, 5.6.1)."""
        assert select(header, 100) == (ByteRange(0, 5),)

    def test_without_a_header_it_is_the_whole_file(self) -> None:
        """No Range, no selection."""
        assert select(None, 100) is None

    def test_numbers_of_any_length_are_understood(self) -> None:
        """Thousands of digits are a number beyond the end, not a failure."""
        assert select("bytes=0-" + "9" * 9000, 100) == (ByteRange(0, 100),)
        with pytest.raises(RangeNotSatisfiable):
            select(f"bytes={'9' * 9000}-", 100)

    def test_a_suffix_longer_than_the_file_is_the_file(self) -> None:
        """RFC 9110, section 14.1.2."""
        assert select("bytes=-200", 100) == (ByteRange(0, 100),)

    def test_an_empty_suffix_is_not_satisfiable(self) -> None:
        """The last 0 bytes are nothing."""
        with pytest.raises(RangeNotSatisfiable):
            select("bytes=-0", 100)

    def test_an_empty_file_has_no_first_byte(self) -> None:
        """The range from 0 of an empty file isn't satisfiable, its last bytes are the whole of it."""
        with pytest.raises(RangeNotSatisfiable):
            select("bytes=0-", 0)
        assert select("bytes=-5", 0) is None

    def test_sixteen_ranges_are_sent_and_seventeen_are_not(self) -> None:
        """More than 16 ranges get the whole file."""
        sixteen = ",".join(f"{n}-{n}" for n in range(MAX_RANGES))
        assert len(select(f"bytes={sixteen}", 100) or ()) == 16
        assert select(f"bytes={sixteen},50-50", 100) is None

    def test_never_more_bytes_than_the_file(self) -> None:
        """Overlapping ranges that add up to more than the file get the file once."""
        assert select("bytes=0-49,50-99", 100) == (ByteRange(0, 50), ByteRange(50, 100))
        assert select("bytes=0-50,50-99", 100) is None


class TestFraming:
    """multipart/byteranges and Content-Range."""

    def test_content_range_counts_inclusively(self) -> None:
        """The last byte is named, not the one after it."""
        assert content_range(ByteRange(2, 5), 10) == "bytes 2-4/10"

    def test_each_part_has_its_headers_and_the_body_its_end(self) -> None:
        """The layout of RFC 9110, section 14.6, byte for byte."""
        pieces = multipart((ByteRange(0, 1), ByteRange(4, 6)), 9, "text/plain", "B")
        content = b"012345678"
        body = b"".join(p if isinstance(p, bytes) else content[p.start : p.end] for p in pieces)
        assert body == (
            b"--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-0/9\r\n\r\n0"
            b"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 4-5/9\r\n\r\n45"
            b"\r\n--B--\r\n"
        )
