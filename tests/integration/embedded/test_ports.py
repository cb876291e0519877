"""The holder of a port in use is found while it opens and closes files."""

import subprocess
import sys

from embedded import ports

BUSY = """
import os, socket
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(500)]
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:  # descriptors that are listed before the server's
        for file in files:
            os.close(file)
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(500)]
"""


def test_holder_is_found_although_it_closes_other_files():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        try:
            port = int(process.stdout.readline())
            found = {ports.holder(port) for _ in range(30)}
        finally:
            process.kill()
    assert [name.partition(" ")[2] for name in found] == [f"(pid {process.pid})"]
