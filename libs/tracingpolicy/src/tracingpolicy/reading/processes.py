"""The filters of selectors that ask about the process: ids, binaries, namespaces, users, ..."""

from __future__ import annotations

from collections.abc import Mapping

from tracingpolicy.operators import Operator
from tracingpolicy.reading.document import Kind, Node
from tracingpolicy.reading.fields import U32, Fields
from tracingpolicy.reading.names import label_selector
from tracingpolicy.reading.report import Report, quoted, suggestion
from tracingpolicy.selectors import (
    MatchBinaries,
    MatchCapabilities,
    MatchContainers,
    MatchNamespaceChanges,
    MatchNamespaces,
    MatchPids,
    MatchUsers,
    MatchWorkloads,
)
from tracingpolicy.tables import CAPABILITIES
from tracingpolicy.values import CapabilitySet, ContainerField, Namespace, Range, UserId

MAX_BINARY_BYTES = 255
_UNSET_AUID = 0xFFFF_FFFF
_IN = {"In": Operator.IN, "NotIn": Operator.NOT_IN}
_TEXT = {
    **_IN,
    "Prefix": Operator.PREFIX,
    "NotPrefix": Operator.NOT_PREFIX,
    "Postfix": Operator.POSTFIX,
    "NotPostfix": Operator.NOT_POSTFIX,
}
_ENDS = (Operator.POSTFIX, Operator.NOT_POSTFIX)
_NAMESPACES = {one.value: one for one in Namespace}


def _operator(
    fields: Fields, names: Mapping[str, Operator], *, needs_values: bool = True
) -> Operator | None:
    """Return the operator; a filter without values says nothing, so that is a mistake."""
    operator: Operator | None = fields.choice("operator", dict(names), None, "an operator here")
    if needs_values and not fields.failed("values") and not fields.items("values"):
        fields.fail("values are missing", "values" if fields.has("values") else "")
    return operator


def read_pids(report: Report, node: Node, path: str) -> MatchPids | None:
    """Return an element of matchPIDs."""
    keys = ("operator", "values", "isNamespacePID", "followForks")
    fields = Fields(report, node, path, keys, required=("operator",))
    operator = _operator(fields, _IN)
    values = tuple(number for number, _ in fields.numbers("values"))
    return operator and MatchPids(
        operator=operator,
        values=values,
        is_namespace_pid=fields.flag("isNamespacePID"),
        follow_forks=fields.flag("followForks"),
        place=fields.place(),
    )


def read_binaries(report: Report, node: Node, path: str) -> MatchBinaries | None:
    """Return an element of matchBinaries or matchParentBinaries."""
    keys = ("operator", "values", "followChildren")
    fields = Fields(report, node, path, keys, required=("operator",))
    operator = _operator(fields, _TEXT, needs_values=False)
    follow = fields.flag("followChildren")
    if follow and operator not in (None, *_IN.values()):
        fields.fail("followChildren works with operators In and NotIn only", "followChildren")
    values = []
    for text, value in fields.texts("values"):
        _check_binary(report, value, f"{path}.values", text, operator)
        values.append(text.encode(errors="surrogatepass"))
    if not values and not fields.failed("values"):
        fields.doubt("without values it filters nothing")  # as in Tetragon
        return None
    return operator and MatchBinaries(
        operator=operator, values=tuple(values), follow_children=follow, place=fields.place()
    )


def _check_binary(
    report: Report, node: Node, path: str, text: str, operator: Operator | None
) -> None:
    longest = 127 if operator in _ENDS else MAX_BINARY_BYTES
    if not text:
        report.add(node.position, f"{path}: an empty text names no binary", "a path")
    elif len(text.encode(errors="surrogatepass")) > longest:
        report.add(node.position, f"{path}: the text is too long", f"at most {longest} bytes")
    elif operator not in (None, *_ENDS) and not text.startswith("/"):
        report.doubt(f"{path}: no binary has the path {quoted(text)}: it does not begin with /")


def read_namespaces(report: Report, node: Node, path: str) -> MatchNamespaces | None:
    """Return an element of matchNamespaces."""
    keys = ("namespace", "operator", "values")
    fields = Fields(report, node, path, keys, required=("namespace", "operator"))
    namespace: Namespace | None = fields.choice("namespace", _NAMESPACES, None, "a namespace")
    operator = _operator(fields, _IN)
    values, host = [], False
    for text, value in fields.texts("values"):
        if text == "host_ns":
            host = True
        elif text.isascii() and text.isdecimal() and int(text[:20]) <= U32:
            values.append(int(text))
        else:
            message = (
                f"{path}.values: {quoted(text)} is no namespace{suggestion(text, ['host_ns'])}"
            )
            report.add(value.position, message, 'an inode number in decimal, or "host_ns"')
    if namespace is None or operator is None:
        return None
    return MatchNamespaces(
        namespace=namespace,
        operator=operator,
        values=tuple(values),
        host=host,
        place=fields.place(),
    )


