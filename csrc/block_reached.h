/* block_reached.h: which results of an instruction a sweep has reached. A result is told by its number, row by row.
 */
#ifndef FG_BLOCK_REACHED_H
#define FG_BLOCK_REACHED_H

#include <string.h>

#include "block_matrix.h"

/* The first of the results from k to before `end` that is reached, or with 0 not reached; `end` if there is none. */
static inline fg_id next_result(const outputs *of, fg_id k, fg_id end, unsigned reached)
{
    const uint64_t flip = reached ? 0 : ~(uint64_t)0;
    while (k < end) {
        const fg_id i = of->first + k;
        const uint64_t rest = (of->reached[i >> 6] ^ flip) >> (i & 63u);
        if (rest) {
            k += fg_bits_low(rest);
            return k < end ? k : end;
        }
        k += 64u - (i & 63u);
    }
    return end;
}

/* The reached results from k on, which is one, as a rectangle: part of a row, or whole rows. *end: the result after its
 * last. */
static inline area reached_area(const outputs *of, const fg_record *r, fg_id k, fg_id *end)
{
    const fg_id row = k / r->cols, col = k % r->cols;
    area at = {row, col, 1, r->cols - col};
    *end = next_result(of, k, r->rows * r->cols, 0);
    if (*end <= (row + 1) * r->cols) {
        at.cols = *end - k;
        return at;
    }
    if (col == 0)
        at.rows = (*end - k) / r->cols;
    *end = (row + at.rows) * r->cols;
    return at;
}

/* Which of the n results from k on are reached, up to 64 of them: the lowest bit is result k. */
static inline uint64_t reached_bits(const outputs *of, fg_id k, size_t n)
{
    const fg_id i = of->first + k;
    const unsigned shift = i & 63u;
    uint64_t bits = of->reached[i >> 6] >> shift;
    if (shift && n > 64u - shift)
        bits |= of->reached[(i >> 6) + 1] << (64u - shift);
    return n < 64 ? bits & (((uint64_t)1 << n) - 1u) : bits;
}

/* How many of the results from k to before `end` are reached, and in how many stretches. */
static inline fg_id count_reached(const outputs *of, fg_id k, fg_id end, fg_id *stretches)
{
    fg_id count = 0;
    uint64_t last = 0; /* whether the result before was */
    *stretches = 0;
    for (; k < end; k += 64) {
        const uint64_t bits = reached_bits(of, k, end - k);
        count += fg_bits_count(bits);
        *stretches += fg_bits_count(bits & ~(bits << 1 | last));
        last = bits >> 63;
    }
    return count;
}

/* Numbers of a row whose result is not reached become 0. */
static inline void clear_unreached(const outputs *of, fg_id k, fg_id n, double *row)
{
    for (fg_id j = 0; j < n; j += 64) {
        const fg_id m = n - j < 64 ? n - j : 64;
        uint64_t bits = reached_bits(of, k + j, m) ^ ~(uint64_t)0 >> (64 - m);
        for (; bits; bits &= bits - 1u)
            row[j + fg_bits_low(bits)] = 0.0;
    }
}

/* The results' rows and columns that have one that is reached, in order. `all`: how many results those rows and
 * columns have in common; `count`: how many of these are reached. */
typedef struct reached {
    fg_id *rows, *cols; /* in scratch memory */
    fg_id n_rows, n_cols;
    uint64_t all, count;
} reached;

/* Scratch memory for it, in doubles. */
static inline size_t reached_need(const fg_record *r)
{
    return ((size_t)r->rows + 2u * (size_t)r->cols) / 2u + 2u;
}

static inline reached find_reached(const outputs *of, const fg_record *r, double **scratch)
{
    reached found = {(fg_id *)(void *)take(scratch, reached_need(r)), NULL, 0, 0, 0, 0};
    found.cols = found.rows + r->rows;
    uint8_t *const seen = (uint8_t *)(void *)(found.cols + r->cols);
    memset(seen, 0, r->cols);
    for (fg_id row = 0; row < r->rows; row++) {
        fg_id count = 0;
        for (fg_id j = 0; j < r->cols; j += 64) {
            const fg_id m = r->cols - j < 64 ? r->cols - j : 64;
            uint64_t bits = reached_bits(of, row * r->cols + j, m);
            count += fg_bits_count(bits);
            if (bits == ~(uint64_t)0 >> (64 - m))
                memset(seen + j, 1, m);
            else
                for (; bits; bits &= bits - 1u)
                    seen[j + fg_bits_low(bits)] = 1;
        }
        if (count > 0)
            found.rows[found.n_rows++] = row;
        found.count += count;
    }
    for (fg_id col = 0; col < r->cols; col++)
        if (seen[col])
            found.cols[found.n_cols++] = col;
    found.all = (uint64_t)found.n_rows * found.n_cols;
    return found;
}

#endif
