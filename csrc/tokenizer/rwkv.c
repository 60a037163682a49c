/* rwkv.c - RWKV's "world" tokenizer ("rwkv"): at each place the longest piece. Pieces are byte strings; files spell
 * them with Python's escapes (\t \n \r \xNN, any other escaped character is itself).
 * Source: rwkv_tokenizer.py of BlinkDL/RWKV-LM, whose trie holds ordinary pieces only. */
#include "tokenizer_impl.h"

#include <string.h>

#define BIT(c) (1u << (c))

static int digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : 0;
}

/* Writes at most piece.n bytes. */
static size_t unescape(char *out, el_str piece)
{
    size_t used = 0;

    for (size_t i = 0; i < piece.n; i++) {
        char c = piece.data[i];

        if (c == '\\' && i + 1 < piece.n) {
            c = piece.data[++i];
            if (c == 'x') {
                if (piece.n - i < 3)
                    break; /* cut: the byte is left out */
                c = (char)(digit(piece.data[i + 1]) << 4 | digit(piece.data[i + 2]));
                i += 2;
            } else {
                c = (char)(c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c);
            }
        } else if (c == '\\') {
            break;
        }
        out[used++] = c;
    }
    return used;
}

static edgellm_status unescape_all(el_tokenizer *t)
{
    size_t total = 0, used = 0;

    for (size_t id = 0; id < t->n_tokens; id++)
        total += t->tokens[id].n;
    t->texts = el_alloc(t->n_tokens, sizeof *t->texts);
    t->text_bytes = el_alloc(total + 1, 1);
    if (!t->texts || !t->text_bytes)
        return el_no_memory(t->n_tokens * sizeof *t->texts + total);
    for (size_t id = 0; id < t->n_tokens; id++) {
        char *out = t->text_bytes + used;

        t->texts[id] = (el_str){out, unescape(out, t->tokens[id])};
        used += t->texts[id].n;
    }
    return EDGELLM_OK;
}

static edgellm_status setup(el_tokenizer *t, const el_vocab_data *data)
{
    edgellm_status status = EDGELLM_OK;

    t->frames_never = true;
    t->plain_pieces = true;
    t->drops_bytes = true;
    t->stand_in = t->special[EDGELLM_TOKEN_UNK];
    EL_TRY(unescape_all(t));
    EL_TRY(el_index_trie(t, data,
                         BIT(EL_TOKEN_UNDEFINED) | BIT(EL_TOKEN_NORMAL) | BIT(EL_TOKEN_USER_DEFINED) |
                             BIT(EL_TOKEN_UNUSED) | BIT(EL_TOKEN_BYTE)));
done:
    return status;
}

static edgellm_status encode(el_encoding *run, const char *text, size_t n)
{
    edgellm_status status = EDGELLM_OK;

    for (size_t at = 0, length; at < n && status == EDGELLM_OK; at += EL_MAX(length, 1)) {
        int32_t id;

        length = el_prefix_longest(&run->t->trie, text + at, n - at, &id);
        if (length)
            el_emit(run, id);
        else
            status = el_emit_byte(run, (uint8_t)text[at]);
    }
    return status;
}

const el_family el_family_rwkv = {"rwkv", setup, encode};
