"""Tracing policies on the command line: documents, calls to the server, and what they print."""
