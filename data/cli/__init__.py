"""`moe data`.

commands.py        the commands and their options
recipe_options.py  the recipe that a command line describes
running.py         progress, signals and summaries, for all commands
"""
