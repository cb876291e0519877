"""The typed form of selectors: which calls a hook reports, and what it does with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tracingpolicy.actions import ActionKind
from tracingpolicy.operators import Operator
from tracingpolicy.position import Place
from tracingpolicy.values import (
    CapabilitySet,
    ContainerField,
    Namespace,
    Range,
    RateLimitScope,
    UserId,
    Value,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequirement:
    """An element of ``matchExpressions``; operator In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """A Kubernetes label selector; an empty one selects everything."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[LabelRequirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueFilter:
    """An element of matchArgs, matchData or matchReturnArgs.

    ``operands`` are positions in the hook's ``args`` or ``data`` (0 for the return value): one, or
    two for CapabilitiesGained (old, new), or those that the expression of CelExpr uses.

    Where an operand's type is AUTO, or a ``resolve`` ends at another type than the document says,
    the values are typed when the kernel's types are known: `tracingpolicy.reading.filters.typed`.
    """

    operands: tuple[int, ...]
    operator: Operator
    values: tuple[Value, ...] = ()
    texts: tuple[str, ...] = field(default=(), compare=False)  # as written
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchPids:
    """Thread group ids, those of the process or of an ancestor."""

    operator: Operator  # IN or NOT_IN
    values: tuple[int, ...]
    is_namespace_pid: bool = False
    follow_forks: bool = False
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchBinaries:
    """Paths of executables, in matchBinaries and matchParentBinaries."""

    operator: Operator  # IN, NOT_IN, PREFIX, NOT_PREFIX, POSTFIX, NOT_POSTFIX
    values: tuple[bytes, ...]
    follow_children: bool = False
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchNamespaces:
    """Inode numbers of one namespace of the current task."""

    namespace: Namespace
    operator: Operator  # IN or NOT_IN
    values: tuple[int, ...] = ()
    host: bool = False  # ``host_ns`` is among the values
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchNamespaceChanges:
    """Namespaces that differ from those at exec."""

    operator: Operator  # IN or NOT_IN
    values: tuple[Namespace, ...]
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchCapabilities:
    """Capabilities that the task has, or, in matchCapabilityChanges, that differ from exec's."""

    operator: Operator  # IN or NOT_IN
    set: CapabilitySet = CapabilitySet.EFFECTIVE
    mask: int = 0  # bit N is capability N
    is_namespace_capability: bool = False
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchWorkloads:
    """Pods, containers and host processes, as the policy's own selectors choose them."""

    pod_selector: LabelSelector | None = None
    container_selector: LabelSelector | None = None
    host_selector: bool = False
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchUsers:
    """User ids of the current task; own API version only. An unset auid is 4294967295."""

    type: UserId
    operator: Operator  # IN or NOT_IN
    values: tuple[int | Range, ...]
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchContainers:
    """The container of the current task; own API version only."""

    what: ContainerField
    operator: Operator  # IN, NOT_IN, PREFIX, NOT_PREFIX, POSTFIX, NOT_POSTFIX
    values: tuple[str, ...]
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An element of matchActions or matchReturnActions."""

    kind: ActionKind
    rate_limit_ms: int = 0  # 0: none
    rate_limit_scope: RateLimitScope = RateLimitScope.THREAD
    kernel_stack_trace: bool = False
    user_stack_trace: bool = False
    ima_hash: bool = False
    arg_error: int = 0
    arg_signal: int = 0
    arg_sock: int = 0  # position in the hook's args
    arg_url: str = ""
    arg_fqdn: str = ""
    arg_index: int = 0
    arg_value: int = 0
    arg_regs: tuple[str, ...] = ()
    arg_new_symbol: str = ""
    arg_new_address: int | None = None
    arg_new_offset: int | None = None
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """All filters must match; then the actions run. Of a hook's selectors the first match wins."""

    pids: tuple[MatchPids, ...] = ()
    binaries: tuple[MatchBinaries, ...] = ()
    parent_binaries: tuple[MatchBinaries, ...] = ()
    namespaces: tuple[MatchNamespaces, ...] = ()
    namespace_changes: tuple[MatchNamespaceChanges, ...] = ()
    capabilities: tuple[MatchCapabilities, ...] = ()
    capability_changes: tuple[MatchCapabilities, ...] = ()
    workloads: tuple[MatchWorkloads, ...] = ()
    users: tuple[MatchUsers, ...] = ()
    containers: tuple[MatchContainers, ...] = ()
    args: tuple[ValueFilter, ...] = ()
    data: tuple[ValueFilter, ...] = ()
    return_args: tuple[ValueFilter, ...] = ()
    actions: tuple[Action, ...] = ()  # none: Post
    return_actions: tuple[Action, ...] = ()
    label: str = ""
    place: Place = field(default=Place(), compare=False)
