"""Facts that a record does not carry: names of users, containers, redaction."""
