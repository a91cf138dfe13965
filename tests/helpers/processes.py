"""Processes on this machine, from Linux's /proc: a run's descendants, and where they listen."""

import contextlib
import ipaddress
import os
from pathlib import Path

_LISTEN = "0A"
_HEX_WORD = 8


def descendants(process: int) -> dict[int, str]:
    """Descendants of a process, with their command lines."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has ended meanwhile
    found = {process}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: names[one] for one in found - {process}}


def is_running(process: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def listening_addresses(processes: list[int]) -> dict[str, str]:
    """The address of every TCP socket that one of these processes listens on, by process and port."""
    sockets: dict[str, int] = {}
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets[os.readlink(descriptor)] = process
    found: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            owner = sockets.get(f"socket:[{fields[9]}]")
            if fields[3] == _LISTEN and owner is not None:
                address, _, port = fields[1].partition(":")
                words = [bytes.fromhex(address[at : at + _HEX_WORD])[::-1] for at in range(0, len(address), _HEX_WORD)]
                ip = ipaddress.ip_address(b"".join(words))
                found[f"{owner}:{int(port, 16)}"] = str(getattr(ip, "ipv4_mapped", None) or ip)
    return found
