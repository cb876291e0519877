"""The fields that ``--count-by`` offers are those that a gateway knows."""

from cli.commands.getevents_flags import COUNT_FIELDS
from eventcolumns.fields import FIELDS


def test_fields_are_those_of_the_gateway():
    assert sorted(COUNT_FIELDS) == sorted(FIELDS)
