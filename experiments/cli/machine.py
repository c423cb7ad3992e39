"""What the machine has for an experiment: cores, memory, a folder of compiled programs."""

import contextlib
import os
import re
from pathlib import Path

from experiments.cli import cluster


def compilation_cache() -> Path:
    """The folder of compiled programs."""
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(given or f"{home}/kd_jax/compiled")


def num_cores() -> int:
    """CPU cores of this process, each a device: a run a core needs no hand-over between threads, and one
    run's optimiser, which waits for memory, leaves it to the other's matrix products. Of a machine in which a
    container has a share (cgroup v2), that share; of processes started together, each its own."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, float(quota) / float(period) / cluster.started())
    return max(1, int(cores))


def free_memory() -> int | None:
    """Bytes that a device can still hold: what it says, or for a CPU what machine or container have left."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    amounts = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        amounts.append(1024 * int(match.group(1)))  # type: ignore[union-attr]
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = re.findall(r"^(?:in)?active_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        amounts.append(limit - used + sum(map(int, cached)))  # which is given up when memory is needed
    return min(amounts) // cluster.started() if amounts else None
