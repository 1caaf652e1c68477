"""Routers: modules by the task of a call, judged by sentence-transformers."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer

from longspan import CheckpointError, Encoder, InputError, InputTypeError
from longspan.cli.groups import Way, embed_group
from longspan.cli.inputs import Document

from .harness import SLACK, VOCABULARY, save, save_tokenizer, texts_of
from .test_pipelines import MODELS, saved

TEXTS = texts_of((0, 1, 3, 20, 60))
WIDTH = 48


class Parts:
    """Modules for the routes, each of them random in its own way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def transformer(self, family: str = "mpnet", longest: int = 90) -> Transformer:
        self.made += 1
        return Transformer(str(saved(self.folder / f"{family}{self.made}", family, None, longest)))

    def static(self) -> StaticEmbedding:
        save_tokenizer(self.folder)
        torch.manual_seed(self.made)
        return StaticEmbedding(
            Tokenizer.from_file(str(self.folder / "tokenizer.json")), torch.randn(len(VOCABULARY), WIDTH)
        )

    def dense(self, width: int = WIDTH, **options: Any) -> Dense:
        self.made += 1
        torch.manual_seed(self.made)
        return Dense(WIDTH, width, **options)


def static_queries(parts: Parts) -> list[Any]:
    router = Router.for_query_document([parts.static()], [parts.transformer(), Pooling(WIDTH, "cls")])
    return [router, Normalize()]


def two_transformers(parts: Parts) -> list[Any]:
    routes = {"document": [parts.transformer("mpnet", 20)], "query": [parts.transformer("distilbert", 50)]}
    return [Router(routes, default_route="query"), Pooling(WIDTH, "mean"), parts.dense(24)]


def shared_transformer(parts: Parts) -> list[Any]:
    residual = parts.dense(16, use_residual=True, activation_function=torch.nn.GELU())
    routes = {"query": [residual], "document": [parts.dense(16), Normalize()]}
    return [parts.transformer(), Pooling(WIDTH, ["mean", "cls"][:1]), Router(routes, allow_empty_key=False)]


def one_module_in_two_routes(parts: Parts) -> list[Any]:
    transformer = parts.transformer()
    routes = {
        "query": [transformer, Pooling(WIDTH, "cls")],
        "document": [transformer, Pooling(WIDTH, "lasttoken")],
        "code": [transformer, Pooling(WIDTH, "max")],
    }
    return [Router(routes), Normalize()]


def by_mapping(parts: Parts) -> list[Any]:
    routes = {"small": [parts.static()], "large": [parts.transformer(), Pooling(WIDTH, "mean")]}
    mappings: Any = {("query", "text"): "small", (None, None): "large", (None, ("image", "text")): "small"}
    return [Router(routes, route_mappings=mappings)]


def two_routers(parts: Parts) -> list[Any]:
    first = {"query": [parts.static()], "document": [parts.transformer(), Pooling(WIDTH, "mean")]}
    second = {"document": [parts.dense(24)], "query": [parts.dense(24)]}
    return [Router(first), Router(second, default_route="query")]


MAKERS: list[Callable[[Parts], list[Any]]] = [
    static_queries,
    two_transformers,
    shared_transformer,
    one_module_in_two_routes,
    by_mapping,
    two_routers,
]


