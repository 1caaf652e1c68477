"""Late pooling: which token rows make which vector, and what happens to the vector afterwards."""
