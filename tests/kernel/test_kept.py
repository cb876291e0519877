"""Kept probes outlive the collector that attached them, on this kernel."""

import asyncio
import subprocess
import time

import pytest

from collector.bpf import kernel, probes
from collector.bpf.pins import Pins, build_id
from collector.records.process import EXEC, EXIT, ExecDecoder, decode_exit

pytestmark = pytest.mark.kernel

TRUE = "/usr/bin/true"
RING_BYTES = 1 << 20


def opened(headers, enable=()):
    """Return the kernel's features and attached probes with the build that they are."""
    info = kernel.detect(headers)
    folder = probes.bpf_folder()
    flags = probes.compiler_flags(
        info, ring_size_bytes=RING_BYTES, process_map_entries=4096, enable=enable
    )
    return info, asyncio.run(probes.open_probes(info, flags, folder)), build_id(folder, flags)


def reported(ring, mark):
    """Return whether the exec of ``TRUE mark`` is in the ring, and behind it the exit."""
    decoder, deadline, pid = ExecDecoder(), time.monotonic() + 10, None
    while time.monotonic() < deadline:
        for data in ring.drain():
            kind = int.from_bytes(data[:4], "little")
            if kind == EXEC and mark.encode() in (record := decoder.decode(data)).args:
                pid = record.pid
            elif kind == EXIT and decode_exit(data).pid == pid:
                return True
        time.sleep(0.005)
    return False


def test_pinned_probes_outlive_their_process(headers, bpf_file_system):
    _, probes_, build = opened(headers)
    pins = Pins(bpf_file_system / "tetra", "a.node", build)
    pins.lock(make=True)
    pins.keep(probes_, 7)
    subprocess.run([TRUE, "while-held"], check=True)
    assert reported(probes_.ring, "while-held")
    position = probes_.ring.position
    probes_.close()
    probes_.free()
    pins.close()

    subprocess.run([TRUE, "while-no-collector-runs"], check=True)
    next_pins = Pins(bpf_file_system / "tetra", "a.node", build)
    next_pins.lock(make=True)
    assert next_pins.take(8, RING_BYTES) is None
    kept = next_pins.take(7, RING_BYTES)
    assert kept.ring.position == position
    assert set(kept.hooks) == {"sched_process_fork", "sched_process_exec", "sched_process_exit"}
    assert reported(kept.ring, "while-no-collector-runs")
    assert kept.processes.lookup((1).to_bytes(4, "little")) is None  # older than the probes

    assert len(next_pins.remove()) == 1
    kept.close()
    kept.ring.drain(1 << 30)
    time.sleep(0.05)  # a program that is running now
    subprocess.run([TRUE, "detached"], check=True)
    kept.ring.drain(1 << 30)
    before = kept.ring.position
    subprocess.run([TRUE, "detached"], check=True)
    assert kept.ring.drain() == []
    assert kept.ring.position == before
    kept.free()
    next_pins.close()
    assert not (bpf_file_system / "tetra").exists()


def test_incomplete_pins_are_not_used(headers, bpf_file_system, capsys):
    _, probes_, build = opened(headers)
    pins = Pins(bpf_file_system / "tetra", "n", build)
    pins.keep(probes_, 7)
    (lost,) = bpf_file_system.glob("tetra/*/*/lost")
    lost.unlink()
    assert pins.take(7, RING_BYTES) is None
    assert "kept probes unusable" in capsys.readouterr().out
    pins.remove()
    probes_.close()
    probes_.free()


def test_everything_enabled_is_kept_too(headers, bpf_file_system):
    info, probes_, build = opened(headers, ("CRED", "NS", "ENVS"))
    pins = Pins(bpf_file_system / "tetra", "n", build)
    pins.keep(probes_, 7)
    kept = pins.take(7, RING_BYTES)
    assert kept is not None
    tracepoint = "HAVE_PREPARE_EXEC" in info.features
    assert ("sched_prepare_exec" if tracepoint else "security_bprm_committing_creds") in kept.hooks
    kept.close()
    kept.free()
    pins.remove()
    probes_.close()
    probes_.free()
