"""
What can go wrong with S3, by code: whether to try again, and what the operator has to do.

Decided by the stable code of an error, or by the status where there is none (a reply to HEAD has no body), never by
the text. Codes: "Error responses" in the Amazon S3 API Reference; those with an ``X`` at the front are MinIO's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from callfs.backends.s3_settings import S3Settings

PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
PASSING_CODES = frozenset(
    {
        "BadDigest",  # the bytes changed on their way: the next attempt sends them again
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
        "XMinioServerNotInitialized",
    }
)


class Cause(enum.Enum):
    """What an operator has to look at."""

    BUCKET = "bucket"
    ACCESS_KEY = "access_key"
    SECRET_KEY = "secret_key"  # noqa: S105 - a name
    EXPIRED = "expired"
    CLOCK = "clock"
    DENIED = "denied"
    FULL = "full"
    REGION = "region"
    ACL = "acl"
    ENCRYPTION = "encryption"
    UNSUPPORTED = "unsupported"


CAUSES: Mapping[str, Cause] = {
    "NoSuchBucket": Cause.BUCKET,
    "InvalidBucketName": Cause.BUCKET,
    "InvalidAccessKeyId": Cause.ACCESS_KEY,
    "SignatureDoesNotMatch": Cause.SECRET_KEY,
    "ExpiredToken": Cause.EXPIRED,
    "InvalidToken": Cause.EXPIRED,
    "TokenRefreshRequired": Cause.EXPIRED,
    "RequestTimeTooSkewed": Cause.CLOCK,
    "RequestExpired": Cause.CLOCK,
    "AccessDenied": Cause.DENIED,
    "AllAccessDisabled": Cause.DENIED,
    "AccountProblem": Cause.DENIED,
    "InvalidPayer": Cause.DENIED,
    "NotSignedUp": Cause.DENIED,
    "Forbidden": Cause.DENIED,
    "QuotaExceeded": Cause.FULL,
    "InsufficientStorage": Cause.FULL,
    "InsufficientCapacity": Cause.FULL,
    "StorageQuotaExceeded": Cause.FULL,
    "ServiceQuotaExceeded": Cause.FULL,
    "XMinioStorageFull": Cause.FULL,
    "XMinioAdminBucketQuotaExceeded": Cause.FULL,
    "PermanentRedirect": Cause.REGION,
    "TemporaryRedirect": Cause.REGION,
    "Redirect": Cause.REGION,
    "AuthorizationHeaderMalformed": Cause.REGION,
    "IllegalLocationConstraintException": Cause.REGION,
    "InvalidRegion": Cause.REGION,
    "AccessControlListNotSupported": Cause.ACL,
    "InvalidEncryptionAlgorithmError": Cause.ENCRYPTION,
    "NotImplemented": Cause.UNSUPPORTED,
}

_STATUS_CODES: Mapping[int, str] = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    403: "Forbidden",
    404: "NotFound",
    412: "PreconditionFailed",
    416: "InvalidRange",
    501: "NotImplemented",
    507: "InsufficientStorage",
}

_KEYS_SOURCE = "or what the AWS chain (environment, profile, instance role) gives, if no keys are configured"

ADVICE: Mapping[Cause, str] = {
    Cause.BUCKET: (
        "The bucket {bucket} doesn't exist there. Create it, or correct backend.s3_bucket_name, "
        "backend.s3_endpoint and backend.s3_region."
    ),
    Cause.ACCESS_KEY: f"The access key isn't known there. Correct backend.s3_access_key, {_KEYS_SOURCE}.",
    Cause.SECRET_KEY: (
        f"The secret key isn't that of the access key. Correct backend.s3_secret_key, {_KEYS_SOURCE}."
    ),
    Cause.EXPIRED: (
        "The temporary credentials have expired, and the AWS chain has no newer ones. Renew them where they come "
        "from."
    ),
    Cause.CLOCK: (
        "This machine's clock and the server's are too far apart{skew}. Synchronise the clock, for instance with "
        "systemd-timesyncd or chrony."
    ),
    Cause.DENIED: (
        "These credentials may not do this ({operation}). Grant what the operator's guide lists under S3 tier: "
        "s3:ListBucket, s3:ListBucketMultipartUploads, s3:GetObject, s3:PutObject, s3:PutObjectAcl, "
        "s3:DeleteObject, s3:AbortMultipartUpload, s3:ListMultipartUploadParts, and the use of the KMS key if "
        "there is one."
    ),
    Cause.FULL: "There is no room left there, or a quota is exhausted. Make room, or raise the quota.",
    Cause.REGION: "The bucket is in another region{region}. Set backend.s3_region to it.",
    Cause.ACL: 'The bucket takes no access control lists. Set backend.s3_acl to "" (empty).',
    Cause.ENCRYPTION: (
        "The encryption that is asked for can't be used. Check backend.s3_kms_key_id, that the key is enabled and "
        "in the bucket's region, and that these credentials may use it."
    ),
    Cause.UNSUPPORTED: (
        "The server doesn't support something that is asked for. Where it has no encryption of its own (MinIO "
        'without a KMS), set backend.s3_server_side_encryption to "" (empty).'
    ),
}


_UNTRUSTED = (
    "Its TLS certificate isn't good. Correct backend.s3_endpoint; if the certificate is signed by an authority of "
    "your own, add that to what the system trusts, or name its file in the environment variable SSL_CERT_FILE."
)


class S3Fault(Exception):
    """
    A request has failed.

    :ivar passing: it may go well when tried again.
    """

    passing = True


class S3Unreachable(S3Fault):
    """No reply, or half a reply: it can't be told whether the request was carried out."""


