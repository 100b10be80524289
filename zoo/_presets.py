"""What the presets of all models have in common, and how a preset becomes a model.

A preset is a dict: `networks` (arguments of `networks.make`, and in `head` those of
`PosteriorHead.set_projection`), `model` (of the constructor), `training`, `data` (of
`vaezoo.data.load`) and `source`: the row of a published table that the settings are those of, or
else what they follow, as "settings of ours: ..."; `tests/zoo/test_sources.py` knows the rows.
"""

import difflib
import inspect
from typing import NamedTuple

import keras

from ..core.checks import check_choice, check_flag, check_integer, check_keys, check_real
from ..layers import Gaussian, get_likelihood
from ..losses import InEpochs, LinearSchedule
from . import networks as _networks

OURS = "settings of ours"


def digits_mlp(source="our own, sized for a minute on two cores", **model):
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


def mnist_mlp(source, epochs=50, binarize="dynamic", **model):
    """Settings of ours for MNIST with the dense networks 784-800-800-D-800-800-784."""
    return {
        "networks": {"kind": "mlp", "input_shape": (28, 28, 1), "hidden_units": (800, 800)},
        "model": {"latent_dim": 20, **model},
        "training": {"epochs": epochs, "learning_rate": 1e-3},
        "data": {"name_or_path": "mnist", "batch_size": 128, "binarize": binarize},
        "source": source,
    }


def mnist_hebae(source, **model):
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


def mu_vae_cnn(row, data, **model):
    """Settings of mu-VAE's convolutional runs, whose heads start as the other layers do.

    Args:
        row: Row of the paper's table 1.
        data: `"mnist"` or `"fashion_mnist"`.
        **model: Arguments of the constructor.
    """
    networks = {"kind": "mu_vae", "input_shape": (28, 28, 1)}
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


def omniglot_resnet_pixelcnn(source, data="omniglot", anneal=True, **model):
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


def mae_images(source, data="mnist", decoder="pixelcnn", **model):
    """Settings of MAE's binary images: weight-normalised residual encoder and small PixelCNN."""
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
        # Held-out images are binarised five times each.
        "data": _images(data, 100, copies=5, validation_split=MAE_HELD_OUT[data]),
        "source": source,
    }


def cifar10_pixelcnn(source, field="small", **model):
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


def dense_500(source, data="mnist", decoder=5, batch_size=128, epochs=300, **model):
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


def with_index(settings):
    """The settings of a model that tells its training examples apart."""
    return {**settings, "data": {**settings["data"], "with_index": True}}


def digits_pixelcnn(normalization="batch", **model):
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


def digits_resnet(**model):
    """Settings for the embedded digits with residual networks on both sides."""
    settings = digits_pixelcnn("weight", **model)
    settings["networks"].update(kind="resnet", decoder={"filters": (32, 32)})
    return settings


