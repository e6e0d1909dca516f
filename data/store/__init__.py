"""The token store format: token shards, tables of documents, and a manifest.

manifest.py          `manifest.json`: what a store holds and how it was made
builder.py           a store from streams of documents
writer.py            token shards and tables of documents
reader.py            a store opened for reading, memory-mapped
megatron_indexed.py  Megatron's `.bin` and `.idx`, imported and exported
"""
