"""Kubernetes' rules for names and labels, and label selectors."""

from __future__ import annotations

import re

from tracingpolicy.reading.document import Kind, Node
from tracingpolicy.reading.fields import Fields
from tracingpolicy.reading.report import Report, quoted
from tracingpolicy.selectors import LabelRequirement, LabelSelector

MAX_SUBDOMAIN = 253
MAX_LABEL = 63
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\Z")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
SUBDOMAIN_RULE = (
    f"at most {MAX_SUBDOMAIN} characters: a-z, 0-9, '-' and '.', every part between dots begins "
    "and ends with a letter or digit"
)
_LABEL_RULE = (
    f"at most {MAX_LABEL} characters: letters, digits, '-', '_' and '.', a letter or digit first "
    "and last"
)
_DNS_LABEL_RULE = (
    f"at most {MAX_LABEL} characters: a-z, 0-9 and '-', a letter or digit first and last"
)
LABEL_OPERATORS = {name: name for name in ("In", "NotIn", "Exists", "DoesNotExist")}


def is_subdomain(text: str) -> bool:
    """Return whether a text is a DNS-1123 subdomain."""
    return len(text) <= MAX_SUBDOMAIN and _SUBDOMAIN.match(text) is not None


def check_name(fields: Fields, key: str) -> str:
    """Return metadata.name, a DNS-1123 subdomain."""
    name = fields.text(key)
    if fields.given(key) and not is_subdomain(name):
        fields.fail(f"{quoted(name)} is not a valid name", key, SUBDOMAIN_RULE)
    return name


# Of containerSelector: the image's name, which no label could hold.
_REPOSITORY = "repo"
# Before labels that are not the pod's own: "k8s:io.kubernetes.pod.namespace".
_SOURCE = "k8s:"


def check_namespace(fields: Fields, key: str) -> str:
    """Return metadata.namespace, a DNS-1123 label."""
    name = fields.text(key)
    valid = len(name) <= MAX_LABEL and _DNS_LABEL.match(name) is not None
    if fields.given(key) and not valid:
        fields.fail(f"{quoted(name)} is not a valid namespace", key, _DNS_LABEL_RULE)
    return name


def text_map(fields: Fields, key: str, labels: bool) -> tuple[tuple[str, str], ...]:
    """Return a mapping of texts, sorted; of labels the values have rules, too."""
    found = []
    for name, (position, value) in fields.mapping(key).items():
        path = f"{fields.path}.{key}"
        where = position if position.line else value.position
        if not _is_key(name):
            fields.report.add(where, f"{path}: {quoted(name)} is not a valid key", _LABEL_RULE)
        if value.kind is not Kind.TEXT:
            fields.wrong(value, f"{path}.{name}", "a text")
        elif labels and name != _REPOSITORY and not _is_label_value(value.text):
            message = f"{path}.{name}: {quoted(value.text)} is not a valid label"
            fields.report.add(value.position, message, _LABEL_RULE)
        else:
            found.append((name, value.text))
    return tuple(sorted(found))


def label_selector(report: Report, node: Node, path: str) -> LabelSelector:
    """Return a Kubernetes label selector."""
    fields = Fields(report, node, path, ("matchLabels", "matchExpressions"))
    return LabelSelector(
        labels=text_map(fields, "matchLabels", labels=True),
        expressions=fields.each("matchExpressions", lambda n, p: _requirement(report, n, p)),
    )


def _requirement(report: Report, node: Node, path: str) -> LabelRequirement:
    keys = ("key", "operator", "values")
    fields = Fields(report, node, path, keys, required=("key", "operator"))
    key = fields.text("key")
    if fields.given("key") and not _is_key(key):
        fields.fail(f"{quoted(key)} is not a valid key", "key", _LABEL_RULE)
    operator = fields.choice("operator", LABEL_OPERATORS, "", "an operator of labels")
    values = []
    for text, value in fields.texts("values"):
        if key != _REPOSITORY and not _is_label_value(text):
            message = f"{path}.values: {quoted(text)} is not a valid label"
            report.add(value.position, message, _LABEL_RULE)
        values.append(text)
    if operator in ("In", "NotIn") and not fields.items("values"):
        fields.fail(f"operator {operator} needs values", "values")
    if operator in ("Exists", "DoesNotExist") and fields.items("values"):
        fields.fail(f"operator {operator} has no values", "values")
    return LabelRequirement(key=key, operator=operator, values=tuple(values))


def _is_key(text: str) -> bool:
    text = text.removeprefix(_SOURCE)
    prefix, slash, name = text.rpartition("/")
    if slash and not is_subdomain(prefix):
        return False
    return len(name) <= MAX_LABEL and _QUALIFIED.match(name) is not None


def _is_label_value(text: str) -> bool:
    return not text or (len(text) <= MAX_LABEL and _QUALIFIED.match(text) is not None)
