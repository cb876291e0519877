"""Sensors: one value for each thing that the collector can observe."""
