"""Input files and streams, as documents.

discovery.py        the input files of a recipe, and their formats
work_units.py       input files divided into units of work
stream_splitter.py  a byte stream split into documents
table_files.py      Parquet and Arrow files opened
parquet_pages.py    what decoding a Parquet column will take, from its page headers
tables.py           the text column of Parquet and Arrow files
readers.py          the documents of a work unit
"""
