"""Name the programs."""

import bench

print(bench.__doc__)
