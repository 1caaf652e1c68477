"""What Longspan raises when a checkpoint or an input cannot be used."""

from __future__ import annotations


class LongspanError(Exception):
    """Base class of every error that Longspan raises on purpose."""


class CheckpointError(LongspanError, ValueError):
    """A model folder cannot be used; the message names the file and the field."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A model folder, or a file that it needs, does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class InputError(LongspanError, ValueError):
    """A text, a span or an option is not usable; the message names it."""


class InputTypeError(InputError, TypeError):
    """An input is of the wrong Python type; the message gives its place."""


class MemoryCeilingError(InputError):
    """A model or a text does not fit below the ceiling that `memory` sets; the message says what would.

    Attributes:
        smallest: the lowest ceiling, in bytes, that would do.
    """

    def __init__(self, message: str = "", smallest: int = 0) -> None:
        super().__init__(message)
        self.smallest = smallest


class LongTextWarning(UserWarning):
    """Texts were longer than the model's maximum and were cut or embedded in windows.

    Attributes:
        texts: how many.
    """

    def __init__(self, message: str = "", texts: int = 0) -> None:
        super().__init__(message)
        self.texts = texts


class UnusedWeightsWarning(UserWarning):
    """A checkpoint has weights beside its model that nothing here uses, and that are no head that is known by name."""
