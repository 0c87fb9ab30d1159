/* One position of the causal convolution with SiLU (model/ops/causal_conv1d/step.py has the meaning). */
#ifndef CONV_H
#define CONV_H
#include "scalar.h"

#define CHANNELS 512 /* that one thread takes */

/* By all threads of a team: x (rows, channels), a row beginning `x_row` elements after the one before; seen (rows,
   width - 1, channels) the inputs before, brought forward; taps (width, channels); bias (channels) or null;
   y (rows, channels). */
static void conv(size rows, size channels, size width, const float *x, size x_row, float *seen, const float *taps,
                 const float *bias, float *y)
{
    size blocks = (channels + CHANNELS - 1) / CHANNELS, kept = width - 1;
#pragma omp for schedule(static)
    for (size i = 0; i < rows * blocks; i++) {
        size row = i / blocks, first = i % blocks * CHANNELS;
        size count = channels - first < CHANNELS ? channels - first : CHANNELS;
        const float *x_now = x + row * x_row + first, *tap = taps + first;
        float *before = seen + row * kept * channels + first, *out = y + row * channels + first;
        for (size c = 0; c < count; c++)
            out[c] = (bias ? bias[first + c] : 0.0f) + tap[kept * channels + c] * x_now[c];
        for (size k = 0; k < kept; k++)
#pragma omp simd
            for (size c = 0; c < count; c++) {
                float *place = before + k * channels + c;
                out[c] += tap[k * channels + c] * *place;
                *place = k + 1 < kept ? place[channels] : x_now[c];
            }
#pragma omp simd
        for (size c = 0; c < count; c++)
            out[c] = silu(out[c]);
    }
}

#endif
