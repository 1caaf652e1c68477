"""LangChain's and Chonkie's own splitters, as users hand them to `encode_chunks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chonkie
import langchain_text_splitters as langchain
import numpy as np
import pytest

from longspan import Encoder

TEXT = (
    "# Berlin\n\nBerlin is the capital of Germany. It has 3.8 million inhabitants.\r\n\r\n"
    "## Rivers 🌊\n\nThe city lies on the Spree. The Spree is a river. The Spree is a river.\n"
    "Naïve cafés; ein Fluß — שלום עולם. " + "It flows through the city, slowly. " * 12
)


@pytest.mark.parametrize(
    "splitter",
    [
        langchain.RecursiveCharacterTextSplitter(chunk_size=90, chunk_overlap=0),
        langchain.RecursiveCharacterTextSplitter(chunk_size=90, chunk_overlap=30),
        langchain.RecursiveCharacterTextSplitter(chunk_size=90, chunk_overlap=40, strip_whitespace=False),
        langchain.CharacterTextSplitter(separator="\n\n", chunk_size=100, chunk_overlap=20),
        langchain.MarkdownTextSplitter(chunk_size=120, chunk_overlap=0),
        chonkie.TokenChunker(tokenizer="character", chunk_size=90, chunk_overlap=15),
        chonkie.RecursiveChunker(tokenizer="character", chunk_size=90),
        chonkie.SentenceChunker(tokenizer="character", chunk_size=120, chunk_overlap=40),
    ],
    ids=lambda splitter: type(splitter).__name__,
)
def test_chunks_are_the_splitters(minilm: Path, splitter: Any) -> None:
    encoder = Encoder(minilm, device="cpu")
    result = encoder.encode_chunks(TEXT, splitter=splitter)
    pieces = splitter.split_text(TEXT) if hasattr(splitter, "split_text") else [chunk.text for chunk in splitter(TEXT)]
    assert len(pieces) > 1
    assert [result.text(i) for i in range(len(result))] == pieces
    given = encoder.encode_chunks(TEXT, spans=result.spans)
    np.testing.assert_array_equal(result.vectors, given.vectors)
