"""Programs, maps, links and the ring: everything that calls bpf(2) or the compiler."""
