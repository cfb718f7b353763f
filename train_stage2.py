"""Stage 2, PUMA: the next-token distribution on the vision-rich form of a problem follows that on its text-rich form.

The same live model reads the text-rich (strong) row without gradients and teaches; the vision-rich (weak) row learns:

    loss = λ (α KL(weak ‖ strong) + (1 − α) KL(strong ‖ weak)) τ² + (1 − λ) CE          kernels/puma_loss.py

    on a CPU        python train_stage2.py --preset tiny --model out/demo/aligned --data out/demo/data/stage2.jsonl
    on one GPU      python train_stage2.py --preset puma-qwen2-1.5b
    on one node     torchrun --nproc_per_node 8 train_stage2.py --preset puma-qwen2-7b --activation_checkpointing
    on two nodes    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
                        train_stage2.py --preset puma-qwen2-7b --activation_checkpointing
    before that     python train_stage2.py --dry_run --nproc 8 --gpu a100-80gb        memory and hours, on any machine
"""

from dataclasses import dataclass

import torch

import memory
import runtime
from checkpoint import export_pretrained, resume, save_checkpoint
from data import ChatFormat, make_loader, open_rows, steps_per_epoch
from kernels import choose_backend
from log import Log
from model import find_preset, load_model, parse_parts
from sources import require_files

# ----------------------------------------------------------------------------------------------------------------------
# What one changes


@dataclass
class Config:
    """One flag per field; a comment says what each is for."""

    # data
    data: str = "data/stage2.jsonl"  # pairs: "a.jsonl,b.parquet:0.3,c.json.gz:100k" (a share or a count of a file)
    image_root: str = ""  # where image paths start; "" is each file's own folder
    max_length: int = 0  # tokens of a row, image tokens included; longer ones are dropped and counted; 0: the preset's
    skip_bad_rows: bool = False  # count rows that cannot be used instead of ending
    # model
    preset: str = "puma-qwen2-1.5b"
    model: str = "out/aligned"  # the folder to start from; "" takes the preset's pretrained parts
    random_weights: bool = False  # random weights at the true size, for trying out (6 bytes of host memory per weight)
    train: str = "vision,projector"  # parts that learn; the language model stays as stage 1 left it
    # loss
    alpha: float = 0.2  # share of KL(weak ‖ strong); 1 - alpha of KL(strong ‖ weak)
    lam: float = 0.1  # weight of the divergences; 1 - lam of the cross entropy
    tau: float = 1.0  # temperature of the divergences
    loss_backend: str = "auto"  # auto, triton, torch or reference
    # optimization
    epochs: int = 1
    max_steps: int = 0  # end after so many steps, the schedule too; 0: all epochs
    global_batch: int = 512  # pairs in a step, over all ranks and micro-batches
    learning_rate: float = 5e-5
    warmup: float = 0.02  # of all steps
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    grad_clip: float = 1.0  # 0: only measured
    seed: int = 0
    # memory and speed
    pack_tokens: int = 16384  # tokens of a micro-batch
    activation_checkpointing: bool = False
    compile: bool = False
    sync_every_pack: bool = True  # False: reduce gradients once a step; costs their unsharded fp32 size
    num_workers: int = 4  # processes of each rank that prepare its steps; 0 on a small machine
    shard_size: int = 0  # ranks that share one copy of the model; 0: all
    # output
    out_dir: str = "out/stage2"
    resume: str = "auto"  # auto, none, or a checkpoint's folder
    save_every: int = 200
    keep: int = 2  # newest checkpoints that stay
    progress: str = "lines"  # lines, bar or none
    wandb_project: str = ""
    # planning
    dry_run: bool = False
    nproc: int = 8
    gpu: str = "a100-80gb"


