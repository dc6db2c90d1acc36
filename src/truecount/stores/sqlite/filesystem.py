"""Recognises network file systems, on which SQLite's locks and shared memory do not hold."""

from __future__ import annotations

import os
import re
from typing import Final

__all__ = ["network_filesystem"]

NETWORK: Final = frozenset(
    {
        *("afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"),
        *("nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.cephfs", "fuse.davfs", "fuse.glusterfs", "fuse.juicefs"),
        *("fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)
"""Names of file system types, as Linux's mount table has them."""

_MOUNTS: Final = "/proc/self/mountinfo"


def network_filesystem(path: str, mounts: str = _MOUNTS) -> str | None:
    """The type of the network file system that holds ``path``, or None.

    None too where there is no mount table to read, as on macOS. ``mounts`` is
    a file in the format of ``proc_pid_mountinfo(5)``.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as table:
            lines = table.read().splitlines()
    except OSError:
        return None
    path = os.path.realpath(path)
    longest, kind = -1, ""
    for line in lines:
        head, _, tail = line.partition(" - ")
        fields = head.split(" ")
        if len(fields) < 5 or not tail:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        inside = point == "/" or path == point or path.startswith(point + "/")
        if inside and len(point) >= longest:  # a later mount hides an earlier one
            longest, kind = len(point), tail.split(" ")[0]
    return kind if kind in NETWORK else None
