"""The first model: drawn training data, training, export and evaluation."""
