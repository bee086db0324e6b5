"""Distillation: a student learns from a teacher's outputs beside the labels."""

from tfedge.distill.distiller import Distiller

__all__ = ["Distiller"]
