"""tf_keras layers that run a Keras 3 layer or operation which tf_keras does not have.

They compute exactly what Keras 3 does, train, save and reload (import `tfedge.bridge` before a file
with them is loaded by tf_keras alone). The way back to Keras 3 unpacks them. Keras 3 must run on
its TensorFlow backend.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
from typing import Any

from tfedge._keras import keras, keras3, tf
from tfedge.bridge.arguments import decode, encode
from tfedge.errors import ModelError
from tfedge.graph.copying import custom_objects_of

_CLASSES: dict[str, Any] = {}
"""The user's own Keras 3 classes and functions that layers carried in this process are made of."""

_register = keras.saving.register_keras_serializable("tfedge")


def require_tensorflow(what: str) -> None:
    """Refuses to run Keras 3's own code on another backend inside tf_keras.

    Raises:
        ModelError: Keras 3 runs on JAX or PyTorch.
    """
    if keras3().backend.backend() != "tensorflow":
        raise ModelError(
            f"'{what}' has no counterpart in tf_keras and can be carried on TensorFlow only",
            f"Keras 3 runs on {keras3().backend.backend()}",
            "Pass a tf_keras class for it in custom_objects",
        )


def remember(layer: Any) -> None:
    """Lets carried copies of a user's own Keras 3 layer be built again in this process.

    Elsewhere the classes must be given when the file is loaded.
    """
    _CLASSES.update({**custom_objects_of(layer), type(layer).__name__: type(layer)})


def _deserialized(data: dict[str, Any]) -> Any:
    """The Keras 3 layer, by the classes that the user gives here, or those of `remember`."""
    saving = keras3().saving
    try:
        return saving.deserialize_keras_object(copy.deepcopy(data))
    except TypeError:
        with keras3().utils.custom_object_scope(_CLASSES):
            return saving.deserialize_keras_object(copy.deepcopy(data))


def template(args: tuple, kwargs: dict[str, Any], name: str) -> tuple[dict[str, Any], list[Any]]:
    """Call arguments as JSON data, and the symbolic tensors in them."""
    tensors: list[Any] = []
    data = {"args": list(args), "kwargs": kwargs}
    encoded = {
        "args": [encode(a, tensors, name) for a in data["args"]],
        "kwargs": {k: encode(v, tensors, name) for k, v in kwargs.items()},
    }
    return json.loads(json.dumps(encoded)), tensors


