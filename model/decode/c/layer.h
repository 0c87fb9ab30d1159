/* What every layer is: a norm, something in between, and a sum with the residual stream. */
#ifndef LAYER_H
#define LAYER_H
#include "linear.h"
#include "norm.h"

#define ALONE 65536 /* multiplications that one thread does sooner than several */

/* By all threads of a team: residual (rows, d) += multiplier * mixed (rows, d). */
static inline void add(size rows, size d, float multiplier, const float *mixed, float *residual)
{
#pragma omp for simd schedule(static)
    for (size i = 0; i < rows * d; i++)
        residual[i] += multiplier * mixed[i];
}

#endif
