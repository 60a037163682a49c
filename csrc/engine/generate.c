/* generate.c - what happens to a token once it is chosen: penalties count it, its text is released, and the rules that
 * end a generation are checked in the order end token, stop string, length. */
#include "engine.h"

#include "tokenizer.h"

#include <math.h>
#include <string.h>

enum { MAX_TOKEN_BYTES = 1 << 20, MAX_HEALED = 1024 }; /* the longest real tokens, runs of blanks, have 512 bytes */

void el_generate_clear(el_seq *s)
{
    el_sampler_free(s->sampler);
    el_text_stream_free(s->text);
    s->sampler = NULL;
    s->text = NULL;
}

edgellm_status el_generate_start(el_engine *e, el_seq *s, const edgellm_sampling *p, const int32_t *history,
                                 size_t n_history)
{
    el_sampler *sampler = NULL;
    el_text_stream *text = NULL;
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_sampler_new(&sampler, p, e->model->hp.n_vocab));
    if (p->heal_token >= 0 && (size_t)p->heal_token >= el_tokenizer_n_tokens(e->model->vocab.tokenizer))
        EL_TRY(el_fail(EDGELLM_EINVAL, "heal_token is %d; the vocabulary has ids 0 to %zu (-1: none)", p->heal_token,
                       el_tokenizer_n_tokens(e->model->vocab.tokenizer) - 1));
    EL_TRY(el_text_stream_new(&text, p->stop_strings, p->n_stop_strings));
    for (size_t i = 0; i < n_history; i++)
        EL_TRY(el_sampler_accept(sampler, history[i]));
    el_generate_clear(s);
    s->sampler = sampler;
    s->text = text;
    s->max_tokens = p->max_tokens;
    s->n_generated = 0;
    s->ignore_eog = p->ignore_eog != 0;
    s->keep_special = p->keep_special != 0;
    s->heal_token = p->heal_token < 0 ? -1 : p->heal_token;
    sampler = NULL;
    text = NULL;
done:
    el_sampler_free(sampler);
    el_text_stream_free(text);
    return status;
}

/* Bytes of the token to heal when the first token is due, 0 otherwise. */
static size_t healed(const el_engine *e, const el_seq *s, char bytes[MAX_HEALED])
{
    size_t n = 0;

    if (s->heal_token >= 0 && s->n_generated == 0)
        n = el_token_bytes(e->model->vocab.tokenizer, s->heal_token, 0, bytes, MAX_HEALED);
    return n <= MAX_HEALED ? n : 0;
}

/* Chooses among the tokens that begin with these bytes; the healed one is always among them. */
static edgellm_status choose_healed(el_engine *e, el_seq *s, const float *logits, const char *bytes, size_t n,
                                    edgellm_sampled *out)
{
    const el_tokenizer *tokenizer = e->model->vocab.tokenizer;
    size_t n_vocab = (size_t)e->model->hp.n_vocab, n_tokens = el_tokenizer_n_tokens(tokenizer);
    float *allowed = el_alloc(n_vocab, sizeof *allowed);
    edgellm_status status;

    if (!allowed)
        return el_no_memory(n_vocab * sizeof *allowed);
    for (size_t id = 0; id < n_vocab; id++) {
        char own[MAX_HEALED];
        bool begins = id < n_tokens && el_token_bytes(tokenizer, (int32_t)id, 0, own, n) >= n;

        allowed[id] = begins && memcmp(own, bytes, n) == 0 ? logits[id] : -INFINITY;
    }
    status = el_sampler_choose(s->sampler, allowed, out);
    el_free(allowed);
    return status;
}

/* Passes the token's bytes on but the first n_skipped. *stopped: a stop string is complete. */
static edgellm_status push_text(el_engine *e, el_seq *s, int32_t token, size_t n_skipped, bool *stopped)
{
    const uint32_t flags = s->keep_special ? EDGELLM_KEEP_SPECIAL : 0;
    const el_tokenizer *tokenizer = e->model->vocab.tokenizer;
    char small[256];
    char *bytes = small;
    size_t n = el_token_bytes(tokenizer, token, flags, small, sizeof small);
    edgellm_status status = EDGELLM_OK;

    if (n > sizeof small) {
        bytes = n <= MAX_TOKEN_BYTES ? el_alloc(n, 1) : NULL;
        if (!bytes)
            return el_no_memory(n);
        n = el_token_bytes(tokenizer, token, flags, bytes, n);
    }
    n_skipped = EL_MIN(n_skipped, n);
    status = el_text_stream_push(s->text, bytes + n_skipped, n - n_skipped, stopped);
    if (bytes != small)
        el_free(bytes);
    return status;
}

edgellm_status el_generate_choose(el_engine *e, el_seq *s, const float *logits, edgellm_sampled *out)
{
    bool stopped = false, has_text = el_tokenizer_has_text(e->model->vocab.tokenizer);
    edgellm_status status = EDGELLM_OK;
    char bytes[MAX_HEALED];
    size_t n_healed = has_text ? healed(e, s, bytes) : 0;

    EL_TRY(n_healed ? choose_healed(e, s, logits, bytes, n_healed, out) : el_sampler_choose(s->sampler, logits, out));
    EL_TRY(el_sampler_accept(s->sampler, out->token));
    s->n_generated++;
    if (el_sampler_is_stop_token(s->sampler, out->token) ||
        (!s->ignore_eog && el_tokenizer_is_eog(e->model->vocab.tokenizer, out->token)))
        out->finish = EDGELLM_FINISH_EOG;
    if (has_text && (out->finish == EDGELLM_FINISH_NONE || s->keep_special))
        EL_TRY(push_text(e, s, out->token, n_healed, &stopped));
    if (out->finish == EDGELLM_FINISH_NONE && stopped)
        out->finish = EDGELLM_FINISH_STOP;
    if (out->finish == EDGELLM_FINISH_NONE && s->max_tokens >= 0 && s->n_generated >= s->max_tokens)
        out->finish = EDGELLM_FINISH_LENGTH;
done:
    return status;
}
