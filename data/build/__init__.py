"""Documents to a token store, in shards, resumable.

Every level of subdivision has one name, from coarse to fine:

source       a named collection of input files in a recipe
file         one input file
work unit    about 16 MiB of input that is processed independently (data/sources/work_units.py)
unit output  what a work unit leaves on disk: an Arrow file with a row for every document, and a
             JSON file with counts (unit_output.py)

A *build shard* i/n is the i-th of n parts of a build's work units, made by its own command
(`moe data build --shard i/n`); a *token shard* is one Arrow file of the finished store.

build.py               build a store, or one build shard; merge build shards
build_folder.py        the folder of an unfinished build
recipe_tokenizer.py    the tokenizer that a recipe asks for
tokenizer_sample.py    the texts that a BPE is trained on
worker_pool.py         work units on all cores
unit_output.py         one work unit: read, clean, tokenize, write
unit_counts.py         what was counted in it
unit_output_reader.py  all unit outputs as one sequence of documents
deduplication.py       which documents repeat an earlier one
assemble.py            unit outputs to a store: duplicates out, splits apart, manifest last
split_assignment.py    the split of every document
held_out_overlap.py    held-out documents that nearly equal one in train
dropped_table.py       the table of documents that were left out
source_writer.py       the splits of one source, canaries planted
"""
