"""How much memory a device has to give."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def available_bytes(device: torch.device) -> int:
    """Free memory of a GPU with what this process holds in reserve; of a CPU, what the system would give."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_system_bytes(Path("/proc/meminfo")), _container_bytes(Path("/sys/fs/cgroup")))


def _system_bytes(meminfo: Path) -> int:
    """MemAvailable, or the machine's whole memory where the system does not say."""
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_bytes(group: Path) -> int:
    """What a container's limit leaves (cgroup v2); without a limit, more than anyone has."""
    limit, used = group / "memory.max", group / "memory.current"
    if not limit.is_file() or not used.is_file():
        return 1 << 62
    text = limit.read_text(encoding="ascii").strip()
    return int(text) - int(used.read_text(encoding="ascii")) if text.isdigit() else 1 << 62
