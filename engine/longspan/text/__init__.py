"""From texts to tokens: checks, the tokenizer, windows and chunks."""
