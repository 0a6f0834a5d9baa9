# curvature.pxi: Steps and changes of the gradient, of which L-BFGS makes its direction.
#
# The last pairs lie in the rows of two arrays, a ring: pair k is in row (first + k) % rows. One row is always free, so
# that a pair can be looked at before the oldest one goes.
#
# Uses tape.

def _lbfgs_pair(double[:, ::1] changes not None, double[:, ::1] steps not None, Py_ssize_t row,
                const double[::1] gradient not None, const double[::1] before not None,
                const double[::1] direction not None, double t):
    """Write a pair into a row: y, the gradient less the one before, and s, t times the direction. Returns y.s, y.y."""
    cdef Py_ssize_t n = gradient.shape[0], i
    if (not 0 <= row < changes.shape[0] or steps.shape[0] != changes.shape[0] or before.shape[0] != n
            or direction.shape[0] != n or changes.shape[1] != n or steps.shape[1] != n):
        raise ValueError("expected arrays that fit each other")
    if n == 0:
        return 0.0, 0.0
    cdef double *y = &changes[row, 0]
    cdef double *s = &steps[row, 0]
    for i in range(n):
        y[i] = gradient[i] - before[i]
        s[i] = direction[i] * t
    return tape.kernels.dot(n, y, s), tape.kernels.dot(n, y, y)


def _lbfgs_direction(const double[:, ::1] changes not None, const double[:, ::1] steps not None,
                     const double[::1] ro not None, Py_ssize_t first, Py_ssize_t count, double scale,
                     const double[::1] gradient not None, double[::1] direction not None, double[::1] work not None):
    """direction = -H gradient, with H of so many pairs from the row `first` on: the two loops of J. Nocedal, "Updating
    quasi-Newton matrices with limited storage", Mathematics of Computation 35, 1980. ro: 1 / y.s of each row; scale: of
    the first H; work: room for a number for each pair."""
    cdef Py_ssize_t n = gradient.shape[0], rows = changes.shape[0], i, k, row
    if (not 0 <= count <= rows or not (0 <= first < rows or count == 0) or work.shape[0] < count
            or steps.shape[0] != rows or ro.shape[0] != rows or changes.shape[1] != n or steps.shape[1] != n
            or direction.shape[0] != n):
        raise ValueError("expected arrays that fit each other")
    if n == 0:
        return
    cdef double *d = &direction[0]
    for i in range(n):
        d[i] = -gradient[i]
    for k in range(count - 1, -1, -1):
        row = (first + k) % rows
        work[k] = tape.kernels.dot(n, &steps[row, 0], d) * ro[row]
        tape.kernels.axpy(n, -work[k], &changes[row, 0], d)
    tape.kernels.scale(n, scale, d)
    for k in range(count):
        row = (first + k) % rows
        tape.kernels.axpy(n, work[k] - tape.kernels.dot(n, &changes[row, 0], d) * ro[row], &steps[row, 0], d)


def _dot_and_largest(const double[::1] x not None, const double[::1] y not None):
    """x.y, and the largest |y|, nan if one is nan."""
    cdef Py_ssize_t n = x.shape[0]
    if y.shape[0] != n:
        raise ValueError("expected arrays that fit each other")
    if n == 0:
        return 0.0, 0.0
    return tape.kernels.dot(n, &x[0], &y[0]), tape.kernels.power_sum(n, &y[0], INFINITY, 1.0)
