"""What is asked: a file is a benchmark, a function named after it that returns a Benchmark."""
