"""A tiny BERT, made without torch, and a way to run the command line in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.tiny import bert_shapes
from safetensors.numpy import save_file

from longspan.cli.main import main

WIDTH, INNER, LAYERS, POSITIONS = 16, 24, 1, 64
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz.",
    "cat",
    "dog",
    "bird",
    "fish",
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 64 positions and 16 components with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    config: dict[str, Any] = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(VOCABULARY),
        "hidden_size": WIDTH,
        "num_attention_heads": 2,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    random = np.random.default_rng(0)
    tensors = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in bert_shapes(config).items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": POSITIONS})
    )
    return folder


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of an error that the user can mend: one line, and the exit code for it."""
        assert self.code == 2, self
        *_, line = self.err.splitlines()
        assert line.startswith("longspan: error: "), self.err
        assert self.out == ""
        return line.removeprefix("longspan: error: ")


@pytest.fixture
def longspan(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def without_reader() -> Callable[..., None]:
    """Runs a command line whose standard output nobody reads, as before `| head -0`: it ends quietly with 141."""

    def run(*arguments: object) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "longspan", *map(str, arguments)]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.close()
        assert child.wait(60) == 141
        assert child.stderr is not None
        assert child.stderr.read() == b""
        child.stderr.close()

    return run
