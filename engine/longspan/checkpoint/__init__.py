"""Checkpoints on disk: where one is, what its modules say, its tensors, mapped and not copied; and saving one."""
