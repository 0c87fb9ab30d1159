/* A few rows times weights as they lie in the model, (out, in): each weight is read once, and none is copied.

   One or two rows are dot products with each row of weights. More rows are transposed first, side by side in vectors, and
   every weight is multiplied with all of them at once; what is summed stays in registers. Weights are fetched a block or
   two ahead, as those of this block are used: the hardware stops at each 4 KB (12% for one row, 30% for 16, on an
   EPYC). */
#ifndef LINEAR_H
#define LINEAR_H
#include "scalar.h"
#include "vector.h"

#define GROUP 16                   /* rows that are multiplied at once */
#define SUMS 12                    /* vectors of sums: as many as there are registers, less those of the factors */
#define OUTS (SUMS * LANES / GROUP) /* of a whole group */
#define LINE 16                    /* floats of a line of the cache */
#define DOTS 4                     /* rows of weights that are taken together for one or two rows */

/* `outs` rows of w (outs, k) with `rows` rows of x (rows, k): y[r * y_row + o]. */
static inline __attribute__((always_inline)) void dots(const int outs, const int rows, size k, const float *w,
                                                       const float *x, const float *bias, float *y, size y_row)
{
    vector sums[DOTS][2];
    for (int o = 0; o < outs; o++)
        for (int r = 0; r < rows; r++)
            sums[o][r] = (vector){0};
    size i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int o = 0; o < outs; o++) {
            __builtin_prefetch(w + (o + 2 * outs) * k + i);
            for (int r = 0; r < rows; r++)
                sums[o][r] += *(const vector *)(x + r * k + i) * *(const vector *)(w + o * k + i);
        }
    for (int o = 0; o < outs; o++)
        for (int r = 0; r < rows; r++) {
            float sum = bias ? bias[o] : 0.0f;
            for (int lane = 0; lane < LANES; lane++)
                sum += sums[o][r][lane];
            for (size j = i; j < k; j++)
                sum += w[o * k + j] * x[r * k + j];
            y[r * y_row + o] = sum;
        }
}

/* `outs` rows of w (outs, k) with columns (k, vectors * LANES), of which `rows` count: y[r * y_row + o]. */
static inline __attribute__((always_inline)) void columns_times(const int outs, const int vectors, size k,
                                                                const float *w, const float *columns,
                                                                const float *bias, float *y, size y_row, size rows)
{
    vector sums[SUMS];
    for (int o = 0; o < outs; o++)
        for (int v = 0; v < vectors; v++)
            sums[o * vectors + v] = (vector){0} + (bias ? bias[o] : 0.0f);
    for (size i = 0; i < k; i += LINE) {
        for (int o = 0; o < outs; o++)
            __builtin_prefetch(w + (o + outs) * k + i);
        size end = i + LINE < k ? i + LINE : k;
        for (size j = i; j < end; j++)
            for (int o = 0; o < outs; o++)
                for (int v = 0; v < vectors; v++)
                    sums[o * vectors + v] += w[o * k + j] * ((const vector *)columns)[j * vectors + v];
    }
    for (size r = 0; r < rows; r++)
        for (int o = 0; o < outs; o++)
            y[r * y_row + o] = ((const float *)(sums + o * vectors))[r];
}

static void rows_of_weights(size outs, size rows, size k, const float *w, const float *x, const float *columns,
                            const float *bias, float *y, size y_row)
{
    if (rows == 1 && outs == DOTS)
        dots(DOTS, 1, k, w, x, bias, y, y_row);
    else if (rows == 2 && outs == DOTS)
        dots(DOTS, 2, k, w, x, bias, y, y_row);
    else if (rows <= 2)
        for (size o = 0; o < outs; o++)
            for (size r = 0; r < rows; r++)
                dots(1, 1, k, w + o * k, x + r * k, bias ? bias + o : 0, y + o + r * y_row, y_row);
    else if (rows <= LANES && outs == SUMS)
        columns_times(SUMS, 1, k, w, columns, bias, y, y_row, rows);
    else if (rows > LANES && outs == OUTS)
        columns_times(OUTS, GROUP / LANES, k, w, columns, bias, y, y_row, rows);
    else
        for (size o = 0; o < outs; o++) {
            const float *b = bias ? bias + o : 0;
            if (rows <= LANES)
                columns_times(1, 1, k, w + o * k, columns, b, y + o, y_row, rows);
            else
                columns_times(1, GROUP / LANES, k, w + o * k, columns, b, y + o, y_row, rows);
        }
}

/* Several linear layers of the same input, their outputs one after another. */
struct linear {
    size in, out;                 /* of all of them */
    int parts;
    const size *outs;             /* of each */
    const float *const *weights;  /* (outs[p], in) */
    const float *const *biases;   /* (outs[p]) or null */
};

static size columns_of(const struct linear *layer, size rows) { return rows > 2 ? GROUP * layer->in : 0; }

/* By all threads of a team: x (rows, in) -> y (rows, out). columns: room for `columns_of` floats. */
static void linear(const struct linear *layer, size rows, const float *x, float *columns, float *y)
{
    size k = layer->in;
    for (size first = 0; first < rows; first += GROUP) {
        size now = rows - first < GROUP ? rows - first : GROUP, width = now <= LANES ? LANES : GROUP;
        const float *x_now = x + first * k;
        if (now > 2) {
#pragma omp for schedule(static)
            for (size i = 0; i < k; i++)
                for (size r = 0; r < width; r++)
                    columns[i * width + r] = r < now ? x_now[r * k + i] : 0.0f;
        }
        size step = now <= 2 ? DOTS : now <= LANES ? SUMS : OUTS, at = 0;
        for (int p = 0; p < layer->parts; p++) {
            size outs = layer->outs[p];
            const float *weights = layer->weights[p], *biases = layer->biases[p];
#pragma omp for schedule(static) nowait
            for (size block = 0; block < (outs + step - 1) / step; block++) {
                size o = block * step, count = outs - o < step ? outs - o : step;
                rows_of_weights(count, now, k, weights + o * k, x_now, columns, biases ? biases + o : 0,
                                y + first * layer->out + at + o, layer->out);
            }
            at += outs;
        }
#pragma omp barrier /* y is whole; the columns may be overwritten */
    }
}

#endif
