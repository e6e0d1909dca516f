"""Which model to train: a scaling law joined with what layouts really cost.

limits.py            what training may cost, and what serving takes
candidates.py        models of the ladder in a law's columns
question.py          a law, limits and cards
pricing.py           how many tokens a model sees, by FLOPs alone
layout_pricing.py    the same by the planner: the best layout's seconds, joules, money
batch.py             the batch of a run that nobody stated
shortlist.py         the models worth a look
best_first.py        those of them that are priced, and when to stop
decision.py          the best model, the next one, the best dense one
target_loss.py       tokens until a loss is reached
leverage.py          sparse over dense, in loss and in budget
dense_wins.py        what would make a dense model win
six_n_d.py           what 6 N D alone would have chosen
law_uncertainty.py   intervals from a law's resamples
documents.py         a decision as JSON: `moe predict`
choice.py            the same as an answer to a budget: `moe choose`
experiment_file.py   the chosen model as an experiment
tables.py            all that for a terminal
"""
