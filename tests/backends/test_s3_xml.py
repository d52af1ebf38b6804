"""Replies of S3, understood or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callfs.backends.s3_xml import (
    NotUnderstood,
    UploadedPart,
    check_completed,
    format_completion,
    parse_copied_etag,
    parse_error,
    parse_objects,
    parse_parts,
    parse_upload_id,
    parse_uploads,
)

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
PARSERS: list[Callable[[bytes], object]] = [
    parse_objects,
    parse_uploads,
    parse_parts,
    parse_upload_id,
    parse_copied_etag,
    check_completed,
]


def test_objects() -> None:
    """A page of objects: keys are decoded, times are instants, whatever the fraction has."""
    page = parse_objects(
        f"""<?xml version="1.0"?><ListBucketResult {NAMESPACE}><IsTruncated>true</IsTruncated>
        <EncodingType>url</EncodingType>
        <Contents><Key>a%20b%2B%C3%BC+c</Key><Size>5</Size><LastModified>2026-01-02T03:04:05.678Z</LastModified></Contents>
        <Contents><Key>z</Key><Size>0</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>
        </ListBucketResult>""".encode()
    )
    assert page.truncated
    assert [(item.key, item.size, item.modified_at) for item in page.objects] == [
        ("a b+ü c", 5, 1_767_323_045_678_000),
        ("z", 0, 1_767_323_045_000_000),
    ]


def test_uploads() -> None:
    """A page of uploads, and where the next begins."""
    page = parse_uploads(
        f"""<ListMultipartUploadsResult {NAMESPACE}><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>
        <NextUploadIdMarker>u</NextUploadIdMarker><Upload><Key>a</Key><UploadId>1</UploadId>
        <Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload></ListMultipartUploadsResult>""".encode()
    )
    assert page.next_markers == ("k", "u")
    assert [(item.key, item.upload_id) for item in page.uploads] == [("a", "1")]


def test_blanks_before_a_completion() -> None:
    """S3 sends blanks while it puts an object together."""
    check_completed(b"\n  \n<?xml version='1.0'?><CompleteMultipartUploadResult/>")


def test_completion() -> None:
    """Parts are named in their order, with their checksums."""
    body = format_completion([UploadedPart(2, '"b"', "BB=="), UploadedPart(1, '"a"')]).decode()
    assert body.index("<PartNumber>1<") < body.index("<PartNumber>2<")
    assert '<ETag>"a"</ETag></Part>' in body
    assert "<ChecksumSHA256>BB==</ChecksumSHA256>" in body


def test_errors() -> None:
    """An error is known by its root, with or without a namespace; other things are none."""
    found = parse_error(b"<Error><Code>C</Code><Message>M</Message><Region>R</Region></Error>")
    assert found is not None
    assert (found.code, found.message, found.region) == ("C", "M", "R")
    assert parse_error(f"<Error {NAMESPACE}><Code>C</Code></Error>".encode()) is not None
    for body in (b"", b"<html>", b"<CopyObjectResult/>", b"gateway timeout"):
        assert parse_error(body) is None


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<",
        b"<Other/>",
        b"<Error><Code>InternalError</Code></Error>",
        b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<InitiateMultipartUploadResult/>",
        b"<CopyObjectResult><ETag/></CopyObjectResult>",
    ],
)
def test_what_is_no_reply(parse: Callable[[bytes], object], body: bytes) -> None:
    """What S3 doesn't reply to this is refused, never taken for an empty list or a success."""
    with pytest.raises(NotUnderstood):
        parse(body)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_noise(body: bytes) -> None:
    """Any bytes are understood or refused, nothing else."""
    for parse in PARSERS:
        with pytest.raises(NotUnderstood):
            parse(body)
