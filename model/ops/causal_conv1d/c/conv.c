/* The causal depthwise convolution and its activation, a block of positions at a time, both directions in one pass. */
#include "scalar.h"

#define POSITIONS 64 /* of a task; what is summed over positions is summed over each task's first */
#define CHANNELS 512 /* whose numbers stay in the cache */
#define MOST 8       /* taps */

struct conv {
    size batch, seqlen, channels, width;
    const float *x, *taps, *bias;  /* (batch, seqlen, channels), (width, channels), (channels) or null */
    const float *before;           /* (batch, width - 1, channels): the inputs before the first position, or null */
    const int *seq_idx;            /* (batch, seqlen) or null */
    int silu;
};

/* The inputs that the taps of a position meet, the earliest first; null where there is none or another document's. */
static void inputs_at(const struct conv *conv, size b, size t, const float **inputs)
{
    const int *document = conv->seq_idx ? conv->seq_idx + b * conv->seqlen : 0;
    for (size k = 0; k < conv->width; k++) {
        size s = t - (conv->width - 1) + k;
        int same = !document || document[s < 0 ? 0 : s] == document[t];
        if (s >= 0 && same)
            inputs[k] = conv->x + (b * conv->seqlen + s) * conv->channels;
        else if (s < 0 && same && conv->before)
            inputs[k] = conv->before + (b * (conv->width - 1) + s + conv->width - 1) * conv->channels;
        else
            inputs[k] = 0;
    }
}

/* sums (count) of a position, channels from c on. */
static inline void convolve(const struct conv *conv, const float *const *inputs, size c, size count, float *sums)
{
    for (size i = 0; i < count; i++)
        sums[i] = conv->bias ? conv->bias[c + i] : 0.0f;
    for (size k = 0; k < conv->width; k++) {
        if (!inputs[k])
            continue;
        const float *taps = conv->taps + k * conv->channels + c, *x = inputs[k] + c;
        for (size i = 0; i < count; i++)
            sums[i] += taps[i] * x[i];
    }
}

void conv_forward(const struct conv *conv, float *y, int threads)
{
    size blocks = (conv->channels + CHANNELS - 1) / CHANNELS, rows = conv->batch * conv->seqlen;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < blocks * rows; task++) {
        size row = task / blocks, c = task % blocks * CHANNELS;
        size count = conv->channels - c < CHANNELS ? conv->channels - c : CHANNELS;
        const float *inputs[MOST];
        float *out = y + row * conv->channels + c;
        inputs_at(conv, row / conv->seqlen, row % conv->seqlen, inputs);
        convolve(conv, inputs, c, count, out);
        for (size i = 0; conv->silu && i < count; i++)
            out[i] = silu(out[i]);
    }
}

/* One position: g = dy silu'(its sum). */
static inline void through_silu(const struct conv *conv, const float *const *inputs, size c, size count, const float *dy,
                                float *g)
{
    if (!conv->silu) {
        memcpy(g, dy, sizeof(float) * count);
        return;
    }
    convolve(conv, inputs, c, count, g);
    for (size i = 0; i < count; i++) {
        float open = 1.0f / (1.0f + exponential(-g[i]));
        g[i] = dy[i] * open * (1.0f + g[i] * (1.0f - open));
    }
}

/* dx (batch, seqlen, channels), d_before as before or null, parts (batch, tasks of a row, width + 1, channels): sums over
   a task's positions for taps and bias.

   A position's g goes to its own input and to the earlier ones that its taps meet. A task writes its own positions' dx
   alone, so it goes width - 1 positions further, into the next one's. */
void conv_backward(const struct conv *conv, const float *dy, float *dx, float *d_before, float *parts, int threads)
{
    size channels = conv->channels, width = conv->width, tiles = (conv->seqlen + POSITIONS - 1) / POSITIONS;
    size blocks = (channels + CHANNELS - 1) / CHANNELS;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < conv->batch * tiles * blocks; task++) {
        size tile = task / blocks, b = tile / tiles, first = tile % tiles * POSITIONS, c = task % blocks * CHANNELS;
        size count = channels - c < CHANNELS ? channels - c : CHANNELS;
        size end = first + POSITIONS < conv->seqlen ? first + POSITIONS : conv->seqlen;
        size last = end + width - 1 < conv->seqlen ? end + width - 1 : conv->seqlen;
        float *sums = parts + tile * (width + 1) * channels + c, g[CHANNELS];
        const float *inputs[MOST];
        for (size k = 0; k <= width; k++)
            memset(sums + k * channels, 0, sizeof(float) * count);
        for (size t = first; t < end; t++)
            memset(dx + (b * conv->seqlen + t) * channels + c, 0, sizeof(float) * count);
        for (size k = 0; d_before && !first && k < width - 1; k++)
            memset(d_before + (b * (width - 1) + k) * channels + c, 0, sizeof(float) * count);
        for (size t = first; t < last; t++) {
            inputs_at(conv, b, t, inputs);
            through_silu(conv, inputs, c, count, dy + (b * conv->seqlen + t) * channels + c, g);
            for (size k = 0; k < width; k++) {
                size s = t - (width - 1) + k;
                if (!inputs[k])
                    continue;
                const float *taps = conv->taps + k * channels + c, *x = inputs[k] + c;
                float *of_tap = sums + k * channels, *to;
                if (t < end)
                    for (size i = 0; i < count; i++)
                        of_tap[i] += g[i] * x[i];
                if (s >= end || (s < first && (first || !d_before)))
                    continue; /* another task's, or nobody's */
                to = s < 0 ? d_before + (b * (width - 1) + s + width - 1) * channels + c
                           : dx + (b * conv->seqlen + s) * channels + c;
                for (size i = 0; i < count; i++)
                    to[i] += taps[i] * g[i];
            }
            float *of_bias = sums + width * channels;
            for (size i = 0; t < end && i < count; i++)
                of_bias[i] += g[i];
        }
    }
}
