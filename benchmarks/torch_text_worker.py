"""Trains the same LSTM VAE in plain PyTorch, as its authors would write it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402
from protocol import TEXT, serve, text_batches  # noqa: E402
from torch import nn  # noqa: E402


class TextVAE(nn.Module):
    def __init__(self):
        super().__init__()
        words, units, latent_dim = TEXT.vocabulary_size, TEXT.units, TEXT.latent_dim
        self.read = nn.Embedding(words, TEXT.embedding_dim)
        self.encoder = nn.LSTM(TEXT.embedding_dim, units, batch_first=True)
        self.head = nn.Linear(units, 2 * latent_dim, bias=False)
        self.embedding = nn.Embedding(words, TEXT.embedding_dim)
        self.start = nn.Linear(latent_dim, units, bias=False)
        self.decoder = nn.LSTM(TEXT.embedding_dim + latent_dim, units, batch_first=True)
        self.readout = nn.Linear(units, words, bias=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        _, (state, _) = self.encoder(self.read(x))
        mean, log_var = self.head(state[0]).chunk(2, dim=-1)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        rate = 0.5 * (mean**2 + log_var.exp() - log_var - 1.0).sum(-1)
        words = self.dropout(self.embedding(x[:, :-1]))
        words = torch.cat([words, z[:, None].expand(-1, words.shape[1], -1)], dim=-1)
        cell = self.start(z)[None]
        h, _ = self.decoder(words, (torch.tanh(cell), cell))
        logits = self.readout(self.dropout(h))
        surprise = nn.functional.cross_entropy(
            logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none"
        )
        return (surprise.view(len(x), -1).sum(-1) + rate).mean()


def make_burst(on="cpu"):
    """An epoch over the same batches in a random order."""
    torch.manual_seed(0)
    model = TextVAE()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = torch.from_numpy(text_batches()).long().to(on)

    def burst():
        for number in torch.randperm(len(batches), device="cpu"):
            optimizer.zero_grad()
            loss = model(batches[number])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        loss.item()
        return TEXT.tokens

    return burst


if __name__ == "__main__":
    serve(make_burst())
