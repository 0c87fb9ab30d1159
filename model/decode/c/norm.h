/* RMSNorm of a few rows, with a SiLU gate before or after it (model/ops/gated_rmsnorm has the meaning). */
#ifndef NORM_H
#define NORM_H
#include "scalar.h"

struct norm {
    size d, group;        /* channels, and those that are normalised together */
    const float *weight;  /* (d) */
    float eps;
    int norm_before_gate;
};

/* By all threads of a team: x and gate (rows, d) -> y (rows, d). A row begins `*_row` elements after the one before;
   gate may be null. */
static void norm(const struct norm *norm, size rows, const float *x, size x_row, const float *gate, size gate_row,
                 float *y)
{
    size group = norm->group, groups = norm->d / group;
#pragma omp for schedule(static)
    for (size i = 0; i < rows * groups; i++) {
        size row = i / groups, first = i % groups * group;
        const float *x_now = x + row * x_row + first, *opening = gate ? gate + row * gate_row + first : 0;
        const float *scale = norm->weight + first;
        float *out = y + row * norm->d + first, squares = 0.0f;
        if (opening && !norm->norm_before_gate) {
#pragma omp simd reduction(+ : squares)
            for (size c = 0; c < group; c++) {
                out[c] = x_now[c] * silu(opening[c]);
                squares += out[c] * out[c];
            }
        } else {
#pragma omp simd reduction(+ : squares)
            for (size c = 0; c < group; c++) {
                out[c] = x_now[c];
                squares += out[c] * out[c];
            }
        }
        float inverse = 1.0f / sqrtf(squares / (float)group + norm->eps);
        if (opening && norm->norm_before_gate) {
#pragma omp simd
            for (size c = 0; c < group; c++)
                out[c] = out[c] * inverse * scale[c] * silu(opening[c]);
        } else {
#pragma omp simd
            for (size c = 0; c < group; c++)
                out[c] = out[c] * inverse * scale[c];
        }
    }
}

#endif
