"""How one layer is quantized in training: QuantizeConfig and wrapper on tfmot's.

What differs from tfmot's wrapper, and why: a frozen layer stays frozen; a wrapped layer gets its
own variables back after each call, so that it saves and reloads; a pooling layer's output is
rounded to its input's scale, as the kernel does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tfedge._keras import keras, tf
from tfedge.errors import ModelError
from tfedge.graph.rewrite import activation_name
from tfedge.quant import _tfmot, observe
from tfedge.quant.coded import biases_noted
from tfedge.quant.ends import Phase
from tfedge.quant.file_arithmetic import (
    FileActivation,
    concatenation_stand_in,
    relu_of,
    round_as_pooling,
)
from tfedge.quant.integer_grid import Integers, snapped
from tfedge.quant.integer_product import IntegerProduct
from tfedge.quant.integers import integers_of
from tfedge.quant.quantizers import ActivationQuantizer, FixedQuantizer, WeightQuantizer
from tfedge.quantized import export_bits

FILE_ACTIVATIONS = ("sigmoid", "softmax", "tanh", "swish")
"""Values of `LayerConfig.output` whose activation is computed as the file does."""

_ASIDE = {"activation": keras.activations.linear, "use_bias": False}
"""What stands for attributes of a layer while it computes in integers."""


def _swap(layer: Any, name: str, value: Any) -> None:
    """Sets an attribute past Keras's tracking, which would drop and reorder the variables."""
    object.__setattr__(layer, name, value)


@dataclass(frozen=True)
class Simulation:
    """How the integers of one layer are simulated in training.

    Attributes:
        weight_bits: 4 or 8.
        ranges: One of `ends.RANGE_MODES`.
        preserve: One of `preserving.KINDS`.
    """

    weight_bits: int = 8
    ranges: str = "moving_average"
    preserve: str = ""


class LayerConfig(_tfmot.QuantizeConfig):
    """Says what is quantized in one layer.

    Args:
        kernels: Kernel attributes of the layer with their `WeightQuantizer` axis, for example
            {"kernel": "channel"}.
        before_activation: Quantize what enters the layer's activation function.
        output: "" (not quantized), "range" (by a range of its own), "sigmoid", "softmax" or "tanh"
            (by the range that TFLite prescribes), "swish" (by a range of its own, its sigmoid as
            prescribed) or "source" (by the range of what the layer reads: kernels that round, but
            keep their input's scale).
        activation_bits: 8 or 16.
        final: True where the output is the model's (see `FixedQuantizer`).
        **simulation: Fields of `Simulation`.
    """

    def __init__(
        self,
        kernels: dict[str, str] | None = None,
        before_activation: bool = False,
        output: str = "",
        activation_bits: int = 8,
        final: bool = False,
        **simulation: Any,
    ) -> None:
        self.kernels = dict(kernels or {})
        self.before_activation = before_activation
        self.output = output
        self.activation_bits = activation_bits
        self.final = final
        self.simulation = Simulation(**simulation)

    def changed(self, **changes: Any) -> LayerConfig:
        """A config like this one with other arguments.

        Args:
            **changes: Arguments of the constructor.
        """
        return LayerConfig(**{**self.get_config(), **changes})

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Kernels of the layer with their quantizers."""
        how = self.simulation
        return [
            (getattr(layer, name), WeightQuantizer(axis, how.weight_bits, how.ranges, how.preserve))
            for name, axis in self.kernels.items()
        ]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """The activation whose input is quantized, if any."""
        if not self.before_activation:
            return []
        return [
            (layer.activation, ActivationQuantizer(self.activation_bits, self.simulation.ranges))
        ]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Lets the layer compute with the quantized kernels."""
        for name, value in zip(self.kernels, quantize_weights, strict=True):
            _swap(layer, name, value)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Lets the layer compute with the quantized activation."""
        for value in quantize_activations:
            _swap(layer, "activation", value)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """The output's quantizer, if any."""
        if self.output in ("range", "swish"):
            relu, mode = relu_of(layer), self.simulation.ranges
            ceiling = None if relu is None else relu[1]
            return [ActivationQuantizer(self.activation_bits, mode, relu is not None, ceiling)]
        if self.output in ("", "source"):
            return []
        return [FixedQuantizer(self.output, self.activation_bits, self.final)]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "kernels": self.kernels,
            "before_activation": self.before_activation,
            "output": self.output,
            "activation_bits": self.activation_bits,
            "final": self.final,
            **asdict(self.simulation),
        }


class PreQuantizedActivation:
    """An activation function whose input is quantized first.

    Args:
        activation: The layer's own function.
        quantizer: Of its input.
        variables: The quantizer's.

    Attributes:
        training: Of the present call of the layer.
    """

    def __init__(self, activation: Any, quantizer: Any, variables: dict[str, Any]) -> None:
        self.activation, self.quantizer = activation, quantizer
        self._pre_activation_vars = variables  # Under tfmot's name, for `quantized.ranges`.
        self.training: Any = None

    def __call__(self, inputs: Any) -> Any:
        """The function of the quantized `inputs` (float32, any shape)."""
        return self.activation(self.quantizer(inputs, self.training, self._pre_activation_vars))

    @property
    def range(self) -> tuple[Any, dict[str, Any]]:
        """The quantizer and its variables."""
        return self.quantizer, self._pre_activation_vars


