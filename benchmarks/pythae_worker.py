"""Trains the same dense VAE with pythae on PyTorch, by its own trainer."""

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from protocol import BATCH_SIZE, EXAMPLES, HIDDEN, LATENT_DIM, PIXELS, STEPS, serve  # noqa: E402
from pythae.data.datasets import BaseDataset  # noqa: E402
from pythae.models import VAE, VAEConfig  # noqa: E402
from pythae.models.base.base_utils import ModelOutput  # noqa: E402
from pythae.models.nn import BaseDecoder, BaseEncoder  # noqa: E402
from pythae.trainers import BaseTrainer, BaseTrainerConfig  # noqa: E402
from torch import nn  # noqa: E402


class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(
            nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.mean, self.log_var = nn.Linear(HIDDEN, LATENT_DIM), nn.Linear(HIDDEN, LATENT_DIM)

    def forward(self, x):
        features = self.stack(x)
        return ModelOutput(embedding=self.mean(features), log_covariance=self.log_var(features))


class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(
            nn.Linear(LATENT_DIM, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, PIXELS),
            nn.Sigmoid(),
        )

    def forward(self, z):
        return ModelOutput(reconstruction=self.stack(z))


def make_model():
    """The dense VAE, untrained."""
    logging.disable(logging.CRITICAL)
    return VAE(
        VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT_DIM, reconstruction_loss="bce"),
        encoder=Encoder(),
        decoder=Decoder(),
    )


def make_burst():
    """One epoch of its loop, without the checkpoints that its `train` writes around it."""
    rng = np.random.default_rng(0)
    x = torch.tensor((rng.random((EXAMPLES, PIXELS)) < 0.13).astype("float32"))
    trainer = BaseTrainer(
        model=make_model(),
        train_dataset=BaseDataset(x, torch.zeros(len(x))),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            num_epochs=1,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=1e-3,
            no_cuda=True,
        ),
    )
    trainer.prepare_training()

    def burst():
        trainer.train_step(epoch=1)
        return STEPS

    return burst


if __name__ == "__main__":
    serve(make_burst())
