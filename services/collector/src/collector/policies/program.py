"""One program in C: from the hook to the record, or at return from the pending record.

Order: mode, numbers, process, short texts, objects; then scratch space, texts and paths; the rest
of the arguments when a selector has matched; rate limit, stacks, the ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from collector.policies.actions import REPORTING, SelectorActions, count_call, sock_call
from collector.policies.actions.acting import ActingText, acts
from collector.policies.arguments import READERS
from collector.policies.arguments.base import Arg, Cost, Unit
from collector.policies.arguments.buffers import copy_at_return, keep_for_return
from collector.policies.arguments.files import look, sight
from collector.policies.ctext import Lines, comment, negated
from collector.policies.plan import (
    Mechanism,
    OverrideBy,
    Plan,
    PlannedArgument,
    PlannedHook,
    ReturnedValue,
    SyscallArgument,
    SyscallNumber,
    Target,
)
from collector.policies.plan_returns import reports_failures, wanted_failures
from collector.policies.selectors.workloads import of_policy
from collector.policies.sources import Frame, expression
from collector.policies.steps import Values, describe, steps
from tracingpolicy.actions import OWN_ACTIONS, ActionKind
from tracingpolicy.model import Kprobe
from tracingpolicy.selectors import Action, Selector
from tracingpolicy.types import OF_OBJECTS, TYPES, ArgumentType, Family

_SOCKETS = (ArgumentType.SOCK, ArgumentType.SOCKET, ArgumentType.FD_SOCK)
_COUNTED = (ArgumentType.SOCK_SENT, ArgumentType.SOCK_RECEIVED, ArgumentType.SOCK_USED)
_PENDING_NUMBERS_MAX = 4  # numbers that PENDING_NUMBERS of bpf/tracing/returns.h has room for
_LONG = (Family.TEXT, Family.PATH, Family.UNIX_ADDRESS)


@dataclass(slots=True)
class HookText:
    """The functions of one planned hook, for targets that have the same arguments."""

    plan: Plan
    hook: PlannedHook
    target: Target
    first_counter: int
    unit: Unit

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """The hook's selectors; none means one that matches always."""
        return self.hook.hook.selectors or (Selector(),)

    def function(self, name: str, frame: Frame) -> str:
        """Return the program at the hook, or at its return."""
        out = Lines()
        args = self.target.args if self.target.args is not None else self.hook.args
        frame = replace(frame, together=_reads_together(args, frame))
        values = Values.of(args, self.hook.data, self.unit, frame, out)
        if any(one.type is ArgumentType.SOCK_AGE for one in args):
            self._use_owners()
        if any(one.type in _COUNTED for one in args):
            self._use_bytes()
        self._begin(frame, out)
        if frame.at_return and self.hook.exit is not None:
            self._return(values)
        else:
            if frame.at_return:
                self._check_outcome(frame, out)
            self._filter(values)
            if frame.at_return:
                self._returned_alone(values)
            self._act(values, "matchActions", [one.actions for one in self.selectors])
            self._record(values)
        self._end(values)
        head = comment(f"{frame.mechanism.value}: {self.target.name}")
        kind = "s64" if self._has_verdict else "int"
        return f"{head}\n{kind} {name}(u64 *ctx)\n{{\n{out.text()}\n}}"

    @property
    def _has_verdict(self) -> bool:
        return self.hook.override is OverrideBy.RESULT

    # --- the beginning: which hook, whether the policy is on

    def _begin(self, frame: Frame, out: Lines) -> None:
        if frame.dispatched or frame.every_syscall:
            self.unit.headers.add("dispatch.h")
        index = "bpf_get_attach_cookie(ctx)" if frame.by_cookie else "NUMBER(NUMBER_HOOK)"
        out.add("struct scratch *s = NULL;", f"u32 hook = {index};")
        if self._has_verdict:
            out.add("s64 verdict = 0;")
        mode = "policy_mode()"
        if acts(self.selectors, at_return=frame.at_return):
            mode = "mode"
            out.add("u32 mode = policy_mode();")
        out.add("", f"if ({mode} == MODE_OFF)", "\tgoto leave;")
        if frame.counts_calls:
            self.unit.headers.add("calls.h")
            self.unit.maps.calls()
            out.add(f"count_call({expression(SyscallNumber(), frame)});")
        if frame.together:
            out.add("", f"SYSCALL_WORDS_AT(words, {frame.saved_registers()});")

    def _check_abi(self, frame: Frame, out: Lines) -> None:
        """After the filters: it costs more than most of them, and matters to calls that match."""
        if self.target.syscall is not None and frame.dispatched:
            wanted = "!" if self.target.syscall.compat else ""
            out.comment("system calls of the other ABI have the same numbers")
            out.add(f"if ({wanted}is_compat_call())", "\tgoto leave_matched;")

    # --- filters

    def _filter(self, values: Values) -> None:
        count, out = len(self.selectors), values.out
        workload = of_policy(self.plan.policy, self.unit)
        if workload is not None:
            self.unit.headers.update(workload.headers)
            values.prepared.update(workload.prepare)
            out.add("", comment(workload.what), *workload.prepare)
            out.add(f"if ({negated(workload.condition)})", "\tgoto filtered;")
        if count > 1:
            out.add("", f"u32 candidates = {(1 << count) - 1:#x}; /* selectors that may match */")
        for step in steps(self.selectors, values):
            out.add("")
            values.read(step)
            # What a comparison of text leaves open is much: it is forgotten after each one.
            after_each = step.cost in (Cost.TEXT, Cost.PATH)
            for selector, condition, what in step.conditions:
                out.comment(what)
                if count == 1:
                    out.add(f"if ({negated(condition)})", "\tgoto filtered;")
                    continue
                bit = f"{1 << selector:#x}"
                out.add(f"if ((candidates & {bit}) && {negated(condition)})")
                out.add(f"\tcandidates &= ~{bit}u;")
                if after_each:
                    out.add("candidates = any_number(candidates);")
            if count > 1 and step.conditions:
                if not after_each:
                    out.add("candidates = any_number(candidates);")
                out.add("if (!candidates)", "\tgoto filtered;")
        out.add("")
        chain = "".join(f"candidates & {1 << n:#x} ? {n} : " for n in range(count - 1))
        out.add(f"u32 selector = {chain}{count - 1}; /* the first that matches */")
        self._check_abi(values.frame, out)

    # --- actions that act

    def _act(self, values: Values, section: str, actions: Sequence[tuple[Action, ...]]) -> None:
        text = ActingText(self.hook, values, self.first_counter, len(self.selectors) > 1)
        for number, some in enumerate(actions):
            text.write(number, section, some)

    def _note_fall_back(self, record: str, values: Values) -> None:
        if acts(self.selectors, at_return=values.frame.at_return):
            values.out.add(
                "if (fell_back(mode))", f"\t{record}->record.flags |= TRACING_FELL_BACK;"
            )

    # --- the record

    def _record(self, values: Values) -> None:
        out = values.out
        actions = [SelectorActions.at_entry(one) for one in self.selectors]
        self._track(actions, values, ActionKind.TRACK_SOCK)
        self._count_bytes(actions, values)
        if not self._acts_at_return():
            self._track(actions, values, ActionKind.UNTRACK_SOCK, posting=False)
            if not any(one.posts for one in actions):
                out.comment("matchActions: NoPost")
                out.add(f"count({self._counter('COUNTER_NOT_POSTED')});")
                return
            self._leave_unposted(actions, values)
        if self._only_numbers(actions, values):
            self._track(actions, values, ActionKind.UNTRACK_SOCK)
            self._record_numbers(actions, values)
            return
        values.take_scratch()
        out.add("begin_record(&s->record, hook, selector);")
        if values.frame.at_return:
            out.add("s->record.flags |= TRACING_RETURNED;")
        self._note_fall_back("s", values)
        self._attribute(values)
        self._track(actions, values, ActionKind.UNTRACK_SOCK)
        for number, one in enumerate(actions):
            if one.last:
                self._if_selector(number, f"s->record.action = {one.last};", out)
        for arg in values.reported():
            if self.hook.exit is not None and arg.planned.argument.return_copy:
                values.fetch(arg)
                keep_for_return(arg, out)
            else:
                values.write(arg)
        self._finish(actions, values)

    def _only_numbers(self, actions: Sequence[SelectorActions], values: Values) -> bool:
        """Whether the record's size is known: no texts, nothing that can fail, no extras."""
        extras = any(
            one.rate_limited() or one.kernel_stack or one.user_stack or one.ima_hash
            for one in actions
        )
        plain = all(
            TYPES[arg.type].family is Family.NUMBER and not arg.can_fail
            for arg in values.reported()
        )
        return plain and not extras and self.hook.exit is None and not values.scratch

    def _record_numbers(self, actions: Sequence[SelectorActions], values: Values) -> None:
        out, args = values.out, values.reported()
        self._throttle(out)
        out.add(
            "struct {",
            "\tstruct tracing_record record;",
            f"\tstruct number_item items[{len(args)}];",
            "} *numbers = bpf_ringbuf_reserve(MAP(MAP_EVENTS), sizeof(*numbers), 0);",
            "",
            "if (!numbers) {",
            "\tcount_loss(LOSS_RING_FULL);",
            "\tgoto leave_matched;",
            "}",
            "begin_record(&numbers->record, hook, selector);",
            "numbers->record.flags = 0;",
            f"numbers->record.items = {len(args)};",
            "numbers->record.items_len = sizeof(numbers->items);",
        )
        self._note_fall_back("numbers", values)
        for number, one in enumerate(actions):
            if one.last:
                self._if_selector(number, f"numbers->record.action = {one.last};", out)
        for place, arg in enumerate(args):
            values.fetch(arg)
            out.add(
                f"write_number(&numbers->items[{place}], {arg.number}, {arg.position}, {arg.name});"
            )
        out.add("bpf_ringbuf_submit(numbers, 0);", f"count({self._counter('COUNTER_POSTED')});")

    def _finish(self, actions: Sequence[SelectorActions], values: Values) -> None:
        out = values.out
        self._limit(actions, out)
        self._stacks(actions, values)
        if self.hook.exit is None:
            self._post(values)
            return
        table, size, longer = self._pending(values)
        if self._acts_at_return():
            for number, one in enumerate(actions):
                if not one.posts:
                    out.comment(f"selectors[{number}]: NoPost, but the return has actions")
                    self._if_selector(number, "s->record.flags |= TRACING_NOT_POSTED;", out)
        out.comment("the return posts it")
        if longer:
            out.add(f"save_pending_or_long(s, hook, {table}, {size}, {longer});")
        else:
            out.add(f"save_pending(s, hook, {table}, {size});")

    def _acts_at_return(self) -> bool:
        """Whether the return does more than report: then calls that do not post are joined too."""
        hook = self.hook.hook
        if self.hook.exit is None:
            return False
        if isinstance(hook, Kprobe) and hook.return_arg_action is not None:
            return True
        return any(one.kind not in REPORTING for one in self._return_actions())

    def _return_actions(self) -> list[Action]:
        return [one for selector in self.selectors for one in selector.return_actions]

    def _post(self, values: Values) -> None:
        long = next(
            (
                arg
                for arg in values.reported()
                if arg.planned.argument.max_data and arg.type is ArgumentType.CHAR_BUF
            ),
            None,
        )
        posted = "post(s)"
        if long is not None:  # one buffer of a hook can be long
            self.unit.headers.add("long_buffers.h")
            posted = (
                f"{long.name}_size > BUFFER_MAX && {long.name}_len >= 0 ? post_long(s, "
                f"{long.number}, {long.position}, {long.name}, {long.name}_size, {long.user})"
                " : post(s)"
            )
        self._throttle(values.out)
        values.out.add(f"if ({posted})", f"\tcount({self._counter('COUNTER_POSTED')});")

    def _pending(self, values: Values) -> tuple[str, str, str]:
        """Return where records wait for the return: table, size, and the table of longer ones."""
        self.unit.headers.add("returns.h")
        kept = [one for one in values.reported() if not one.planned.argument.return_copy]
        numbers = all(TYPES[one.type].family is Family.NUMBER for one in kept)
        is_long = self._is_long(values)
        if numbers and not is_long and len(kept) <= _PENDING_NUMBERS_MAX:
            self.unit.maps.pending(numbers=True)
            return "MAP(MAP_PENDING_NUMBERS)", "PENDING_NUMBERS", ""
        self.unit.maps.pending(numbers=False)
        if not is_long:
            return "MAP(MAP_PENDING_SHORT)", "PENDING_SHORT", ""
        self.unit.maps.pending_long()
        return "MAP(MAP_PENDING_SHORT)", "PENDING_SHORT", "MAP(MAP_PENDING_LONG)"

    def _is_long(self, values: Values) -> bool:
        stacks = any(
            one.kernel_stack_trace or one.user_stack_trace
            for selector in self.selectors
            for one in selector.actions
        )
        texts = any(
            TYPES[arg.type].family in _LONG
            or arg.type in (ArgumentType.CHAR_IOVEC, ArgumentType.IOV_ITER, ArgumentType.CONST_BUF)
            for arg in values.reported()
        )
        return stacks or texts or len(values.reported()) > 4

    def _limit(self, actions: Sequence[SelectorActions], out: Lines) -> None:
        for number, one in enumerate(actions):
            limited = one.rate_limited()
            if not limited or not one.posts:
                continue
            self.unit.headers.add("rates.h")
            self.unit.maps.rates()
            out.comment(f"selectors[{number}]: rateLimit")
            out.add(
                f"if (selector == {number} && ({limited})) {{",
                f"\tcount({self._counter('COUNTER_RATE_LIMITED')});",
                "\tgoto leave_matched;",
                "}",
            )

    def _throttle(self, out: Lines) -> None:
        if self.unit.use_throttle():
            out.add("if (policy_throttled())", "\tgoto leave_matched;")

    def _stacks(self, actions: Sequence[SelectorActions], values: Values) -> None:
        for number, one in enumerate(actions):
            if one.kernel_stack:
                self.unit.headers.add("stacks.h")
                fentry = values.frame.mechanism is Mechanism.FENTRY
                skipped = "TRAMPOLINE_FRAMES" if fentry else "0"
                call = f"write_stack(ctx, s, POSITION_KERNEL_STACK, {skipped});"
                self._if_selector(number, call, values.out)
            if one.user_stack:
                self.unit.headers.add("stacks.h")
                call = "write_stack(ctx, s, POSITION_USER_STACK, USER_STACK);"
                self._if_selector(number, call, values.out)
            if one.ima_hash:
                self._ima_hash(number, values)

    def _ima_hash(self, number: int, values: Values) -> None:
        """The digest of the first file; only sleepable LSM programs can have it."""
        files = (ArgumentType.FILE, ArgumentType.LINUX_BINPRM)
        arg = next((one for one in values.args if one.type in files), None)
        if arg is None or not self.hook.sleepable:
            return
        self.unit.headers.add("ima.h")
        values.fetch(arg)
        kind = "binprm" if arg.type is ArgumentType.LINUX_BINPRM else "file"
        self._if_selector(number, f"write_ima_hash_of_{kind}(s, ctx);", values.out)

    def _if_selector(self, number: int, statement: str, out: Lines) -> None:
        if len(self.selectors) > 1:
            out.add(f"if (selector == {number})", f"\t{statement}")
        else:
            out.add(statement)

    def _leave_unposted(self, actions: Sequence[SelectorActions], values: Values) -> None:
        for number, one in enumerate(actions):
            if one.posts:
                continue
            values.out.comment(f"selectors[{number}]: NoPost")
            values.out.add(
                f"if (selector == {number}) {{",
                f"\tcount({self._counter('COUNTER_NOT_POSTED')});",
                "\tgoto leave_matched;",
                "}",
            )

    def _counter(self, which: str) -> str:
        return f"COUNTER_OF({self.first_counter} + selector, {which})"

    # --- owners of sockets

    def _tracking(self) -> bool:
        """Whether any hook of the policy tracks sockets."""
        return any(
            one.kind in (ActionKind.TRACK_SOCK, ActionKind.UNTRACK_SOCK)
            for hook in self.plan.policy.hooks()
            for selector in hook.selectors
            for one in (*selector.actions, *selector.return_actions)
        ) or any(
            isinstance(hook, Kprobe) and hook.return_arg_action is not None
            for hook in self.plan.policy.hooks()
        )

    def _track(
        self,
        actions: Sequence[SelectorActions],
        values: Values,
        kind: ActionKind,
        posting: bool = True,
    ) -> None:
        """Track sockets before the record is attributed to its owner, and untrack them afterwards.

        ``posting`` is False for what selectors do that post nothing, which are left then.
        """
        for number, one in enumerate(actions):
            for action in one.tracks:
                if action.kind is not kind or (not posting and one.posts):
                    continue
                self._use_owners()
                arg = values.args[action.arg_sock]
                values.fetch(arg)
                if kind is ActionKind.UNTRACK_SOCK and self._counting():
                    for known in values.args:  # before it is forgotten
                        if known.type in OF_OBJECTS:
                            values.fetch(known)
                    self._use_bytes()
                    self._if_selector(number, f"forget_bytes({arg.name});", values.out)
                self._if_selector(number, sock_call(action.kind, arg.name), values.out)

    def _count_bytes(self, actions: Sequence[SelectorActions], values: Values) -> None:
        for number, one in enumerate(actions):
            for action in one.counts:
                self._use_bytes()
                sock, size = values.args[action.arg_sock], values.args[action.arg_index]
                values.fetch(sock)
                values.fetch(size)
                call = count_call(action.kind, sock.name, size.name)
                self._if_selector(number, call, values.out)

    def _counting(self) -> bool:
        """Whether any hook of the policy counts bytes."""
        return any(
            one.kind in OWN_ACTIONS
            for hook in self.plan.policy.hooks()
            for selector in hook.selectors
            for one in selector.actions
        )

    def _use_bytes(self) -> None:
        self.unit.headers.add("bytes.h")
        self.unit.maps.sock_bytes()

    def _use_owners(self) -> None:
        self.unit.headers.add("owners.h")
        self.unit.maps.owners()

    def _attribute(self, values: Values) -> None:
        sock = next((one for one in values.args if one.type in _SOCKETS), None)
        if sock is not None and self._tracking():
            self._use_owners()
            values.fetch(sock)
            values.out.add(f"attribute_to_owner(&s->record, {sock.name});")

    # --- at return

    def _return(self, values: Values) -> None:
        out = values.out
        self._restore(values)
        out.add("u32 selector = s->record.selector;", "s->record.flags |= TRACING_RETURNED;")
        self._check_abi(values.frame, out)
        if self.hook.returned is not None:
            self._returned(Arg.of_return(self.hook.returned), values)
        self._act(values, "matchReturnActions", [one.return_actions for one in self.selectors])
        self._note_fall_back("s", values)
        self._return_copy(values)
        actions = [SelectorActions.at_return(one) for one in self.selectors]
        if self._acts_at_return():
            out.add(
                "if (s->record.flags & TRACING_NOT_POSTED) {",
                f"\tcount({self._counter('COUNTER_NOT_POSTED')});",
                "\tgoto leave_matched;",
                "}",
            )
        self._leave_unposted(actions, values)
        for number, one in enumerate(actions):
            if one.last:
                self._if_selector(number, f"s->record.return_action = {one.last};", out)
        self._limit(actions, out)
        self._throttle(out)
        out.add("if (post(s))", f"\tcount({self._counter('COUNTER_POSTED')});")

    def _restore(self, values: Values) -> None:
        """Find the pending record before scratch space is taken: most returns have none."""
        table, size, longer = self._pending(values)
        out = values.out
        out.add(f"void *saved = find_pending({table}, hook);")
        if not longer:
            out.add("if (!saved)", "\tgoto leave;")
            values.take_scratch()
            out.add(f"restore_pending(s, hook, {table}, saved, {size});")
            return
        out.add(f"void *longer = saved ? NULL : find_pending({longer}, hook);")
        out.add("if (!saved && !longer)", "\tgoto leave;")
        values.take_scratch()
        out.add(
            "if (saved)",
            f"\trestore_pending(s, hook, {table}, saved, {size});",
            "else",
            f"\trestore_pending(s, hook, {longer}, longer, PENDING_LONG);",
        )

    def _returned(self, arg: Arg, values: Values) -> None:
        out = values.out
        values.fetch(arg)
        hook = self.hook.hook
        if isinstance(hook, Kprobe) and hook.return_arg_action is not None:
            self._use_owners()
            out.add(sock_call(hook.return_arg_action, arg.name))
        filters = [one for selector in self.selectors for one in selector.return_args]
        reader = READERS[arg.type]
        if filters:
            if reader.read(arg, filters, out):
                values.written.add(arg.name)
            for number, selector in enumerate(self.selectors):
                for one in selector.return_args:
                    condition = negated(reader.condition(arg, one, filters, self.unit))
                    out.comment(f"selectors[{number}].matchReturnArgs: {describe(one)}")
                    out.add(f"if (selector == {number} && {condition})", "\tgoto filtered;")
        values.write(arg)

    # --- at return, in the program that serves the hook alone: see plan_returns.py

    def _check_outcome(self, frame: Frame, out: Lines) -> None:
        """Before all filters: most calls succeed, others look for a file that is not there.

        A call that failed returns no descriptor.
        """
        hook, returned = self.hook.hook, self.hook.returned
        assert isinstance(hook, Kprobe)
        assert returned is not None
        value, unwanted = f"(s64){expression(ReturnedValue(), frame)}", ""
        if reports_failures(hook, returned):
            unwanted = " && ".join(f"{value} != {error}" for error in wanted_failures(hook))
        out.add("", f"if ({unwanted or f'{value} < 0'})", "\tgoto filtered;")

    def _returned_alone(self, values: Values) -> None:
        assert self.hook.returned is not None
        arg, out = Arg.of_return(self.hook.returned), values.out
        seen = [
            (number, sight(arg, one))
            for number, selector in enumerate(self.selectors)
            for one in selector.return_args
            if sight(arg, one)
        ]
        if seen:
            values.fetch(arg)
            out.add(*look(arg))
        for number, condition in seen:
            out.add(f"if (selector == {number} && {negated(condition)})", "\tgoto filtered;")
        values.take_scratch()
        self._returned(arg, values)

    def _return_copy(self, values: Values) -> None:
        for arg in values.reported():
            if not arg.planned.argument.return_copy:
                continue
            self.unit.headers.update(READERS[arg.type].headers)
            returned = expression(ReturnedValue(), values.frame)
            copy_at_return(arg, returned, values.out)

    # --- the end

    def _end(self, values: Values) -> None:
        out, mechanism = values.out, values.frame.mechanism
        text = out.text()
        if "goto filtered" in text:
            out.add("goto leave_matched;")
            out.label("filtered")
            out.add("count_filtered();")
        if "leave_matched" in out.text():
            out.label("leave_matched")
        if values.scratch:
            out.add("if (s)", "\trelease_scratch(s);")
        out.label("leave")
        if mechanism is Mechanism.SYS_ENTER or values.frame.every_syscall:
            out.add("jump_to_level(ctx, MAP(MAP_SYSCALLS_ENTER), SYSCALL_ENTER, ctx[1],")
            out.add("\t      NUMBER(NUMBER_LEVEL) + 1);")
        if mechanism is Mechanism.SYS_EXIT:
            out.add("jump_to_level(ctx, MAP(MAP_SYSCALLS_EXIT), SYSCALL_EXIT,")
            out.add("\t      SAVED_REGISTER(ctx[0], REG_SYSCALL_NUMBER),")
            out.add("\t      NUMBER(NUMBER_LEVEL) + 1);")
        out.add("return verdict;" if self._has_verdict else "return 0;")


def _reads_together(args: Sequence[PlannedArgument], frame: Frame) -> bool:
    """Whether a program reads so many arguments of a system call that one read has them all."""
    positions = {one.source for one in args if isinstance(one.source, SyscallArgument)}
    return len(positions) > 1 and not frame.compat and not frame.at_return
