/* One position of an MLP layer (model/decode/plain.py has the meaning). */
#include "layer.h"

enum activation { GELU, RELU2, SILU_GATED };

struct mlp {
    struct norm norm;
    struct linear up_proj, down_proj;  /* the gate's projection first, where there is one */
    int activation;
    float multiplier;
};

/* By all threads of a team: up (rows, all of up_proj) -> y (rows, d_ff). */
static void activate(int activation, size rows, size d_ff, const float *up, float *y)
{
    if (activation == SILU_GATED) {
#pragma omp for schedule(static)
        for (size row = 0; row < rows; row++) {
            const float *gate = up + row * 2 * d_ff;
#pragma omp simd
            for (size c = 0; c < d_ff; c++)
                y[row * d_ff + c] = silu(gate[c]) * gate[d_ff + c];
        }
    } else if (activation == RELU2) {
#pragma omp for simd schedule(static)
        for (size i = 0; i < rows * d_ff; i++) {
            float x = up[i] < 0.0f ? 0.0f : up[i]; /* NaN stays */
            y[i] = x * x;
        }
    } else {
#pragma omp for schedule(static)
        for (size i = 0; i < rows * d_ff; i++)
            y[i] = 0.5f * up[i] * (1.0f + erff(up[i] * 0.70710678f));
    }
}

/* residual (rows, d_model) is brought forward. Returns whether there was no memory. */
int mlp_step(const struct mlp *layer, size rows, float *residual, int threads)
{
    const struct linear *up_proj = &layer->up_proj, *down_proj = &layer->down_proj;
    size d_model = up_proj->in, d_ff = down_proj->in;
    size columns = columns_of(up_proj, rows), down_columns = columns_of(down_proj, rows);
    size all = rows * (2 * d_model + up_proj->out + d_ff) + columns + down_columns + 16 * 6;
    float *room = malloc(sizeof(float) * all), *left = room;
    if (!room)
        return 1;
    float *hidden = take(&left, rows * d_model), *up = take(&left, rows * up_proj->out);
    float *active = take(&left, rows * d_ff), *mixed = take(&left, rows * d_model);
    float *up_columns = take(&left, columns), *others = take(&left, down_columns);
#pragma omp parallel num_threads(threads) if (rows * d_model * up_proj->out > ALONE)
    {
        norm(&layer->norm, rows, residual, d_model, 0, 0, hidden);
        linear(up_proj, rows, hidden, up_columns, up);
        activate(layer->activation, rows, d_ff, up, active);
        linear(down_proj, rows, active, others, mixed);
        add(rows, d_model, layer->multiplier, mixed, residual);
    }
    free(room);
    return 0;
}
