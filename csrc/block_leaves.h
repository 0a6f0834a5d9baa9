/* block_leaves.h: whether a stretch of nodes is leaves that a sweep has nothing to do for, eight opcodes at a time.
 * It leaves to others why they ask: no gradients to compute (block_matrix.h), no nodes to visit (block_operands.c).
 */
#ifndef FG_BLOCK_LEAVES_H
#define FG_BLOCK_LEAVES_H

#include <string.h>

#include "tape.h"

enum { BYTES = 8 };

/* Eight opcodes from `op` on, and a word with `op` in each byte. */
static inline uint64_t eight_ops(const uint8_t *op)
{
    uint64_t word;
    memcpy(&word, op, sizeof word);
    return word;
}

static inline uint64_t each_byte(unsigned op)
{
    return (uint64_t)op * 0x0101010101010101u;
}

/* Whether these n nodes, with or without a hook, are frozen leaves. */
static inline int all_frozen(const uint8_t *op, fg_id n)
{
    uint64_t other = 0;
    fg_id j = 0;
    for (; j + BYTES <= n; j += BYTES)
        other |= (eight_ops(op + j) & ~each_byte(FG_HOOK)) ^ each_byte(FG_FROZEN);
    for (; j < n; j++)
        other |= (op[j] & ~FG_HOOK) != FG_FROZEN;
    return !other;
}

/* The slow half of all_leaves(): frozen ones among them. A byte is 0 or FG_FROZEN if it is FG_FROZEN times any one of
 * that opcode's bits. */
static inline int all_frozen_or_leaves(const uint8_t *op, fg_id n)
{
    static_assert(FG_LEAF == 0 && (int)FG_FROZEN < (int)FG_HOOK, "the trick needs that");
    const unsigned bit = fg_bits_low(FG_FROZEN);
    uint64_t other = !fg_op_is_leaf(*op); /* mostly the results of another layer */
    fg_id j = 0;
    for (; !other && j + BYTES <= n; j += BYTES) {
        const uint64_t word = eight_ops(op + j);
        other = word ^ (word >> bit & each_byte(1)) * FG_FROZEN;
    }
    for (; j < n; j++)
        other |= !fg_op_is_leaf(op[j]);
    return !other;
}

/* Whether the nodes from `first` to before `end` are all leaves without a hook, which no sweep has to
 * visit: in a layer, all of the weights. */
static inline int all_leaves(const fg_tape *t, fg_id first, fg_id end)
{
    const uint8_t *op = t->op + first, *const last = t->op + end;
    uint64_t any = 0;
    for (; last - op >= BYTES; op += BYTES)
        any |= eight_ops(op);
    while (op < last)
        any |= *op++;
    return any == FG_LEAF || all_frozen_or_leaves(t->op + first, end - first);
}

#endif
