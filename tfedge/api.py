"""The public verbs: load_model, convert, verify, benchmark, doctor, inspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfedge.data import load, stack
from tfedge.errors import InputError, ModelError
from tfedge.record import Drift, OpAgreement, Timing
from tfedge.schemes import Int16, get_scheme
from tfedge.tflite import TFLiteModel

if TYPE_CHECKING:
    from tfedge.checkup import Checkup

_LAYER_SAMPLES = 16


def load_model(model: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Loads a Keras model, or checks one that is loaded already.

    Args:
        model: A model of either Keras, or the path of an `.h5` or `.keras` file that either Keras
            wrote, or of a SavedModel folder. Quantize-aware models load too.
        custom_objects: Layers and functions by the name that the file uses for them.

    Returns:
        A model of the flavour that it was given in. A SavedModel without Keras layers (serving
        only, or made by `export()`) gives a `bridge.ServingModel`, which can be converted, verified
        and benchmarked only.

    Raises:
        InputError: No such file, or a file that is not a model.
        ModelError: A layer that is not known.
    """
    from tfedge import bridge

    known = dict(custom_objects or {})
    if isinstance(model, (str, Path)) and bridge.holds_quantizers(Path(model)):
        from tfedge import quant
        from tfedge.quantized import name_outputs

        known = {**quant.custom_objects(), **known}
        return name_outputs(bridge.load_model(model, known))
    return bridge.load_model(model, known)


