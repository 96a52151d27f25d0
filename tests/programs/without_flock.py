"""Runs mdm_jax.main where the kernel answers every flock with ENOSYS, as on a file system that has no locks."""

import ctypes
import errno
import platform
import struct
import sys

from mdm_jax.main import main

FLOCK = {"x86_64": 73, "aarch64": 32}[platform.machine()]
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


instructions = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in [
        (LOAD, 0, 0, 0),  # the system call's number
        (JUMP_IF_EQUAL, 0, 1, FLOCK),
        (RETURN, 0, 0, ERROR | errno.ENOSYS),
        (RETURN, 0, 0, ALLOW),
    ]
)
prctl = ctypes.CDLL(None, use_errno=True).prctl
prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
if prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(Program(4, instructions)), 0, 0):
    sys.exit(f"no seccomp: errno {ctypes.get_errno()}")
sys.exit(main())
