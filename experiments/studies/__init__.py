"""What the entry points do, from plain values. Each imports its study when its flags have been parsed."""
