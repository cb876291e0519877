"""Any document becomes a policy or mistakes with positions; a valid one has a plan."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.policies.plan_policy import check_document
from support import policy_kernel
from support.random_policies import documents, mutated, text_of
from tracingpolicy import PolicyErrors, parse, read
from tracingpolicy.operators import OPERATORS, Operands, Operator
from tracingpolicy.reading.filters import typed
from tracingpolicy.types import ArgumentType

QUIET = settings(
    max_examples=50, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
KERNEL = policy_kernel.host()


def assert_positions(text, mistakes):
    """Every mistake is inside the text, or one place after its end."""
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)  # as YAML breaks them
    for one in mistakes:
        assert one.message
        assert 1 <= one.line <= len(lines) + 1, one
        line = lines[one.line - 1] if one.line <= len(lines) else ""
        assert 1 <= one.column <= len(line) + 2, one
    assert list(mistakes) == sorted(mistakes, key=lambda x: (x.line, x.column, x.message))


@QUIET
@given(documents())
def test_valid_document_is_read(document):
    policy = parse(text_of(document))
    assert len(list(policy.hooks())) == sum(
        len(hooks) for key, hooks in document["spec"].items() if key != "options"
    )


def mistakes_on_kernel(text):
    try:
        check_document(text, "policy", KERNEL)
    except PolicyErrors as error:
        return error.mistakes
    return ()


@QUIET
@given(mutated())
def test_broken_document_gives_mistakes_with_positions(text):
    _, mistakes = read(text)
    assert_positions(text, mistakes)
    found = mistakes_on_kernel(text)
    assert_positions(text, found)
    assert {str(one) for one in mistakes} <= {str(one) for one in found}


@QUIET
@given(st.text(max_size=300) | st.binary(max_size=300))
def test_any_text_is_read(text):
    _, mistakes = read(text)
    shown = text if isinstance(text, str) else text.decode(errors="replace")
    assert_positions(shown, mistakes)


ARGUMENT_OPERATORS = [op for op in Operator if OPERATORS[op].operands is not Operands.LISTED]


@QUIET
@given(
    st.sampled_from(ARGUMENT_OPERATORS),
    st.lists(st.text(max_size=12) | st.from_regex(r"[-+]?(0x|0b|0o)?[0-9a-f_]{1,20}(:[0-9]+)?")),
    st.sampled_from(ArgumentType),
)
def test_any_value_is_typed_or_refused(operator, texts, kind):
    made = typed(operator, texts, (0,), {0: kind})
    refused = {one.element for one in made.problems if one.element is not None}
    assert refused <= set(range(len(texts)))
    if not made.problems:
        assert made.values or OPERATORS[operator].operands is Operands.NONE
