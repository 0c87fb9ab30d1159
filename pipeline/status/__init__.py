"""What `dvc status` knows and what work/ knows, for people, in less time than it takes to import dvc.

The verdicts are DVC's: the same files, hashed in the same way, compared with the same dvc.lock.
"""
