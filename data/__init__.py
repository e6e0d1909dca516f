"""From documents to batches.

cli/           `moe data`
build/         documents to a token store, in shards, resumable
chat/          conversations to a token store
cleaning/      what a document must pass
sources/       input files and streams
tokenization/  text to token ids
store/         the token store's format: manifest, writer, reader, Megatron's .bin and .idx
loading/       a store to batches: order, blend, packing, loader
inspection/    a look at a store, as numbers and as a page
storage/       durable files and locks
recipe.py      the recipe of a store; config.py: the `[data]` table of an experiment
json_text.py   what a bad line of JSON is, for every reader of JSON lines
dotted_keys.py `--set KEY=VALUE`, for recipes and experiments
"""