class Untracked:
    """Holds a value that Keras must not track as the layer's own (another layer's variables)."""

    def __init__(self, value: Any) -> None:
        self.value = value


def source_quantizer(tensor: Any, required: bool = True) -> Any:
    """The quantizer, with its variables, that the values of a symbolic tensor went through last.

    Follows the tensor back through layers that quantize nothing.

    Args:
        tensor: A KerasTensor.
        required: Whether there must be one; else None may be returned.

    Raises:
        ModelError: Nothing quantizes the tensor, or two different quantizers do.
    """
    history = tensor._keras_history
    layer = history.layer
    if isinstance(layer, InputQuantizer):
        return layer.quantizer, layer.quantizer_vars
    if isinstance(layer, TfedgeQuantizeWrapper):
        if layer.quantize_config.output == "source":
            return layer._source.value
        if layer._output_quantizers:
            return layer._output_quantizers[0], layer._output_quantizer_vars
    before = layer._inbound_nodes[history.node_index].keras_inputs
    if len(before) != 1:
        if not required:
            return None
        raise ModelError(f"what '{layer.name}' gives has no quantizer", f"{len(before)} inputs")
    return source_quantizer(before[0], required)


def _uncapped(layer: Any) -> dict[str, Any]:
    """Lets a limited relu export as a plain one: the range of its output ends at the limit.

    No op has a limit other than 6 (or 1), and the op with 6 takes no int16 when it stands alone.

    Returns:
        The attributes that were changed, as they were.
    """
    if type(layer) is keras.layers.ReLU and layer.max_value is not None:
        own = {"max_value": layer.max_value}
        _swap(layer, "max_value", None)
    elif type(layer) is keras.layers.Activation and activation_name(layer) == "relu6":
        own = {"activation": layer.activation}
        _swap(layer, "activation", tf.nn.relu)
    else:
        own = {}
    return own


def _visited(wrapper: Any, function: Any, visitor: Any) -> Any:
    """The activation function, with what enters it shown to a visitor."""
    return lambda values: function(visitor.gives(wrapper, values))


def plain_inference(training: Any) -> bool:
    """Whether a layer is called for what it gives, not to be trained, observed or exported."""
    if tf.is_tensor(training) or training or export_bits():
        return False
    return observe.active() is None and observe.visitor() is None


class InputQuantizer(_tfmot.QuantizeLayer):
    """tfmot's layer that quantizes a model input, built once and without its step counter."""

    def build(self, input_shape: Any) -> None:
        """Adds the range."""
        if not hasattr(self, "quantizer_vars"):
            self.quantizer_vars = self.quantizer.build(input_shape, self.name, self)

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs: Any, training: Any = None) -> Any:
        """Quantizes `inputs`."""
        if training is None:
            training = keras.backend.learning_phase()
        if self.quantizer.phase.quantizing and plain_inference(training):
            inputs = snapped(inputs, (self.quantizer, self.quantizer_vars))
        return self.quantizer(inputs, training, self.quantizer_vars)


