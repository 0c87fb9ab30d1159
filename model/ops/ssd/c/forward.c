/* The scan forwards: states at the chunks' starts, then each chunk's outputs. */
#include "chunk.h"

/* Each block of rows of the states (dstate, headdim) along the sequence. initial and final: (batch, nheads, headdim,
   dstate), initial or null; states: (batch, chunks, nheads, dstate, headdim). */
static void run_states(const struct scan *scan, const float *initial, float *states, float *final, float *room)
{
    size P = scan->headdim, N = scan->dstate, H = scan->nheads, row = scan->ngroups * N, wide = whole_vectors(P);
    float *state = take(&room, BLOCK * wide), *updates = take(&room, LENGTH * wide);
    struct decays now;
    size chunks = chunks_of(scan);
#pragma omp for schedule(static)
    for (size task = 0; task < blocks_of(scan); task++) {
        struct block block = block_at(scan, task);
        size b = block.b, h = block.h, g = block.g, n = block.n, count = block.count;
        load_state(initial ? initial + block.whole + n : 0, count, N, P, wide, state);
        for (size c = 0; c < chunks; c++) {
            struct chunk chunk = chunk_at(scan, b, c);
            decays(scan, &chunk, h, &now);
            weighted_rows(&chunk, scan->x + h * P, H * P, P, now.step, now.to_end, updates);
            keep_and_decay(state, count, P, now.across, states + (((b * chunks + c) * H + h) * N + n) * P);
            product(count, wide, chunk.count, scan->B + chunk.at * row + g * N + n, 1, row, updates, wide, state, wide,
                    1);
        }
        store_state(state, count, N, P, wide, final + block.whole + n);
    }
}

/* y of each chunk, the heads of a group in turn. */
static void run_outputs(const struct scan *scan, const float *states, float *y, float *room)
{
    size P = scan->headdim, N = scan->dstate, H = scan->nheads, G = scan->ngroups, wide = whole_vectors(P);
    float *B_t = take(&room, N * LENGTH), *scores = take(&room, LENGTH * LENGTH);
    float *weights = take(&room, LENGTH * LENGTH), *x = take(&room, LENGTH * wide), *out = take(&room, LENGTH * wide);
    float *padded = take(&room, N * wide);
    struct decays now;
    size chunks = chunks_of(scan);
#pragma omp for schedule(static)
    for (size task = 0; task < scan->batch * chunks * G; task++) {
        size g = task % G;
        struct chunk chunk = chunk_at(scan, task / G / chunks, task / G % chunks);
        scores_of(scan, &chunk, g, B_t, scores);
        for (size h = g * (H / G); h < (g + 1) * (H / G); h++) {
            float skip = scan->D ? scan->D[h] : 0.0f;
            const float *state = rows_at(states + ((chunk.b * chunks + chunk.c) * H + h) * N * P, N, P, padded);
            decays(scan, &chunk, h, &now);
            weighted_rows(&chunk, scan->x + h * P, H * P, P, 0, 0, x);
            product(chunk.count, wide, N, scan->C + (chunk.at * G + g) * N, G * N, 1, state, wide, out, wide, 0);
            for (size l = 0; l < chunk.count; l++) {
                float *row = weights + l * LENGTH;
                decays_at(&now, l, row);
                for (size j = 0; j <= l; j++)
                    row[j] *= scores[l * LENGTH + j] * now.step[j];
                for (size p = 0; p < wide; p++)
                    out[l * wide + p] = out[l * wide + p] * now.from_start[l] + skip * x[l * wide + p];
            }
            for (size l = 0; l < chunk.count; l += TILE) {
                size rows = chunk.count - l < TILE ? chunk.count - l : TILE;
                product(rows, wide, l + rows, weights + l * LENGTH, LENGTH, 1, x, wide, out + l * wide, wide, 1);
            }
            for (size l = 0; l < chunk.count; l++)
                memcpy(y + ((chunk.at + l) * H + h) * P, out + l * wide, sizeof(float) * P);
        }
    }
}

/* Returns whether there was no memory. */
int ssd_forward(const struct scan *scan, const float *initial, float *states, float *final, float *y, int threads)
{
    size wide = whole_vectors(scan->headdim);
    size each = LENGTH * (2 * LENGTH + 2 * wide + scan->dstate) + (scan->dstate + BLOCK) * wide + 16 * 8;
    each = (each + 15) / 16 * 16;
    float *rooms = aligned_alloc(64, sizeof(float) * each * threads);
    if (!rooms)
        return 1;
#pragma omp parallel num_threads(threads)
    {
        float *room = rooms + each * thread();
        run_states(scan, initial, states, final, room);
        run_outputs(scan, states, y, room);
    }
    free(rooms);
    return 0;
}
