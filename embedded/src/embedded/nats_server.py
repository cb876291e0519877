"""The real nats-server, on loopback, with what the services need and nothing else."""

import json
import secrets
from pathlib import Path

from chassis.folders import write_own

USER = "tetra"

# An event is never split, and the kernel lets a process have 2 MB of arguments.
_MAX_PAYLOAD_BYTES = 8 << 20
_NO_LIMIT_BYTES = 1 << 50


def write_config(folder: Path, port: int, health_port: int) -> tuple[Path, Path]:
    """Write nats.conf and a new password into ``folder``; return the paths of both."""
    password, secret = folder / "nats.password", secrets.token_hex(16)
    write_own(password, secret)
    config = folder / "nats.conf"
    # JSON is valid in nats-server's configuration language, and quotes any path.
    write_own(
        config,
        json.dumps(
            {
                "server_name": "tetra-embedded",
                "host": "127.0.0.1",
                "port": port,
                "http": f"127.0.0.1:{health_port}",
                "max_payload": _MAX_PAYLOAD_BYTES,
                # The default acknowledges at once and syncs to disk every two minutes.
                "jetstream": {
                    "store_dir": str(folder / "jetstream"),
                    "sync_interval": "always",
                    # Three quarters of the free space by default, and a larger stream is refused.
                    # The stream's own limit applies, which room.py fits to the disk.
                    "max_file_store": _NO_LIMIT_BYTES,
                },
                "authorization": {"user": USER, "password": secret},
            },
            indent=2,
        ),
    )
    return config, password
