"""What a program or container really does, from the stream's past, and profiles made of it."""
