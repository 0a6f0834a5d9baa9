/* written_rows.c: see written.h, of which this has the rule of every row of ops.def, as nodes: of a scalar node, and
 * element by element of an FG_MAP. They compute what the columns dx, dy and dw say, in that order, by rows that have no
 * errors where the row itself has none; so they are equal to the derivatives of sweep.c, and can be differentiated
 * again. A derivative that is 0 everywhere is left out.
 *
 * C does not say which of two arguments is computed first, so of the operands of a node at most one is a node that is
 * written for it there and then: so the order of nodes is the same with every compiler. */
#include "written.h"

static fg_term number(fg_writing *w, double x)
{
    return fg_write_number(w, x);
}

static fg_term unary(fg_writing *w, int op, fg_term x)
{
    return fg_write_unary(w, op, x);
}

static fg_term binary(fg_writing *w, int op, fg_term x, fg_term y)
{
    return fg_write_binary(w, op, x, y);
}

static fg_term ternary(fg_writing *w, int op, fg_term x, fg_term y, fg_term z)
{
    return fg_write_ternary(w, op, x, y, z);
}

static fg_term times(fg_writing *w, fg_term x, fg_term y)
{
    return binary(w, FG_MUL, x, y);
}

static fg_term scaled(fg_writing *w, double factor, fg_term x)
{
    return times(w, number(w, factor), x);
}

static fg_term sum(fg_writing *w, fg_term x, fg_term y)
{
    return binary(w, FG_ADD, x, y);
}

static fg_term difference(fg_writing *w, fg_term x, fg_term y)
{
    return binary(w, FG_SUB, x, y);
}

static fg_term negated(fg_writing *w, fg_term x)
{
    return unary(w, FG_NEG, x);
}

static fg_term squared(fg_writing *w, fg_term x)
{
    return times(w, x, x);
}

/* 1 - x */
static fg_term rest(fg_writing *w, fg_term x)
{
    return difference(w, number(w, 1.0), x);
}

/* x where `condition`, else 0; and the reverse. */
static fg_term where(fg_writing *w, fg_term condition, fg_term x)
{
    return ternary(w, FG_WHERE, condition, x, number(w, 0.0));
}

static fg_term where_not(fg_writing *w, fg_term condition, fg_term x)
{
    return ternary(w, FG_WHERE, condition, number(w, 0.0), x);
}

/* x > 0 */
static fg_term positive(fg_writing *w, fg_term x)
{
    return binary(w, FG_LESS, number(w, 0.0), x);
}

/* k * x**(k - 1) * g; an integer power of an x whose next power is finite has no error. */
static fg_term integer_power(fg_writing *w, fg_term x, int32_t k, fg_term g)
{
    if (k == 1)
        return g;
    if (k == 2)
        return times(w, sum(w, x, x), g);
    if (k < 0) {
        const fg_term exponent = number(w, (double)k);
        return times(w, ternary(w, FG_POWER_SLOPE, x, exponent, number(w, 1.0)), g);
    }
    const int32_t less = k - 1;
    const fg_term power = k == 0 ? x : k == 3 ? squared(w, x) : fg_write_row(w, FG_POWI, less, &x);
    return times(w, k == 0 ? number(w, 0.0) : scaled(w, (double)k, power), g);
}

/* fg_d2gelu, fg_d2gelu_tanh and fg_d2silu */
static fg_term gelu_bend(fg_writing *w, fg_term x)
{
    const fg_term exponent = times(w, scaled(w, -0.5, x), x);
    const fg_term density = scaled(w, FG_DENSITY, unary(w, FG_EXP, exponent));
    const fg_term twice = sum(w, density, density);
    return difference(w, twice, times(w, x, times(w, x, density)));
}

