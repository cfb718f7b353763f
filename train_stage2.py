"""Stage 2, PUMA: the next-token distribution on the vision-rich form of a problem follows that on its text-rich form.

The same live model reads the text-rich (strong) row without gradients and teaches; the vision-rich (weak) row learns:

    loss = λ (α KL(weak ‖ strong) + (1 − α) KL(strong ‖ weak)) τ² + (1 − λ) CE          kernels/puma_loss.py

    on a CPU        python train_stage2.py --model out/demo/aligned --data out/demo/data/stage2.jsonl
    on one GPU      python train_stage2.py
    on one node     torchrun --nproc_per_node 8 train_stage2.py --activation_checkpointing
    on two nodes    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
                        train_stage2.py --activation_checkpointing
    before that     python -m bench.plan train_stage2.py --nproc 8 --gpu a100-80gb    memory and hours, on any machine
"""

import functools
from dataclasses import dataclass, replace
from typing import Literal

import torch

import runtime
from checkpoint import export_pretrained, parse_settings, resume, save_checkpoint
from data import ChatFormat, MicroBatch, check_held_out, make_loader, open_rows, require_pictures, steps_per_epoch
from errors import run_main
from kernels import PumaLoss, linear_puma_loss
from model import (MathModel, count_image_tokens, find_preset, load_model,
                   longest_row, parse_parts, peak_flops, step_flops)
from sources import require_files

# ----------------------------------------------------------------------------------------------------------------------
# What one changes


@dataclass
class Config:
    """One flag per field; the comment behind a field is its help."""

    # data
    data: str = "data/stage2.jsonl"  # pairs: "a.jsonl,b.parquet:0.3,c.json.gz:100k" (a share or a count of a file)
    val_data: str = ""  # held-out pairs, whose losses are logged
    val_every: int = 0  # steps from one validation to the next; 0: off
    image_root: str = ""  # where image paths start; "" is each file's own folder
    picture_roots: str = ""  # folders "A,B" outside of which no picture is opened; "": pictures may lie anywhere
    prepared: str = ""  # where files of other forms are converted to, once; "": prepared/ beside out_dir
    max_length: int = 0  # tokens of a row, image tokens included; longer ones are dropped and counted; 0: the model's
    skip_bad_rows: bool = False  # count rows that cannot be used instead of ending
    # model
    model: str = "out/aligned"  # the folder to start from; "" assembles a preset's pretrained parts
    preset: str = ""  # what to assemble, or to draw at random (see model.py); "": puma-qwen2-1.5b
    random_weights: bool = False  # random weights at the true size, for trying out (6 bytes of host memory per weight)
    train: str = "vision,projector"  # parts that learn; the language model stays as stage 1 left it
    # loss
    alpha: float = 0.2  # share of KL(weak ‖ strong); 1 - alpha of KL(strong ‖ weak)
    lam: float = 0.1  # weight of the divergences; 1 - lam of the cross entropy
    tau: float = 1.0  # temperature of the divergences
    loss_backend: Literal["auto", "triton", "torch", "reference"] = "auto"  # auto: triton on CUDA, torch elsewhere
    # optimization
    epochs: int = 1  # times that each pair is seen
    max_steps: int = 0  # end after so many steps, the schedule too; 0: all epochs
    global_batch: int = 512  # pairs in a step, over all ranks and micro-batches
    learning_rate: float = 5e-5  # at its peak; a cosine takes it to 0
    warmup: float = 0.02  # share of all steps
    weight_decay: float = 0.1  # of matrices; norms and biases have none
    beta1: float = 0.9  # AdamW
    beta2: float = 0.999  # AdamW
    grad_clip: float = 1.0  # largest gradient norm; 0: only measured
    seed: int = 0  # of the data's order and of random weights
    # memory and speed
    pack_tokens: int = 16384  # tokens packed into a micro-batch
    activation_checkpointing: bool = False  # compute each layer twice and keep only its input
    compile: bool = False  # torch.compile the layers; the first step takes a minute
    sync_every_pack: bool = True  # False: reduce gradients once a step; costs their unsharded fp32 size
    num_workers: int = 4  # processes of each rank that prepare its steps; 0 on a small machine
    shard_size: int = 0  # ranks that share one copy of the model; 0: all
    # output
    out_dir: str = "out/stage2"  # log, checkpoints, and at the end the model's folder
    resume: str = "auto"  # auto, none, or a checkpoint's folder, to go back to: later ones are set aside
    schedule: Literal["refuse", "keep", "restretch"] = "refuse"  # the curve of a resumed run of another length
    allow_changed: str = ""  # "alpha,lam": fixed settings whose change at a resume is meant
    save_every: int = 200  # steps from one checkpoint to the next; 0: only at the end
    keep: int = 2  # newest checkpoints that stay
    progress: Literal["lines", "bar", "none"] = "lines"  # on the screen
    wandb_project: str = ""  # log there too


