"""Elementary functions in C that compilers vectorise: those of libm are calls, one number at a time.

They are within 2 units in the last place of libm, for all numbers, in the rounding to nearest; compiled without
``-ffast-math``, by which sums with large constants would lose their meaning. In floats of 32 bits libm's are used.
"""
from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["LOOPS", "OWN", "definitions", "substituted"]

OWN = {"exp": "fg_exp", "log": "fg_log", "log1p": "fg_log1p", "tanh": "fg_tanh"}   # in place of libm's

# Rows whose function is computed for several numbers together, as ``name(n, x, z)``: a large one needs libm.
LOOPS = {"SIN": "fg_sines", "COS": "fg_cosines"}

CALL = re.compile(rf"\b({'|'.join(OWN)})(?=\()")

# Where vectors are short, libm is faster than these.
BY_VECTORS = ("fg_turned_sine", "fg_turned_sines", "fg_are_far", *LOOPS.values())

NEEDS: dict[str, tuple[Any, ...]]
NEEDS = {"fg_exp": ("fg_power_of_two",), "fg_log1p": ("fg_log",), "fg_tanh": ("fg_exp",),
         "fg_turned_sines": ("fg_turned_sine",), "fg_sines": ("fg_turned_sines", "fg_are_far"),
         "fg_cosines": ("fg_turned_sines", "fg_are_far")}

