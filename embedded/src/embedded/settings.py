"""Settings of the launcher: its state folder and the addresses it listens on."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

import readymade
from chassis.settings import from_flags
from embedded.errors import EmbeddedError


def _host_and_port(address: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}", address):
        raise ValueError(f"{address!r} is not host:port")
    return address


def _ready_made(text: str) -> str:
    if text:
        readymade.selection(text)  # raises ReadyError, a ValueError
    return text


class Settings(BaseSettings):
    """Run NATS, collector and gateway on this machine and show its processes until Ctrl-C.

    Needs root. All services listen on loopback and stop with this command; recorded events stay in
    the state folder. Each flag below is also an environment variable with the prefix TETRA_. The
    services inherit the environment, so it can hold their settings too: NODE_NAME, TETRA_LOG_LEVEL,
    and those that `tetra-collector --help` and `tetra-gateway --help` list.

    examples:

      sudo tetra-embedded

      sudo tetra-embedded --listen-address 0.0.0.0:54321 --state-dir /var/lib/tetra
    """

    model_config = SettingsConfigDict(
        env_prefix="TETRA_",
        cli_prog_name="tetra-embedded",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
    )

    state_dir: Annotated[
        Path, Field(description="folder for the event stream, the logs and compiled programs")
    ] = Path("~/.local/state/tetra")
    nats_port: Annotated[int, Field(description="port of NATS on 127.0.0.1", ge=1, le=65535)] = 4222
    listen_address: Annotated[
        str,
        AfterValidator(_host_and_port),
        Field(description="host:port that the gateway serves on"),
    ] = "localhost:54321"

    columns: Annotated[
        bool,
        Field(
            description="write every event into columns too: fast answers about the last 30 days "
            "(tetra getevents --count-by)"
        ),
    ] = False

    policies: Annotated[
        str,
        AfterValidator(_ready_made),
        Field(
            description="ready-made policies to load: files,network; with parameters: "
            "'files paths=/etc,/srv; network'"
        ),
    ] = ""
    tracing_policy: Annotated[
        Path | None, Field(description="a tracing policy to load; checked before anything starts")
    ] = None
    tracing_policy_dir: Annotated[
        Path | None,
        Field(
            description="folder of tracing policies; a changed file replaces its policy "
            "(default: /etc/tetragon/tetragon.tp.d)"
        ),
    ] = None


def load(args: list[str]) -> Settings:
    """Return the settings from ``args`` and the environment; raise `EmbeddedError`."""
    try:
        settings = from_flags(Settings, args)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        cause = first["msg"].removeprefix("Value error, ")
        cause = cause[0].lower() + cause[1:]
        raise EmbeddedError(f"settings: TETRA_{name}: {cause}") from None
    settings.state_dir = settings.state_dir.expanduser().absolute()
    for name in ("tracing_policy", "tracing_policy_dir"):
        if path := getattr(settings, name):
            setattr(settings, name, path.expanduser().absolute())
    return settings
