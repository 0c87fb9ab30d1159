/* The causal depthwise convolution and its activation, a block of positions at a time, both directions in one pass. */
#include "bf16.h"

#define POSITIONS 64 /* of a task; what is summed over positions is summed over each task's first */
#define CHANNELS 512 /* whose numbers stay in the cache */
#define MOST 8       /* taps */

struct conv {
    size batch, seqlen, channels, width;
    const void *x;                 /* (batch, seqlen, channels), in fp32 or bf16, as what is made of it */
    const float *taps, *bias;      /* (width, channels), (channels) or null */
    const float *before;           /* (batch, width - 1, channels): the inputs before the first position, or null */
    const int *seq_idx;            /* (batch, seqlen) or null */
    int silu, half;                /* half: x is bf16 */
};

/* An input of all channels, in one of two types, or in neither: nothing. */
struct input {
    const float *whole;
    const bf16 *half;
};

static inline int is_there(struct input input) { return input.whole || input.half; }

/* to (count) += factors times an input's channels from c on. */
static inline void add(struct input input, size c, size count, const float *factors, float *to)
{
    if (input.whole)
        for (size i = 0; i < count; i++)
            to[i] += factors[i] * input.whole[c + i];
    else if (input.half)
        for (size i = 0; i < count; i++)
            to[i] += factors[i] * widened(input.half[c + i]);
}

/* The inputs that the taps of a position meet, the earliest first; nothing where there is none or another document's. */
static void inputs_at(const struct conv *conv, size b, size t, struct input *inputs)
{
    const int *document = conv->seq_idx ? conv->seq_idx + b * conv->seqlen : 0;
    for (size k = 0; k < conv->width; k++) {
        size s = t - (conv->width - 1) + k;
        int same = !document || document[s < 0 ? 0 : s] == document[t];
        size at = (b * conv->seqlen + s) * conv->channels;
        inputs[k] = (struct input){0, 0};
        if (s >= 0 && same && conv->half)
            inputs[k].half = (const bf16 *)conv->x + at;
        else if (s >= 0 && same)
            inputs[k].whole = (const float *)conv->x + at;
        else if (same && conv->before)
            inputs[k].whole = conv->before + (b * (conv->width - 1) + s + conv->width - 1) * conv->channels;
    }
}

/* sums (count) of a position, channels from c on. */
static inline void convolve(const struct conv *conv, const struct input *inputs, size c, size count, float *sums)
{
    for (size i = 0; i < count; i++)
        sums[i] = conv->bias ? conv->bias[c + i] : 0.0f;
    for (size k = 0; k < conv->width; k++)
        add(inputs[k], c, count, conv->taps + k * conv->channels + c, sums);
}

/* y: as x. */
void conv_forward(const struct conv *conv, void *y, int threads)
{
    size blocks = (conv->channels + CHANNELS - 1) / CHANNELS, rows = conv->batch * conv->seqlen;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < blocks * rows; task++) {
        size row = task / blocks, c = task % blocks * CHANNELS;
        size count = conv->channels - c < CHANNELS ? conv->channels - c : CHANNELS;
        struct input inputs[MOST];
        float room[CHANNELS], *out = row_to_write(y, row * conv->channels + c, conv->half, room);
        inputs_at(conv, row / conv->seqlen, row % conv->seqlen, inputs);
        convolve(conv, inputs, c, count, out);
        for (size i = 0; conv->silu && i < count; i++)
            out[i] = silu(out[i]);
        write_row(out, count, y, row * conv->channels + c, conv->half);
    }
}

/* One position: g = dy silu'(its sum). */
static inline void through_silu(const struct conv *conv, const struct input *inputs, size c, size count, const float *dy,
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

/* dy, dx: as x. d_before as before or null, parts (batch, tasks of a row, width + 1, channels): sums over a task's positions
   for taps and bias.

   A position's g goes to its own input and to the earlier ones that its taps meet, which wait for it. A task writes its own
   positions' dx alone, so it goes width - 1 positions further, into the next one's. */
void conv_backward(const struct conv *conv, const void *dy, void *dx, float *d_before, float *parts, int threads)
{
    size channels = conv->channels, width = conv->width, tiles = (conv->seqlen + POSITIONS - 1) / POSITIONS;
    size blocks = (channels + CHANNELS - 1) / CHANNELS;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < conv->batch * tiles * blocks; task++) {
        size tile = task / blocks, b = tile / tiles, first = tile % tiles * POSITIONS, c = task % blocks * CHANNELS;
        size count = channels - c < CHANNELS ? channels - c : CHANNELS;
        size end = first + POSITIONS < conv->seqlen ? first + POSITIONS : conv->seqlen;
        size last = end + width - 1;
        float *sums = parts + tile * (width + 1) * channels + c, g[CHANNELS], room[CHANNELS], waiting[MOST][CHANNELS];
        struct input inputs[MOST];
        for (size k = 0; k <= width; k++)
            memset(sums + k * channels, 0, sizeof(float) * count);
        for (size k = 0; d_before && !first && k < width - 1; k++)
            memset(d_before + (b * (width - 1) + k) * channels + c, 0, sizeof(float) * count);
        for (size t = first; t < last; t++) {
            size done = t - (width - 1); /* what it waited for comes with this position, if there is one */
            if (t < end)
                memset(waiting[t % MOST], 0, sizeof(float) * count);
            if (t < conv->seqlen) {
                inputs_at(conv, b, t, inputs);
                through_silu(conv, inputs, c, count,
                             read_row(dy, (b * conv->seqlen + t) * channels + c, count, conv->half, room), g);
            }
            for (size k = 0; t < conv->seqlen && k < width; k++) {
                size s = done + k;
                if (!is_there(inputs[k]))
                    continue;
                if (t < end)
                    add(inputs[k], c, count, g, sums + k * channels);
                if (s >= end || (s < first && (first || !d_before)))
                    continue; /* another task's, or nobody's */
                const float *taps = conv->taps + k * channels + c;
                float *to = s < 0 ? d_before + (b * (width - 1) + s + width - 1) * channels + c : waiting[s % MOST];
                for (size i = 0; i < count; i++)
                    to[i] += taps[i] * g[i];
            }
            float *of_bias = sums + width * channels;
            for (size i = 0; t < end && i < count; i++)
                of_bias[i] += g[i];
            if (done >= first)
                write_row(waiting[done % MOST], count, dx, (b * conv->seqlen + done) * channels + c, conv->half);
        }
    }
}