static fg_term gelu_tanh_bend(fg_writing *w, fg_term x)
{
    const fg_term square = squared(w, x);
    const fg_term du = sum(w, number(w, 2.0 * FG_SQRT_2_PI), scaled(w, 6.0 * FG_SQRT_2_PI * FG_GELU_CUBE, square));
    const fg_term cubic = times(w, x, sum(w, number(w, 1.0), scaled(w, FG_GELU_CUBE, square)));
    const fg_term u = scaled(w, 2.0 * FG_SQRT_2_PI, cubic);
    const fg_term b = sum(w, number(w, 4.0 * FG_SQRT_2_PI), scaled(w, 24.0 * FG_SQRT_2_PI * FG_GELU_CUBE, square));
    const fg_term across = times(w, x, unary(w, FG_TANH, scaled(w, 0.5, u)));
    const fg_term slope = unary(w, FG_LOGISTIC_DENSITY, u), away = times(w, across, squared(w, du));
    return times(w, slope, difference(w, b, away));
}

static fg_term silu_bend(fg_writing *w, fg_term x)
{
    const fg_term slope = unary(w, FG_LOGISTIC_DENSITY, x), t = unary(w, FG_TANH, scaled(w, 0.5, x));
    const fg_term across = times(w, x, t);
    return times(w, slope, difference(w, number(w, 2.0), across));
}

/* ---- powers: the orders of derivatives are constants, mostly one for all ---- */

static double first_order(const fg_writing *w, const fg_term *order)
{
    return w->status == FG_OK ? w->t->data[fg_term_slot(order, 0, 0)] : 0.0;
}

static fg_term higher_order(fg_writing *w, fg_term order)
{
    return fg_term_is_single(&order) ? number(w, first_order(w, &order) + 1.0) : sum(w, order, number(w, 1.0));
}

/* fg_power_slope_dy: factors * x**(y - order) by y. */
static fg_term power_slope_by_y(fg_writing *w, fg_term x, fg_term y, fg_term order)
{
    const int single = fg_term_is_single(&order);
    const fg_term one = number(w, 1.0), y_less = difference(w, y, order);
    fg_term factors = one, slope = one;
    double most = 0.0; /* of orders: 1024, as in fg_power_slope */
    for (fg_id i = 0; i < order.view.rows && w->status == FG_OK; i++)
        for (fg_id j = 0; j < order.view.cols; j++)
            most = fmax(most, w->t->data[fg_term_slot(&order, i, j)]);
    for (double i = 0.0; i < most && i < 1024.0; i++) {
        fg_term factor = i == 0.0 ? y : difference(w, y, number(w, i));
        fg_term more = factors;
        if (!single) {
            const fg_term has = binary(w, FG_LESS, number(w, i), order);
            factor = ternary(w, FG_WHERE, has, factor, one);
            more = where(w, has, factors);
        }
        slope = i == 0.0 ? more : sum(w, times(w, slope, factor), more);
        factors = times(w, factors, factor);
    }
    const fg_term by_power = times(w, factors, ternary(w, FG_POWER_LOG, x, y_less, one));
    if (most == 0.0)
        return by_power;
    fg_term by_factors = times(w, slope, ternary(w, FG_POWER_SLOPE, x, y_less, number(w, 0.0)));
    if (!single)
        by_factors = where(w, binary(w, FG_LESS, number(w, 0.0), order), by_factors);
    return sum(w, by_factors, by_power);
}

/* fg_power_log_dx */
static fg_term power_log_by_x(fg_writing *w, fg_term x, fg_term y, fg_term order)
{
    const int single = fg_term_is_single(&order);
    const double first = first_order(w, &order);
    const fg_term one = number(w, 1.0), y_less = difference(w, y, one);
    const fg_term by_power = times(w, y, ternary(w, FG_POWER_LOG, x, y_less, order));
    fg_term by_log = x;
    if (!single || first == 1.0)
        by_log = ternary(w, FG_POWER_SLOPE, x, y_less, number(w, 0.0));
    if (!single || first != 1.0) {
        const fg_term lower = single ? number(w, first - 1.0) : difference(w, order, one);
        const fg_term power = ternary(w, FG_POWER_LOG, x, y_less, lower);
        by_log = single ? power : ternary(w, FG_WHERE, binary(w, FG_EQUAL, order, one), by_log, power);
    }
    return sum(w, by_power, times(w, single ? number(w, first) : order, by_log));
}

