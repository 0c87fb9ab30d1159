/* One position of the convolution (model/ops/causal_conv1d/step.py has the meaning). */
#include "_native.h"

/* x (batch, channels), before (batch, width - 1, channels): a row's first element is `*_row` elements after the one
   before, the rest is contiguous. weight (channels, width); bias (channels) may be null.
   after (batch, width - 1, channels) and y (batch, channels) are written. */
void causal_conv1d_step(size batch, size channels, size width, const float *x, size x_row,
                        const float *before, size before_row, const float *weight, const float *bias,
                        int activate, float *after, float *y, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (batch * channels * width > 32768)
    for (size b = 0; b < batch; b++) {
        const float *x_now = x + b * x_row, *seen = before + b * before_row;
        float *kept = after + b * (width - 1) * channels, *out = y + b * channels;
        for (size c = 0; c < channels; c++)
            out[c] = (bias ? bias[c] : 0.0f) + weight[c * width + width - 1] * x_now[c];
        for (size k = 0; k < width - 1; k++)
            for (size c = 0; c < channels; c++)
                out[c] += weight[c * width + k] * seen[k * channels + c];
        if (activate)
#pragma omp simd
            for (size c = 0; c < channels; c++)
                out[c] = silu(out[c]);
        for (size c = 0; c < (width - 2) * channels; c++)
            kept[c] = seen[channels + c];
        for (size c = 0; c < channels && width > 1; c++)
            kept[(width - 2) * channels + c] = x_now[c];
    }
}
