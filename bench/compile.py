"""Compile the Triton kernels ahead of time, for GPUs that need not be there; read registers and spills off the code.

    python -m bench.compile

A kernel that spills registers to local memory loses its speed quietly; this shows it on any machine that has Triton.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench.tables import argument_parser, facts, write_table
from errors import run_main
from kernels import triton_puma

VOCABULARIES = (102400, 151936, 152064)  # DeepSeek-Math, Qwen2 1.5B, Qwen2 7B
ARCHITECTURES = (80, 90)

# name -> (forward, backward, strong branch, strong holds the difference, tau is 1, logits, gradient)
VARIANTS = {
    "linear op, tau = 1": (True, True, True, True, True, "bf16", "bf16"),
    "linear op, tau != 1": (True, True, True, True, False, "bf16", "bf16"),
    "linear op, float32 logits": (True, True, True, True, True, "fp32", "bf16"),
    "linear op, cross entropy alone": (True, True, False, False, True, "bf16", "bf16"),
    "linear op, losses only": (True, False, True, True, True, "bf16", "bf16"),
    "logits op, forward": (True, False, True, False, True, "bf16", "bf16"),
    "logits op, backward": (False, True, True, False, True, "bf16", "bf16"),
    "logits op, backward, float32": (False, True, True, False, True, "fp32", "fp32"),
}


def compile_kernel(variant: str, vocabulary: int, architecture: int) -> dict[str, object]:
    """One row of the report: registers, bytes of stack (spills), local-memory instructions, accesses by width, and how
    many instructions the passes over a row spend on one element."""
    forward, backward, strong, difference, tau_is_one, logits, gradient = VARIANTS[variant]
    lanes, num_warps, parts = triton_puma.work_shape(vocabulary)
    constants = {
        "VOCABULARY": vocabulary, "DIFFERENCE": difference, "TAU_IS_ONE": tau_is_one, "LANES": lanes, "PARTS": parts,
        "HINTS": triton_puma.EVICTION_HINTS, "weak_stride": 1, "other_stride": 1
    }
    unused = {
        "other_pointer": not strong, "fkl_weight": not strong, "gradient_pointer": not backward,
        "losses_pointer": not forward, "done_pointer": not forward, "output_scale_pointer": forward
    }
    constants |= {name: None for name, absent in unused.items() if absent}
    pointers = {"weak_pointer": logits, "other_pointer": logits, "labels_pointer": "i64"}
    pointers |= {"gradient_pointer": gradient, "done_pointer": "i32"}
    floats = {"scale", "inverse_tau", "fkl_weight", "rkl_weight", "ce_weight"}
    names = triton_puma.puma_kernel.arg_names
    signature, attributes = {}, {}
    for index, name in enumerate(names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_pointer"):
            signature[name] = "*" + pointers.get(name, "fp32")
        else:
            signature[name] = "fp32" if name in floats else "i32"
        # As at run time: torch's allocations and row strides that are multiples of 16 allow 16-byte accesses.
        aligned = name.endswith("_pointer") or (name.endswith("_row_stride") and vocabulary % 16 == 0)
        if name not in constants and aligned:
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        triton_puma.puma_kernel, signature, {(names.index(name),): value for name, value in constants.items()},
        attributes
    )
    kernel = triton.compile(source, target=GPUTarget("cuda", architecture, 32),
                            options={"num_warps": num_warps, "enable_fp_fusion": True})
    elements_per_thread = lanes * triton_puma.NEIGHBOURS.value / (32 * num_warps)
    usage, looped = _read_machine_code(kernel.asm["cubin"])
    return {
        "architecture": f"sm_{architecture}", "vocabulary": vocabulary, "kernel": variant, "lanes": lanes,
        "warps": num_warps, "parts": parts, **usage, "instructions_per_element": round(looped / elements_per_thread, 1)
    }


def _read_machine_code(cubin: bytes) -> tuple[dict[str, int], int]:
    """What the code uses, and the instructions in its loops over a row: those with a block's exponentials (the label's
    few logits have a loop of their own)."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage, code = (subprocess.run([cuobjdump, option, path], capture_output=True, text=True, check=True).stdout
                       for option in ("-res-usage", "-sass"))
    resources = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    instructions = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", code, re.MULTILINE)
    addresses = [int(address, 16) for address, _ in instructions]
    looped = 0
    for end, (_, instruction) in enumerate(instructions):
        branch = re.search(r"\bBRA\b.*0x([0-9a-f]+)", instruction)
        if branch and int(branch[1], 16) < addresses[end]:  # backwards: a loop's end
            body = instructions[addresses.index(int(branch[1], 16)) : end + 1]
            exponentials = sum("MUFU.EX2" in text for _, text in body)
            looped += len(body) if exponentials >= triton_puma.NEIGHBOURS.value else 0
    return {
        "registers": resources["REG"], "stack_bytes": resources["STACK"] + resources["LOCAL"],
        "local_accesses": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "loads_16_byte": len(re.findall(r"\bLDG\.E[.A-Z0-9]*\.128\b", code)),
        "stores_16_byte": len(re.findall(r"\bSTG\.E[.A-Z0-9]*\.128\b", code))
    }, looped


def main() -> None:
    """Compile every variant at every vocabulary; print the report and write it, or with --json print its rows only."""
    parser = argument_parser(__doc__)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=list(VOCABULARIES))
    parser.add_argument("--json", action="store_true", help="print the rows as JSON and write no file")
    args = parser.parse_args()
    rows = [
        compile_kernel(variant, vocabulary, architecture)
        for architecture in ARCHITECTURES
        for vocabulary in args.vocabularies
        for variant in VARIANTS
    ]
    if args.json:
        print(json.dumps(rows))
    else:
        path = args.out_dir / "kernel_compile"
        print(write_table(path, "The Triton kernels, compiled ahead of time", facts("cpu", "triton"), rows))


if __name__ == "__main__":
    run_main(main, resumes=False)
