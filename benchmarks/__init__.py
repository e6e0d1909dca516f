"""What it cost, and what follows from that.

energy/      meters of a run, and their readings
footprint/   carbon, water and money
comparison/  runs against runs
laws/        scaling laws: forms, fits, what they advise
bench/       timed parts of training and inference
bench_data/  loaders and store builders, beside their peers
launch/      `moe train` with its meters and loggers
report/      the page
published/   numbers of others, with their sources
cli/         `moe train`, `bench`, `energy`, `carbon`, `report`, `demo`, `fit`, `predict`
demo.py      the whole story in minutes
"""
