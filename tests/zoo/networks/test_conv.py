import pytest

from vaezoo.zoo.networks import conv_decoder, conv_encoder


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (28, 28, 1), (105, 105, 3), (32, 48, 3), (7, 5, 2), (1, 1, 4)]
)
@pytest.mark.parametrize("filters", [(4,), (4, 6, 8)])
def test_decoder_returns_the_size_that_the_encoder_takes(shape, filters):
    encoder = conv_encoder(shape, filters)
    decoder = conv_decoder(2, shape, filters[::-1])
    assert encoder.input_shape == decoder.output_shape == (None, *shape)


def test_sizes_of_the_stages_mirror_each_other():
    encoder, decoder = conv_encoder((105, 28, 3)), conv_decoder(2, (105, 28, 3))
    sizes = [encoder.get_layer(f"conv_{n}").output.shape[1:] for n in (1, 2)]
    assert sizes == [(53, 14, 32), (27, 7, 64)]
    assert decoder.get_layer("reshape").output.shape[1:] == (27, 7, 64)
    assert decoder.get_layer("crop_1").output.shape[1:] == (53, 14, 64)
    assert decoder.get_layer("crop_2").output.shape[1:] == (105, 28, 32)
    assert encoder.output_shape == (None, 27 * 7 * 64)


def test_even_sizes_need_no_crop():
    assert not any("crop" in layer.name for layer in conv_decoder(2, (8, 12, 1)).layers)


def test_parameter_counts():
    # 3*3*1*32 + 32 and 3*3*32*64 + 64
    assert conv_encoder((28, 28, 1)).count_params() == 320 + 18_496
    # 10*3136 + 3136; 9*64*64 + 64; 9*64*32 + 32; 9*32 + 1
    assert conv_decoder(10, (28, 28, 1)).count_params() == 34_496 + 36_928 + 18_464 + 289


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": ()}, r"`filters` must be a non-empty sequence of .* filters=\(\)"),
        ({"filters": (4, -1)}, r"`filters` must be .* filters=\(4, -1\)"),
        ({"kernel_size": 0}, "`kernel_size` must be a positive integer. .* kernel_size=0"),
    ],
)
def test_sizes_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        conv_encoder((8, 8, 1), **arguments)
    with pytest.raises(ValueError, match=message):
        conv_decoder(2, (8, 8, 1), **arguments)
