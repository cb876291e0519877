"""Tracing policies: the document, its typed form, and every mistake with its position."""
