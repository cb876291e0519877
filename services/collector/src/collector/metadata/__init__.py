"""Names and policies of the host that a record does not carry: users, containers, redaction."""
