"""Arm's Ethos-U NPUs, estimated by their compiler, Vela."""
