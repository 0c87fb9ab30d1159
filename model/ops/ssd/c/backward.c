/* The scan backwards: gradients of the states at the chunks' ends, then each chunk's gradients. */
#include "gradients.h"

/* d_states (batch, chunks, nheads, dstate, headdim) of the states at the chunks' ends. */
static void run_states_back(const struct scan *scan, const struct gradients *to, float *d_states, float *room)
{
    size P = scan->headdim, N = scan->dstate, H = scan->nheads, row = scan->ngroups * N, wide = whole_vectors(P);
    float *grad = take(&room, BLOCK * wide), *weighted = take(&room, LENGTH * wide);
    struct decays now;
    size chunks = chunks_of(scan);
#pragma omp for schedule(static)
    for (size task = 0; task < blocks_of(scan); task++) {
        struct block block = block_at(scan, task);
        size b = block.b, h = block.h, g = block.g, n = block.n, count = block.count;
        load_state(to->d_final ? to->d_final + block.whole + n : 0, count, N, P, wide, grad);
        for (size c = chunks - 1; c >= 0; c--) {
            struct chunk chunk = chunk_at(scan, b, c);
            decays(scan, &chunk, h, &now);
            weighted_rows(&chunk, to->dy + h * P, H * P, P, now.from_start, 0, weighted);
            keep_and_decay(grad, count, P, now.across, d_states + (((b * chunks + c) * H + h) * N + n) * P);
            product(count, wide, chunk.count, scan->C + chunk.at * row + g * N + n, 1, row, weighted, wide, grad, wide, 1);
        }
        store_state(grad, count, N, P, wide, to->d_initial + block.whole + n);
    }
}

/* What one chunk's matrices are kept in. Rows of `wide` floats have headdim of them, of `deep` ones dstate. */
struct tables {
    float *x, *dy, *x_t, *weighted, *d_update, *from_state; /* (LENGTH, wide); x_t (wide, LENGTH) */
    float *scores, *d_scores, *weights, *d_weights;         /* (LENGTH, LENGTH) */
    float *B, *C, *dB, *dC, *read;                          /* (LENGTH, deep) */
    float *state_t, *d_state_t, *padded, *B_t;              /* (headdim, deep); (dstate, wide); (dstate, LENGTH) */
};

static size room_for(struct tables *tables, const struct scan *scan, float *room)
{
    size P = scan->headdim, N = scan->dstate, wide = whole_vectors(P), deep = whole_vectors(N);
    float *start = room;
    float **of_width[] = {&tables->x, &tables->dy, &tables->x_t, &tables->weighted, &tables->d_update, &tables->from_state};
    float **squares[] = {&tables->scores, &tables->d_scores, &tables->weights, &tables->d_weights};
    float **of_depth[] = {&tables->B, &tables->C, &tables->dB, &tables->dC, &tables->read};
    for (int i = 0; i < 6; i++)
        *of_width[i] = take(&room, LENGTH * wide);
    for (int i = 0; i < 4; i++)
        *squares[i] = take(&room, LENGTH * LENGTH);
    for (int i = 0; i < 5; i++)
        *of_depth[i] = take(&room, LENGTH * deep);
    tables->state_t = take(&room, P * deep);
    tables->d_state_t = take(&room, P * deep);
    tables->padded = take(&room, N * wide);
    tables->B_t = take(&room, N * LENGTH);
    return room - start;
}

/* What the positions of a chunk ask of one another: d_update (LENGTH, wide) = and d_scores +=, and shares of d_sums. */
static void within(const struct chunk *chunk, const struct decays *now, size wide, const struct tables *t, double *d_sums)
{
    size count = chunk->count;
    for (size l = 0; l < count; l += TILE) {
        size rows = count - l < TILE ? count - l : TILE;
        product(rows, whole_vectors(l + rows), wide, t->dy + l * wide, wide, 1, t->x_t, LENGTH,
                t->d_weights + l * LENGTH, LENGTH, 0);
    }
    for (size l = 0; l < count; l++)
        shares(now, l, t->scores + l * LENGTH, t->d_weights + l * LENGTH, t->weights + l * LENGTH, t->d_scores + l * LENGTH,
               d_sums);
    for (size j = 0; j < count; j += TILE) {
        size rows = count - j < TILE ? count - j : TILE;
        product(rows, wide, count - j, t->weights + j * LENGTH + j, 1, LENGTH, t->dy + j * wide, wide,
                t->d_update + j * wide, wide, 0);
    }
}

