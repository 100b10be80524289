"""Every posterior and objective of the zoo on sentences."""

import keras
import numpy as np
import pytest

from vaezoo import zoo

#: Options that the test wants or a constructor needs.
OPTIONS = {
    "BetaVAE": {"beta": 0.4},
    "DUVAE": {"keep_prob": 0.8},
    "IWAE": {"num_samples": 2},
    "IAFVAE": {"free_bits": 0.15},
    "MAE": {"prior": "standard_normal"},
    "VAEAS": {"num_examples": 16},
    "AggVAE": {"max_inner_steps": 2},
    "SAVAE": {"refine_steps": 2},
}
# Skips and residual decoders are for networks of other kinds.
MODELS = sorted(
    {constructor.__name__ for constructor, _ in zoo.presets().values()} - {"SkipVAE", "ResNetVAE"}
)
# Heads and objectives of their own run on both backends; the others are made of the same parts.
BOTH = ("DUIAF", "SAVAE")
CASES = [
    pytest.param(name, marks=() if name in BOTH else pytest.mark.one_backend) for name in MODELS
]


@pytest.mark.large
@pytest.mark.filterwarnings("ignore:The aggressive phase:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_trains_on_sentences(name, text_networks, sentences, small_parts, to_numpy):
    keras.utils.set_random_seed(0)
    options = {**small_parts(name), **OPTIONS.get(name, {}), "likelihood": "tokens"}
    if name == "IWAE":
        options["seed"] = 1
    model = getattr(zoo, name)(*text_networks(), latent_dim=3, **options)
    x = sentences(16)
    model.build((None, 6))
    before = to_numpy([v.value for v in model.trainable_variables])
    tensorflow = keras.backend.backend() == "tensorflow"
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False, run_eagerly=tensorflow)
    logs = model.fit(x, batch_size=16, verbose=0).history
    after = to_numpy([v.value for v in model.trainable_variables])
    assert np.isfinite(logs["loss"][0])
    # 1 to 4 of 12 symbols and the end, of nearly equal probability at the start.
    predicted = np.mean(np.sum(x[:, 1:] > 0, axis=1))
    assert logs["distortion"][0] == pytest.approx(predicted * np.log(12), rel=0.2)
    weights = zip(model.trainable_variables, before, after, strict=True)
    changed = {variable.path for variable, old, new in weights if np.any(old != new)}
    assert changed & {v.path for v in model.encoder.trainable_variables}
    assert changed & {v.path for v in model.decoder.trainable_variables}
