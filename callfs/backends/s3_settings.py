"""
What an operator sets of the S3 tier, and the keys that follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from callfs.config.schema import BackendConfig
from callfs.config.secret import Secret
from callfs.identifiers import is_blob_id


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """
    ``backend.s3_*``, by the same names.

    :param access_key: with ``secret_key``, or neither: then the credentials come from the AWS chain.
    :param endpoint: ``None``: AWS, in the region.
    :param timeout_seconds: ``server.file_op_timeout``: silence for so long is taken for a fault.
    """

    bucket: str
    key_prefix: str = ""
    addressing: str = "auto"
    access_key: Secret | None = None
    secret_key: Secret | None = None
    region: str = "us-east-1"
    endpoint: str | None = None
    server_side_encryption: str = "AES256"
    acl: str = "private"
    kms_key_id: str | None = None
    timeout_seconds: float = 10.0

    @classmethod
    def configured(cls, backend: BackendConfig, timeout_seconds: float) -> S3Settings:
        """
        What a configuration says.

        :param backend: with a bucket.
        :param timeout_seconds: ``server.file_op_timeout``.
        """
        assert backend.s3_bucket_name is not None
        return cls(
            bucket=backend.s3_bucket_name,
            key_prefix=backend.s3_key_prefix,
            addressing=backend.s3_addressing,
            access_key=backend.s3_access_key,
            secret_key=backend.s3_secret_key,
            region=backend.s3_region,
            endpoint=backend.s3_endpoint,
            server_side_encryption=backend.s3_server_side_encryption,
            acl=backend.s3_acl,
            kms_key_id=backend.s3_kms_key_id,
            timeout_seconds=timeout_seconds,
        )

    @property
    def place(self) -> str:
        """How messages call the bucket and the prefix."""
        prefix = f", prefix {self.key_prefix}" if self.key_prefix else ""
        return f"{self.bucket}{prefix}, at {self.endpoint or 'AWS'}"

    def write_headers(self) -> dict[str, str]:
        """What every new object is made with."""
        headers = {"content-type": "application/octet-stream"}
        if self.acl:
            headers["x-amz-acl"] = self.acl
        if self.server_side_encryption:
            headers["x-amz-server-side-encryption"] = self.server_side_encryption
        if self.kms_key_id:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.kms_key_id
        return headers


class S3Keys:
    """
    The keys of a file system's objects.

    A blob set aside has the instant in its key, so that the time is the one of this program's clock, to the
    microsecond, and a list alone tells it.

    :param prefix: what all keys begin with.
    """

    def __init__(self, prefix: str) -> None:
        self.identity = f"{prefix}callfs-store"
        self.probe = f"{prefix}callfs-probe"
        self.blobs = f"{prefix}blobs/"
        self.aside = f"{prefix}aside/"

    def blob(self, blob_id: str) -> str:
        """Where a blob is: folders by the end of its id, which is random, spread the load over a bucket."""
        return f"{self.blobs}{blob_id[-2:]}/{blob_id}"

    def blob_id(self, key: str) -> str | None:
        """Whose key this is; ``None``: no blob's."""
        blob_id = key.rpartition("/")[2]
        return blob_id if is_blob_id(blob_id) and key == self.blob(blob_id) else None

    def set_aside(self, blob_id: str, at: int) -> str:
        """Where a blob is that was set aside at the instant."""
        return f"{self.aside}{blob_id}/{at:020}"

    def set_aside_blob(self, key: str) -> tuple[str, int] | None:
        """Which blob was set aside here, and when; ``None``: none."""
        blob_id, _, at = key.removeprefix(self.aside).partition("/")
        if is_blob_id(blob_id) and at.isdecimal() and key == self.set_aside(blob_id, int(at)):
            return blob_id, int(at)
        return None
