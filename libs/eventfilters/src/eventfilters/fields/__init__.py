"""The fields of ``tetragon.Filter``: one module each, of the same name, with a `Builder` ``build``.

A new filter is a new module and its name in the list below.
"""

from __future__ import annotations

from importlib import import_module

from eventfilters.predicate import Builder

# In the order in which they are asked: the cheap ones first. pid_set comes late, since it learns
# only from events that reach it.
NAMES = (
    "event_set",
    "policy_names",
    "pid",
    "in_init_tree",
    "namespace",
    "session",
    "unit",
    "health_check",
    "capabilities",
    "binary_regex",
    "arguments_regex",
    "parent_binary_regex",
    "parent_arguments_regex",
    "container_id",
    "pod_regex",
    "namespace_regex",
    "container_name_regex",
    "ancestor_binary_regex",
    "file_below",
    "peer",
    "labels",
    "pid_set",
    "cel_expression",
)

BUILDERS: tuple[Builder, ...] = tuple(
    import_module(f"eventfilters.fields.{name}").build for name in NAMES
)