class _Carried(keras.layers.Layer):
    """Calls a Keras 3 object on tensors that are given as a flat list.

    Args:
        arguments: What `template` returned: the call's arguments.
        shapes: Shapes of the outputs, flat; None where free.
        **kwargs: As for any layer.
    """

    def __init__(self, arguments: dict[str, Any], shapes: list[Any], **kwargs: Any) -> None:
        kwargs.pop("autocast", None)
        super().__init__(autocast=False, **kwargs)
        self._arguments = _Box(arguments)
        self._shapes = _Box(shapes)
        self.supports_masking = True

    def filled(self, tensors: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the Keras 3 call with tensors filled in."""
        flat = tf.nest.flatten(tensors)
        data = self._arguments.value
        args = [decode(a, flat) for a in data["args"]]
        return args, {k: decode(v, flat) for k, v in data["kwargs"].items()}

    def _with_shapes(self, outputs: Any) -> Any:
        for tensor, shape in zip(tf.nest.flatten(outputs), self._shapes.value, strict=True):
            tensor.set_shape(shape)
        return outputs

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Keras 3 operations drop masks."""
        return None

    def get_config(self) -> dict[str, Any]:
        """All arguments of the constructor."""
        config = {**super().get_config(), "shapes": self._shapes.value}
        config.pop("autocast", None)
        return {**config, "arguments": self._arguments.value}


class _Box:
    """Hides an object from Keras, which would wrap a dict and track a layer's weights."""

    def __init__(self, value: Any) -> None:
        self.value = value


@_register
class KerasOp(_Carried):
    """Runs one Keras 3 operation.

    Args:
        op: Class name, module and config of the operation.
        **kwargs: As for `_Carried`.
    """

    def __init__(self, op: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_tensorflow(op["class_name"])
        self._op = _Box(op)
        self._operation = _Box(make_operation(op))

    @property
    def operation(self) -> Any:
        """The Keras 3 operation."""
        return self._operation.value

    def call(self, inputs: Any) -> Any:
        """The operation's own call."""
        args, kwargs = self.filled(inputs)
        return self._with_shapes(self.operation.call(*args, **kwargs))

    def get_config(self) -> dict[str, Any]:
        """All arguments of the constructor."""
        return {**super().get_config(), "op": self._op.value}


def operation_config(op: Any) -> dict[str, Any]:
    """Module, class name and config of a Keras 3 operation.

    Raises:
        ModelError: The operation holds what cannot be written down, such as a function.
    """
    kind = type(op)
    try:
        config = {k: v for k, v in op.get_config().items() if k != "name"}
        encoded = {k: encode(v, [], op.name) for k, v in config.items()}
    except NotImplementedError as e:
        raise ModelError(
            f"the operation '{op.name}' ({kind.__name__}) has no counterpart in tf_keras",
            "it cannot be rebuilt from a config",
            "Put it into a layer and pass a tf_keras class for that layer in custom_objects",
        ) from e
    data = {"module": kind.__module__, "class_name": kind.__name__, "config": encoded}
    return json.loads(json.dumps(data))


def make_operation(data: dict[str, Any], name: str | None = None) -> Any:
    """The Keras 3 operation of `operation_config`.

    Raises:
        ModelError: The data name no operation of Keras 3.
    """
    keras3()
    kind = None
    if data["module"].startswith("keras.src."):
        kind = getattr(importlib.import_module(data["module"]), data["class_name"], None)
    if kind is None:
        raise ModelError(
            "this Keras 3 does not have an operation that the model was saved with",
            f"{data['module']}.{data['class_name']}",
            "Load it with the Keras version that it was made with",
        )
    config = {k: decode(v, []) for k, v in data["config"].items()}
    return kind.from_config({**config, "name": name} if name else config)


@_register
class Keras3Layer(_Carried):
    """Runs one Keras 3 layer on weights of its own.

    Args:
        layer: The Keras 3 layer, serialized.
        dtypes: Dtypes of the tensor arguments.
        **kwargs: As for `_Carried`.
    """

    def __init__(self, layer: dict[str, Any], dtypes: list[str], **kwargs: Any) -> None:
        kwargs.pop("dtype", None)  # the inner layer has its own policy
        super().__init__(**kwargs)
        require_tensorflow(layer.get("class_name", ""))
        self._serialized, self._dtypes = _Box(layer), _Box(list(dtypes))
        self._inner = _Box(_deserialized(layer))
        self._own: list[Any] = []

    @property
    def inner(self) -> Any:
        """The Keras 3 layer; its weights are not those in use, see `values`."""
        return self._inner.value

    def build(self, input_shape: Any) -> None:
        """Builds the Keras 3 layer and makes a weight for each variable of it."""
        shapes = _shape_list(input_shape, len(self._dtypes.value))
        given = zip(shapes, self._dtypes.value, strict=True)
        args, kwargs = self.filled([keras3().KerasTensor(s, dtype=d) for s, d in given])
        self.inner(*args, **kwargs)
        for name, variable in _named(self.inner.variables):
            weight = self.add_weight(
                name=name,
                shape=tuple(variable.shape),
                dtype=str(variable.dtype),
                initializer="zeros",
                trainable=variable.trainable,
            )
            weight.assign(tf.cast(variable.value, weight.dtype))
            self._own.append(weight)
        super().build(input_shape)

    def rebuilt(self, name: str) -> Any:
        """The Keras 3 layer anew, without weights."""
        data = self._serialized.value
        return _deserialized({**data, "config": {**data["config"], "name": name}})

    def values(self) -> list[Any]:
        """The weights in the order of the Keras 3 layer's `variables`."""
        return list(self._own)

    def call(self, inputs: Any, mask: Any = None, training: Any = None) -> Any:
        """The layer's own call, with this layer's weights in place of its own."""
        args, kwargs = self.filled(_masked(inputs, mask))
        inner = self.inner
        if "training" in inspect.signature(inner.call).parameters:
            kwargs["training"] = bool(training)
        own = zip(inner.variables, self._own, strict=True)
        now = [(v, tf.convert_to_tensor(w)) for v, w in own]
        with keras3().StatelessScope(state_mapping=now, collect_losses=True) as scope:
            outputs = inner(*args, **kwargs)
        if training:
            for (v, before), weight in zip(now, self._own, strict=True):
                value = scope.get_current_value(v)
                if value is not before:
                    weight.assign(tf.cast(value, weight.dtype))
        for loss in scope.losses:
            self.add_loss(loss)
        return self._with_shapes(outputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask that the Keras 3 layer gives."""
        if not self.inner.supports_masking or mask is None:
            return None
        args, _ = self.filled(_masked(inputs, mask))
        first = args[0] if args else inputs
        before = tf.nest.map_structure(lambda t: getattr(t, "_keras_mask", None), first)
        return self.inner.compute_mask(first, before)

    def get_config(self) -> dict[str, Any]:
        """All arguments of the constructor."""
        own = {"layer": self._serialized.value, "dtypes": self._dtypes.value}
        config = {**super().get_config(), **own}
        config.pop("dtype", None)
        return config


def _shape_list(shape: Any, count: int) -> list[tuple]:
    shapes = [shape] if count == 1 and not isinstance(shape, list) else list(shape)
    return [tuple(tf.TensorShape(s).as_list()) for s in shapes]


def _named(variables: list[Any]) -> list[tuple[str, Any]]:
    """Variables with names that are unique within the layer."""
    out: list[tuple[str, Any]] = []
    taken: set[str] = set()
    for v in variables:
        parts = v.path.split("/")
        base = name = "/".join(parts[1:]) or v.name
        n = 1
        while name in taken:
            name, n = f"{base}_{n}", n + 1
        taken.add(name)
        out.append((name, v))
    return out


def _masked(inputs: Any, mask: Any) -> list[Any]:
    """Flat tensors that carry the masks that tf_keras passes beside them."""
    flat = [tf.identity(t) for t in tf.nest.flatten(inputs)]
    masks = list(mask) if isinstance(mask, (list, tuple)) else [mask] * (mask is not None)
    for tensor, m in zip(flat, masks, strict=False):
        tensor._keras_mask = m
    return flat


@_register
class PassMask(keras.layers.Layer):
    """Gives its first input the mask of its second one, or none where it has one input only.

    Some layers hand on a mask in one Keras and not in the other; this mends it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The first input."""
        return tf.identity(inputs[0] if isinstance(inputs, (list, tuple)) else inputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the second input."""
        two = isinstance(inputs, (list, tuple)) and len(inputs) == 2
        return mask[1] if two and mask is not None else None
