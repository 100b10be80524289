import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import LatentSkip, with_latent_skips


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def run(model, x):
    return numpy(model(x, training=False))


def silence_skips(model):
    for layer in model.layers:
        if isinstance(layer, LatentSkip):
            layer.kernel.assign(np.zeros(layer.kernel.shape))


def plain_decoder():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5, activation="tanh", name="first"),
            keras.layers.Dense(4, activation="softplus", name="second"),
            keras.layers.Dense(2, name="last"),
        ],
        name="decoder",
    )


def conv_decoder():
    # Constants: JAX would compile a random draw for each shape of kernel.
    kernel = {"kernel_initializer": keras.initializers.Constant(0.1)}
    z = keras.Input((3,), name="z")
    h = keras.layers.Dense(2 * 2 * 4, use_bias=False, name="dense", **kernel)(z)
    h = keras.layers.BatchNormalization(name="norm")(h)
    h = keras.layers.LeakyReLU(name="relu")(h)
    h = keras.layers.Reshape((2, 2, 4))(h)
    h = keras.layers.Conv2DTranspose(6, 3, 2, "same", use_bias=False, name="deconv", **kernel)(h)
    h = keras.layers.BatchNormalization(name="norm_2")(h)
    h = keras.layers.Activation("relu", name="relu_2")(h)
    x = keras.layers.Conv2D(2, 3, 1, "same", activation="sigmoid", name="out", **kernel)(h)
    return keras.Model(z, x, name="decoder")


@pytest.mark.parametrize(
    ("h_shape", "z_shape", "spread"),
    [
        ((4, 5), (4, 3), (4, 5)),
        ((4, 6, 5), (4, 3), (4, 1, 5)),
        ((4, 2, 6, 5), (4, 3), (4, 1, 1, 5)),
        ((4, 2, 5), (4, 2, 3), (4, 2, 5)),
        ((4, 2, 6, 5), (4, 2, 3), (4, 2, 1, 5)),
    ],
)
def test_is_the_activation_of_h_plus_v_z(h_shape, z_shape, spread):
    h, z = normal(*h_shape), normal(*z_shape)
    layer = LatentSkip("tanh")
    out = numpy(layer(h, z))
    expected = np.tanh(h + (z @ numpy(layer.kernel)).reshape(spread))
    assert out.shape == h_shape
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_no_activation_is_the_identity_and_v_has_no_bias():
    h = normal(4, 5)
    layer = LatentSkip()
    np.testing.assert_array_equal(numpy(layer(h, np.zeros((4, 3), "float32"))), h)
    assert [tuple(w.shape) for w in layer.weights] == [(3, 5)]


def test_alone_in_a_functional_model_it_trains_and_reloads(tmp_path):
    z = keras.Input((3,))
    h = keras.layers.Dense(5, activation="relu")(z)
    h = LatentSkip(keras.activations.elu, kernel_initializer="he_normal")(
        keras.layers.Dense(6)(h), z
    )
    model = keras.Model(z, h)
    before = [numpy(w) for w in model.weights]
    model.compile(keras.optimizers.SGD(0.5), loss="mse")
    model.train_on_batch(normal(8, 3), normal(8, 6))
    for old, weight in zip(before, model.weights, strict=True):
        assert np.abs(old - numpy(weight)).max() > 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(run(again, normal(7, 3)), run(model, normal(7, 3)))
    skip = again.layers[-1]
    assert skip.activation is keras.activations.elu
    assert isinstance(skip.kernel_initializer, keras.initializers.HeNormal)


