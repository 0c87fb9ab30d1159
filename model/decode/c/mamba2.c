/* One position of a Mamba2 layer (model/decode/plain.py has the meaning). */
#include "conv.h"
#include "layer.h"
#include "ssd.h"

struct mamba2 {
    struct norm norm, gated;
    struct linear in_proj, out_proj;  /* z, x, B, C and dt; back */
    struct ssd scan;
    size width;                       /* of the convolution */
    const float *taps, *conv_bias;    /* (width, channels of x, B and C); (channels) or null */
    float multiplier;
};

/* residual (rows, d_model), conv (rows, width - 1, channels) and ssm (rows, nheads, headdim, dstate) are brought
   forward. Returns whether there was no memory. */
int mamba2_step(const struct mamba2 *layer, size rows, float *residual, float *conv_state, float *ssm, int threads)
{
    const struct linear *in = &layer->in_proj, *out = &layer->out_proj;
    const struct ssd *scan = &layer->scan;
    size inner = scan->nheads * scan->headdim, grouped = scan->ngroups * scan->dstate, channels = inner + 2 * grouped;
    size widths = out->out + in->in + in->out + channels + 2 * inner;
    size all = rows * widths + columns_of(in, rows) + columns_of(out, rows) + 16 * 8;
    float *room = malloc(sizeof(float) * all), *left = room;
    if (!room)
        return 1;
    float *hidden = take(&left, rows * in->in), *zxBCdt = take(&left, rows * in->out);
    float *xBC = take(&left, rows * channels), *y = take(&left, rows * inner), *normed = take(&left, rows * inner);
    float *mixed = take(&left, rows * out->out);
    float *in_columns = take(&left, columns_of(in, rows)), *out_columns = take(&left, columns_of(out, rows));
#pragma omp parallel num_threads(threads) if (rows * in->in * in->out > ALONE)
    {
        norm(&layer->norm, rows, residual, in->in, 0, 0, hidden);
        linear(in, rows, hidden, in_columns, zxBCdt);
        conv(rows, channels, layer->width, zxBCdt + inner, in->out, conv_state, layer->taps, layer->conv_bias, xBC);
        ssd(scan, rows, xBC, xBC + inner, xBC + inner + grouped, channels, zxBCdt + inner + channels, in->out, ssm, y);
        norm(&layer->gated, rows, y, inner, zxBCdt, in->out, normed);
        linear(out, rows, normed, out_columns, mixed);
        add(rows, out->out, layer->multiplier, mixed, residual);
    }
    free(room);
    return 0;
}
