/* One position of the SSD: each head's state is read and written once (model/ops/ssd/step.py has the meaning). */
#include "_native.h"

/* x (batch, nheads, headdim), dt (batch, nheads), B and C (batch, ngroups, dstate): a row's first element is `*_row`
   elements after the one before, the rest is contiguous. A, D, dt_bias (nheads); D and dt_bias may be null.
   state (batch, nheads, headdim, dstate), overwritten; y (batch, nheads, headdim). */
void ssd_step(size batch, size nheads, size headdim, size ngroups, size dstate,
              const float *x, size x_row, const float *dt, size dt_row, const float *A,
              const float *B, size B_row, const float *C, size C_row, const float *D, const float *dt_bias,
              int softplus, float dt_min, float dt_max, float *state, float *y, int threads)
{
    size heads = batch * nheads;
#pragma omp parallel for num_threads(threads) schedule(static) if (heads * headdim * dstate > 32768)
    for (size i = 0; i < heads; i++) {
        size b = i / nheads, h = i % nheads, g = h / (nheads / ngroups);
        float step = dt[b * dt_row + h] + (dt_bias ? dt_bias[h] : 0.0f);
        if (softplus && step <= 20.0f) /* above, it is the identity in fp32 */
            step = log1pf(expf(step));
        step = step < dt_min ? dt_min : step > dt_max ? dt_max : step; /* NaN stays */
        const float *B_now = B + b * B_row + g * dstate, *C_now = C + b * C_row + g * dstate;
        const float *x_now = x + b * x_row + h * headdim;
        float decay = expf(step * A[h]), skip = D ? D[h] : 0.0f;
        for (size p = 0; p < headdim; p++) {
            float *row = state + (i * headdim + p) * dstate;
            float update = x_now[p] * step, sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (size n = 0; n < dstate; n++) {
                row[n] = row[n] * decay + update * B_now[n];
                sum += row[n] * C_now[n];
            }
            y[i * headdim + p] = sum + skip * x_now[p];
        }
    }
}
