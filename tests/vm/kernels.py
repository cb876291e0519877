"""The kernels that are tested, and the user space of each."""

from __future__ import annotations

from typing import NamedTuple

# More processes at once than fit into two gigabytes.
_TOO_BIG = ("test_every_process_of_a_burst_is_reported_or_counted_as_lost",)
# Slow under emulation, and tests of files, compilers or random inputs rather than of the kernel:
# `make test` runs them.
_LONG = (
    "test_check_policy",
    "test_objects",
    "test_offsets_are_the_compilers",
    "test_exits_of_two_hundred_earlier_processes_have_their_names",
    "test_a_thousand_lives_two_at_a_time",
    "test_any_arguments",
    "test_any_directory_and_name",
    "test_types_with_shifted_offsets_are_refused",
    "test_many_policies_are_compiled_side_by_side",
    "test_numbers[",  # not test_numbers_of_a_program
    "test_every_namespace_can_be_compared",
    "test_throttle",  # storms of 20,000 processes
    "test_policies_any",  # compiles and verifies many documents: several minutes
    "test_policy_stack",  # a collector compiles all policies in the guest
)
_EMULATED = (*_TOO_BIG, *_LONG)
# Emulated arm64 takes several seconds to compile one policy. What remains are system calls, kinds
# of programs, and process life.
_COMPILING = (
    "test_another_kernels_types_where_the_kernel_has_its_own",
    "test_types_of_another_kernel",
    "test_nothing_is_lost_in_a_storm_with_long_pauses_and_a_small_ring",  # 71 s
    "test_incomplete_pins_are_not_used",
    "test_everything_enabled_is_kept_too",
    "test_policies_agree",
    "test_policies_own_types",
    "test_policies_arguments",
    "test_policies_functions",
    "test_policies_processes",
    "test_policies_selectors",
    "test_policy_events",
    "test_enforcement_page",
    "test_policy_overrides",
    "test_policy_registers",
    "test_policy_signals",
    "test_policy_library",
    "test_program_probes",
    "test_rate_limit",
    "test_ready_made",
    "test_policy_manager",
)


class Machine(NamedTuple):
    """One kernel in one distribution on one architecture."""

    name: str  # KERNELS selects by it or by a word of it
    suite: str  # Debian suite that the kernel is from
    root: str  # Debian suite of user space: bookworm or trixie, they have Python 3.11 and 3.13
    arch: str  # Debian's word for the architecture
    cgroup: str  # v1 or v2
    left_out: tuple[str, ...] = _EMULATED  # kernel tests that cannot run there, or take too long

    @property
    def python(self) -> str:
        """Return the version of the root's Python."""
        return {"bookworm": "3.11", "trixie": "3.13"}[self.root]

    @property
    def engine(self) -> bool:
        """Return whether the root has a container engine that knows the capabilities we need."""
        return self.root != "bookworm"  # Docker 20.10 does not


MACHINES = (
    Machine("5.10", "bullseye", "bookworm", "amd64", "v1"),
    Machine("6.1", "bookworm", "bookworm", "amd64", "v2"),
    Machine("6.12", "trixie", "trixie", "amd64", "v2"),
    Machine("newest", "trixie-backports", "trixie", "amd64", "v2"),
    Machine("6.1-arm64", "bookworm", "bookworm", "arm64", "v2", (*_EMULATED, *_COMPILING)),
    Machine("6.12-arm64", "trixie", "trixie", "arm64", "v2", (*_EMULATED, *_COMPILING)),
)


def select(wanted: str) -> list[Machine]:
    """Return the machines that ``wanted`` names, separated by spaces or commas; empty: all."""
    names = wanted.replace(",", " ").split()
    known = {machine.name for machine in MACHINES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"KERNELS: no kernel {unknown[0]!r}: there are {', '.join(sorted(known))}")
    return [machine for machine in MACHINES if not names or machine.name in names]