class S3Closed(S3Unreachable):
    """The backend was closed meanwhile."""

    def __init__(self) -> None:
        super().__init__("this node is stopping")


class S3Untrusted(S3Fault):
    """Nobody knows who answers there: the TLS certificate isn't good."""

    passing = False


class S3NoCredentials(S3Fault):
    """The AWS chain has none; the message is for the operator."""

    passing = False


class S3Refusal(S3Fault):
    """
    S3 has said no.

    :param code: S3's; from the status where it gave none.
    :param region: where the bucket is, if S3 said so.
    :param skew_seconds: how far this machine's clock is ahead of the server's.
    :param retry_after_seconds: what the server wishes.
    """

    def __init__(
        self,
        operation: str,
        status: int,
        code: str = "",
        message: str = "",
        region: str = "",
        skew_seconds: float = 0.0,
        retry_after_seconds: float = 0.0,
    ) -> None:
        self.operation = operation
        self.status = status
        self.code = code or _STATUS_CODES.get(status, f"HTTP{status}")
        self.region = region
        self.skew_seconds = skew_seconds
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{operation}: {status} {self.code}" + (f": {message}" if message else ""))

    @property
    def cause(self) -> Cause | None:
        """What the operator has to look at; ``None``: nothing that this table knows."""
        if self.code.startswith("KMS."):
            return Cause.ENCRYPTION
        if self.code == "AuthorizationHeaderMalformed" and not self.region:
            return Cause.ACCESS_KEY
        return CAUSES.get(self.code, Cause.FULL if self.status == 507 else None)

    @property
    def passing(self) -> bool:  # type: ignore[override]
        """Whether it may go well when tried again."""
        if self.code in PASSING_CODES:
            return True
        return self.status in PASSING_STATUSES and self.cause is None

    @property
    def is_missing(self) -> bool:
        """There is no such object; of a missing bucket that can't be said."""
        return self.code in ("NoSuchKey", "NotFound")


def advice(fault: S3Fault, settings: S3Settings) -> str:
    """What an operator is told: where, what is wrong, what to do, and S3's own words."""
    where = f"The S3 tier ({settings.place}) can't be used."
    if isinstance(fault, S3NoCredentials):
        return f"{where} {fault}"
    if isinstance(fault, S3Untrusted):
        return f"{where} {_UNTRUSTED} [{fault}]"
    if isinstance(fault, S3Refusal) and fault.cause is not None:
        text = ADVICE[fault.cause].format(
            bucket=settings.bucket,
            operation=fault.operation,
            region=f": {fault.region}" if fault.region else "",
            skew=f" ({fault.skew_seconds:+.0f} s)" if fault.skew_seconds else "",
        )
        return f"{where} {text} [{fault}]"
    return f"{where} {'It refused' if isinstance(fault, S3Refusal) else 'It does not answer'} [{fault}]"