def read_namespace_changes(report: Report, node: Node, path: str) -> MatchNamespaceChanges | None:
    """Return an element of matchNamespaceChanges."""
    fields = Fields(report, node, path, ("operator", "values"), required=("operator",))
    operator = _operator(fields, _IN)
    values = []
    for text, value in fields.texts("values"):
        if text in _NAMESPACES:
            values.append(_NAMESPACES[text])
        else:
            message = f"{path}.values: {quoted(text)} is no namespace"
            message += suggestion(text, _NAMESPACES)
            report.add(value.position, message, ", ".join(_NAMESPACES))
    return operator and MatchNamespaceChanges(
        operator=operator, values=tuple(values), place=fields.place()
    )


def read_capabilities(report: Report, node: Node, path: str) -> MatchCapabilities | None:
    """Return an element of matchCapabilities or matchCapabilityChanges."""
    keys = ("type", "operator", "isNamespaceCapability", "values")
    fields = Fields(report, node, path, keys, required=("operator",))
    operator = _operator(fields, _IN)
    mask = 0
    for text, value in fields.texts("values"):
        if text.upper() in CAPABILITIES:
            mask |= 1 << CAPABILITIES[text.upper()]
        else:
            message = f"{path}.values: {quoted(text)} is no capability"
            message += suggestion(text, CAPABILITIES)
            report.add(value.position, message, "CAP_CHOWN, CAP_NET_ADMIN, ...")
    effective = CapabilitySet.EFFECTIVE
    return operator and MatchCapabilities(
        operator=operator,
        set=fields.member("type", CapabilitySet, effective, "a capability set"),
        mask=mask,
        is_namespace_capability=fields.flag("isNamespaceCapability"),
        place=fields.place(),
    )


def read_workloads(report: Report, node: Node, path: str) -> MatchWorkloads:
    """Return an element of matchWorkloads."""
    fields = Fields(report, node, path, ("podSelector", "containerSelector", "hostSelector"))
    pod, container = fields.entries.get("podSelector"), fields.entries.get("containerSelector")
    return MatchWorkloads(
        pod_selector=label_selector(report, pod, f"{path}.podSelector") if pod else None,
        container_selector=(
            label_selector(report, container, f"{path}.containerSelector") if container else None
        ),
        host_selector=host_selector(fields),
        place=fields.place(),
    )


def host_selector(fields: Fields) -> bool:
    """Return whether hostSelector is {}; anything else but null is a mistake."""
    if not fields.has("hostSelector"):
        return False
    node = fields.entries["hostSelector"]
    if node.kind is not Kind.MAPPING or node.entries:
        fields.fail("hostSelector selects all host processes or none", "hostSelector", "{} or null")
    return True


def read_users(report: Report, node: Node, path: str) -> MatchUsers | None:
    """Return an element of matchUsers, which only the own API version has."""
    keys = ("type", "operator", "values")
    fields = Fields(report, node, path, keys, required=("operator",))
    kind = fields.member("type", UserId, UserId.UID, "a user id")
    operator = _operator(fields, _IN)
    values: list[int | Range] = []
    for text, value in fields.texts("values"):
        ends = [int(end) if _is_user(end) else None for end in text.split(":", 1)]
        if text == "unset" and kind is UserId.AUID:
            values.append(_UNSET_AUID)
        elif len(ends) == 1 and ends[0] is not None:
            values.append(ends[0])
        elif len(ends) == 2 and ends[0] is not None and ends[1] is not None and ends[0] <= ends[1]:
            values.append(Range(ends[0], ends[1]))
        else:
            message = f"{path}.values: {quoted(text)} is no user id"
            allowed = 'decimal "0" to "4294967295", a range "1000:1999"'
            report.add(value.position, message, f'{allowed}, and "unset" of type auid')
    return operator and MatchUsers(
        type=kind, operator=operator, values=tuple(values), place=fields.place()
    )


def _is_user(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= U32


def read_containers(report: Report, node: Node, path: str) -> MatchContainers | None:
    """Return an element of matchContainers, which only the own API version has."""
    keys = ("field", "operator", "values")
    fields = Fields(report, node, path, keys, required=("field", "operator"))
    what = fields.member("field", ContainerField, ContainerField.ID, "a field of containers")
    operator = _operator(fields, _TEXT)
    values = []
    for text, value in fields.texts("values"):
        if not text:
            report.add(value.position, f"{path}.values: an empty text names no container")
        values.append(text)
    return operator and MatchContainers(
        what=what, operator=operator, values=tuple(values), place=fields.place()
    )
