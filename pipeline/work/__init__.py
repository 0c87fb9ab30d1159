"""Work in progress: a folder for each stage and fingerprint, so that a stage that was stopped goes on."""