# ----------------------------------------------------------------------------------------------------------------------
# The method


def puma(model: MathModel, weak: MicroBatch, strong: MicroBatch, *, num_tokens: int, config: Config) -> PumaLoss:
    """The PUMA loss of one micro-batch (paper, equations 1 to 5): loss, fkl, rkl and ce, 0-d each.

    weak, strong: the same rows in the same order, vision-rich and text-rich. num_tokens: response tokens of the whole
    global batch, the denominator of every mean. Call it as model(puma, ...): see MathModel.forward.
    """
    # The teacher: the same live model on the text-rich form. It is a fixed target, so nothing flows back through it.
    # At lam 0 nobody teaches: the strong side is not run, fkl and rkl are NaN.
    with torch.no_grad():
        strong_hidden = model.response_hidden_states(strong) if config.lam else None
    # The student: the vision-rich form. Hidden states [R, D] of the response tokens alone, for the prompts differ.
    weak_hidden = model.response_hidden_states(weak)
    # Row k of both predicts the same token of the same response. Logits are made chunk by chunk, never all at once.
    return linear_puma_loss(weak_hidden, strong_hidden, model.lm_head.weight, weak.response_labels,
                            alpha=config.alpha, lam=config.lam, tau=config.tau,
                            num_tokens=num_tokens, backend=config.loss_backend)


