"""Stage 3: multimodal instruction tuning. Cross entropy on the response tokens of rows with and without images.

    on a CPU        python train_stage3.py --preset tiny --model out/demo/stage2 --data out/demo/data/stage3.jsonl
    on one GPU      python train_stage3.py --preset puma-qwen2-1.5b --activation_checkpointing
    on one node     torchrun --nproc_per_node 8 train_stage3.py --preset puma-qwen2-7b --activation_checkpointing
    on two nodes    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
                        train_stage3.py --preset puma-qwen2-7b --activation_checkpointing
    before that     python train_stage3.py --dry_run --nproc 8 --gpu a100-80gb        memory and hours, on any machine
    alignment       runs/align.sh: this script on captions, `--train projector`, between stages 1 and 2
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
    data: str = "data/stage3.jsonl"  # "a.jsonl,b.parquet:0.3,c.json.gz:100k" (a share or a count of a file)
    image_root: str = ""  # where image paths start; "" is each file's own folder
    max_length: int = 0  # tokens of a row, image tokens included; longer ones are dropped and counted; 0: the preset's
    skip_bad_rows: bool = False  # count rows that cannot be used instead of ending
    # model
    preset: str = "puma-qwen2-1.5b"
    model: str = "out/stage2"  # the folder to start from; "" takes the preset's pretrained parts
    random_weights: bool = False  # random weights at the true size, for trying out (6 bytes of host memory per weight)
    train: str = "vision,projector,llm"  # parts that learn
    # loss
    loss_backend: str = "auto"  # auto, triton, torch or reference
    # optimization
    epochs: int = 1
    max_steps: int = 0  # end after so many steps, the schedule too; 0: all epochs
    global_batch: int = 256  # rows in a step, over all ranks and micro-batches
    learning_rate: float = 3e-5
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
    out_dir: str = "out/stage3"
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
    """Set up, train the whole model, save, export."""
    # ------------------------------------------------------------------------------------------------------------------
    # Setup
    config = runtime.parse_config(Config)
    preset, parts = find_preset(config.preset), parse_parts(config.train)
    max_length = config.max_length or preset.max_length
    if config.dry_run:
        memory.dry_run(config, stage=3)
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
    rows = open_rows(
        config.data,
        pairs=False,
        chat_format=ChatFormat(model.processor, preset.image_tokens),
        max_length=max_length,
        image_root=config.image_root,
        skip_bad_rows=config.skip_bad_rows,
    )
    total_steps = config.max_steps or config.epochs * steps_per_epoch(rows, config.global_batch)

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
    identity = {"config": config, "data_fingerprint": rows.fingerprint}
    first_step = resume(config.resume, config.out_dir, *state, **identity)
    backend, reason = choose_backend(model.hf.lm_head.weight)
    runtime.print_header(
        process,
        config,
        slow_paths=[f"loss: {reason}"] if on_gpu and backend != "triton" else [],
        data=rows.summary(),
        trains=", ".join(model.trained_parts),
        loss=f"{backend} ({reason})" if config.loss_backend == "auto" else config.loss_backend,
        steps=f"{total_steps} of {config.global_batch} rows",
    )

    # ------------------------------------------------------------------------------------------------------------------
    # Loop
    loader = make_loader(
        rows,
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
        title="stage 3",
    )
    stopping = False
    for step in range(first_step + 1, total_steps + 1):
        packs = next(loader)  # this rank's share of the step
        log.mark("data")
        # Every mean is over the response tokens of the whole global batch: all packs, all ranks.
        num_tokens = runtime.sum_over_ranks(sum(pack.num_response_tokens for pack, _ in packs), process)
        pack_losses = []
        for number, (pack, _) in enumerate(packs):
            runtime.set_gradient_sync(model, config.sync_every_pack or number + 1 == len(packs))
            losses = model(
                pack.to(process.device, non_blocking=True),
                num_tokens=max(num_tokens, 1),
                backend=config.loss_backend,
            )
            losses.loss.backward()
            pack_losses.append(losses.loss.detach())
        loss = runtime.sum_over_ranks(torch.stack(pack_losses).sum(), process)
        grad_norm = runtime.clip_grad_norm(model.parameters(), config.grad_clip)
        log.mark("forward_backward")

        rows_and_losses = [(pack.row_ids, own) for (pack, _), own in zip(packs, pack_losses, strict=True)]
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
            lr=learning_rate,
            grad_norm=grad_norm,
            rows=packs.global_rows,
            unreadable=runtime.sum_over_ranks(packs.num_skipped, process),
            nonfinite=finite.skipped,
        )
        stopping = stop.should_stop()
        if stopping or step == total_steps or (config.save_every and step % config.save_every == 0):
            wait = stopping or step == total_steps
            save_checkpoint(config.out_dir, step, *state, **identity, data_mix=rows.mix, keep=config.keep, wait=wait)
            log.mark("save")
        if stopping:
            stop.leave_marker(step)
            break

    # ------------------------------------------------------------------------------------------------------------------
    # The folder that transformers opens
    if not stopping:
        export_pretrained(model, config.out_dir, process, dtype=dtype)
        runtime.print0(f"wrote {config.out_dir}: python sample.py --model {config.out_dir} --image FILE QUESTION")
    log.close()
    runtime.shutdown(process)


if __name__ == "__main__":
    runtime.main(main)
