"""Training runs: what was asked, the data, the model, and the directory that keeps them."""
