"""The PUMA loss and its gradient as one Triton kernel: one pass over a token's logits for the losses, one for the
gradient.

Write z for a row of weak logits, s for the strong row, c = log2(e) / tau, delta = s - z. Softmaxes at temperature tau:

    q_v = 2^(c z_v - a) / Q    Q = sum_v 2^(c z_v - a)    a = max_v c z_v    (weak; the shift keeps every power <= 1)
    p_v = 2^(c s_v - b) / P    P = sum_v 2^(c s_v - b)    b = max_v c s_v    (strong)

With R = ln 2 * (a - b + log2(Q / P)), the log of the normalisers' ratio, log q_v - log p_v = -delta_v / tau - R, and

    fkl = KL(weak || strong) = sum_v q_v (log q_v - log p_v) = -E_weak[delta] / tau - R
    rkl = KL(strong || weak) = sum_v p_v (log p_v - log q_v) =  E_strong[delta] / tau + R
    ce  = logsumexp(z) - z_label

so a few running sums hold everything: Q, P, sum_v 2^(c z_v - a) delta_v, sum_v 2^(c s_v - b) delta_v and, only where
tau is not 1, the sum of exponentials at temperature 1 for ce. The maxima are not known before the pass, so they are
carried along, as in the online softmax: when one grows from a to a', the sums made so far are multiplied by 2^(a - a').

Where the label's logit is the largest, and training makes that the rule, ce = log(1 + rest) with

    rest = sum over v != label of exp(z_v - z_label)

and a sum that holds the 1 has lost the digits of a small rest: at ce = 1e-3 a float32 sum is 6e-5 of it off. So for
ce = log1p(rest) the lane that met the label forgets its sum; its few logits (V / LANES) are read again, one per lane,
without the label.

The gradient with respect to z_v (p is a constant; r = softmax(z) at temperature 1; E = E_weak[delta]):

    d fkl = q_v (E - delta_v) / tau^2      (the ratio R has cancelled: only differences from the mean are left)
    d rkl = (q_v - p_v) / tau
    d ce  = r_v - [v = label]
    d loss = lam * alpha * q_v (E - delta_v) + lam * (1 - alpha) * tau * (q_v - p_v) + (1 - lam) * (r_v - [v = label])

Shape of the work. A row is read in blocks of [LANES, 8]: the 8 neighbours are one 16-byte load in bfloat16, and every
lane keeps its own maximum and sums, so the loop holds no exchange between threads. PARTS programs share a row. Each
leaves the maxima and sums of its part in global memory, where they are put together like those of the lanes.

When losses and gradient are wanted in one launch (the linear op), a row's second pass starts LAG rows after its first,
and finds its logits in the L2 cache: LAG rows of both branches at V = 151,936 are 20 MB. With whole rows as the unit,
one on each multiprocessor, 80 MB would be in flight. Programs start in the order of their numbers, so one of the second
pass may wait for those of the first: they are running, or have ended. The hints ask the cache to keep what the first
pass has read and to drop what the second is done with.

All sums are float32; a token's results do not depend on other tokens.

Values that are not finite. -inf is a logit of probability 0: its term is 0 wherever its own softmax weighs it, even
where delta is inf - inf; where only the other branch gives it weight, the divergence is +inf, as it is on paper. A
NaN anywhere makes its row's loss NaN.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NEIGHBOURS = tl.constexpr(8)

STATISTICS = tl.constexpr(8)  # numbers that a program leaves of its part of a row

# Within 1 % of the fastest that `python -m bench.tune` found on an H100 (bench/h100/tune.md).
SHAPE = (256, 8, 16)  # lanes and warps of a program, and programs that share a row
LAG = 33  # rows by which the second pass follows the first, fewer where they would fill more than
CACHE_SHARE = 0.39  # of the L2 cache: from 33 to 42 rows of 0.61 MB (of 50 MB) the time rises by 21 %
EVICTION_HINTS = True


@triton.jit
def _shift(maximum, scale):
    """scale * maximum, or 0 where all logits so far are -inf: -inf - (-inf) would be NaN."""
    return tl.where(maximum == float("-inf"), 0.0, maximum * scale)


@triton.jit
def _rescale(old_max, new_max, scale):
    """What sums made under the shift of old_max are multiplied with to stand under that of new_max.

    It is the difference of the two rounded shifts, exactly as the powers used them: a fused multiply-add of the maxima
    would leave an error of its own in every sum.
    """
    return tl.where(old_max == float("-inf"), 0.0, tl.exp2(_shift(old_max, scale) - _shift(new_max, scale)))


@triton.jit
def _product(x, y):
    """x * y, rounded by itself. A plain product may be fused into the sum that follows, in one branch or one variant of
    the kernel and not in the other; equal branches must give equal sums, and q - p = 0.
    """
    return tl.fma(x, y, 0.0)


@triton.jit
def _weigh(powers, values, GUARD: tl.constexpr):
    """powers * values, where a power of 0 silences an infinite or NaN value (but a NaN power is kept)."""
    if GUARD:
        return tl.where(powers == 0.0, 0.0, powers * values)
    return powers * values


@triton.jit
def _load(row_pointer, columns, stride, VOCABULARY: tl.constexpr, padding: tl.constexpr, eviction: tl.constexpr):
    """A block of a row in float32. int64 offsets: a transposed row's last element can lie beyond 2^31."""
    pointers = row_pointer + columns.to(tl.int64) * stride
    return tl.load(pointers, mask=columns < VOCABULARY, other=padding, eviction_policy=eviction).to(tl.float32)


