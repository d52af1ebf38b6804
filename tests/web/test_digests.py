"""Digests in headers."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.errors import BadRequest
from callfs.web.digests import expected, repr_digest

SHA256 = hashlib.sha256(b"x").digest()
SHA512 = hashlib.sha512(b"x").digest()
MD5 = hashlib.md5(b"x").digest()


def b64(value: bytes) -> str:
    """Base64 as text."""
    return base64.b64encode(value).decode()


class TestExpected:
    """What a request announces."""

    def test_nothing_is_announced_without_headers(self) -> None:
        """No header, no digest."""
        assert expected({}) == ()

    @given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
    def test_both_algorithms_of_one_header(self, short: bytes, long: bytes) -> None:
        """A dictionary with several digests announces them all."""
        header = f"sha-512=:{b64(long)}:, sha-256=:{b64(short)}:"
        for name in ("content-digest", "repr-digest"):
            assert expected({name: header}) == (("sha512", long), ("sha256", short))

    def test_all_three_headers_together(self) -> None:
        """Each header counts; the same digest twice is one."""
        text = f"sha-256=:{b64(SHA256)}:"
        found = expected({"content-digest": text, "repr-digest": text, "content-md5": b64(MD5)})
        assert found == (("sha256", SHA256), ("md5", MD5))

    @pytest.mark.parametrize(
        "extra",
        [
            "crc32c=:AAAA:",
            'x="a, b=:c:"',
            "x=1.5",
            "x=?1",
            "x=token;q=1",
            "x",
            'x=("a" b);p',
            "md5=:AAAA:",
        ],
    )
    def test_unknown_algorithms_are_ignored(self, extra: str) -> None:
        """RFC 9530, section 5: whatever structured value they have."""
        assert expected({"content-digest": extra}) == ()
        text = f"{extra}, sha-256=:{b64(SHA256)}:;note=1"
        assert expected({"content-digest": text}) == (("sha256", SHA256),)

    def test_the_last_of_a_key_counts(self) -> None:
        """RFC 8941, section 3.2."""
        text = f"sha-256=:{b64(bytes(32))}:, sha-256=:{b64(SHA256)}:"
        assert expected({"content-digest": text}) == (("sha256", SHA256),)

    @pytest.mark.parametrize(
        "text",
        [
            "sha-256",
            "sha-256=abc",
            f"sha-256={b64(SHA256)}",
            f"sha-256=:{b64(SHA256)}",
            f"sha-256=:{b64(SHA512)}:",
            f"sha-512=:{b64(SHA256)}:",
            "sha-256=::",
            "sha-256=:====:",
            f"sha-256=:{b64(SHA256)}:,",
            f"sha-256=:{b64(SHA256)}: sha-512=:{b64(SHA512)}:",
            f"SHA-256=:{b64(SHA256)}:",
            "=",
            '"',
        ],
    )
    def test_what_cannot_be_read_is_refused(self, text: str) -> None:
        """A client that announces a digest relies on it: ignoring it would betray that."""
        for name in ("content-digest", "repr-digest"):
            with pytest.raises(BadRequest, match="Digest"):
                expected({name: text})

    @pytest.mark.parametrize("text", ["", "abc", b64(SHA256), MD5.hex(), "ä"])
    def test_a_malformed_content_md5_is_refused(self, text: str) -> None:
        """It must be 16 bytes in base64."""
        with pytest.raises(BadRequest, match="Content-MD5"):
            expected({"content-md5": text})

    @given(st.text(max_size=60))
    def test_no_text_makes_it_fail_otherwise(self, text: str) -> None:
        """Digests or 400, whatever is sent."""
        for name in ("content-digest", "content-md5"):
            try:
                expected({name: text})
            except BadRequest:
                continue

    def test_a_long_header_takes_no_long_time(self) -> None:
        """Nothing in the grammar backtracks: a hostile header of 64 KiB is refused at once."""
        for text in (
            "a=(" + "b" * 65536,
            "a=(" + " " * 65536,
            "a=(" + "b " * 32768,
            'a="' + "\\\\" * 32768,
            "a" + ";b=1" * 16384 + ",",
            "a=b;" * 16384,
        ):
            with pytest.raises(BadRequest):
                expected({"content-digest": text})


class TestReprDigest:
    """What a response says."""

    @given(st.binary(min_size=32, max_size=32))
    def test_a_client_can_send_it_back(self, digest: bytes) -> None:
        """The form that is sent is the form that is understood."""
        assert expected({"repr-digest": repr_digest(digest)}) == (("sha256", digest),)
