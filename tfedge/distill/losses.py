"""Distillation losses: pure functions of a teacher's and a student's outputs.

All compute in float32. The `..._map` functions give one value per position (pixel of a
segmentation map, step of a sequence, box); the others one per sample, the mean over positions.
A temperature is a number, or a tensor that broadcasts against the logits: [N, ..., 1] for one
value per position, [N, ..., C] for one per unit (sigmoid outputs only).
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


def kl_map(teacher: Any, student: Any, temperature: Any) -> Any:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)) at every position.

    Args:
        teacher: Logits [N, ..., C].
        student: Logits [N, ..., C].
        temperature: T > 0.

    Returns:
        float32 [N, ..., 1].
    """
    t = tf.cast(temperature, tf.float32)
    log_p = tf.nn.log_softmax(tf.cast(teacher, tf.float32) / t)
    log_q = tf.nn.log_softmax(tf.cast(student, tf.float32) / t)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1, keepdims=True) * t**2


def softened_kl(teacher: Any, student: Any, temperature: Any) -> Any:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over positions.

    T^2 keeps the size of the gradient when T changes. Hinton, Vinyals & Dean 2015, "Distilling the
    Knowledge in a Neural Network", section 2.

    Args:
        teacher: Logits [N, ..., C].
        student: Logits [N, ..., C].
        temperature: T > 0.

    Returns:
        float32 [N].
    """
    return per_sample(kl_map(teacher, student, temperature))


def binary_kl_map(teacher: Any, student: Any, temperature: Any) -> Any:
    """T^2 * KL between Bernoulli(sigmoid(teacher / T)) and Bernoulli(sigmoid(student / T)).

    Args:
        teacher: Logits [N, ..., C].
        student: Logits [N, ..., C].
        temperature: T > 0.

    Returns:
        float32 [N, ..., C].
    """
    t = tf.cast(temperature, tf.float32)
    teacher, student = tf.cast(teacher, tf.float32) / t, tf.cast(student, tf.float32) / t
    p = tf.sigmoid(teacher)
    one = p * (tf.math.log_sigmoid(teacher) - tf.math.log_sigmoid(student))
    zero = (1 - p) * (tf.math.log_sigmoid(-teacher) - tf.math.log_sigmoid(-student))
    return (one + zero) * t**2


def softened_binary_kl(teacher: Any, student: Any, temperature: Any) -> Any:
    """The two-class case of `softened_kl`, for each unit on its own, averaged over the units.

    For one sigmoid output, or several labels per sample.

    Args:
        teacher: Logits [N, ..., C].
        student: Logits [N, ..., C].
        temperature: T > 0.

    Returns:
        float32 [N].
    """
    return per_sample(binary_kl_map(teacher, student, temperature))


def squared_error(teacher: Any, student: Any) -> Any:
    """(teacher - student)^2, averaged over all axes but the batch; for regression outputs.

    Args:
        teacher: [N, ...].
        student: [N, ...].

    Returns:
        float32 [N].
    """
    return per_sample(tf.square(tf.cast(teacher, tf.float32) - tf.cast(student, tf.float32)))


def huber_error(teacher: Any, student: Any, delta: float = 1.0) -> Any:
    """Huber's loss of teacher - student, averaged over all axes but the batch.

    d^2 / 2 where |d| <= delta, else delta * |d| - delta^2 / 2 (Huber 1964): a teacher's outliers
    pull with bounded force.

    Args:
        teacher: [N, ...].
        student: [N, ...].
        delta: Where the quadratic part ends, > 0.

    Returns:
        float32 [N].
    """
    return per_sample(huber(tf.cast(teacher, tf.float32) - tf.cast(student, tf.float32), delta))


def huber(difference: Any, delta: float = 1.0) -> Any:
    """Huber's loss of a difference, element by element."""
    size = tf.abs(difference)
    return tf.where(size <= delta, 0.5 * tf.square(difference), delta * size - 0.5 * delta**2)


def entropy(logits: Any, kind: str) -> Any:
    """How undecided outputs are: their entropy over its largest possible value, 0 to 1.

    Args:
        logits: [N, ..., C].
        kind: "softmax": H(p) / log(C) over the last axis; "sigmoid": H(p) / log(2) of each unit.

    Returns:
        float32 [N, ..., 1] for softmax, [N, ..., C] for sigmoid.
    """
    logits = tf.cast(logits, tf.float32)
    if kind == "softmax":
        log_p = tf.nn.log_softmax(logits)
        found = -tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1, keepdims=True)
        return found / tf.math.log(tf.cast(tf.maximum(tf.shape(logits)[-1], 2), tf.float32))
    p = tf.sigmoid(logits)
    found = -p * tf.math.log_sigmoid(logits) - (1 - p) * tf.math.log_sigmoid(-logits)
    return found / tf.math.log(2.0)


def per_sample(values: Any) -> Any:
    """Mean over all axes but the first: [N, ...] -> [N]."""
    axes = list(range(1, values.shape.rank))
    return tf.reduce_mean(values, axis=axes) if axes else values
