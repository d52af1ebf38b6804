"""``callfs config init``: a first configuration with secrets of its own."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import click

from callfs.cli.options import config_option, config_path

_TEMPLATE = """\
# Every other setting has its default: see docs/configuration.rst and etc/callfs/config.yaml.
server:
  # This machine alone; ":8443" is every address. It is plain HTTP: put a TLS proxy in front of what others reach.
  listen_addr: "127.0.0.1:8443"

auth:
  api_key_users:
    admin: {key}
  admins: [admin]
  internal_proxy_secret: {internal}
  single_use_link_secret: {link}

backend:
  localfs_root_path: {root}

metadata_store:
  sqlite_path: {database}
"""


def first_configuration(data: Path, new_secret: Callable[[], str]) -> str:
    """
    A configuration in YAML with one user, ``admin``, who is an administrator.

    :param data: where files and the database go; a relative path counts from the configuration's folder.
    :param new_secret: makes an unguessable text.
    """
    return _TEMPLATE.format(
        key=json.dumps(new_secret()),
        internal=json.dumps(new_secret()),
        link=json.dumps(new_secret()),
        root=json.dumps(str(data)),
        database=json.dumps(str(data / "callfs.sqlite3")),
    )


@click.command()
@config_option
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where config.yaml is written; created if missing. By default the working directory.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where files and the database go; created if missing. By default the folder data beside it.",
)
def init(directory: Path | None, data: Path | None) -> None:
    """
    Write a first configuration with freshly made keys.

    It goes to config.yaml in --directory, or to the YAML file that -c names, and is readable by its owner alone.
    One that is there already is never overwritten.
    """
    target = _target(config_path(), directory)
    content = first_configuration(
        Path("data") if data is None else data.absolute(), lambda: secrets.token_urlsafe(24)
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_new(target, content)
        (target.parent / "data" if data is None else data).mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        click.echo(f"{error.filename} is there already and stays as it is.", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"{error.filename or target}: {error.strerror}", err=True)
        sys.exit(1)
    click.echo(f"Wrote {target}, with a key for the user admin in it.")


def _target(config: Path | None, directory: Path | None) -> Path:
    if config is None:
        return (directory or Path()) / "config.yaml"
    if directory is not None:
        raise click.UsageError("Give --config or --directory, not both.")
    if config.suffix.lower() not in (".yaml", ".yml"):
        raise click.UsageError("What is written is YAML: the name must end in .yaml or .yml.")
    return config


def _write_new(target: Path, content: str) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
