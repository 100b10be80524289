import json

import keras
import pytest

from vaezoo.zoo import networks
from vaezoo.zoo.networks import GatedPixelCNN, ResidualPixelCNN, make


def units(model):
    return [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]


def test_decoder_takes_sizes_in_reverse():
    encoder, decoder = make("mlp", (4, 4, 1), 2, hidden_units=[8, 6])
    assert units(encoder) == [8, 6]
    assert units(decoder) == [6, 8, 16]
    encoder, decoder = make("conv", (8, 8, 1), 2, filters=(4, 6), kernel_size=5)
    assert [encoder.get_layer(f"conv_{n}").filters for n in (1, 2)] == [4, 6]
    assert [decoder.get_layer(f"deconv_{n}").filters for n in (1, 2)] == [6, 4]
    assert encoder.get_layer("conv_1").kernel_size == (5, 5)
    assert decoder.get_layer("deconv_1").kernel_size == (5, 5)


def test_each_function_gets_the_options_that_it_knows():
    encoder, decoder = make(
        "mlp", (4,), 2, hidden_units=[3], activation="tanh", output_activation="sigmoid"
    )
    for model in (encoder, decoder):
        assert model.get_layer("dense_1").activation is keras.activations.tanh
    assert decoder.get_layer("params").activation is keras.activations.sigmoid


def test_options_of_one_side_win_and_are_taken_as_they_are():
    encoder, decoder = make(
        "mlp",
        (4,),
        2,
        hidden_units=[5, 6],
        encoder={"hidden_units": [7, 8]},
        decoder={"hidden_units": [9, 10]},
    )
    assert units(encoder) == [7, 8]
    assert units(decoder) == [9, 10, 4]


def test_a_preset_may_come_from_json():
    preset = json.loads('{"kind": "mlp", "input_shape": [4, 4, 1], "hidden_units": [8]}')
    encoder, decoder = make(latent_dim=2, **preset)
    assert encoder.input_shape == decoder.output_shape == (None, 4, 4, 1)


def test_defaults_are_those_of_the_functions():
    encoder, decoder = make("mu_vae", (28, 28, 1), 10)
    assert encoder.get_config() == networks.mu_vae_encoder().get_config()
    assert decoder.get_config() == networks.mu_vae_decoder().get_config()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "mu-vae",
            {},
            "`kind` must be one of 'mlp', 'conv', .*kind='mu-vae' .did you mean 'mu_vae'",
        ),
        ("vit", {}, "`kind` must be one of 'mlp', .*'pixelcnn_pp', 'lstm'. Received: kind='vit'$"),
        ("resnet50", {}, "Received: kind='resnet50' .did you mean 'resnet'"),
        ("mlp", {"encoder": {"kind": "pixelcnn"}}, r"`encoder\['kind'\]` must be one of 'mlp'"),
        ("mlp", {"decoder": {"kind": "densenet"}}, r"`decoder\['kind'\]` must be one of 'mlp'"),
        (None, {}, "`kind` must be one of .* Received: kind=None"),
        (
            "mlp",
            {"hiden_units": [3]},
            r"options of the 'mlp' networks must be among hidden_units, activation, .*skip. "
            r"Received: hiden_units=\[3\] \(did you mean 'hidden_units'\?\)",
        ),
        ("mlp", {"filters": [3]}, r"'mlp' networks must be among .*skip. Received: filters=\[3\]"),
        ("mlp", {"name": "a"}, "'mlp' networks must be among .* Received: name='a'"),
        (
            "mlp",
            {"encoder": {"skip": True}},
            "'mlp' encoder must be .* activation, kernel_initializer. Received: skip=True",
        ),
        (
            "conv",
            {"decoder": {"units": 3}},
            "'conv' decoder must be among filters, .* Received: units=3",
        ),
        ("mu_vae", {}, r"multiples of 4.* input_shape=\(6, 6, 1\)"),
        ("wae", {}, r"multiples of 16.* input_shape=\(6, 6, 1\)"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make(kind, (6, 6, 1), 2, **options)


def test_error_of_the_decoder_names_its_own_argument():
    with pytest.raises(ValueError, match="`latent_dim` must be .* latent_dim=0"):
        make("mlp", (4,), 0)


def test_networks_of_two_kinds():
    encoder, decoder = make(
        "mlp",
        (6, 6, 1),
        3,
        hidden_units=[5],
        decoder={"kind": "gated_pixelcnn", "kernels": [3], "filters": 4},
    )
    assert encoder.output_shape == (None, 5)
    assert isinstance(decoder, GatedPixelCNN)
    assert decoder.kernels == (3,)
    assert (decoder.latent_dim, decoder.output_shape_) == (3, (6, 6, 1))


def test_decoders_that_see_the_image_bring_their_encoder():
    encoder, decoder = make("pixelcnn", (8, 8, 1), 3, encoder={"features": 7})
    assert isinstance(decoder, ResidualPixelCNN)
    assert encoder.output_shape == (None, 7)
