"""Input files and streams, as documents.

discovery.py        the input files of a recipe, and their formats
work_units.py       input files divided into units of work
stream_splitter.py  a byte stream split into documents
readers.py          the documents of a work unit
"""
