"""Other people's algorithms, as published, to be compared with ours."""
