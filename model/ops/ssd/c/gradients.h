/* What the scan's backward writes, and gradients of the decays. */
#ifndef GRADIENTS_H
#define GRADIENTS_H
#include "chunk.h"

struct gradients {
    union { const float *dy; const bf16 *dy_bf16; };        /* (batch, seqlen, nheads, headdim) */
    const float *d_final;                                   /* (batch, nheads, headdim, dstate), or null */
    union { float *dx; bf16 *dx_bf16; };                    /* as x */
    float *d_step;                                          /* as step */
    union { float *dB; bf16 *dB_bf16; };                    /* as B */
    union { float *dC; bf16 *dC_bf16; };                    /* as C */
    float *d_initial;                                       /* as d_final */
    float *dA, *dD;                                         /* shares of each chunk: (batch, chunks, nheads) */
};

/* Of position l of a chunk, from the rows of its scores and of what is asked of its weights: the row of the weights (score
   times decay, without the step), what is asked of its scores (+=), and shares of the decays' sums, added to d_sums: each
   is added once and taken off once, in fp64, so that what cancels does. */
static inline void shares(const struct decays *now, size l, const float *scores, const float *d_weights, float *weights,
                          float *d_scores, double *d_sums)
{
    double sum = 0.0;
    int last = l, whole = whole_vectors(l); /* beyond: zeros, in place of a loop's rest one by one */
    decays_at(now, l, weights);
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < whole; j++) {
        float d_weight = j < last ? d_weights[j] * now->step[j] : 0.0f, score = j < last ? scores[j] : 0.0f;
        float decay = weights[j], share;
        d_scores[j] += decay * d_weight;
        weights[j] = decay * score;
        share = weights[j] * d_weight;
        sum += share;
        d_sums[j] -= share;
    }
    d_scores[l] += d_weights[l] * now->step[l];
    weights[l] = scores[l];
    d_sums[l] += sum;
}

/* Of the decay from position l to the chunk's end, the share: that of the `last` position is one and has none. */
static inline void share_of_end(size l, size last, float share, double *d_sums)
{
    if (l < last) {
        d_sums[l] -= share;
        d_sums[last] += share;
    }
}

/* d_step of a chunk's positions, from what reaches them elsewhere and through the decays' sums. Returns its share of dA. */
static inline float through_sums(const struct scan *scan, const struct chunk *chunk, size h, const struct decays *now,
                                 const double *d_sums, const float *elsewhere, float *d_step)
{
    double d_sum = 0.0, dA = 0.0, A = scan->A[h];
    for (size l = chunk->count - 1; l >= 0; l--) {
        d_sum += d_sums[l];
        double d_exponent = now->step[l] * A < SMALLEST ? 0.0 : d_sum; /* nothing is left of what it would change */
        dA += d_exponent * now->step[l];
        d_step[(chunk->at + l) * scan->nheads + h] = elsewhere[l] + (float)d_exponent * scan->A[h];
    }
    return (float)dA;
}

#endif
