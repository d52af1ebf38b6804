"""
Copies that the server makes by itself.
"""

from __future__ import annotations

from callfs.backends.s3_errors import S3Unreachable
from callfs.backends.s3_multipart import S3Multipart
from callfs.backends.s3_objects import S3Objects
from callfs.backends.s3_parts import CopyLimits
from callfs.backends.s3_xml import ListedObject


class S3Copying:
    """
    Copies from key to key.

    :param limits: of one request.
    """

    def __init__(self, objects: S3Objects, multipart: S3Multipart, limits: CopyLimits) -> None:
        self._objects = objects
        self._multipart = multipart
        self._limits = limits

    async def copy(self, source: str, target: str) -> ListedObject:
        """
        Copy an object of any size; the copy, as it is seen afterwards.

        :raises callfs.backends.s3_errors.S3Fault: it wasn't made; among others, there is no source.
        """
        size = (await self._objects.head(source)).size
        if size > self._limits.most_bytes:
            await self._multipart.copy(source, target, size, self._limits)
        else:
            await self._objects.copy(source, target)
        copied = await self._objects.head(target)
        if copied.size != size:
            raise S3Unreachable(f"the copy has {copied.size} bytes instead of {size}")
        return copied
