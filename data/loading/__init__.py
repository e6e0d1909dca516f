"""A store to batches.

loader.py            the batches of each optimizer step, prepared ahead
batch.py             one micro-batch; row_buffers.py: the arrays it is filled through
samples.py           the sample stream that the `[data]` section describes
sample_stream.py     which sequence is sample i of a run
order.py             shuffling by a keyed bijection; blend.py: sources mixed by weight
sequence_sources.py  the sequences of one source: chunked, packed or conversations
packing.py           best-fit packing of documents; conversations.py: of conversations, and pairs
dali.py              batches by way of NVIDIA DALI
"""
