"""The JSON form of events, as Tetragon's ``-o json`` and export file have it.

``encoder`` writes it, ``decoder`` reads it, ``times`` writes RFC 3339. Nothing is imported here:
``tetra version`` needs none of it.
"""
