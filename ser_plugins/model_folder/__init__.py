"""The model folder: save it, load it without running its code, check it, convert others' weights."""