def main() -> None:
    """Set up, train the vision side by the PUMA loss, save, export."""
    # ------------------------------------------------------------------------------------------------------------------
    # Setup
    config = runtime.parse_config(Config)
    preset, parts = find_preset(config.preset), parse_parts(config.train)
    max_length = config.max_length or preset.max_length
    if config.dry_run:
        memory.dry_run(config, stage=2)
        return
    require_files(config.data, made_by="python gen_data.py --out data --per_category 40000")
    process = runtime.setup(config.seed, shard_size=config.shard_size)
    runtime.lock_out_dir(config.out_dir, process)

    # ------------------------------------------------------------------------------------------------------------------
    # Model
    on_gpu = process.device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = load_model(config.preset, config.model, random=config.random_weights, dtype=dtype)
    model.set_trainable(parts)
    model.train()

    # ------------------------------------------------------------------------------------------------------------------
    # Data
    pairs = open_rows(
        config.data,
        pairs=True,
        chat_format=ChatFormat(model.processor, preset.image_tokens),
        max_length=max_length,
        image_root=config.image_root,
        skip_bad_rows=config.skip_bad_rows,
    )
    total_steps = config.max_steps or config.epochs * steps_per_epoch(pairs, config.global_batch)

    # ------------------------------------------------------------------------------------------------------------------
    # Sharding, optimizer, schedule, and where an earlier run stopped
    if config.compile:
        runtime.compile_layers(model)
    if config.activation_checkpointing:
        runtime.checkpoint_activations(model)
    runtime.shard(model, process)
    optimizer = torch.optim.AdamW(
        runtime.parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=on_gpu,
    )
    scheduler = runtime.cosine_schedule(optimizer, total_steps, config.warmup)
    state = (model, optimizer, scheduler, process)
    identity = {"config": config, "data_fingerprint": pairs.fingerprint}
    first_step = resume(config.resume, config.out_dir, *state, **identity)
    backend, reason = choose_backend(model.hf.lm_head.weight)
    runtime.print_header(
        process,
        config,
        slow_paths=[f"loss: {reason}"] if on_gpu and backend != "triton" else [],
        data=pairs.summary(),
        trains=", ".join(model.trained_parts),
        loss=f"{backend} ({reason})" if config.loss_backend == "auto" else config.loss_backend,
        steps=f"{total_steps} of {config.global_batch} pairs",
    )

    # ------------------------------------------------------------------------------------------------------------------
    # Loop
    loader = make_loader(
        pairs,
        global_batch=config.global_batch,
        pack_tokens=config.pack_tokens,
        rank=process.rank,
        world_size=process.world_size,
        seed=config.seed,
        start_step=first_step,
        total_steps=total_steps,
        num_workers=config.num_workers,
    )
    stop = runtime.StopRequest(config.out_dir, process)
    finite = runtime.NonFiniteGuard(config.out_dir, process)
    log = Log(
        config.out_dir,
        process,
        total_steps=total_steps,
        start_step=first_step,
        progress=config.progress,
        wandb_project=config.wandb_project,
        config=config,
        title="stage 2",
    )
    stopping = False
    for step in range(first_step + 1, total_steps + 1):
        packs = next(loader)  # this rank's share of the step: (weak, strong), the same rows in the same order
        log.mark("data")
        # Every mean is over the response tokens of the whole global batch: all packs, all ranks.
        num_tokens = runtime.sum_over_ranks(sum(weak.num_response_tokens for weak, _ in packs), process)
        pack_losses = []
        for number, (weak, strong) in enumerate(packs):
            runtime.set_gradient_sync(model, config.sync_every_pack or number + 1 == len(packs))
            losses = model(
                weak.to(process.device, non_blocking=True),
                strong.to(process.device, non_blocking=True),
                alpha=config.alpha,
                lam=config.lam,
                tau=config.tau,
                num_tokens=max(num_tokens, 1),
                backend=config.loss_backend,
            )
            losses.loss.backward()
            pack_losses.append(torch.stack(losses).detach())
        loss, fkl, rkl, ce = runtime.sum_over_ranks(torch.stack(pack_losses).sum(0), process)
        grad_norm = runtime.clip_grad_norm(model.parameters(), config.grad_clip)
        log.mark("forward_backward")

        rows_and_losses = [(weak.row_ids, own[0]) for (weak, _), own in zip(packs, pack_losses, strict=True)]
        if not finite.skip(step, loss, grad_norm, rows_and_losses):
            optimizer.step()
        learning_rate = scheduler.get_last_lr()[0]
        scheduler.step()
        optimizer.zero_grad()
        log.mark("optimizer")

        log.step(
            step,
            num_tokens=runtime.sum_over_ranks(packs.num_tokens, process),
            flops=runtime.sum_over_ranks(memory.step_flops(model, packs), process),
            loss=loss,
            fkl=fkl,
            rkl=rkl,
            ce=ce,
            lr=learning_rate,
            grad_norm=grad_norm,
            rows=packs.global_rows,
            unreadable=runtime.sum_over_ranks(packs.num_skipped, process),
            nonfinite=finite.skipped,
        )
        stopping = stop.should_stop()
        if stopping or step == total_steps or (config.save_every and step % config.save_every == 0):
            wait = stopping or step == total_steps
            save_checkpoint(config.out_dir, step, *state, **identity, data_mix=pairs.mix, keep=config.keep, wait=wait)
            log.mark("save")
        if stopping:
            stop.leave_marker(step)
            break

    # ------------------------------------------------------------------------------------------------------------------
    # The folder that transformers opens, and stage 3 starts from
    if not stopping:
        export_pretrained(model, config.out_dir, process, dtype=dtype)
        runtime.print0(f"wrote {config.out_dir}; stage 3: --model {config.out_dir}")
    log.close()
    runtime.shutdown(process)


if __name__ == "__main__":
    runtime.main(main)
