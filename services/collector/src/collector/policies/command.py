"""``tetra-collector --check-policy FILE...``: what is wrong with documents, without loading them.

Needs no rights and no server. Functions, arguments and tracepoints are checked against this
kernel's types. With the collector's rights it also finds out which mechanisms work here; without
them it assumes that all do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from collector.bpf import kernel
from collector.bpf.btf import VMLINUX, Btf
from collector.bpf.features import Features
from collector.errors import BtfError, KernelError
from collector.policies.check import Host
from collector.policies.files import Document, PolicyFiles
from collector.policies.plan import Plan
from collector.policies.plan_policy import check_document
from tracingpolicy import PolicyErrors, parse

_USAGE = "usage: tetra-collector --check-policy FILE..."


def check_policies(names: Iterable[str], btf: Path = VMLINUX) -> int:
    """Print every mistake, and a line for each good document; return the exit code."""
    documents = [document for name in names for document in _documents(Path(name))]
    if not documents:
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        host = _host(btf)
    except BtfError as error:
        print(f"warning: {error}: only the documents are checked", file=sys.stderr)
        host = None
    return max([_check(document, host) for document in documents])


def _documents(path: Path) -> tuple[Document, ...]:
    if path.is_dir():
        return PolicyFiles(path).documents()
    return PolicyFiles(None, [path]).documents()


def _host(btf: Path) -> Host:
    types = Btf.vmlinux(btf)
    try:
        kernel.check_rights()
    except KernelError:
        return Host(types, why_not=lambda _mechanism, _sleepable: "")
    return Host.of(Features(types))


def _check(document: Document, host: Host | None) -> int:
    file = str(document.path)
    if document.error:
        print(f"{file}: {document.error}", file=sys.stderr)
        return 1
    try:
        if host is None:
            policy = parse(document.text, file)
            print(f"{file}: policy {policy.name}")
            notices = policy.notices()
        else:
            plan = check_document(document.text, file, host)
            print(f"{file}: {_summary(plan)}")
            notices = plan.notices()
    except PolicyErrors as error:
        print(error, file=sys.stderr)
        return 1
    for notice in notices:
        print(f"warning: {file}: {notice}", file=sys.stderr)
    return 0


def _summary(plan: Plan) -> str:
    """Return ``policy NAME: HOOK by MECHANISM, ...``."""
    hooks = []
    for planned in plan.hooks:
        names = ", ".join(target.name for target in planned.targets[:3])
        more = len(planned.targets) - 3
        if more > 0:
            names += f" and {more} more"
        note = f" ({planned.note})" if planned.note else ""
        hooks.append(f"{names} by {planned.entry.value}{note}")
    return f"policy {plan.policy.name}: {'; '.join(hooks) or 'no hooks'}"
