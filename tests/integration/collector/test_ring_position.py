"""The ring's consumer position, read by another process as the kernel reads it."""

import subprocess

from support.ring_producer import produced_ring
from support.workloads import built


def test_consumer_position_is_written_in_one_piece(tmp_path):
    """Half of one looks like a full ring to the kernel, and records are lost."""
    with produced_ring() as (producer, reader):
        watcher = subprocess.Popen(
            [built("position", tmp_path), str(producer.fd)],
            pass_fds=(producer.fd,),
            stdout=subprocess.PIPE,
        )
        assert watcher.stdout.readline() == b"ready\n"
        for _ in range(400_000):
            producer.put(b"x" * 100)
            reader.drain()
        reader._consumer_position[0] = 1 << 41  # what the watcher takes as the end
        out, _ = watcher.communicate(timeout=60)
        assert watcher.returncode == 0, out
