/* The gated norm, a row at a time, both directions in one pass over memory. */
#include "bf16.h"

#define ROWS 32 /* of a task, whose weight gradients are summed first */

struct norm {
    size rows, d, group;
    const void *x;                  /* (rows, d) */
    const float *weight;            /* (d) */
    const void *gate;               /* (rows, d) or null */
    float eps;
    int before;                     /* the norm comes before the gate */
    int half_x, half_gate, half_y;  /* which are bf16, not fp32, as their gradients are */
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

/* rooms: (threads, 3, group). */
void norm_forward(const struct norm *norm, void *y, float *rooms, int threads)
{
    size group = norm->group, groups = norm->d / group;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < norm->rows * groups; task++) {
        size at = task * group;
        float *room = rooms + 3 * group * thread(), *out = row_to_write(y, at, norm->half_y, room);
        const float *x = read_row(norm->x, at, group, norm->half_x, room + group), *gate = 0;
        const float *weight = norm->weight + task % groups * group;
        if (norm->gate)
            gate = read_row(norm->gate, at, group, norm->half_gate, room + 2 * group);
        float inverse = value_of(norm, x, gate, group, out);
        if (gate && norm->before)
            for (size i = 0; i < group; i++)
                out[i] *= inverse * weight[i] * silu(gate[i]);
        else
            for (size i = 0; i < group; i++)
                out[i] *= inverse * weight[i];
        write_row(out, group, y, at, norm->half_y);
    }
}

/* With n the normed value and w the weight: dx through value_of, d_gate (or null), parts (tasks, d): sums of dy n (times
   the gate that comes after) over a task's rows. rooms: (threads, 5, group). */
void norm_backward(const struct norm *norm, const void *dy, void *dx, void *d_gate, float *parts, float *rooms, int threads)
{
    size d = norm->d, group = norm->group, tasks = (norm->rows + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size task = 0; task < tasks; task++) {
        size end = (task + 1) * ROWS < norm->rows ? (task + 1) * ROWS : norm->rows;
        float *sums = parts + task * d, *room = rooms + 5 * group * thread();
        memset(sums, 0, sizeof(float) * d);
        for (size at = task * ROWS * d; at < end * d; at += group) {
            const float *weight = norm->weight + at % d, *gate = 0;
            const float *x = read_row(norm->x, at, group, norm->half_x, room + group);
            const float *grad = read_row(dy, at, group, norm->half_y, room + 2 * group);
            float *value = row_to_write(dx, at, norm->half_x, room), *of_gate = 0;
            float *of_weight = sums + at % d, mean = 0.0f;
            if (norm->gate) {
                gate = read_row(norm->gate, at, group, norm->half_gate, room + 3 * group);
                of_gate = row_to_write(d_gate, at, norm->half_gate, room + 4 * group);
            }
            float inverse = value_of(norm, x, gate, group, value);
            if (gate && norm->before) {
#pragma omp simd reduction(+ : mean)
                for (size i = 0; i < group; i++) {
                    float open = 1.0f / (1.0f + exponential(-gate[i])), opened = grad[i] * gate[i] * open;
                    float normed = value[i] * inverse, of_value = opened * weight[i];
                    of_gate[i] = grad[i] * weight[i] * normed * open * (1.0f + gate[i] * (1.0f - open));
                    of_weight[i] += opened * normed;
                    mean += of_value * normed;
                }
                mean /= group;
                for (size i = 0; i < group; i++)
                    value[i] = (grad[i] * silu(gate[i]) * weight[i] - value[i] * inverse * mean) * inverse;
            } else {
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
                        of_gate[i] = of_value * x[i] * open * (1.0f + gate[i] * (1.0f - open));
                        of_value *= gate[i] * open;
                    }
                    value[i] = of_value;
                }
            }
            write_row(value, group, dx, at, norm->half_x);
            if (gate)
                write_row(of_gate, group, d_gate, at, norm->half_gate);
        }
    }
}
