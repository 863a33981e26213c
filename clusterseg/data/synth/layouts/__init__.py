"""One file a layout.

`names(recipe)` lists the relative paths of all files, `files(recipe)` gives (relative path, bytes)
of each in the same order, OPTIONS are the recipe's further fields that the layout goes by.
"""
