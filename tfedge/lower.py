"""Keras model -> TFLite bytes: frozen variables, a declared batch, inputs and outputs by name."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.bridge import ServingModel, to_tf_keras
from tfedge.capture import captured
from tfedge.data import InputSpec, as_batches
from tfedge.errors import ConversionError, InputError, ModelError
from tfedge.graph.trace import functional_of
from tfedge.quantized import (
    BOUNDARY_SCOPE,
    CONCAT_SCOPE,
    STAND_INS,
    Export,
    all_layers,
    exporting,
    is_quantized,
    layer_name,
    output_names,
    qat_schemes,
    unset_ranges,
)
from tfedge.schemes import QuantScheme, get_scheme
from tfedge.tflite import channel_scales, flatbuffer, int16_bias, rewrite, standins
from tfedge.tflite.stored import HYBRID_OPS, widen_weights
from tfedge.tflite.unsigned import unsigned_ends

IO = ("int", "float", "uint8")
# XNNPACK has no depthwise convolution with int8 weights and float activations; in float32 it is
# faster than the runtime's own kernel by far.
_WIDENED = {"w8_dynamic": ("DEPTHWISE_CONV_2D",), "w8_weight_only": tuple(HYBRID_OPS)}
_LARGE = 2**28  # Bytes of float32 weights; below, a collection takes longer than it is worth.
_INPUT, _OUTPUT = "tfedge_input_{}", "tfedge_output_{}"


@dataclass(frozen=True)
class Source:
    """What is converted: a function of flat tensors with names.

    Attributes:
        call: Takes the input tensors in order, returns the output tensors in order.
        inputs: Name, shape and dtype of each input; axis 0 is the batch.
        output_names: Keras output names, in order.
        schemes: What a quantize-aware model simulates; empty for a float model.
        renamed: Wrapper name -> layer name of a quantize-aware model.
        keep_alive: Objects whose variables the function reads.
    """

    call: Callable[[list[Any]], list[Any]]
    inputs: tuple[InputSpec, ...]
    output_names: tuple[str, ...]
    schemes: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    keep_alive: Any = None


def source_of(model: Any) -> Source:
    """Describes a model for conversion.

    Args:
        model: A Functional or Sequential model (float or quantize-aware; Keras 3 is carried into
            tf_keras), or a `bridge.ServingModel`.

    Raises:
        ModelError: A subclassed or unbuilt model.
    """
    if isinstance(model, ServingModel):
        return _serving_source(model)
    net = functional_of(to_tf_keras(model, keep_class=False))
    inputs = tuple(
        InputSpec(name, tuple(t.shape), t.dtype.name)
        for name, t in zip(net.input_names, net.inputs, strict=True)
    )

    def call(flat: list[Any]) -> list[Any]:
        packed = tf.nest.pack_sequence_as(net._nested_inputs, flat)
        return tf.nest.flatten(net(packed, training=False))

    quantized = is_quantized(net)
    renamed = {x.name: layer_name(x) for x in all_layers(net) if x.name != layer_name(x)}
    schemes = qat_schemes(net) if quantized else ()
    return Source(call, inputs, tuple(output_names(net)), schemes, renamed, net)


def _serving_source(model: ServingModel) -> Source:
    inputs = []
    for name, spec in model.inputs.items():
        if spec.shape.rank is None:
            raise ModelError(
                f"the SavedModel's input '{name}' has no rank", "an unknown shape",
                "Export it with an input signature",
            )  # fmt: skip
        inputs.append(InputSpec(name, tuple(spec.shape), spec.dtype.name))

    def call(flat: list[Any]) -> list[Any]:
        result = model.function(**dict(zip(model.inputs, flat, strict=True)))
        return [result[n] for n in model.output_names]

    return Source(call, tuple(inputs), tuple(model.output_names), keep_alive=model)


def layer_names(model: Any) -> list[str]:
    """The model's Keras layer names in topological order, as they stand in a file's tensor names.

    Wrappers of quantize-aware models give the wrapped layer's name; nested models give the names
    of their layers; a `ServingModel` gives none.
    """
    if isinstance(model, ServingModel):
        return []
    net = functional_of(model)
    return list(dict.fromkeys(_in_order(net)))


def _in_order(net: Any, nested: bool = False) -> Iterator[str]:
    for depth in sorted(net._nodes_by_depth, reverse=True):
        for node in net._nodes_by_depth[depth]:
            if hasattr(node.layer, "layers"):
                yield from _in_order(functional_of(node.layer), nested=True)
            elif not (nested and node.is_input):  # A nested model's inputs are no tensors.
                yield layer_name(node.layer)


def lower(
    model: Any,
    scheme: str,
    *,
    calibration: Any = None,
    io: str = "int",
    batch: int = 1,
) -> bytes:
    """Converts a model to a TFLite file.

    Args:
        model: A tf_keras Functional or Sequential model, or a `bridge.ServingModel`. A model from
            `quantize_aware` is converted with its own ranges (to the scheme that it simulates).
        scheme: One of `schemes.SCHEMES`.
        calibration: Data as `data.as_batches` takes them; needed for w8a8 and w8a16 of a float
            model, refused where it would not be used.
        io: "int": inputs and outputs hold the file's integers (int8 for w8a8, int16 for w8a16);
            "float": float32, quantized inside; "uint8": the int8 codes plus 128. Without meaning
            for float schemes.
        batch: Samples per inference; every other free axis must have been declared.

    Returns:
        The file. Its signature "serving_default" has the Keras input and output names in order.
        Whether all ops are integer is not checked here (see `tflite.certificate`).

    Raises:
        InputError: An unknown scheme, io or batch, or data that do not fit.
        ModelError: A model that cannot be converted so.
        ConversionError: The TFLite converter failed; its message is quoted.
    """
    spec = get_scheme(scheme)
    if io not in IO:
        raise InputError(f"io must be one of: {', '.join(IO)}", repr(io))
    if io == "uint8" and spec.full_integer and spec.activation_bits != 8:
        raise InputError("uint8 ends are for files with 8-bit activations", f"'{spec.name}'")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError("batch must be a whole number of at least 1", repr(batch))
    source = source_of(model)
    _check_combination(source, spec, calibration, model)
    source = _with_batch(source, batch)
    _free(model)
    with exporting(spec.activation_bits) as export:
        frozen = _freeze(source)
    _free(model)
    raw = _convert(frozen, source, spec, calibration)
    return _finish(raw, source, spec, io, export)


def _check_combination(source: Source, spec: QuantScheme, calibration: Any, model: Any) -> None:
    """The scheme, the model's own quantization and the data must belong together."""
    if source.schemes:
        if spec.name not in source.schemes:
            raise ModelError(
                f"this quantize-aware model simulates {' and '.join(source.schemes)}",
                f"scheme '{spec.name}'",
                "Use tfedge.convert (it rebuilds w8a8 as w8a16), or convert the float model",
            )  # fmt: skip
        unset = unset_ranges(model)
        if unset:
            raise ModelError(
                "the quantize-aware model has activation ranges that nothing has set",
                f"layers {', '.join(unset[:4])}" + ("..." if len(unset) > 4 else ""),
                "Train it, or pass calibration data to quantize_aware",
            )
    elif spec.weight_bits < 8:
        raise ModelError(
            f"{spec.name} needs a quantize-aware model", "a float model",
            "Use tfedge.convert, which makes one of the calibration data",
        )  # fmt: skip
    needs = spec.needs_ranges and not source.schemes
    if needs and calibration is None:
        raise InputError(
            f"scheme '{spec.name}' needs calibration data for a float model", "none",
            "Pass calibration=... (100 or more typical inputs), or a quantize-aware model",
        )  # fmt: skip
    if calibration is not None and not needs:
        why = "a quantize-aware model has its own" if source.schemes else "it has no ranges"
        raise InputError(
            "calibration data were given but would not be used", f"scheme '{spec.name}': {why}",
            "Leave calibration out",
        )  # fmt: skip


