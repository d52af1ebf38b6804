"""The Lua scripts of the Redis store, put together from their parts in ``schema/redis``."""

from __future__ import annotations

from importlib.resources import files

from callfs.redis_pool import Script


def _script(*parts: str) -> Script:
    folder = files("callfs.metadata") / "schema" / "redis"
    return Script("\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("common", *parts)))


OPEN = _script("open")
UPGRADE = _script("upgrade")
POINT = _script("point")
PAGES = _script("questions", "pages")
FACTS = _script("questions", "facts")
APPLY = _script("questions", "effects", "importing", "apply")
OUTCOME = _script("outcome")
END_TURN = _script("turn")
VERIFY = _script("verify")
EXPORT = _script("export")