def test_sequence_masks_pass_through():
    tokens = keras.Input((4,), dtype="int32")
    z = keras.Input((3,))
    h = keras.layers.Embedding(9, 5, mask_zero=True)(tokens)
    total = keras.layers.GlobalAveragePooling1D()(LatentSkip()(h, z))
    model = keras.Model([tokens, z], total)
    ids, code = np.array([[3, 4, 0, 0]]), normal(1, 3)
    embedding, skip = model.layers[1], model.layers[3]
    expected = numpy(embedding.embeddings)[[3, 4]].mean(axis=0) + code @ numpy(skip.kernel)
    np.testing.assert_allclose(run(model, [ids, code]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("h_shape", "z_shape"), [((4, 5), (3,)), ((4, 5), (4, 2, 3)), ((4, 5), (2, 3))]
)
def test_z_of_another_shape_is_refused(h_shape, z_shape):
    message = rf"`z` must have shape \(batch, D\).* Received: .*z.shape=\({z_shape[0]},"
    with pytest.raises(ValueError, match=message):
        LatentSkip()(normal(*h_shape), normal(*z_shape))


def test_rewired_layers_add_v_z_to_their_preactivation():
    decoder = plain_decoder()
    skipped = with_latent_skips(decoder)
    w1, b1, w2, b2, w3, b3 = (numpy(w) for w in decoder.weights)
    v2, v3 = (numpy(skipped.get_layer(n).kernel) for n in ("second_skip", "last_skip"))
    z = normal(6, 3)
    h = np.log1p(np.exp(np.tanh(z @ w1 + b1) @ w2 + b2 + z @ v2))
    np.testing.assert_allclose(run(skipped, z), h @ w3 + b3 + z @ v3, atol=1e-5)
    assert skipped.name == "decoder"


@pytest.mark.large_on_jax
@pytest.mark.parametrize("make", [plain_decoder, conv_decoder])
def test_with_v_zero_it_is_the_plain_decoder(make):
    decoder, z = make(), normal(6, 3)
    for weight in decoder.weights:
        weight.assign(0.5 * normal(*weight.shape) ** 2)
    skipped = with_latent_skips(decoder)
    assert np.abs(run(skipped, z) - run(decoder, z)).max() > 1e-3
    silence_skips(skipped)
    np.testing.assert_allclose(run(skipped, z), run(decoder, z), atol=1e-6)


def test_copy_shares_no_weight_with_the_decoder():
    decoder = plain_decoder()
    skipped, z = with_latent_skips(decoder), normal(6, 3)
    before = run(skipped, z)
    for weight in decoder.weights:
        weight.assign(np.zeros(weight.shape))
    np.testing.assert_array_equal(run(skipped, z), before)


def test_skip_stands_before_batch_normalization():
    skipped = with_latent_skips(conv_decoder())
    names = [layer.name for layer in skipped.layers]
    assert [n for n in names if n.endswith("_skip")] == ["deconv_skip", "out_skip"]
    order = ["dense", "norm", "relu", "deconv", "deconv_skip", "norm_2", "out", "out_skip"]
    assert [n for n in names if n in order] == order
    assert skipped.get_layer("out_skip").activation is keras.activations.sigmoid


def test_rewired_decoder_reloads(tmp_path):
    skipped, z = with_latent_skips(conv_decoder()), normal(6, 3)
    skipped.save(tmp_path / "decoder.keras")
    again = keras.saving.load_model(tmp_path / "decoder.keras")
    np.testing.assert_array_equal(run(again, z), run(skipped, z))


def test_decoder_with_skips_is_returned_unchanged():
    skipped = with_latent_skips(plain_decoder())
    assert with_latent_skips(skipped) is skipped
    wrapped = keras.Sequential([keras.Input((3,)), skipped])
    assert with_latent_skips(wrapped) is wrapped


class WithItsOwnSkip(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [keras.layers.Dense(4), keras.layers.Dense(2), LatentSkip()]

    def call(self, z):
        return self.blocks[2](self.blocks[1](self.blocks[0](z)), z)


def test_subclassed_model_with_a_skip_of_its_own_is_welcome():
    decoder = WithItsOwnSkip()
    assert with_latent_skips(decoder) is decoder


def test_nested_models_are_flattened_and_left_intact():
    inner = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, activation="relu", name="inner_1"),
            keras.layers.Dense(6, name="inner_2"),
        ]
    )
    z = keras.Input((3,))
    h = inner(keras.layers.Dense(5, activation="tanh", name="outer")(z))
    h = keras.ops.reshape(h, (-1, 2, 3))
    decoder = keras.Model(z, keras.layers.Conv1D(2, 1, name="out")(h))
    codes = normal(6, 3)
    before = run(decoder, codes)
    skipped = with_latent_skips(decoder)
    names = {layer.name for layer in skipped.layers if isinstance(layer, LatentSkip)}
    assert names == {"inner_1_skip", "inner_2_skip", "out_skip"}
    silence_skips(skipped)
    np.testing.assert_allclose(run(skipped, codes), before, atol=1e-6)
    revived = keras.Model.from_config(decoder.get_config())
    revived.set_weights(decoder.get_weights())
    np.testing.assert_array_equal(run(revived, codes), before)