def _with_batch(source: Source, batch: int) -> Source:
    """The source with its batch axis fixed."""
    fixed = []
    for spec in source.inputs:
        if not spec.shape:
            raise ModelError(f"input '{spec.name}' is a scalar and has no batch axis")
        free = [i for i, d in enumerate(spec.shape) if d is None and i > 0]
        if free:
            raise ModelError(
                f"input '{spec.name}' has axes of free size besides the batch",
                str(spec.shape), f"Give their sizes to convert: shapes={{'{spec.name}': (...)}}",
            )  # fmt: skip
        if spec.shape[0] not in (None, batch):
            raise InputError(
                f"input '{spec.name}' has a fixed batch of {spec.shape[0]}", f"batch={batch}",
                f"Pass batch={spec.shape[0]}",
            )  # fmt: skip
        fixed.append(InputSpec(spec.name, (batch, *spec.shape[1:]), spec.dtype))
    return replace(source, inputs=tuple(fixed))


def _freeze(source: Source) -> Any:
    """A concrete function without variables, whose inputs and outputs have names of ours.

    Without this the converter goes through a SavedModel on disk, which takes most of its time.
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    signature = [
        tf.TensorSpec(s.shape, tf.dtypes.as_dtype(s.dtype), name=_INPUT.format(i))
        for i, s in enumerate(source.inputs)
    ]

    def run(*flat: Any) -> list[Any]:
        results = source.call(list(flat))
        return [tf.identity(y, name=_OUTPUT.format(i)) for i, y in enumerate(results)]

    function = tf.function(run, input_signature=signature, autograph=False)
    with captured() as said:
        try:
            concrete = function.get_concrete_function()
            _require_room(concrete.variables)
            return convert_variables_to_constants_v2(concrete)
        except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
            raise ConversionError(
                "the model cannot be frozen for conversion", _reason(error, said.text())
            ) from error


def _free(model: Any) -> None:
    """Frees what a large model was made of: graphs and models are cycles, and Python counts few."""
    weights = getattr(model, "weights", ())
    if sum(4 * math.prod(w.shape) for w in weights) >= _LARGE:
        gc.collect()


def _require_room(variables: Sequence[Any]) -> None:
    """A graph with its weights inside is one message of 2 GB at most, whatever is made of it."""
    sizes = {v.name.split(":")[0]: v.shape.num_elements() * v.dtype.size for v in variables}
    total = sum(sizes.values())
    if total > flatbuffer.LIMIT:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        raise ConversionError(
            "the model is too large for the TFLite converter, which takes 2 GB of float32 weights",
            f"{total / 2**30:.2f} GB; largest: "
            + ", ".join(f"{name} ({sizes[name] / 2**20:.0f} MB)" for name in largest),
            "Split the model, or prune it",
        )


def _convert(frozen: Any, source: Source, spec: QuantScheme, calibration: Any) -> bytes:
    """Runs the TFLite converter, its chatter kept for the error message."""
    if calibration is not None:
        _refuse_loops(frozen)
    with captured() as said:
        try:
            converter = _Converter.from_concrete_functions([frozen])
            _configure(converter, source, spec, calibration, frozen)
            return bytes(converter.convert())
        except (InputError, ModelError):
            raise
        except Exception as error:  # The converter raises bare Exceptions of many kinds.
            raise ConversionError(
                f"the TFLite converter cannot make a {spec.name} file of this model",
                _reason(error, said.text()),
                _advice(spec),
            ) from error


class _Converter(tf.lite.TFLiteConverter):
    """TensorFlow's converter for a function that is frozen already.

    It would freeze it again, which changes nothing and takes a quarter of all its time. This hook
    is not public: where it is no longer called, the function is frozen twice.
    """

    def _freeze_concrete_function(self) -> tuple[Any, list[Any], list[Any], Any]:
        (frozen,) = self._funcs
        inputs = [t for t in frozen.inputs if t.dtype != tf.resource]  # Tables of a ServingModel.
        return frozen.graph.as_graph_def(), inputs, list(frozen.outputs), frozen


def _refuse_loops(frozen: Any) -> None:
    """The converter's calibration of a loop ends the process."""
    # Sorted: the order of a frozen graph's ops changes from run to run.
    loops = sorted(op.name for op in frozen.graph.get_operations() if op.type == "LoopCond")
    if loops:
        raise ConversionError(
            "the TFLite converter cannot calibrate a model that loops",
            f"'{loops[0].split('/while', 1)[0]}'",
            "tfedge.convert writes the steps out where the layers of a Keras model can be read",
        )


