"""What runs on a GPU, against ceilings that are measured in the same run. Needs torch and triton only."""
