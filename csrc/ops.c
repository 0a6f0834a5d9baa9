/* ops.c: the descriptive half of ops.def as a table, the formulas as text, and a row that is known only when it runs. */
#include "ops.h"

#define NO_ROW FG_NO_ROW, 0, NAN, "", ""

const fg_op_info fg_op_table[FG_OPS] = {
    [FG_LEAF] = {"LEAF", "", "", "", "", "a value with no operands", "", 0, 0, FG_NO_ROW, 1, NAN, "", ""},
#define FG_UNARY(ID, name, kind, fused, symbol, ufuncs, forward, dx, status, domain, formula, edge) \
    [FG_##ID] = {#ID, #name, "x", symbol, domain, formula, edge, 1, 1, kind, fused, NAN, ufuncs, #forward},
#include "ops.def"
#define FG_BINARY(ID, name, operands, kind, second, symbol, ufuncs, parents, forward, dx, dy, status, domain, \
                  formula, edge)                                                                              \
    [FG_##ID] = {#ID, #name, operands, symbol, domain, formula, edge, 2, parents, kind, 0, second, ufuncs, #forward},
#include "ops.def"
#define FG_TERNARY(ID, name, operands, kind, symbol, forward, dx, dy, dw, status, domain, formula, edge) \
    [FG_##ID] = {#ID, #name, operands, symbol, domain, formula, edge, 3, 3, kind, 0, NAN, "", #forward},
#include "ops.def"
    [FG_CUSTOM] = {"CUSTOM", "", "", "", "", "a node that the user made", "", -1, -1, NO_ROW},
    [FG_LOCAL] = {"LOCAL", "", "", "", "", "a node with given partial derivatives", "", -1, -1, NO_ROW},
#define FG_BLOCK(ID, name, steps, symbol, formula, edge) \
    [FG_##ID] = {#ID, #name, "", symbol, "", formula, edge, -1, -1, NO_ROW},
#include "ops.def"
    [FG_RUN] = {"RUN", "", "", "", "", "the leaves of a tensor", "", -1, -1, NO_ROW},
    [FG_PART] = {"PART", "", "", "", "", "one of the results of an instruction", "", -1, -1, NO_ROW},
    [FG_FROZEN] = {"FROZEN", "", "", "", "", "a leaf that takes no gradient", "", 0, 0, NO_ROW},
};

const uint8_t fg_op_rows[] = {
#define FG_UNARY(ID, ...) FG_##ID,
#define FG_BINARY(ID, ...) FG_##ID,
#define FG_TERNARY(ID, ...) FG_##ID,
#include "ops.def"
    0,
};

#define TEXT(x) #x
#define TEXT_OF(macro) TEXT(macro)

const fg_formula fg_formulas[] = {
#define FG_CONSTANT(name, comment) {#name, "", comment, TEXT_OF(name), ""},
#define FG_FORMULA(name, parameters, comment, ...) {#name, #parameters, comment, #__VA_ARGS__, ""},
#define FG_VARIANT(condition, name, parameters, comment, ...) {#name, #parameters, comment, #__VA_ARGS__, condition},
#include "formulas.def"
    {NULL, NULL, NULL, NULL, NULL},
};

int fg_op_compute(int op, const double *x, int32_t k, double *out)
{
    const int arity = fg_op_table[op].arity;
    return arity == 1   ? fg_op_unary(op, x[0], k, out)
           : arity == 2 ? fg_op_binary(op, x[0], x[1], out)
                        : fg_op_ternary(op, x[0], x[1], x[2], out);
}
