"""What a loop of one's own must change to be private: the same loop, three times."""
