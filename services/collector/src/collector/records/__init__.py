"""Records: the bytes of the ring buffer, decoded."""
