/* The gated norm, a row at a time, both directions in one pass over memory. */
#include "scalar.h"

#define ROWS 32 /* of a task, whose weight gradients are summed first */

struct norm {
    size rows, d, group;
    const float *x, *weight, *gate; /* (rows, d), (d), (rows, d) or null */
    float eps;
    int before;                     /* the norm comes before the gate */
};

/* What is normed, and 1 / its root mean square. */
static inline float value_of(const struct norm *norm, const float *x, const float *gate, size count, float *value)
{
    float squares = 0.0f;
    if (gate && !norm->before)
        for (size i = 0; i < count; i++)
            value[i] = x[i] * silu(gate[i]);
    else
        memcpy(value, x, sizeof(float) * count);
#pragma omp simd reduction(+ : squares)
    for (size i = 0; i < count; i++)
        squares += value[i] * value[i];
    return 1.0f / sqrtf(squares / count + norm->eps);
}

void norm_forward(const struct norm *norm, float *y, int threads)
{
    size group = norm->group, groups = norm->d / group;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < norm->rows * groups; task++) {
        size at = task * group;
        const float *gate = norm->gate ? norm->gate + at : 0, *weight = norm->weight + task % groups * group;
        float *out = y + at, inverse = value_of(norm, norm->x + at, gate, group, out);
        if (gate && norm->before)
            for (size i = 0; i < group; i++)
                out[i] *= inverse * weight[i] * silu(gate[i]);
        else
            for (size i = 0; i < group; i++)
                out[i] *= inverse * weight[i];
    }
}

/* With n the normed value and w the weight: dx through value_of, d_gate (or null), parts (tasks, d): sums of dy n (times
   the gate that comes after) over a task's rows. */
void norm_backward(const struct norm *norm, const float *dy, float *dx, float *d_gate, float *parts, int threads)
{
    size d = norm->d, group = norm->group, tasks = (norm->rows + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < tasks; task++) {
        size end = (task + 1) * ROWS < norm->rows ? (task + 1) * ROWS : norm->rows;
        float *sums = parts + task * d;
        memset(sums, 0, sizeof(float) * d);
        for (size row = task * ROWS; row < end; row++)
            for (size first = 0; first < d; first += group) {
                size at = row * d + first;
                const float *gate = norm->gate ? norm->gate + at : 0, *weight = norm->weight + first;
                const float *x = norm->x + at, *grad = dy + at;
                float *value = dx + at, *of_weight = sums + first, mean = 0.0f;
                float inverse = value_of(norm, x, gate, group, value);
                if (gate && norm->before) {
#pragma omp simd reduction(+ : mean)
                    for (size i = 0; i < group; i++) {
                        float open = 1.0f / (1.0f + exponential(-gate[i])), opened = grad[i] * gate[i] * open;
                        float normed = value[i] * inverse, of_value = opened * weight[i];
                        d_gate[at + i] = grad[i] * weight[i] * normed * open * (1.0f + gate[i] * (1.0f - open));
                        of_weight[i] += opened * normed;
                        mean += of_value * normed;
                    }
                    mean /= group;
                    for (size i = 0; i < group; i++)
                        value[i] = (grad[i] * silu(gate[i]) * weight[i] - value[i] * inverse * mean) * inverse;
                    continue;
                }
#pragma omp simd reduction(+ : mean)
                for (size i = 0; i < group; i++) {
                    float normed = value[i] * inverse;
                    of_weight[i] += grad[i] * normed;
                    mean += grad[i] * weight[i] * normed;
                }
                mean /= group;
                for (size i = 0; i < group; i++) {
                    float of_value = (grad[i] * weight[i] - value[i] * inverse * mean) * inverse;
                    if (gate) {
                        float open = 1.0f / (1.0f + exponential(-gate[i]));
                        d_gate[at + i] = of_value * x[i] * open * (1.0f + gate[i] * (1.0f - open));
                        of_value *= gate[i] * open;
                    }
                    value[i] = of_value;
                }
            }
    }
}
