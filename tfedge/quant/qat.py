"""Quantization-aware training: a float model in, the same model simulating integers out.

`quantize_aware` never trains: the result is an ordinary tf_keras model for `compile` and `fit`.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

from tfedge._keras import flavour, keras, tf
from tfedge.bridge import to_tf_keras
from tfedge.errors import InputError, ModelError
from tfedge.graph.copying import copy_layer
from tfedge.graph.trace import (
    Call,
    Graph,
    Ref,
    Tensor,
    flatten,
    functional_of,
    map_structure,
    replay,
    trace,
)
from tfedge.quant import _tfmot
from tfedge.quant.configs import InputQuantizer, TfedgeQuantizeWrapper, custom_objects
from tfedge.quant.normalise import normalise
from tfedge.quant.placement import Placement
from tfedge.quant.quantizers import ActivationQuantizer
from tfedge.quant.ranges import calibrate, check_simulation, copy_ranges, prepare_kernels
from tfedge.quant.refusals import check_int16, check_layers
from tfedge.quantized import (
    Range,
    is_quantized,
    name_outputs,
    output_names,
    qat_scheme,
    ranges,
    unset_ranges,
)
from tfedge.schemes import get_scheme

QAT_SCHEMES = ("w8a8", "w8a16")
"""Schemes that can be simulated in training."""

_NOTES: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class QatReport:
    """What is quantized in a quantize-aware model.

    Attributes:
        scheme: "w8a8" or "w8a16".
        ranges: Every quantizer with its variables.
        unset: Layers whose range neither calibration nor training has set yet.
        notes: What was rewritten, and why; empty for a model that was loaded from a file.
    """

    scheme: str
    ranges: tuple[Range, ...]
    unset: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """A few readable lines."""
        weights = sum(r.role == "weight" for r in self.ranges)
        lines = [
            f"{self.scheme}: {weights} kernels and {len(self.ranges) - weights} activations "
            "quantized"
        ]
        if self.unset:
            lines.append(f"no range yet (train, or give calibration data): {_few(self.unset)}")
        return "\n".join([*lines, *self.notes])


def quantize_aware(
    model: Any,
    scheme: str = "w8a8",
    calibration: Any = None,
    strict: bool = False,
    ranges: str = "moving_average",
    preserve: str = "",
) -> Any:
    """Makes a copy of a model that simulates integer arithmetic in training and inference.

    Kernels are fake-quantized to symmetric int8 (per output channel for convolutions), activations
    to int8 (asymmetric) or int16 (symmetric), at the places where the TFLite file will quantize.
    The gradient passes straight through (Jacob et al. 2018, "Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference").

    Args:
        model: A float Functional or Sequential model; it is not changed. A Keras 3 model is carried
            into tf_keras first (`tfedge.bridge.to_tf_keras`).
        scheme: "w8a8" or "w8a16".
        calibration: Data as `tfedge.data.as_batches` takes them (array, dict by input name,
            iterable, tf.data); labels are left out. The ranges start at what the float model shows
            on them; 100 to 500 samples serve. None: each range starts at the first training batch,
            and the model cannot be converted before it was trained.
        strict: True refuses every layer that tfmot's default 8-bit scheme would refuse. False also
            takes layers that can be rewritten with equal outputs (see `report(model).notes`).
        ranges: How activation ranges come about in training. "moving_average": they follow the
            batches' minima and maxima, 0.001 of the way at each step (Jacob et al. 2018).
            "fixed": they stay as calibrated, the cheapest. "learned": gradients train them, and
            the limits of kernels too (LSQ and LSQ+; see `quant.fake_quant.learned`), which pays
            with few bits. Learned ranges are trainable variables: keep weight decay off them with
            `optimizer.exclude_from_weight_decay(var_names=list(tfedge.quant.RANGE_NAMES))`; with
            Adam their steps have the size of the learning rate, so that it should be small beside
            the ranges (1e-4 is usual).
        preserve: "": nothing. "sparsity": weights that are 0 stay 0. "clusters": weights of a
            kernel that are equal stay equal, and zeros stay 0 (kernels of up to 256 different
            values; one that batch norm was folded into beforehand has more). Both hold with
            every optimizer that works element by element.

    Returns:
        A new tf_keras Functional model with the same inputs and outputs, uncompiled. Its layers
        are named "quant_<layer>". Save it as `.h5` or `.keras`, and load it with
        `custom_objects=tfedge.quant.custom_objects()`.

    Raises:
        ModelError: The model is no float tf_keras Functional or Sequential model, computes in
            mixed precision, is quantized already, or has layers without an integer form (all of
            them are listed, with the reason).
        InputError: The scheme cannot be trained, the calibration data do not fit (or are missing,
            for fixed ranges), or there is nothing to preserve.
    """
    simulation = check_simulation(ranges, preserve, calibration)
    if flavour(model) == "keras3":
        model = to_tf_keras(model, keep_class=False)
    _check(model, scheme)
    graph = trace(model)
    check_layers(graph, strict)
    if scheme == "w8a16":
        check_int16(graph)
    rewritten = normalise(graph)
    equal = _with_output_names(rewritten.model, output_names(functional_of(model)))
    result = _wrap(equal, get_scheme(scheme).activation_bits, simulation)
    name_outputs(result)
    prepare_kernels(result)
    _NOTES[result] = tuple(rewritten.notes.values())
    if calibration is not None:
        calibrate(result, calibration)
    return result


def _check(model: Any, scheme: str) -> None:
    """The errors that need no look at the layers."""
    get_scheme(scheme)
    if scheme not in QAT_SCHEMES:
        raise InputError(
            "this scheme has no quantization-aware training", f"'{scheme}'",
            f"Choose one of: {', '.join(QAT_SCHEMES)}",
        )  # fmt: skip
    if flavour(model) != "tf_keras":
        raise ModelError(
            "quantization-aware training takes Keras models", type(model).__name__,
            "Load the model with tfedge.load_model",
        )  # fmt: skip
    if is_quantized(model):
        raise ModelError("the model is quantize-aware already", f"'{model.name}'")
    mixed = [x.name for x in model.layers if x.compute_dtype not in ("float32", None)]
    mixed = [n for n in mixed if not isinstance(model.get_layer(n), keras.layers.InputLayer)]
    if mixed:
        raise ModelError(
            "fake quantization needs float32 arithmetic",
            f"{model.get_layer(mixed[0]).compute_dtype} in {_few(mixed)}",
            "Rebuild the model under the policy 'float32'",
        )


def _with_output_names(model: Any, names: list[str]) -> Any:
    """The model with its outputs under other names, by a layer that does nothing behind each.

    Needed where the output of a nested model bears that model's name: its layers stand alone now.
    """
    taken = {layer.name for layer in model.layers}
    have = output_names(model)
    if have == names:
        return model
    flat = [
        tensor
        if was == name or name in taken
        else keras.layers.Activation("linear", name=name)(tensor)
        for tensor, was, name in zip(flatten(model._nested_outputs), have, names, strict=True)
    ]
    packed = tf.nest.pack_sequence_as(model._nested_outputs, flat)
    return keras.Model(model._nested_inputs, packed, name=model.name)


def _few(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _wrap(model: Any, bits: int, simulation: dict[str, Any]) -> Any:
    """The quantize-aware form of a normalised float model, with its weights."""
    graph = _with_input_quantizers(trace(model), bits, simulation["ranges"])
    place = Placement(graph)
    made: dict[str, tuple[Any, Any]] = {}

    def make(name: str, layer: Any) -> Any:
        if isinstance(layer, InputQuantizer):
            return layer
        copy = copy_layer(layer, name=name)
        config = place.config(name, layer, bits)
        made[name] = (layer, copy)
        if config is None:
            return copy
        return TfedgeQuantizeWrapper(copy, config.changed(**simulation))

    result = replay(graph, make)
    for old, new in made.values():
        new.set_weights(old.get_weights())
    return result


def _with_input_quantizers(graph: Graph, bits: int, mode: str) -> Graph:
    """The graph with a QuantizeLayer behind every float input that something reads."""
    names = {c.name for c in graph.calls}
    tensors, calls = list(graph.tensors), []
    moved: dict[int, int] = {}
    for number, name in zip(graph.inputs, graph.input_names, strict=True):
        if not tensors[number].dtype.startswith("float"):
            continue
        label = f"quantize_{name}"
        while label in names:
            label += "_1"
        names.add(label)
        tensors.append(Tensor(tensors[number].shape, tensors[number].dtype))
        moved[number] = len(tensors) - 1
        layer = InputQuantizer(ActivationQuantizer(bits, mode), name=label)
        calls.append(Call(layer, label, (Ref(number),), {}, (number,), (moved[number],)))

    def move(leaf: Any) -> Any:
        return Ref(moved.get(leaf.index, leaf.index)) if isinstance(leaf, Ref) else leaf

    for c in graph.calls:
        inputs = tuple(moved.get(i, i) for i in c.inputs)
        args, kwargs = map_structure(move, c.args), map_structure(move, c.kwargs)
        calls.append(replace(c, args=args, kwargs=kwargs, inputs=inputs))
    outputs = map_structure(move, graph.outputs)
    return replace(graph, tensors=tensors, calls=calls, outputs=outputs)


def to_16x8(model: Any) -> Any:
    """Rebuilds a trained w8a8 model with 16-bit activations: same weights, symmetric ranges.

    Each range becomes max = m, min = -m*32768/32767 with m = max(|min|, |max|).

    Args:
        model: What `quantize_aware(model, "w8a8")` returned, trained or calibrated.

    Returns:
        A new model that simulates w8a16; `model` itself where it does so already.

    Raises:
        ModelError: The model is not quantize-aware, was made by tfmot itself, or has no ranges.
    """
    if qat_scheme(model) == "w8a16":
        return model
    foreign = [
        x.name for x in model.layers
        if isinstance(x, _tfmot.QuantizeWrapper) and not isinstance(x, TfedgeQuantizeWrapper)
    ]  # fmt: skip
    if foreign:
        raise ModelError(
            "only models made by tfedge.quant.quantize_aware can be rebuilt with 16-bit "
            "activations", f"tfmot's own wrapper around {_few(foreign)}",
            "Make the model quantize-aware with tfedge",
        )  # fmt: skip
    if unset_ranges(model):
        raise ModelError(
            "the model's ranges were never set", _few(unset_ranges(model)),
            "Train it, or give calibration data to quantize_aware",
        )  # fmt: skip
    graph = trace(model)
    check_int16(graph)
    result = replay(graph, lambda name, layer: _with_16_bits(layer))
    copy_ranges(model, result)
    _NOTES[result] = _NOTES.get(model, ())
    return result


def _with_16_bits(layer: Any) -> Any:
    """A new layer like this one whose activation quantizers have 16 bits."""
    config = layer.get_config()
    with keras.utils.custom_object_scope(custom_objects()):
        if isinstance(layer, InputQuantizer):
            return InputQuantizer(ActivationQuantizer(16, layer.quantizer.ranges), name=layer.name)
        if not isinstance(layer, TfedgeQuantizeWrapper):
            return type(layer).from_config(config)
        inner = copy_layer(layer.layer)
        return TfedgeQuantizeWrapper(
            inner, layer.quantize_config.changed(activation_bits=16), name=layer.name
        )


def report(model: Any) -> QatReport:
    """What is quantized in a quantize-aware model, and what was rewritten to get there.

    Raises:
        ModelError: The model is not quantize-aware.
    """
    scheme = qat_scheme(model)
    notes = _NOTES.get(model, ())
    return QatReport(scheme, tuple(ranges(model)), tuple(unset_ranges(model)), notes)
