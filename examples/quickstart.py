"""A long document goes in, one vector per passage comes out, and each knows the text around it."""

from pathlib import Path

from model import model_folder

from longspan import Encoder

encoder = Encoder(str(model_folder()))  # any folder of a model does, and so does a hub id
document = encoder.encode_chunks(Path(__file__).parents[1].joinpath("LICENSE").read_text(), chunk_tokens=64)
question = encoder.encode_query("May I use the project's name in advertising?")

scores = encoder.similarity(question, document.vectors)[0]
best = int(scores.argmax())
print(f"{scores[best]:.3f}, characters {document.spans[best]}: {document.text(best)}")
