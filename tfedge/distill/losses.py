"""Distillation losses: pure functions of a teacher's and a student's outputs, one value per sample.

All compute in float32 and average over every axis between the batch and the last one (positions
of a segmentation map, steps of a sequence).
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import tf

# Probabilities are clipped here before their logarithm: float32's 1 - p stays exact enough, and a
# quantized softmax may hold true zeros.
EPSILON = 1e-7


def to_logits(outputs: Any, activation: str) -> Any:
    """Turns outputs into logits.

    Args:
        outputs: [N, ..., C], any float dtype.
        activation: "softmax": log p, which differs from the logits by a constant per row and so
            has the same softmax at every temperature; "sigmoid": log p - log(1 - p); anything
            else: the outputs are logits already.

    Returns:
        float32 [N, ..., C].
    """
    outputs = tf.cast(outputs, tf.float32)
    if activation == "softmax":
        return tf.math.log(tf.maximum(outputs, EPSILON))
    if activation == "sigmoid":
        clipped = tf.clip_by_value(outputs, EPSILON, 1 - EPSILON)
        return tf.math.log(clipped) - tf.math.log1p(-clipped)
    return outputs


def softened_kl(teacher: Any, student: Any, temperature: Any) -> Any:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)).

    T^2 keeps the size of the gradient when T changes. Hinton, Vinyals & Dean 2015, "Distilling the
    Knowledge in a Neural Network", section 2.

    Args:
        teacher: Logits [N, ..., C].
        student: Logits [N, ..., C].
        temperature: T > 0.

    Returns:
        float32 [N].
    """
    teacher, student = tf.cast(teacher, tf.float32), tf.cast(student, tf.float32)
    log_p = tf.nn.log_softmax(teacher / temperature)
    log_q = tf.nn.log_softmax(student / temperature)
    divergence = tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)
    return per_sample(divergence) * temperature**2


def softened_binary_kl(teacher: Any, student: Any, temperature: Any) -> Any:
    """T^2 * KL between Bernoulli(sigmoid(teacher / T)) and Bernoulli(sigmoid(student / T)).

    The two-class case of `softened_kl`, for each unit on its own (one output, or several labels
    per sample), averaged over the units.

    Args:
        teacher: Logits [N, ..., C].
        student: Logits [N, ..., C].
        temperature: T > 0.

    Returns:
        float32 [N].
    """
    teacher = tf.cast(teacher, tf.float32) / temperature
    student = tf.cast(student, tf.float32) / temperature
    p = tf.sigmoid(teacher)
    one = p * (tf.math.log_sigmoid(teacher) - tf.math.log_sigmoid(student))
    zero = (1 - p) * (tf.math.log_sigmoid(-teacher) - tf.math.log_sigmoid(-student))
    return per_sample(one + zero) * temperature**2


def squared_error(teacher: Any, student: Any) -> Any:
    """(teacher - student)^2, averaged over all axes but the batch; for regression outputs.

    Args:
        teacher: [N, ...].
        student: [N, ...].

    Returns:
        float32 [N].
    """
    return per_sample(tf.square(tf.cast(teacher, tf.float32) - tf.cast(student, tf.float32)))


def per_sample(values: Any) -> Any:
    """Mean over all axes but the first: [N, ...] -> [N]."""
    axes = list(range(1, values.shape.rank))
    return tf.reduce_mean(values, axis=axes) if axes else values