def test_calls_of_a_shared_layer_share_v():
    shared = keras.layers.Dense(3, activation="tanh", name="shared")
    z = keras.Input((3,))
    decoder = keras.Model(z, shared(shared(shared(z))))
    skipped = with_latent_skips(decoder)
    w, b = (numpy(x) for x in shared.weights)
    v = numpy(skipped.get_layer("shared_skip").kernel)
    assert len(skipped.weights) == 3
    codes = normal(6, 3)
    h = np.tanh(codes @ w + b)
    for _ in range(2):
        h = np.tanh(h @ w + b + codes @ v)
    np.testing.assert_allclose(run(skipped, codes), h, atol=1e-6)


def test_layers_that_take_z_directly_get_no_skip():
    z = keras.Input((3,))
    doubled = keras.layers.Rescaling(2.0)(z)
    left, right = (keras.layers.Dense(2, name=name)(doubled) for name in ("left", "right"))
    h = keras.layers.Concatenate()([left, right])
    skipped = with_latent_skips(keras.Model(z, keras.layers.Dense(5, name="out")(h)))
    names = [layer.name for layer in skipped.layers if isinstance(layer, LatentSkip)]
    assert names == ["out_skip"]


@pytest.mark.large_on_jax
def test_computes_in_half_precision(float32_policy):
    keras.config.set_dtype_policy("mixed_float16")
    skipped = with_latent_skips(conv_decoder())
    out = skipped(normal(6, 3))
    assert keras.backend.standardize_dtype(out.dtype) == "float16"
    assert {keras.backend.standardize_dtype(w.dtype) for w in skipped.weights} == {"float32"}
    keras.config.set_dtype_policy("float32")
    exact = with_latent_skips(conv_decoder())
    exact.set_weights(skipped.get_weights())
    np.testing.assert_allclose(numpy(out), run(exact, normal(6, 3)), atol=5e-3)


def test_precision_of_the_decoder_is_kept():
    z = keras.Input((3,))
    h = keras.layers.Dense(4, dtype="mixed_bfloat16")(z)
    decoder = keras.Model(z, keras.layers.Dense(2, dtype="float32", name="out")(h))
    assert with_latent_skips(decoder).get_layer("out_skip").compute_dtype == "float32"


class Subclassed(keras.Model):
    def call(self, z):
        return z


def test_models_that_cannot_be_rewired_are_refused():
    message = "must be a functional or sequential Keras model: .* Received: "
    with pytest.raises(TypeError, match=message + "Subclassed"):
        with_latent_skips(Subclassed())
    with pytest.raises(TypeError, match=message + "Dense"):
        with_latent_skips(keras.layers.Dense(2))
    z = keras.Input((3,))
    decoder = keras.Model(z, keras.layers.Dense(2)(Subclassed(name="part")(z)))
    with pytest.raises(TypeError, match="others cannot be rewired. Received: Subclassed 'part'"):
        with_latent_skips(decoder)


def test_decoders_without_a_use_for_skips_are_refused():
    with pytest.raises(ValueError, match="must be built.* Received: decoder='empty', not built"):
        with_latent_skips(keras.Sequential([keras.layers.Dense(2)], name="empty"))
    z, y = keras.Input((3,)), keras.Input((2,))
    with pytest.raises(ValueError, match=r"one input z .*Received: input shapes .*None, 2"):
        with_latent_skips(keras.Model([z, y], keras.layers.Concatenate()([z, y])))
    maps = keras.Input((4, 4, 1))
    with pytest.raises(ValueError, match=r"one input z .*Received: input shapes .*None, 4, 4, 1"):
        with_latent_skips(keras.Model(maps, keras.layers.Conv2D(2, 3)(maps)))
    linear = keras.Model(z, keras.layers.Dense(2, name="only")(z), name="linear")
    with pytest.raises(ValueError, match="layer behind the first.*decoder='linear'.*'only'"):
        with_latent_skips(linear)
    h = keras.layers.Reshape((1, 2, 2))(keras.layers.Dense(4)(z))
    h = keras.layers.ZeroPadding2D(1, data_format="channels_first", name="pad")(h)
    with pytest.raises(ValueError, match="channels-last throughout. Received: .* 'pad'"):
        with_latent_skips(keras.Model(z, h))
