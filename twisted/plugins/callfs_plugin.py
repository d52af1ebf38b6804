"""The ``twistd callfs`` command. This folder has no ``__init__.py``: it is shared by the plugins of many projects."""

from twisted.application.service import ServiceMaker

callfs = ServiceMaker("CallFS", "callfs.tap", "A file system behind a REST API.", "callfs")
