import pytest

from tests import tflite_files
from tfedge.tflite import flatbuffer
from tfedge.tflite.layers import LayerFinder, op_layers, size_by_layer

LAYERS = ("image", "conv/a", "bn", "add_1", "dense", "relu", "dense_1", "out")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("net/conv/a/Conv2D", "conv/a"),
        ("net/relu/Relu;net/conv/a/Conv2D", "relu"),
        ("net/conv/a/Conv2D;net/relu/Relu", "relu"),
        ("StatefulPartitionedCall/net/bn/FusedBatchNormV3", "bn"),
        ("net/bn/batchnorm/add_1", "bn"),  # An op of the layer, called like another layer.
        ("net/add_1/add", "add_1"),
        ("add_1/net/relu/Relu", "relu"),  # A model called like one of its layers.
        ("net/quant_relu/Relu", "relu"),
        ("net/quant_conv/a/Conv2D", "conv/a"),
        ("net/relu_1/Relu", "relu"),  # The second call of a layer.
        ("net/dense_1/MatMul", "dense_1"),
        ("out", "out"),
        ("dense/MatMul", "dense"),
        ("conv/a", "conv/a"),
        ("net/other/Relu", ""),
        ("Identity", ""),
        ("", ""),
    ],
)
def test_a_layer_is_found_in_a_tensor_name(name, layer):
    assert LayerFinder(LAYERS).latest([name]) == layer


def test_earliest_and_latest_go_by_topological_order():
    finder = LayerFinder(LAYERS)
    names = ["m/relu/Relu;m/dense/MatMul", "m/bn/mul"]
    assert (finder.earliest(names), finder.latest(names)) == ("bn", "relu")
    assert finder.all(names[0]) == ["dense", "relu"]


def test_a_layer_of_its_own_wins_over_the_name_of_a_wrapper():
    assert LayerFinder(["relu", "quant_relu"]).latest(["m/quant_relu/Relu"]) == "quant_relu"


def test_ops_of_a_file_get_their_layers():
    model = flatbuffer.read(tflite_files.file("image", "int8"))
    found = op_layers(model, tflite_files.layer_names("image"))
    assert found[0] == "relu" and found[2:5] == ["add", "gap", "p"]
    assert found[1] in ("dw", "bn_dw")  # Converters drop the name of some folded norms.
    assert found[-1] == "q" and found[5] == "p"  # The softmax of p.
    assert op_layers(model, ()) == [""] * len(found)


def test_sizes_count_every_constant_once():
    data = tflite_files.file("two")
    model = flatbuffer.read(data)
    sizes = size_by_layer(model, tflite_files.layer_names("two"))
    assert sum(sizes.values()) == sum(len(b.data) for b in model.buffers if b.data is not None)
    kernel = 3 * 4 * 6 * 4
    assert kernel <= sizes["conv1d"] < kernel + 100
    assert 6 * 6 * 4 <= sizes["shared"] < 2 * 6 * 6 * 4
    assert not any(name[0].isdigit() for name in sizes)
    assert any(name[0].isdigit() for name in size_by_layer(model, ()))
