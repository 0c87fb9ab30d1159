/* What the kernels share: sizes, functions of one number, and memory. */
#ifndef SCALAR_H
#define SCALAR_H
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512") /* loops in whole vectors: GCC takes halves */
#endif
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef long long size;

/* e^x to 2 units in the last place: 2^n e^r with r in +-ln(2) / 2, a polynomial for e^r (Cephes). Unlike expf it becomes
   vector instructions inside a loop. Below -87.3 (1e-38) it is 0, above 88.3 (2e38) infinite. */
static inline float exponential(float exponent)
{
    float x = exponent > 88.3f ? 88.3f : exponent < -87.3f ? -87.3f : exponent; /* NaN stays */
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounded to a whole number */
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float e = 1.9875691500e-4f;
    e = e * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1.0f;
    unsigned bits = (unsigned)((int)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return exponent < -87.3f ? 0.0f : exponent > 88.3f ? INFINITY : e * power;
}

static inline float silu(float x) { return x / (1.0f + exponential(-x)); }

static inline float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); /* above, it is x in fp32 */ }

/* Number of this thread in its team. */
static inline int thread(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* The next `count` floats of a room, from a multiple of 64 bytes on. */
static inline float *take(float **room, size count)
{
    float *taken = *room;
    *room += (count + 15) / 16 * 16;
    return taken;
}

#endif
