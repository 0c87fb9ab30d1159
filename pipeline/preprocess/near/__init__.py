"""Near duplicates by MinHash and locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998).

The signature of a text has bands x rows values, each of which two texts share with the probability that is the Jaccard
similarity J of their sets of word n-grams. Texts whose values agree in all rows of some band are candidates: with
probability 1 - (1 - J^rows)^bands. Candidates count as near duplicates, unverified, and what is connected through
others as well (as in FineWeb, Penedo et al. 2024). A text without a word takes no part.
"""
