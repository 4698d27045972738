"""One module an engine: ``write(numbers, model, others, remarks) -> str`` and, where a file carries enough, ``read(text, where)``."""
