/* ops.c: the descriptive half of ops.def as a table. */
#include "ops.h"

const fg_op_info fg_op_table[FG_OPS] = {
    [FG_LEAF] = {"LEAF", "", "", "", "", "a value with no operands", "", 0, 0, 0},
#define FG_UNARY(ID, name, public, symbol, forward, dx, status, domain, formula, edge) \
    [FG_##ID] = {#ID, #name, "x", symbol, domain, formula, edge, 1, 1, public},
#include "ops.def"
#define FG_BINARY(ID, name, public, symbol, parents, forward, dx, dy, status, domain, formula, edge) \
    [FG_##ID] = {#ID, #name, "x, y", symbol, domain, formula, edge, 2, parents, public},
#include "ops.def"
#define FG_TERNARY(ID, name, operands, public, symbol, forward, dx, dy, dw, status, domain, formula, edge) \
    [FG_##ID] = {#ID, #name, operands, symbol, domain, formula, edge, 3, 3, public},
#include "ops.def"
    [FG_CUSTOM] = {"CUSTOM", "", "", "", "", "a node that the user made", "", -1, -1, 0},
    [FG_LOCAL] = {"LOCAL", "", "", "", "", "a node with given partial derivatives", "", -1, -1, 0},
#define FG_BLOCK(ID, name, steps, symbol, formula, edge) \
    [FG_##ID] = {#ID, #name, "", symbol, "", formula, edge, -1, -1, 0},
#include "ops.def"
    [FG_RUN] = {"RUN", "", "", "", "", "the leaves of a tensor", "", -1, -1, 0},
    [FG_PART] = {"PART", "", "", "", "", "one of the results of an instruction", "", -1, -1, 0},
    [FG_FROZEN] = {"FROZEN", "", "", "", "", "a leaf that takes no gradient", "", 0, 0, 0},
};