def main() -> None:
    """Set up, train the vision side by the PUMA loss, save, export."""
    # ------------------------------------------------------------------------------------------------------------------
    # Setup. Impossible values end here, before anything is loaded.
    config = runtime.parse_config(Config, preset=find_preset, train=parse_parts, allow_changed=parse_settings)
    require_files(config.data, made_by="python gen_data.py --out_dir data --per_category 40000")
    check_held_out(config.data, config.val_data, config.val_every)
    process = runtime.setup(config.seed, shard_size=config.shard_size)
    runtime.lock_out_dir(config.out_dir, process)

    # ------------------------------------------------------------------------------------------------------------------
    # Model
    made_by = "runs/align.sh, which aligns the projector after stage 1"
    model = load_model(config.preset, config.model, random=config.random_weights, dtype=process.dtype, made_by=made_by)
    model.set_trainable(parse_parts(config.train))
    model.train()

    # ------------------------------------------------------------------------------------------------------------------
    # Data: an index of the rows that can be used, and steps made of them
    chat_format = ChatFormat(model.processor, count_image_tokens(model.config))
    max_length = longest_row(model.config, config.max_length)
    open_pairs = functools.partial(open_rows, pairs=True, chat_format=chat_format, max_length=max_length,
                                   image_root=config.image_root, skip_bad_rows=config.skip_bad_rows,
                                   picture_roots=config.picture_roots,
                                   prepared=config.prepared or f"{config.out_dir}/../prepared")
    load_steps = functools.partial(make_loader, global_batch=config.global_batch, pack_tokens=config.pack_tokens,
                                   rank=process.rank, world_size=process.world_size, seed=config.seed,
                                   num_workers=config.num_workers)
    pairs = open_pairs(config.data)
    held_out = open_pairs(config.val_data) if config.val_every else None
    require_pictures(pairs, model.trained_parts)
    total_steps = config.max_steps or config.epochs * steps_per_epoch(pairs, config.global_batch)

    # ------------------------------------------------------------------------------------------------------------------
    # Sharding, optimizer, schedule, and where an earlier run stopped
    if config.compile:
        runtime.compile_layers(model)
    if config.activation_checkpointing:
        runtime.checkpoint_activations(model)
    runtime.shard(model, process)
    optimizer = torch.optim.AdamW(runtime.parameter_groups(model, config.weight_decay), lr=config.learning_rate,
                                  betas=(config.beta1, config.beta2), fused=process.device.type == "cuda")
    scheduler = runtime.cosine_schedule(optimizer, total_steps, config.warmup)
    first_step = resume(config.resume, config.out_dir, model, optimizer, scheduler, process, config=config,
                        data_fingerprint=pairs.fingerprint)
    runtime.print_header(process, model, loss_backend=config.loss_backend, data=pairs.summary(),
                         trains=", ".join(model.trained_parts), steps=f"{total_steps} of {config.global_batch} pairs")

    # ------------------------------------------------------------------------------------------------------------------
    # Loop
    loader = runtime.watch_unreadable(load_steps(pairs, start_step=first_step, total_steps=total_steps), process)
    stop = runtime.StopRequest(config.out_dir, process)
    finite = runtime.NonFiniteGuard(config.out_dir, process)
    log = runtime.Log(config, process, total_steps, first_step, peak_flops(process.device))
    for step in range(first_step + 1, total_steps + 1):
        micro_batches, unreadable = next(loader)  # this rank's share of the step: (weak, strong) each
        log.mark("data")

        # Every mean is over the response tokens of the whole global batch, so their number is needed before any loss.
        num_tokens = runtime.sum_over_ranks(micro_batches.num_response_tokens, process)
        known = 1.0 if num_tokens else float("nan")  # without a readable row nothing is measured, and nothing learnt
        micro_losses = []
        for number, (weak, strong) in enumerate(micro_batches):
            # Without --sync_every_pack gradients are reduced in the last micro-batch alone.
            runtime.set_gradient_sync(model, config.sync_every_pack or number + 1 == len(micro_batches))
            weak, strong = (side.to(process.device, non_blocking=True) for side in (weak, strong))
            losses = model(puma, weak, strong, num_tokens=max(1, num_tokens), config=config)
            losses.loss.backward()
            micro_losses.append(torch.stack(losses).detach())  # fetched once a step: each look would wait for the GPU
        losses = PumaLoss(*runtime.sum_over_ranks(torch.stack(micro_losses).sum(0), process) * known)
        grad_norm = runtime.clip_grad_norm(model.parameters(), config.grad_clip) * known
        log.mark("forward_backward")

        # A step that is not finite would spoil AdamW's moments for good: it is left out, and its rows are written down.
        rows_and_losses = [(weak.row_ids, own[0]) for (weak, _), own in zip(micro_batches, micro_losses, strict=True)]
        if num_tokens and not finite.skip_nonfinite_step(step, losses.loss, grad_norm, rows_and_losses):
            optimizer.step()
        optimizer.zero_grad()
        log.mark("optimizer")

        val_losses = {}
        if held_out and (step % config.val_every == 0 or step == total_steps):
            steps = load_steps(held_out, start_step=0, total_steps=steps_per_epoch(held_out, config.global_batch))
            means = runtime.validate(model, puma, steps, process, config=config)
            val_losses = {f"val_{name}": mean for name, mean in zip(PumaLoss._fields, means, strict=True)}
            log.mark("validation")

        if not config.lam:  # the strong sides were not run
            micro_batches = replace(micro_batches, micro_batches=[(weak, None) for weak, _ in micro_batches])
        counts = (micro_batches.num_tokens, step_flops(model, micro_batches))
        tokens, flops = (runtime.sum_over_ranks(count, process) for count in counts)
        log.step(step, num_tokens=tokens, flops=flops, **losses._asdict(), **val_losses, lr=scheduler.get_last_lr()[0],
                 grad_norm=grad_norm, rows=micro_batches.global_rows, unreadable=unreadable, nonfinite=finite.skipped)
        scheduler.step()

        # All ranks agree to stop, also when only one got the signal; the last checkpoint is waited for.
        last = stop.should_stop() or step == total_steps
        if last or (config.save_every and step % config.save_every == 0):
            save_checkpoint(config.out_dir, step, model, optimizer, scheduler, process, config=config,
                            data_fingerprint=pairs.fingerprint, data_mix=pairs.mix, keep=config.keep, wait=last)
            log.mark("save")
        if stop.stopping:
            stop.leave_marker(step)
            break

    # ------------------------------------------------------------------------------------------------------------------
    # The folder that transformers opens, and stage 3 starts from
    if not stop.stopping:
        export_pretrained(model, config.out_dir, process, dtype=process.dtype)
        runtime.print0(f"wrote {config.out_dir}; stage 3: --model {config.out_dir}")
    log.close()
    runtime.shutdown(process)


if __name__ == "__main__":
    run_main(main)
