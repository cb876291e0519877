"""Event filters and field filters: one engine for gateway, stdin and exporter.

An event passes if the allow list is empty or one of its filters matches, and no filter of the deny
list does. A filter matches if all its fields do; a field if one of its values does. Field filters
then decide which members of the event are sent.

``fields`` has one module for each field of ``tetragon.Filter`` and one list that names them all.
Requests are not trusted: `limits` bounds their size, their memory and their time.
"""

from eventfilters.errors import CostError, FilterError
from eventfilters.event import Event
from eventfilters.filters import Filters, compile
from eventfilters.limits import MAX_REQUEST_BYTES, Budget

__all__ = [
    "MAX_REQUEST_BYTES",
    "Budget",
    "CostError",
    "Event",
    "FilterError",
    "Filters",
    "compile",
]
