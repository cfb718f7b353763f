"""Speed, memory and cost: `python -m bench --help` lists what can be measured. The tables lie here and in h100/."""
