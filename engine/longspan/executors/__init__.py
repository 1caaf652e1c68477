"""The executors: one program, several machines."""
