"""The distiller of Keras 3 students, on the TensorFlow backend; importing it imports Keras 3."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, keras3, tf
from tfedge.distill.core import Core
from tfedge.distill.learner import Learner
from tfedge.errors import ModelError

_lib = keras3()


class Keras3Distiller(Learner, _lib.Model):
    """See `tfedge.distill.Distiller`, which makes it."""

    def __init__(self, core: Core, alpha: float) -> None:
        if _lib.backend.backend() != "tensorflow":
            raise ModelError(
                "distillation runs on TensorFlow", f"Keras 3 on {_lib.backend.backend()}",
                "Set KERAS_BACKEND=tensorflow",
            )  # fmt: skip
        # The inputs go to the student as they are; it casts them itself.
        super().__init__(name="distiller", dtype=core.student.dtype_policy, autocast=False)
        self._take(core, alpha, _lib)
        # "auto" must not choose XLA for a teacher that runs in Python.
        self.supports_jit = core.in_graph
        self.built = True

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step: the student's variables follow the gradient of the combined loss.

        Args:
            data: (x,), (x, y) or (x, y, sample_weight).
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None:
            self._need_no_labels()
        taught = self.core.teach(x)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            learned = self.core.learn(x)
            parts = self.core.losses(taught, learned, y, weight, self._done())
            regularisation = self._regularisation()
            hard = self._hard_loss(y, learned[0], weight, regularisation)
            total = self._total(parts, 0.0 if hard is None else hard, regularisation)
            # Gradients are summed over the replicas.
            scaled = self.optimizer.scale_loss(total / replicas)
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        logs = self._noted(learned[0], self._values(total, hard, parts))
        return {**logs, **self._scores(x, y, learned[0], weight, logs)}

    def test_step(self, data: Any) -> dict[str, Any]:
        """Scores the student.

        Args:
            data: (x,), (x, y) or (x, y, sample_weight).
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self.student(x, training=False)
        regularisation = self._regularisation()
        loss = self._hard_loss(y, outputs, weight, regularisation)
        if loss is None:
            taught = self.core.teach(x)
            loss = self.core.losses(taught, (outputs, {}), y, weight, self._done()).soft
        logs = self._noted(outputs, {"loss": loss + regularisation})
        return {**logs, **self._scores(x, y, outputs, weight, logs)}

    def _scores(self, x: Any, y: Any, outputs: Any, weight: Any, logs: dict) -> dict[str, Any]:
        """The compiled metrics; none without labels."""
        if y is None:
            return {}
        found = self.compute_metrics(x, y, outputs, sample_weight=weight)
        return {k: v for k, v in found.items() if k not in logs}

    def get_metrics_result(self) -> dict[str, Any]:
        """As `keras.Model.get_metrics_result`, with this model's own loss."""
        found: dict[str, Any] = {}
        for metric in self.metrics:
            if getattr(metric, "built", True):  # the compiled ones are not, without labels
                result = metric.result()
                found.update(result if isinstance(result, dict) else {metric.name: result})
        return {**found, "loss": self._means.value["loss"].result()}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        """The hard loss plus regularisation, as Keras has it; 0 without labels."""
        if y is None or not self._has_loss:
            return tf.constant(0.0)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _hard_loss(self, y: Any, outputs: Any, weight: Any, regularisation: Any) -> Any:
        """The compiled loss, or None without one or without labels."""
        if not self._has_loss or y is None:
            return None
        both = tf.cast(self.compute_loss(None, y, outputs, weight), tf.float32)
        # Keras 3 divides by the replicas, and adds the regularisation.
        return both * tf.distribute.get_strategy().num_replicas_in_sync - regularisation
