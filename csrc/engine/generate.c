/* generate.c - what happens to a token once it is chosen: penalties count it, its text is released, and the rules that
 * end a generation are checked in the order end token, stop string, length. */
#include "engine.h"

#include "tokenizer.h"

enum { MAX_TOKEN_BYTES = 1 << 20 };

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
    sampler = NULL;
    text = NULL;
done:
    el_sampler_free(sampler);
    el_text_stream_free(text);
    return status;
}

/* Passes the token's bytes on. *stopped: a stop string is complete. */
static edgellm_status push_text(el_engine *e, el_seq *s, int32_t token, bool *stopped)
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
    status = el_text_stream_push(s->text, bytes, n, stopped);
    if (bytes != small)
        el_free(bytes);
    return status;
}

edgellm_status el_generate_choose(el_engine *e, el_seq *s, const float *logits, edgellm_sampled *out)
{
    bool stopped = false, has_text = el_tokenizer_has_text(e->model->vocab.tokenizer);
    edgellm_status status = EDGELLM_OK;

    EL_TRY(el_sampler_choose(s->sampler, logits, out));
    EL_TRY(el_sampler_accept(s->sampler, out->token));
    s->n_generated++;
    if (el_sampler_is_stop_token(s->sampler, out->token) ||
        (!s->ignore_eog && el_tokenizer_is_eog(e->model->vocab.tokenizer, out->token)))
        out->finish = EDGELLM_FINISH_EOG;
    if (has_text && (out->finish == EDGELLM_FINISH_NONE || s->keep_special))
        EL_TRY(push_text(e, s, out->token, &stopped));
    if (out->finish == EDGELLM_FINISH_NONE && stopped)
        out->finish = EDGELLM_FINISH_STOP;
    if (out->finish == EDGELLM_FINISH_NONE && s->max_tokens >= 0 && s->n_generated >= s->max_tokens)
        out->finish = EDGELLM_FINISH_LENGTH;
done:
    return status;
}
