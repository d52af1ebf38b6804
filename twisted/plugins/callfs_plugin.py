"""The ``twistd callfs`` command. This folder has no ``__init__.py``: the plugins of many projects share it."""

from twisted.application.service import ServiceMaker

callfs = ServiceMaker("CallFS", "callfs.tap", "A file system behind a REST API.", "callfs")