def _advice(spec: QuantScheme) -> str:
    if spec.name == "float32":
        return "Write the operations that TFLite does not have with others"
    return "Convert with scheme='float32' to see whether the ops are supported at all"


def _configure(
    converter: Any, source: Source, spec: QuantScheme, calibration: Any, frozen: Any
) -> None:
    ops = tf.lite.OpsSet
    if spec.name == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if spec.name == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if calibration is None:
        return
    converter.representative_dataset = lambda: _samples(source, calibration, frozen)
    sixteen = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [
        ops.TFLITE_BUILTINS_INT8 if spec.activation_bits == 8 else sixteen
    ]


def _samples(source: Source, calibration: Any, frozen: Any) -> Iterator[list[np.ndarray]]:
    """Calibration batches of the declared size, in the order of the frozen function's inputs."""
    place = {_INPUT.format(i): s.name for i, s in enumerate(source.inputs)}
    order = [place[t.op.name] for t in frozen.inputs]
    size = source.inputs[0].shape[0] or 1
    for arrays in as_batches(calibration, source.inputs, batch=size, role="calibration data"):
        # A last, smaller batch is filled with its own samples: no minimum or maximum changes.
        yield [np.resize(arrays[n], (size, *arrays[n].shape[1:])) for n in order]


def _reason(error: BaseException, said: str) -> str:
    """The line of an error, or of the converter's chatter, that says most."""
    lines = [x.strip() for x in (str(error) + "\n" + said).splitlines() if x.strip()]
    telling = [x for x in lines if "error:" in x.lower()] or lines
    text = (telling[0] if telling else type(error).__name__).split("error: ", 1)[-1]
    return text if len(text) <= 400 else text[:200] + " ... " + text[-200:]


