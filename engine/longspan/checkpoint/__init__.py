"""Reads checkpoints from disk: where the folder is, what its modules say, and its tensors, mapped and not copied."""
