"""Where requests go, and under which keys blobs are."""

from __future__ import annotations

import pytest

from callfs.backends.s3_address import S3Address, is_virtual
from callfs.backends.s3_settings import S3Keys, S3Settings
from callfs.config.schema import BackendConfig
from callfs.config.secret import Secret

ID = "01hf7yat00d00dhsr4d84vkbnf"


def address(**given: str | None) -> S3Address:
    """Of a bucket called ``files`` unless said otherwise."""
    return S3Address(S3Settings(**({"bucket": "files"} | given)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "url", "host"),
    [
        ({}, "https://files.s3.us-east-1.amazonaws.com/a", "files.s3.us-east-1.amazonaws.com"),
        ({"region": "cn-north-1"}, "https://files.s3.cn-north-1.amazonaws.com.cn/a", None),
        ({"bucket": "my.files"}, "https://s3.us-east-1.amazonaws.com/my.files/a", "s3.us-east-1.amazonaws.com"),
        ({"addressing": "path"}, "https://s3.us-east-1.amazonaws.com/files/a", None),
        ({"endpoint": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/files/a", "127.0.0.1:9000"),
        ({"endpoint": "https://s3.example.org:443"}, "https://s3.example.org:443/files/a", "s3.example.org"),
        ({"endpoint": "http://s3.example.org:443"}, "http://s3.example.org:443/files/a", "s3.example.org:443"),
        ({"endpoint": "https://[::1]:9000/base"}, "https://[::1]:9000/base/files/a", "[::1]:9000"),
        (
            {"endpoint": "https://s3.example.org", "addressing": "virtual"},
            "https://files.s3.example.org/a",
            "files.s3.example.org",
        ),
    ],
)
def test_addressing(given: dict[str, str], url: str, host: str | None) -> None:
    """The bucket is in the host or in the path, by setting or by what the endpoint is."""
    assert address(**given).url("a") == url
    assert host is None or address(**given).host == host


def test_the_bucket_itself() -> None:
    """A request to the bucket has a path in either style."""
    assert address().url("", [("uploads", None)]) == "https://files.s3.us-east-1.amazonaws.com/?uploads"
    path = address(endpoint="http://h:1")
    assert path.url("", [("b", "x y/+"), ("a", "")]) == "http://h:1/files?a=&b=x%20y%2F%2B"


def test_keys_are_percent_encoded() -> None:
    """Everything but unreserved characters and slashes is encoded, and copies name their source the same way."""
    assert address().url("a b/ü+~").endswith("/a%20b/%C3%BC%2B~")
    assert address().copy_source("a b/ü") == "files/a%20b/%C3%BC"


@pytest.mark.parametrize(("bucket", "virtual"), [("ab-c", True), ("a.b", False), ("Caps", False), ("a_b", False)])
def test_names_that_need_the_path(bucket: str, virtual: bool) -> None:
    """Only a name that a host can have, and the certificate covers, goes into the host by itself."""
    assert is_virtual(S3Settings(bucket=bucket)) is virtual


def test_keys() -> None:
    """A blob's key has a folder by the end of its id; other keys are no blob's."""
    keys = S3Keys("p/")
    assert keys.blob(ID) == f"p/blobs/nf/{ID}"
    assert keys.blob_id(keys.blob(ID)) == ID
    for key in (f"p/blobs/xx/{ID}", f"blobs/nf/{ID}", "p/blobs/nf/x", f"p/blobs/nf/{ID}/", "p/callfs-store"):
        assert keys.blob_id(key) is None


def test_keys_of_what_is_set_aside() -> None:
    """They carry the instant, and sort by it."""
    keys = S3Keys("p/")
    early, late = keys.set_aside(ID, 999), keys.set_aside(ID, 1_700_000_000_000_000)
    assert early < late
    assert keys.set_aside_blob(late) == (ID, 1_700_000_000_000_000)
    for key in (f"p/aside/{ID}", f"p/aside/{ID}/1", f"p/aside/{ID}/x", f"p/aside/x/{1:020}", keys.blob(ID)):
        assert keys.set_aside_blob(key) is None


def test_from_the_configuration() -> None:
    """Every setting of the configuration arrives."""
    config = BackendConfig(
        s3_bucket_name="files",
        s3_key_prefix="p/",
        s3_addressing="path",
        s3_access_key=Secret("an-access-key"),
        s3_secret_key=Secret("a-secret-key"),
        s3_region="eu-west-3",
        s3_endpoint="https://s3.example.org",
        s3_server_side_encryption="aws:kms",
        s3_acl="",
        s3_kms_key_id="key",
    )
    settings = S3Settings.configured(config, 7.0)
    assert settings == S3Settings(
        bucket="files",
        key_prefix="p/",
        addressing="path",
        access_key=Secret("an-access-key"),
        secret_key=Secret("a-secret-key"),
        region="eu-west-3",
        endpoint="https://s3.example.org",
        server_side_encryption="aws:kms",
        acl="",
        kms_key_id="key",
        timeout_seconds=7.0,
    )
    assert "a-secret-key" not in repr(settings)
