"""A script: `first_vector.py KIND FOLDER FILE PRECISION TEXT` prints a vector as JSON, then the peak of memory.

FOLDER is a saved model folder; FILE is the graph that some runtimes need beside it; PRECISION is what OpenVINO has to
be told, as it would take bfloat16 for float32 by itself. Each function is the least that a user of that library would
write, and nothing else is imported: all of it is in the time that is measured.
"""

import sys
from typing import Any


def longspan(folder: str, file: str, precision: str, text: str) -> Any:
    from longspan import Encoder

    return Encoder(folder, device="cpu").encode(text)


def sentence_transformers(folder: str, file: str, precision: str, text: str) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, device="cpu").encode(text)


def onnxruntime(folder: str, file: str, precision: str, text: str) -> Any:
    from onnxruntime import InferenceSession

    return InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, _inputs(folder, text))[0][0]


def openvino(folder: str, file: str, precision: str, text: str) -> Any:
    from openvino import Core

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16"}
    return Core().compile_model(file, "CPU", hints)(_inputs(folder, text))[0][0]


def _inputs(folder: str, text: str) -> dict[str, Any]:
    """What a BERT's graph is called with."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    ids = np.array([tokenizer.encode(text).ids])
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


KINDS = {kind.__name__: kind for kind in (longspan, sentence_transformers, onnxruntime, openvino)}

if __name__ == "__main__":
    print([float(value) for value in KINDS[sys.argv[1]](*sys.argv[2:])], flush=True)
    with open("/proc/self/status") as status:
        print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")))