def _finish(raw: bytes, source: Source, spec: QuantScheme, io: str, exported: Export) -> bytes:
    """Integer ends, scales, bias types, layer names and the signature."""
    model = flatbuffer.read(raw)
    graph = model.subgraphs[0]
    by_name = {flatbuffer.tensor_name(graph.tensors[int(i)]): int(i) for i in graph.inputs}
    order = [by_name[_INPUT.format(i)] for i in range(len(source.inputs))]
    if len(graph.outputs) != len(source.output_names):
        found = f"{len(graph.outputs)} instead of {len(source.output_names)}"
        raise ConversionError("the converter changed the number of outputs", found)
    model.signatureDefs = None
    graph.inputs = order
    if source.schemes:
        channel_scales.restore_scales(model, exported.kernels)
        channel_scales.mend_uniform_biases(model, exported.uniform_biases)
        standins.restore_functions(model, STAND_INS)
        standins.restore_concatenations(model, CONCAT_SCOPE)
        standins.remove_boundaries(model, BOUNDARY_SCOPE)
        rewrite.merge_requantizations(model)
    if spec.full_integer and io != "float":
        rewrite.strip_float_io(model)
    if spec.full_integer and io == "uint8":
        unsigned_ends(model)
    if spec.name in _WIDENED:
        widen_weights(model, _WIDENED[spec.name])
    if spec.activation_bits == 16 or len(source.schemes) > 1:
        int16_bias.fit_int16_biases(model)
    rewrite.rename_layers(model, source.renamed)
    rewrite.compact(model)
    inputs = dict(zip((s.name for s in source.inputs), map(int, graph.inputs), strict=True))
    outputs = dict(zip(source.output_names, map(int, graph.outputs), strict=True))
    return flatbuffer.set_signature(flatbuffer.write(model), inputs, outputs)
