/* RMSNorm of a few rows, with a SiLU gate before or after it (model/ops/gated_rmsnorm has the meaning). */
#include "_native.h"

/* x and gate (rows, d): a row begins `*_row` elements after the one before; gate may be null. weight (d).
   y (rows, d) is written. */
void row_norm(size rows, size d, size group, const float *x, size x_row, const float *gate, size gate_row,
              const float *weight, float eps, int norm_before_gate, float *y, int threads)
{
    size groups = d / group;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * d > 32768)
    for (size i = 0; i < rows * groups; i++) {
        size row = i / groups, first = i % groups * group;
        const float *x_now = x + row * x_row + first, *opening = gate ? gate + row * gate_row + first : 0;
        const float *scale = weight + first;
        float *out = y + row * d + first, squares = 0.0f;
        if (opening && !norm_before_gate) {
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
        float inverse = 1.0f / sqrtf(squares / (float)group + eps);
        if (opening && norm_before_gate) {
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
