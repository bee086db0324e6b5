"""Keras model -> certified file: which way leads there, and what is checked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfedge import lower
from tfedge.bridge import ServingModel
from tfedge.calibration import check_preprocessing, made_up
from tfedge.data import repeatable
from tfedge.errors import ConversionError, InputError, ModelError
from tfedge.quantized import float_layers, is_quantized, qat_schemes
from tfedge.schemes import Int16, QuantScheme
from tfedge.tflite import TFLiteModel, certify, check_runs, fast16, flatbuffer, require_integer


@dataclass(frozen=True)
class Wanted:
    """What a file is to be; see `tfedge.convert` for each entry."""

    spec: QuantScheme
    io: str
    batch: int
    int16: Int16
    overrides: Mapping[str, str]
    ptq: str | Sequence[str]


def file_of(model: Any, wanted: Wanted, calibration: Any, facts: Mapping[str, Any]) -> TFLiteModel:
    """Makes the file.

    A float model goes to the converter with the calibration data. What that cannot quantize (loops,
    operations without an integer kernel) is written in operations that it can, as for
    quantization-aware training; the file's metadata then say so under "rewritten".

    Args:
        model: A tf_keras model that computes in float32, or a ServingModel.
        wanted: What it is to be.
        calibration: Data, "synthetic:N", or None.
        facts: What the file is to say of itself.

    Raises:
        InputError: Bad arguments or data.
        ModelError: A model that this scheme cannot take.
        ConversionError: The file cannot be made, does not run, or is not all integer.
    """
    facts = dict(facts)
    for name, given in (("overrides", wanted.overrides), ("ptq", wanted.ptq)):
        if given:
            _check_takes(model, wanted.spec, name)
    if calibration is not None:
        calibration = repeatable(made_up(model, calibration, facts))
        check_preprocessing(calibration, lower.source_of(model).inputs, facts)
    if is_quantized(model):
        return _file(*_own_ranges(model, wanted.spec, calibration), calibration, wanted, facts)
    if wanted.overrides or wanted.ptq or wanted.spec.weight_bits < 8:
        made, report = _calibrated(model, wanted, calibration)
        facts |= {"ptq": report} if report else {}
        return _file(made, None, calibration, wanted, facts)
    try:
        return _file(model, calibration, calibration, wanted, facts)
    except ConversionError as error:
        if isinstance(model, ServingModel) or not wanted.spec.needs_ranges:
            raise
        made = _rewritten(model, wanted, calibration, error)
        facts["rewritten"] = f"{error.what} ({error.found})" if error.found else error.what
        return _file(made, None, calibration, wanted, facts)


def _own_ranges(model: Any, spec: QuantScheme, calibration: Any) -> tuple[Any, Any]:
    """A quantize-aware model for a scheme, and the calibration data that are for its ranges."""
    if spec.name == "w8a16" and qat_schemes(model) == ("w8a8",):
        from tfedge import quant

        return quant.to_16x8(model), None
    # With 16 bits the data bound its sums; its ranges are its own.
    return model, None if "w8a16" in qat_schemes(model) else calibration


def _file(
    model: Any, ranges: Any, samples: Any, wanted: Wanted, facts: Mapping[str, Any]
) -> TFLiteModel:
    """The certified file.

    Args:
        model: A float or quantize-aware model.
        ranges: Data for the activation ranges, or None.
        samples: Data that bound the sums of 16-bit activations, or None.
        wanted: What it is to be.
        facts: What the file is to say of itself.
    """
    spec, io = wanted.spec, wanted.io
    layers = lower.layer_names(model)
    floats = float_layers(model) if is_quantized(model) else frozenset()
    data = lower.lower(model, spec.name, calibration=ranges, io=io, batch=wanted.batch)
    require_integer(data, spec, layers=layers, io=io, floats=floats)  # type: ignore[arg-type]
    data, notes = fast16.speed_up(data, samples, wanted.int16)
    ops = check_runs(data)
    said = {**facts, **notes, "scheme": spec.name, "layers": layers}
    said |= {"model": getattr(model, "name", "")}
    said |= {"no_layers": model.reason} if isinstance(model, ServingModel) else {}
    said |= {"float_layers": sorted(floats)} if floats else {}
    data = flatbuffer.set_metadata(data, said)
    return TFLiteModel.from_bytes(data, certificate=certify(data, layers, ops=ops))


def _rewritten(model: Any, wanted: Wanted, calibration: Any, error: ConversionError) -> Any:
    """The model in operations that have integer kernels, its ranges set by the data.

    Raises:
        ConversionError: The one given, where a layer has no such form, with that layer's name.
    """
    from tfedge import quant

    try:
        return quant.quantize_aware(model, wanted.spec.name, calibration, strict=True)
    except (ModelError, InputError) as second:
        found = "; ".join(part for part in (error.found, second.found or second.what) if part)
        fix = "Leave layers without a kernel float: overrides={'NAME': 'float'}"
        raise ConversionError(error.what, found, fix) from error


def _check_takes(model: Any, spec: QuantScheme, name: str) -> None:
    """Refuses an argument for float models under full-integer schemes that would not be used."""
    found = ""
    if is_quantized(model):
        found = "a quantize-aware model, which has its own"
    elif isinstance(model, ServingModel):
        found = model.reason
    elif not spec.full_integer:
        found = f"scheme '{spec.name}'"
    if found:
        raise InputError(
            f"the argument {name} is for a float Keras model under a full-integer scheme",
            found,
            f"Leave {name} out",
        )


def _calibrated(model: Any, wanted: Wanted, calibration: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A float model with quantizers set by the calibration data, and what each step gained."""
    from tfedge import quant

    scheme, overrides = wanted.spec.name, wanted.overrides or None
    if calibration is None:
        raise InputError(
            f"scheme '{scheme}' needs calibration data for a float model", "none",
            "Pass calibration=... (100 or more typical inputs), or a quantize-aware model",
        )  # fmt: skip
    if not wanted.ptq:
        return quant.quantize_aware(model, scheme, calibration, overrides=overrides), []
    steps = quant.step_names(wanted.ptq)
    made, report = quant.post_training(model, scheme, calibration, steps=steps, overrides=overrides)
    return made, [step.facts() for step in report]
