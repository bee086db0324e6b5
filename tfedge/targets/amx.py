"""Keeps x86's AMX tile unit out of the host measurement.

XNNPACK picks AMX kernels for int8 wherever the system grants them. They work on tiles of 16 rows
and 64 columns, made for wide matrix products: on small convolutions they are several times slower
than the AVX512-VNNI kernels (docs/RESULTS.md), and no ARM core has anything of the kind, while VNNI
is the counterpart of ARM's SDOT. A measurement that is to say something about ARM leaves them out.

Linux grants AMX on request only, and refuses a process one of whose threads has an alternate signal
stack too small for the tile state (Documentation/arch/x86/xstate.rst in the Linux sources). So a
small stack, set before the runtime loads, is all it takes; no privilege is needed.
"""

from __future__ import annotations

import ctypes
import platform
import sys

_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA = 158, 0x1023, 18
_BYTES = 8192
_stack = ctypes.create_string_buffer(_BYTES)


class _Stack(ctypes.Structure):
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def refuse_amx() -> bool:
    """Makes the system refuse AMX to this process; call it before the runtime is loaded.

    Returns:
        True where AMX is now refused (also where the machine has none), False where it was granted
        before or the system cannot be asked.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return True
    library = ctypes.CDLL(None, use_errno=True)
    stack = _Stack(ctypes.cast(_stack, ctypes.c_void_p), 0, _BYTES)
    if library.sigaltstack(ctypes.byref(stack), None) != 0:
        return False
    return library.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA) != 0