/* ---- rows with several operands of which all have derivatives ---- */

static void divide(fg_writing *w, int op, const fg_term *x, fg_term z, fg_term g, const int *wanted, fg_term *d)
{
    if (wanted[0])
        d[0] = binary(w, op, g, x[1]);
    if (wanted[1])
        d[1] = times(w, negated(w, binary(w, op, z, x[1])), g);
}

static void clip(fg_writing *w, const fg_term *x, fg_term g, const int *wanted, fg_term *d)
{
    if (wanted[0]) {
        const fg_term above = binary(w, FG_LESS_EQUAL, x[1], x[0]);
        d[0] = where(w, times(w, above, binary(w, FG_LESS_EQUAL, x[0], x[2])), g);
    }
    if (wanted[1]) {
        const fg_term below = binary(w, FG_LESS, x[0], x[1]);
        d[1] = where(w, times(w, below, binary(w, FG_LESS, x[1], x[2])), g);
    }
    if (wanted[2]) {
        const fg_term above = binary(w, FG_LESS, x[2], x[0]);
        d[2] = where(w, sum(w, above, binary(w, FG_LESS, x[2], x[1])), g);
    }
}

static void huber(fg_writing *w, const fg_term *x, fg_term g, const int *wanted, fg_term *d)
{
    const fg_term error = difference(w, x[0], x[1]);
    if (wanted[0] || wanted[1]) {
        const fg_term lowest = negated(w, x[2]);
        d[0] = times(w, ternary(w, FG_CLIP, error, lowest, x[2]), g);
    }
    if (wanted[1])
        d[1] = negated(w, d[0]);
    if (wanted[2]) {
        const fg_term size = unary(w, FG_ABS, error), inside = binary(w, FG_LESS_EQUAL, size, x[2]);
        d[2] = times(w, where_not(w, inside, difference(w, size, x[2])), g);
    }
}

static void weighted_bce(fg_writing *w, const fg_term *x, fg_term g, const int *wanted, fg_term *d)
{
    fg_term below = x[0], log_sigmoid = x[0]; /* -x, and minus the logarithm of sigmoid(x) */
    if (wanted[0])
        d[0] = times(w, ternary(w, FG_WEIGHTED_BCE_SLOPE, x[0], x[1], x[2]), g);
    if (wanted[1] || wanted[2]) {
        below = negated(w, x[0]);
        log_sigmoid = unary(w, FG_SOFTPLUS, below);
    }
    if (wanted[1]) {
        const fg_term more = difference(w, x[2], number(w, 1.0));
        d[1] = times(w, sum(w, below, times(w, more, log_sigmoid)), g);
    }
    if (wanted[2])
        d[2] = times(w, times(w, x[1], log_sigmoid), g);
}

static void weighted_bce_slope(fg_writing *w, const fg_term *x, fg_term g, const int *wanted, fg_term *d)
{
    fg_term other = x[0];
    if (wanted[0]) {
        const fg_term one = number(w, 1.0);
        const fg_term share = sum(w, one, times(w, difference(w, x[2], one), x[1]));
        d[0] = times(w, times(w, share, unary(w, FG_LOGISTIC_DENSITY, x[0])), g);
    }
    if (wanted[1] || wanted[2])
        other = unary(w, FG_SIGMOID, negated(w, x[0]));
    if (wanted[1]) {
        const fg_term s = unary(w, FG_SIGMOID, x[0]);
        d[1] = times(w, negated(w, sum(w, s, times(w, x[2], other))), g);
    }
    if (wanted[2])
        d[2] = times(w, negated(w, times(w, x[1], other)), g);
}

