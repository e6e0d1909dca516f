"""Durable files: atomic replacement, new directories, locks and checksums.

atomic.py         replace a file in one step, on disk
new_directory.py  a directory that has its name only when it is complete
lock.py           one process at a time
checksums.py      SHA-256 of files, while they are written or afterwards
regular_file.py   open and read regular files only, in bounds
plain_name.py     names in an index or a manifest: of files in its folder
link_bounds.py    where the links of a folder may lead
bounded_json.py   JSON and TOML of others: bounded in size, depth and numbers
"""
