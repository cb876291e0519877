"""Documents that Tetragon accepts and that work there are read; what is doubtful is named."""

import pytest

from tracingpolicy import parse

_HEAD = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: p}\nspec:\n"
_CALL = "  kprobes:\n  - call: sys_openat\n    args: [{index: 0, type: file}]\n    selectors:\n"
_SELECTOR = "spec.kprobes[0].selectors[0]"


def selectors_of(text):
    policy = parse(_HEAD + _CALL.replace("file", "string") + f"    - {text}\n")
    (selector,) = policy.kprobes[0].selectors
    return selector, policy.notices()


def test_binaries_without_values_filter_nothing():
    for text in ("{operator: In, values: []}", "{operator: NotIn}"):
        selector, notices = selectors_of(f"matchBinaries: [{text}]")
        assert selector.binaries == ()
        assert notices == [f"{_SELECTOR}.matchBinaries[0]: without values it filters nothing"]


def test_binary_that_is_no_absolute_path():
    selector, notices = selectors_of("matchBinaries: [{operator: In, values: [/bin/sh, sh]}]")
    assert selector.binaries[0].values == (b"/bin/sh", b"sh")
    assert notices == [
        f'{_SELECTOR}.matchBinaries[0].values: no binary has the path "sh": '
        "it does not begin with /"
    ]


@pytest.mark.parametrize("keys", ["index: 0", "index: 0, type: char_buf", "index: 0, type: nop"])
def test_argument_of_a_return_that_is_not_read(keys):
    policy = parse(f"{_HEAD}  kprobes: [{{call: sys_read, returnArg: {{{keys}}}}}]\n")
    assert policy.kprobes[0].return_arg is None
    assert policy.notices() == ["spec.kprobes[0].returnArg: without return: true it has no effect"]


def test_filters_of_a_return_that_is_not_read():
    selector, notices = selectors_of(
        "matchReturnArgs: [{index: 0, operator: Equal, values: ['0']}]\n"
        "      matchReturnActions: [{action: Post}]"
    )
    assert (selector.return_args, selector.return_actions) == ((), ())
    assert notices == [
        f"{_SELECTOR}.{key}: without return: true it has no effect"
        for key in ("matchReturnArgs", "matchReturnActions")
    ]


@pytest.mark.parametrize("keys", ["", ", argSig: 0"])
def test_signal_without_number(keys):
    selector, notices = selectors_of(f"matchActions: [{{action: Signal{keys}}}]")
    assert selector.actions[0].arg_signal == 0
    assert notices == [f"{_SELECTOR}.matchActions[0]: signal 0 has no effect; argSig is the signal"]


def test_stacks_hash_and_override_of_tracepoints_that_have_none():
    spec = (
        "  tracepoints:\n  - {subsystem: a, event: b, selectors: [{matchActions: "
        "[{action: Post, userStackTrace: true, kernelStackTrace: false, imaHash: true}, "
        "{action: Override, argError: -1}]}]}\n"
    )
    policy = parse(_HEAD + spec)
    (action, _) = policy.tracepoints[0].selectors[0].actions
    assert (action.user_stack_trace, action.kernel_stack_trace, action.ima_hash) == (False,) * 3
    path = "spec.tracepoints[0].selectors[0].matchActions"
    assert policy.notices() == [
        f"{path}[0].userStackTrace: events of tracepoints have no stack traces",
        f"{path}[0].imaHash: events of tracepoints have no IMA hash",
        f"{path}[1].action: Override: a tracepoint has no result to override",
    ]


def test_buffers_without_length():
    spec = "  kprobes:\n  - call: sys_write\n    args: [{index: 1, type: char_buf}]\n"
    policy = parse(_HEAD + spec)
    assert policy.notices() == [
        "spec.kprobes[0].args[0]: without sizeArgIndex or returnCopy no bytes of char_buf are read"
    ]
    assert parse(_HEAD + spec.replace("char_buf", "char_buf, sizeArgIndex: 3")).notices() == []


def test_paths_that_no_file_has():
    filters = (
        "    - matchArgs:\n"
        "      - {index: 0, operator: Equal, values: [etc, /etc, '']}\n"
        "      - {index: 0, operator: Prefix, values: ['', var]}\n"
    )
    hook = _CALL.replace("sys_openat", "f\n    syscall: false")
    policy = parse(_HEAD + hook + filters)
    first, second = policy.kprobes[0].selectors[0].args
    assert first.values == (b"etc", b"/etc", b"")
    assert second.values == (b"", b"var")
    paths = [f"{_SELECTOR}.matchArgs[0].values[{n}]" for n in (0, 2)]
    paths.append(f"{_SELECTOR}.matchArgs[1].values[1]")
    assert policy.notices() == [
        f'{path}: no path is "{text}": a path begins with /'
        for path, text in zip(paths, ("etc", "", "var"), strict=True)
    ]


def test_texts_that_events_have_in_part():
    policy = parse(
        f"{_HEAD}  kprobes:\n"
        f"  - {{call: sys_read, message: {'m' * 256}, tags: [{'t' * 128}]}}\n"
        f"  - {{call: sys_write, message: {'m' * 257}, tags: [ok, {'t' * 129}]}}\n"
    )
    assert [len(hook.message) for hook in policy.kprobes] == [256, 256]
    assert policy.notices() == [
        "spec.kprobes[1].message: events have its first 256 bytes only",
        "spec.kprobes[1].tags[1]: events have its first 128 bytes only",
    ]


def test_more_data_of_other_types_than_buffers():
    policy = parse(
        f"{_HEAD}  kprobes:\n  - call: sys_write\n    args:\n"
        "    - {index: 1, type: char_buf, sizeArgIndex: 3, maxData: true}\n"
        "    - {index: 1, type: string, maxData: true}\n"
    )
    assert policy.notices() == [
        "spec.kprobes[0].args[1].maxData: string has no more data: only char_buf has"
    ]
