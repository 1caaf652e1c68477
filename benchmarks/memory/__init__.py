"""Peak memory and time of one text, by its length."""
