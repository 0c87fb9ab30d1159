/* The model's last norm and its head. */
#include "layer.h"

struct head {
    struct norm norm;
    struct linear linear;
    float scaling;  /* which divides the head's input */
};

/* residual (rows, d_model) -> logits (rows, vocab_size). Returns whether there was no memory. */
int head_step(const struct head *head, size rows, const float *residual, float *logits, int threads)
{
    const struct linear *last = &head->linear;
    float *room = malloc(sizeof(float) * (rows * last->in + columns_of(last, rows) + 16 * 2)), *left = room;
    if (!room)
        return 1;
    float *hidden = take(&left, rows * last->in), *columns = take(&left, columns_of(last, rows));
#pragma omp parallel num_threads(threads) if (rows * last->in * last->out > ALONE)
    {
        norm(&head->norm, rows, residual, last->in, 0, 0, hidden);
#pragma omp for simd schedule(static)
        for (size i = 0; i < rows * last->in; i++)
            hidden[i] /= head->scaling;
        linear(last, rows, hidden, columns, logits);
    }
    free(room);
    return 0;
}
