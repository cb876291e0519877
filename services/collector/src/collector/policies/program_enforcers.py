"""The programs of spec.enforcers: at their functions a notified thread is stopped."""

from __future__ import annotations

from collector.policies.arguments.base import Unit
from collector.policies.ctext import Lines, comment
from collector.policies.plan import OverrideBy, PlannedEnforcer


def enforcer_text(name: str, planned: PlannedEnforcer, unit: Unit) -> str:
    """Return the function of an enforcer; one serves all its targets."""
    unit.headers.add("enforcers.h")
    unit.maps.acting()
    out = Lines()
    out.add(
        "struct notification note;",
        "u32 mode = policy_mode();",
        "",
        "if (mode != MODE_ENFORCE || !take_notification(&note))",
        "\treturn 0;",
        "if (note.signal)",
        "\tsend_signal(mode, note.signal);",
    )
    if planned.override is OverrideBy.FMOD_RET:
        out.add("if (note.error)", "\toverride(mode, note.error);")
    elif planned.override is OverrideBy.HELPER:
        out.add(
            "if (note.error && may_override(mode) == COUNTER_OVERRIDE)",
            "\tbpf_override_return(ctx, (u64)(s64)note.error);",
        )
    out.add("return 0;")
    head = comment(f"enforcer: {', '.join(one.name for one in planned.targets[:4])}")
    return f"{head}\nint {name}(u64 *ctx)\n{{\n{out.text()}\n}}"
