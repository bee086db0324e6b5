"""The distiller of tf_keras students."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, tf
from tfedge.distill.core import Core
from tfedge.distill.learner import Learner


class TfKerasDistiller(Learner, keras.Model):
    """See `tfedge.distill.Distiller`, which makes it."""

    def __init__(self, core: Core, alpha: float) -> None:
        # The inputs go to the student as they are; it casts them itself.
        super().__init__(name="distiller", dtype=core.student.dtype_policy, autocast=False)
        self._take(core, alpha, keras)

    @property
    def metrics(self) -> list[Any]:
        """What fit logs and resets."""
        own = self.compiled_metrics.metrics if self._is_compiled else []
        return [*self._means.value.values(), *own]

    def reset_metrics(self) -> None:
        """Resets what fit logs, and the hard loss's own means, which are not shown."""
        super().reset_metrics()
        if self._is_compiled and self._has_loss:
            self.compiled_loss.reset_state()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step: the student's variables follow the gradient of the combined loss.

        Args:
            data: (x,), (x, y) or (x, y, sample_weight).
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None:
            self._need_no_labels()
        taught = self.core.teach(x)
        with tf.GradientTape() as tape:
            learned = self.core.learn(x)
            parts = self.core.losses(taught, learned, y, weight, self._done())
            hard = self._hard_loss(y, learned[0], weight)
            total = self._total(parts, 0.0 if hard is None else hard, self._regularisation())
            # Gradients are summed over the replicas.
            scaled = total / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.minimize(scaled, self.trainable_variables, tape=tape)
        logs = self._noted(learned[0], self._values(total, hard, parts))
        return {**logs, **self._scores(y, learned[0], weight)}

    def test_step(self, data: Any) -> dict[str, Any]:
        """Scores the student.

        Args:
            data: (x,), (x, y) or (x, y, sample_weight).
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self.student(x, training=False)
        loss = self._hard_loss(y, outputs, weight)
        if loss is None:
            taught = self.core.teach(x)
            loss = self.core.losses(taught, (outputs, {}), y, weight, self._done()).soft
        logs = self._noted(outputs, {"loss": loss + self._regularisation()})
        return {**logs, **self._scores(y, outputs, weight)}

    def _scores(self, y: Any, outputs: Any, weight: Any) -> dict[str, Any]:
        """The compiled metrics; none without labels."""
        if y is None:
            return {}
        results: dict[str, Any] = {}
        self.compiled_metrics.update_state(y, outputs, weight)
        for metric in self.compiled_metrics.metrics:
            result = metric.result()
            results.update(result if isinstance(result, dict) else {metric.name: result})
        return results

    def _hard_loss(self, y: Any, outputs: Any, weight: Any) -> Any:
        """The compiled loss, or None without one or without labels."""
        if not self._has_loss or y is None:
            return None
        found = tf.cast(self.compiled_loss(y, outputs, weight), tf.float32)
        # Keras divides it by the replicas, so that their sum is the mean over all.
        return found * tf.distribute.get_strategy().num_replicas_in_sync
