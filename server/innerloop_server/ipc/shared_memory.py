"""Memory that two processes share."""

import errno
import fcntl
import os


def create_shared_memory(name: str, size: int) -> int:
    """A descriptor of new shared memory, to be mapped here and handed to a child process.

    It takes up space only where it has been written to.

    Raises:
        OSError: there is none to be had, or the system has no such memory: only Linux has.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "memory shared by processes needs Linux")
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        # Memory that one process could shrink would end the other one when that touches it.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
