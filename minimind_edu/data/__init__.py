"""Data for training: records from files, token ids on the disk, packed rows, and the embedded Small World."""
