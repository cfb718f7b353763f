"""What the companions share: files, shards, HTML pages, a client for OpenAI-compatible servers. Free of torch."""
