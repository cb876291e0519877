"""Sensors: what the collector can observe, one value each."""
