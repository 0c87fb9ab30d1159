/* The cross-entropy of rows of logits, which become its gradients, a row at a time in the cache. */
#include "bf16.h"

#define AT_ONCE 1024 /* numbers summed in fp32; their sums in fp64 */

static inline float largest_of(const float *row, size count)
{
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (size i = 0; i < count; i++)
        largest = row[i] > largest ? row[i] : largest;
    return largest;
}

/* e^(row - largest) into `to`; returns their sum, NaN if a number is NaN or the largest infinite. */
static inline double exponentials(const float *row, size count, float largest, float *to)
{
    double total = 0.0;
    for (size first = 0; first < count; first += AT_ONCE) {
        size end = first + AT_ONCE < count ? first + AT_ONCE : count;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (size i = first; i < end; i++) {
            to[i] = exponential(row[i] - largest);
            sum += to[i];
        }
        total += sum;
    }
    return total;
}

/* logits (rows, vocabulary), in fp32 or (`half`) bf16: with `gradients`, those of the sum of the losses take their place.
   targets (rows): -1 counts for nothing. losses (rows). rooms (threads, vocabulary). */
void cross_entropy(size rows, size vocabulary, void *logits, int half, const long long *targets, int gradients, float *losses,
                   float *rooms, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size r = 0; r < rows; r++) {
        size at = r * vocabulary, target = targets[r];
        float *room = rooms + vocabulary * thread(), *to = row_to_write(logits, at, half, room);
        losses[r] = 0.0f;
        if (target < 0) {
            memset(to, 0, sizeof(float) * vocabulary);
        } else {
            const float *row = read_row(logits, at, vocabulary, half, room);
            float largest = largest_of(row, vocabulary), own = row[target] - largest;
            double total = exponentials(row, vocabulary, largest, room);
            float log_prob = own - (float)log(total), share = (float)(1.0 / total);
            losses[r] = -log_prob;
            for (size i = 0; gradients && i < vocabulary; i++)
                to[i] = room[i] * share;
            to[target] = expm1f(log_prob);
        }
        if (gradients)
            write_row(to, vocabulary, logits, at, half);
    }
}
