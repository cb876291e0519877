"""Settings from flags and environment: ``--log-level`` overrides ``TETRA_LOG_LEVEL``."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from chassis.errors import SettingsError

S = TypeVar("S", bound=BaseSettings)

ENV_PREFIX = "TETRA_"

_STYLE = SettingsConfigDict(
    env_prefix=ENV_PREFIX,
    populate_by_name=True,
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_avoid_json=True,
    cli_hide_none_type=True,
)


class ServiceSettings(BaseSettings):
    """Settings of every service."""

    model_config = _STYLE

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, else one JSON object a line"
    )
    scheduling: Literal["batch", "normal"] = Field(
        "batch",
        description="batch: a wake-up of this service does not take the CPU from another program "
        "(SCHED_BATCH); normal: it may",
    )


def load(settings: type[S], service: str, argv: list[str] | None = None) -> S:
    """Return the settings of ``tetra-<service>``; raise `SettingsError` naming what is wrong.

    ``argv`` are the flags; None takes those of this process.
    """
    named: type[S] = type(
        settings.__name__,
        (settings,),
        {
            "__module__": settings.__module__,
            "__doc__": f"Each --flag is also an environment variable: --log-level is "
            f"{ENV_PREFIX}LOG_LEVEL.",
            # Named again here: a second base such as BusSettings would undo the flags' style.
            "model_config": SettingsConfigDict(**_STYLE, cli_prog_name=f"tetra-{service}"),
        },
    )
    try:
        return CliApp.run(named, cli_args=argv)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]) or "settings"
        field = settings.model_fields.get(name)
        env = (
            field.validation_alias
            if field and isinstance(field.validation_alias, str)
            else ENV_PREFIX + name.upper()
        )
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        raise SettingsError(f"settings: {env} (--{name.replace('_', '-')}): {message}") from None
