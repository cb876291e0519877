"""Errors of the exporter.

ServiceError (chassis: one line on stderr, exit code)
├── ConfigError    the file of sinks is wrong; every mistake is in the text
└── SinkError      a sink cannot work with these settings
DeliveryError      the receiver did not accept the events; they are sent again
"""

from __future__ import annotations

from chassis.errors import ServiceError


class ConfigError(ServiceError):
    """The file of sinks is wrong."""


class SinkError(ServiceError):
    """A sink cannot work with these settings."""


class DeliveryError(Exception):
    """The receiver did not accept the events; they are sent again."""
