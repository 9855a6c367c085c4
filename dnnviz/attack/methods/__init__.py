"""One file a method; a file registers its method when it is imported, and imports torch only when the method runs."""
