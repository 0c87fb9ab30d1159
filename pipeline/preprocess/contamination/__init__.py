"""Decontamination: training records that share an n-gram of words with an evaluation set.

After Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C (13-grams of words in lower case, without
punctuation). A single n-gram in common is a hit, and the record that has it is dropped as a whole. Evaluation texts of
fewer words have no n-gram and are not looked for. An n-gram is told by a hash of 64 bits: among 10^7 of evaluation and
10^12 of training, a false hit is to be expected about once.
"""
