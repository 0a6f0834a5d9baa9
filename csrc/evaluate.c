/* evaluate.c: see evaluate.h. */
#include "evaluate.h"

#include <string.h>

void fg_evaluate_for(fg_program *p, const uint8_t *wanted)
{
    uint8_t *const op = p->body.op;
    if (p->area > 0)
        memset(op + 1, FG_FROZEN, p->area);
    for (fg_id k = 0; k < p->callee.n_segments; k++) {
        const fg_stretch s = p->callee.segments[k];
        if (wanted[k])
            memset(op + s.first, FG_LEAF, s.count);
    }
    for (fg_id i = 1; i <= p->area; i++)
        if (op[i] == FG_FROZEN)
            p->used[i >> 6] &= ~((uint64_t)1 << (i & 63u));
}

/* From result k, over gradients of operands that begin at 0. */
static int sweep(fg_program *p, fg_id k)
{
    memset(p->body.grad + 1, 0, p->area * sizeof *p->body.grad);
    return fg_program_sweep(p, k, NULL, 0);
}

int fg_evaluate(fg_program *p, fg_id k, int lenient, double *value)
{
    const int status = fg_program_run(p, lenient);
    if (status != FG_OK)
        return status;
    *value = p->body.data[p->results[k]];
    return sweep(p, k);
}

int fg_evaluate_values(fg_program *p, int lenient, double *values)
{
    const int status = fg_program_run(p, lenient);
    for (fg_id k = 0; status == FG_OK && k < p->callee.n_results; k++)
        values[k] = p->body.data[p->results[k]];
    return status;
}

int fg_evaluate_all(fg_program *p, const uint8_t *wanted, fg_id first, int lenient, double *values, double *table,
                    fg_id *rows)
{
    size_t width = 0;
    int status = *rows > 0 ? FG_OK : fg_evaluate_values(p, lenient, values);
    for (fg_id v = 0; v < p->callee.n_segments; v++)
        width += wanted[v] ? p->callee.segments[v].count : 0;
    for (; status == FG_OK && first + *rows < p->callee.n_results; ++*rows) {
        double *row = table + *rows * width;
        status = sweep(p, first + *rows);
        if (status != FG_OK)
            break;
        for (fg_id v = 0; v < p->callee.n_segments; v++)
            if (wanted[v]) {
                const fg_stretch s = p->callee.segments[v];
                memcpy(row, p->body.grad + s.first, s.count * sizeof *row);
                row += s.count;
            }
    }
    return status;
}
