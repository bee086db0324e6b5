import pytest

from tests import tflite_files
from tfedge.errors import ConversionError, InputError
from tfedge.tflite import (
    Interpreter,
    certify,
    delegation,
    flatbuffer,
    int16_bias,
    require_integer,
)


@pytest.mark.parametrize("kind", ["float", "float16", "int8", "int16"])
def test_the_rows_are_what_the_interpreter_runs(kind):
    data = tflite_files.file("image", kind)
    rows = certify(data, tflite_files.layer_names("image"))
    ops = Interpreter(data).ops()
    assert [(r.index, r.op, r.delegated) for r in rows] == [
        (o.index, o.name, o.delegated) for o in ops
    ]
    for row in rows:
        assert bool(row.reason) != row.delegated
        assert row.reason != delegation.UNKNOWN


def test_types_layers_and_reasons():
    rows = certify(tflite_files.file("image", "int8"), tflite_files.layer_names("image"))
    by_op = {r.op: r for r in rows}
    assert by_op["CONV_2D"].types == "int8,int8,int32->int8"
    assert by_op["CONV_2D"].layer == "relu"
    assert by_op["SOFTMAX"].layer == "p"
    assert by_op["SOFTMAX"].reason == "XNNPACK has this op for floats only"
    rows = certify(tflite_files.file("image", "int16"))
    assert {r.reason.split(";")[0] for r in rows} == {"int16 activations are never delegated"}
    conv = next(r for r in rows if r.op == "CONV_2D")
    assert conv.reason.endswith(int16_bias.CHOSEN_WIDE)
    assert {r.layer for r in rows} == {""}


def test_given_ops_must_be_the_files():
    ops = Interpreter(tflite_files.file("image")).ops()
    with pytest.raises(InputError, match="another file"):
        certify(tflite_files.file("two"), ops=ops)


def _view(name, **changes):
    base = {"name": name, "inputs": (), "outputs": (), "options": None, "static": ()}
    return delegation.OpView(**{**base, **changes})


def _slice():
    options = flatbuffer.schema.StridedSliceOptionsT()
    options.shrinkAxisMask = 1
    return options


def _tensor(dtype, shape=(1, 4), scale=None, zero=0):
    tensor = flatbuffer.schema.TensorT()
    tensor.type, tensor.shape = flatbuffer.TYPES[dtype], list(shape)
    if scale is not None:
        tensor.quantization = flatbuffer.schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
    return tensor


FLOAT, INT8 = _tensor("float32"), _tensor("int8", scale=1.0)


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (_view("TOPK_V2", inputs=(FLOAT,), outputs=(FLOAT,), static=(False,)), "no such op"),
        (_view("ADD", outputs=(_tensor("int32"),)), "no codes"),
        (
            _view("DEPTHWISE_CONV_2D", inputs=(FLOAT, INT8, FLOAT), outputs=(FLOAT,),
                  static=(False, True, True)),
            "dynamic-range depthwise",
        ),
        (_view("CONV_2D", inputs=(FLOAT, FLOAT, None), outputs=(FLOAT,),
               static=(False, True, True)), "no bias"),
        (_view("CONV_2D", inputs=(FLOAT, FLOAT, FLOAT), outputs=(FLOAT,),
               static=(False, False, True)), "not constant"),
        (_view("RESHAPE", inputs=(FLOAT, _tensor("int32")), outputs=(FLOAT,),
               static=(False, False)), "known only at run time"),
        (_view("STRIDED_SLICE", options=_slice(), outputs=(FLOAT,)), "adds or drops axes"),
        (_view("BATCH_MATMUL", inputs=(INT8, _tensor("int8", scale=1.0, zero=3)), outputs=(INT8,),
               static=(False, False)), "zero point is not 0"),
        (_view("SPLIT", outputs=(FLOAT,) * 5), "splits into"),
        (_view("CONCATENATION", inputs=(FLOAT,) * 6, static=(False,) * 6), "joins more than 5"),
        (_view("MUL", outputs=(_tensor("float32", (1,) * 7),)), "more than 6 axes"),
        (_view("QUANTIZE", inputs=(_tensor("int8", scale=500.0),), outputs=(INT8,),
               static=(False,)), "scales are too far apart"),
        (_view("CONV_2D", inputs=(INT8, _tensor("int4"), INT8), outputs=(INT8,),
               static=(False, True, True)), "FULLY_CONNECTED only"),
        (_view("FULLY_CONNECTED", inputs=(FLOAT, _tensor("int4", (2, 5))), outputs=(FLOAT,),
               static=(False, True)), "even number of input channels"),
        (_view("ADD", inputs=(FLOAT, FLOAT), outputs=(FLOAT,), static=(False, False)), "no rule"),
    ],
)  # fmt: skip
def test_reasons(op, reason):
    assert reason in delegation.why_not(op)


def test_an_integer_file_passes_and_a_float_file_does_not():
    layers = tflite_files.layer_names("image")
    for kind, scheme in (("int8", "w8a8"), ("int16", "w8a16")):
        require_integer(tflite_files.file("image", kind), scheme, layers=layers)
    with pytest.raises(ConversionError, match="input of a full-integer file.*float32.*'image'"):
        require_integer(tflite_files.file("image"), "w8a8")
    with pytest.raises(ConversionError, match=r"CONV_2D \(op 0, layer 'relu', float32"):
        require_integer(tflite_files.file("image"), "w8a8", layers=layers, io="float")
    require_integer(tflite_files.file("image"), "w8_dynamic")


def test_float_ends_are_allowed_on_request_only():
    data = tflite_files.file("image", "int8", io="float")
    require_integer(data, "w8a8", io="float")
    with pytest.raises(ConversionError, match="input"):
        require_integer(data, "w8a8")


@pytest.mark.parametrize("io", ["int", "float"])
def test_a_float_op_inside_is_named_with_its_layer(io):
    data = tflite_files.file("elu", "int8", io=io)
    with pytest.raises(ConversionError, match=r"ELU \(op \d, layer 'elu', float32->float32\)"):
        require_integer(data, "w8a8", layers=tflite_files.layer_names("elu"), io=io)


def test_a_16_bit_file_that_fell_back_to_8_bits_is_found():
    with pytest.raises(ConversionError, match="no 16-bit activations"):
        require_integer(tflite_files.file("image", "int8"), "w8a16")
