"""What a document must pass before it enters a store.

cleaner.py          all steps for one document, in the recipe's order
tally.py            counts and histograms of what the steps did
quality.py          the rules of Gopher and C4
personal_data.py    what is personal in a text, and its masks; numbers of cards and accounts
email_addresses.py  e-mail addresses, of any script
phone_numbers.py    numbers of phones
ip_addresses.py     addresses of hosts and networks
plain_form.py       a text with ASCII in place of its look-alikes, for these searches
decontamination.py  word n-grams shared with evaluation files
minhash.py          signatures that propose near duplicates
word_hashes.py      words and word n-grams as 64-bit hashes
"""
