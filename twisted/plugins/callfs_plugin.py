"""The ``twistd callfs`` command. This folder has no ``__init__.py``: twisted.plugins is a namespace of many projects."""

from twisted.application.service import ServiceMaker

callfs = ServiceMaker("CallFS", "callfs.tap", "A file system behind a REST API.", "callfs")
