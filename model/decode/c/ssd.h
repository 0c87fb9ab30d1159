/* One position of the SSD: each head's state is read and written once (model/ops/ssd/step.py has the meaning). */
#ifndef SSD_H
#define SSD_H
#include "scalar.h"

struct ssd {
    size nheads, headdim, ngroups, dstate;
    const float *A, *D, *dt_bias;  /* (nheads) */
    float dt_min, dt_max;
};

/* By all threads of a team: x (rows, nheads, headdim), dt (rows, nheads), B and C (rows, ngroups, dstate), each row
   beginning `*_row` elements after the one before; state (rows, nheads, headdim, dstate), brought forward;
   y (rows, nheads, headdim). */
static void ssd(const struct ssd *scan, size rows, const float *x, const float *B, const float *C, size xBC_row,
                const float *dt, size dt_row, float *state, float *y)
{
    size nheads = scan->nheads, headdim = scan->headdim, dstate = scan->dstate;
#pragma omp for schedule(static)
    for (size i = 0; i < rows * nheads; i++) {
        size b = i / nheads, h = i % nheads, g = h / (nheads / scan->ngroups);
        float step = softplus(dt[b * dt_row + h] + scan->dt_bias[h]);
        step = step < scan->dt_min ? scan->dt_min : step > scan->dt_max ? scan->dt_max : step; /* NaN stays */
        const float *B_now = B + b * xBC_row + g * dstate, *C_now = C + b * xBC_row + g * dstate;
        const float *x_now = x + b * xBC_row + h * headdim;
        float decay = expf(step * scan->A[h]);
        for (size p = 0; p < headdim; p++) {
            float *row = state + (i * headdim + p) * dstate;
            float update = x_now[p] * step, sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (size n = 0; n < dstate; n++) {
                row[n] = row[n] * decay + update * B_now[n];
                sum += row[n] * C_now[n];
            }
            y[i * headdim + p] = sum + scan->D[h] * x_now[p];
        }
    }
}

#endif
