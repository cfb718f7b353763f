"""Speed, memory and cost: `python -m bench` lists the measurements, and their tables lie here. See also h100/README.md."""
