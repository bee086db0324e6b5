"""Real aarch64 LiteRT and XNNPACK under QEMU's user mode: instructions per inference, never time.

Nothing here is imported before it is used: `tfedge.targets.base.TARGETS` makes the targets.
"""