def working(model: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Loads a model as `load_model` does, and carries a Keras 3 model into tf_keras.

    Training, quantization and conversion work on tf_keras; see `bridge.to_tf_keras`.
    """
    from tfedge import bridge

    loaded = load_model(model, custom_objects)
    if isinstance(loaded, bridge.ServingModel):
        return loaded
    return bridge.to_tf_keras(loaded, custom_objects, keep_class=False)


def _computed(model: Any) -> Any:
    """Loads a model to be computed: in float32; a function where its layers cannot be read."""
    from tfedge import bridge
    from tfedge.graph.trace import functional_of

    loaded = load_model(model)
    if isinstance(loaded, bridge.ServingModel):
        return loaded
    try:
        plain = bridge.to_float32(loaded)
        functional_of(plain)
    except ModelError as error:
        return bridge.CalledModel(loaded, str(error))
    return plain


def like(model: Any, given: Any) -> Any:
    """Carries a tf_keras model into the flavour of `given`."""
    from tfedge import bridge
    from tfedge._keras import flavour

    return bridge.to_keras3(model) if flavour(given) == "keras3" else model


def convert(
    model: Any,
    scheme: str = "w8a8",
    *,
    calibration: Any = None,
    io: str = "int",
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    overrides: Mapping[str, str] | None = None,
    ptq: str | Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    int16: Mapping[str, str] | None = None,
) -> TFLiteModel:
    """Converts a Keras model to a TFLite file that is known to run.

    The file is loaded and run in a subprocess before it is returned. A full-integer scheme that
    left a float tensor anywhere between input and output is an error. Layers that the converter
    cannot quantize (recurrent ones, 16-bit gelu) are written in operations that it can, as in
    quantization-aware training, where all of the model can be; metadata "rewritten" says so.

    Args:
        model: A model of either Keras (float, or from `quantize_aware`; one of a mixed precision
            policy is computed in float32, see `bridge.to_float32`), a `ServingModel`, or a path.
        scheme: One of `tfedge.schemes.SCHEMES`. A w8a8 quantize-aware model may be converted to
            w8a16: it is rebuilt with 16-bit activations.
        calibration: Data for the activation ranges of a float model under w8a8 and w8a16: an array
            [n, ...], a dict by input name, an iterable of batches, or a tf.data.Dataset. Where
            there are none: "synthetic:64" makes samples up from the model's batch norms (see
            `quant.synthesize`). With 16-bit activations they also bound the sums of ops that no
            proof lets run in 32 bits, those of a quantize-aware model too.
        io: "int" (int8 or int16 inputs and outputs), "float", or "uint8" (of 8-bit files).
        batch: Samples per inference of the file.
        shapes: Sizes of inputs that the model leaves free (`Input((None, None, 3))`), the batch
            left out, by input name: {"image": (320, 320, 3)}; see `bridge.with_shapes`.
        overrides: Scheme by layer name or regular expression, "float" among them, for a float
            model under a full-integer scheme (see `quant.quantize_aware`). A quantize-aware model
            has its own.
        ptq: Steps of post-training quantization for a float model under a full-integer scheme:
            "default", or names in `quant.PTQ_STEPS` (see `quant.post_training`). What each gained
            stands in the file's metadata under "ptq". Empty: ranges from the smallest and largest
            values, which is the fastest.
        metadata: Facts to keep in the file: "labels" (list of class names), "preprocessing"
            ({"scale": s, "offset": o}: the model's input is pixel * s + o), anything JSON.
            Calibration data outside the range that the preprocessing gives are refused.
        int16: For files with 16-bit activations: {"cpu": the processor that the file is for
            ("x86_64", the default, or "arm64", which also is what compilers and microcontrollers
            want), "depthwise": what depthwise convolutions become ("integer", the default: the
            fastest form in 16-bit integers by an estimate; "stock"; or "float": float32, much
            faster, and the file is hybrid, not full integer, as its metadata say)}. See
            `schemes.CPUS` and `schemes.DEPTHWISE`.

    Returns:
        The file with its certificate: each op, its types, whether XNNPACK runs it, and why not.

    Raises:
        InputError: Bad arguments or data.
        ModelError: A model that this scheme cannot take.
        ConversionError: The file cannot be made, does not run, or is not all integer.
    """
    from tfedge import bridge, conversion

    wanted = conversion.Wanted(
        get_scheme(scheme), io, batch, Int16.of(int16), dict(overrides or {}), ptq
    )
    model = _computed(bridge.with_shapes(model, shapes) if shapes else model)
    return conversion.file_of(model, wanted, calibration, dict(metadata or {}))


def _as_file(tflite: Any) -> TFLiteModel:
    if isinstance(tflite, TFLiteModel):
        return tflite
    if isinstance(tflite, (bytes, bytearray)):
        return TFLiteModel.from_bytes(bytes(tflite))
    return TFLiteModel.load(tflite)


def verify(model: Any, tflite: Any, data: Any, *, limit: int | None = None) -> Drift:
    """Compares a TFLite file with the Keras model that it was made from.

    Args:
        model: A tf_keras model (float or quantize-aware), a `ServingModel`, or a path.
        tflite: A TFLiteModel, bytes, or a path.
        data: Inputs: an array, a dict by input name, an iterable, a tf.data.Dataset, or a spec
            ("x.npz", an image folder, "random:8").
        limit: Use at most this many samples.

    Returns:
        The Drift: over all outputs, and for each layer that has a counterpart in the file (on at
        most 16 samples). `first_layer` is where the two part, `worst_layer` the lowest SQNR.

    Raises:
        InputError: Data or files that do not fit.
        ModelError: The model cannot be read.
    """
    from tfedge import activations
    from tfedge import lower as lowering
    from tfedge.quantized import is_quantized
    from tfedge.tflite import compare

    model, file = _computed(model), _as_file(tflite)
    if is_quantized(model):
        model = _simulation(model, file)
    source = lowering.source_of(model)
    inputs = _samples(data, source, limit)
    reference = activations.outputs_of(model, inputs, source.output_names)
    few = {k: v[:_LAYER_SAMPLES] for k, v in inputs.items()}
    layers = activations.layers_of(model, few)
    return compare(file.data, inputs, reference, layers, quantized_reference=is_quantized(model))


def verify_ops(
    model: Any, tflite: Any, data: Any, *, kernels: str = "xnnpack", limit: int = 8
) -> list[OpAgreement]:
    """Compares each op of an integer file alone with its simulation, both fed the file's own codes.

    Where `verify` says how far a file is from its model in the end, this says which op errs: one
    that computes as simulated is within one step on every element.

    Args:
        model: The quantize-aware model that the file was made from, or its path.
        tflite: A TFLiteModel, bytes, or a path.
        data: As in `verify`.
        kernels: "xnnpack", "builtin" (the runtime's own optimised kernels) or "reference".
        limit: Use at most this many samples; all their activations are held in memory.

    Returns:
        One row an op, in execution order.

    Raises:
        InputError: Data, kernels or files that do not fit.
        ModelError: The model cannot be read, or is not quantize-aware.
    """
    from tfedge.agreement import op_agreement
    from tfedge.lower import source_of

    model, file = _simulation(working(model), _as_file(tflite)), _as_file(tflite)
    inputs = _samples(data, source_of(model), limit)
    return op_agreement(model, file.data, inputs, kernels)


def _simulation(model: Any, file: TFLiteModel) -> Any:
    """The quantize-aware model as the file was made from it.

    Raises:
        ModelError: It is not quantize-aware.
    """
    from tfedge.quantized import qat_schemes

    if qat_schemes(model) == ("w8a8",) and file.scheme == "w8a16":
        from tfedge import quant

        return quant.to_16x8(model)
    return model


def _samples(data: Any, source: Any, limit: int | None) -> dict[str, np.ndarray]:
    """Samples by input name, of data in any form."""
    if isinstance(data, (str, Path)):
        data = load(str(data), source.inputs)
    return stack(data, source.inputs, limit=limit)


def benchmark(
    models: Any,
    target: str | Sequence[str] = "host",
    runs: int = 50,
    threads: int | None = None,
    task: Any = None,
    samples: int | None = None,
) -> list[Timing]:
    """Measures TFLite files, several in turn, so that their ratios hold on a noisy machine.

    Args:
        models: TFLiteModels, bytes or paths, or one of them.
        target: A name in `tfedge.targets.TARGETS`, or of one of its families, or the path of a
            device file (docs/TARGETS.md), or several.
        runs: Timed runs of each file.
        threads: Threads of the runtime; None takes what a device's file says, else 1.
        task: What the files are for: a Task, what `task.get_task` takes, or test samples alone:
            (x, y) or {"x": x, "y": y}, arrays [N, ...] or dicts of them by input or output name;
            see `task_readers.read_test`. Its test samples are then run on the targets, and here,
            and each Timing has a `score`.
        samples: How many; None takes all on hardware, 200 where a target is emulated or simulated.

    Returns:
        One Timing a file, in order, for each target in turn; `ratio_p50` and `ratio_min` are
        relative to the first file on the same target. A target that cannot run files has the
        reason in its `score.error`.

    Raises:
        InputError: A bad value or file.
        TargetError: The target is unknown or failed.
    """
    from tfedge import bench

    single = isinstance(models, (str, Path, bytes, TFLiteModel))
    files = [models] if single else list(models)
    if task is None and samples is not None:
        raise InputError("samples have no meaning without a task", str(samples), "Give task=")
    if task is None:
        return bench.measure(files, target=target, runs=runs, threads=threads)
    from tfedge import accuracy

    tests = accuracy.tests_of(files, task, samples)
    found = bench.measure(files, target=target, runs=runs, threads=threads)
    return accuracy.with_scores(found, tests, target)


def doctor(
    tflite: Any,
    fix: bool = False,
    target: str = "host",
    data: Any = None,
    max_steps: float = 1.0,
    allow_float: bool = False,
) -> Checkup:
    """Says why a TFLite file is slow on a CPU, and mends what can be mended.

    Args:
        tflite: A TFLiteModel, bytes, or a path; any file, also one that tfedge did not make.
        fix: Apply the rewrites of `tfedge.tflite.fixes.FIXES` that hold. Each is proved on this
            very file, by running both on random inputs and on `data`: one that moves an output too
            far, or that makes the file slower, is undone and reported.
        target: Where to measure; as in `benchmark`.
        data: Inputs in any of the forms that `verify` takes; at most 32 samples are used.
        max_steps: Steps that an output of the file may move; a float output may not move beyond
            rounding. Each rewritten op alone stays within one step in any case.
        allow_float: Let 8-bit ops that XNNPACK has for floats only be computed in float. The file
            is then no longer for NPUs and microcontrollers.

    Returns:
        The Checkup: `before` and `after` (findings with rule, message, cost and fix; partitions;
        times), `fixes`, `file`, `timing` and `steps`. A file that does not run here has its reason
        in `before.problem`.

    Raises:
        InputError: No such file, a damaged one, or data that do not fit.
        ConversionError: `fix` for a file that does not run; the message names the op.
        TargetError: The target is unknown.
    """
    from tfedge.checkup import check_up

    return check_up(_as_file(tflite), fix, target, data, max_steps, allow_float)


def inspect(model: Any) -> dict[str, Any]:
    """Describes a model or a TFLite file as plain JSON values.

    Args:
        model: A tf_keras model or its path, or a TFLiteModel or the path of a `.tflite` file.

    Returns:
        For a Keras model: "kind" "keras", name, params, macs, "layers" (name, kind, params, macs,
        output_shape) and "groups" (name, channels, blocked, reason, producers, consumers, macs and
        what one percent of its channels saves). For a file: "kind" "tflite", bytes, scheme,
        inputs, outputs, "certificate" rows, delegated_ops, total_ops, "size_by_layer", metadata.

    Raises:
        InputError: No such file, or not a model.
        ModelError: A model that cannot be traced.
    """
    from tfedge import describe

    if isinstance(model, TFLiteModel) or _is_tflite(model):
        return describe.file(_as_file(model))
    return describe.model(load_model(model))


def _is_tflite(model: Any) -> bool:
    if not isinstance(model, (str, Path)):
        return False
    path = Path(model)
    if path.suffix == ".tflite":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as f:
        return f.read(8)[4:] == b"TFL3"
