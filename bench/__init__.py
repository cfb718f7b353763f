"""Speed, memory and cost. Each program measures one thing and writes a CSV file and a Markdown table into bench/; plan
and lines only print. `python -m bench.NAME --help` lists its options.

    bench.plan        memory, largest pack and hours of the stages, before anything is rented (no GPU needed)
    bench.kernels     time and memory of the PUMA loss and of cross entropy, beside their peers
    bench.products    the linear op in pieces: its matrix products and its row kernel (CUDA)
    bench.tune        the Triton kernel's block shapes (CUDA)
    bench.compile     the Triton kernels compiled for A100 and H100: registers, spills (no GPU needed)
    bench.accuracy    the linear op's gradient error for bfloat16 and float32 logits (no GPU needed)
    bench.step        whole training steps on random weights, and the plain way beside them
    bench.loader      pairs that data.py prepares per second, beside what the plan's GPUs take (CPU)
    bench.data        generated pairs per second, and figures by the Plotter and by matplotlib (CPU)
    bench.pages       questions rendered to pictures per second, and by matplotlib (CPU)
    bench.lines       lines, code lines and tokens of the core, and what each training script can reach

Peers that are not requirements of the project come by pip install '.[bench]'; a peer that is not installed, or cannot
run on this device, is named and left out.
"""
