"""Which kernels are tested, and in what each of them runs."""

from __future__ import annotations

from typing import NamedTuple

# More processes at once than two gigabytes have room for.
_TOO_BIG = ("test_twenty_thousand_at_once_are_told_or_their_loss_is",)
# Each compiles the probes once more: a minute on emulated arm64.
_COMPILING = (
    "test_types_that_are_a_little_off",
    "test_types_of_another_kernel",
    "test_probes_half_kept_are_not_taken",
    "test_everything_enabled_is_kept_too",
)


class Machine(NamedTuple):
    """One kernel in one distribution on one architecture."""

    name: str  # what KERNELS selects by, whole or as a word of it
    suite: str  # Debian suite that the kernel is from
    root: str  # Debian suite of user space: bookworm or trixie, they have Python 3.11 and 3.13
    arch: str  # Debian's word for the architecture
    cgroup: str  # v1 or v2
    left_out: tuple[str, ...] = _TOO_BIG  # kernel tests that it cannot run, or not in time

    @property
    def python(self) -> str:
        """Return the version of the root's Python."""
        return {"bookworm": "3.11", "trixie": "3.13"}[self.root]

    @property
    def engine(self) -> bool:
        """Tell whether the root has a container engine that knows the capabilities we need."""
        return self.root != "bookworm"  # Docker 20.10 does not


MACHINES = (
    Machine("5.10", "bullseye", "bookworm", "amd64", "v1"),
    Machine("6.1", "bookworm", "bookworm", "amd64", "v2"),
    Machine("6.12", "trixie", "trixie", "amd64", "v2"),
    Machine("newest", "trixie-backports", "trixie", "amd64", "v2"),
    Machine("6.1-arm64", "bookworm", "bookworm", "arm64", "v2", (*_TOO_BIG, *_COMPILING)),
    Machine("6.12-arm64", "trixie", "trixie", "arm64", "v2", (*_TOO_BIG, *_COMPILING)),
)


def select(wanted: str) -> list[Machine]:
    """Return the machines that ``wanted`` names, separated by spaces or commas; empty: all."""
    names = wanted.replace(",", " ").split()
    known = {machine.name for machine in MACHINES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"KERNELS: no kernel {unknown[0]!r}: there are {', '.join(sorted(known))}")
    return [machine for machine in MACHINES if not names or machine.name in names]
