"""What a person watches a training by: TensorBoard's event files, and curves.csv.

`scribe` is the thread of rank 0 that writes them, `board` what it does; the rest are its parts.
"""