def made(maker: Callable[[Parts], list[Any]], folder: Path) -> Path:
    prompts = {"query": "a b ", "document": "c "}
    SentenceTransformer(modules=maker(Parts(folder)), prompts=prompts, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


def outcome(model: Any, method: str, options: dict[str, Any]) -> Any:
    """What a call gives, or None if the task is refused."""
    try:
        return np.asarray(getattr(model, method)(TEXTS, **options), np.float64)
    except ValueError as error:
        if re.search("task", str(error)):
            return None
        raise


def compare(folder: Path) -> dict[str, Any]:
    """Vectors of every task and method: as sentence-transformers', or refused as there."""
    ours = Encoder(folder, long_text="truncate")
    exact, single = (
        SentenceTransformer(str(folder), device="cpu").to(dtype) for dtype in (torch.float64, torch.float32)
    )
    calls = {str(task): ("encode", {"task": task}) for task in (None, "query", "document", "code", "small", "other")}
    calls |= {name: (name, {}) for name in ("encode_query", "encode_document")}
    found = {}
    for name, (method, options) in calls.items():
        truth, theirs, mine = (outcome(model, method, options) for model in (exact, single, ours))
        assert (mine is None) == (truth is None), name
        if truth is not None:
            assert np.abs(mine - truth).max() <= 2 * np.abs(theirs - truth).max() + SLACK, name
            found[name] = mine
    return found


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("maker", MAKERS)
def test_vectors(tmp_path: Path, maker: Callable[[Parts], list[Any]]) -> None:
    found = compare(made(maker, tmp_path))
    assert not np.allclose(found["query"], found["document"])


def test_routes_through_one_transformer_share_it(tmp_path: Path) -> None:
    folder = made(one_module_in_two_routes, tmp_path)
    encoder = Encoder(folder)
    query, document, code = (encoder._routing.of(task).executor for task in ("query", "document", "code"))
    assert query is document
    assert code is not query  # it pools a maximum


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_chunks_and_streams(tmp_path: Path) -> None:
    """Chunks are of documents, streamed texts of no task, and a task may be named for both."""
    encoder = Encoder(made(static_queries, tmp_path))
    document, query = encoder.encode_document(TEXTS[-1]), encoder.encode_query(TEXTS[-1])
    prompt = "a b "
    for method in (encoder.encode_chunks, lambda *a, **k: encoder.encode_chunks([*a], **k)[0]):
        assert np.array_equal(method(TEXTS[-1]).vector, document)
        assert np.array_equal(method(TEXTS[-1], task="query", prompt=prompt).vector, query)
    streamed = [list(encoder.stream(TEXTS, task=task)) for task in (None, "query", "document")]
    for task, vectors in zip((None, "query", "document"), streamed, strict=True):
        assert np.array_equal(vectors, encoder.encode(TEXTS, task=task))
    whole = encoder.encode_chunks(TEXTS[-1], chunk_tokens=8)
    chunks = [chunk.vector for chunk in encoder.stream(TEXTS[-1:], chunk_tokens=8)]
    assert np.array_equal(chunks, whole.vectors)
    static = [chunk.vector for chunk in encoder.stream(TEXTS[-1:], chunk_tokens=8, task="query")]
    assert not np.allclose(static, whole.vectors)
    assert encoder.tasks == ("query", "document")


@pytest.mark.parametrize("levels", [(), (64,)])
def test_the_command_line_embeds_documents(tmp_path: Path, levels: tuple[int, ...]) -> None:
    encoder = Encoder(made(static_queries, tmp_path))
    way = Way(levels, None, "", normalize=False, long_text="window")
    shard = embed_group(encoder, way, [Document("0", TEXTS[3], 20)])
    expected = encoder.encode_document(TEXTS[3], prompt="")
    if levels:
        expected = encoder.encode_chunks(TEXTS[3], chunk_tokens=64, prompt="").vectors[0]
    assert np.array_equal(shard.vectors[0], expected)


def test_token_vectors_and_calibration(tmp_path: Path) -> None:
    encoder = Encoder(made(shared_transformer, tmp_path), long_text="truncate")
    assert encoder.encode(TEXTS[2], output_value="token_embeddings", task="query").shape == (5, WIDTH)
    encoder.calibrate(TEXTS, task="query")
    assert encoder.encode_query(TEXTS, precision="int8").shape == (len(TEXTS), 16)
    with pytest.raises(InputError, match="the model needs a task; known are 'query', 'document'"):
        encoder.encode(TEXTS)
    assert encoder.get_embedding_dimension() == 16


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
def test_lengths(tmp_path: Path) -> None:
    """Each route cuts by its own length until one is set for all."""
    folder = made(two_transformers, tmp_path)
    peer, encoder = SentenceTransformer(str(folder), device="cpu"), Encoder(folder, long_text="truncate")
    for length in (None, 30, 90):
        if length is not None:
            peer.max_seq_length = encoder.max_seq_length = length
        assert encoder.max_seq_length == peer.max_seq_length
        for task in ("query", "document"):
            mine, theirs = (model.encode(TEXTS, task=task) for model in (encoder, peer))
            np.testing.assert_allclose(mine, theirs, atol=2e-6)
    assert pickle.loads(pickle.dumps(encoder)).max_seq_length == 90
    with pytest.raises(InputError, match="max_seq_length is 101, expected an integer from 1 to 100"):
        encoder.max_seq_length = 101


@pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")
@pytest.mark.parametrize("maker", MAKERS)
def test_saving(tmp_path: Path, maker: Callable[[Parts], list[Any]]) -> None:
    folder = made(maker, tmp_path)
    encoder = Encoder(folder, long_text="truncate", prompts={"query": "z "})
    if maker in (two_transformers, shared_transformer, one_module_in_two_routes):
        encoder.max_seq_length = 17
    encoder.save(tmp_path / "again")
    again, peer = Encoder(tmp_path / "again"), SentenceTransformer(str(tmp_path / "again"), device="cpu")
    for task in encoder.tasks:
        vectors = encoder.encode(TEXTS, task=task, prompt_name="query")
        assert np.array_equal(again.encode(TEXTS, task=task, prompt_name="query"), vectors)
        np.testing.assert_allclose(peer.encode(TEXTS, task=task, prompt_name="query"), vectors, atol=2e-6)


def test_a_length_that_has_no_place(tmp_path: Path) -> None:
    encoder = Encoder(made(static_queries, tmp_path), max_seq_length=20)
    with pytest.raises(InputError, match="a StaticEmbedding has no place for max_seq_length"):
        encoder.save(tmp_path / "again")


def test_the_older_asym(tmp_path: Path) -> None:
    """sentence-transformers 2 to 4: another name of class and file."""
    folder = made(shared_transformer, tmp_path)
    place = folder / "2_Router"
    config = json.loads((place / "router_config.json").read_text())
    types = {name: f"sentence_transformers.models.{kind.rpartition('.')[2]}" for name, kind in config["types"].items()}
    older = {**config, "types": types, "parameters": {"allow_empty_key": True}}
    (place / "config.json").write_text(json.dumps(older))
    (place / "router_config.json").unlink()
    shutil.move(place, folder / "2_Asym")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2] = {**modules[2], "path": "2_Asym", "type": "sentence_transformers.models.Asym"}
    (folder / "modules.json").write_text(json.dumps(modules))
    found = compare(folder)
    assert np.array_equal(found["None"], found["query"])  # the first route is the default


