"""What a document must pass before it enters a store.

cleaner.py          all steps for one document, in the recipe's order
tally.py            counts and histograms of what the steps did
quality.py          the rules of Gopher and C4
personal_data.py    e-mail addresses, numbers of phones, cards and accounts
decontamination.py  word n-grams shared with evaluation files
minhash.py          signatures that propose near duplicates
word_hashes.py      words and word n-grams as 64-bit hashes
"""
