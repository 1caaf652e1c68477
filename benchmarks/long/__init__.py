"""What late chunking is worth on long documents: the same chunks embedded alone and within their document."""
