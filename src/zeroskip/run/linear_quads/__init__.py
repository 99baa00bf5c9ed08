"""Linear layers of few rows in eight bits: four neighbouring inputs of an output, a quad, are multiplied at a time."""
