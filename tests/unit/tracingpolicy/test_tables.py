"""The tables of types, operators and actions are complete and agree with the API."""

import pytest

from tetragon.capabilities_pb2 import CapabilitiesType
from tetragon.tetragon_pb2 import KprobeAction
from tracingpolicy.actions import ACTIONS, OWN_ACTIONS, ActionKind
from tracingpolicy.operators import OPERATORS, OPERATORS_BY_NAME, Operator, operators_of
from tracingpolicy.tables import CAPABILITIES
from tracingpolicy.types import TYPES, TYPES_BY_NAME, ArgumentType


@pytest.mark.parametrize(
    ("table", "kinds"), [(TYPES, ArgumentType), (OPERATORS, Operator), (ACTIONS, ActionKind)]
)
def test_table_has_every_member_and_no_duplicate_number(table, kinds):
    assert set(table) == set(kinds)
    numbers = [info.number for info in table.values() if info.number is not None]
    assert len(numbers) == len(set(numbers))


def test_names_and_aliases_are_unique():
    assert len(TYPES_BY_NAME) == sum(1 + len(info.aliases) for info in TYPES.values())
    assert len(OPERATORS_BY_NAME) == sum(1 + len(info.aliases) for info in OPERATORS.values())


def test_action_numbers_are_those_of_the_api():
    names = {
        int(number): name.removeprefix("KPROBE_ACTION_").replace("_", "")
        for name, number in KprobeAction.items()
    }
    for kind, info in ACTIONS.items():
        if kind in OWN_ACTIONS:  # no event names them
            assert info.number + 1 not in names
        else:
            assert kind.value.upper() == names[info.number + 1]


def test_every_argument_operator_is_used_by_a_type():
    used = {op for kind in ArgumentType for op in operators_of(kind)}
    assert set(Operator) - used == {Operator.IN, Operator.NOT_IN}


def test_opposites_share_their_operands():
    for info in OPERATORS.values():
        if info.opposite:
            assert OPERATORS[info.opposite].operands is info.operands


def test_capabilities_have_the_names_of_events():
    """Events name number 1 DAC_OVERRIDE; documents may do so, too."""
    for name, number in CapabilitiesType.items():
        assert CAPABILITIES.get(name) == number
