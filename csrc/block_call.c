/* block_call.c: FG_CALL, whose steps are those of its callee. z is (1, n). That there is a view for each of the
 * callee's segments, and as many results as it has, is not checked here. */
#include "block_steps.h"

static fg_callee *callee_of(const step *s)
{
    return s->slots->programs[s->r->param].callee;
}

int fg_call_fits(int op, fg_record *r)
{
    (void)op;
    return r->rows == 1 && r->extra == 0;
}

int fg_call_forward(step *s, double *z)
{
    return callee_of(s)->steps->forward(callee_of(s), s->slots, s->r, z);
}

int fg_call_reverse(step *s, const double *z, const double *dz)
{
    (void)z, (void)dz;
    return callee_of(s)->steps->reverse(callee_of(s), s->slots, s->r, s->of.first, NULL);
}

int fg_call_reverse_reached(step *s, const double *z, const double *dz)
{
    (void)z, (void)dz;
    return callee_of(s)->steps->reverse(callee_of(s), s->slots, s->r, s->of.first, s->of.reached);
}
