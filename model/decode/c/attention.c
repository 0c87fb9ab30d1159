/* One position of an attention layer (model/layers/attention.py has the meaning). */
#include "layer.h"

#define POSITIONS 256 /* that one task attends to */

struct attention {
    struct norm norm;
    struct linear qkv_proj, o_proj;
    size heads, kv_heads, head_dim;
    float scale;
    size half;           /* of the channels that are rotated: pairs; 0 without rotary embedding */
    const float *rates;  /* (half) radians per position */
    float amplitude;     /* of the rotated channels */
    float multiplier;
};

/* One head's vector at a position: halves rotated. */
static void rotate(const struct attention *layer, size position, float *x)
{
    for (size i = 0; i < layer->half; i++) {
        float angle = (float)position * layer->rates[i];
        float cosine = cosf(angle) * layer->amplitude, sine = sinf(angle) * layer->amplitude;
        float first = x[i], second = x[layer->half + i];
        x[i] = first * cosine - second * sine;
        x[layer->half + i] = second * cosine + first * sine;
    }
}

/* scores (count) of keys (count, head_dim) for one query, before the scale. */
static void score(size count, size head_dim, const float *query, const float *keys, float *scores)
{
    size j = 0;
    for (; j + DOTS <= count; j += DOTS)
        dots(DOTS, 1, head_dim, keys + j * head_dim, query, 0, scores + j, 0);
    for (; j < count; j++)
        dots(1, 1, head_dim, keys + j * head_dim, query, 0, scores + j, 0);
}

/* sum (head_dim) += weights (count) times values (count, head_dim). */
static void mix(size count, size head_dim, const float *weights, const float *values, float *sum)
{
    size j = 0;
    for (; j + 4 <= count; j += 4) {
        const float *a = values + j * head_dim, *b = a + head_dim, *c = b + head_dim, *d = c + head_dim;
#pragma omp simd
        for (size i = 0; i < head_dim; i++)
            sum[i] += weights[j] * a[i] + weights[j + 1] * b[i] + weights[j + 2] * c[i] + weights[j + 3] * d[i];
    }
    for (; j < count; j++)
#pragma omp simd
        for (size i = 0; i < head_dim; i++)
            sum[i] += weights[j] * values[j * head_dim + i];
}

/* `count` positions, seen by the `shared` queries of one key head: of each query the largest score, the sum of the
   weights relative to it, and the weighted sum of the values, in `found` (shared, 2 + head_dim). */
static void attend(size shared, size head_dim, float scale, const float *query, const float *keys, const float *values,
                   size count, float *found)
{
    float weights[POSITIONS];
    for (size h = 0; h < shared; h++) {
        float *out = found + h * (2 + head_dim), largest = -INFINITY, sum = 0.0f;
        score(count, head_dim, query + h * head_dim, keys, weights);
        for (size j = 0; j < count; j++) {
            weights[j] *= scale;
            largest = weights[j] > largest ? weights[j] : largest;
        }
#pragma omp simd reduction(+ : sum)
        for (size j = 0; j < count; j++) {
            weights[j] = exponential(weights[j] - largest);
            sum += weights[j];
        }
        memset(out + 2, 0, sizeof(float) * head_dim);
        mix(count, head_dim, weights, values, out + 2);
        out[0] = largest;
        out[1] = sum;
    }
}

/* The `blocks` findings of one query, `stride` apart, become one vector y (head_dim). */
static void merge(size blocks, size head_dim, const float *found, size stride, float *y)
{
    float largest = -INFINITY, sum = 0.0f;
    for (size block = 0; block < blocks; block++)
        largest = found[block * stride] > largest ? found[block * stride] : largest;
    for (size c = 0; c < head_dim; c++)
        y[c] = 0.0f;
    for (size block = 0; block < blocks; block++) {
        const float *now = found + block * stride;
        float share = expf(now[0] - largest);
        sum += share * now[1];
        for (size c = 0; c < head_dim; c++)
            y[c] += share * now[2 + c];
    }
    for (size c = 0; c < head_dim; c++)
        y[c] /= sum;
}

/* residual (rows, d_model) is brought forward; keys and values (rows, kv_heads, capacity, head_dim) hold `past`
   positions, get one more, and have room for it. starts (rows): the first positions that count, or null. Returns whether
   there was no memory. */
int attention_step(const struct attention *layer, size rows, float *residual, float *keys, float *values,
                   size capacity, size past, const long long *starts, int threads)
{
    const struct linear *qkv_proj = &layer->qkv_proj, *o_proj = &layer->o_proj;
    size d_model = qkv_proj->in, head_dim = layer->head_dim, kv_heads = layer->kv_heads;
    size shared = layer->heads / kv_heads, width = layer->heads * head_dim;
    size length = past + 1, blocks = (length + POSITIONS - 1) / POSITIONS, each = shared * (2 + head_dim);
    size tasks = rows * kv_heads * blocks;
    size columns = columns_of(qkv_proj, rows), o_columns = columns_of(o_proj, rows);
    size all = rows * (2 * d_model + qkv_proj->out + width) + tasks * each + columns + o_columns + 16 * 7;
    float *room = malloc(sizeof(float) * all), *left = room;
    if (!room)
        return 1;
    float *hidden = take(&left, rows * d_model), *qkv = take(&left, rows * qkv_proj->out);
    float *attended = take(&left, rows * width), *mixed = take(&left, rows * d_model);
    float *found = take(&left, tasks * each), *in_columns = take(&left, columns), *others = take(&left, o_columns);
#pragma omp parallel num_threads(threads) if (rows * qkv_proj->out * d_model + rows * width * length > ALONE)
    {
        norm(&layer->norm, rows, residual, d_model, 0, 0, hidden);
        linear(qkv_proj, rows, hidden, in_columns, qkv);
#pragma omp for schedule(static)
        for (size row = 0; row < rows; row++) {
            float *query = qkv + row * qkv_proj->out, *key = query + width, *value = key + kv_heads * head_dim;
            for (size h = 0; h < layer->heads + kv_heads; h++)
                rotate(layer, past - (starts ? starts[row] : 0), query + h * head_dim);
            for (size h = 0; h < kv_heads; h++) {
                size at = ((row * kv_heads + h) * capacity + past) * head_dim;
                memcpy(keys + at, key + h * head_dim, sizeof(float) * head_dim);
                memcpy(values + at, value + h * head_dim, sizeof(float) * head_dim);
            }
        }
#pragma omp for schedule(static)
        for (size task = 0; task < tasks; task++) {
            size block = task % blocks, h = task / blocks % kv_heads, row = task / blocks / kv_heads;
            size first = block * POSITIONS, end = first + POSITIONS < length ? first + POSITIONS : length;
            size start = starts && starts[row] > first ? starts[row] : first, count = start < end ? end - start : 0;
            size at = ((row * kv_heads + h) * capacity + start) * head_dim;
            attend(shared, head_dim, layer->scale, qkv + row * qkv_proj->out + h * shared * head_dim, keys + at,
                   values + at, count, found + task * each);
        }
#pragma omp for schedule(static)
        for (size query = 0; query < rows * layer->heads; query++)
            merge(blocks, head_dim, found + query / shared * blocks * each + query % shared * (2 + head_dim), each,
                  attended + query * head_dim);
        linear(o_proj, rows, attended, others, mixed);
        add(rows, d_model, layer->multiplier, mixed, residual);
    }
    free(room);
    return 0;
}
