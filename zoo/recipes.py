"""Settings that the presets of several models share.

A preset is a dict: `networks` (arguments of `networks.make`, and in `head` those of
`PosteriorHead.set_projection`), `model` (of the constructor), `training`, `data` (of
`vaezoo.data.load`) and `source`: the row of a published table that the settings are those of, or
else what they follow, as "settings of ours: ..."; `tests/zoo/test_sources.py` knows the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..layers import Gaussian
from ..losses import InEpochs, LinearSchedule

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import ArrayLike

OURS = "settings of ours"


def digits_mlp(
    source: str = "our own, sized for a minute on two cores", **model: Any
) -> dict[str, Any]:
    """Settings for the embedded 8x8 digits, with a decoder deep enough to go without z."""
    return {
        "networks": {
            "kind": "mlp",
            "input_shape": (8, 8, 1),
            "hidden_units": (256, 256),
            "decoder": {"hidden_units": (512, 512, 512)},
        },
        "model": {"latent_dim": 16, **model},
        "training": {"epochs": 60, "learning_rate": 1e-3},
        "data": {"name_or_path": "digits", "batch_size": 64, "binarize": "dynamic"},
        "source": source,
    }


def mnist_mlp(
    source: str, epochs: int = 50, binarize: str | None = "dynamic", **model: Any
) -> dict[str, Any]:
    """Settings of ours for MNIST with the dense networks 784-800-800-D-800-800-784."""
    return {
        "networks": {"kind": "mlp", "input_shape": (28, 28, 1), "hidden_units": (800, 800)},
        "model": {"latent_dim": 20, **model},
        "training": {"epochs": epochs, "learning_rate": 1e-3},
        "data": {"name_or_path": "mnist", "batch_size": 128, "binarize": binarize},
        "source": source,
    }


def mnist_hebae(source: str, **model: Any) -> dict[str, Any]:
    """Settings of HEBAE's runs on MNIST: encoder 784-784-800, a rate that falls with each epoch."""
    settings = mnist_mlp(source, epochs=100, binarize=None, **model)
    settings["networks"]["encoder"] = {"hidden_units": (784, 800)}
    # The paper trains on all 60,000 images.
    settings["training"]["validation"] = "none"
    settings["training"]["learning_rate"] = InEpochs(
        keras.optimizers.schedules.ExponentialDecay(
            1e-3, decay_steps=1, decay_rate=0.995, staircase=True
        )
    )
    return settings


def mu_vae_cnn(row: str, data: str, **model: Any) -> dict[str, Any]:
    """Settings of mu-VAE's convolutional runs, whose heads start as the other layers do.

    Args:
        row: Row of the paper's table 1.
        data: `"mnist"` or `"fashion_mnist"`.
        **model: Arguments of the constructor.
    """
    networks: dict[str, Any] = {"kind": "mu_vae", "input_shape": (28, 28, 1)}
    if "clip_factor" not in model:
        # `MuVAE` sees to its own.
        he_normal = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
        networks["head"] = {"kernel_initializer": he_normal}
    return {
        "networks": networks,
        "model": {"latent_dim": 10, **model},
        # The paper trains on all 60,000 images, and does not say for how long.
        "training": {"epochs": 100, "learning_rate": 1e-4, "validation": "none"},
        "data": {"name_or_path": data, "batch_size": 64, "binarize": None},
        "source": f"mu-VAE, table 1, {row}",
    }


#: The squared error, without a half.
SQUARED_ERROR = Gaussian(scale=0.5**0.5)


#: The lists of masked kernels of DU-VAE's decoder and of MAE's, the official codes'.
LONG, SHORT = (7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3), (7, 7, 7, 5, 5, 3, 3)


def omniglot_resnet_pixelcnn(
    source: str, data: str = "omniglot", anneal: bool = True, **model: Any
) -> dict[str, Any]:
    """Settings of DU-VAE's OMNIGLOT runs: residual encoder, residual PixelCNN of 13 layers.

    The rate's weight rises over the first 10 epochs.

    Args:
        source: Where the settings are from, or the row of the table.
        data: `"omniglot"` or `"mnist"`.
        anneal: Whether the weight rises; it is 1 otherwise.
        **model: Arguments of the constructor.
    """
    if anneal:
        model.setdefault("beta", LinearSchedule(10, unit="epochs"))
    if data == "omniglot" and not source.startswith(OURS):
        source = f"Shen et al. (2021), DU-VAE, table 1, {source}, on chardata.mat"
    return {
        "networks": {
            "kind": "pixelcnn",
            "input_shape": (28, 28, 1),
            "normalization": "batch",
            "encoder": {"filters": (64, 64, 64)},
            "decoder": {"kernels": LONG},
        },
        "model": {"latent_dim": 32, **model},
        "training": {
            "epochs": 500,
            "learning_rate": 1e-3,
            "epsilon": EPSILON,
            "global_clipnorm": 5.0,
            "plateau": {"patience": 20, "max_decays": 5, "start_epoch": 10},
        },
        "data": _images(data, 50),
        "source": source,
    }


