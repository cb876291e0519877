"""Policies from files: a file that becomes invalid still provides its last valid policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from collector.policies.files import Document
from tracingpolicy.position import PolicyErrors

if TYPE_CHECKING:
    from tracingpolicy.model import Policy

log = structlog.get_logger()


class Documents:
    """The policy of each file; a file that becomes invalid still provides its last valid policy."""

    def __init__(self, parse: Callable[[str, str], Policy]) -> None:
        self._parse = parse
        self._texts: dict[str, str] = {}
        self._good: dict[str, Policy] = {}
        self._errors: dict[str, str] = {}
        self._duplicates: dict[str, str] = {}

    @property
    def refused(self) -> list[tuple[str, str]]:
        """Return the files that hold no policy at all, each with the reason."""
        return sorted((self._duplicates | self._errors).items())

    def read(self, documents: Iterable[Document]) -> list[Policy]:
        """Return the policies that should be loaded, in the order of the documents."""
        found: dict[tuple[str, str], Policy] = {}
        names, duplicates = set(), dict[str, str]()
        for document in documents:
            name = str(document.path)
            names.add(name)
            self._read(name, document)
            policy = self._good.get(name)
            if policy is None:
                continue
            first = found.setdefault((policy.name, policy.namespace), policy)
            if first is not policy:
                duplicates[name] = f"{name}: policy {policy.name} is also in {first.file}"
        for name in duplicates.keys() - self._duplicates.keys():
            log.error("policy file refused", error=duplicates[name])
        self._duplicates = duplicates
        for gone in self._texts.keys() - names:
            del self._texts[gone]
            self._good.pop(gone, None)
            self._errors.pop(gone, None)
        return list(found.values())

    def _read(self, name: str, document: Document) -> None:
        if document.error:
            self._texts[name] = ""
            self._refuse(name, f"{name}: {document.error}")
            return
        if self._texts.get(name) == document.text:
            return
        self._texts[name] = document.text
        try:
            self._good[name] = self._parse(document.text, name)
        except PolicyErrors as error:
            self._refuse(name, str(error))
        else:
            self._errors.pop(name, None)

    def _refuse(self, name: str, error: str) -> None:
        if self._errors.get(name) != error:
            self._errors[name] = error
            kept = self._good.get(name)
            log.error("policy file refused", error=error, still_loaded=kept.name if kept else None)