TEXTS = {   # in order of dependence
    "fg_power_of_two": """\
/* 2**n for a whole n from -1022 to 1023: the sum has n + 1023 as its last bits. */
static inline double fg_power_of_two(double n)
{
    const double sum = n + 6755399441056767.0;
    uint64_t bits;
    double z;
    memcpy(&bits, &sum, sizeof bits);
    bits <<= 52;
    memcpy(&z, &bits, sizeof z);
    return z;
}
""",
    "fg_exp": """\
/* exp(x), without branches: 2**n * exp(r), |r| <= log(2) / 2. */
static inline double fg_exp(double x)
{
    const double low = x < -800.0 ? -800.0 : x, y = low > 800.0 ? 800.0 : low;
    const double n = (y * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0;
    const double half = (n * 0.5 + 6755399441055744.0) - 6755399441055744.0;
    const double r = (y - n * 0.6931471803691238) - n * 1.9082149292705877e-10, q = r * r;
    const double even = 0.5 + q * (0.04166666666662399 + q * (0.0013888888917281794
        + q * (2.480152119021773e-05 + q * 2.7620138719733994e-07)));
    const double odd = 0.16666666666666669 + q * (0.008333333333330051 + q * (0.00019841269863105968
        + q * (2.7557268378684192e-06 + q * 2.5100424157005067e-08)));
    return (1.0 + (r + q * (even + r * odd))) * fg_power_of_two(half) * fg_power_of_two(n - half);
}
""",
    "fg_log": """\
/* log(x), without branches: n * log(2) + log(1 + f), 1 + f from sqrt(1/2) to sqrt(2). */
static inline double fg_log(double x)
{
    const double least = 2.2250738585072014e-308, sqrt_half = 0.7071067811865476;
    const double scaled = x < least ? x * 18014398509481984.0 : x;
    uint64_t bits, start, place;
    double m, n;
    memcpy(&bits, &scaled, sizeof bits);
    memcpy(&start, &sqrt_half, sizeof start);
    bits -= start;
    place = ((bits >> 52) & 2047u) | UINT64_C(0x4330000000000000); /* 2**52 + n, modulo 2048 */
    bits = (bits & UINT64_C(0x000fffffffffffff)) + start;
    memcpy(&m, &bits, sizeof m);
    memcpy(&n, &place, sizeof n);
    n -= 4503599627370496.0;
    n = n > 1024.0 ? n - 2048.0 : n;
    n = x < least ? n - 54.0 : n;
    const double f = m - 1.0, s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
    const double p = z * (0.666666666666667 + z * (0.3999999999989889 + z * (0.28571428626253836
        + z * (0.22222211089379493 + z * (0.18182892432537032 + z * (0.15331611722050653
        + z * 0.14617807153462828))))));
    const double y = n * 0.6931471803691238 + (f - (half - (n * 1.9082149292705877e-10 + s * (half + p))));
    const double inside = x > 0.0 ? y : x == 0.0 ? -(double)INFINITY : (double)NAN;
    return x == (double)INFINITY ? x : inside;
}
""",
    "fg_log1p": """\
/* log(1 + x): the logarithm of the sum as it is rounded, and what the rounding has lost. */
static inline double fg_log1p(double x)
{
    const double u = 1.0 + x, lost = fabs(x) < 1.0 ? x - (u - 1.0) : 1.0 - (u - x);
    const double y = fg_log(u), z = u > 0.0 && u < (double)INFINITY ? y + lost / u : y;
    return fabs(x) < 1e-17 ? x : z;
}
""",
    "fg_tanh": """\
/* tanh(x), without branches: a + a**3 P / Q below 0.6, else 1 - 2 / (exp(2 a) + 1), where a is |x|. */
static inline double fg_tanh(double x)
{
    const double a = fabs(x), z = a * a, e = fg_exp(a + a);
    const double p = (-0.9643772634063547 * z - 99.23182241408416) * z - 1613.5334517003944;
    const double q = ((z + 112.75112753490883) * z + 2233.9356092827147) * z + 4840.600355101183;
    const double ratio = (a < 0.6 ? z * p : -2.0) / (a < 0.6 ? q : e + 1.0);
    const double y = a < 0.6 ? a + a * ratio : 1.0 + ratio;
    return x < 0.0 ? -y : x == 0.0 ? x : y;
}
""",
    "fg_turned_sine": """\
/* sin(x + turn * pi / 2) for |x| up to 1e5, without branches. x less n * pi / 2 is a sum: r + rest. */
static inline double fg_turned_sine(double x, double turn)
{
    const double n = (x * 0.6366197723675814 + 6755399441055744.0) - 6755399441055744.0;
    const double less = x - n * 1.5707963267341256, second = n * 6.077100506303966e-11;
    const double near = less - second, third = n * 2.0222662487111665e-21, r = near - third;
    const double rest = ((less - near) - second) + ((near - r) - third) - n * 8.4784276603689e-32;
    const double z = r * r, half = 0.5 * z, top = 1.0 - half;
    const double s = r + (rest * top + r * z * (-0.16666666666666666 + z * (0.008333333333333331
        + z * (-0.00019841269841265017 + z * (2.755731921930192e-06 + z * (-2.5052106219521895e-08
        + z * (1.6058529572267877e-10 + z * -7.586576588171073e-13)))))));
    const double c = top + (((1.0 - top) - half) - r * rest + z * z * (0.041666666666666664
        + z * (-0.0013888888888887382 + z * (2.480158729874307e-05 + z * (-2.7557317260008837e-07
        + z * (2.0876143827993133e-09 + z * -1.1382456778061306e-11))))));
    const double m = n + turn, k = m - 4.0 * ((m * 0.25 + 6755399441055744.0) - 6755399441055744.0);
    const double y = fabs(k) == 1.0 ? c : s;
    return k == -1.0 || fabs(k) == 2.0 ? -y : y;
}
""",
    "fg_turned_sines": """\
static void fg_turned_sines(int n, const double *restrict x, double turn, double *restrict z)
{
    for (int k = 0; k < n; k++)
        z[k] = x[k] == 0.0 && turn == 0.0 ? x[k] : fg_turned_sine(x[k], turn);
}
""",
    "fg_are_far": """\
/* Whether some number is not from -1e5 to 1e5, told from the bits, of which compilers make vectors. */
static inline int fg_are_far(int n, const double *x)
{
    uint64_t far = 0;
    for (int k = 0; k < n; k++) {
        uint64_t bits;
        memcpy(&bits, x + k, sizeof bits);
        far |= (UINT64_C(0x40f86a0000000000) - (bits & UINT64_C(0x7fffffffffffffff))) >> 63;
    }
    return far != 0;
}
""",
    "fg_sines": """\
/* z[k] = sin(x[k]), in another array. If one is far from 0, libm computes them. */
static inline void fg_sines(int n, const double *restrict x, double *restrict z)
{
    const int far = fg_are_far(n, x);
    if (!far)
        fg_turned_sines(n, x, 0.0, z);
    for (int k = 0; far && k < n; k++)
        z[k] = sin(x[k]);
}
""",
    "fg_cosines": """\
/* z[k] = cos(x[k]), in another array. If one is far from 0, libm computes them. */
static inline void fg_cosines(int n, const double *restrict x, double *restrict z)
{
    const int far = fg_are_far(n, x);
    if (!far)
        fg_turned_sines(n, x, 1.0, z);
    for (int k = 0; far && k < n; k++)
        z[k] = cos(x[k]);
}
""",
}


def substituted(text: str) -> str:
    """C text that calls these functions in place of libm's."""
    return CALL.sub(lambda call: OWN[call[1]], text)


def definitions(text: str) -> str:
    """The functions that a C text calls, and those that these call; they need math.h, stdint.h and string.h.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    wanted = [name for name in TEXTS if re.search(rf"\b{name}\(", text)]
    for name in wanted:   # which grows
        wanted += [needed for needed in NEEDS.get(name, ()) if needed not in wanted]
    found = [text for name, text in TEXTS.items() if name in wanted and name not in BY_VECTORS]
    if not set(BY_VECTORS).isdisjoint(wanted):
        found += ["#if defined(__AVX2__) || defined(__aarch64__)\n",
                  *[TEXTS[name] for name in BY_VECTORS if name in wanted], "#else\n",
                  *[libm_loop(op, name) for op, name in LOOPS.items() if name in wanted], "#endif\n"]
    return "\n".join(found)


def libm_loop(op: str, name: str) -> str:
    """A function of LOOPS, by libm."""
    return (f"static inline void {name}(int n, const double *x, double *z)\n{{\n    for (int k = 0; k < n; k++)\n"
            f"        z[k] = {op.lower()}(x[k]);\n}}\n")
