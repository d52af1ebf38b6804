"""How an inode looks to a client."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs import paths
from callfs.errors import InvalidPath
from callfs.model import BlobRef, Inode, InodeType, LocalPlacement, Placement, S3Placement
from callfs.web.representations import (
    attachment,
    encoded,
    entry,
    file_headers,
    location,
    modified_at,
    storable_content_type,
)

MTIME = 1_700_000_000_123_456


def a_file(path: str = "/docs/a.txt", placement: Placement = LocalPlacement("other"), **more: object) -> Inode:
    """A file as metadata has it."""
    values = {
        "id": "1" * 32,
        "path": path,
        "parent_id": "2" * 32,
        "type": InodeType.FILE,
        "mode": 0o644,
        "owner": "alice",
        "mtime": MTIME,
        "ctime": MTIME,
        "created_at": MTIME,
        "content_type": "text/plain",
        "content_id": "c" * 32,
        "blob": BlobRef("b" * 26, 5, bytes(32), placement),
    }
    return Inode(**(values | more))


A_DIRECTORY = a_file("/docs", type=InodeType.DIRECTORY, mode=0o755, content_type=None, content_id=None, blob=None)


class TestEntries:
    """JSON in listings."""

    def test_a_file_has_all_fields(self) -> None:
        """Exactly those of the contract, in its order."""
        (line,) = encoded([a_file()], "here")
        assert list(msgspec.json.decode(line).items()) == [
            ("name", "a.txt"),
            ("path", "/docs/a.txt"),
            ("type", "file"),
            ("size", 5),
            ("mode", "0644"),
            ("owner", "alice"),
            ("mtime", "2023-11-14T22:13:20.123456Z"),
            ("etag", '"' + "c" * 32 + '"'),
            ("content_type", "text/plain"),
            ("backend", "localfs"),
            ("instance_id", "other"),
        ]

    def test_a_directory_has_no_content(self) -> None:
        """What only a file has is null."""
        found = entry(A_DIRECTORY, "here")
        assert (found.etag, found.content_type, found.backend, found.instance_id) == (None, None, None, None)
        assert (found.type, found.size, found.mode) == (InodeType.DIRECTORY, 0, "0755")

    def test_a_file_in_a_bucket_is_at_the_node_that_answers(self) -> None:
        """Bytes on no node's own disk are named after the one that serves them."""
        found = entry(a_file(placement=S3Placement()), "here")
        assert (found.backend, found.instance_id) == ("s3", "here")


class TestHeaders:
    """What is said of a file beside its bytes."""

    def test_a_file_has_all_headers(self) -> None:
        """Exactly those of the contract; the length is the transport's."""
        assert file_headers(a_file(), "here") == {
            "Content-Type": "text/plain",
            "Accept-Ranges": "bytes",
            "ETag": '"' + "c" * 32 + '"',
            "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
            "X-CallFS-Type": "file",
            "X-CallFS-Size": "5",
            "X-CallFS-Mode": "0644",
            "X-CallFS-Owner": "alice",
            "X-CallFS-MTime": "2023-11-14T22:13:20.123456Z",
            "X-CallFS-Backend": "localfs",
            "X-CallFS-Instance-ID": "other",
            "Repr-Digest": f"sha-256=:{'A' * 43}=:",
        }

    def test_without_a_stored_type_it_is_bytes(self) -> None:
        """application/octet-stream."""
        assert file_headers(a_file(content_type=None), "here")["Content-Type"] == "application/octet-stream"

    def test_last_modified_is_never_in_the_future(self) -> None:
        """An mtime that was set ahead shows the time of the setting (RFC 9110, section 8.8.2.1)."""
        assert modified_at(a_file(mtime=MTIME + 10**15)) == MTIME
        assert modified_at(a_file(mtime=5)) == 5

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
    def test_an_attachment_names_any_file(self, name: str) -> None:
        """filename* is ASCII without separators and decodes to the name (RFC 8187)."""
        value = attachment(name)
        prefix, _, quoted = value.partition("''")
        assert prefix == "attachment; filename*=UTF-8"
        assert unquote(quoted, errors="strict") == name
        assert set(quoted) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`|~%")

    @given(st.text(st.characters(codec="utf-8"), max_size=40))
    def test_a_location_leads_back_to_the_path(self, raw: str) -> None:
        """Decoded as any request target is, it gives the same path."""
        try:
            path = paths.canonical(raw)
        except InvalidPath:
            return
        url = location(a_file(path))
        assert url.isascii()
        assert not set(url) & set('?# "<>')
        assert paths.from_url(url.removeprefix("/v1/files").encode())[0] == path

    def test_a_directory_is_located_with_its_slash(self) -> None:
        """So that a client sees what it is; the root has just one."""
        assert location(A_DIRECTORY) == "/v1/files/docs/"
        assert location(a_file("/", type=InodeType.DIRECTORY, blob=None)) == "/v1/files/"


class TestContentTypes:
    """What may be stored and served again."""

    @pytest.mark.parametrize(
        "text",
        [
            "text/plain",
            "text/plain; charset=utf-8",
            'multipart/mixed; boundary="a b;\\"c"',
            "application/vnd.x+json;a=b;c=d",
            "*/*",
        ],
    )
    def test_a_media_type_is_kept(self, text: str) -> None:
        """As it was sent, without the blanks around it."""
        assert storable_content_type(f" {text}\t") == text

    @pytest.mark.parametrize(
        "text",
        [
            None,
            "",
            "text",
            "text/",
            "/plain",
            "text/plain\r\nX-Evil: 1",
            "text/plain\x00",
            "text/plain; charset=ü",
            "text/pl ain",
            "text/plain, text/html",
            "text/" + "x" * 300,
        ],
    )
    def test_anything_else_is_not(self, text: str | None) -> None:
        """Nothing that could break a header, nothing without end."""
        assert storable_content_type(text) is None

    def test_a_hostile_type_takes_no_long_time(self) -> None:
        """Nothing in the grammar backtracks without end."""
        for piece in (";   ", "; a=b ", ' ; a="\\"', ";;", "a", " "):
            for end in ("x", "\0", '"'):
                storable_content_type("text/plain" + (piece * 240)[:240] + end)

    @given(st.text(max_size=80))
    def test_what_is_kept_fits_in_one_header_line(self, text: str) -> None:
        """Printable ASCII and tabs, at most 255 of them."""
        kept = storable_content_type("text/plain;" + text)
        assert kept is None or (kept.isascii() and len(kept) <= 255 and kept.replace("\t", "").isprintable())