def test_errors(tmp_path: Path) -> None:
    folder = made(static_queries, tmp_path)
    encoder = Encoder(folder)
    with pytest.raises(InputError, match="there is no task 'passage'; known are 'query', 'document'"):
        encoder.encode(TEXTS, task="passage")
    with pytest.raises(InputTypeError, match="task is int, expected a string"):
        encoder.encode(TEXTS, task=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="it has no layers and no positions to extend"):
        Encoder(folder, layers=1)


def test_without_a_router_a_task_says_nothing(tmp_path: Path) -> None:
    encoder = Encoder(save(tmp_path, MODELS["mpnet"]()))
    assert encoder.tasks == ()
    assert np.array_equal(encoder.encode(TEXTS, task="anything"), encoder.encode(TEXTS))
    with pytest.raises(InputTypeError, match="task is list"):
        encoder.encode(TEXTS, task=["query"])  # type: ignore[arg-type]


def of_one_module(kind: str, name: str = "x") -> dict[str, Any]:
    return {"types": {name: kind}, "structure": {"query": [name]}, "parameters": {}}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"structure": {}}, "'structure' names no route"),
    ({"structure": {"query": []}}, r"'structure\.query' must be a list of modules' names"),
    ({"structure": {"query": ["x"]}}, r"'types\.x' is missing"),
    ({"structure": {"query": ["."]}}, r"'structure\.query' must be a list"),
    (of_one_module("sentence_transformers.models.Pooling", "../x"), "a path inside the folder"),
    (of_one_module("mine.Pooling"), "'mine.Pooling', code of its own"),
    (of_one_module("sentence_transformers.models.CNN"), "models.CNN' is not supported"),
    (of_one_module("sentence_transformers.models.Dense"), "must come first"),
    ({"parameters": {"default_route": "other"}}, "'parameters.default_route' is 'other'; the routes are query, docu"),
    ({"parameters": {"allow_empty_key": 1}}, "'parameters.allow_empty_key' is .*, expected true or false"),
    ({"parameters": {"route_mappings": {"query": "query"}}}, "must be named by a pair of task and modality"),
    ({"parameters": {"route_mappings": {"('a', 'text')": "b"}}}, "is 'b'; the routes are query, document"),
    ({"parameters": []}, "'parameters' is .*, expected an object"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(static_queries, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_damaged_files(whole: Path, tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    config = json.loads((folder / "router_config.json").read_text())
    (folder / "router_config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(CheckpointError, match=message):
        Encoder(folder)


def test_a_missing_file(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / "router_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"router_config\.json does not exist"):
        Encoder(folder)
