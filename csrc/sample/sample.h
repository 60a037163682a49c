/* sample.h - logits in, token out; bytes in, finished text out. One of each per sequence.
 * What a sequence draws depends on its own seed and position alone: the random numbers are a counter-based
 * function of (seed, draw number), so neighbours and batches cannot change it. */
#ifndef EL_SAMPLE_H
#define EL_SAMPLE_H

#include "error.h"
#include "mem.h"

typedef struct el_sampler el_sampler;

/* Copies everything out of *params. Errors: EINVAL (names the field, its value and the allowed range; token ids
 * outside 0 .. n_vocab - 1), ENOMEM. */
edgellm_status el_sampler_new(el_sampler **out, const edgellm_sampling *params, int32_t n_vocab);
void el_sampler_free(el_sampler *s);

/* Counts a token for the penalties (prompt tokens at the start, then each chosen one; choose does not do it). */
edgellm_status el_sampler_accept(el_sampler *s, int32_t token);

/* Chooses from n_vocab logits, which are not modified. Fills token, logprob, n_top, top_*; finish is left 0.
 * Errors: ENUMERIC when a logit is NaN or +infinity or none is finite, ENOMEM. */
edgellm_status el_sampler_choose(el_sampler *s, const float *logits, edgellm_sampled *out);

bool el_sampler_is_stop_token(const el_sampler *s, int32_t token);

/* Finished text of one generation: holds back an incomplete code point and anything that may become a stop string. */
typedef struct el_text_stream el_text_stream;

edgellm_status el_text_stream_new(el_text_stream **out, const edgellm_text *stops, size_t n_stops);
void el_text_stream_free(el_text_stream *s);

/* Adds bytes. *stopped becomes true when a stop string has appeared: its text and all after it is dropped.
 * Stop strings are found across any borders of the pieces; the earliest start wins, then the longest. */
edgellm_status el_text_stream_push(el_text_stream *s, const char *bytes, size_t n, bool *stopped);
/* No more will come: what was held back becomes ready (an incomplete code point as U+FFFD). */
edgellm_status el_text_stream_finish(el_text_stream *s);
/* Moves ready bytes out, whole code points only; invalid UTF-8 has become U+FFFD (as Python's errors="replace").
 * cap is at least 4. Returns how many; 0 when nothing is ready. */
size_t el_text_stream_take(el_text_stream *s, char *buf, size_t cap);

#endif
