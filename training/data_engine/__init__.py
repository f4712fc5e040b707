"""Data construction: textual-proxy stories and reference-guided sets, made by plain stages over JSONL shards. See README.md."""
