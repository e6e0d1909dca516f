"""Sources of joules, one file for each meter, and which of them a run gets."""
