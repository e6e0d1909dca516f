"""`make study`: dense and sparse models over FLOPs, a law, and what it says of the largest ones.

designs/         the sweeps: full, and a short rehearsal
corpus.py        the text, as a token store
sweeps.py        the designs as sweeps, run
kinds.py         dense, or of so many experts
laws.py          a law for each number of experts; others on the same runs
ladder_curve.py  the least loss at given FLOPs over the models of the ladder, by a law
minima.py        the least loss at given FLOPs, from the runs alone
pairs.py         sparse runs beside dense ones of equal width, FLOPs and seed: loss, time of a token
prediction.py    losses of runs before they run, and beside what they became
leverage.py      FLOPs of the dense model of equal loss over the sparse one's
finding.py       all that in words
document.py      the result as JSON
figures.py       its figures
page.py          finding and figures as one page
evidence.py      what docs/evidence/study.md says of the newest result
study.py         the order of everything
"""
