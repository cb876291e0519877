"""What a program or container does, from recorded events, and profiles made from it."""
