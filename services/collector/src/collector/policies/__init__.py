"""Tracing policies on this kernel: checked, planned, translated, loaded."""
