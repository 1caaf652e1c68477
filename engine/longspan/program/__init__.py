"""A model as a program: instructions, liveness and the arena, printing."""