#: Training images that MAE holds out.
MAE_HELD_OUT = {"mnist": 2000, "omniglot": 2345}
#: Of Adam, as in PyTorch; Keras has 1e-7.
EPSILON = 1e-8


def mae_images(
    source: str, data: ArrayLike = "mnist", decoder: keras.layers.Layer = "pixelcnn", **model: Any
) -> dict[str, Any]:
    """Settings of MAE's binary images: weight-normalized residual encoder and small PixelCNN."""
    networks = {
        "kind": decoder,
        "input_shape": (28, 28, 1),
        "normalization": "weight",
        "encoder": {"filters": (32, 64, 64)},
    }
    if decoder == "pixelcnn":
        networks["decoder"] = {"kernels": SHORT}
    return {
        "networks": networks,
        "model": {"latent_dim": 32, **model},
        "training": _mae_training(1e-3, 0.999998, 0.999, 20),
        # Held-out images are binarized five times each.
        "data": _images(data, 100, copies=5, validation_split=MAE_HELD_OUT[data]),
        "source": source,
    }


def cifar10_pixelcnn(source: str, field: str = "small", **model: Any) -> dict[str, Any]:
    """Settings of MAE's CIFAR-10: dense encoder, maps of 8x8x16 as codes, PixelCNN++."""
    return {
        "networks": {
            "kind": "pixelcnn_pp",
            "input_shape": (32, 32, 3),
            "decoder": {"latent_shape": (8, 8, 16), "field": field},
        },
        "model": {
            "latent_dim": 1024,
            "latent_shape": (8, 8, 16),
            "likelihood": "logistic_mixture",
            **model,
        },
        "training": {
            **_mae_training(1e-3, 0.999995, 0.9995, 50),
            "initial_examples": 256,
            "beta_1": 0.95,
            "beta_2": 0.9995,
        },
        "data": {"name_or_path": "cifar10", "batch_size": 64, "validation_split": 2000},
        "source": source,
    }


def _mae_training(learning_rate, step_factor, ema_momentum, patience):
    return {
        "epochs": 1000,
        "learning_rate": learning_rate,
        "epsilon": EPSILON,
        "global_clipnorm": 5.0,
        "use_ema": True,
        "ema_momentum": ema_momentum,
        # The official code halves after more than `patience` epochs without improvement.
        "plateau": {
            "patience": patience + 1,
            "max_decays": 3,
            "step_factor": step_factor,
            "min_relative_rate": 0.05,
            "restore_best": False,
        },
    }


def _images(name, batch_size, **options):
    shape = {"image_size": 28, "channels": 1} if name == "omniglot" else {}
    return {
        "name_or_path": name,
        **shape,
        "batch_size": batch_size,
        "binarize": "dynamic",
        "validation_split": 2000,
        **options,
    }


def dense_500(
    source: str,
    data: str = "mnist",
    decoder: keras.layers.Layer = 5,
    batch_size: int = 128,
    epochs: int = 300,
    **model: Any,
) -> dict[str, Any]:
    """Settings of VAE-AS's dense networks of 500 units: two hidden layers and `decoder` of them.

    Args:
        source: The row of the table.
        data: `"mnist"` (55,000 training images, the last 5,000 are held out) or `"omniglot"`.
        decoder: Number of hidden layers of the decoder.
        batch_size: Positive int.
        epochs: Positive int.
        **model: Arguments of the constructor.
    """
    images = {"mnist": {"validation_split": 5000}, "omniglot": {"image_size": 28, "channels": 1}}
    return {
        "networks": {
            "kind": "mlp",
            "input_shape": (28, 28, 1),
            "hidden_units": (500, 500),
            "kernel_initializer": "he_normal",
            "decoder": {"hidden_units": (500,) * decoder},
        },
        "model": {"latent_dim": 40, **model},
        "training": {"epochs": epochs, "learning_rate": 1e-3},
        "data": {
            "name_or_path": data,
            **images[data],
            "batch_size": batch_size,
            "binarize": "dynamic",
        },
        "source": source,
    }


