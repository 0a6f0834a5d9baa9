/* draws.h: numbers that a program is called with and that are drawn at random, in the order in which its function draws
 * them.
 *
 * It promises that each number takes one draw of 64 bits, whatever its distribution. So what is drawn in one go has the
 * numbers that single draws have, one after the other. Where the bits come from is the caller's: a state, and functions
 * of it, such as those of NumPy's generators.
 */
#ifndef FG_DRAWS_H
#define FG_DRAWS_H

#include "base.h"

enum {
    FG_DRAW_UNIFORM,   /* a + b * u, where u is from 0 to before 1 */
    FG_DRAW_NORMAL,    /* a + b * z, where z is of the standard normal distribution */
    FG_DRAW_THRESHOLD, /* b where u < a, and c elsewhere */
    FG_DRAW_TIMES      /* the entries that follow, several times */
};

typedef struct fg_draw {
    int kind;
    int backwards;      /* FG_DRAW_TIMES: the numbers of the first time come last */
    size_t at, count;   /* where the first number goes, and how many there are; each time they go behind each other */
    size_t times;       /* FG_DRAW_TIMES: how often, ... */
    size_t members;     /* ... and how many entries */
    double a, b, c;
    void *state;
    double (*uniform)(void *state);  /* from 0 to before 1 */
    uint64_t (*bits)(void *state);
} fg_draw;

/* Draw all, into `to`. */
void fg_draws_take(const fg_draw *draws, size_t n, double *to);

#endif
