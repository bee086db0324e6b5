import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfedge.errors import InputError
from tfedge.tflite.tensors import TensorSpec, codes, dequantize, quantize


def spec(dtype, scale=(), zero=(), shape=(1, 4), axis=0):
    return TensorSpec(
        "t", shape, dtype, np.array(scale, np.float32), np.array(zero, np.int32), 0, axis
    )


@given(
    dtype=st.sampled_from(["int8", "uint8", "int16"]),
    scale=st.floats(2.0**-13, 8.0, width=32),
    place=st.floats(0, 1),
    fraction=st.floats(0, 1),
)
def test_a_value_in_range_comes_back_within_half_a_step(dtype, scale, place, fraction):
    limits = np.iinfo(dtype)
    zero = int(limits.min + place * (limits.max - limits.min))
    tensor = spec(dtype, [scale], [zero])
    low, high = (scale * (np.float64(v) - zero) for v in (limits.min, limits.max))
    real = np.array([low + fraction * (high - low)])
    error = abs(dequantize(quantize(real, tensor), tensor).astype(float) - real)
    assert error <= scale / 2 + 1e-5 * max(abs(low), abs(high))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_every_code_survives_the_round_trip(dtype):
    limits = np.iinfo(dtype)
    stored = np.arange(limits.min, limits.max + 1).astype(dtype)
    tensor = spec(dtype, [0.037], [3])
    np.testing.assert_array_equal(quantize(dequantize(stored, tensor), tensor), stored)


def test_values_beyond_the_range_saturate_but_codes_do_not():
    tensor = spec("int8", [0.5], [10])
    real = np.array([-1000.0, np.inf, 1000.0])
    np.testing.assert_array_equal(quantize(real, tensor), [-128, 127, 127])
    np.testing.assert_array_equal(codes(real[[0, 2]], tensor), [-1990, 2010])


def test_per_channel_scales_run_along_their_axis():
    tensor = spec("int8", [0.5, 2.0], [0, 4], shape=(1, 3, 2), axis=2)
    real = np.ones((1, 3, 2))
    np.testing.assert_array_equal(quantize(real, tensor)[0, 0], [2, 4])
    np.testing.assert_allclose(dequantize(quantize(real, tensor), tensor)[0, 0], [1.0, 0.0])
    assert tensor.step.shape == (1, 1, 2)


def test_plain_tensors_are_cast_with_care():
    whole = spec("int32")
    np.testing.assert_array_equal(quantize(np.array([1.0, -2.0]), whole), [1, -2])
    for bad in ([1.5], [3e10]):
        with pytest.raises(InputError, match="takes int32"):
            quantize(np.array(bad), whole)
    assert quantize(np.array([1, 2]), spec("float32")).dtype == np.float32
    assert dequantize(np.ones(2, np.float16), spec("float16")).dtype == np.float32
    assert not whole.quantized and whole.step == 0


def test_nan_and_text_are_refused():
    with pytest.raises(InputError, match="NaN"):
        quantize(np.array([np.nan]), spec("int8", [1.0], [0]))
    with pytest.raises(InputError, match="numbers"):
        quantize(np.array(["a"]), spec("float32"))