def with_index(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a model that tells its training examples apart."""
    return {**settings, "data": {**settings["data"], "with_index": True}}


def digits_pixelcnn(normalization: str | None = "batch", **model: Any) -> dict[str, Any]:
    """Settings for the embedded digits with a PixelCNN whose field covers most of an image."""
    return {
        "networks": {
            "kind": "pixelcnn",
            "input_shape": (8, 8, 1),
            "normalization": normalization,
            "encoder": {"filters": (32, 64), "features": 128},
            "decoder": {"kernels": (7, 5, 5, 3), "filters": 32},
        },
        "model": {"latent_dim": 8, **model},
        "training": {"epochs": 40, "learning_rate": 2e-3, "global_clipnorm": 5.0},
        "data": {"name_or_path": "digits", "batch_size": 64, "binarize": "dynamic"},
        "source": "our own, sized for a minute on two cores",
    }


def digits_resnet(**model: Any) -> dict[str, Any]:
    """Settings for the embedded digits with residual networks on both sides."""
    settings = digits_pixelcnn("weight", **model)
    settings["networks"].update(kind="resnet", decoder={"filters": (32, 32)})
    return settings


#: Corpora of DU-VAE's text runs: table, epochs, sizes of the networks, and what data there are.
#: Each has 100,000 texts. Files are the user's own.
TEXTS: dict[str, dict[str, Any]] = {
    "yahoo": {"table": 1, "epochs": 100, "networks": {"embedding_dim": 512, "units": 1024}},
    "yelp": {"table": 1, "epochs": 150, "networks": {"embedding_dim": 512, "units": 1024}},
    "yelp_sentences": {
        "table": 2,
        "epochs": 100,
        "networks": {"embedding_dim": 128, "units": 512},
        "data": {"limit": 100_000},
    },
}


def _uniform(scale):
    return keras.initializers.RandomUniform(-scale, scale)


#: What the encoders and heads of DU-VAE's text runs start from, in the official code: the plain
#: one's, that of flows, and under batch normalization of the means, where all is PyTorch's default.
#: Heads have no bias.
TEXT_STARTS: dict[str, dict[str, Any]] = {
    "plain": {
        "encoder": {"scale": 0.01, "embedding_scale": 0.1},
        "head": {"use_bias": False, "kernel_initializer": _uniform(0.01)},
    },
    "flow": {
        "encoder": {"scale": 0.01, "embedding_scale": 0.1, "bias_scale": 0},
        "head": {"use_bias": False, "kernel_initializer": _uniform(0.01)},
    },
    "normalized": {
        "encoder": {},
        "head": {
            "use_bias": False,
            # U(+-1 / sqrt(fan_in)).
            "kernel_initializer": keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        },
    },
}


def text_lstm(
    corpus: str,
    row: str,
    start: Any = "plain",
    anneal: bool = True,
    epochs: int | None = None,
    plateau: dict[str, Any] | None = None,
    networks: dict[str, Any] | None = None,
    **model: Any,
) -> dict[str, Any]:
    """Settings of DU-VAE's runs on text: an LSTM reads, another writes, by SGD.

    The rate's weight rises over 10 epochs, which count for no selection.
    The papers' batches have sentences of a single length; `buckets` in `data` gives such batches,
    one shape of the compiled step for each length.

    Args:
        corpus: `"yahoo"`, `"yelp"` or, for sentences, `"yelp_sentences"`.
        row: Row of the paper's table.
        start: Key of `TEXT_STARTS`.
        anneal: Whether the weight rises; it is the constructor's default otherwise.
        epochs: Positive int, if it differs.
        plateau: Dict of what differs in the arguments of `PlateauDecay`.
        networks: Dict of further options of the networks.
        **model: Arguments of the constructor.
    """
    texts = TEXTS[corpus]
    if anneal:
        model.setdefault("beta", LinearSchedule(10, unit="epochs"))
    decay = {
        "patience": 5,
        "max_decays": 5,
        "start_epoch": 15,
        "warm_up": 10 if anneal else 0,
        "compare_with": "decay",
        **(plateau or {}),
    }
    return {
        "networks": {
            "kind": "lstm",
            "input_shape": (None,),
            # As in PyTorch: the published learning rate moves the biases by two steps at once.
            "num_biases": 2,
            **texts["networks"],
            **TEXT_STARTS[start],
            **(networks or {}),
        },
        "model": {"latent_dim": 32, "likelihood": "tokens", **model},
        "training": {
            "epochs": epochs or texts["epochs"],
            "optimizer": "sgd",
            "learning_rate": 1.0,
            "global_clipnorm": 5.0,
            "plateau": decay,
        },
        "data": {"name_or_path": corpus, "batch_size": 32, **texts.get("data", {})},
        "source": f"Shen et al. (2021), DU-VAE, table {texts['table']}, {row}",
    }


def text_tiny(anneal: Any = True, **model: Any) -> dict[str, Any]:
    """Settings for any sentences with small networks; the weight rises over three epochs."""
    if anneal:
        model.setdefault("beta", LinearSchedule(3, unit="epochs"))
    return {
        "networks": {
            "kind": "lstm",
            "input_shape": (None,),
            "embedding_dim": 64,
            "units": 128,
            "decoder": {"embedding_dropout": 0.2, "output_dropout": 0.2, "scale": 0.05},
        },
        "model": {"latent_dim": 16, "likelihood": "tokens", **model},
        "training": {"epochs": 8, "learning_rate": 3e-3, "global_clipnorm": 5.0},
        "data": {"name_or_path": "sentences", "batch_size": 32, "limit": 8000, "max_size": 4000},
        "source": "our own, sized for a minute on two cores",
    }