class TfedgeQuantizeWrapper(_tfmot.QuantizeWrapperV2):
    """tfmot's wrapper, mended: a frozen layer stays frozen, and the layer is itself after a call.

    tfmot leaves the fake-quantized tensors in the place of the layer's kernels (so that `.keras`
    files do not reload) and trains the kernels of a layer with `trainable=False`. It also traces
    each quantizer three times (for training, for inference and for the choice), stores the range
    of every kernel and counts steps that nobody reads, all of which costs time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source: Untracked | None = None
        self._reads: Untracked | None = None

    def build(self, input_shape: Any) -> None:
        """Builds the layer and adds the ranges, once: loading a `.keras` file asks twice."""
        if hasattr(self, "_weight_vars"):
            return
        keras.layers.Wrapper.build(self, input_shape)
        config = self.quantize_config
        weights = []
        for kernel, quantizer in config.get_weights_and_quantizers(self.layer):
            made = quantizer.build(kernel.shape, self._weight_name(kernel.name), self)
            weights.append((kernel, quantizer, quantizer.with_ends(made, kernel)))
        _swap(self, "_weight_vars", weights)
        activations = [
            PreQuantizedActivation(f, q, q.build(None, "pre_activation", self))
            for f, q in config.get_activations_and_quantizers(self.layer)
        ]
        _swap(self, "_quantize_activations", activations)
        outputs = config.get_output_quantizers(self.layer)
        _swap(self, "_output_quantizers", outputs)
        made = outputs[0].build(None, "output", self) if outputs else {}
        _swap(self, "_output_quantizer_vars", made)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; finds the quantizer of what it reads where it needs that."""
        if self.quantize_config.output == "source" and self._source is None:
            self._source = Untracked(source_quantizer(inputs))
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        if all(hasattr(t, "_keras_history") for t in tensors):
            self._note_inputs([source_quantizer(t, required=False) for t in tensors])
        return super().__call__(inputs, *args, **kwargs)

    def _note_inputs(self, sources: list[Any]) -> None:
        """Remembers what quantizes the layer's inputs; nothing where calls differ in that."""
        found: list[Any] | None = sources if all(sources) else None
        if self._reads is not None:
            pairs = zip(self._reads.value or [], found or [], strict=False)
            same = [old[0] is new[0] for old, new in pairs]  # tfmot's are equal if they look alike.
            found = found if same and all(same) else None
        self._reads = Untracked(found)

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        """Runs the layer with quantized kernels and activation, then puts its own back."""
        if training is None:
            training = keras.backend.learning_phase()
        relu = None
        if self._output_quantizers and self._output_quantizers[0].fuses_relu(
            self._output_quantizer_vars
        ):
            relu = relu_of(self.layer)
        wide = self.quantize_config.activation_bits == 16
        if export_bits() and wide and isinstance(self.layer, keras.layers.Concatenate):
            outputs = concatenation_stand_in(list(inputs), self.layer.axis)
        elif relu is not None and relu[0]:
            outputs = inputs
        else:
            outputs = self._run(inputs, training, relu is not None, kwargs)
        if self._output_quantizers:
            quantizer, variables = self._output_quantizers[0], self._output_quantizer_vars
            if relu is not None:
                return quantizer.relu(outputs, training, variables)
            return quantizer(outputs, training, variables)
        if self.quantize_config.output == "source" and self._source is not None:
            return round_as_pooling(outputs, *self._source.value)
        return outputs

    def _run(self, inputs: Any, training: Any, without_activation: bool, kwargs: dict) -> Any:
        """What the layer gives with quantized kernels; it is itself again afterwards."""
        layer, config = self.layer, self.quantize_config
        own = {name: getattr(layer, name) for name in config.kernels}
        linear = config.kernels and hasattr(layer, "activation")  # An embedding looks rows up.
        visitor = observe.visitor() if linear else None
        if visitor is not None:
            visitor.reads(self, inputs)
        if export_bits() and config.output == "range":
            own |= _uncapped(layer)
        with biases_noted(layer):
            quantized = [q(kernel, training, found) for kernel, q, found in self._weight_vars]
        function = self._function(training, without_activation)
        if visitor is not None:
            function = _visited(self, function or layer.activation, visitor)
        integers = self._integers(training)
        try:
            if layer._call_spec.expects_training_arg:
                kwargs = {**kwargs, "training": training}
            if integers is not None:
                own |= {n: getattr(layer, n) for n in _ASIDE if hasattr(layer, n)}
                for name in set(own).intersection(_ASIDE):
                    _swap(layer, name, _ASIDE[name])
                if isinstance(integers, IntegerProduct):
                    config.set_quantize_weights(layer, list(map(integers.kernel, quantized)))
                outputs = integers.outputs(layer.call(integers.inputs(inputs), **kwargs))
                return (function or own.get("activation", keras.activations.linear))(outputs)
            config.set_quantize_weights(layer, quantized)
            if function is not None:
                own["activation"] = layer.activation
                config.set_quantize_activations(layer, [function])
            return layer.call(inputs, **kwargs)
        finally:
            for name, value in own.items():
                _swap(layer, name, value)

    def _integers(self, training: Any) -> Integers | None:
        """The layer as the file computes it, in inference.

        None where that is no different, and while the layer is observed or exported.
        """
        sources = None if self._reads is None else self._reads.value
        return integers_of(self, sources) if sources and plain_inference(training) else None

    def _function(self, training: Any, without_activation: bool) -> Any:
        """What stands for the layer's activation function during a call; None: its own does."""
        config = self.quantize_config
        if without_activation:
            return keras.activations.linear
        if not (config.before_activation or config.output in FILE_ACTIVATIONS):
            return None
        phase = self._phase()
        function = FileActivation(self.layer.activation, config.activation_bits, phase)
        for before in self._quantize_activations:
            before.activation, before.training = function, training
            return before
        return function

    def _phase(self) -> Phase | None:
        quantizers = layer_quantizers(self)
        return quantizers[0].phase if quantizers else None

    @property
    def trainable_weights(self) -> list[Any]:
        """The layer's trainable weights and its learned ranges; none where the layer is frozen."""
        if not self.layer.trainable:
            return []
        return self._dedup_weights([*self.layer.trainable_weights, *self._trainable_weights])

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The layer's other weights, then the other ranges."""
        frozen = [] if self.layer.trainable else self._trainable_weights
        return self._dedup_weights(
            [*self.layer.non_trainable_weights, *frozen, *self._non_trainable_weights]
        )


def layer_quantizers(layer: Any) -> list[Any]:
    """The quantizers of one layer of a quantize-aware model (none of tfmot's own layers)."""
    if isinstance(layer, InputQuantizer):
        return [layer.quantizer]
    if not isinstance(layer, TfedgeQuantizeWrapper):
        return []
    return [
        *(q for _, q, _ in layer._weight_vars),
        *(a.quantizer for a in layer._quantize_activations),
        *layer._output_quantizers,
    ]
