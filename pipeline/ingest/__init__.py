"""The first stage: the embedded corpus, or text of your own, as shards of documents and conversations."""