/* One head of a chunk: dx and d_step of its positions, its shares of dA and dD; dB, dC and d_scores grow. */
static void head_back(const struct scan *scan, const struct gradients *to, const struct chunk *chunk, size h,
                      const float *states, const float *d_states, const struct tables *t)
{
    size P = scan->headdim, N = scan->dstate, H = scan->nheads, wide = whole_vectors(P), deep = whole_vectors(N);
    size count = chunk->count, at = (chunk->b * chunks_of(scan) + chunk->c) * H + h;
    const float *state = states + at * N * P, *d_state = d_states + at * N * P;
    struct decays now;
    double d_sums[LENGTH] = {0};
    float weight[LENGTH], across = 0.0f, skip = 0.0f, dD = 0.0f;
    decays(scan, chunk, h, &now);
    weighted_rows(chunk, scan->x + h * P, H * P, P, 0, 0, t->x);
    weighted_rows(chunk, to->dy + h * P, H * P, P, 0, 0, t->dy);
    transpose(count, wide, t->x, wide, t->x_t, LENGTH);
    within(chunk, &now, wide, t, d_sums);

    /* The state at the start, read with C. */
    transpose(N, P, state, P, t->state_t, deep);
    weighted_rows(chunk, to->dy + h * P, H * P, P, now.from_start, 0, t->weighted);
    product(count, deep, P, t->weighted, wide, 1, t->state_t, deep, t->read, deep, 0);
    for (size l = 0; l < count; l++) {
        float share = 0.0f, *dC = t->dC + l * deep;
        const float *read = t->read + l * deep, *C = t->C + l * deep;
#pragma omp simd reduction(+ : share)
        for (size n = 0; n < N; n++) {
            dC[n] += read[n];
            share += read[n] * C[n];
        }
        d_sums[l] += share;
    }

    /* What each position adds to the state at the end. */
    transpose(N, P, d_state, P, t->d_state_t, deep);
    for (size l = 0; l < count; l++)
        weight[l] = now.step[l] * now.to_end[l];
    weighted_rows(chunk, scan->x + h * P, H * P, P, weight, 0, t->weighted);
    product(count, deep, P, t->weighted, wide, 1, t->d_state_t, deep, t->dB, deep, 1);
    product(count, wide, N, t->B, deep, 1, rows_at(d_state, N, P, t->padded), wide, t->from_state, wide, 0);
#pragma omp simd reduction(+ : across)
    for (size i = 0; i < N * P; i++)
        across += state[i] * d_state[i];
    d_sums[count - 1] += across * now.across;

    if (scan->D)
        skip = scan->D[h];
    float d_step[LENGTH];
    for (size l = 0; l < count; l++) {
        float share = 0.0f, of_step = 0.0f, of_skip = 0.0f, to_end = now.to_end[l], step = now.step[l];
        const float *from_state = t->from_state + l * wide, *d_update = t->d_update + l * wide;
        const float *x = t->x + l * wide, *dy = t->dy + l * wide;
        float *dx = to->dx + ((chunk->at + l) * H + h) * P;
#pragma omp simd reduction(+ : share, of_step, of_skip)
        for (size p = 0; p < P; p++) {
            float far = from_state[p] * to_end, update = d_update[p] + far;
            share += far * x[p];
            of_step += update * x[p];
            of_skip += dy[p] * x[p];
            dx[p] = update * step + skip * dy[p];
        }
        share_of_end(l, count - 1, share * now.step[l], d_sums);
        d_step[l] = of_step;
        dD += of_skip;
    }
    to->dA[at] = through_sums(scan, chunk, h, &now, d_sums, d_step, to->d_step);
    to->dD[at] = dD;
}

/* The gradients of each chunk, the heads of a group in turn. */
static void run_chunks_back(const struct scan *scan, const struct gradients *to, const float *states,
                            const float *d_states, float *room)
{
    size N = scan->dstate, H = scan->nheads, G = scan->ngroups, deep = whole_vectors(N), chunks = chunks_of(scan);
    struct tables t;
    room_for(&t, scan, room);
#pragma omp for schedule(static)
    for (size task = 0; task < scan->batch * chunks * G; task++) {
        size g = task % G;
        struct chunk chunk = chunk_at(scan, task / G / chunks, task / G % chunks);
        scores_of(scan, &chunk, g, t.B_t, t.scores);
        weighted_rows(&chunk, scan->B + g * N, G * N, N, 0, 0, t.B);
        weighted_rows(&chunk, scan->C + g * N, G * N, N, 0, 0, t.C);
        memset(t.dB, 0, sizeof(float) * LENGTH * deep);
        memset(t.dC, 0, sizeof(float) * LENGTH * deep);
        memset(t.d_scores, 0, sizeof(float) * LENGTH * LENGTH);
        for (size h = g * (H / G); h < (g + 1) * (H / G); h++)
            head_back(scan, to, &chunk, h, states, d_states, &t);
        for (size l = 0; l < chunk.count; l += TILE) {
            size rows = chunk.count - l < TILE ? chunk.count - l : TILE;
            product(rows, deep, l + rows, t.d_scores + l * LENGTH, LENGTH, 1, t.B, deep, t.dC + l * deep, deep, 1);
            product(rows, deep, chunk.count - l, t.d_scores + l * LENGTH + l, 1, LENGTH, t.C + l * deep, deep,
                    t.dB + l * deep, deep, 1);
        }
        for (size l = 0; l < chunk.count; l++) {
            size at = ((chunk.at + l) * G + g) * N;
            memcpy(to->dB + at, t.dB + l * deep, sizeof(float) * N);
            memcpy(to->dC + at, t.dC + l * deep, sizeof(float) * N);
        }
    }
}

/* d_states: room for (batch, chunks, nheads, dstate, headdim). Returns whether there was no memory. */
int ssd_backward(const struct scan *scan, const struct gradients *to, const float *states, float *d_states, int threads)
{
    struct tables nowhere;
    size wide = whole_vectors(scan->headdim), each = room_for(&nowhere, scan, 0);
    each = each > (LENGTH + BLOCK) * wide + 16 * 2 ? each : (LENGTH + BLOCK) * wide + 16 * 2;
    float *rooms = aligned_alloc(64, sizeof(float) * each * threads);
    if (!rooms)
        return 1;
#pragma omp parallel num_threads(threads)
    {
        float *room = rooms + each * thread();
        run_states_back(scan, to, d_states, room);
        run_chunks_back(scan, to, states, d_states, room);
    }
    free(rooms);
    return 0;
}