#: Corpora of DU-VAE's text runs: table, epochs, sizes of the networks, and what data there are.
#: Each has 100,000 texts. Files are the user's own.
TEXTS = {
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
#: one's, that of flows, and under batch normalisation of the means, where all is PyTorch's default.
#: Heads have no bias.
TEXT_STARTS = {
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
    corpus,
    row,
    start="plain",
    anneal=True,
    epochs=None,
    plateau=None,
    networks=None,
    **model,
):
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


def text_tiny(anneal=True, **model):
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


class Preset(NamedTuple):
    """A model that is ready to be compiled and fitted.

    Attributes:
        name: The preset's name.
        model: Uncompiled, built `VAE`.
        compile_args: Arguments of `model.compile`.
        fit_args: Arguments of `model.fit` beside the data: `epochs`, and `callbacks` where the
            settings ask for them (`use_ema`, `plateau`).
        data_args: Arguments of `vaezoo.data.load`.
        settings: The settings behind all this, with overrides applied.
    """

    name: str
    model: object
    compile_args: dict
    fit_args: dict
    data_args: dict
    settings: dict


#: Arguments of `vaezoo.data.load`, which this folder does not import.
OF_DATA = (
    "name_or_path", "split", "batch_size", "binarize", "shuffle", "seed", "binarize_seed",
    "copies", "image_size", "channels", "crop", "invert", "value_range", "labels", "with_index",
    "validation_split", "limit", "drop_remainder", "in_memory", "backend", "data_dir", "download",
    "vocabulary", "tokenizer", "max_size", "min_count", "num_classes", "max_length", "too_long",
    "buckets",
)  # fmt: skip


def build_preset(name, constructor, settings, overrides):
    """Builds the `Preset` of checked settings."""
    kind = settings["networks"]["kind"]
    if overrides["networks"].get("kind", kind) != kind:
        # Networks of another kind have other options.
        shape = settings["networks"]["input_shape"]
        settings = {**settings, "networks": {"input_shape": shape}}
    settings = {
        section: {**value, **overrides.get(section, {})} if isinstance(value, dict) else value
        for section, value in settings.items()
    }
    check_arguments("model", settings["model"], constructor, name)
    head = settings["model"].get("head")
    if hasattr(head, "latent_dim") and "latent_dim" not in overrides["model"]:
        # The networks are made for the codes of the head that was given.
        settings["model"]["latent_dim"] = head.latent_dim
    check_keys(f"`data` of preset {name!r}", settings["data"], OF_DATA)
    if "batch_size" in settings["data"]:
        settings["data"]["batch_size"] = check_integer("batch_size", settings["data"]["batch_size"])
    training = dict(settings["training"])
    fit_args = {"epochs": check_integer("epochs", training.pop("epochs"))}
    # Where to hold out what is for the command line, which loads the data.
    training.pop("validation", None)
    initial_examples = check_integer(
        "initial_examples", training.pop("initial_examples", None), optional=True
    )
    plateau = training.pop("plateau", None)
    optimizer = _optimizer(training, name)
    callbacks = _callbacks(plateau, optimizer.use_ema, name)
    if callbacks:
        fit_args["callbacks"] = callbacks
    network = dict(settings["networks"])
    input_shape = tuple(network.pop("input_shape"))
    latent_dim, kind = settings["model"].get("latent_dim"), network.pop("kind")
    head = network.pop("head", None) or {}
    if _networks.takes(kind, "vocabulary_size") and not network.get("vocabulary_size"):
        raise ValueError(
            f"`networks` of preset {name!r} must have `vocabulary_size`, the number of ids that "
            "your files have: zoo.load(..., networks={'vocabulary_size': len(vocabulary)}), with "
            "the vocabulary of vaezoo.data.describe_text. Received: networks without it"
        )
    network["decoder"] = {
        **_output_of(settings["model"].get("likelihood"), network, kind, input_shape),
        **(network.get("decoder") or {}),
    }
    encoder, decoder = _networks.make(kind, input_shape, latent_dim, **network)
    model = constructor(encoder, decoder, **settings["model"])
    if head:
        check_arguments("networks.head", head, model.head.set_projection, name)
        model.head.set_projection(**head)
    model.build((None, *input_shape))
    if initial_examples is not None:
        model.initial_examples = initial_examples
    compile_args = {"optimizer": optimizer, "jit_compile": "auto"}
    return Preset(name, model, compile_args, fit_args, dict(settings["data"]), settings)


def _output_of(likelihood, network, kind, input_shape):
    """Options of the decoder that the likelihood asks for."""
    if likelihood is None:
        return {}
    likelihood = get_likelihood(likelihood)
    kind = (network.get("decoder") or {}).get("kind", kind)
    if hasattr(likelihood, "num_mixtures"):
        wanted = {
            "num_mixtures": likelihood.num_mixtures,
            "params_per_pixel": likelihood.params_shape(input_shape)[-1],
        }
    elif hasattr(likelihood, "num_classes"):
        wanted = {"num_classes": likelihood.num_classes}
    elif likelihood.params_per_value != 1:
        wanted = {"params_per_value": likelihood.params_per_value}
    else:
        return {}
    return {
        name: value
        for name, value in wanted.items()
        if _networks.takes(kind, name) and name not in network
    }


def _optimizer(training, preset):
    """Makes the optimizer of a preset's settings.

    Args:
        training: Dict of the optimizer's arguments and its name, `optimizer`.
        preset: Name for messages.
    """
    training = dict(training)
    name = training.pop("optimizer", "adam")
    kinds = {
        key.lower(): kind
        for key, kind in vars(keras.optimizers).items()
        if inspect.isclass(kind)
        and issubclass(kind, keras.optimizers.Optimizer)
        and kind not in (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    }
    check_choice("optimizer", name.lower() if isinstance(name, str) else name, sorted(kinds))
    kind = kinds[name.lower()]
    others = ("epochs", "initial_examples", "optimizer", "plateau", "validation")
    check_arguments("training", training, kind, preset, others)
    defaults = inspect.signature(kind).parameters
    for key, value in training.items():
        default = defaults[key].default
        if key == "learning_rate" and callable(value):
            continue
        if value is None and default is None:
            continue
        if isinstance(default, bool):
            training[key] = check_flag(key, value)
        elif key in ("ema_overwrite_frequency", "gradient_accumulation_steps"):
            training[key] = check_integer(key, value)
        elif isinstance(default, float) or key in _REAL:
            # Keras takes no int for a learning rate.
            training[key] = float(check_real(key, value, _REAL.get(key, "(-inf, inf)")))
    return kind(**training)


#: Arguments of optimizers that are numbers, and where they must lie. No training survives steps of
#: more than a thousand times the gradient.
_REAL = {
    "learning_rate": "(0, 1000]",
    "clipnorm": "(0, inf)",
    "global_clipnorm": "(0, inf)",
    "clipvalue": "(0, inf)",
    "weight_decay": "[0, inf)",
    "ema_momentum": "[0, 1]",
    "beta_1": "[0, 1)",
    "beta_2": "[0, 1)",
}


def _callbacks(plateau, use_ema, preset):
    from ..callbacks import PlateauDecay

    found = []
    if plateau is not None and not isinstance(plateau, dict):
        raise ValueError(
            "`plateau` must be a dict of arguments of `PlateauDecay`, or None. Received: "
            f"plateau={plateau!r}"
        )
    if plateau:
        check_arguments("training.plateau", plateau, PlateauDecay, preset)
        found = [PlateauDecay(**plateau)]
    # Validation then sees the averages.
    return [*found, keras.callbacks.SwapEMAWeights()] if use_ema else found


def check_arguments(section, arguments, function, preset, others=()):
    """Raises a `ValueError` for arguments that neither `function` takes nor are among others."""
    valid = [*others, *inspect.signature(function).parameters]
    for name in arguments:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 3)
            raise ValueError(
                f"`{section}` of preset {preset!r} takes "
                f"{', '.join(v for v in valid if v not in ('encoder', 'decoder', 'kwargs'))}. "
                f"Received: {name}={arguments[name]!r}"
                + (f" (did you mean {' or '.join(near)}?)" if near else "")
            )
