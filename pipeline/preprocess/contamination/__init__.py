"""Decontamination: training records that share n-grams of words with an evaluation set.

After Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C: 13-grams of words in lower case, without
punctuation, of which those that more than 10 training records have are left aside (a licence, a system prompt), unless
one text alone of the user's evaluation sets has them. Any other in common is a hit, which is reported; a phrase in
common is no leak yet, so that a record is dropped, as a whole, only if it has a share of the n-grams of one evaluation
record. That share is after Touvron et al. 2023, "Llama 2", section A.6, where a sample with less than 20% of its tokens
in matches is clean.

Evaluation texts of fewer words have no n-gram and are not looked for. An n-gram is told by a hash of 64 bits: among
10^7 of evaluation and 10^12 of training, a false hit is to be expected about once.
"""
