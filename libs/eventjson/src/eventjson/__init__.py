"""The JSON form of events, as Tetragon's ``-o json`` and export file have it.

``encoder`` writes it, ``decoder`` reads it, ``times`` writes RFC 3339.
"""

from eventjson.decoder import decode
from eventjson.encoder import JsonEncoder

__all__ = ["JsonEncoder", "decode"]