@triton.jit
def _load_both(weak_row, other_row, columns, weak_stride, other_stride, VOCABULARY: tl.constexpr,
               DIFFERENCE: tl.constexpr, EVICTION: tl.constexpr):
    """(z, s, delta) of a block. other_row holds the strong logits or, with DIFFERENCE, delta itself; None: no strong
    branch."""
    weak = _load(weak_row, columns, weak_stride, VOCABULARY, float("-inf"), EVICTION)
    if other_row is None:
        return weak, weak, weak
    elif DIFFERENCE:
        delta = _load(other_row, columns, other_stride, VOCABULARY, 0.0, EVICTION)
        return weak, weak + delta, delta
    else:
        strong = _load(other_row, columns, other_stride, VOCABULARY, float("-inf"), EVICTION)
        return weak, strong, strong - weak


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0, to float32's last digits: log(u) x / (u - 1) undoes what u = 1 + x was rounded by."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, LN2 * tl.log2(u) * (x / (u - 1.0)))


@triton.jit
def _measure_part(weak_row, other_row, partials_row, weak_stride, other_stride, scale, label, first_block, end_block,
                  VOCABULARY: tl.constexpr, DIFFERENCE: tl.constexpr, TAU_IS_ONE: tl.constexpr, LANES: tl.constexpr,
                  EVICTION: tl.constexpr):
    """One pass over the blocks [first_block, end_block) of a row, and what is left of it: the maxima of z and s, the
    sums Q and P and those of 2^(c z_v - a) delta_v and 2^(c s_v - b) delta_v under the part's own maxima, and at
    temperature 1 the sum Q and its part without the label.

    Q and P are summed in the same order, so that equal branches have equal sums and a divergence of exactly 0.
    """
    weak_max = tl.full([LANES], float("-inf"), tl.float32)
    strong_max = tl.full([LANES], float("-inf"), tl.float32)
    weak_sum = tl.zeros([LANES], tl.float32)
    strong_sum = tl.zeros([LANES], tl.float32)
    weak_delta = tl.zeros([LANES], tl.float32)
    strong_delta = tl.zeros([LANES], tl.float32)
    plain_sum = tl.zeros([LANES], tl.float32)
    block = tl.arange(0, LANES)[:, None] * NEIGHBOURS + tl.arange(0, NEIGHBOURS)[None, :]
    for step in range(first_block, end_block):
        weak, strong, delta = _load_both(weak_row, other_row, block + step * (LANES * NEIGHBOURS), weak_stride,
                                         other_stride, VOCABULARY, DIFFERENCE, EVICTION)
        new_max = tl.maximum(weak_max, tl.max(weak, axis=1))
        if not TAU_IS_ONE:
            powers = tl.exp2(tl.fma(weak, LOG2E, -_shift(new_max, LOG2E)[:, None]))
            plain_sum = plain_sum * _rescale(weak_max, new_max, LOG2E) + tl.sum(powers, axis=1)
        powers = tl.exp2(tl.fma(weak, scale, -_shift(new_max, scale)[:, None]))
        rescale = _rescale(weak_max, new_max, scale)
        weak_sum = weak_sum * rescale + tl.sum(powers, axis=1)
        weak_max = new_max
        if other_row is not None:
            # A rescale of 0 silences an infinite sum, as a power of 0 does an infinite value.
            weak_delta = _weigh(rescale, weak_delta, not DIFFERENCE)
            weak_delta += tl.sum(_weigh(powers, delta, not DIFFERENCE), axis=1)
            new_max = tl.maximum(strong_max, tl.max(strong, axis=1))
            powers = tl.exp2(tl.fma(strong, scale, -_shift(new_max, scale)[:, None]))
            rescale = _rescale(strong_max, new_max, scale)
            strong_max = new_max
            strong_sum = strong_sum * rescale + tl.sum(powers, axis=1)
            strong_delta = _weigh(rescale, strong_delta, not DIFFERENCE)
            strong_delta += tl.sum(_weigh(powers, delta, not DIFFERENCE), axis=1)

    # The lanes meet.
    part_max = tl.max(weak_max, axis=0)
    rescale = _rescale(weak_max, part_max, scale)
    weak_sum = _product(weak_sum, rescale)
    plain_sum = weak_sum if TAU_IS_ONE else _product(plain_sum, _rescale(weak_max, part_max, LOG2E))
    tl.store(partials_row, part_max)
    tl.store(partials_row + 1, tl.sum(weak_sum, axis=0))
    tl.store(partials_row + 2, tl.sum(plain_sum, axis=0))
    # What the label's lane has summed is read again, an element per lane, without the label.
    shift = _shift(part_max, LOG2E)
    lanes = tl.arange(0, LANES)
    label_lane = (label // NEIGHBOURS) % LANES
    label_block = label // (LANES * NEIGHBOURS)
    if (label_block >= first_block) & (label_block < end_block):
        plain_sum = tl.where(lanes == label_lane, 0.0, plain_sum)
        own = lanes // NEIGHBOURS * (LANES * NEIGHBOURS) + label_lane * NEIGHBOURS + lanes % NEIGHBOURS
        end = tl.minimum(end_block * (LANES * NEIGHBOURS), VOCABULARY)
        for start in range(first_block * (LANES * NEIGHBOURS), end, LANES * LANES):  # once, up to a part of LANES^2
            columns = start + own
            pointers = weak_row + columns.to(tl.int64) * weak_stride
            weak = tl.load(pointers, mask=(columns < end) & (columns != label), other=float("-inf")).to(tl.float32)
            plain_sum += tl.exp2(tl.fma(weak, LOG2E, -shift))
    tl.store(partials_row + 3, tl.sum(plain_sum, axis=0))
    if other_row is not None:
        tl.store(partials_row + 4, tl.sum(_weigh(rescale, weak_delta, True), axis=0))
        part_max = tl.max(strong_max, axis=0)
        rescale = _rescale(strong_max, part_max, scale)
        tl.store(partials_row + 5, part_max)
        tl.store(partials_row + 6, tl.sum(_product(strong_sum, rescale), axis=0))
        tl.store(partials_row + 7, tl.sum(_weigh(rescale, strong_delta, True), axis=0))


@triton.jit
def _merge_parts(partials_row, scale, HAS_STRONG: tl.constexpr, TAU_IS_ONE: tl.constexpr, PARTS: tl.constexpr):
    """What the programs of a row have left, put together: the maxima, Q, P, E_weak[delta], E_strong[delta], and at
    temperature 1 Q and its part without the label."""
    parts = partials_row + tl.arange(0, PARTS) * STATISTICS
    maxima = tl.load(parts)
    weak_max = tl.max(maxima, axis=0)
    rescale = _rescale(maxima, weak_max, scale)
    plain_rescale = rescale if TAU_IS_ONE else _rescale(maxima, weak_max, LOG2E)
    weak_sum = tl.sum(_product(tl.load(parts + 1), rescale), axis=0)
    plain_sum = tl.sum(_product(tl.load(parts + 2), plain_rescale), axis=0)
    rest = tl.sum(_product(tl.load(parts + 3), plain_rescale), axis=0)
    if not HAS_STRONG:
        return weak_max, weak_sum, 0.0, 0.0, 1.0, 0.0, plain_sum, rest
    else:
        weak_mean = tl.sum(_weigh(rescale, tl.load(parts + 4), True), axis=0) / weak_sum
        maxima = tl.load(parts + 5)
        strong_max = tl.max(maxima, axis=0)
        rescale = _rescale(maxima, strong_max, scale)
        strong_sum = tl.sum(_product(tl.load(parts + 6), rescale), axis=0)
        strong_mean = tl.sum(_weigh(rescale, tl.load(parts + 7), True), axis=0) / strong_sum
        return weak_max, weak_sum, weak_mean, strong_max, strong_sum, strong_mean, plain_sum, rest


@triton.jit
def _first_pass(weak_row, other_row, partials_row, done, losses, label, ignore_index, losses_stride, weak_stride,
                other_stride, scale, inverse_tau, part, first_block, end_block, VOCABULARY: tl.constexpr,
                DIFFERENCE: tl.constexpr, TAU_IS_ONE: tl.constexpr, LANES: tl.constexpr, PARTS: tl.constexpr,
                EVICTION: tl.constexpr):
    """Measure a part of a row; the last of the row's programs to end writes its losses."""
    if label == ignore_index:
        if part == 0:
            tl.store(losses, 0.0)
            tl.store(losses + losses_stride, 0.0)
            tl.store(losses + 2 * losses_stride, 0.0)
    else:
        # A label outside the vocabulary is never an address; `poison` makes its row's results NaN.
        known = (label >= 0) & (label < VOCABULARY)
        poison = tl.where(known, 0.0, float("nan"))
        safe_label = tl.where(known, label, 0).to(tl.int32)
        label_logit = tl.load(weak_row + safe_label.to(tl.int64) * weak_stride).to(tl.float32)
        _measure_part(weak_row, other_row, partials_row + part * STATISTICS, weak_stride, other_stride, scale,
                      safe_label, first_block, end_block, VOCABULARY, DIFFERENCE, TAU_IS_ONE, LANES, EVICTION)
        tl.debug_barrier()  # the part's numbers are written before it counts as done
        if tl.atomic_add(done, 1, sem="acq_rel") == PARTS - 1:
            weak_max, weak_sum, weak_mean, strong_max, strong_sum, strong_mean, plain_sum, rest = _merge_parts(
                partials_row, scale, other_row is not None, TAU_IS_ONE, PARTS
            )
            # max - z_label is exact; the fma is what the shift lost when it was rounded.
            shift_error = tl.fma(weak_max, LOG2E, -(weak_max * LOG2E))
            ce = (weak_max - label_logit) + LN2 * (tl.log2(plain_sum) - shift_error)
            ce = tl.where(label_logit == weak_max, _log1p(rest * tl.exp2(-shift_error)), ce)
            fkl = 0.0
            rkl = 0.0
            if other_row is not None:
                # Rounded to nearest: the fast division of a number by itself need not be 1.
                log_ratio = tl.log2(tl.div_rn(weak_sum, strong_sum))
                ratio = LN2 * (_shift(weak_max, scale) - _shift(strong_max, scale) + log_ratio)
                fkl = -weak_mean * inverse_tau - ratio
                rkl = strong_mean * inverse_tau + ratio
            tl.store(losses, fkl + poison)
            tl.store(losses + losses_stride, rkl + poison)
            tl.store(losses + 2 * losses_stride, ce + poison)


@triton.jit
def _second_pass(weak_row, other_row, gradient_row, partials_row, done, output_scale_pointer, label, ignore_index,
                 weak_stride, other_stride, scale, first_block, end_block, fkl_weight, rkl_weight, ce_weight,
                 VOCABULARY: tl.constexpr, DIFFERENCE: tl.constexpr, TAU_IS_ONE: tl.constexpr, LANES: tl.constexpr,
                 PARTS: tl.constexpr, EVICTION: tl.constexpr):
    """Write the gradient of a part of a row (it may overwrite the weak row). Given `done`, wait until all of the row's
    parts are measured. Without an fkl_weight that term is left out."""
    if label == ignore_index:
        block = tl.arange(0, LANES)[:, None] * NEIGHBOURS + tl.arange(0, NEIGHBOURS)[None, :]
        for step in range(first_block, end_block):
            columns = block + step * (LANES * NEIGHBOURS)
            tl.store(gradient_row + columns, 0.0, mask=columns < VOCABULARY)
    else:
        if done is not None:
            # Programs start in the order of their numbers, so the ones waited for are running or have ended.
            while tl.atomic_add(done, 0, sem="acquire") < PARTS:
                pass
        weak_max, weak_sum, weak_mean, strong_max, strong_sum, strong_mean, plain_sum, rest = _merge_parts(
            partials_row, scale, other_row is not None, TAU_IS_ONE, PARTS
        )
        output_scale = tl.where((label >= 0) & (label < VOCABULARY), 1.0, float("nan"))
        if output_scale_pointer is not None:
            output_scale *= tl.load(output_scale_pointer)
        weak_inverse, strong_inverse, plain_inverse = 1.0 / weak_sum, 1.0 / strong_sum, 1.0 / plain_sum
        if fkl_weight is not None:
            fkl_weight *= output_scale
        rkl_weight *= output_scale
        ce_weight *= output_scale
        lanes = tl.arange(0, LANES)[:, None] * NEIGHBOURS
        neighbours = tl.arange(0, NEIGHBOURS)[None, :]
        for step in range(first_block, end_block):
            first = lanes + step * (LANES * NEIGHBOURS)  # of a lane's columns
            columns = first + neighbours
            weak, strong, delta = _load_both(weak_row, other_row, columns, weak_stride, other_stride, VOCABULARY,
                                             DIFFERENCE, EVICTION)
            q = _product(tl.exp2(tl.fma(weak, scale, -(weak_max * scale))), weak_inverse)
            r = q
            if not TAU_IS_ONE:
                r = _product(tl.exp2(tl.fma(weak, LOG2E, -(weak_max * LOG2E))), plain_inverse)
            gradient = tl.fma(r, ce_weight, tl.where(neighbours == label.to(tl.int32) - first, -ce_weight, 0.0))
            if other_row is not None:
                p = _product(tl.exp2(tl.fma(strong, scale, -(strong_max * scale))), strong_inverse)
                gradient += rkl_weight * (q - p)
                if fkl_weight is not None:
                    gradient += fkl_weight * _weigh(q, weak_mean - delta, not DIFFERENCE)
            gradient = gradient.to(gradient_row.dtype.element_ty)
            tl.store(gradient_row + columns, gradient, mask=columns < VOCABULARY, eviction_policy=EVICTION)


@triton.jit
def puma_kernel(weak_pointer, other_pointer, labels_pointer, gradient_pointer, losses_pointer, partials_pointer,
                done_pointer, output_scale_pointer, rows, lag, weak_row_stride, weak_stride, other_row_stride,
                other_stride, gradient_row_stride, losses_stride, ignore_index, scale, inverse_tau, fkl_weight,
                rkl_weight, ce_weight, VOCABULARY: tl.constexpr, DIFFERENCE: tl.constexpr, TAU_IS_ONE: tl.constexpr,
                LANES: tl.constexpr, PARTS: tl.constexpr, HINTS: tl.constexpr):
    """One part of one row, in the first pass (with a losses_pointer) or the second (with a gradient_pointer).

    With both, programs alternate: even ones measure the parts of a row, odd ones write the gradient of the row `lag`
    rows before it. other_pointer: the strong logits or, with DIFFERENCE, strong minus weak; None: cross entropy alone.
    """
    FORWARD: tl.constexpr = losses_pointer is not None
    BACKWARD: tl.constexpr = gradient_pointer is not None
    program = tl.program_id(0)
    odd = program % 2
    if FORWARD and BACKWARD:
        program = program // 2
    row = program // PARTS
    part = program % PARTS
    if FORWARD and BACKWARD:
        row -= odd * lag
    BLOCKS: tl.constexpr = (VOCABULARY - 1) // (LANES * NEIGHBOURS) + 1
    EACH: tl.constexpr = (BLOCKS - 1) // PARTS + 1
    first_block = tl.minimum(part * EACH, BLOCKS)
    end_block = tl.minimum(first_block + EACH, BLOCKS)
    if (row >= 0) & (row < rows):
        long_row = row.to(tl.int64)  # row * stride exceeds 2^31 from N * V = 2^31 on
        label = tl.load(labels_pointer + long_row)
        weak_row = weak_pointer + long_row * weak_row_stride
        other_row = None if other_pointer is None else other_pointer + long_row * other_row_stride
        partials_row = partials_pointer + long_row * (PARTS * STATISTICS)
        if FORWARD and (not BACKWARD or odd == 0):
            _first_pass(weak_row, other_row, partials_row, done_pointer + long_row, losses_pointer + long_row, label,
                        ignore_index, losses_stride, weak_stride, other_stride, scale, inverse_tau, part, first_block,
                        end_block, VOCABULARY, DIFFERENCE, TAU_IS_ONE, LANES, PARTS,
                        "evict_last" if BACKWARD and HINTS else "")
        if BACKWARD and (not FORWARD or odd == 1):
            _second_pass(weak_row, other_row, gradient_pointer + long_row * gradient_row_stride, partials_row,
                         done_pointer + long_row if FORWARD else None, output_scale_pointer, label, ignore_index,
                         weak_stride, other_stride, scale, first_block, end_block, fkl_weight, rkl_weight, ce_weight,
                         VOCABULARY, DIFFERENCE, TAU_IS_ONE, LANES, PARTS, "evict_first" if FORWARD and HINTS else "")


def work_shape(size: int) -> tuple[int, int, int]:
    """(lanes, warps, parts): fewer where the vocabulary does not fill them."""
    lanes, num_warps, parts = SHAPE
    lanes = min(lanes, max(16, triton.next_power_of_2(triton.cdiv(size, NEIGHBOURS.value))))
    parts = min(parts, triton.next_power_of_2(triton.cdiv(size, NEIGHBOURS.value * lanes)))
    return lanes, min(num_warps, max(lanes // 32, 1)), parts


def _lag(weak: Tensor, branches: int) -> int:
    """LAG, or as many rows as the GPU's L2 cache has room for, at least 1."""
    if not weak.is_cuda:
        return LAG
    room = CACHE_SHARE * torch.cuda.get_device_properties(weak.device).L2_cache_size
    return max(1, min(LAG, int(room / (branches * weak.shape[1] * weak.element_size()))))


def puma_rows(weak: Tensor, strong: Tensor | None, labels: Tensor, row_losses: Tensor | None, gradient: Tensor | None,
              *, difference: Tensor | None = None, statistics: Tensor | None = None, scale: Tensor | None = None,
              alpha: float, lam: float, tau: float, ignore_index: int) -> Tensor:
    """As `torch_puma.puma_rows`, in one launch: row_losses asks for the first pass, gradient for the second.

    gradient may be `weak` itself: no program writes a row before all have read it. Returns the statistics [R, parts, 8]
    of the first pass, which a later call for the gradient alone needs.
    """
    rows, size = weak.shape
    if torch.float64 in (weak.dtype, None if gradient is None else gradient.dtype):
        raise ValueError("the Triton kernels compute in float32: use backend='torch' or 'reference' for float64")
    if gradient is not None and gradient.stride(1) != 1:
        raise ValueError(f"gradient rows must be contiguous; got strides {gradient.stride()}")
    other = strong if difference is None else difference
    tau = 1.0 if other is None else tau  # cross entropy alone knows no other temperature
    lanes, num_warps, parts = work_shape(size)
    both = row_losses is not None and gradient is not None
    lag = min(rows, _lag(weak, 1 if other is None else 2))
    if statistics is None:
        statistics = torch.empty(rows, parts, STATISTICS.value, dtype=torch.float32, device=weak.device)
    if rows == 0:
        return statistics
    done = None if row_losses is None else torch.zeros(rows, dtype=torch.int32, device=weak.device)
    grid = ((rows + lag) * parts * 2 if both else rows * parts,)
    with torch.cuda.device_of(weak):
        puma_kernel[grid](
            weak, other, labels.contiguous(), gradient, row_losses, statistics, done, scale, rows, lag,
            *weak.stride(), *((0, 0) if other is None else other.stride()),
            gradient_row_stride=0 if gradient is None else gradient.stride(0),
            losses_stride=0 if row_losses is None else row_losses.stride(0), ignore_index=ignore_index,
            scale=LOG2E.value / tau, inverse_tau=1 / tau, rkl_weight=lam * (1 - alpha) * tau, ce_weight=1 - lam,
            fkl_weight=lam * alpha or None,  # None: an infinite term of weight 0 must be left out
            VOCABULARY=size, DIFFERENCE=difference is not None, TAU_IS_ONE=tau == 1, LANES=lanes, PARTS=parts,
            HINTS=EVICTION_HINTS, num_warps=num_warps, enable_fp_fusion=True,
        )
    return statistics
