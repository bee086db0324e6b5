"""Arm cores as targets: time by a published model of the core, from counted instructions."""