void fg_write_rule(fg_writing *w, int op, int32_t k, const fg_term *x, fg_term z, fg_term g, const int *wanted,
                   fg_term *d)
{
    switch ((fg_op)op) {
    case FG_COPY:
        d[0] = g;
        break;
    case FG_NEG:
        d[0] = negated(w, g);
        break;
    case FG_POWI:
        d[0] = integer_power(w, x[0], k, g);
        break;
    case FG_EXP:
        d[0] = times(w, z, g);
        break;
    case FG_LOG: /* x > 0, so no error */
        d[0] = binary(w, FG_DIV, g, x[0]);
        break;
    case FG_LOG1P:
        d[0] = binary(w, FG_DIV, g, sum(w, number(w, 1.0), x[0]));
        break;
    case FG_EXPM1:
        d[0] = times(w, sum(w, z, number(w, 1.0)), g);
        break;
    case FG_SQRT:
        d[0] = binary(w, FG_QUOTIENT, g, sum(w, z, z));
        break;
    case FG_SIN:
        d[0] = times(w, unary(w, FG_COS, x[0]), g);
        break;
    case FG_COS:
        d[0] = times(w, negated(w, unary(w, FG_SIN, x[0])), g);
        break;
    case FG_TAN: {
        const fg_term square = squared(w, z);
        d[0] = times(w, sum(w, number(w, 1.0), square), g);
        break;
    }
    case FG_SINH:
        d[0] = times(w, unary(w, FG_COSH, x[0]), g);
        break;
    case FG_COSH:
        d[0] = times(w, unary(w, FG_SINH, x[0]), g);
        break;
    case FG_ERF: {
        const fg_term exponent = times(w, negated(w, x[0]), x[0]);
        d[0] = times(w, scaled(w, 2.0 * FG_SQRT_1_PI, unary(w, FG_EXP, exponent)), g);
        break;
    }
    case FG_ABS:
        d[0] = times(w, unary(w, FG_SIGN, x[0]), g);
        break;
    case FG_RELU:
        d[0] = binary(w, FG_GATE, z, g);
        break;
    case FG_LEAKY_RELU: {
        const fg_term is_positive = positive(w, x[0]);
        if (wanted[0])
            d[0] = times(w, ternary(w, FG_WHERE, is_positive, number(w, 1.0), x[1]), g);
        if (wanted[1])
            d[1] = times(w, where_not(w, is_positive, x[0]), g);
        break;
    }
    case FG_ELU:
        if (wanted[0])
            d[0] = times(w, ternary(w, FG_ELU_SLOPE, x[0], x[1], number(w, 1.0)), g);
        if (wanted[1]) {
            const fg_term of_one = binary(w, FG_ELU, x[0], number(w, 1.0)), is_positive = positive(w, x[0]);
            d[1] = times(w, where_not(w, is_positive, of_one), g);
        }
        break;
    case FG_GELU:
        d[0] = times(w, unary(w, FG_GELU_SLOPE, x[0]), g);
        break;
    case FG_GELU_TANH:
        d[0] = times(w, unary(w, FG_GELU_TANH_SLOPE, x[0]), g);
        break;
    case FG_SILU:
        d[0] = times(w, unary(w, FG_SILU_SLOPE, x[0]), g);
        break;
    case FG_SOFTPLUS:
        d[0] = times(w, unary(w, FG_SIGMOID, x[0]), g);
        break;
    case FG_TANH:
        d[0] = binary(w, FG_TANH_SLOPE, z, g);
        break;
    case FG_SIGMOID:
        d[0] = binary(w, FG_SIGMOID_SLOPE, z, g);
        break;
    case FG_ADD:
        d[0] = d[1] = g;
        break;
    case FG_SUB:
        d[0] = g;
        if (wanted[1])
            d[1] = negated(w, g);
        break;
    case FG_MUL:
        if (wanted[0])
            d[0] = times(w, x[1], g);
        if (wanted[1])
            d[1] = times(w, x[0], g);
        break;
    case FG_DIV: /* y is not 0, so no error */
    case FG_QUOTIENT:
        divide(w, op, x, z, g, wanted, d);
        break;
    case FG_POW:
    case FG_POWC:
        if (wanted[0])
            d[0] = times(w, ternary(w, FG_POWER_SLOPE, x[0], x[1], number(w, 1.0)), g);
        if (wanted[1] && op == FG_POW)
            d[1] = times(w, ternary(w, FG_POWER_LOG, x[0], x[1], number(w, 1.0)), g);
        break;
    case FG_MAXIMUM:
    case FG_MINIMUM: {
        const int low = op == FG_MINIMUM;
        if (wanted[0])
            d[0] = ternary(w, FG_SHARE, x[low], x[1 - low], g);
        if (wanted[1])
            d[1] = ternary(w, FG_SHARE, x[1 - low], x[low], g);
        break;
    }
    case FG_ATAN2:
        if (wanted[0])
            d[0] = times(w, binary(w, FG_ANGLE_SLOPE, x[1], x[0]), g);
        if (wanted[1])
            d[1] = times(w, negated(w, binary(w, FG_ANGLE_SLOPE, x[0], x[1])), g);
        break;
    case FG_SQUARED_ERROR: {
        const fg_term error = difference(w, x[0], x[1]);
        d[0] = times(w, sum(w, error, error), g);
        if (wanted[1])
            d[1] = negated(w, d[0]);
        break;
    }
    case FG_HINGE: {
        const fg_term against = negated(w, binary(w, FG_GATE, z, g));
        if (wanted[0])
            d[0] = times(w, against, x[1]);
        if (wanted[1])
            d[1] = times(w, against, x[0]);
        break;
    }
    case FG_ABSOLUTE_ERROR:
        d[0] = times(w, unary(w, FG_SIGN, difference(w, x[0], x[1])), g);
        if (wanted[1])
            d[1] = negated(w, d[0]);
        break;
    case FG_BINARY_CROSS_ENTROPY:
        if (wanted[0]) {
            const fg_term variance = times(w, rest(w, x[0]), x[0]), error = difference(w, x[0], x[1]);
            const fg_term bounded = binary(w, FG_MAXIMUM, variance, number(w, (double)1e-12f));
            d[0] = times(w, binary(w, FG_DIV, error, bounded), g);
        }
        if (wanted[1])
            d[1] = times(w, negated(w, unary(w, FG_LOGIT, x[0])), g);
        break;
    case FG_BCE_WITH_LOGITS:
        if (wanted[0])
            d[0] = times(w, binary(w, FG_BCE_SLOPE, x[0], x[1]), g);
        if (wanted[1])
            d[1] = negated(w, times(w, x[0], g));
        break;
    case FG_KL_DIV:
        if (wanted[0])
            d[0] = negated(w, times(w, x[1], g));
        if (wanted[1]) {
            const fg_term log = unary(w, FG_LOGARITHM, x[1]);
            const fg_term whole = sum(w, log, binary(w, FG_QUOTIENT, x[1], x[1]));
            d[1] = times(w, difference(w, whole, x[0]), g);
        }
        break;
    case FG_KL_DIV_LOG: {
        const fg_term y = unary(w, FG_EXP, x[1]);
        if (wanted[0])
            d[0] = negated(w, times(w, y, g));
        if (wanted[1])
            d[1] = times(w, sum(w, z, y), g);
        break;
    }
    case FG_WHERE:
        if (wanted[1])
            d[1] = where(w, x[0], g);
        if (wanted[2])
            d[2] = where_not(w, x[0], g);
        break;
    case FG_CLIP:
        clip(w, x, g, wanted, d);
        break;
    case FG_HUBER:
        huber(w, x, g, wanted, d);
        break;
    case FG_WEIGHTED_BCE_WITH_LOGITS:
        weighted_bce(w, x, g, wanted, d);
        break;

    case FG_LOGARITHM:
        d[0] = binary(w, FG_QUOTIENT, g, x[0]);
        break;
    case FG_LOGIT:
        d[0] = binary(w, FG_QUOTIENT, g, times(w, x[0], rest(w, x[0])));
        break;
    case FG_LOGISTIC_DENSITY: {
        const fg_term t = unary(w, FG_TANH, scaled(w, 0.5, x[0]));
        d[0] = times(w, times(w, negated(w, t), z), g);
        break;
    }
    case FG_GELU_SLOPE:
        d[0] = times(w, gelu_bend(w, x[0]), g);
        break;
    case FG_GELU_TANH_SLOPE:
        d[0] = times(w, gelu_tanh_bend(w, x[0]), g);
        break;
    case FG_SILU_SLOPE:
        d[0] = times(w, silu_bend(w, x[0]), g);
        break;
    case FG_GATE:
        if (wanted[1])
            d[1] = binary(w, FG_GATE, x[0], g);
        break;
    case FG_TANH_SLOPE:
        if (wanted[0])
            d[0] = times(w, times(w, scaled(w, -2.0, x[0]), x[1]), g);
        if (wanted[1])
            d[1] = binary(w, FG_TANH_SLOPE, x[0], g);
        break;
    case FG_SIGMOID_SLOPE:
        if (wanted[0])
            d[0] = times(w, times(w, rest(w, sum(w, x[0], x[0])), x[1]), g);
        if (wanted[1])
            d[1] = binary(w, FG_SIGMOID_SLOPE, x[0], g);
        break;
    case FG_ANGLE_SLOPE: {
        const fg_term along = binary(w, FG_ANGLE_SLOPE, x[1], x[0]);
        if (wanted[0]) {
            const fg_term less = difference(w, along, z);
            d[0] = times(w, times(w, less, sum(w, along, z)), g);
        }
        if (wanted[1])
            d[1] = times(w, times(w, scaled(w, -2.0, z), along), g);
        break;
    }
    case FG_BCE_SLOPE:
        if (wanted[0])
            d[0] = times(w, unary(w, FG_LOGISTIC_DENSITY, x[0]), g);
        if (wanted[1])
            d[1] = negated(w, g);
        break;
    case FG_SHARE:
        if (wanted[2])
            d[2] = ternary(w, FG_SHARE, x[0], x[1], g);
        break;
    case FG_ELU_SLOPE:
        if (wanted[0])
            d[0] = times(w, ternary(w, FG_ELU_SLOPE, x[0], x[1], number(w, 0.0)), g);
        if (wanted[1]) {
            const fg_term one = number(w, 1.0);
            d[1] = times(w, ternary(w, FG_ELU_SLOPE, x[0], one, number(w, 0.0)), g);
        }
        if (wanted[2])
            d[2] = binary(w, FG_GATE, x[0], g);
        break;
    case FG_POWER_SLOPE:
        if (wanted[0])
            d[0] = times(w, ternary(w, FG_POWER_SLOPE, x[0], x[1], higher_order(w, x[2])), g);
        if (wanted[1])
            d[1] = times(w, power_slope_by_y(w, x[0], x[1], x[2]), g);
        break;
    case FG_POWER_LOG:
        if (wanted[0])
            d[0] = times(w, power_log_by_x(w, x[0], x[1], x[2]), g);
        if (wanted[1])
            d[1] = times(w, ternary(w, FG_POWER_LOG, x[0], x[1], higher_order(w, x[2])), g);
        break;
    case FG_WEIGHTED_BCE_SLOPE:
        weighted_bce_slope(w, x, g, wanted, d);
        break;

    case FG_FLOOR:
    case FG_SIGN:
    case FG_LESS:
    case FG_LESS_EQUAL:
    case FG_EQUAL:
        break; /* 0 everywhere */

    case FG_LEAF: /* no rows: none of these is asked for */
    case FG_CUSTOM:
    case FG_LOCAL:
#define FG_BLOCK(ID, ...) case FG_##ID:
#include "ops.def"
    case FG_RUN:
    case FG_PART:
    case FG_FROZEN:
    case FG_OPS:
        assert(0 && "fg_write_rule: not a row with a rule");
    }
}
