/* real.h: the type of numbers in sources that are compiled twice: `real` is double, or float with FG_SINGLE. */
#ifndef FG_REAL_H
#define FG_REAL_H

#ifdef FG_SINGLE
typedef float real;
#else
typedef double real;
#endif

#endif
